package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"hufu/api"
	"hufu/ca"
	"hufu/ca/stepca"
	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/officers"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/topup"
)

// look opens the book of a node that is dead, reads what the journal and the
// witness say of the last life, lets see judge the rest, and has the whole book
// checked. changing says that the life changed what CRLs show.
func (l *lane) look(ctx context.Context, t *tally, changing bool, see func(tx *store.Tx) error) error {
	return l.open(ctx, func(book *store.Book) error {
		since := l.seen
		lists, err := l.readJournal(ctx, book, t)
		if err != nil {
			return err
		}
		kept, err := l.readCRLs(ctx, book, since)
		if err != nil {
			return err
		}
		if err := l.readWitness(t, lists, kept, changing); err != nil {
			return err
		}
		if err := book.View(ctx, see); err != nil {
			return err
		}
		return book.Check(ctx, nil)
	})
}

// open opens the book while no node runs.
func (l *lane) open(ctx context.Context, f func(*store.Book) error) (err error) {
	engine, err := bolt.Open(l.path("centre", "data", "book.db"), bolt.Options{MustExist: true, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	book, err := store.Open(ctx, store.Config{Engine: engine, Log: slog.New(slog.DiscardHandler), Tables: slices.Concat(
		ca.Tables, officers.Tables, jobs.Tables, readers.Tables, stage1.Tables, stage2.Tables, topup.Tables, api.Tables, stepca.Tables, ldapsync.Tables(), escrow.Tables)})
	if err != nil {
		return err
	}
	return f(book)
}

// readJournal reads what happened since it was read last, and returns how many CRLs
// each CA has recorded since.
func (l *lane) readJournal(ctx context.Context, book *store.Book, t *tally) (lists map[string]int, err error) {
	lists = make(map[string]int)
	for {
		events, err := book.Events(ctx, l.seen, 1000)
		if err != nil || len(events) == 0 {
			return lists, err
		}
		for _, e := range events {
			l.seen = e.Seq
			switch e.Kind {
			case store.KindIntent:
				var d struct{ TBS string }
				if err := json.Unmarshal([]byte(e.Detail), &d); err != nil {
					return nil, fmt.Errorf("reading the intent %d: %w", e.Seq, err)
				}
				l.intended[d.TBS] = true
			case store.KindIntentClosed:
				t.recovered++
			case store.KindCRL:
				lists[e.CA]++
			case store.KindHeld, store.KindResumed, store.KindRevoked:
				l.changes[e.Kind+" "+e.Serial.String()]++
			}
		}
	}
}

// readCRLs notes the hashes of the lists that the book keeps, and returns how many
// of each CA were recorded after an event.
func (l *lane) readCRLs(ctx context.Context, book *store.Book, since uint64) (kept map[string]int, err error) {
	kept = make(map[string]int)
	return kept, book.View(ctx, func(tx *store.Tx) error {
		for c, err := range store.CRLs.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			der, err := io.ReadAll(store.OpenCRL(tx, c))
			if err != nil {
				return err
			}
			list, err := x509.ParseRevocationList(der)
			if err != nil {
				return fmt.Errorf("parsing CRL %d of CA %s: %w", c.Number, c.CA, err)
			}
			if c.Seq > since {
				kept[c.CA]++
			}
			l.lists[fmt.Sprintf("%x", sha256.Sum256(list.RawTBSRevocationList))] = true
		}
		return nil
	})
}

// readWitness compares the signatures of CA keys with the intents and the lists.
// A CRL has no intent. Of a CA's lists, the one that was being made when the
// node was killed may be signed and not recorded: one in each life, none in a
// life that recorded its list and had nothing to change in it. The book keeps a CA's
// newest lists only: each that was recorded and dropped since explains a signature.
func (l *lane) readWitness(t *tally, recorded, kept map[string]int, changing bool) error {
	raw, err := os.ReadFile(l.path("centre", "signed"))
	if err != nil {
		return err
	}
	fresh := raw[l.read:]
	l.read = int64(len(raw))
	unexplained := make(map[string]int)
	for line := range bytes.Lines(fresh) {
		label, digest, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if !ok || label == "?" {
			return fmt.Errorf("the witness wrote %q", line)
		}
		if id, ok := strings.CutPrefix(label, "ca-"); ok && !l.intended[digest] && !l.lists[digest] {
			unexplained[id]++
		}
	}
	for id, n := range unexplained {
		n -= max(recorded[id]-kept[id], 0)
		if changing || recorded[id] == 0 {
			n--
		}
		if l.cut {
			n--
		}
		t.unrecorded += max(n, 0)
	}
	return nil
}
