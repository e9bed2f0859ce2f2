package issuance

import (
	"encoding/asn1"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// An encoder appends DER to one slice. A constructed element is written by a
// function that appends what is inside; its length is put in afterwards.
// cryptobyte's builder does the same with an allocation or two for each element,
// which is a third of the time that a certificate takes.
type encoder struct{ der []byte }

// element writes an element whose content inside appends.
func (e *encoder) element(tag cbasn1.Tag, inside func()) {
	e.der = append(e.der, byte(tag), 0)
	begin := len(e.der)
	inside()
	n := len(e.der) - begin
	if n < 0x80 {
		e.der[begin-1] = byte(n)
		return
	}
	octets := 0
	for rest := n; rest > 0; rest >>= 8 {
		octets++
	}
	e.der = append(e.der, make([]byte, octets)...)
	copy(e.der[begin+octets:], e.der[begin:begin+n])
	e.der[begin-1] = 0x80 | byte(octets)
	for i := range octets {
		e.der[begin+i] = byte(n >> (8 * (octets - 1 - i)))
	}
}

func (e *encoder) sequence(inside func()) { e.element(cbasn1.SEQUENCE, inside) }

// explicit writes a constructed context-specific element.
func (e *encoder) explicit(number cbasn1.Tag, inside func()) {
	e.element(number.Constructed().ContextSpecific(), inside)
}

// raw appends what is DER already.
func (e *encoder) raw(der []byte) { e.der = append(e.der, der...) }

// value writes an element with these octets.
func (e *encoder) value(tag cbasn1.Tag, octets []byte) {
	e.element(tag, func() { e.der = append(e.der, octets...) })
}

func (e *encoder) text(tag cbasn1.Tag, s string) {
	e.element(tag, func() { e.der = append(e.der, s...) })
}

// implicit writes a primitive context-specific element.
func (e *encoder) implicit(number cbasn1.Tag, s string) { e.text(number.ContextSpecific(), s) }

func (e *encoder) yes() { e.der = append(e.der, byte(cbasn1.BOOLEAN), 1, 0xff) }

func (e *encoder) null() { e.der = append(e.der, byte(cbasn1.NULL), 0) }

// small writes an INTEGER from 0 to 127.
func (e *encoder) small(n uint8) { e.der = append(e.der, byte(cbasn1.INTEGER), 1, n&0x7f) }

func (e *encoder) oid(id asn1.ObjectIdentifier) {
	e.element(cbasn1.OBJECT_IDENTIFIER, func() {
		e.base128(id[0]*40 + id[1])
		for _, arc := range id[2:] {
			e.base128(arc)
		}
	})
}

func (e *encoder) base128(n int) {
	shift := 0
	for n>>(shift+7) > 0 {
		shift += 7
	}
	for ; shift > 0; shift -= 7 {
		e.der = append(e.der, 0x80|byte(n>>shift))
	}
	e.der = append(e.der, byte(n&0x7f))
}

// time writes UTCTime up to 2049 and GeneralizedTime afterwards (RFC 5280,
// Section 4.1.2.5).
func (e *encoder) time(t time.Time) {
	tag, layout := cbasn1.UTCTime, "060102150405Z"
	if t.Year() >= 2050 {
		tag, layout = cbasn1.GeneralizedTime, "20060102150405Z"
	}
	e.element(tag, func() { e.der = t.UTC().AppendFormat(e.der, layout) })
}

func (e *encoder) bitString(octets []byte) {
	e.element(cbasn1.BIT_STRING, func() {
		e.der = append(append(e.der, 0), octets...)
	})
}
