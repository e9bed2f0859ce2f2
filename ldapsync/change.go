package ldapsync

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-ldap/ldap/v3"
)

// write brings one entry up to date. It runs beside others, each for another entry.
func (s *session) write(ctx context.Context, j job) outcome {
	o := outcome{target: j.target}
	records, err := s.p.records(ctx, j.target, j.first)
	if err != nil || len(records) == 0 {
		o.err = err
		return o
	}
	l := s.link
	if j.target.isCA() {
		if l, o.err = s.bulk.open(ctx); o.err != nil {
			return o
		}
	}
	for _, r := range records {
		if s.advance(r, j.last) {
			o.written = append(o.written, r)
			continue
		}
		var written *record
		var repaired bool
		if written, repaired, o.err = s.publish(ctx, l, r.target, r); o.err != nil {
			break
		}
		o.written = append(o.written, written)
		if repaired {
			o.repaired = append(o.repaired, written.Name)
		}
	}
	if o.err != nil && j.target.isCA() && lostConnection(o.err) {
		s.bulk.close()
	}
	return o
}

// advance writes a change of status without reading the entry first, as if it stood as this book last wrote it: the guard fails if it does
// not. That is half of the time that a revocation takes. It returns false where publish has to look closer.
func (s *session) advance(r *record, last position) bool {
	if r.issued == 0 || r.at.seq == r.issued {
		return false
	}
	if last == (position{}) {
		last = positionOf(s.p.epochs, r.issued)
	}
	// Whatever is wrong with the directory, publish meets it too.
	return last.compare(r.at) < 0 && s.link.advance(r, last) == nil
}

// publish makes the entry what the book says, or a later state of it, and returns what it wrote. It is idempotent: whatever of it was
// carried out before, by whomever, it ends with the newest state.
func (s *session) publish(ctx context.Context, l *link, t target, r *record) (written *record, repaired bool, err error) {
	expected := r.issued != 0 && r.issued <= s.start
	absent := r.issued > s.start
	for range 10 {
		if absent {
			err = l.add(r)
			switch {
			case err == nil:
				return r, expected, nil
			case ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists):
				absent = false
			case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
				if err = s.makeRoom(ctx, l, t); err != nil {
					return nil, false, err
				}
			default:
				return nil, false, err
			}
			continue
		}
		have, err := l.get(r.Name)
		if err != nil {
			return nil, false, err
		}
		if absent = have == nil; absent {
			continue
		}
		stands, err := entryOf(have, l.base)
		if err != nil {
			return nil, false, err
		}
		if owner := stands.value(attrBook); owner != "" && owner != s.p.book.ID() {
			return nil, false, refusal("it belongs to the book " + owner)
		}
		switch order := stands.position().compare(r.at); {
		case order > 0:
			newer, err := s.p.read(ctx, t)
			if err != nil {
				return nil, false, err
			}
			switch {
			case newer != nil && newer.at.compare(r.at) > 0:
				r = newer
			case newer != nil && s.p.knows(ctx, stands.position()):
				// The book has that event, and it did not change this entry: somebody else wrote it there.
				err = l.replace(have, r)
				if err == nil {
					return r, true, nil
				}
				if !lostRace(err) {
					return nil, false, err
				}
			default:
				return nil, false, refusal(fmt.Sprintf("the directory has it as of %v, later than the book's %v: it was left alone", stands.position(), r.at))
			}
		case order == 0 && stands.Digest() == r.Digest():
			return r, false, nil
		default:
			err = l.replace(have, r)
			if err == nil {
				return r, order == 0, nil
			}
			if !lostRace(err) {
				return nil, false, err
			}
		}
	}
	return nil, false, refusal("somebody else keeps writing it")
}

// knows says whether the book has the event at a position.
func (p *Publisher) knows(ctx context.Context, at position) bool {
	tree, err := p.book.Tree(ctx)
	if err != nil {
		return false
	}
	end := uint64(tree.Size)
	for i := len(p.epochs) - 1; i >= 0; i-- {
		if p.epochs[i].Epoch == at.epoch {
			return at.seq <= end
		}
		end = uint64(p.epochs[i].Size)
	}
	return false
}

// refusal is why an entry is not written although the directory would take it.
type refusal string

func (r refusal) Error() string { return string(r) }

// lostRace: the entry is not what it was when it was read.
func lostRace(err error) bool {
	return ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultNoSuchObject, ldap.LDAPResultAttributeOrValueExists)
}

// makeRoom adds what an entry lies below.
func (s *session) makeRoom(ctx context.Context, l *link, t target) error {
	if err := l.createBase(); err != nil {
		return fmt.Errorf("adding the base entry: %w", err)
	}
	above := target{ca: t.ca}
	if t == above {
		return nil
	}
	ca, err := s.p.read(ctx, above)
	if err != nil {
		return err
	}
	if ca == nil {
		// Its record comes with an event of its own, and is then added to this.
		err = l.create(above.name(), []string{"top", "organizationalUnit"})
	} else {
		_, _, err = s.publish(ctx, l, above, ca)
	}
	if err == nil && !t.isCA() {
		err = l.create(certificatesName(t.ca), []string{"top", "organizationalUnit"})
	}
	if err != nil {
		return fmt.Errorf("adding %s: %w", above, err)
	}
	return nil
}

// bulkLink is a second connection for the entries of CAs: a long CRL neither delays a status on its way nor, should the server hang up on
// it, takes the other changes down.
type bulkLink struct {
	dir  *Directory
	mu   sync.Mutex
	link *link // nil = not connected; guarded by mu
}

func (b *bulkLink) open(ctx context.Context) (*link, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link == nil || b.link.ldap.IsClosing() {
		l, err := connect(ctx, b.dir)
		if err != nil {
			return nil, err
		}
		b.link = l
	}
	return b.link, nil
}

func (b *bulkLink) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link != nil {
		b.link.close()
		b.link = nil
	}
}
