// Package officers knows the people and machines that may ask something of
// Hufu, holds the one gate that every door passes, and keeps approvals.
//
// A caller is the certificate that it proved in TLS: its fingerprint finds the
// person, its status is looked up in the book at every call. An approval is CMS
// SignedData (RFC 5652) over a statement of what is asked for, by a person other
// than the requester; it is bound by hash, expires, and is consumed in the
// transaction that uses it. One person has one certificate at a time: a renewed
// one takes the place of the one before.
//
// The package refuses: a caller whose certificate is held, revoked, expired or
// not of this book; anything that the rights table does not allow; a second
// Bootstrap; a role that does not go with the certificate's profile; an approval
// by its own requester, of other bytes, or twice by one person; the removal of
// the last CA admin. It does not check TLS: who calls Caller has done that.
package officers

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"hufu/policy"
	"hufu/store"
)

// Person is a person, or a machine, that may act.
type Person struct {
	Fingerprint store.Hash // SHA-256 of Certificate
	Name        string     // one person, one name
	Roles       []policy.Role
	City        string // "" = the centre, all cities
	Certificate []byte // DER; one that stands in the book
	State       string // Active or Removed
	Seq         uint64 // the event of the last change

	ca       string
	serial   store.Serial
	line     string
	notAfter time.Time
}

// States of a Person.
const (
	Active  = "active"
	Removed = "removed"
)

// Config is what an Office stands on.
type Config struct {
	Book *store.Book
	Now  func() time.Time // nil means time.Now
	Log  *slog.Logger     // nil means no log
}

// Office is the register of people and their gate.
type Office struct {
	Config
	refusals refusals
}

// New returns an Office over a book.
func New(cfg Config) *Office {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Office{Config: cfg}
}

// PersonError says why a person cannot be recorded or removed.
type PersonError struct {
	Name    string
	Problem string // stable: "name", "city", "certificate", "role", "removed", "last-admin"
	Detail  string
	Remedy  string
}

func (e *PersonError) Error() string { return fmt.Sprintf("%q: %s: %s", e.Name, e.Detail, e.Remedy) }

// ErrBootstrapped says that a book has had its first two CA admins.
var ErrBootstrapped = errors.New("the book has its first CA admins; others are added by them, with an approval")

// Bootstrap records the first two CA admins, once in the life of a book. Their
// certificates stand in the book already.
func (o *Office) Bootstrap(tx *store.Tx, persons [2]Person) error {
	for _, err := range people.Scan(tx, "", nil) {
		if err != nil {
			return fmt.Errorf("reading the people: %w", err)
		}
		return ErrBootstrapped // a person who was removed keeps the record
	}
	var lines [2]string
	for i, p := range persons {
		p.Roles, p.City = []policy.Role{policy.CAAdmin}, ""
		recorded, err := record(tx, p, "init")
		if err != nil {
			return err
		}
		lines[i] = recorded.line
	}
	if lines[0] == lines[1] {
		return &PersonError{persons[0].Name, "certificate", "both certificates are of one person", "name two people, so that neither can act alone"}
	}
	return nil
}

// Add records a person whose certificate stands in the book. The approval named
// must be granted for p.Canonical(policy.OpOfficerAdd); it is consumed. A person
// of the same certificate line gives way to the renewed certificate.
func (o *Office) Add(tx *store.Tx, c policy.Caller, p Person, approval string) (*Person, error) {
	p.Fingerprint = store.Sum(p.Certificate)
	if err := o.Consume(tx, approval, store.Sum(p.Canonical(policy.OpOfficerAdd))); err != nil {
		return nil, err
	}
	added, err := record(tx, p, c.Name)
	if err != nil {
		return nil, err
	}
	return added, someAdmin(tx, p.Name)
}

// Remove takes a person's rights away. The approval named must be granted for
// p.Canonical(policy.OpOfficerRemove); it is consumed. The last CA admin stays.
func (o *Office) Remove(tx *store.Tx, c policy.Caller, fingerprint store.Hash, approval string) error {
	p, err := people.Get(tx, store.Key(fingerprint))
	if err != nil {
		return fmt.Errorf("looking up person %s: %w", fingerprint, err)
	}
	if p.State != Active {
		return &PersonError{p.Name, "removed", "was removed before", "nothing is left to do"}
	}
	if err := o.Consume(tx, approval, store.Sum(p.Canonical(policy.OpOfficerRemove))); err != nil {
		return err
	}
	if err := retire(tx, p, c.Name); err != nil {
		return err
	}
	return someAdmin(tx, p.Name)
}

// record checks a person against the book and writes the record.
func record(tx *store.Tx, p Person, actor string) (*Person, error) {
	if p.Name == "" || len(p.Name) > 64 {
		return nil, &PersonError{p.Name, "name", "a name has 1 to 64 octets", "give the name that others know"}
	}
	if p.City != "" && !isCity(p.City) {
		return nil, &PersonError{p.Name, "city", fmt.Sprintf("%q is not a city code", p.City), "give six digits, or nothing for the centre"}
	}
	cert, err := certificateOf(tx, p.Certificate)
	if err != nil {
		return nil, &PersonError{p.Name, "certificate", err.Error(), "issue the certificate from this book first"}
	}
	if err := rolesFit(&p, cert); err != nil {
		return nil, err
	}
	if state, err := standing(tx, cert.CA, cert.Serial, cert.NotAfter, tx.Now()); err != nil {
		return nil, err
	} else if state != "" {
		return nil, &PersonError{p.Name, "certificate", "the certificate is " + state, "bring one that is good"}
	}
	for other, err := range people.Scan(tx, "active", nil) {
		switch {
		case err != nil:
			return nil, fmt.Errorf("reading the people: %w", err)
		case other.line == cert.Line && other.Fingerprint != store.Sum(p.Certificate):
			if err := retire(tx, other, actor); err != nil {
				return nil, err
			}
		case other.line != cert.Line && other.Name == p.Name:
			return nil, &PersonError{p.Name, "name", "somebody else has this name", "give another name, or renew that person's certificate in its line"}
		}
	}
	p.Fingerprint, p.State = store.Sum(p.Certificate), Active
	p.ca, p.serial, p.line, p.notAfter = cert.CA, cert.Serial, cert.Line, cert.NotAfter
	p.Seq = tx.Append(store.Event{Kind: store.KindOfficerAdded, CA: p.ca, Serial: p.serial, Actor: actor, Detail: detail(&p)})
	return &p, people.Put(tx, &p)
}

// rolesFit checks that the roles go with the certificate: machines top up, people
// do the rest.
func rolesFit(p *Person, cert *store.Certificate) error {
	if len(p.Roles) == 0 {
		return &PersonError{p.Name, "role", "has no role", "give at least one"}
	}
	for i, r := range p.Roles {
		profile := "operator"
		if r == policy.TopUp {
			profile = "client"
		}
		switch {
		case !slices.Contains(policy.Roles, r) || slices.Contains(p.Roles[:i], r):
			return &PersonError{p.Name, "role", fmt.Sprintf("role %q is unknown or named twice", r), fmt.Sprintf("choose from %v", policy.Roles)}
		case cert.Profile != profile:
			return &PersonError{p.Name, "role", fmt.Sprintf("the certificate is of profile %s and role %s needs one of %s", cert.Profile, r, profile), "issue the right one: people are operators, machines are clients"}
		}
	}
	if cert.City != "" && cert.City != p.City {
		return &PersonError{p.Name, "city", fmt.Sprintf("the certificate is of city %s", cert.City), "record the person for that city"}
	}
	return nil
}

// retire marks a person as removed.
func retire(tx *store.Tx, p *Person, actor string) error {
	p.State = Removed
	p.Seq = tx.Append(store.Event{Kind: store.KindOfficerRemoved, CA: p.ca, Serial: p.serial, Actor: actor, Detail: detail(p)})
	return people.Put(tx, p)
}

// detail is what the journal says of a person.
func detail(p *Person) string {
	b, _ := json.Marshal(struct {
		Name  string        `json:"name"`
		Roles []policy.Role `json:"roles"`
		City  string        `json:"city,omitempty"`
	}{p.Name, p.Roles, p.City}) // strings alone: it cannot fail
	return string(b)
}

// someAdmin checks that a CA admin of the centre is left.
func someAdmin(tx *store.Tx, name string) error {
	for p, err := range people.Scan(tx, "active", nil) {
		if err != nil {
			return fmt.Errorf("reading the people: %w", err)
		}
		if p.City == "" && slices.Contains(p.Roles, policy.CAAdmin) {
			return nil
		}
	}
	return &PersonError{name, "last-admin", "is the last CA admin of the centre", "add another CA admin first"}
}

// certificateOf finds the record of a certificate in the book.
func certificateOf(tx *store.Tx, der []byte) (*store.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	serial, err := store.SerialFrom(cert.SerialNumber)
	if err != nil {
		return nil, errors.New("the certificate is not of this book")
	}
	for c, err := range store.Certificates.Scan(tx, "serial", store.Key(serial)) {
		if err != nil {
			return nil, err
		}
		if slices.Equal(c.DER, der) {
			return c, nil
		}
	}
	return nil, errors.New("the certificate is not of this book")
}

// Person returns one person by the fingerprint of the certificate.
func (o *Office) Person(ctx context.Context, fingerprint store.Hash) (*Person, error) {
	var p *Person
	err := o.Book.View(ctx, func(tx *store.Tx) (err error) {
		if p, err = people.Get(tx, store.Key(fingerprint)); err != nil {
			return err
		}
		return p.complete(tx)
	})
	if err != nil {
		return nil, fmt.Errorf("looking up person %s: %w", fingerprint, err)
	}
	return p, nil
}

// People lists people page by page, ordered by fingerprint, those removed among
// them.
func (o *Office) People(ctx context.Context, after []byte, limit int) (list []*Person, next []byte, err error) {
	err = o.Book.View(ctx, func(tx *store.Tx) (err error) {
		if list, next, err = people.Page(tx, store.Query{After: after, Limit: limit}); err != nil {
			return err
		}
		for _, p := range list {
			if err := p.complete(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing people: %w", err)
	}
	return list, next, nil
}

// complete adds the certificate, which the record of a person names only.
func (p *Person) complete(tx *store.Tx) error {
	c, err := store.FindCertificate(tx, p.ca, p.serial)
	if err != nil {
		return fmt.Errorf("certificate %s of %q: %w", p.serial, p.Name, err)
	}
	p.Certificate = c.DER
	return nil
}

// personRequest is what Canonical writes.
type personRequest struct {
	Operation   policy.Operation `json:"operation"`
	Name        string           `json:"name"`
	Roles       []policy.Role    `json:"roles"`
	City        string           `json:"city,omitempty"`
	Fingerprint store.Hash       `json:"fingerprint"`
	Certificate []byte           `json:"certificate,omitempty"`
}

// Canonical returns the request bytes that name p as the one to be added
// (policy.OpOfficerAdd) or removed (policy.OpOfficerRemove).
func (p *Person) Canonical(op policy.Operation) []byte {
	r := personRequest{Operation: op, Name: p.Name, Roles: p.Roles, City: p.City, Fingerprint: p.Fingerprint}
	if op == policy.OpOfficerAdd {
		r.Fingerprint, r.Certificate = store.Sum(p.Certificate), p.Certificate
	}
	b, _ := json.Marshal(r) // strings and octets alone: it cannot fail
	return b
}

// ParsePerson reads what Canonical wrote.
func ParsePerson(canonical []byte) (*Person, policy.Operation, error) {
	var r personRequest
	if err := json.Unmarshal(canonical, &r); err != nil {
		return nil, "", fmt.Errorf("reading the request about a person: %w", err)
	}
	return &Person{Fingerprint: r.Fingerprint, Name: r.Name, Roles: r.Roles, City: r.City, Certificate: r.Certificate}, r.Operation, nil
}

func isCity(s string) bool {
	return len(s) == 6 && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < '0' || c > '9' })
}
