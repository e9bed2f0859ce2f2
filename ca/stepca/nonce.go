package stepca

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
	"time"

	"github.com/smallstep/certificates/acme"
)

const (
	nonceLife = time.Hour
	maxNonces = 1 << 16
)

// nonces are the anti-replay nonces (RFC 8555, Section 6.5) that were given out
// and not used yet. The oldest go first when there are too many, so a flood
// costs its neighbours a retry and the node no memory.
type nonces struct {
	now func() time.Time

	mu    sync.Mutex // guards the two below
	given map[acme.Nonce]time.Time
	queue []acme.Nonce // in the order of being given
}

func newNonces(now func() time.Time) *nonces {
	return &nonces{now: now, given: map[acme.Nonce]time.Time{}}
}

func (n *nonces) create() acme.Nonce {
	// base64url without padding, as RFC 8555, Section 6.5.1 has it: clients
	// decode a nonce and encode it again.
	octets := make([]byte, 16)
	rand.Read(octets)
	nonce := acme.Nonce(base64.RawURLEncoding.EncodeToString(octets))
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	for len(n.queue) > 0 {
		oldest := n.queue[0]
		at, waiting := n.given[oldest]
		if waiting && len(n.queue) < maxNonces && now.Sub(at) < nonceLife {
			break
		}
		delete(n.given, oldest)
		n.queue = n.queue[1:]
	}
	n.given[nonce] = now
	n.queue = append(n.queue, nonce)
	return nonce
}

func (n *nonces) use(nonce acme.Nonce) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.given[nonce]
	delete(n.given, nonce)
	if !ok || n.now().Sub(at) >= nonceLife {
		return acme.NewError(acme.ErrorBadNonceType, "nonce %s is unknown, used or too old", nonce)
	}
	return nil
}
