package verify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	loadVersion = 1       // every content begins with it
	maxScript   = 1 << 20 // octets of a script or an envelope; messages are bounded below that
)

// content is a sequence of fields that knows its own order.
type content interface{ fields(*coder) }

// coder writes the fields of a content to out, or reads them from in. It holds
// every field against its bounds in both directions, and keeps the first one that
// does not fit. So the form is told once.
type coder struct {
	out *cryptobyte.Builder // nil while reading
	in  cryptobyte.String
	bad string
}

// encode writes a content as a DER SEQUENCE, its version first.
func encode(what string, v content) ([]byte, error) {
	var out cryptobyte.Builder
	c := &coder{out: &out}
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		c.out = b
		version := uint8(loadVersion)
		number(c, "version", &version, loadVersion)
		v.fields(c)
	})
	der, err := out.Bytes()
	if c.bad != "" {
		err = errors.New(c.bad)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", what, err)
	}
	return der, nil
}

// parse reads what encode wrote into a new content.
func parse[T any, P interface {
	*T
	content
}](what string, der []byte) (P, error) {
	v := P(new(T))
	if err := decode(what, der, v); err != nil {
		return nil, err
	}
	return v, nil
}

// decode reads what encode wrote. It encodes the content again, which must come out
// octet for octet: a content has one spelling.
func decode(what string, der []byte, v content) error {
	in := cryptobyte.String(der)
	c := &coder{}
	version := uint8(0)
	c.demand(in.ReadASN1(&c.in, cbasn1.SEQUENCE) && in.Empty(), "form: it is not one sequence")
	number(c, "version", &version, loadVersion)
	c.demand(version == loadVersion, "version")
	v.fields(c)
	c.demand(c.in.Empty(), "end")
	if c.bad != "" {
		return &FormError{What: what, Err: errors.New(c.bad)}
	}
	if again, err := encode(what, v); err != nil || !bytes.Equal(again, der) {
		return &FormError{What: what, Err: errors.New("it is not written as Hufu writes it")}
	}
	return nil
}

// demand notes a field that does not fit.
func (c *coder) demand(fits bool, field string) {
	if !fits && c.bad == "" {
		c.bad = "the " + field + " does not fit"
	}
}

// octets is an OCTET STRING of min to max octets. What is read is a copy.
func (c *coder) octets(field string, v *[]byte, min, max int) {
	if c.out != nil {
		c.demand(len(*v) >= min && len(*v) <= max, field)
		c.out.AddASN1OctetString(*v)
		return
	}
	var b []byte
	c.demand(c.in.ReadASN1Bytes(&b, cbasn1.OCTET_STRING) && len(b) >= min && len(b) <= max, field)
	*v = bytes.Clone(b)
}

func (c *coder) hash(field string, v *[32]byte) {
	b := v[:]
	c.octets(field, &b, len(v), len(v))
	copy(v[:], b)
}

func (c *coder) transaction(v *string) { c.id("transaction", v, 16) }

// id is 16 octets, for people 32 hexadecimal digits; none where min is 0.
func (c *coder) id(field string, v *string, min int) {
	b, err := hex.DecodeString(*v)
	c.demand(err == nil, field)
	c.octets(field, &b, min, 16)
	c.demand(len(b) == 0 || len(b) == 16, field)
	if c.out == nil {
		*v = hex.EncodeToString(b)
	}
	c.demand(*v == hex.EncodeToString(b), field)
}

// text is a UTF8String of min to max of these characters, all of them ASCII.
func (c *coder) text(field string, v *string, chars string, min, max int) {
	if c.out != nil {
		c.out.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(*v)) })
	} else {
		var b []byte
		c.demand(c.in.ReadASN1Bytes(&b, cbasn1.UTF8String), field)
		*v = string(b)
	}
	c.demand(len(*v) >= min && len(*v) <= max && strings.Trim(*v, chars) == "", field)
}

const digits = "0123456789"

func (c *coder) city(field string, v *string) { c.text(field, v, digits, 6, 6) }

func (c *coder) card(v *string) { c.text("card", v, digits+"ABCDEF", 8, 32) }

func (c *coder) reader(v *string) {
	c.text("reader", v, digits+"abcdefghijklmnopqrstuvwxyz-.", 1, 253)
}

// readerNumber is the number on a reader's back.
func (c *coder) readerNumber(v *string) {
	c.text("reader's number", v, digits+"abcdefghijklmnopqrstuvwxyz", 1, 20)
}

// words is a UTF8String of min to max octets that can be printed, without a blank
// at either end.
func (c *coder) words(field string, v *string, min, max int) {
	if c.out != nil {
		c.out.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(*v)) })
	} else {
		var b []byte
		c.demand(c.in.ReadASN1Bytes(&b, cbasn1.UTF8String), field)
		*v = string(b)
	}
	c.demand(len(*v) >= min && len(*v) <= max && utf8.ValidString(*v) && strings.TrimSpace(*v) == *v &&
		!strings.ContainsFunc(*v, func(r rune) bool { return !unicode.IsPrint(r) }), field)
}

// sequenceOf is a SEQUENCE OF SEQUENCEs with min to max elements.
func sequenceOf[T any](c *coder, field string, v *[]T, min, max int, element func(*coder, *T)) {
	if c.out != nil {
		c.demand(len(*v) >= min && len(*v) <= max, field)
		c.out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			inner := &coder{out: b}
			for i := 0; i < len(*v) && i < max; i++ {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					inner.out = b
					element(inner, &(*v)[i])
				})
			}
			c.inherit(inner)
		})
		return
	}
	var in cryptobyte.String
	c.demand(c.in.ReadASN1(&in, cbasn1.SEQUENCE), field)
	inner := &coder{}
	for !in.Empty() && inner.bad == "" {
		if len(*v) == max || !in.ReadASN1(&inner.in, cbasn1.SEQUENCE) {
			c.demand(false, field)
			return
		}
		var e T
		element(inner, &e)
		inner.demand(inner.in.Empty(), field)
		*v = append(*v, e)
	}
	c.inherit(inner)
	c.demand(len(*v) >= min, field)
}

// inherit takes over the fault of an element.
func (c *coder) inherit(inner *coder) {
	if c.bad == "" {
		c.bad = inner.bad
	}
}

// number is an INTEGER from min to the largest of its type.
func number[T ~uint8 | ~uint32 | ~uint64](c *coder, field string, v *T, min T) {
	if c.out != nil {
		c.out.AddASN1Uint64(uint64(*v))
	} else {
		var n uint64
		c.demand(c.in.ReadASN1Integer(&n) && uint64(T(n)) == n, field)
		*v = T(n)
	}
	c.demand(*v >= min, field)
}

// money is an amount in fen. A card counts it in four octets.
func (c *coder) money(field string, v *uint64, min uint64) {
	number(c, field, v, min)
	c.demand(*v <= math.MaxUint32, field)
}

// time is a GeneralizedTime in UTC, in whole seconds.
func (c *coder) time(field string, v *time.Time) {
	if c.out != nil {
		t := v.UTC().Truncate(time.Second)
		c.demand(t.Year() >= 2000 && t.Year() <= 9999, field)
		c.out.AddASN1GeneralizedTime(t)
		return
	}
	c.demand(c.in.ReadASN1GeneralizedTime(v), field)
	*v = v.UTC()
}
