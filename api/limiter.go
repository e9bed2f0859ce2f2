package api

import (
	"net"
	"sync"
	"time"
)

// An address has strikeBurst strikes, and gets strikeRate a second back. A strike
// is a handshake that failed, or a request by somebody whom the book does not
// know. Whoever the book knows is not slowed by a stranger's requests; whoever
// shares an address with failing handshakes waits with them, since nobody is
// known before the handshake.
const (
	strikeRate  = 5
	strikeBurst = 50
	maxBuckets  = 10_000
)

// limiter counts strikes by address. It forgets an address whose strikes are all
// back; when it is full of others, it begins anew, which costs an attacker with
// so many addresses nothing and keeps the memory bounded.
type limiter struct {
	rate, burst float64
	now         func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

func newLimiter(rate, burst float64, now func() time.Time) *limiter {
	return &limiter{rate: rate, burst: burst, now: now, buckets: map[string]bucket{}}
}

// blocked tells whether an address has no strike left.
func (l *limiter) blocked(addr string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.level(host(addr)) < 1
}

// strike takes one from an address. One that has none left loses nothing more: it
// was refused already, and gets its strikes back at their pace.
func (l *limiter) strike(addr string) {
	h := host(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.level(h) - 1
	if left < 0 {
		return
	}
	if len(l.buckets) >= maxBuckets {
		for k := range l.buckets {
			if l.level(k) >= l.burst {
				delete(l.buckets, k)
			}
		}
		if len(l.buckets) >= maxBuckets {
			clear(l.buckets)
		}
	}
	l.buckets[h] = bucket{left: left, at: l.now()}
}

// level is called with mu held.
func (l *limiter) level(h string) float64 {
	b, ok := l.buckets[h]
	if !ok {
		return l.burst
	}
	return min(b.left+l.rate*l.now().Sub(b.at).Seconds(), l.burst)
}

// host is the address without its port; all of an IPv6 /64 is one host.
func host(addr string) string {
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(h); ip != nil && ip.To4() == nil {
		return ip.Mask(net.CIDRMask(64, 128)).String()
	}
	return h
}
