package path

import (
	"bytes"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"hufu/internal/dn"
)

// form is the tag of a GeneralName (RFC 5280, Section 4.2.1.6).
type form uint8

const (
	otherName     form = 0
	rfc822Name    form = 1
	dNSName       form = 2
	x400Address   form = 3
	directoryName form = 4
	ediPartyName  form = 5
	uriName       form = 6
	iPAddress     form = 7
	registeredID  form = 8
)

func (f form) String() string {
	names := [...]string{"otherName", "rfc822Name", "dNSName", "x400Address", "directoryName", "ediPartyName", "uniformResourceIdentifier", "iPAddress", "registeredID"}
	return names[f]
}

// generalName is one name. For a directoryName, dir is set; text holds the
// contents of every other form.
type generalName struct {
	form form
	text string
	dir  dn.Name
}

func (g generalName) String() string {
	switch g.form {
	case rfc822Name, dNSName, uriName:
		return g.form.String() + " " + quote(g.text)
	}
	return g.form.String()
}

// equal compares distribution point names: directory names by RFC 5280, Section
// 7.1, the others octet for octet.
func (g generalName) equal(o generalName) bool {
	if g.form != o.form {
		return false
	}
	if g.form == directoryName {
		return g.dir.Equal(o.dir)
	}
	return g.text == o.text
}

var errNames = errors.New("not a list of names")

// parseGeneralNames reads the contents of GeneralNames, of which there is at least
// one.
func parseGeneralNames(list cryptobyte.String) ([]generalName, error) {
	var all []generalName
	for !list.Empty() {
		g, err := parseGeneralName(&list)
		if err != nil {
			return nil, err
		}
		all = append(all, g)
	}
	if all == nil {
		return nil, errors.New("an empty list of names")
	}
	return all, nil
}

func parseGeneralName(list *cryptobyte.String) (generalName, error) {
	var value cryptobyte.String
	var tag asn1.Tag
	if !list.ReadAnyASN1(&value, &tag) {
		return generalName{}, errNames
	}
	g := generalName{form: form(tag & 0x1f)}
	want := asn1.Tag(g.form).ContextSpecific()
	switch g.form {
	case otherName, x400Address, directoryName, ediPartyName:
		want = want.Constructed()
	}
	if g.form > registeredID || tag != want {
		return generalName{}, errNames
	}
	switch g.form {
	case directoryName:
		var name cryptobyte.String // EXPLICIT, since Name is a CHOICE
		if !value.ReadASN1Element(&name, asn1.SEQUENCE) || !value.Empty() {
			return generalName{}, errNames
		}
		var err error
		g.dir, err = dn.Parse(name)
		return g, err
	case rfc822Name, dNSName, uriName:
		if !ascii(value) {
			return generalName{}, errors.New("a name that is not an IA5String")
		}
	}
	g.text = string(value)
	return g, nil
}

func ascii(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return r >= 0x80 })
}
