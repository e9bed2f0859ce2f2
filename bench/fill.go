package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/bench/world"
	"hufu/internal/slapd"
	"hufu/ldapsync"
	"hufu/store"
	"hufu/store/bolt"
)

// fillInFlight is how many entries are under way at once, on one connection, on
// both sides: what a worker of the node has.
const fillInFlight = 32

// filling measures dir.load: how fast an empty directory is filled.
func (b *bench) filling(ctx context.Context) ([]figure, error) {
	w, err := world.Start(ctx, b.hufu, filepath.Join(b.dir, "fill"), 1)
	if err != nil {
		return nil, err
	}
	b.atEnd(w.Stop)
	n := &node{World: w}
	serials, err := n.issue(ctx, 1)
	if err != nil {
		return nil, err
	}
	model, err := n.Operator.Certificate(ctx, serials[0])
	if err != nil {
		return nil, err
	}
	count := max(int(4000*b.pace), 500)
	book, err := b.filledBook(ctx, count, model.DER)
	if err != nil {
		return nil, err
	}
	b.atEnd(book.Close)
	var own, bare []float64
	for round := range 3 {
		rate, from, err := b.fillByPublisher(ctx, w, book, fmt.Sprintf("fill-own-%d", round), count)
		if err != nil {
			return nil, fmt.Errorf("filling by the publisher: %w", err)
		}
		own = append(own, rate)
		if rate, err = b.fillByLoop(ctx, w, from, fmt.Sprintf("fill-bare-%d", round)); err != nil {
			return nil, fmt.Errorf("filling by a loop: %w", err)
		}
		bare = append(bare, rate)
		b.say("  round %d: hufu %.0f, a loop %.0f", round+1, own[round], bare[round])
	}
	return []figure{newFigure("dir.load", quantile(own, 0.5), quantile(bare, 0.5), fmt.Sprintf("a bare loop that adds the same entries, %d in flight", fillInFlight), 0.9,
		"entries/s into one empty slapd, from the first connection to the signed watermark")}, nil
}

// filledBook is a book with so many certificates of one CA, all with the octets
// of one that the node made: a directory does not look into them.
func (b *bench) filledBook(ctx context.Context, count int, der []byte) (*store.Book, error) {
	engine, err := bolt.Open(filepath.Join(b.dir, "fill.db"), bolt.Options{})
	if err != nil {
		return nil, err
	}
	book, err := store.Create(ctx, store.Config{Engine: engine, Tables: ldapsync.Tables()})
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	now := time.Now().UTC().Truncate(time.Second)
	err = book.Update(ctx, func(tx *store.Tx) error {
		ca := &store.CA{ID: "services", Line: "services", Generation: 1, Kind: "services", Certificate: der, State: "active"}
		ca.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: ca.ID})
		return store.CAs.Insert(tx, ca)
	})
	for done := 0; done < count && err == nil; done += 500 {
		err = book.Update(ctx, func(tx *store.Tx) error {
			for range min(500, count-done) {
				var serial store.Serial
				rand.Read(serial[:])
				serial[0] = 1
				c := &store.Certificate{CA: "services", Serial: serial, DER: der, Profile: "server", Line: serial.String(), Requester: "bench",
					NotBefore: now, NotAfter: now.AddDate(1, 0, 0), SPKI: store.Sum(serial[:])}
				tx.Append(store.Event{Kind: store.KindIntent, CA: c.CA, Serial: serial})
				c.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: serial})
				if err := store.Certificates.Insert(tx, c); err != nil {
					return err
				}
				s := &store.Status{CA: c.CA, Serial: serial, State: store.Good, Time: now, NotAfter: c.NotAfter, Seq: c.Seq}
				if err := store.Statuses.Insert(tx, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, errors.Join(err, book.Close())
	}
	return book, nil
}

// fillByPublisher has a directory filled as the node fills it, and returns who
// may read what is there.
func (b *bench) fillByPublisher(ctx context.Context, w *world.World, book *store.Book, name string, count int) (rate float64, from *ldap.Conn, err error) {
	s, err := b.startSlapd(ctx, w, name, nil, nil)
	if err != nil {
		return 0, nil, err
	}
	url := publisherURL(s)
	conf, err := publisherTLS(w)
	if err != nil {
		return 0, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, nil, err
	}
	p, err := ldapsync.New(ldapsync.Config{Book: book, Key: key,
		Directories: []ldapsync.Directory{{Name: "one", URL: url, Base: w.Base, TLS: conf, InFlight: fillInFlight}}})
	if err != nil {
		return 0, nil, err
	}
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- p.Run(running) }()
	for {
		st := p.Status(ctx)[0]
		if st.State == "in step" && st.LagChanges == 0 {
			break
		}
		if !pause(running, 2*time.Millisecond) {
			return 0, nil, fmt.Errorf("the directory is %s: %s", st.State, st.LastError)
		}
	}
	rate = float64(count) / time.Since(began).Seconds()
	stop()
	if err := <-ended; err != nil {
		return 0, nil, err
	}
	d, err := b.readers([]string{s.URL()})
	if err != nil {
		return 0, nil, err
	}
	return rate, d.conns[0], nil
}

// fillByLoop adds the certificates of another directory. What they lie below
// is there before the clock starts.
func (b *bench) fillByLoop(ctx context.Context, w *world.World, from *ldap.Conn, name string) (rate float64, err error) {
	s, err := b.startSlapd(ctx, w, name, nil, nil)
	if err != nil {
		return 0, err
	}
	d, err := b.publishers(w, []string{publisherURL(s)})
	if err != nil {
		return 0, err
	}
	entries, err := below(from, w.Base)
	if err != nil {
		return 0, err
	}
	var leaves []*ldap.Entry
	for _, e := range entries {
		if slices.Contains(e.GetAttributeValues("objectClass"), "hufuCertificate") {
			leaves = append(leaves, e)
		} else if err := d.add(e); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	err = together(ctx, fillInFlight, len(leaves), func(_ context.Context, _, i int) error { return d.add(leaves[i]) })
	return float64(len(leaves)) / time.Since(began).Seconds(), err
}

// publisherURL is the address by the name that stands in the server's certificate.
func publisherURL(s *slapd.Server) string { return localhost.Replace(s.SecureURL()) }
