package ldapsync_test

import (
	"path/filepath"
	"strings"
	"testing"

	"hufu/ldapsync"
	"hufu/store"
)

// TestRestoredBook restores an old backup of the book under two live directories that know more.
func TestRestoredBook(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	dirs := []ldapsync.Directory{directory("north", north), directory("south", south)}
	certs := b.issue("330100", 20)
	b.set(certs[9], store.Held, 6)
	p := publish(t, b, "n1", dirs...)
	p.inStep(t, b, "north", "south")
	old := b.backup()

	lost := b.issue("330100", 5)
	b.set(lost[0], store.Revoked, 1)
	b.set(lost[1], store.Held, 6)
	b.set(certs[0], store.Revoked, 1)
	b.set(certs[9], store.Good, 0)
	never := b.closeIntent("330200")
	b.publishCRL("330100")
	p.inStep(t, b, "north", "south")
	p.stop()

	b.restore(old)
	if _, err := ldapsync.Recall(t.Context(), dirs[0], b.Book, pki().key.Public()); err != nil {
		t.Fatal(err)
	}
	if ahead := newPublisher(t, b, "n1", dirs...).Ahead(t.Context()); len(ahead) != 2 {
		t.Fatalf("%d directories are found ahead of the book, want 2: %v", len(ahead), ahead)
	} else {
		t.Log(ahead[0])
	}
	// A publisher that runs nevertheless leaves the directories alone.
	p = publish(t, b, "n1", dirs...)
	until(t, "the notice", func() bool {
		return p.of("north").State == "ahead of the book" && p.of("south").State == "ahead of the book"
	})
	p.stop()
	if got := statusIn(t, dial(t, north), certs[0]); got != "revoked" {
		t.Fatalf("a revoked certificate became %s", got)
	}

	r, err := ldapsync.Recall(t.Context(), dirs[0], b.Book, pki().key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if !r.Verified || len(r.Certificates) != 5 || len(r.Statuses) != 8 || len(r.CRLs) != 1 || len(r.Kept) != 0 {
		t.Errorf("recalled, verified %v: %d certificates, %d statuses, %d CRLs, kept %v; want 5, 8 (5 new, 2 changed, 1 without certificate), 1, none",
			r.Verified, len(r.Certificates), len(r.Statuses), len(r.CRLs), r.Kept)
	}
	beside := 0
	for range 2 { // the second time it finds everything done
		err := r.Commit(t.Context(), b.Book, "test", func(tx *store.Tx, c *store.Certificate) error {
			beside++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if beside < 5 {
		t.Errorf("upper floors heard of %d certificates, want 5", beside)
	}
	if ahead := newPublisher(t, b, "n1", dirs...).Ahead(t.Context()); len(ahead) != 0 {
		t.Fatalf("after everything was brought back: %v", ahead)
	}
	err = b.View(t.Context(), func(tx *store.Tx) error {
		for serial, want := range map[store.Serial]store.State{
			lost[0].Serial: store.Revoked, lost[1].Serial: store.Held, lost[2].Serial: store.Good, certs[0].Serial: store.Revoked, certs[9].Serial: store.Good,
		} {
			s, err := store.Statuses.Get(tx, store.SerialKey("330100", serial))
			if err != nil {
				return err
			}
			if s.State != want {
				t.Errorf("%s is %s, want %s", serial, s.State, want)
			}
		}
		s, err := store.Statuses.Get(tx, store.SerialKey("330200", never))
		if err != nil || !s.Unissued || s.State != store.Revoked {
			t.Errorf("a serial number without a certificate: %+v, %v", s, err)
		}
		c, err := store.FindCertificate(tx, "330100", lost[2].Serial)
		if err != nil {
			return err
		}
		if c.Subject != lost[2].Subject || c.Reader != lost[2].Reader || c.Line != lost[2].Line || c.SPKI != lost[2].SPKI || len(c.Names) != len(lost[2].Names) ||
			!c.NotAfter.Equal(lost[2].NotAfter) || c.Profile != lost[2].Profile || c.City != lost[2].City {
			t.Errorf("recalled %+v, was %+v", c, lost[2])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	more := b.issue("330100", 3)
	b.set(more[0], store.Revoked, 1)
	p = publish(t, b, "n1", dirs...)
	p.inStep(t, b, "north", "south")
	holds(t, north, b)
	holds(t, south, b)
	if s := p.of("north"); s.Unknown != 0 || s.Repairs != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestRestoredTwice restores one backup twice; the directory has seen the epoch between.
func TestRestoredTwice(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	d := directory("north", north)
	certs := b.issue("330100", 5)
	p := publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	p.stop()
	old := b.backup()
	for round := range 2 {
		b.restore(old)
		if round > 0 {
			if ahead := newPublisher(t, b, "n1", d).Ahead(t.Context()); len(ahead) != 1 {
				t.Fatal("an epoch that this book never was in is not noticed")
			}
			r, err := ldapsync.Recall(t.Context(), d, b.Book, pki().key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Commit(t.Context(), b.Book, "test", nil); err != nil {
				t.Fatal(err)
			}
		}
		if ahead := newPublisher(t, b, "n1", d).Ahead(t.Context()); len(ahead) != 0 {
			t.Fatalf("round %d: %v", round, ahead)
		}
		b.issue("330100", 2)
		b.set(certs[round], store.Revoked, 1)
		p = publish(t, b, "n1", d)
		p.inStep(t, b, "north")
		holds(t, north, b)
		p.stop()
	}
	if got := statusIn(t, dial(t, north), certs[0]); got != "revoked" {
		t.Errorf("what was revoked in the lost epoch is %s", got)
	}
}

// TestBehindBeforeRestore: a directory that was behind the backup is no obstacle, and neither is one that lay exactly there.
func TestBehindBeforeRestore(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north, south := startDirectory(t), startDirectory(t)
	dirs := []ldapsync.Directory{directory("north", north), directory("south", south)}
	certs := b.issue("330100", 10)
	p := publish(t, b, "n1", dirs...)
	p.inStep(t, b, "north", "south")
	if err := north.Stop(); err != nil {
		t.Fatal(err)
	}
	b.set(certs[0], store.Revoked, 1)
	p.inStep(t, b, "south")
	p.stop()
	b.restore(b.backup())
	if err := north.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ahead := newPublisher(t, b, "n1", dirs...).Ahead(t.Context()); len(ahead) != 0 {
		t.Fatalf("directories that know nothing more: %v", ahead)
	}
	b.set(certs[1], store.Revoked, 1)
	p = publish(t, b, "n1", dirs...)
	p.inStep(t, b, "north", "south")
	holds(t, north, b)
	holds(t, south, b)
}

// TestUnverifiedRecall: where the directory does not fit its statement, nobody is let out of a hold, and rubbish stays where it is.
func TestUnverifiedRecall(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	d := directory("north", north)
	certs := b.issue("330100", 4)
	b.set(certs[0], store.Held, 6)
	p := publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	old := b.backup()
	b.set(certs[0], store.Good, 0)
	b.set(certs[1], store.Revoked, 1)
	lost := b.issue("330100", 2)
	p.inStep(t, b, "north")
	p.stop()

	c := asPublisher(t, north)
	change := func(cert *store.Certificate, attribute, value string) {
		t.Helper()
		m := newModify(cert)
		m.Replace(attribute, []string{value})
		if err := c.Modify(m); err != nil {
			t.Fatal(err)
		}
	}
	change(lost[0], "userCertificate;binary", string(certs[2].DER))
	b.restore(old)
	r, err := ldapsync.Recall(t.Context(), d, b.Book, pki().key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if r.Verified || len(r.Certificates) != 1 || len(r.Statuses) != 3 || len(r.Kept) != 1 || len(r.Notes) != 1 {
		t.Errorf("recalled, verified %v: %d certificates, %d statuses, kept %v, notes %v; want 1, 3, one kept and one note",
			r.Verified, len(r.Certificates), len(r.Statuses), r.Kept, r.Notes)
	}
	if err := r.Commit(t.Context(), b.Book, "test", nil); err != nil {
		t.Fatal(err)
	}
	p = publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	rd := dial(t, north)
	if got := statusIn(t, rd, certs[1]); got != "revoked" {
		t.Errorf("a revoked certificate is %s", got)
	}
	if got := statusIn(t, rd, certs[0]); got != "on-hold" {
		t.Errorf("a certificate that the book holds is %s", got)
	}
	if s := p.of("north"); s.Unknown != 1 {
		t.Errorf("%d entries that the book does not know are told, want 1", s.Unknown)
	}
}

// TestCopiedBook runs an old copy of the book's file, which no restore has marked.
func TestCopiedBook(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	north := startDirectory(t)
	d := directory("north", north)
	certs := b.issue("330100", 5)
	p := publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	p.stop()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(t.TempDir(), "copy")
	copyFile(t, b.path, old)
	reopen := func(path string) {
		t.Helper()
		b.engine = openEngine(t, path)
		sb, err := store.Open(t.Context(), b.config())
		if err != nil {
			t.Fatal(err)
		}
		b.keep(sb)
	}
	reopen(b.path)
	b.set(certs[0], store.Revoked, 1)
	b.set(certs[1], store.Revoked, 1)
	p = publish(t, b, "n1", d)
	p.inStep(t, b, "north")
	p.stop()
	b.close()

	reopen(old)
	ahead := newPublisher(t, b, "n1", d).Ahead(t.Context())
	if len(ahead) != 1 {
		t.Fatal("an old copy of the book is not noticed")
	}
	t.Log(ahead[0])
	if _, err := ldapsync.Recall(t.Context(), d, b.Book, pki().key.Public()); err == nil {
		t.Error("certificates are brought back into an epoch that has not ended")
	} else {
		t.Log(err)
	}
	// It goes on in its own way, and is longer than the true one was.
	for _, c := range certs[2:] {
		b.set(c, store.Held, 6)
	}
	ahead = newPublisher(t, b, "n1", d).Ahead(t.Context())
	if len(ahead) != 1 || !strings.Contains(ahead[0].Reason, "another history") {
		t.Fatalf("a book with another history is not noticed: %v", ahead)
	}
	t.Log(ahead[0])
	p = publish(t, b, "n1", d)
	until(t, "the notice", func() bool { return p.of("north").State == "ahead of the book" })
	if got := statusIn(t, dial(t, north), certs[0]); got != "revoked" {
		t.Errorf("a revoked certificate became %s", got)
	}
}
