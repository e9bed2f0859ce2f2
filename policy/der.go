package policy

import (
	"bytes"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/oid"
)

// checkDER walks the whole certificate and the extensions inside it. Two
// encodings of one certificate would have two hashes, and one of them would
// stand in no book.
func checkDER(s *Subject) string {
	if detail := walkDER(s.DER, 0); detail != "" {
		return detail
	}
	for i := range s.Extensions {
		e := &s.Extensions[i]
		if detail := walkDER(e.Value, 0); detail != "" {
			return detail
		}
		switch {
		case e.explicitFalse, e.ID.Equal(oid.ExtBasicConstraints) && bytes.Equal(e.Value, explicitNoCA):
			return "a value that is the default is written out" // X.690, Section 11.5
		case e.ID.Equal(oid.ExtKeyUsage) && hasTrailingZero(e.Value):
			return "the key usage ends in bits that are zero" // X.690, Section 11.2.2
		}
	}
	return ""
}

// explicitNoCA is a basicConstraints with cA FALSE.
var explicitNoCA = []byte{0x30, 3, 1, 1, 0}

// hasTrailingZero reports whether the lowest used bit of a BIT STRING is zero.
func hasTrailingZero(bits []byte) bool {
	return len(bits) < 4 || bits[len(bits)-1]>>bits[2]&1 == 0
}

const maxDepth = 16

// walkDER checks what cryptobyte does not: it refuses lengths and tags that are
// not the shortest by itself.
func walkDER(in cryptobyte.String, depth int) string {
	if depth > maxDepth {
		return "the encoding is nested too deeply"
	}
	for !in.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !in.ReadAnyASN1(&value, &tag) {
			return "an element has a tag or a length that is not DER"
		}
		if detail := primitiveFault(tag, value); detail != "" {
			return detail
		}
		if tag&0x20 != 0 {
			if detail := walkDER(value, depth+1); detail != "" {
				return detail
			}
		}
		if tag == cbasn1.SET {
			if detail := setFault(value); detail != "" {
				return detail
			}
		}
	}
	return ""
}

func primitiveFault(tag cbasn1.Tag, value []byte) string {
	switch tag {
	case cbasn1.BOOLEAN:
		if len(value) != 1 || value[0] != 0 && value[0] != 0xff {
			return "a BOOLEAN is neither 00 nor FF"
		}
	case cbasn1.INTEGER, cbasn1.ENUM:
		if len(value) == 0 || len(value) > 1 && (value[0] == 0 && value[1] < 0x80 || value[0] == 0xff && value[1] >= 0x80) {
			return "an INTEGER is not the shortest"
		}
	case cbasn1.BIT_STRING:
		if len(value) == 0 || value[0] > 7 || len(value) == 1 && value[0] != 0 || value[len(value)-1]&(1<<value[0]-1) != 0 && len(value) > 1 {
			return "a BIT STRING has unused bits that are not zero"
		}
	case cbasn1.NULL:
		if len(value) != 0 {
			return "a NULL is not empty"
		}
	}
	return ""
}

// setFault refuses a SET OF whose elements are not sorted (X.690, Section 11.6).
func setFault(in cryptobyte.String) string {
	var last []byte
	for !in.Empty() {
		var element cryptobyte.String
		var tag cbasn1.Tag
		if !in.ReadAnyASN1Element(&element, &tag) {
			return "an element has a tag or a length that is not DER"
		}
		if bytes.Compare(last, element) > 0 {
			return "the elements of a SET are not sorted"
		}
		last = element
	}
	return ""
}
