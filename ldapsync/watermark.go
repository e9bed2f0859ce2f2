package ldapsync

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// watermark is the entry that says how much of a book is in a directory.
type watermark struct {
	position
	fence  uint64
	writer string
	note   string // the signed statement
}

func watermarkName(book string) string     { return "cn=watermark," + watermarkHomeName(book) }
func watermarkHomeName(book string) string { return "cn=" + ldap.EscapeDN(book) }

// watermark reads the entry, nil if there is none.
func (l *link) watermark(book string) (*watermark, error) {
	e, err := l.get(watermarkName(book))
	if err != nil || e == nil {
		return nil, err
	}
	number := func(attribute string) uint64 {
		n, _ := strconv.ParseUint(e.GetAttributeValue(attribute), 10, 64)
		return n
	}
	return &watermark{
		position: position{number(attrEpoch), number(attrSeq)}, fence: number(attrFence),
		writer: e.GetAttributeValue(attrWriter), note: e.GetAttributeValue(attrStatement),
	}, nil
}

// addWatermark makes the entry, and what it stands in.
func (l *link) addWatermark(book string, m *watermark) error {
	if err := l.createBase(); err != nil {
		return err
	}
	if err := l.create(watermarkHomeName(book), []string{"top", "organizationalRole"}); err != nil {
		return err
	}
	req := &ldap.AddRequest{DN: l.dn(watermarkName(book))}
	req.Attribute(attrClass, []string{"top", "hufuWatermark"})
	req.Attribute(attrBook, []string{book})
	for _, a := range m.attributes() {
		if len(a.Vals) > 0 {
			req.Attribute(a.Type, a.Vals)
		}
	}
	return l.ldap.Add(req)
}

// moveWatermark replaces the entry if it still says what it said in old; otherwise it fails with noSuchAttribute.
func (l *link) moveWatermark(book string, old, m *watermark) error {
	req := ldap.NewModifyRequest(l.dn(watermarkName(book)), nil)
	req.Delete(attrFence, []string{strconv.FormatUint(old.fence, 10)})
	req.Delete(attrSeq, []string{strconv.FormatUint(old.seq, 10)})
	for _, a := range m.attributes() {
		switch a.Type {
		case attrFence, attrSeq:
			req.Add(a.Type, a.Vals)
		default:
			req.Replace(a.Type, a.Vals)
		}
	}
	return l.ldap.Modify(req)
}

func (m *watermark) attributes() []ldap.Attribute {
	optional := func(s string) []string {
		if s == "" {
			return []string{}
		}
		return []string{s}
	}
	return []ldap.Attribute{
		{Type: attrEpoch, Vals: []string{strconv.FormatUint(m.epoch, 10)}},
		{Type: attrSeq, Vals: []string{strconv.FormatUint(m.seq, 10)}},
		{Type: attrFence, Vals: []string{strconv.FormatUint(m.fence, 10)}},
		{Type: attrWriter, Vals: optional(m.writer)},
		{Type: attrStatement, Vals: optional(m.note)},
	}
}

// takeOver makes this worker the one that publishes to the directory, and returns the watermark and the event after which to begin.
//
// The lease is the watermark entry itself: its writer writes it every few seconds, and another node takes over only when it has not
// changed for a whole lease on that node's own clock, so no two clocks need agree. The fence grows by one with every take-over and stands
// in every later write of the entry, so a writer that was paused in between finds out. What such a writer still has under way cannot do
// harm: an entry is only ever replaced by a later state of the same book.
func (w *worker) takeOver(ctx context.Context, l *link) (*watermark, uint64, error) {
	var seen watermark
	var since time.Time
	for {
		m, err := l.watermark(w.p.book.ID())
		if err != nil {
			return nil, 0, fmt.Errorf("reading the watermark: %w", err)
		}
		start, err := w.p.judge(ctx, l, m)
		if err != nil {
			return nil, 0, err
		}
		if m == nil {
			m = &watermark{position: position{epoch: w.p.book.Epoch()}, fence: 1, writer: w.id}
			err = l.addWatermark(w.p.book.ID(), m)
			if ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
				continue
			}
			if err != nil {
				return nil, 0, fmt.Errorf("adding the watermark: %w", err)
			}
			w.held = true
			return m, start, nil
		}
		if w.mayTake(m) || seen == *m && time.Since(since) >= w.p.lease {
			taken := *m
			taken.fence++
			taken.writer = w.id
			err = l.moveWatermark(w.p.book.ID(), m, &taken)
			if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchAttribute) {
				continue
			}
			if err != nil {
				return nil, 0, fmt.Errorf("taking the directory over: %w", err)
			}
			if m.writer != "" && m.writer != w.id {
				w.tell(fmt.Sprintf("taken over from %s, which ended without giving it up; its last watermark is %v", m.writer, m.position))
			}
			w.held = true
			return &taken, start, nil
		}
		if seen != *m {
			seen, since = *m, time.Now()
		}
		w.note(func(s *DirectoryStatus) {
			s.State, s.LastError, s.Epoch, s.Watermark = "standing by: "+m.writer+" publishes here", "", m.epoch, m.seq
		})
		if !pause(ctx, w.p.lease/5) {
			return nil, 0, ctx.Err()
		}
	}
}

// mayTake: nobody publishes, or it was this worker before it lost its connection, or an earlier process of this node. The last is asked
// only once, so that two processes that were given one name do not throw each other out for ever.
func (w *worker) mayTake(m *watermark) bool {
	node, _, _ := strings.Cut(m.writer, "/")
	return m.writer == "" || m.writer == w.id || node == w.p.node && !w.held
}
