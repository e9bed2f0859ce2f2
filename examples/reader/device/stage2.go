package device

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"hufu/hsm"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/readers/apdu"
	"hufu/verify"
)

// enrol makes the keys of a pair and signs the request for it. In another session
// the keys are the same, until the pair's receipt is taken; the transport key is
// not, since it serves one delivery.
func (r *Reader) enrol(e apdu.Elements) ([]byte, error) {
	if err := take(e, []element{{apdu.Session, "session", 16}, {apdu.Challenge, "challenge", 32}, {apdu.City, "city", 6}, {apdu.Encryption, "maker of the encryption key", 1}}); err != nil {
		return nil, err
	}
	city, byReader := string(e[apdu.City]), e[apdu.Encryption][0] == apdu.ByReader
	switch {
	case strings.Trim(city, "0123456789") != "":
		return nil, refuse(apdu.WrongData, "the city %q is not six digits", city)
	case e[apdu.Encryption][0] > apdu.ByReader:
		return nil, refuse(apdu.WrongData, "nobody knows who %02X is that should make the encryption key", e[apdu.Encryption][0])
	case r.flash.Certificate == nil:
		return nil, refuse(apdu.Conditions, "the reader is %s: it has no device certificate", StateName(r.flash.state()))
	case r.flash.city() != "" && r.flash.city() != city:
		return nil, refuse(apdu.Conditions, "the reader belongs to city %s, not to %s", r.flash.city(), city)
	}
	p := &pair{City: city, ByReader: byReader}
	if old := r.flash.Next; old != nil && old.City == city && old.ByReader == byReader {
		if bytes.Equal(old.Session, e[apdu.Session]) && bytes.Equal(old.Challenge, e[apdu.Challenge]) {
			return old.Enrolment, nil
		}
		*p = *old
	}
	p.Session, p.Challenge = bytes.Clone(e[apdu.Session]), bytes.Clone(e[apdu.Challenge])
	if err := r.makePair(p); err != nil {
		return nil, err
	}
	if err := r.signEnrolment(p); err != nil {
		return nil, err
	}
	next := *r.flash
	next.Next = p
	if err := r.save(&next); err != nil {
		return nil, err
	}
	return p.Enrolment, nil
}

// makePair makes those keys of a pair that are missing.
func (r *Reader) makePair(p *pair) (err error) {
	if p.Sign == nil {
		if p.Sign, err = r.makeKey(hsm.Sign); err != nil {
			return err
		}
	}
	switch {
	case !p.ByReader:
		p.Transport, err = r.makeKey(hsm.Derive)
	case p.Encrypt == nil:
		p.Encrypt, err = r.makeKey(hsm.Derive)
	}
	return err
}

// signEnrolment signs with the device key at first, and in a renewal with the
// signing key that the reader has.
func (r *Reader) signEnrolment(p *pair) error {
	vouched := pkix.Extension{Id: oid.EncryptionKey}
	if p.ByReader {
		vouched.Value = p.Encrypt.SPKI
	} else {
		vouched.Id, vouched.Value = oid.TransportKey, p.Transport.SPKI
	}
	csr, err := r.request(p.Sign, vouched)
	if err != nil {
		return err
	}
	content, err := (&verify.Enrolment{Session: hex.EncodeToString(p.Session), Challenge: p.Challenge, Number: r.flash.Number, City: p.City,
		Firmware: r.flash.Firmware, CSR: csr}).Marshal()
	if err != nil {
		return err
	}
	with, certificate, issuer := r.flash.Device, r.flash.Certificate, r.flash.Issuer
	if has := r.flash.Pair; has != nil {
		with, certificate, issuer = has.Sign, has.Certificate, has.Issuer
	}
	signer, err := r.signer(with)
	if err != nil {
		return err
	}
	p.Enrolment, err = cms.Sign(oid.ContentEnrolment, content, certificate, [][]byte{issuer}, signer, r.rack.now())
	return err
}

// install takes the pair of certificates, and the encryption key where the centre
// made it, and signs the receipt with the new key.
func (r *Reader) install(e apdu.Elements) ([]byte, error) {
	needed := []element{{apdu.Certificate, "signing certificate", 0}, {apdu.Certificate2, "encryption certificate", 0}, {apdu.Issuer, "certificate of the CA above them", 0},
		{apdu.Session, "session", 16}}
	if err := take(e, needed, apdu.SealedKey, apdu.Ticket); err != nil {
		return nil, err
	}
	if t, ok := e[apdu.Ticket]; ok && len(t) != 16 {
		return nil, refuse(apdu.WrongData, "the ticket has %d octets", len(t))
	}
	if r.flash.Next == nil {
		return nil, refuse(apdu.Conditions, "the reader is %s: it did not enrol", StateName(r.flash.state()))
	}
	p := *r.flash.Next
	_, sealed := e[apdu.SealedKey]
	switch {
	case !bytes.Equal(e[apdu.Session], p.Session):
		return nil, refuse(apdu.WrongData, "the session is %x, and the reader enrolled in %x", e[apdu.Session], p.Session)
	case sealed && p.ByReader:
		return nil, refuse(apdu.WrongData, "a sealed key came, and the reader made its encryption key itself")
	case !sealed && !p.ByReader:
		return nil, refuse(apdu.WrongData, "the sealed key is missing")
	}
	again := p.Receipt != nil && bytes.Equal(p.Session, p.Session2) && bytes.Equal(p.Certificate, e[apdu.Certificate]) &&
		bytes.Equal(p.Certificate2, e[apdu.Certificate2]) && bytes.Equal(p.Issuer, e[apdu.Issuer]) && bytes.Equal(p.Ticket, e[apdu.Ticket])
	p.Certificate, p.Certificate2, p.Issuer = bytes.Clone(e[apdu.Certificate]), bytes.Clone(e[apdu.Certificate2]), bytes.Clone(e[apdu.Issuer])
	p.Session2, p.Ticket = p.Session, bytes.Clone(e[apdu.Ticket])
	if err := r.judge(&p, e[apdu.SealedKey]); err != nil {
		return nil, err
	}
	if again {
		return p.Receipt, nil
	}
	if err := r.signReceipt(&p); err != nil {
		return nil, err
	}
	next := *r.flash
	next.Next = &p
	if err := r.save(&next); err != nil {
		return nil, err
	}
	return p.Receipt, nil
}

// judge holds a pair against what the reader knows, and opens its encryption key.
func (r *Reader) judge(p *pair, sealed []byte) error {
	v := r.flash.verifier(r.rack)
	sign, err := r.judgeOne(v, p, p.Certificate, "signing", verify.ReaderSigning)
	if err != nil {
		return err
	}
	encrypt, err := r.judgeOne(v, p, p.Certificate2, "encryption", verify.ReaderEncryption)
	if err != nil {
		return err
	}
	if !bytes.Equal(sign.X509.RawSubjectPublicKeyInfo, p.Sign.SPKI) {
		return refuse(apdu.SecurityStatus, "the signing certificate is of another key than the one that the reader made for it")
	}
	public := encrypt.X509.RawSubjectPublicKeyInfo
	if p.ByReader {
		if !bytes.Equal(public, p.Encrypt.SPKI) {
			return refuse(apdu.SecurityStatus, "the encryption certificate is of another key than the one that the reader made for it")
		}
		return nil
	}
	return r.openKey(p, sealed, public)
}

// judgeOne judges one of the pair. No other CA than the one that came along is tried,
// so both have the same issuer.
func (r *Reader) judgeOne(v *verify.Verifier, p *pair, der []byte, name string, purpose verify.Purpose) (*verify.Cert, error) {
	c, err := v.Chain(der, [][]byte{p.Issuer}, purpose)
	switch {
	case err != nil:
		return nil, refuse(apdu.SecurityStatus, "the %s certificate is not acceptable: %v", name, err)
	case c.Reader != r.flash.Number:
		return nil, refuse(apdu.SecurityStatus, "the %s certificate is for reader %s, and this is reader %s", name, c.Reader, r.flash.Number)
	case c.City != p.City:
		return nil, refuse(apdu.SecurityStatus, "the %s certificate is of city %s, and the reader enrolled in city %s", name, c.City, p.City)
	}
	return c, nil
}

// openKey opens the encryption key that the centre made. It must be the one of the
// encryption certificate, and no key that the reader has for something else.
func (r *Reader) openKey(p *pair, sealed, public []byte) error {
	if bytes.Equal(public, p.Sign.SPKI) || bytes.Equal(public, p.Transport.SPKI) || bytes.Equal(public, r.flash.Device.SPKI) {
		return refuse(apdu.SecurityStatus, "the encryption certificate is of a key that the reader has for something else")
	}
	transport, err := r.exchanger(p.Transport)
	if err != nil {
		return err
	}
	pkcs8, err := (&cms.Opener{ECDH: transport}).OpenKey(sealed, public)
	switch {
	case errors.Is(err, cms.ErrRecipient):
		return refuse(apdu.SecurityStatus, "the sealed key is for another transport key than the one of this session")
	case errors.Is(err, cms.ErrOtherKey):
		return refuse(apdu.SecurityStatus, "the sealed key is not the one of the encryption certificate")
	case err != nil:
		return refuse(apdu.SecurityStatus, "the sealed key does not open: %v", err)
	}
	// A token takes no key that was not made in it, so this one lies in the flash.
	p.Encrypt = &key{SPKI: bytes.Clone(public), PKCS8: pkcs8}
	return nil
}

func (r *Reader) signReceipt(p *pair) error {
	content, err := (&verify.Receipt{Session: hex.EncodeToString(p.Session2), Number: r.flash.Number, City: p.City, Ticket: hex.EncodeToString(p.Ticket),
		Firmware: r.flash.Firmware, Time: r.rack.now().UTC().Truncate(time.Second), Sign: sha256.Sum256(p.Certificate), Encrypt: sha256.Sum256(p.Certificate2),
		Device: sha256.Sum256(r.flash.Certificate)}).Marshal()
	if err != nil {
		return err
	}
	signer, err := r.signer(p.Sign)
	if err != nil {
		return err
	}
	p.Receipt, err = cms.Sign(oid.ContentReceipt, content, p.Certificate, [][]byte{p.Issuer}, signer, r.rack.now())
	return err
}

func (r *Reader) receipt(e apdu.Elements) ([]byte, error) {
	if err := take(e, nil); err != nil {
		return nil, err
	}
	p := r.flash.installed()
	if p == nil {
		return nil, refuse(apdu.NotFound, "the reader is %s, and has signed no receipt", StateName(r.flash.state()))
	}
	return p.Receipt, nil
}

// finish puts the new pair in the place of the old one. The transport key goes.
func (r *Reader) finish(e apdu.Elements) error {
	if err := take(e, nil); err != nil {
		return err
	}
	switch r.flash.state() {
	case apdu.Finished:
		return nil
	case apdu.Installed:
	default:
		return refuse(apdu.Conditions, "the reader is %s: nothing is installed", StateName(r.flash.state()))
	}
	p := *r.flash.Next
	p.Transport = nil
	next := *r.flash
	next.Pair, next.Next = &p, nil
	return r.save(&next)
}
