package device

import (
	"bytes"
	"crypto/x509"
	"strings"

	"hufu/hsm"
	"hufu/readers/apdu"
	"hufu/verify"
)

func (r *Reader) identify(e apdu.Elements) ([]byte, error) {
	if err := take(e, nil); err != nil {
		return nil, err
	}
	f := r.Facts()
	is := apdu.Elements{apdu.Number: []byte(f.Number), apdu.Model: []byte(f.Model), apdu.Firmware: []byte(f.Firmware), apdu.State: {f.State}}
	if f.City != "" {
		is[apdu.City] = []byte(f.City)
	}
	return is.Encode(), nil
}

func (r *Reader) certificate(which byte, e apdu.Elements) ([]byte, error) {
	if err := take(e, nil); err != nil {
		return nil, err
	}
	p := r.flash.installed()
	if p == nil {
		p = &pair{}
	}
	all := map[byte][]byte{apdu.DeviceCertificate: r.flash.Certificate, apdu.SigningCertificate: p.Certificate, apdu.EncryptionCertificate: p.Certificate2}
	der, known := all[which]
	switch {
	case !known:
		return nil, refuse(apdu.WrongData, "there is no certificate %02X", which)
	case der == nil:
		return nil, refuse(apdu.NotFound, "the reader is %s, and has no such certificate", StateName(r.flash.state()))
	}
	return der, nil
}

// makeDevice makes the device key. Asked again it answers with the same key, until
// that is certified.
func (r *Reader) makeDevice(e apdu.Elements) ([]byte, error) {
	if err := take(e, nil); err != nil {
		return nil, err
	}
	if r.flash.Certificate != nil {
		return nil, refuse(apdu.Conditions, "the reader is %s: its device key is certified", StateName(r.flash.state()))
	}
	if r.flash.Device == nil {
		k, err := r.makeKey(hsm.Sign)
		if err != nil {
			return nil, err
		}
		next := *r.flash
		next.Device = k
		if err := r.save(&next); err != nil {
			return nil, err
		}
	}
	return r.request(r.flash.Device)
}

// putDevice takes the device certificate. With the first one the reader learns whom
// it trusts, and stays with that.
func (r *Reader) putDevice(e apdu.Elements) error {
	if err := take(e, []element{{apdu.Certificate, "device certificate", 0}, {apdu.Issuer, "certificate of the CA above it", 0}, {apdu.Root, "root", 0}}); err != nil {
		return err
	}
	if r.flash.Device == nil {
		return refuse(apdu.Conditions, "the reader is blank: it has no device key")
	}
	next := *r.flash
	next.Certificate, next.Issuer, next.Root = e[apdu.Certificate], e[apdu.Issuer], e[apdu.Root]
	if had := r.flash.Root; had != nil && !bytes.Equal(had, next.Root) {
		return refuse(apdu.SecurityStatus, "the reader trusts another root, and stays with it")
	}
	// A working CA in the root's place would end what the reader can be given.
	if root, err := x509.ParseCertificate(next.Root); err != nil || !root.IsCA || root.CheckSignatureFrom(root) != nil {
		return refuse(apdu.SecurityStatus, "what came as the root is not one: a CA that signed itself")
	}
	c, err := x509.ParseCertificate(next.Certificate)
	if err != nil {
		return refuse(apdu.WrongData, "the device certificate cannot be read: %v", err)
	}
	if !bytes.Equal(c.RawSubjectPublicKeyInfo, r.flash.Device.SPKI) {
		return refuse(apdu.SecurityStatus, "the device certificate is of another key than this reader's")
	}
	if len(c.DNSNames) != 1 || !strings.HasPrefix(c.DNSNames[0], "r"+r.flash.Number+devices) {
		return refuse(apdu.SecurityStatus, "the device certificate names %v, not reader %s", c.DNSNames, r.flash.Number)
	}
	if _, err := next.verifier(r.rack).Chain(next.Certificate, [][]byte{next.Issuer}, verify.Device); err != nil {
		return refuse(apdu.SecurityStatus, "the device certificate is not acceptable: %v", err)
	}
	if bytes.Equal(next.Certificate, r.flash.Certificate) && bytes.Equal(next.Issuer, r.flash.Issuer) {
		return nil
	}
	for _, part := range []*[]byte{&next.Certificate, &next.Issuer, &next.Root} {
		*part = bytes.Clone(*part) // they lie in the command's buffer
	}
	return r.save(&next)
}

// devices stands between the number and the domain in the name of a device.
const devices = ".devices."

// verifier judges certificates as the reader does: from its one root, below the
// domain that its device certificate names.
func (m *image) verifier(k *Rack) *verify.Verifier {
	v := &verify.Verifier{Anchors: [][]byte{m.Root}, Now: k.now, CacheSize: 8}
	if c, err := x509.ParseCertificate(m.Certificate); err == nil && len(c.DNSNames) == 1 {
		_, v.Domain, _ = strings.Cut(c.DNSNames[0], devices)
	}
	return v
}
