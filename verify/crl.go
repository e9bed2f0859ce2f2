package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"time"

	"hufu/internal/crl"
)

// maxCRL bounds a list: about five million entries.
const maxCRL = 256 << 20

// CRLs tells the status from revocation lists (RFC 5280, Section 6.3.3). A list is
// fetched again when it is older than MaxAge, and one that is still older then, or
// past its nextUpdate, is refused; so is a delta list, one older than the one
// before it, and one that does not cover the certificate. No delta is read: what is
// told is as old as the full list, and MaxAge bounds that.
type CRLs struct {
	Lists  []Source
	MaxAge time.Duration    // since thisUpdate; 0: until nextUpdate
	Client *http.Client     // nil: one that waits 10 seconds
	Now    func() time.Time // nil: time.Now

	once  sync.Once
	lists map[[32]byte][]*list
}

// list is one revocation list as far as it was fetched.
type list struct {
	url     string
	mu      sync.Mutex
	head    *crl.List // nil before the first fetch
	revoked map[string]crl.Entry
}

func (l *CRLs) prepare() {
	l.lists = make(map[[32]byte][]*list)
	for _, s := range l.Lists {
		issuer := sha256.Sum256(s.Issuer)
		l.lists[issuer] = append(l.lists[issuer], &list{url: s.URL})
	}
}

// Status is a StatusFunc.
func (l *CRLs) Status(ctx context.Context, c *Cert) (Evidence, error) {
	l.once.Do(l.prepare)
	lists := l.lists[c.Issuer.Hash]
	if len(lists) == 0 {
		return Evidence{}, fmt.Errorf("no revocation list is configured for the CA %s", c.Issuer.Subject)
	}
	var failed []error
	for _, one := range lists {
		e, err := l.ask(ctx, one, c)
		if err == nil {
			return e, nil
		}
		failed = append(failed, fmt.Errorf("revocation list %s: %w", one.url, err))
	}
	return Evidence{}, errors.Join(failed...)
}

func (l *CRLs) ask(ctx context.Context, one *list, c *Cert) (Evidence, error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	now := clock(l.Now)
	if one.head == nil || l.tooOld(one, now) != nil {
		if err := one.fetch(ctx, l.Client, c.Issuer.DER); err != nil {
			return Evidence{}, err
		}
	}
	if err := l.tooOld(one, now); err != nil {
		return Evidence{}, err
	}
	if !covers(one.head.Point, c) {
		return Evidence{}, errors.New("it does not cover this certificate")
	}
	e := Evidence{Source: "crl " + one.url, Time: one.head.ThisUpdate, State: Good}
	if entry, ok := one.revoked[string(c.X509.SerialNumber.Bytes())]; ok {
		e.revoked(entry.Reason, entry.RevokedAt)
	}
	return e, nil
}

func (l *CRLs) tooOld(one *list, now time.Time) error {
	if l.MaxAge > 0 && now.Sub(one.head.ThisUpdate) > l.MaxAge {
		return fmt.Errorf("it is of %s, older than %s", stamp(one.head.ThisUpdate), l.MaxAge)
	}
	return fresh(one.head.ThisUpdate, one.head.NextUpdate, now)
}

// fetch replaces the list by the one that its address has now. The lock is held.
func (l *list) fetch(ctx context.Context, client *http.Client, issuer []byte) error {
	der, err := fetch(ctx, client, http.MethodGet, l.url, nil, maxCRL)
	if err != nil {
		return err
	}
	revoked := make(map[string]crl.Entry)
	head, err := crl.Parse(bytes.NewReader(der), func(e crl.Entry) error {
		key := new(big.Int).SetBytes(e.Serial).Bytes()
		e.Serial = nil // valid only during the call
		revoked[string(key)] = e
		return nil
	})
	if err != nil {
		return err
	}
	if err := head.CheckSignature(issuer); err != nil {
		return err
	}
	if head.Base != nil {
		return errors.New("it is a delta list: configure the full one")
	}
	if head.Number == nil {
		return errors.New("it has no number, so nobody could tell whether it was rolled back")
	}
	if l.head != nil && head.Number.Cmp(l.head.Number) < 0 {
		return fmt.Errorf("it has number %v and an earlier one had %v: it was rolled back", head.Number, l.head.Number)
	}
	l.head, l.revoked = head, revoked
	return nil
}

// covers tells whether a list with this distribution point speaks of c
// (RFC 5280, Section 6.3.3 (b) (2)).
func covers(p *crl.Point, c *Cert) bool {
	if p == nil {
		return true
	}
	if p.OnlyCAs && !c.X509.IsCA || p.OnlyUsers && c.X509.IsCA {
		return false
	}
	return len(p.URIs) == 0 || slices.ContainsFunc(p.URIs, func(u string) bool {
		return slices.Contains(c.X509.CRLDistributionPoints, u)
	})
}
