package store_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/store"
)

func TestCheckpoint(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	b, err := store.Create(ctx, store.Config{Engine: engine(t), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer closeBook(t, b)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		was := tree(t, b)
		signed, err := b.Checkpoint(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("hufu/book/%s/1\n%d\n%s\ntime 2026-05-06T07:08:09Z\n\n— hufu/book/%s/1 ", b.ID(), was.Size,
			base64.StdEncoding.EncodeToString(was.Root[:]), b.ID())
		if !strings.HasPrefix(string(signed), want) {
			t.Errorf("the checkpoint is\n%s\nand does not begin with\n%s", signed, want)
		}
		cp, err := store.ParseCheckpoint(signed, k.Public())
		if err != nil || cp.Size != was.Size || cp.Root != was.Root || cp.Epoch != 1 || cp.Time != now || cp.Origin != "hufu/book/"+b.ID()+"/1" {
			t.Errorf("the checkpoint is read as %+v, %v", cp, err)
		}
		view(t, b, func(tx *store.Tx) error {
			e, err := tx.LastCheckpoint()
			if err != nil || e.Seq != uint64(was.Size)+1 || e.Kind != store.KindCheckpoint || e.Detail != string(signed) {
				t.Errorf("the journal has %+v, %v", e, err)
			}
			return nil
		})
		update(t, b, append1("test"))
		if err := errors.Join(b.CompareCheckpoint(ctx, cp), b.VerifyCheckpoint(ctx, cp)); err != nil {
			t.Error(err)
		}
	}
}

// liar signs something else than it is given.
type liar struct{ crypto.Signer }

func (l liar) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return l.Signer.Sign(r, bytes.Repeat([]byte{1}, 32), opts)
}

// broken cannot sign.
type broken struct{ crypto.Signer }

func (b broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the token is gone")
}

func TestCheckpointRefuses(t *testing.T) {
	b := create(t)
	k := key(t)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]crypto.Signer{"Ed25519": edwards, "wrong signature": liar{k}, "no signature": broken{k}} {
		if _, err := b.Checkpoint(ctx, bad); err == nil {
			t.Errorf("a checkpoint with %s is made", what)
		}
	}
	if tree(t, b).Size != 1 {
		t.Error("a checkpoint that was not signed is in the journal")
	}
	good, err := b.Checkpoint(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := store.ParseCheckpoint(good[:n], k.Public()); err == nil {
			t.Errorf("%d of %d octets are believed", n, len(good))
		}
		edited := bytes.Clone(good)
		edited[n] ^= 1
		if cp, err := store.ParseCheckpoint(edited, k.Public()); err == nil {
			t.Errorf("a checkpoint with octet %d changed is believed: %+v", n, cp)
		}
	}
	for what, public := range map[string]crypto.PublicKey{"another": key(t).Public(), "an Ed25519": edwards.Public()} {
		if _, err := store.ParseCheckpoint(good, public); err == nil {
			t.Errorf("the checkpoint is believed with %s key", what)
		}
	}
}

// pinned is a world with a checkpoint over all of it.
func pinned(t *testing.T) (*world, *store.Checkpoint) {
	w := newWorld(t)
	return w, w.checkpoint(t)
}

func (w *world) checkpoint(t *testing.T) (cp *store.Checkpoint) {
	t.Helper()
	k := key(t)
	w.open(t, func(b *store.Book) {
		signed, err := b.Checkpoint(ctx, k)
		if err == nil {
			cp, err = store.ParseCheckpoint(signed, k.Public())
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return cp
}

func (w *world) open(t *testing.T, f func(b *store.Book)) {
	t.Helper()
	b, err := store.Open(ctx, store.Config{Engine: engineAt(t, w.path)})
	if err != nil {
		t.Fatal(err)
	}
	defer closeBook(t, b)
	f(b)
}

// judge compares the book with the checkpoint, quickly and in full.
func (w *world) judge(t *testing.T, cp *store.Checkpoint) (quick, full error) {
	t.Helper()
	w.open(t, func(b *store.Book) { quick, full = b.CompareCheckpoint(ctx, cp), b.VerifyCheckpoint(ctx, cp) })
	return quick, full
}

func complains(t *testing.T, err, is error, says string) {
	t.Helper()
	if !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
		t.Errorf("it says: %v; it should say: %s", err, says)
	}
}

func TestCheckpointFindsEdit(t *testing.T) {
	w, cp := pinned(t)
	w.plant(t, func(s store.Snapshot, put func(string, []byte)) {
		var e store.Event
		if err := store.DecodeEvent(value(t, s, eventAt(9)), &e); err != nil {
			t.Fatal(err)
		}
		e.Detail = "edited"
		put(eventAt(9), store.AppendEvent(nil, &e))
	})
	quick, full := w.judge(t, cp)
	if quick != nil {
		t.Errorf("the nodes are as they were, but: %v", quick)
	}
	complains(t, full, store.ErrCorrupt, "event 9 was edited")
}

// TestCheckpointFindsForgery edits an event and makes the whole tree anew, so that nothing inside the book contradicts anything else.
func TestCheckpointFindsForgery(t *testing.T) {
	w, cp := pinned(t)
	e := engineAt(t, w.path)
	err := store.Forge(ctx, e, func(e *store.Event) {
		if e.Seq == 9 {
			e.Actor = "somebody else"
		}
	})
	if err := errors.Join(err, e.Close()); err != nil {
		t.Fatal(err)
	}
	w.open(t, func(b *store.Book) { check(t, b) })
	quick, full := w.judge(t, cp)
	complains(t, quick, store.ErrCorrupt, "its events were edited")
	complains(t, full, store.ErrCorrupt, "its events were edited")
}

func TestCheckpointFindsCut(t *testing.T) {
	w, _ := pinned(t)
	old := newCopy(t, w)
	w.open(t, func(b *store.Book) { issue(t, b, "330100", 3) })
	cp := w.checkpoint(t)
	// The older copy comes back in place of the file, and goes on with other events than those it has lost.
	quick, full := old.judge(t, cp)
	complains(t, quick, store.ErrConflict, "cut off, or it was rolled back")
	complains(t, full, store.ErrConflict, "cut off, or it was rolled back")
	old.open(t, func(b *store.Book) { issue(t, b, "330100", 10) })
	quick, full = old.judge(t, cp)
	complains(t, quick, store.ErrCorrupt, "its events were edited")
	complains(t, full, store.ErrCorrupt, "its events were edited")
	if quick, full = w.judge(t, cp); quick != nil || full != nil {
		t.Errorf("the book that was not cut: %v, %v", quick, full)
	}
}

func TestCheckpointOfAnotherBook(t *testing.T) {
	w, _ := pinned(t)
	_, other := pinned(t)
	quick, full := w.judge(t, other)
	complains(t, quick, store.ErrConflict, "this is book")
	complains(t, full, store.ErrConflict, "this is book")
}

// TestCheckpointsAcrossRestores compares checkpoints of all epochs with books that were restored once, and twice from one backup.
func TestCheckpointsAcrossRestores(t *testing.T) {
	w, early := pinned(t)
	var backup bytes.Buffer
	w.open(t, func(b *store.Book) {
		if err := b.Backup(ctx, &backup, nil); err != nil {
			t.Fatal(err)
		}
		issue(t, b, "330100", 3)
	})
	lost := w.checkpoint(t)
	restored := func(later time.Duration) *world {
		r := *w
		r.path = filepath.Join(t.TempDir(), "book")
		cfg := store.Config{Engine: engineAt(t, r.path), Now: func() time.Time { return time.Now().Add(later) }}
		b, err := store.Restore(ctx, cfg, bytes.NewReader(backup.Bytes()), "operator")
		if err != nil {
			t.Fatal(err)
		}
		issue(t, b, "330100", 30) // longer than the book that was lost
		check(t, b)
		closeBook(t, b)
		return &r
	}
	first := restored(0)
	now := first.checkpoint(t)
	second := restored(time.Minute)
	for _, r := range []*world{first, second} {
		if quick, full := r.judge(t, early); quick != nil || full != nil {
			t.Errorf("a checkpoint from before the backup: %v, %v", quick, full)
		}
		quick, full := r.judge(t, lost)
		complains(t, quick, store.ErrConflict, "a later restore took it back")
		complains(t, full, store.ErrConflict, "a later restore took it back")
	}
	if quick, full := first.judge(t, now); quick != nil || full != nil {
		t.Errorf("a checkpoint of the new epoch: %v, %v", quick, full)
	}
	quick, _ := second.judge(t, now)
	complains(t, quick, store.ErrConflict, "another restore of the same backup")
	quick, _ = w.judge(t, now)
	complains(t, quick, store.ErrConflict, "from before a restore")
}
