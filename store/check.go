package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DamageError lists what Check found. It wraps ErrCorrupt.
type DamageError struct {
	Faults []string // the first ones
	More   int      // how many came after these
}

func (e *DamageError) Error() string {
	text := fmt.Sprintf("%v: %s", ErrCorrupt, strings.Join(e.Faults, "; "))
	if e.More > 0 {
		text += fmt.Sprintf("; and %d more", e.More)
	}
	return text
}

// Unwrap returns ErrCorrupt.
func (e *DamageError) Unwrap() error { return ErrCorrupt }

// maxFaults is how many faults Check tells in full.
const maxFaults = 50

// Checked is a table that Check goes through. Every *Table is one.
type Checked interface {
	name() string
	check(*checker) error
}

// Check goes through the whole book and compares everything in it with everything else:
//
//   - the journal has no gap, and its Merkle tree, computed again, is the one that is stored;
//   - whatever was issued was intended before, has one certificate and one status; whatever was intended and not issued is open or closed;
//   - every record names the event that last changed it, and that event names the record;
//   - every certificate is the one that its record and its intent describe; no serial number is used twice, no key in two lines;
//   - every row is found through its indexes, and every entry of an index finds its row;
//   - the octets of every CRL are those recorded.
//
// It works on a snapshot, so writers go on, and it changes nothing. It returns a *DamageError when something does not fit. progress may be
// nil; it hears of every thousandth row or event, and of the last.
func (b *Book) Check(ctx context.Context, progress func(done, total int64)) error {
	err := b.View(ctx, func(tx *Tx) error {
		h, err := tx.head()
		if err != nil {
			return err
		}
		c := &checker{tx: tx, head: h, damage: &DamageError{}, open: make(map[string]uint64),
			meter: meter{total: int64(h.seq + h.rows), progress: progress}}
		for _, check := range []func() error{c.journal, func() error { return c.tables(b.tables) }, c.serials, c.lines} {
			if err := check(); err != nil {
				return err
			}
		}
		c.meter.end()
		if len(c.damage.Faults) > 0 {
			return c.damage
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("checking book: %w", err)
	}
	return nil
}

// meter tells how far a long work has come.
type meter struct {
	done, total int64
	progress    func(done, total int64)
}

func (m *meter) step() {
	if m.done++; m.progress != nil && m.done%1000 == 0 {
		m.progress(min(m.done, m.total), m.total)
	}
}

func (m *meter) end() {
	if m.progress != nil {
		m.progress(m.total, m.total)
	}
}

// checker is one run of Check.
type checker struct {
	tx     *Tx
	head   *head
	damage *DamageError
	open   map[string]uint64 // Seq of the intents without an outcome, by SerialKey
	rows   uint64
	meter  meter
}

func (c *checker) fault(format string, args ...any) {
	if len(c.damage.Faults) == maxFaults {
		c.damage.More++
		return
	}
	c.damage.Faults = append(c.damage.Faults, fmt.Sprintf(format, args...))
}

// journal reads every event in order and compares tree and records with it.
func (c *checker) journal() error {
	h, err := rehash(c.tx, c.head.seq, c.event, func(fault string) { c.fault("%s", fault) })
	if err != nil {
		return err
	}
	if err := c.tail(); err != nil {
		return err
	}
	if h.seq == c.head.seq && (h.root != c.head.root || !slices.Equal(h.frontier, c.head.frontier)) {
		c.fault("the tree of the journal has the root %s, but the head of the book says %s", h.root, c.head.root)
	}
	if c.head.note > 0 {
		if e, err := c.tx.Event(c.head.note); err != nil || e.Kind != KindCheckpoint {
			c.fault("event %d is not the checkpoint that the head of the book names", c.head.note)
		}
	}
	for key, seq := range c.open {
		intent, err := Intents.Get(c.tx, []byte(key))
		if err := c.missing(err, "the intent of event %d has no outcome and no record", seq); err != nil {
			return err
		}
		if intent != nil && intent.Seq != seq {
			c.fault("intent %s names event %d, but was last recorded by event %d", readable([]byte(key)), intent.Seq, seq)
		}
	}
	return nil
}

// tail sees that nothing lies behind the newest event and the newest node.
func (c *checker) tail() error {
	for _, err := range c.tx.scan(eventKey(c.head.seq+1), []byte{spaceEvents + 1}, false) {
		if err != nil {
			return err
		}
		c.fault("behind event %d, the last, lies another", c.head.seq)
		break
	}
	stored := storedNodes(c.head.seq)
	for pair, err := range c.tx.scan(nodeKey(stored/nodesInChunk), []byte{spaceNodes + 1}, false) {
		if err != nil {
			return err
		}
		if !bytes.Equal(pair.Key, nodeKey(stored/nodesInChunk)) || int64(len(pair.Value)) != stored%nodesInChunk*int64(len(Hash{})) {
			c.fault("the tree has more or fewer nodes than belong to %d events", c.head.seq)
			break
		}
	}
	return nil
}

// rehash computes the tree of the first size events again, and reports where it differs from the stored nodes. each may be nil.
func rehash(tx *Tx, size uint64, each func(*Event) error, report func(fault string)) (*head, error) {
	h := &head{}
	stored := &nodeCursor{tx: tx}
	nodes := make([]Hash, 0, 64)
	for pair, err := range tx.scan(eventKey(0), eventKey(size+1), false) {
		if err == nil && h.seq%1024 == 0 {
			err = tx.ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(pair.Key, eventKey(h.seq+1)) {
			report(fmt.Sprintf("event %d is missing", h.seq+1))
			break
		}
		e, err := decodeEvent(h.seq+1, pair.Value)
		if err != nil {
			report(err.Error())
		} else if each != nil {
			if err := each(e); err != nil {
				return nil, err
			}
		}
		nodes = h.push(leafHash(pair.Value), nodes[:0])
		for i, node := range nodes {
			switch there, err := stored.next(); {
			case err != nil:
				return nil, err
			case there == nil:
				report(fmt.Sprintf("the node of the tree above event %d is missing", h.seq))
			case bytes.Equal(there, node[:]):
			case i == 0:
				report(fmt.Sprintf("event %d was edited: it does not fit its leaf in the tree", h.seq))
			default:
				report(fmt.Sprintf("the tree was edited above event %d", h.seq))
			}
		}
	}
	if h.seq < size {
		report(fmt.Sprintf("the journal was cut: it has %d events in place of %d", h.seq, size))
	}
	h.seal()
	return h, nil
}

// nodeCursor goes through the stored nodes in order.
type nodeCursor struct {
	tx    *Tx
	at    int64
	chunk []byte
}

// next returns the next node, or nil if it is missing.
func (c *nodeCursor) next() (node []byte, err error) {
	if c.at%nodesInChunk == 0 {
		if c.chunk, err = c.tx.get(nodeKey(c.at / nodesInChunk)); err != nil {
			return nil, err
		}
	}
	from := int(c.at%nodesInChunk) * len(Hash{})
	c.at++
	if len(c.chunk) < from+len(Hash{}) {
		return nil, nil
	}
	return c.chunk[from : from+len(Hash{})], nil
}

// event compares one event with the records that it speaks of.
func (c *checker) event(e *Event) error {
	c.meter.step()
	if e.Serial.IsZero() {
		return nil
	}
	key := string(SerialKey(e.CA, e.Serial))
	switch e.Kind {
	case KindIntent:
		c.open[key] = e.Seq
		return nil
	case KindIssued, KindIntentClosed:
		if _, ok := c.open[key]; !ok {
			c.fault("event %d (%s) of serial number %s has no intent before it", e.Seq, e.Kind, e.Serial)
		}
		delete(c.open, key)
	case KindHeld, KindResumed, KindRevoked:
	default:
		return nil
	}
	cert, err := FindCertificate(c.tx, e.CA, e.Serial)
	if err := c.missing(err, ""); err != nil {
		return err
	}
	switch {
	case e.Kind == KindIssued && cert == nil:
		c.fault("the certificate %s that event %d issued is missing", readable([]byte(key)), e.Seq)
	case e.Kind == KindIssued && cert.Seq != e.Seq:
		c.fault("certificate %s was issued by event %d and again by event %d", readable([]byte(key)), cert.Seq, e.Seq)
	case e.Kind == KindIntentClosed && cert != nil:
		c.fault("certificate %s is there although event %d closed its intent", readable([]byte(key)), e.Seq)
	}
	status, err := Statuses.Get(c.tx, []byte(key))
	if err != nil {
		return c.missing(err, "the status that event %d (%s) made for %s is missing", e.Seq, e.Kind, readable([]byte(key)))
	}
	if status.Seq < e.Seq {
		c.fault("status %s is that of event %d and misses event %d (%s)", readable([]byte(key)), status.Seq, e.Seq, e.Kind)
	}
	return nil
}

// missing turns ErrNotFound and damage into a fault and gives back any other error. Without a format, ErrNotFound is none.
func (c *checker) missing(err error, format string, args ...any) error {
	switch {
	case errors.Is(err, ErrCorrupt):
		c.fault("%v", err)
	case errors.Is(err, ErrNotFound):
		if format != "" {
			c.fault(format, args...)
		}
	default:
		return err
	}
	return nil
}
