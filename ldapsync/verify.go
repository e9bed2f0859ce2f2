package ldapsync

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// Report is what somebody finds who reads a directory and computes the digest again.
type Report struct {
	Statement *Statement
	Entries   int64
	Digest    store.Hash
}

// Err says in what the directory differs from its statement; nil if it does not.
func (r *Report) Err() error {
	switch {
	case r.Statement.Digest.IsZero():
		return fmt.Errorf("the directory is being filled: its statement of %v has no digest yet", position{r.Statement.Epoch, r.Statement.Seq})
	case r.Digest != r.Statement.Digest:
		return fmt.Errorf("the directory's %d entries have the digest %s; the statement of %v says %d entries and %s: somebody else wrote there",
			r.Entries, r.Digest, position{r.Statement.Epoch, r.Statement.Seq}, r.Statement.Entries, r.Statement.Digest)
	}
	return nil
}

// UnprovenError says that a directory holds nothing that proves anything to the holder of a key.
type UnprovenError struct{ Reason string }

func (e *UnprovenError) Error() string { return e.Reason }

// Verify reads what a book has in a directory, as anyone may, and compares it with the statement that key must have signed. It needs neither
// the book nor a client certificate. While the directory is written to, it reads again, a few times.
func Verify(ctx context.Context, d Directory, book string, key crypto.PublicKey) (*Report, error) {
	return verifyAt(ctx, d, func(*link) (string, error) { return book, nil }, key, nil)
}

// Prove is Verify for strangers, who do not know the book's identity: it is that of the one watermark with a statement that key signed. Where
// there is none, or several, the error wraps *UnprovenError; then book says which is meant. progress, if not nil, is told how
// many entries of how many were read.
func Prove(ctx context.Context, d Directory, book string, key crypto.PublicKey, progress func(done, total int64)) (*Report, error) {
	return verifyAt(ctx, d, func(l *link) (string, error) { return l.bookOf(ctx, book, key) }, key, progress)
}

func verifyAt(ctx context.Context, d Directory, find func(*link) (string, error), key crypto.PublicKey, progress func(done, total int64)) (*Report, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("directory %q: %w", d.Name, err)
	}
	l, err := connect(ctx, &d)
	if err != nil {
		return nil, err
	}
	defer l.close()
	book, err := find(l)
	if err != nil {
		return nil, fmt.Errorf("verifying %s: %w", d.Name, err)
	}
	var r *Report
	for range 5 {
		st, err := l.statement(book, key)
		if err != nil {
			return nil, fmt.Errorf("verifying %s: %w", d.Name, err)
		}
		tree := new(Tree)
		err = l.entries(ctx, bookFilter(book), func(_ *ldap.DN, e *Entry) error {
			tree.Set(e.Name, e.Digest())
			if n := tree.Len(); progress != nil && n%500 == 0 {
				progress(n, max(n, st.Entries))
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("verifying %s: reading the entries: %w", d.Name, err)
		}
		r = &Report{Statement: st, Entries: tree.Len(), Digest: tree.Root()}
		if r.Err() == nil {
			return r, nil
		}
		// Changes that came while the entries were read are in a later statement.
		again, err := l.statement(book, key)
		if err != nil {
			return nil, fmt.Errorf("verifying %s: %w", d.Name, err)
		}
		if again.Seq == st.Seq && again.Digest == st.Digest && !again.Time.After(st.Time) && !pause(ctx, settle) {
			return nil, ctx.Err()
		}
	}
	return r, nil
}

// bookOf finds the book whose statement in this directory key signed.
func (l *link) bookOf(ctx context.Context, want string, key crypto.PublicKey) (string, error) {
	var books []string
	marks := 0
	err := l.each(ctx, "(objectClass=hufuWatermark)", []string{attrBook, attrStatement}, func(e *ldap.Entry) error {
		id := e.GetAttributeValue(attrBook)
		if want != "" && id != want {
			return nil
		}
		marks++
		if st, err := ParseStatement([]byte(e.GetAttributeValue(attrStatement)), key); err == nil && st.Book == id {
			books = append(books, id)
		}
		return nil
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("looking for watermarks: %w", err)
	case len(books) == 1:
		return books[0], nil
	case len(books) > 1:
		return "", &UnprovenError{fmt.Sprintf("the key signed the statements of %d books: name one of %s", len(books), strings.Join(books, ", "))}
	case marks == 0:
		return "", &UnprovenError{"nothing below " + l.dir.Base + " says what was committed: there is no watermark"}
	}
	return "", &UnprovenError{fmt.Sprintf("none of the %d watermarks below %s has a statement that this key signed", marks, l.dir.Base)}
}

// settle is a little longer than it takes until a change is followed by a statement.
const settle = 10 * quiet

// statement reads the watermark and checks its signature.
func (l *link) statement(book string, key crypto.PublicKey) (*Statement, error) {
	m, err := l.watermark(book)
	if err != nil {
		return nil, fmt.Errorf("reading the watermark: %w", err)
	}
	if m == nil || m.note == "" {
		return nil, fmt.Errorf("there is no statement of book %s", book)
	}
	st, err := ParseStatement([]byte(m.note), key)
	if err != nil {
		return nil, err
	}
	if st.Book != book {
		return nil, errors.New("the statement is of another book")
	}
	return st, nil
}

// entries goes through the entries that match, with their full names.
func (l *link) entries(ctx context.Context, filter string, f func(dn *ldap.DN, e *Entry) error) error {
	return l.each(ctx, filter, []string{"*"}, func(raw *ldap.Entry) error {
		e, err := entryOf(raw, l.base)
		if err != nil {
			return err
		}
		dn, err := ldap.ParseDN(raw.DN)
		if err != nil {
			return err
		}
		return f(dn, e)
	})
}
