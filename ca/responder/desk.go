package responder

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"hufu/internal/ocsp"
)

// signed is a response on its way to the token and back.
type signed struct {
	authority              *authority
	signer                 *signer
	data                   ocsp.ResponseData
	thisUpdate, nextUpdate time.Time

	der       []byte // to be read after done
	done      chan error
	abandoned atomic.Bool // nobody waits any more
}

const (
	// signingAtOnce bounds what answers take of the token's sessions: issuing goes on
	// beside them.
	signingAtOnce = 4
	// waitingAtOnce is how many wait for the token; it signs so many in a fraction of
	// the patience of a client. Whoever comes while they wait is told to try later.
	waitingAtOnce = 1024
	// linger is how long one who signs stays for the next response: the stack of a
	// new goroutine grows several times over before it can check a signature.
	linger = time.Second
)

var (
	errAway = errors.New("the token has not signed in the time that a client waits: see whether it is there with hufu hsm doctor")
	errBusy = errors.New("more OCSP answers wait for the token than it signs: wait, or have clients ask without a nonce")
)

// desk is where responses wait to be signed. Those who sign come when there is work and
// stay a while after it, so that a busy responder starts no goroutine for an answer.
type desk struct {
	waiting chan *signed
	at      atomic.Int32 // how many sign
	failed  func(*authority, *signer, error)
}

// put lays a response on the desk.
func (d *desk) put(v *signed) error {
	select {
	case d.waiting <- v:
	default:
		return errBusy
	}
	if d.sit() {
		go d.work()
	}
	return nil
}

// sit reports whether there was a place for one more who signs.
func (d *desk) sit() bool {
	for n := d.at.Load(); n < signingAtOnce; n = d.at.Load() {
		if d.at.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// work signs until nothing has come for a while.
func (d *desk) work() {
	idle := time.NewTimer(linger)
	defer idle.Stop()
	for {
		select {
		case v := <-d.waiting:
			d.sign(v)
			continue
		default:
		}
		idle.Reset(linger)
		select {
		case v := <-d.waiting:
			d.sign(v)
		case <-idle.C:
			// What was put while the places were taken is seen here, and what is put
			// from now on finds a place.
			d.at.Add(-1)
			if len(d.waiting) == 0 || !d.sit() {
				return
			}
		}
	}
}

func (d *desk) sign(v *signed) {
	if v.abandoned.Load() {
		return
	}
	// A client that hangs up must not look like a token that fails.
	der, err := v.signer.SignOCSP(context.Background(), v.data)
	if err != nil {
		d.failed(v.authority, v.signer, err)
	}
	v.der = der
	v.done <- err
}
