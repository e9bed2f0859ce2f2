// Package ldapsync carries the book into LDAP directories: one worker for each directory follows the journal, and a change of a
// certificate's status is there milliseconds after its commit. Below a directory's base stand
//
//	ou=<CA>                                        the CA, its certificate and newest CRLs
//	cn=<n>,ou=<CA>                                 the newest CRLs of the CA's shard n
//	hufuSerial=<hex>,ou=certificates,ou=<CA>       a certificate and its status
//	cn=watermark,cn=<book>                         up to which event everything is there, in a signed statement
//
// A worker begins where the directory's own watermark says, and takes from an event only which entry it concerns: what it writes is the
// record's newest state, so that doing it again, late or out of order ends the same. Each write takes the old sequence number away and adds
// the new one in one modify (RFC 4511, Section 4.6), so a later state is never overwritten. The watermark moves over an unbroken run of
// events only, and what it then says was signed while nothing was under way. A directory that is slow, down, or was put back to an older
// state delays no other.
//
// The package refuses to publish to a directory that knows more than the book (AheadError), to touch another book's entries, to skip an
// entry that a server does not take, and to believe a watermark that the book's key has not signed.
//
// Entries follow RFC 4523, with ";binary" (RFC 4522), and the schema in schema/hufu.schema; names RFC 4514; filters RFC 4515; pages RFC
// 2696; the worker shows a client certificate and binds by SASL EXTERNAL (RFC 4513, Section 5.2.3) over ldaps or StartTLS.
package ldapsync

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// Directory is one LDAP server to publish to.
type Directory struct {
	Name     string        // what people call it; unique
	URL      string        // ldaps://host:port, or ldap://host:port with StartTLS
	StartTLS bool          // RFC 4511, Section 4.14
	Base     string        // the entry that everything is published below, such as "o=Hufu,c=CN"
	TLS      *tls.Config   // roots, and the client certificate for SASL EXTERNAL; without one, no bind is made
	InFlight int           // changes under way at once; 0 = 32
	Timeout  time.Duration // for each LDAP operation; 0 = 10 s
	Bound    time.Duration // how far behind it may normally be; 0 = 5 s
	Alarm    time.Duration // how far behind it may be before somebody has to look after it; 0 = 60 s
	Compare  time.Duration // how often it is compared with the book and repaired; 0 = only when asked
}

// Config is what a Publisher needs. Now and Log may be nil.
type Config struct {
	Book        *store.Book
	Directories []Directory
	Key         crypto.Signer // signs the statement in each watermark entry
	Node        string        // name of this node among those that share the book
	Lease       time.Duration // how long a silent worker of another node is waited for; 0 = 15 s
	Now         func() time.Time
	Log         *slog.Logger
}

// Publisher runs one worker for each directory.
type Publisher struct {
	book    *store.Book
	epochs  []store.Epoch
	key     crypto.Signer
	node    string
	lease   time.Duration
	now     func() time.Time
	log     *slog.Logger
	workers []*worker
	started time.Time // when Run began; belongs to watch

	baseTurn chan struct{} // holds one element; who has taken it owns base and baseAt
	base     *Tree         // the book's entries as of baseAt or later; nil until a worker asks
	baseAt   uint64
}

// New checks the configuration. It connects to nothing.
func New(cfg Config) (*Publisher, error) {
	if cfg.Book == nil || cfg.Key == nil {
		return nil, errors.New("publishing to directories: a book and a key for the statements are needed")
	}
	if _, ok := cfg.Key.Public().(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("publishing to directories: a statement is signed with an ECDSA key, not with %T", cfg.Key.Public())
	}
	p := &Publisher{
		book: cfg.Book, epochs: cfg.Book.Epochs(), key: cfg.Key, node: cmp.Or(cfg.Node, "node"), lease: cmp.Or(cfg.Lease, 15*time.Second),
		now: cfg.Now, log: cfg.Log, baseTurn: make(chan struct{}, 1),
	}
	p.baseTurn <- struct{}{}
	if p.now == nil {
		p.now = time.Now
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if strings.Contains(p.node, "/") {
		return nil, fmt.Errorf("publishing to directories: the node's name %q must not contain a slash", p.node)
	}
	names := map[string]bool{}
	for _, d := range cfg.Directories {
		if err := d.check(); err != nil {
			return nil, fmt.Errorf("directory %q: %w", d.Name, err)
		}
		if _, secure, _ := d.address(); !secure && !d.StartTLS {
			return nil, fmt.Errorf("directory %q: nothing is published over an open connection: use ldaps:// or StartTLS", d.Name)
		}
		if names[d.Name] {
			return nil, fmt.Errorf("directory %q is named twice", d.Name)
		}
		names[d.Name] = true
		p.workers = append(p.workers, &worker{
			p: p, dir: &d, id: p.node + "/" + rand.Text(),
			status: DirectoryStatus{Name: d.Name, URL: d.URL, State: stateStarting, Entries: -1},
		})
	}
	return p, nil
}

// check completes a directory's configuration.
func (d *Directory) check() error {
	d.InFlight, d.Timeout = cmp.Or(d.InFlight, 32), cmp.Or(d.Timeout, 10*time.Second)
	d.Bound, d.Alarm = cmp.Or(d.Bound, 5*time.Second), cmp.Or(d.Alarm, time.Minute)
	if d.InFlight < 0 || d.Bound < 0 || d.Alarm < d.Bound || d.Compare < 0 {
		return fmt.Errorf("it must not have negative numbers, nor an alarm (%v) below its bound (%v)", d.Alarm, d.Bound)
	}
	if d.Name == "" {
		return errors.New("it has no name")
	}
	_, secure, err := d.address()
	if err != nil {
		return err
	}
	if secure && d.StartTLS {
		return errors.New("StartTLS belongs to ldap://, not to ldaps://")
	}
	if (secure || d.StartTLS) && d.TLS == nil {
		return errors.New("TLS needs the roots to trust and a client certificate")
	}
	base, err := ldap.ParseDN(d.Base)
	if err != nil || len(base.RDNs) == 0 {
		return fmt.Errorf("base %q is not the name of an entry", d.Base)
	}
	return nil
}

// Run publishes until ctx ends. A directory that fails is tried again and delays no other.
func (p *Publisher) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for _, w := range p.workers {
		group.Go(func() { w.run(ctx) })
		if w.dir.Compare > 0 {
			group.Go(func() { p.compareOften(ctx, w) })
		}
	}
	if len(p.workers) > 0 {
		group.Go(func() { p.watch(ctx) })
	}
	group.Wait()
	p.remember(context.WithoutCancel(ctx))
	return nil
}

// DirectoryStatus is what is known of one directory.
type DirectoryStatus struct {
	Name       string
	URL        string
	State      string    // in words: "in step", "catching up", "unreachable", "ahead of the book", …
	Epoch      uint64    // of the watermark
	Watermark  uint64    // every change up to here is in the directory
	Time       time.Time // of the last statement
	Entries    int64     // that it covers; -1 while the directory is being filled
	From       uint64    // where this connection began: it has done Applied-From of Head-From
	Applied    uint64    // how far it is by the last look: ahead of the watermark while it catches up
	Head       uint64    // the newest event of the book
	LagChanges uint64    // events that are not in the directory yet
	LagSeconds float64   // age of the oldest of them
	LastError  string    // "" = none since it last was in step
	ErrorTime  time.Time
	Notice     string // what was last found out about it, in words: it was put back, somebody else wrote there, …; "" = nothing yet
	NoticeTime time.Time
	Unknown    int64 // entries from before a restore that nobody brought back; they are left alone
	Repairs    int64 // entries that were not as this book had left them and were put right
	Level      int   // InTime, Late or Alarming
	Missed     int64 // times that the bound was missed
	Alarms     int64 // times that the alarm bound was missed
}

// Status says how far each directory is. It asks the book, and no directory.
func (p *Publisher) Status(ctx context.Context) []DirectoryStatus {
	var all []DirectoryStatus
	for _, w := range p.workers {
		w.mu.Lock()
		s := w.status
		w.mu.Unlock()
		if tree, err := p.book.Tree(ctx); err == nil {
			s.Head = uint64(tree.Size)
		}
		if s.Head > s.Watermark {
			s.LagChanges = s.Head - s.Watermark
			if next, err := p.book.Events(ctx, s.Watermark, 1); err == nil && len(next) > 0 {
				s.LagSeconds = max(0, p.now().Sub(next[0].Time).Seconds())
			}
		}
		s.Applied = max(s.Applied, s.Watermark)
		w.doubt(&s)
		all = append(all, s)
	}
	return all
}

// expected returns the tree over what the book wants to be in a directory, and the event at which it is right: who writes every change up
// to there, and notes it in the tree, has it exact. The first call goes through the book; later ones through what changed since.
func (p *Publisher) expected(ctx context.Context) (*Tree, uint64, error) {
	select {
	case <-p.baseTurn:
		defer func() { p.baseTurn <- struct{}{} }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	if p.base == nil {
		head, err := p.book.Tree(ctx)
		if err != nil {
			return nil, 0, err
		}
		tree := new(Tree)
		if err := p.scan(ctx, tree); err != nil {
			return nil, 0, err
		}
		p.base, p.baseAt = tree, uint64(head.Size)
	}
	for {
		events, err := p.book.Events(ctx, p.baseAt, 1000)
		if err != nil {
			return nil, 0, err
		}
		if len(events) == 0 {
			break
		}
		for i := range events {
			t, ok := targetOf(&events[i])
			if !ok {
				continue
			}
			records, err := p.records(ctx, t, events[i].Seq)
			if err != nil {
				return nil, 0, err
			}
			for _, r := range records {
				p.base.Set(r.Name, r.Digest())
			}
		}
		p.baseAt = events[len(events)-1].Seq
	}
	head, err := p.book.Tree(ctx)
	if err != nil {
		return nil, 0, err
	}
	return p.base.clone(), uint64(head.Size), nil
}

// scan puts every entry of the book into the tree, in short transactions.
func (p *Publisher) scan(ctx context.Context, tree *Tree) error {
	var cas []*store.CA
	err := p.pages(ctx, func(tx *store.Tx, after []byte) (next []byte, err error) {
		rows, next, err := store.CAs.Page(tx, store.Query{After: after})
		cas = append(cas, rows...)
		return next, err
	})
	if err != nil {
		return err
	}
	for _, ca := range cas {
		records, err := p.records(ctx, target{ca: ca.ID}, 0)
		if err != nil {
			return err
		}
		for _, r := range records {
			tree.Set(r.Name, r.Digest())
		}
	}
	err = p.pages(ctx, func(tx *store.Tx, after []byte) ([]byte, error) {
		certs, next, err := store.Certificates.Page(tx, store.Query{After: after, Limit: 500})
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			status, err := optional(store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial)))
			if err != nil {
				return nil, err
			}
			r := p.certificate(target{ca: c.CA, serial: c.Serial}, c, status)
			tree.Set(r.Name, r.Digest())
		}
		return next, nil
	})
	if err != nil {
		return err
	}
	// Serial numbers that have a status and no certificate.
	return p.pages(ctx, func(tx *store.Tx, after []byte) ([]byte, error) {
		statuses, next, err := store.Statuses.Page(tx, store.Query{After: after, Limit: 1000})
		if err != nil {
			return nil, err
		}
		for _, s := range statuses {
			if s.Unissued {
				r := p.certificate(target{ca: s.CA, serial: s.Serial}, nil, s)
				tree.Set(r.Name, r.Digest())
			}
		}
		return next, nil
	})
}

// pages runs f in one transaction after the other until it returns no next page.
func (p *Publisher) pages(ctx context.Context, f func(tx *store.Tx, after []byte) (next []byte, err error)) error {
	var after []byte
	for {
		err := p.book.View(ctx, func(tx *store.Tx) (err error) {
			after, err = f(tx, after)
			return err
		})
		if err != nil || after == nil {
			return err
		}
	}
}
