package ca

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"hufu/issuance"
	"hufu/store"
)

// underway is an order on its way down the spine.
type underway struct {
	Order
	hash     store.Hash // of the order's requests
	items    []item
	reserved bool

	// One of these is the outcome.
	certs []*store.Certificate
	err   error
	open  uint64 // the head at which the same order was seen open elsewhere
}

// goesOn tells whether the order's outcome is not known yet.
func (u *underway) goesOn() bool { return u.certs == nil && u.err == nil && u.open == 0 }

// item is one certificate of an order.
type item struct {
	issuer  *issuance.Issuer
	renewal bool // of a line that exists
	token   *issuance.Token
	cert    *store.Certificate
}

// issue is the spine. It takes one order, or a chunk of a batch, from the
// request to the certificate and leaves the outcome of each order in it; an
// error is one of the book and leaves the outcome of the rest unknown. Whatever
// it stops at, by error or by a crash, leaves the book as one of three things:
// no trace of the order, open intents, or the whole order.
func (a *Authority) issue(ctx context.Context, us []*underway) error {
	node, err := a.enter(ctx)
	if err != nil {
		return err
	}

	// 0. An order that was answered before is answered again.
	if err := a.recall(ctx, us); err != nil {
		return fmt.Errorf("looking for earlier orders: %w", err)
	}

	// 1. Parse the request, check the proof of possession and the key.
	// 2. Draw the serial number.
	// 3. Prepare: the bytes to be signed, judged by policy.
	a.spread(len(us), func(i int) {
		if u := us[i]; u.goesOn() {
			u.err = a.prepare(u)
		}
	})

	// A crash up to here leaves nothing: nobody was promised anything.

	// 4. Reserve: serial, hash of the bytes to be signed, claim on the key,
	// idempotency key, intent in the journal.
	if err := a.together(ctx, us, func(tx *store.Tx, u *underway) error { return a.reserve(tx, u, node) }); err != nil {
		return fmt.Errorf("reserving: %w", err)
	}
	for _, u := range us {
		u.reserved = u.goesOn()
	}

	// A crash from here to the end of step 6 leaves open intents. They are
	// on disk before the key is touched: whatever was signed has its intent, and
	// Recover closes it once this node's lease has ended. Nobody has seen the
	// certificate, and its serial is revoked.

	// 5. Issue: one operation of the token for each certificate; the signature
	// is checked with the CA's certificate.
	a.sign(ctx, us)

	// 6. Commit: record, status, event. A caller that hangs up now does not stop
	// it: what was signed is either recorded or closed. The transaction finds its
	// intents open or fails, so that a node that slept through its lease cannot
	// commit what Recover closed.
	ctx = context.WithoutCancel(ctx)
	if err := a.together(ctx, us, a.commit); err != nil {
		for _, u := range us {
			if u.goesOn() {
				u.err = fmt.Errorf("committing: %w", err)
			}
		}
	}

	// What was reserved and did not get through is closed at once, by the code
	// that Recover uses. Where it is not known whether the commit was made, the
	// intents tell: they are gone, or they are closed now.
	if err := a.close(ctx, us); err != nil {
		a.Log.Error("closing intents failed; recovery will close them", "err", err)
	}

	// A crash between the commit and the answer loses the answer only: the same
	// idempotency key gets the same certificates.
	for _, u := range us {
		if u.goesOn() {
			u.certs = u.records()
		}
	}
	return nil
}

// spread runs f for 0 to n-1, as many at once as the token has sessions.
func (a *Authority) spread(n int, f func(int)) {
	if n == 1 {
		f(0)
		return
	}
	var g errgroup.Group
	g.SetLimit(a.Sessions)
	for i := range n {
		g.Go(func() error { f(i); return nil })
	}
	_ = g.Wait() // f keeps its own errors
}

// together runs f in one transaction for every order that goes on. An order
// whose f fails gets that error as its outcome, and the transaction is run again
// without it; an error that is returned is one of the book.
func (a *Authority) together(ctx context.Context, us []*underway, f func(*store.Tx, *underway) error) error {
	for {
		var live []*underway
		for _, u := range us {
			if u.goesOn() {
				live = append(live, u)
			}
		}
		if len(live) == 0 {
			return nil
		}
		var failed *underway
		var cause error
		err := a.Book.Update(ctx, func(tx *store.Tx) error {
			failed = nil
			for _, u := range live {
				u.open = 0
				if cause = f(tx, u); cause != nil {
					failed = u
					return cause
				}
			}
			return nil
		})
		if failed == nil {
			return err
		}
		failed.err = cause
	}
}

// sign makes the certificates of all orders that go on, spread over the token's
// sessions.
func (a *Authority) sign(ctx context.Context, us []*underway) {
	var all []*item
	var of []*underway
	for _, u := range us {
		if u.goesOn() {
			for i := range u.items {
				all, of = append(all, &u.items[i]), append(of, u)
			}
		}
	}
	errs := make([]error, len(all))
	a.spread(len(all), func(i int) { all[i].cert.DER, errs[i] = all[i].issuer.Issue(ctx, all[i].token) })
	for i, err := range errs {
		if err != nil && of[i].err == nil {
			of[i].err = &SigningError{Ref{all[i].cert.CA, all[i].cert.Serial}, err}
		}
	}
}

// commit records one order's certificates.
func (a *Authority) commit(tx *store.Tx, u *underway) error {
	for i := range u.items {
		c := u.items[i].cert
		if err := store.Intents.Delete(tx, store.SerialKey(c.CA, c.Serial)); err != nil {
			if errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("the intent of serial %s was closed by another node while this one slept past its lease; ask again", c.Serial)
			}
			return err
		}
		sum := store.Sum(c.DER)
		c.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: c.Serial, Actor: u.Requester,
			Detail: `{"sha256":"` + sum.String() + `"}`})
		if err := store.Certificates.Insert(tx, c); err != nil {
			return fmt.Errorf("recording certificate %s: %w", c.Serial, err)
		}
		s := store.Status{CA: c.CA, Serial: c.Serial, State: store.Good, Time: tx.Now().UTC(), NotAfter: c.NotAfter, Shard: c.Shard, Seq: c.Seq}
		if u.Hold {
			s.State, s.Reason = store.Held, certificateHold
			s.Seq = tx.Append(store.Event{Kind: store.KindHeld, CA: c.CA, Serial: c.Serial, Actor: u.Requester})
		}
		if err := store.Statuses.Insert(tx, &s); err != nil {
			return fmt.Errorf("recording the status of %s: %w", c.Serial, err)
		}
	}
	if u.Commit != nil {
		return u.Commit(tx, u.records())
	}
	return nil
}

// records returns the records of the order's certificates, as far as they are
// filled in.
func (u *underway) records() []*store.Certificate {
	certs := make([]*store.Certificate, len(u.items))
	for i := range u.items {
		certs[i] = u.items[i].cert
	}
	return certs
}

// close closes the intents of the orders that were reserved and failed.
func (a *Authority) close(ctx context.Context, us []*underway) error {
	var refs []Ref
	for _, u := range us {
		if u.reserved && u.err != nil {
			for i := range u.items {
				refs = append(refs, Ref{u.items[i].cert.CA, u.items[i].cert.Serial})
			}
		}
	}
	if len(refs) == 0 {
		return nil
	}
	return a.closeIntents(ctx, refs)
}
