package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"strings"
	"testing"

	"hufu/store"
)

// world is a book with something of everything in it, in a file.
type world struct {
	path  string
	certs []*store.Certificate
	seqs  map[string]uint64 // Seq of some events
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{path: filepath.Join(t.TempDir(), "book"), seqs: map[string]uint64{}}
	b, err := store.Create(ctx, store.Config{Engine: engineAt(t, w.path), Tables: []store.Checked{&pets}})
	if err != nil {
		t.Fatal(err)
	}
	w.certs = append(issue(t, b, "330100", 20), issue(t, b, "services", 5)...)
	update(t, b, func(tx *store.Tx) error {
		w.seqs["held"] = tx.Head() + 1
		open, closed := newIntent(t), newIntent(t)
		err := errors.Join(setState(tx, w.certs[0], store.Held, store.KindHeld), setState(tx, w.certs[1], store.Held, store.KindHeld),
			setState(tx, w.certs[1], store.Good, store.KindResumed), setState(tx, w.certs[2], store.Revoked, store.KindRevoked),
			reserve(tx, open), reserve(tx, closed), pets.Insert(tx, &pet{"tom", "cat", []string{"fish"}}), pets.Insert(tx, &pet{Name: "rex", Kind: "dog"}),
			publish(tx, &store.CRL{CA: "330100", Number: 1}, bytes.NewReader(octets(100_000))))
		seq := tx.Append(store.Event{Kind: store.KindIntentClosed, CA: closed.CA, Serial: closed.Serial})
		ca := &store.CA{ID: "330100", Certificate: w.certs[3].DER, SPKI: w.certs[3].SPKI}
		ca.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: ca.ID})
		return errors.Join(err, store.CAs.Insert(tx, ca), store.Intents.Delete(tx, store.SerialKey(closed.CA, closed.Serial)),
			store.Statuses.Insert(tx, &store.Status{CA: closed.CA, Serial: closed.Serial, State: store.Revoked, Unissued: true, Seq: seq}))
	})
	if _, err := b.Checkpoint(ctx, key(t)); err != nil {
		t.Fatal(err)
	}
	w.seqs["head"] = uint64(tree(t, b).Size)
	check(t, b)
	closeBook(t, b)
	return w
}

func newIntent(t testing.TB) *store.Intent {
	_, i := newMint(t).certificate("330100")
	return i
}

// plant changes the file behind the book's back.
func (w *world) plant(t testing.TB, f func(s store.Snapshot, put func(key string, value []byte))) {
	t.Helper()
	e := engineAt(t, w.path)
	err := e.Update(ctx, func(s store.Snapshot) (writes []store.Write, err error) {
		f(s, func(key string, value []byte) { writes = append(writes, store.Write{Key: key, Value: value}) })
		return writes, nil
	})
	if err := errors.Join(err, e.Close()); err != nil {
		t.Fatal(err)
	}
}

// The key space, as the file has it.
func eventAt(seq uint64) string { return "e" + string(binary.BigEndian.AppendUint64(nil, seq)) }

// sealed puts the checksum behind a row.
func sealed(key, row []byte) []byte {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return binary.BigEndian.AppendUint32(bytes.Clone(row), crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, row))
}

func rowAt(table string, key []byte) string { return "t" + table + "\x00" + string(key) }

func entryAt(table, index string, indexKey, key []byte) string {
	return "i" + table + "\x00" + index + "\x00" + string(indexKey) + string(key) + string(binary.BigEndian.AppendUint16(nil, uint16(len(key))))
}

func value(t testing.TB, s store.Snapshot, key string) []byte {
	t.Helper()
	v, err := s.Get([]byte(key))
	if err != nil || v == nil {
		t.Fatalf("there is nothing at %q: %v", key, err)
	}
	return bytes.Clone(v)
}

// TestCheckFinds plants one fault at a time.
func TestCheckFinds(t *testing.T) {
	type putter = func(key string, value []byte)
	w := newWorld(t)
	certKey := store.Key(w.certs[4].Seq)
	statusOf := func(t *testing.T, s store.Snapshot, put putter, n int, change func(*store.Status)) {
		key := store.SerialKey(w.certs[n].CA, w.certs[n].Serial)
		row := value(t, s, rowAt("status", key))
		var status store.Status
		if err := store.Statuses.Codec.Decode(row[:len(row)-4], &status); err != nil {
			t.Fatal(err)
		}
		change(&status)
		put(rowAt("status", key), sealed(key, store.Statuses.Codec.Append(nil, &status)))
	}
	certificate := func(t *testing.T, s store.Snapshot, put putter, change func(*store.Certificate)) {
		c := *w.certs[4]
		change(&c)
		put(rowAt("cert", certKey), sealed(certKey, store.Certificates.Codec.Append(nil, &c)))
	}
	for name, c := range map[string]struct {
		plant func(t *testing.T, s store.Snapshot, put putter)
		says  string
	}{
		"edited event": {func(t *testing.T, s store.Snapshot, put putter) {
			var e store.Event
			if err := store.DecodeEvent(value(t, s, eventAt(7)), &e); err != nil {
				t.Fatal(err)
			}
			e.Actor = "somebody else"
			put(eventAt(7), store.AppendEvent(nil, &e))
		}, "event 7 was edited"},
		"spoiled event": {func(t *testing.T, s store.Snapshot, put putter) {
			put(eventAt(7), value(t, s, eventAt(7))[:9])
		}, "event 7"},
		"event in the place of another": {func(t *testing.T, s store.Snapshot, put putter) { put(eventAt(7), value(t, s, eventAt(8))) }, "lies event 8"},
		"missing event":                 {func(t *testing.T, s store.Snapshot, put putter) { put(eventAt(7), nil) }, "event 7 is missing"},
		"edited node": {func(t *testing.T, s store.Snapshot, put putter) {
			at := "n" + strings.Repeat("\x00", 7) + "\x01"
			nodes := value(t, s, at)
			nodes[100] ^= 1
			put(at, nodes)
		}, "event 20 was edited"}, // node 35 is the leaf of event 20
		"missing nodes": {func(t *testing.T, s store.Snapshot, put putter) { put("n"+strings.Repeat("\x00", 8), nil) }, "node of the tree above event 1 is missing"},
		"more nodes than belong": {func(t *testing.T, s store.Snapshot, put putter) {
			put("n"+strings.Repeat("\x00", 7)+"\x77", octets(32))
		}, "the tree has more or fewer nodes"},
		"edited certificate": {func(t *testing.T, s store.Snapshot, put putter) {
			row := value(t, s, rowAt("cert", certKey))
			row[len(row)-400] ^= 1
			put(rowAt("cert", certKey), row)
		}, "checksum of the row"},
		"certificate with another end": {func(t *testing.T, s store.Snapshot, put putter) {
			certificate(t, s, put, func(c *store.Certificate) { c.NotAfter = c.NotAfter.AddDate(1, 0, 0) })
		}, "is valid from"},
		"certificate for another key": {func(t *testing.T, s store.Snapshot, put putter) {
			certificate(t, s, put, func(c *store.Certificate) { c.SPKI[0] ^= 1 })
		}, "is for another key"},
		"certificate of another serial": {func(t *testing.T, s store.Snapshot, put putter) {
			certificate(t, s, put, func(c *store.Certificate) { c.DER = w.certs[5].DER })
		}, "has the serial number"},
		"certificate that names another event": {func(t *testing.T, s store.Snapshot, put putter) {
			certificate(t, s, put, func(c *store.Certificate) { c.Seq-- })
		}, "but that is intent of"},
		"certificate that was changed": {func(t *testing.T, s store.Snapshot, put putter) {
			certificate(t, s, put, func(c *store.Certificate) { c.Reader = "r7" })
		}, "missing from index reader"},
		"missing certificate": {func(t *testing.T, s store.Snapshot, put putter) { put(rowAt("cert", certKey), nil) }, "issued is missing"},
		"missing status": {func(t *testing.T, s store.Snapshot, put putter) {
			put(rowAt("status", store.SerialKey(w.certs[4].CA, w.certs[4].Serial)), nil)
		}, "has no status"},
		"status set back": {func(t *testing.T, s store.Snapshot, put putter) {
			statusOf(t, s, put, 2, func(x *store.Status) { x.State, x.Seq = store.Good, w.certs[2].Seq })
		}, "misses event"},
		"status without an event": {func(t *testing.T, s store.Snapshot, put putter) {
			statusOf(t, s, put, 2, func(x *store.Status) { x.State = store.Good })
		}, "but that is revoked of"},
		"status of an event to come": {func(t *testing.T, s store.Snapshot, put putter) {
			statusOf(t, s, put, 2, func(x *store.Status) { x.Seq = 10_000 })
		}, "names event 10000, which is not there"},
		"missing entry": {func(t *testing.T, s store.Snapshot, put putter) {
			put(entryAt("cert", "spki", w.certs[4].SPKI[:], certKey), nil)
		}, "missing from index spki"},
		"left-over entry": {func(t *testing.T, s store.Snapshot, put putter) {
			put(entryAt("cert", "reader", store.Key("r7"), certKey), []byte{})
		}, "index reader of table cert has an old entry"},
		"entry without a row": {func(t *testing.T, s store.Snapshot, put putter) {
			put(entryAt("cert", "reader", store.Key("r7"), store.Key("nowhere")), []byte{})
		}, "names the row nowhere, which is not there"},
		"entry of another table": {func(t *testing.T, s store.Snapshot, put putter) {
			put(entryAt("pet", "kind", store.Key("cat"), store.Key("tim")), []byte{})
		}, "index kind of table pet names the row tim"},
		"row of another table": {func(t *testing.T, s store.Snapshot, put putter) {
			put(rowAt("pet", store.Key("tim")), []byte(`{"Name":"tim"}`))
		}, "rows; the head of the book says"},
		"row in the wrong place": {func(t *testing.T, s store.Snapshot, put putter) {
			put(rowAt("node", store.Key("b")), sealed(store.Key("b"), []byte(`{"ID":"a"}`)))
		}, "node a lies where b belongs"},
		"one serial number twice": {func(t *testing.T, s store.Snapshot, put putter) {
			c := *w.certs[4]
			c.CA = "services"
			c.Seq = 10_000
			key := store.Key(c.Seq)
			put(rowAt("cert", key), sealed(key, store.Certificates.Codec.Append(nil, &c)))
			put(entryAt("cert", "serial", store.SerialKey(c.CA, c.Serial), key), []byte{})
		}, "have one serial number"},
		"one key in two lines": {func(t *testing.T, s store.Snapshot, put putter) {
			put(entryAt("cert", "spki", w.certs[4].SPKI[:], store.Key(w.certs[5].Seq)), []byte{})
		}, "belong to two lines"},
		"missing intent": {func(t *testing.T, s store.Snapshot, put putter) {
			for pair := range s.Scan([]byte("tintent\x00"), []byte("tintent\x01"), false) {
				var i store.Intent
				if err := store.Intents.Codec.Decode(pair.Value[:len(pair.Value)-4], &i); err != nil {
					t.Fatal(err)
				}
				if i.Seq > w.seqs["held"] {
					put(string(pair.Key), nil)
				}
			}
		}, "has no outcome and no record"},
		"missing octets of a CRL": {func(t *testing.T, s store.Snapshot, put putter) {
			put("c"+string(store.Key("330100", uint16(0), false, uint64(1), uint32(1))), nil)
		}, "CRL 1 of 330100"},
		"edited octets of a CRL": {func(t *testing.T, s store.Snapshot, put putter) {
			at := "c" + string(store.Key("330100", uint16(0), false, uint64(1), uint32(0)))
			chunk := value(t, s, at)
			chunk[9] ^= 1
			put(at, chunk)
		}, "CRL 1 of 330100"},
		"CA with another certificate": {func(t *testing.T, s store.Snapshot, put putter) {
			row := value(t, s, rowAt("ca", store.Key("330100")))
			row = bytes.Replace(row[:len(row)-4], w.certs[3].SPKI[:], w.certs[4].SPKI[:], 1)
			put(rowAt("ca", store.Key("330100")), sealed(store.Key("330100"), row))
		}, "CA 330100"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCopy(t, w)
			w.plant(t, func(s store.Snapshot, put func(key string, value []byte)) { c.plant(t, s, put) })
			e := engineAt(t, w.path)
			defer e.Close()
			b, err := store.Open(ctx, store.Config{Engine: e})
			if err != nil {
				t.Fatal(err)
			}
			var damage *store.DamageError
			err = b.Check(ctx, nil)
			if !errors.As(err, &damage) || !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Check says: %v; it should say: %s", err, c.says)
			}
		})
	}
}

// newCopy copies the file of a world, so that it can be spoiled.
func newCopy(t testing.TB, w *world) *world {
	t.Helper()
	c := *w
	c.path = filepath.Join(t.TempDir(), "book")
	copyFile(t, w.path, c.path)
	return &c
}

// TestOpenFinds plants what Open sees at once.
func TestOpenFinds(t *testing.T) {
	w := newWorld(t)
	last := w.seqs["head"]
	for name, c := range map[string]struct {
		plant func(s store.Snapshot, put func(key string, value []byte))
		is    error
	}{
		"journal cut":       {func(s store.Snapshot, put func(string, []byte)) { put(eventAt(last), nil) }, store.ErrCorrupt},
		"journal continued": {func(s store.Snapshot, put func(string, []byte)) { put(eventAt(last+1), value(t, s, eventAt(last))) }, store.ErrCorrupt},
		"head cut":          {func(s store.Snapshot, put func(string, []byte)) { put("bhead", value(t, s, "bhead")[:50]) }, store.ErrCorrupt},
		"no head":           {func(s store.Snapshot, put func(string, []byte)) { put("bhead", nil) }, store.ErrCorrupt},
		"spoiled identity":  {func(s store.Snapshot, put func(string, []byte)) { put("bbook", []byte("{}")) }, store.ErrCorrupt},
		"no identity":       {func(s store.Snapshot, put func(string, []byte)) { put("bbook", nil) }, store.ErrNotFound},
		"another epoch": {func(s store.Snapshot, put func(string, []byte)) {
			put("bbook", bytes.Replace(value(t, s, "bbook"), []byte(`"epoch":1`), []byte(`"epoch":2`), 1))
		}, store.ErrCorrupt},
	} {
		w := newCopy(t, w)
		w.plant(t, c.plant)
		e := engineAt(t, w.path)
		if _, err := store.Open(ctx, store.Config{Engine: e}); !errors.Is(err, c.is) {
			t.Errorf("%s: Open says %v", name, err)
		}
		e.Close()
	}
}

func TestCheckReports(t *testing.T) {
	w := newWorld(t)
	before := contents(t, w.path)
	e := engineAt(t, w.path)
	b, err := store.Open(ctx, store.Config{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	var last, total int64
	err = b.Check(ctx, func(done, of int64) {
		if done < last || done > of || total != 0 && of != total {
			t.Errorf("progress goes from %d of %d to %d of %d", last, total, done, of)
		}
		last, total = done, of
	})
	if err != nil || last != total || total < 100 {
		t.Errorf("Check ends at %d of %d, %v", last, total, err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Check(cancelled, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Check with a cancelled context: %v", err)
	}
	closeBook(t, b)
	if after := contents(t, w.path); !bytes.Equal(before, after) {
		t.Error("Check changed something")
	}
	// With very many faults, it tells the first and counts the rest.
	w.plant(t, func(s store.Snapshot, put func(string, []byte)) {
		for i := range 80 {
			put(rowAt("node", store.Key(string(rune('a'+i)))), []byte("rubbish"))
		}
	})
	e = engineAt(t, w.path)
	defer e.Close()
	if b, err = store.Open(ctx, store.Config{Engine: e}); err != nil {
		t.Fatal(err)
	}
	var damage *store.DamageError
	if err := b.Check(ctx, nil); !errors.As(err, &damage) || len(damage.Faults) != 50 || damage.More != 31 {
		t.Errorf("Check says %v", err)
	}
}

// TestCheckWhileWriting checks, again and again, a book that is being written to.
func TestCheckWhileWriting(t *testing.T) {
	b := create(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			issue(t, b, "330100", 10)
		}
	}()
	for writing := true; writing; {
		select {
		case <-done:
			writing = false
		default:
		}
		check(t, b)
	}
}
