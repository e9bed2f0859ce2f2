package ocsp

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// MaxRequest is the largest request that ParseRequest reads, in octets.
	MaxRequest = 16 << 10
	// MaxSerials is the largest number of certificates asked for in one request.
	MaxSerials = 64
	// MaxNonce is the largest nonce in octets (RFC 9654, Section 2.1).
	MaxNonce = 128
)

// Request is what a client asks. Its slices lie in the bytes that were parsed.
type Request struct {
	IDs   []CertID
	Nonce []byte // nil when the request carries none

	one [1]CertID // what IDs lies on in the common case, to save an allocation
}

// ParseRequest reads a request. Anything that it refuses is malformedRequest.
func ParseRequest(der []byte) (*Request, error) {
	if len(der) > MaxRequest {
		return nil, fmt.Errorf("parsing OCSP request: %d octets, at most %d are read", len(der), MaxRequest)
	}
	input := cryptobyte.String(der)
	var outer, tbs, list cryptobyte.String
	if !input.ReadASN1(&outer, cbasn1.SEQUENCE) || !input.Empty() || !outer.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil, errors.New("parsing OCSP request: not an OCSPRequest")
	}
	// The optional signature is not checked: the answers are public.
	if !outer.SkipOptionalASN1(tagExplicit0) || !outer.Empty() {
		return nil, errors.New("parsing OCSP request: unexpected data after tbsRequest")
	}
	if err := readVersion(&tbs); err != nil {
		return nil, fmt.Errorf("parsing OCSP request: %w", err)
	}
	if !tbs.SkipOptionalASN1(tagExplicit1) || !tbs.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil, errors.New("parsing OCSP request: no requestList")
	}
	r := new(Request)
	r.IDs = r.one[:0]
	for !list.Empty() {
		if len(r.IDs) == MaxSerials {
			return nil, fmt.Errorf("parsing OCSP request: more than %d certificates", MaxSerials)
		}
		r.IDs = append(r.IDs, CertID{})
		if err := readSingleRequest(&list, &r.IDs[len(r.IDs)-1]); err != nil {
			return nil, fmt.Errorf("parsing OCSP request: %w", err)
		}
	}
	if len(r.IDs) == 0 {
		return nil, errors.New("parsing OCSP request: it asks for no certificate")
	}
	if !tbs.Empty() {
		var extensions cryptobyte.String
		if !tbs.ReadASN1(&extensions, tagExplicit2) || !tbs.Empty() {
			return nil, errors.New("parsing OCSP request: unexpected data after requestList")
		}
		var err error
		if r.Nonce, err = readExtensions(extensions); err != nil {
			return nil, fmt.Errorf("parsing OCSP request: %w", err)
		}
	}
	return r, nil
}

// readVersion reads the optional version, of which there is only v1.
func readVersion(s *cryptobyte.String) error {
	var version cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&version, &present, tagExplicit0) {
		return errors.New("reading version: not an explicit tag")
	}
	if !present {
		return nil
	}
	var v int
	if !version.ReadASN1Integer(&v) || !version.Empty() || v != 0 {
		return errors.New("reading version: only v1 is known")
	}
	return nil
}

func readSingleRequest(list *cryptobyte.String, id *CertID) error {
	var single cryptobyte.String
	if !list.ReadASN1(&single, cbasn1.SEQUENCE) || !readCertID(&single, id) {
		return errors.New("reading CertID: not a CertID")
	}
	if single.Empty() {
		return nil
	}
	var extensions cryptobyte.String
	if !single.ReadASN1(&extensions, tagExplicit0) || !single.Empty() {
		return errors.New("reading Request: unexpected data after CertID")
	}
	_, err := readExtensions(extensions)
	return err
}

// MakeRequest builds an unsigned request. A nil nonce leaves it out; RFC 9654,
// Section 2.1 asks clients for 32 random octets.
func MakeRequest(nonce []byte, ids ...CertID) ([]byte, error) {
	if len(ids) == 0 {
		return nil, errors.New("making OCSP request: no certificate to ask for")
	}
	w := newBack(64 + len(nonce) + 128*len(ids))
	if nonce != nil {
		w.nonce(tagExplicit2, nonce)
	}
	list := w.end()
	for i := len(ids) - 1; i >= 0; i-- {
		end := w.end()
		w.certID(&ids[i])
		w.header(cbasn1.SEQUENCE, end)
	}
	w.header(cbasn1.SEQUENCE, list)
	w.header(cbasn1.SEQUENCE, 0)
	w.header(cbasn1.SEQUENCE, 0)
	der, err := w.bytes()
	if err != nil {
		return nil, fmt.Errorf("making OCSP request: %w", err)
	}
	return der, nil
}
