package store

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a statement of what the journal was at some time. Signed, it is a note as C2SP's signed-note and tlog-checkpoint have it:
//
//	hufu/book/<id>/<epoch>
//	<size>
//	<root in base64>
//	time <RFC 3339>
//
// with an ECDSA signature over SHA-256 under the origin as its name. Who keeps one where the book's keepers cannot reach can tell later
// whether history was changed.
type Checkpoint struct {
	Origin string
	Epoch  uint64
	Size   int64
	Root   Hash
	Time   time.Time
}

const originPrefix = "hufu/book/"

func originOf(id string, epoch uint64) string {
	return originPrefix + id + "/" + strconv.FormatUint(epoch, 10)
}

// text returns what is signed.
func (c *Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\ntime %s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.Time.Format(time.RFC3339Nano))
}

// parseText reads what text writes.
func parseText(text string) (*Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[4] != "" {
		return nil, errors.New("it does not have the four lines of a checkpoint")
	}
	c := &Checkpoint{Origin: lines[0]}
	id, epoch, _ := strings.Cut(strings.TrimPrefix(c.Origin, originPrefix), "/")
	root, badRoot := base64.StdEncoding.DecodeString(lines[2])
	when, isTime := strings.CutPrefix(lines[3], "time ")
	var badEpoch, badSize, badTime error
	c.Epoch, badEpoch = strconv.ParseUint(epoch, 10, 64)
	c.Size, badSize = strconv.ParseInt(lines[1], 10, 64)
	c.Time, badTime = time.Parse(time.RFC3339Nano, when)
	if err := errors.Join(badEpoch, badSize, badRoot, badTime); err != nil {
		return nil, err
	}
	if c.Origin != originOf(id, c.Epoch) || !isTime || c.Size < 0 || copy(c.Root[:], root) != len(c.Root) || c.text() != text {
		return nil, errors.New("it is not written the one way that a checkpoint is")
	}
	return c, nil
}

// Checkpoint signs the present tree, then records the note in the journal as an event of Kind "checkpoint" with the note as its Detail.
func (b *Book) Checkpoint(ctx context.Context, key crypto.Signer) ([]byte, error) {
	tree, err := b.Tree(ctx)
	if err != nil {
		return nil, fmt.Errorf("making checkpoint: %w", err)
	}
	c := &Checkpoint{Origin: originOf(b.id, b.epoch), Size: tree.Size, Root: tree.Root, Time: b.now().UTC()}
	signed, err := SignNote(c.text(), key)
	if err != nil {
		return nil, fmt.Errorf("signing checkpoint: %w", err)
	}
	// A token that gave a wrong signature is found out before anybody keeps it.
	if _, err := ParseCheckpoint(signed, key.Public()); err != nil {
		return nil, fmt.Errorf("checking the checkpoint just signed: %w", err)
	}
	err = b.Update(ctx, func(tx *Tx) error {
		tx.note = tx.Append(Event{Kind: KindCheckpoint, Detail: string(signed)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("recording checkpoint: %w", err)
	}
	return signed, nil
}

// LastCheckpoint returns the event of the newest checkpoint in the journal, or ErrNotFound.
func (tx *Tx) LastCheckpoint() (*Event, error) {
	h, err := tx.head()
	if err != nil {
		return nil, err
	}
	return tx.Event(h.note) // there is no event 0
}

// ParseCheckpoint reads a signed checkpoint and checks its signature.
func ParseCheckpoint(signed []byte, key crypto.PublicKey) (*Checkpoint, error) {
	text, err := OpenNote(signed, key)
	if err != nil {
		return nil, fmt.Errorf("reading checkpoint: %w", err)
	}
	c, err := parseText(text)
	if err != nil {
		return nil, fmt.Errorf("reading checkpoint: %w", err)
	}
	return c, nil
}

// CompareCheckpoint says whether the book's tree contains the history that the checkpoint pins. It reads a few nodes only and so takes the
// tree at its word: an event that was edited beneath its node is found by VerifyCheckpoint and Check. ErrConflict says that the book is another
// one, or does not reach so far; ErrCorrupt, that its history is another.
func (b *Book) CompareCheckpoint(ctx context.Context, c *Checkpoint) error {
	return b.View(ctx, func(tx *Tx) error { return b.compare(tx, c) })
}

// VerifyCheckpoint is CompareCheckpoint with the tree computed again from every event up to the checkpoint.
func (b *Book) VerifyCheckpoint(ctx context.Context, c *Checkpoint) error {
	return b.View(ctx, func(tx *Tx) error {
		if err := b.compare(tx, c); err != nil {
			return err
		}
		var edited error
		h, err := rehash(tx, uint64(c.Size), nil, func(fault string) {
			if edited == nil {
				edited = fmt.Errorf("comparing with the checkpoint of %s: %w: %s", c.Time.Format(time.RFC3339), ErrCorrupt, fault)
			}
		})
		if err == nil && edited == nil && h.root != c.Root {
			edited = fmt.Errorf("comparing with the checkpoint of %s: %w: its events were edited", c.Time.Format(time.RFC3339), ErrCorrupt)
		}
		return errors.Join(err, edited)
	})
}

func (b *Book) compare(tx *Tx, c *Checkpoint) error {
	of := "the checkpoint of " + c.Time.Format(time.RFC3339)
	id, _, _ := strings.Cut(strings.TrimPrefix(c.Origin, originPrefix), "/")
	if id != b.id {
		return fmt.Errorf("%s is one of book %s; this is book %s: %w", of, id, b.id, ErrConflict)
	}
	h, err := tx.head()
	if err != nil {
		return err
	}
	reach, err := b.reach(c, int64(h.seq))
	if err != nil {
		return fmt.Errorf("%s does not fit: %w", of, err)
	}
	if c.Size > reach {
		how := "its end was cut off, or it was rolled back to an older copy"
		if reach < int64(h.seq) {
			how = "a later restore took it back to an older backup"
		}
		return fmt.Errorf("%s pins %d events, of which the book has %d: %s: %w", of, c.Size, reach, how, ErrConflict)
	}
	root, err := tlog.TreeHash(c.Size, nodeReader(tx.snap))
	if err != nil {
		return err
	}
	if Hash(root) != c.Root {
		return fmt.Errorf("%s pins the root %s of %d events; the book has %s: %w: its events were edited", of, c.Root, c.Size, Hash(root), ErrCorrupt)
	}
	return nil
}

// reach returns up to which size the journal and that of the checkpoint's epoch are one.
func (b *Book) reach(c *Checkpoint, size int64) (int64, error) {
	for i, e := range b.epochs {
		if e.Epoch != c.Epoch {
			continue
		}
		if i+1 < len(b.epochs) {
			return b.epochs[i+1].Size, nil
		}
		return size, nil
	}
	if c.Epoch > b.epoch {
		return 0, fmt.Errorf("it is of epoch %d, and the book is in epoch %d: it was rolled back to a copy from before a restore: %w", c.Epoch, b.epoch, ErrConflict)
	}
	return 0, fmt.Errorf("the book never was in its epoch %d: it comes from another restore of the same backup: %w", c.Epoch, ErrConflict)
}
