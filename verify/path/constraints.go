package path

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// constraints is the nameConstraints of one CA (RFC 5280, Section 4.2.1.10).
type constraints struct {
	permitted, excluded []generalName
}

func readConstraints(v cryptobyte.String) (*constraints, error) {
	seq, ok := sequence(v)
	if !ok || seq.Empty() {
		return nil, errExtension
	}
	var c constraints
	for i, list := range []*[]generalName{&c.permitted, &c.excluded} {
		var trees cryptobyte.String
		tag := asn1.Tag(i).Constructed().ContextSpecific()
		if !seq.PeekASN1Tag(tag) {
			continue
		}
		if !seq.ReadASN1(&trees, tag) || trees.Empty() {
			return nil, errExtension
		}
		for !trees.Empty() {
			var tree cryptobyte.String
			if !trees.ReadASN1(&tree, asn1.SEQUENCE) {
				return nil, errExtension
			}
			base, err := parseGeneralName(&tree)
			if err != nil {
				return nil, err
			}
			if !tree.Empty() { // the RFC knows minimum 0 and no maximum
				return nil, errors.New("a subtree with a minimum or a maximum")
			}
			if base.form == iPAddress && !isNetwork(base.text) {
				return nil, errors.New("an iPAddress that is not a network with its mask")
			}
			*list = append(*list, base)
		}
	}
	if !seq.Empty() {
		return nil, errExtension
	}
	return &c, nil
}

// isNetwork: an address and a mask of ones followed by zeros (RFC 4632), of IPv4
// or IPv6.
func isNetwork(s string) bool {
	if len(s) != 8 && len(s) != 32 {
		return false
	}
	ended := false
	for _, octet := range []byte(s[len(s)/2:]) {
		for bit := 7; bit >= 0; bit-- {
			one := octet>>bit&1 == 1
			if one && ended {
				return false
			}
			ended = ended || !one
		}
	}
	return true
}

// fence is the state permitted_subtrees and excluded_subtrees of RFC 5280, Section
// 6.1.2. Of each set in permitted that has the form of a name, one must hold it.
type fence struct {
	permitted [][]generalName
	excluded  []generalName
	left      *int // comparisons
}

func (f *fence) add(c *constraints) {
	if c == nil {
		return
	}
	if c.permitted != nil {
		f.permitted = append(f.permitted, c.permitted)
	}
	f.excluded = append(f.excluded, c.excluded...)
}

// check holds all names of a certificate against the fence.
func (f *fence) check(c *cert) *Fault {
	if f.permitted == nil && f.excluded == nil {
		return nil
	}
	if len(c.subject) > 0 {
		if bad := f.one(c, generalName{form: directoryName, dir: c.subject}); bad != nil {
			return bad
		}
	}
	for _, g := range c.names {
		if bad := f.one(c, g); bad != nil {
			return bad
		}
	}
	for _, mail := range c.emails {
		if bad := f.one(c, generalName{form: rfc822Name, text: mail}); bad != nil {
			return bad
		}
	}
	return nil
}

func (f *fence) one(c *cert, g generalName) *Fault {
	ask := func(base generalName, excluding bool) (bool, *Fault) {
		if *f.left--; *f.left < 0 {
			return false, fault(TooComplex, c, "names and constraints make more than %d comparisons", maxComparisons)
		}
		in, err := within(g, base, excluding)
		if err != nil {
			return false, fault(NameForm, c, "%v is under a constraint: %v", g, err)
		}
		return in, nil
	}
	for _, set := range f.permitted {
		applies, in := false, false
		for _, base := range set {
			if base.form != g.form {
				continue
			}
			applies = true
			ok, bad := ask(base, false)
			if bad != nil {
				return bad
			}
			in = in || ok
		}
		if applies && !in {
			return fault(NotPermitted, c, "%v lies in no permitted subtree", g)
		}
	}
	for _, base := range f.excluded {
		if base.form != g.form {
			continue
		}
		in, bad := ask(base, true)
		if bad != nil {
			return bad
		}
		if in {
			return fault(Excluded, c, "%v lies in an excluded subtree", g)
		}
	}
	return nil
}

// within reports whether a name lies in the subtree of a base of the same form.
// Where the RFC is silent, excluding takes the wider reading and permitting the
// narrower.
func within(g, base generalName, excluding bool) (bool, error) {
	switch g.form {
	case directoryName:
		return g.dir.Within(base.dir), nil
	case dNSName:
		return dnsWithin(g.text, base.text, excluding)
	case rfc822Name:
		return mailWithin(g.text, base.text, excluding)
	case uriName:
		return uriWithin(g.text, base.text, excluding)
	case iPAddress:
		return addressWithin(g.text, base.text, excluding)
	}
	return false, errors.New("the form is not supported")
}

var errDNS = errors.New("it is not a domain name")

// isDomain holds a name to the preferred syntax of RFC 1034, Section 3.5, with
// underscores, since they are met.
func isDomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}

// dnsWithin: the base and whatever has labels added on its left. A base with a
// leading dot is not of the RFC; it permits only what lies below it.
func dnsWithin(name, base string, excluding bool) (bool, error) {
	below, wild := strings.CutPrefix(name, "*.")
	if !isDomain(below) {
		return false, errDNS
	}
	bare, dotted := strings.CutPrefix(base, ".")
	if bare == "" && !dotted {
		return true, nil
	}
	if !isDomain(bare) {
		return false, errors.New("the constraint is not a domain name")
	}
	name, bare = strings.ToLower(name), strings.ToLower(bare)
	if strings.HasSuffix(name, "."+bare) || name == bare && (!dotted || excluding) {
		return true, nil
	}
	// A wildcard also stands for one label just below, which may be the base.
	_, parent, _ := strings.Cut(bare, ".")
	return excluding && wild && parent == strings.ToLower(below), nil
}

// mailWithin: a mailbox, a host, or with a leading dot the hosts of a domain.
func mailWithin(mail, base string, excluding bool) (bool, error) {
	local, host, err := mailbox(mail)
	if err != nil {
		return false, err
	}
	switch {
	case base == "":
		return excluding, nil
	case strings.Contains(base, "@"):
		l, h, err := mailbox(base)
		if err != nil {
			return false, err
		}
		same := l == local || excluding && strings.EqualFold(l, local)
		return same && strings.EqualFold(h, host), nil
	}
	return hostWithin(host, base)
}

// mailbox splits an address. Quoted local parts have many spellings, so they are
// not compared.
func mailbox(s string) (local, host string, err error) {
	local, host, ok := strings.Cut(s, "@")
	if !ok || local == "" || strings.ContainsAny(local, "\" \\()<>[]:;,") || !isDomain(host) {
		return "", "", errors.New("it is not a mailbox that can be compared")
	}
	return local, host, nil
}

// hostWithin: a host itself, or with a leading dot whatever lies below a domain.
func hostWithin(host, base string) (bool, error) {
	domain, dotted := strings.CutPrefix(base, ".")
	if !isDomain(domain) {
		return false, errors.New("the constraint is not a host or a domain")
	}
	host, domain = strings.ToLower(host), strings.ToLower(domain)
	if dotted {
		return strings.HasSuffix(host, "."+domain), nil
	}
	return host == domain, nil
}

// uriWithin applies to the host, which must be a domain name.
func uriWithin(uri, base string, excluding bool) (bool, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" || u.Opaque != "" || strings.ContainsAny(uri, "\\ ") {
		return false, errors.New("it has no host that can be told")
	}
	host := u.Hostname()
	last := host[strings.LastIndexByte(host, '.')+1:]
	if !isDomain(host) || last == "" || strings.Trim(last, "0123456789") == "" {
		return false, errors.New("its host is not a domain name") // RFC 5280, Section 4.2.1.10
	}
	if base == "" {
		return excluding, nil
	}
	return hostWithin(host, base)
}

func addressWithin(address, network string, excluding bool) (bool, error) {
	a, ok := netip.AddrFromSlice([]byte(address))
	if !ok {
		return false, errors.New("it is not an address")
	}
	if excluding && a.Is4In6() && len(network) == 8 {
		address = string(a.Unmap().AsSlice())
	}
	if len(network) != 2*len(address) {
		return false, nil
	}
	base, mask := network[:len(address)], network[len(address):]
	for i := range len(address) {
		if (address[i]^base[i])&mask[i] != 0 {
			return false, nil
		}
	}
	return true, nil
}
