package ldapsync

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// Kinds of difference between a directory and the book.
const (
	Missing = "missing" // the book has published it up to the directory's watermark, and it is not there
	Altered = "altered" // it is not what the book wrote
	Foreign = "foreign" // it claims to be of this book, which does not have it
	Behind  = "behind"  // it changed after the directory's watermark, and is on its way
)

// Difference is one entry that is not as the book has it.
type Difference struct {
	Name   string // below the directory's base
	Kind   string
	Detail string // in words

	target  target // zero where the book has no such entry
	removes bool   // the entry is to be taken away
}

// Diff is how a directory differs from the book.
type Diff struct {
	Directory   string
	Epoch       uint64 // of the watermark that the comparison is made at
	Watermark   uint64
	Entries     int64 // that the directory has of this book
	Expected    int64 // that the book has
	Buckets     int   // of 65,536 whose digests were not equal; entries of others were not looked at one by one
	Differences []Difference
	Taken       time.Duration
}

// Counts says how many differences there are of each kind.
func (d *Diff) Counts() map[string]int {
	n := map[string]int{}
	for i := range d.Differences {
		n[d.Differences[i].Kind]++
	}
	return n
}

// Wrong is the number of differences that no change on its way explains.
func (d *Diff) Wrong() int { return len(d.Differences) - d.Counts()[Behind] }

// String says it in words.
func (d *Diff) String() string {
	var parts []string
	n := d.Counts()
	for _, kind := range []string{Missing, Altered, Foreign, Behind} {
		if n[kind] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[kind], kind))
		}
	}
	if parts == nil {
		return "nothing differs"
	}
	return strings.Join(parts, ", ")
}

// visit connects to a directory beside its worker. The error wraps store.ErrNotFound where there is no directory of that name.
func (p *Publisher) visit(ctx context.Context, name string) (*worker, *link, error) {
	for _, w := range p.workers {
		if w.dir.Name == name {
			l, err := connect(ctx, w.dir)
			return w, l, err
		}
	}
	return nil, nil, fmt.Errorf("the configuration has none of that name: %w", store.ErrNotFound)
}

// Diff reads what a directory has of this book and compares digests, bucket by bucket; only where a bucket's digest differs are its entries
// looked at, and each of them is read once more from both sides, so that a change that came in between is no difference. It writes
// nothing. progress, if not nil, is told how many entries of about how many were read.
func (p *Publisher) Diff(ctx context.Context, name string, progress func(done, total int64)) (*Diff, error) {
	w, l, err := p.visit(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("comparing directory %s: %w", name, err)
	}
	defer l.close()
	d, err := p.diff(ctx, l, progress)
	if err != nil {
		return nil, fmt.Errorf("comparing directory %s: %w", name, err)
	}
	if d.Wrong() > 0 {
		w.tell(fmt.Sprintf("compared with the book: %s; hufu dir repair %s puts it right", d, name))
	}
	return d, nil
}

func (p *Publisher) diff(ctx context.Context, l *link, progress func(done, total int64)) (*Diff, error) {
	began := time.Now()
	m, err := l.watermark(p.book.ID())
	if err != nil {
		return nil, fmt.Errorf("reading the watermark: %w", err)
	}
	d := &Diff{Directory: l.dir.Name}
	if m != nil {
		d.Epoch, d.Watermark = m.epoch, m.seq
	}
	want, _, err := p.expected(ctx)
	if err != nil {
		return nil, fmt.Errorf("computing the digest of the book: %w", err)
	}
	d.Expected = want.Len()
	have, strays, err := l.scan(ctx, p.book.ID(), want, progress)
	if err != nil {
		return nil, fmt.Errorf("reading the entries: %w", err)
	}
	d.Entries = have.Len()
	buckets := want.unequal(have)
	d.Buckets = len(buckets)
	names := strays
	lost, err := p.missing(ctx, want, have, buckets)
	if err != nil {
		return nil, err
	}
	for _, t := range lost {
		names[strings.ToLower(t.name())] = t
	}
	if d.Differences, err = p.examine(ctx, l, position{d.Epoch, d.Watermark}, names); err != nil {
		return nil, err
	}
	d.Taken = time.Since(began)
	return d, nil
}

// scan reads all entries of a book into a tree, and returns those of them that are not in the tree want with the same digest.
func (l *link) scan(ctx context.Context, book string, want *Tree, progress func(done, total int64)) (*Tree, map[string]target, error) {
	have, strays := new(Tree), map[string]target{}
	err := l.entries(ctx, bookFilter(book), func(dn *ldap.DN, e *Entry) error {
		digest := e.Digest()
		have.Set(e.Name, digest)
		if !want.has(e.Name, digest) {
			t, ok := targetAt(dn, l.base)
			if !ok {
				t = target{}
			}
			strays[e.Name] = t
		}
		if n := have.Len(); progress != nil && n%500 == 0 {
			progress(n, max(n, want.Len()))
		}
		return nil
	})
	if progress != nil {
		progress(have.Len(), have.Len())
	}
	return have, strays, err
}

// missing returns the entries in unequal buckets that only the first tree has. A tree knows entries by the hashes of their names, so the
// book is asked for the names; it is not if nothing is missing.
func (p *Publisher) missing(ctx context.Context, want, have *Tree, buckets []uint16) (lost []target, err error) {
	gone := map[[16]byte]bool{}
	for _, at := range buckets {
		there := map[[16]byte]bool{}
		for _, leaf := range have.buckets[at] {
			there[leaf.name] = true
		}
		for _, leaf := range want.buckets[at] {
			if !there[leaf.name] {
				gone[leaf.name] = true
			}
		}
	}
	note := func(t target) {
		if sum := store.Sum([]byte(strings.ToLower(t.name()))); gone[[16]byte(sum[:16])] {
			lost = append(lost, t)
			delete(gone, [16]byte(sum[:16]))
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	var cas []string
	err = p.pages(ctx, func(tx *store.Tx, after []byte) ([]byte, error) {
		rows, next, err := store.CAs.Page(tx, store.Query{After: after})
		for _, ca := range rows {
			cas = append(cas, ca.ID)
		}
		return next, err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the missing entries: %w", err)
	}
	for _, ca := range cas {
		entries, err := p.entriesOf(ctx, target{ca: ca}, 0)
		if err != nil {
			return nil, err
		}
		for _, t := range entries {
			note(t)
		}
	}
	err = p.pages(ctx, func(tx *store.Tx, after []byte) ([]byte, error) {
		if len(gone) == 0 {
			return nil, nil
		}
		rows, next, err := store.Statuses.Page(tx, store.Query{After: after, Limit: 1000})
		for _, s := range rows {
			note(target{ca: s.CA, serial: s.Serial})
		}
		return next, err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the missing entries: %w", err)
	}
	return lost, nil
}

// examine reads the entries once more, several at a time, and says in words what differs still.
func (p *Publisher) examine(ctx context.Context, l *link, mark position, names map[string]target) ([]Difference, error) {
	type question struct {
		name   string
		target target
	}
	var mu sync.Mutex // guards all and failed
	var all []Difference
	var failed error
	questions := make(chan question)
	var group sync.WaitGroup
	for range min(l.dir.InFlight, len(names)) {
		group.Go(func() {
			for q := range questions {
				d, err := p.compare(ctx, l, mark, q.name, q.target)
				mu.Lock()
				if err != nil && failed == nil {
					failed = err
				}
				if d != nil {
					all = append(all, *d)
				}
				mu.Unlock()
			}
		})
	}
	for name, t := range names {
		mu.Lock()
		stop := failed != nil
		mu.Unlock()
		if stop || ctx.Err() != nil {
			break
		}
		questions <- question{name, t}
	}
	close(questions)
	group.Wait()
	if failed == nil {
		failed = ctx.Err()
	}
	slices.SortFunc(all, func(a, b Difference) int { return strings.Compare(a.Name, b.Name) })
	return all, failed
}

// compare reads one entry, from the directory first: what is there then was in the book before. It returns nil where they agree.
func (p *Publisher) compare(ctx context.Context, l *link, mark position, name string, t target) (*Difference, error) {
	raw, err := l.get(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	var stands *Entry
	if raw != nil {
		if stands, err = entryOf(raw, l.base); err != nil {
			return nil, err
		}
	}
	var r *record
	if t.ca != "" {
		if r, err = p.read(ctx, t); err != nil {
			return nil, err
		}
	}
	d := &Difference{Name: name, target: t}
	if t.ca != "" {
		d.Name = t.name()
	}
	switch {
	case r == nil && stands == nil, r != nil && stands != nil && r.Digest() == stands.Digest():
		return nil, nil
	case r == nil && stands.value(attrBook) != p.book.ID():
		return nil, nil // somebody else's, and not in our place
	case r == nil:
		d.Kind, d.removes = Foreign, p.knows(ctx, stands.position())
		d.Detail = fmt.Sprintf("says that it is of this book, as of %v; the book has no such entry", stands.position())
		if !d.removes {
			d.Detail = fmt.Sprintf("is of %v, which the book does not have: from before a restore, and not brought back; it is left alone", stands.position())
		}
	case stands == nil && r.at.compare(mark) > 0:
		d.Kind, d.Detail = Behind, fmt.Sprintf("not there yet; it is new as of %v", r.at)
	case stands == nil:
		d.Kind, d.Detail = Missing, fmt.Sprintf("not there; the book has it as of %v", r.at)
	case stands.value(attrBook) == p.book.ID() && stands.position().compare(r.at) < 0 && r.at.compare(mark) > 0:
		d.Kind, d.Detail = Behind, fmt.Sprintf("as of %v; it changed as of %v", stands.position(), r.at)
	case stands.value(attrBook) != "" && stands.value(attrBook) != p.book.ID():
		d.Kind, d.Detail = Altered, "says that it is of the book "+stands.value(attrBook)
	default:
		d.Kind, d.Detail = Altered, "differs in "+strings.Join(differing(r, stands), ", ")
	}
	return d, nil
}

// differing names the attributes that are not as they should be.
func differing(r *record, stands *Entry) (names []string) {
	sum := func(e *Entry) map[string]store.Hash {
		m := map[string]store.Hash{}
		for _, a := range e.Attributes {
			if name, ok := managed(a.Type); ok && len(a.Values) > 0 {
				one := Entry{Attributes: []Attribute{a}}
				m[name] = one.Digest()
			}
		}
		return m
	}
	want, have := sum(&r.Entry), sum(stands)
	for name, h := range want {
		if have[name] != h {
			names = append(names, name)
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
