package responder

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hufu/internal/ocsp"
	"hufu/issuance"
	"hufu/store"
)

const (
	renewTimeout = 15 * time.Second
	// renewPause lies between two tries to get a responder's certificate, so that a
	// token that is away is not hammered, and one that certifies but whose keys do
	// not sign does not fill the book.
	renewPause = 2 * time.Second
)

// authority is a CA of the book as requests meet it.
type authority struct {
	id          string
	certificate []byte
	issuer      *ocsp.Issuer
	served      bool // OCSP is answered for it

	current atomic.Pointer[signer] // nil while there is none

	mu    sync.Mutex // held while a certificate is fetched
	pause time.Time  // until when none is fetched, since the last one failed; guarded by mu
	err   error      // how it failed; guarded by mu

	lists sync.Map // of *copied by listName: the CRLs that were asked for
}

// signer is a delegated responder's key and certificate.
type signer struct {
	*issuance.Responder
	renewAt time.Time
}

// authority returns the CA with that ID. store.ErrNotFound is wrapped when there is
// none.
func (r *Responder) authority(ctx context.Context, id string) (*authority, error) {
	r.mu.RLock()
	a := r.authorities[id]
	r.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	var ca *store.CA
	err := r.cfg.Book.View(ctx, func(tx *store.Tx) (err error) {
		ca, err = store.CAs.Get(tx, store.Key(id))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading CA %q: %w", id, err)
	}
	issuer, err := ocsp.NewIssuer(ca.Certificate)
	if err != nil {
		return nil, fmt.Errorf("reading CA %q: %w", id, err)
	}
	// A CA without a key in this book, such as the root, cannot delegate here. One
	// that is being retired goes on answering; a retired one has nothing alive.
	a = &authority{id: ca.ID, certificate: ca.Certificate, issuer: issuer, served: ca.KeyURI != "" && ca.State != "retired"}
	r.mu.Lock()
	defer r.mu.Unlock()
	if other := r.authorities[id]; other != nil {
		return other, nil
	}
	r.authorities[a.id] = a
	return a, nil
}

// forget has the next request read the CA anew.
func (r *Responder) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.authorities, id)
}

// signer returns a responder whose certificate outlasts what a cache may keep. It
// waits for one until patience ends.
func (r *Responder) signer(ctx context.Context, a *authority, patience <-chan time.Time) (*signer, error) {
	if s := a.current.Load(); s != nil && r.lasts(s) {
		return s, nil
	}
	flight := r.flights.DoChan("signer "+a.id, func() (any, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if s := a.current.Load(); s != nil && r.lasts(s) {
			return s, nil
		}
		if left := a.pause.Sub(r.cfg.Now()); left > 0 && left <= renewPause { // else the clock was set back
			return nil, a.err
		}
		return r.fetch(ctx, a)
	})
	select {
	case res := <-flight:
		if res.Err != nil {
			return nil, res.Err
		}
		return res.Val.(*signer), nil
	case <-patience:
		return nil, errAway
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *Responder) lasts(s *signer) bool {
	return r.cfg.Now().Add(r.cfg.MaxAge).Before(s.NotAfter())
}

// fetch gets a new certificate. a.mu is held.
func (r *Responder) fetch(ctx context.Context, a *authority) (*signer, error) {
	// Others wait for the same certificate, so it does not end with the request
	// that happened to come first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
	defer cancel()
	s, err := r.certified(ctx, a)
	if err != nil {
		a.err = fmt.Errorf("getting an OCSP responder for CA %q: %w", a.id, err)
		a.pause = r.cfg.Now().Add(renewPause)
		r.cfg.Log.Warn("no certificate for the OCSP responder", "ca", a.id, "error", err)
		return nil, a.err
	}
	a.current.Store(s)
	return s, nil
}

func (r *Responder) certified(ctx context.Context, a *authority) (*signer, error) {
	certificate, key, err := r.cfg.Renew(ctx, a.id)
	if err != nil {
		return nil, err
	}
	responder, err := issuance.NewResponder(issuance.ResponderConfig{Issuer: a.certificate, Certificate: certificate, Key: key})
	if err != nil {
		return nil, err
	}
	now := r.cfg.Now()
	s := &signer{Responder: responder, renewAt: now.Add(responder.NotAfter().Sub(now) * 2 / 3)}
	if !r.lasts(s) {
		return nil, fmt.Errorf("its certificate ends %s already", s.NotAfter().Format(time.RFC3339))
	}
	return s, nil
}

// failed gives a responder up whose key did not sign: a key that lived in a session
// of the token is gone for good, and the next request after a pause gets another.
func (r *Responder) failed(a *authority, s *signer, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current.CompareAndSwap(s, nil) {
		a.err = fmt.Errorf("signing for CA %q: %w", a.id, err)
		a.pause = r.cfg.Now().Add(renewPause)
		r.cfg.Log.Warn("the OCSP responder's key does not sign", "ca", a.id, "error", err)
	}
}

// renewSigners renews, ahead of time, the responders that are in use.
func (r *Responder) renewSigners(ctx context.Context) {
	r.mu.RLock()
	var due []*authority
	for _, a := range r.authorities {
		if s := a.current.Load(); s != nil && !r.cfg.Now().Before(s.renewAt) {
			due = append(due, a)
		}
	}
	r.mu.RUnlock()
	for _, a := range due {
		a.mu.Lock()
		// An error is logged; until it mends, the present certificate serves to its end.
		_, _ = r.fetch(ctx, a)
		a.mu.Unlock()
	}
}
