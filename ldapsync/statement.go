package ldapsync

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hufu/store"
)

// Statement is what a book says of a directory: every change up to Seq is in it, and the entries of the book there had Digest when it was
// signed. Signed, it is a note as C2SP's signed-note has it,
//
//	hufu/directory/<book>/<epoch>
//	sequence <seq>
//	time <RFC 3339>
//	journal <size> <root in base64>
//	entries <count>
//	digest <hexadecimal, or "-" while the directory is being filled>
//
// with an ECDSA signature over SHA-256 under the first line as its name. It is signed while no change is under way, so as long as nothing
// is written after it, anyone can recompute the digest: see Entry and Tree.
type Statement struct {
	Book    string
	Epoch   uint64
	Seq     uint64
	Time    time.Time
	Journal store.Tree // the book's journal, at or after Seq
	Entries int64
	Digest  store.Hash // zero: not known yet
}

const statementPrefix = "hufu/directory/"

func (s *Statement) origin() string { return fmt.Sprintf("%s%s/%d", statementPrefix, s.Book, s.Epoch) }

// text returns what is signed.
func (s *Statement) text() string {
	digest := "-"
	if s.Digest != (store.Hash{}) {
		digest = s.Digest.String()
	}
	return fmt.Sprintf("%s\nsequence %d\ntime %s\njournal %d %s\nentries %d\ndigest %s\n", s.origin(), s.Seq, s.Time.Format(time.RFC3339Nano),
		s.Journal.Size, base64.StdEncoding.EncodeToString(s.Journal.Root[:]), s.Entries, digest)
}

// parseStatement reads what text writes.
func parseStatement(text string) (*Statement, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 7 {
		return nil, errors.New("it does not have the six lines of a statement")
	}
	s := new(Statement)
	book, epoch, _ := strings.Cut(strings.TrimPrefix(lines[0], statementPrefix), "/")
	s.Book = book
	value := func(i int, label string) string { return strings.TrimPrefix(lines[i], label+" ") }
	size, root64, _ := strings.Cut(value(3, "journal"), " ")
	root, badRoot := base64.StdEncoding.DecodeString(root64)
	copy(s.Journal.Root[:], root)
	var bad [6]error
	s.Epoch, bad[0] = strconv.ParseUint(epoch, 10, 64)
	s.Seq, bad[1] = strconv.ParseUint(value(1, "sequence"), 10, 64)
	s.Time, bad[2] = time.Parse(time.RFC3339Nano, value(2, "time"))
	s.Journal.Size, bad[3] = strconv.ParseInt(size, 10, 64)
	s.Entries, bad[4] = strconv.ParseInt(value(4, "entries"), 10, 64)
	if digest := value(5, "digest"); digest != "-" {
		s.Digest, bad[5] = store.ParseHash(digest)
	}
	if err := errors.Join(append(bad[:], badRoot)...); err != nil {
		return nil, err
	}
	// One statement has one form only.
	if s.text() != text {
		return nil, errors.New("it is not written the one way that a statement is")
	}
	return s, nil
}

// Sign returns the statement as a signed note.
func (s *Statement) Sign(key crypto.Signer) ([]byte, error) {
	signed, err := store.SignNote(s.text(), key)
	if err != nil {
		return nil, fmt.Errorf("signing statement: %w", err)
	}
	return signed, nil
}

// ParseStatement reads a signed note and checks its signature.
func ParseStatement(signed []byte, key crypto.PublicKey) (*Statement, error) {
	text, err := store.OpenNote(signed, key)
	if err != nil {
		return nil, fmt.Errorf("reading statement: %w", err)
	}
	s, err := parseStatement(text)
	if err != nil {
		return nil, fmt.Errorf("reading statement: %w", err)
	}
	return s, nil
}
