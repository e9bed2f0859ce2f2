package path

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"hufu/internal/crl"
	"hufu/internal/dn"
)

// maxHits bounds the entries of one list that bear serial numbers of the request.
const maxHits = 1024

// list is one revocation list, reduced to the entries that the request may ask
// about. Nothing of it is believed before signer named who signed it.
type list struct {
	*crl.List
	issuer dn.Name
	scope  *scope
	hits   []hit

	signedBy map[*cert]bool // what was computed
}

// hit is an entry with a serial number of the request.
type hit struct {
	serial  string
	issuers []dn.Name // of the certificate; nil is the issuer of the list
	reason  int
	at      time.Time
}

// Reasons of entries that mean something special (RFC 5280, Section 5.3.1).
const (
	certificateHold = 6
	removeFromCRL   = 8
)

// readList reads one list as a stream.
func (j *judge) readList(r io.Reader, serials map[string]bool) (*list, error) {
	l := list{signedBy: map[*cert]bool{}}
	var issuers []dn.Name
	limited := &io.LimitedReader{R: r, N: MaxList}
	head, err := crl.Scan(limited, func(e crl.Entry) error {
		if err := j.ctx.Err(); err != nil {
			return err
		}
		if e.Issuer != nil { // it holds until another one comes (RFC 5280, Section 5.3.3)
			var err error
			if issuers, err = entryIssuers(e.Issuer); err != nil {
				return err
			}
		}
		if !serials[string(e.Serial)] {
			return nil
		}
		if len(l.hits) == maxHits {
			return fmt.Errorf("more than %d entries bear a serial number of this request", maxHits)
		}
		l.hits = append(l.hits, hit{string(e.Serial), issuers, e.Reason, e.RevokedAt})
		return nil
	})
	switch {
	case limited.N <= 0:
		return nil, errTooLarge
	case err != nil:
		return nil, err
	}
	l.List = head
	if l.issuer, err = dn.Parse(head.Issuer); err != nil {
		return nil, err
	}
	if l.scope, err = readScope(head.Scope); err != nil {
		return nil, fmt.Errorf("its issuing distribution point: %w", err)
	}
	if issuers != nil && (l.scope == nil || !l.scope.indirect) {
		return nil, errors.New("it names other issuers and is not an indirect list")
	}
	return &l, nil
}

// entryIssuers reads a certificateIssuer. Without a directory name it could not be
// told whose certificate the entry revokes.
func entryIssuers(der []byte) ([]dn.Name, error) {
	names, err := readNames(cryptobyte.String(bytes.Clone(der)))
	if err != nil {
		return nil, fmt.Errorf("reading the certificate issuer of an entry: %w", err)
	}
	var all []dn.Name
	for _, g := range names {
		if g.form == directoryName {
			all = append(all, g.dir)
		}
	}
	if all == nil {
		return nil, errors.New("the certificate issuer of an entry has no directory name")
	}
	return all, nil
}

// find looks a certificate up: by serial number and by issuer (RFC 5280, Section
// 6.3.3 (i) and (j)). Of several entries the last one that is not a removal counts.
func (l *list) find(c *cert) *hit {
	var found *hit
	for i := range l.hits {
		h := &l.hits[i]
		if h.serial != c.serial {
			continue
		}
		mine := l.issuer.Equal(c.issuer)
		if h.issuers != nil {
			mine = slices.ContainsFunc(h.issuers, c.issuedBy)
		}
		if mine && (found == nil || found.reason == removeFromCRL) {
			found = h
		}
	}
	return found
}

// issuedBy reports whether a name is the certificate's issuer, or another name of
// it, by which an entry may call it (RFC 5280, Section 5.3.3).
func (c *cert) issuedBy(name dn.Name) bool {
	return name.Equal(c.issuer) || slices.ContainsFunc(c.issuerNames, func(g generalName) bool {
		return g.form == directoryName && g.dir.Equal(name)
	})
}

// newer orders lists of one scope.
func (l *list) newer(o *list) bool {
	if l.Number != nil && o.Number != nil {
		if n := l.Number.Cmp(o.Number); n != 0 {
			return n > 0
		}
	}
	return l.ThisUpdate.After(o.ThisUpdate)
}

// same reports whether two lists are of one issuer and one scope (RFC 5280, Section
// 6.3.3 (c)).
func (l *list) same(o *list) bool {
	return l.issuer.Equal(o.issuer) && bytes.Equal(l.Scope, o.Scope) && (l.Scope == nil) == (o.Scope == nil) &&
		bytes.Equal(l.AuthorityKeyID, o.AuthorityKeyID)
}

// fresh holds times against now and the caller's bound.
func (j *judge) fresh(thisUpdate, nextUpdate time.Time) error {
	switch {
	case thisUpdate.After(j.now.Add(skew)):
		return fmt.Errorf("it is from the future, %s", stamp(thisUpdate))
	case nextUpdate.IsZero():
		return errors.New("it does not say until when it holds")
	case j.now.After(nextUpdate):
		return fmt.Errorf("it was good until %s", stamp(nextUpdate))
	case j.r.MaxAge > 0 && j.now.Sub(thisUpdate) > j.r.MaxAge:
		return fmt.Errorf("it is of %s, older than %s", stamp(thisUpdate), j.r.MaxAge)
	}
	return nil
}

// signer finds the certificate whose key signed a list: one of the path above the
// certificate in question, or another of the list's issuer with a valid path of its
// own to the same anchor (RFC 5280, Section 6.3.3 (f) and (g)). The other one must
// say itself that it signs lists: a name alone is too little.
func (j *judge) signer(l *list, path []*cert, asking []*cert) (*cert, error) {
	why := fmt.Errorf("no certificate of its issuer was given")
	fits := func(c *cert) bool {
		if c.subjectKey != l.issuer.Key() {
			return false
		}
		if c.usage && c.x.KeyUsage&x509.KeyUsageCRLSign == 0 {
			why = errors.New("the key usage of its issuer does not hold cRLSign")
			return false
		}
		if keyFault(c) != nil {
			why = errors.New("the key of its issuer is not accepted")
			return false
		}
		ok, known := l.signedBy[c]
		if !known {
			j.signatures++
			ok = j.signatures <= maxSignatures && l.SignedBy(c.x.PublicKey)
			l.signedBy[c] = ok
		}
		if !ok {
			why = errors.New("its signature was not made with the key of its issuer")
			return false
		}
		return true
	}
	for _, c := range slices.Backward(path[:len(path)-1]) {
		if fits(c) {
			return c, nil
		}
	}
	for _, c := range j.pool[l.issuer.Key()] {
		if slices.Contains(asking, c) || slices.Contains(path, c) || !fits(c) {
			continue
		}
		if !c.usage {
			why = errors.New("its issuer is not in the path and has no key usage that holds cRLSign")
			continue
		}
		why = errors.New("its issuer has no valid path of its own to the same anchor")
		valid := false
		j.walk([]*cert{c}, path[0], &attempt{}, func(p []*cert) bool {
			j.paths++
			_, f := j.basic(p, nil)
			if f == nil {
				_, f = j.status(p, asking)
			}
			valid = f == nil
			return valid
		})
		if valid {
			return c, nil
		}
	}
	return nil, why
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
