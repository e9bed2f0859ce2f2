package officers

import (
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"hufu/policy"
	"hufu/store"
)

// people is read at every call of every door, so its records are short and
// quick to read: the certificate stays in the book's own table.
var people = store.Table[Person]{
	Name: "person",
	Key:  func(p *Person) []byte { return store.Key(p.Fingerprint) },
	Indexes: []store.Index[Person]{{Name: "active", Keys: func(p *Person) [][]byte {
		if p.State != Active {
			return nil
		}
		return [][]byte{store.Key(p.Fingerprint)}
	}}},
	Codec: store.Codec[Person]{Append: appendPerson, Decode: decodePerson},
}

var approvals = store.Table[Approval]{
	Name:  "approval",
	Key:   func(a *Approval) []byte { return store.Key(a.ID) },
	Codec: store.JSON[Approval](),
	Indexes: []store.Index[Approval]{
		{Name: "state", Keys: func(a *Approval) [][]byte { return [][]byte{store.Key(a.State, a.Created)} }},
		{Name: "city", Keys: func(a *Approval) [][]byte { return [][]byte{store.Key(a.City, a.Created)} }},
		{Name: "created", Keys: func(a *Approval) [][]byte { return [][]byte{store.Key(a.Created)} }},
	},
}

// Tables are the tables of this package, for store.Config.
var Tables = []store.Checked{&people, &approvals}

// The layout of a person: 01, active, fingerprint, serial, Seq, notAfter in Unix
// seconds, then strings with their length in front: name, city, CA, line, roles.
func appendPerson(dst []byte, p *Person) []byte {
	b := cryptobyte.NewBuilder(dst)
	b.AddUint8(1)
	active := uint8(0)
	if p.State == Active {
		active = 1
	}
	b.AddUint8(active)
	b.AddBytes(p.Fingerprint[:])
	b.AddBytes(p.serial[:])
	b.AddUint64(p.Seq)
	b.AddUint64(uint64(p.notAfter.Unix()))
	addString := func(s string) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
	}
	for _, s := range []string{p.Name, p.City, p.ca, p.line} {
		addString(s)
	}
	for _, r := range p.Roles {
		addString(string(r))
	}
	return b.BytesOrPanic() // the lengths were checked when the person was recorded
}

func decodePerson(src []byte, p *Person) error {
	in := cryptobyte.String(src)
	var layout, active uint8
	var notAfter uint64
	*p = Person{State: Removed}
	ok := in.ReadUint8(&layout) && layout == 1 && in.ReadUint8(&active) && in.CopyBytes(p.Fingerprint[:]) &&
		in.CopyBytes(p.serial[:]) && in.ReadUint64(&p.Seq) && in.ReadUint64(&notAfter)
	readString := func(to *string) {
		var s cryptobyte.String
		ok = ok && in.ReadUint16LengthPrefixed(&s)
		*to = string(s)
	}
	for _, to := range []*string{&p.Name, &p.City, &p.ca, &p.line} {
		readString(to)
	}
	for ok && !in.Empty() {
		var r string
		readString(&r)
		p.Roles = append(p.Roles, policy.Role(r))
	}
	if !ok {
		return errors.New("it is not the record of a person")
	}
	if active == 1 {
		p.State = Active
	}
	p.notAfter = time.Unix(int64(notAfter), 0).UTC()
	return nil
}
