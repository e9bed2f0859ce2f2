package path

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
)

// use is what a purpose demands.
type use struct {
	eku      string        // contents
	usage    x509.KeyUsage // one of these, where the certificate limits its key
	explicit bool          // the extended key usage must be there, and by its own name
}

const (
	signs   = x509.KeyUsageDigitalSignature
	commits = x509.KeyUsageContentCommitment
	seals   = x509.KeyUsageKeyEncipherment
	agrees  = x509.KeyUsageKeyAgreement
	anyEKU  = "\x55\x1d\x25\x00"
	kp      = "\x2b\x06\x01\x05\x05\x07\x03"
)

var uses = map[string]use{
	"server":    {kp + "\x01", signs | seals | agrees, false},
	"client":    {kp + "\x02", signs | agrees, false},
	"code":      {kp + "\x03", signs, false},
	"email":     {kp + "\x04", signs | commits | seals | agrees, false},
	"timestamp": {kp + "\x08", signs | commits, true},
	"ocsp":      {kp + "\x09", signs | commits, true},
}

// Purposes lists the names of purposes. A dotted extended key usage serves as well.
var Purposes = []string{"server", "client", "code", "email", "timestamp", "ocsp"}

// findUse reads Request.Purpose; nil is any purpose.
func findUse(name string) (*use, *Fault) {
	if name == "" {
		return nil, nil
	}
	if u, ok := uses[name]; ok {
		return &u, nil
	}
	id, err := contents(name)
	if err != nil {
		return nil, fault(BadRequest, nil, "the purpose %s is neither one of %s nor a dotted extended key usage", quote(name), strings.Join(Purposes, ", "))
	}
	return &use{eku: id, explicit: true}, nil
}

// fits holds a path, the anchor first, against the purpose.
func (u *use) fits(path []*cert) *Fault {
	if u == nil {
		return nil
	}
	leaf := path[len(path)-1]
	if u.explicit && !slices.Contains(leaf.eku, u.eku) {
		return fault(Purpose, leaf, "its extended key usages do not hold %s", dotted(u.eku))
	}
	if leaf.usage && u.usage != 0 && leaf.x.KeyUsage&u.usage == 0 {
		return fault(Purpose, leaf, "its key usage does not allow it").per("RFC 5280, Section 4.2.1.3")
	}
	for _, c := range path {
		if c.hasEKU && !slices.Contains(c.eku, u.eku) && !slices.Contains(c.eku, anyEKU) {
			return fault(Purpose, c, "its extended key usages do not hold %s", dotted(u.eku))
		}
	}
	return nil
}

// bears reports whether a certificate has a name among its alternative names. The
// common name is not one of them (RFC 9525, Section 6.3).
func bears(c *cert, name string) bool {
	if address, err := netip.ParseAddr(name); err == nil {
		return slices.ContainsFunc(c.names, func(g generalName) bool {
			return g.form == iPAddress && address.Zone() == "" && g.text == string(address.AsSlice())
		})
	}
	if strings.Contains(name, "@") {
		local, host, err := mailbox(name)
		return err == nil && slices.ContainsFunc(c.names, func(g generalName) bool {
			l, h, err := mailbox(g.text)
			return g.form == rfc822Name && err == nil && l == local && strings.EqualFold(h, host)
		})
	}
	return slices.ContainsFunc(c.names, func(g generalName) bool { return g.form == dNSName && matchesDNS(g.text, name) })
}

// matchesDNS: a wildcard is the whole leftmost label and stands for exactly one
// (RFC 9525, Section 6.3), above a domain of at least two.
func matchesDNS(pattern, name string) bool {
	name = strings.TrimSuffix(name, ".")
	if !isDomain(name) {
		return false
	}
	if parent, wild := strings.CutPrefix(pattern, "*."); wild {
		_, rest, _ := strings.Cut(name, ".")
		return isDomain(parent) && strings.Contains(parent, ".") && strings.EqualFold(rest, parent)
	}
	return isDomain(pattern) && strings.EqualFold(pattern, name)
}
