package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// known lists the tables of this package.
func known() []Checked {
	return []Checked{
		checkedTable[CA]{&CAs, (*checker).ca}, checkedTable[Certificate]{&Certificates, (*checker).certificate},
		checkedTable[Status]{&Statuses, (*checker).status}, checkedTable[Intent]{&Intents, (*checker).intent},
		checkedTable[CRL]{&CRLs, (*checker).crl}, &Nodes,
	}
}

// checkedTable is a table whose rows are compared with more than their indexes.
type checkedTable[T any] struct {
	*Table[T]
	row func(*checker, *T) error
}

func (t checkedTable[T]) check(c *checker) error { return t.checkRows(c, t.row) }

func (t *Table[T]) name() string { return t.Name }

func (t *Table[T]) check(c *checker) error { return t.checkRows(c, nil) }

// tables goes through all rows of all tables, those that nobody has declared among them.
func (c *checker) tables(more []Checked) error {
	declared := make(map[string]bool)
	for _, t := range append(known(), more...) {
		if declared[t.name()] {
			continue
		}
		declared[t.name()] = true
		if err := t.check(c); err != nil {
			return err
		}
	}
	for from := []byte{spaceRows}; ; {
		name, err := c.tableAt(from)
		if err != nil {
			return err
		}
		if name == "" {
			break
		}
		if !declared[name] {
			t := &Table[struct{}]{Name: name}
			if err := c.count(t.base(nil)); err != nil {
				return err
			}
		}
		from = append(append([]byte{spaceRows}, name...), 1)
	}
	if c.rows != c.head.rows {
		c.fault("the tables have %d rows; the head of the book says %d", c.rows, c.head.rows)
	}
	return c.entries(declared)
}

// tableAt returns the name of the table that the first row at or after from belongs to, "" at the end.
func (c *checker) tableAt(from []byte) (string, error) {
	for pair, err := range c.tx.scan(from, []byte{spaceRows + 1}, false) {
		if err != nil {
			return "", err
		}
		name, _, ok := bytes.Cut(pair.Key[1:], []byte{0})
		if !ok || len(name) == 0 {
			return "", fmt.Errorf("%w: the row %q belongs to no table", ErrCorrupt, pair.Key)
		}
		return string(name), nil
	}
	return "", nil
}

// count counts the rows of a table that nobody has declared.
func (c *checker) count(base []byte) error {
	for _, err := range c.tx.scan(base, successor(base), false) {
		if err != nil {
			return err
		}
		c.rows++
		c.meter.step()
	}
	return nil
}

// entries looks for entries of indexes that belong to no row, in tables that nobody has declared.
func (c *checker) entries(declared map[string]bool) error {
	for pair, err := range c.tx.scan([]byte{spaceIndex}, []byte{spaceIndex + 1}, false) {
		if err != nil {
			return err
		}
		parts := bytes.SplitN(pair.Key[1:], []byte{0}, 3)
		if len(parts) == 3 && declared[string(parts[0])] {
			continue
		}
		if len(parts) != 3 {
			c.fault("the entry %q belongs to no index", pair.Key)
			continue
		}
		t := &Table[struct{}]{Name: string(parts[0])}
		_, key, ok := splitEntry(parts[2])
		if !ok {
			c.fault("an entry of index %s of table %s is malformed", parts[1], t.Name)
			continue
		}
		if raw, err := c.tx.get(t.row(c.tx, key)); err != nil {
			return err
		} else if raw == nil {
			c.fault("index %s of table %s names the row %s, which is not there", parts[1], t.Name, readable(key))
		}
	}
	return nil
}

// checkRows compares every row with its indexes, and with what else row knows of it.
func (t *Table[T]) checkRows(c *checker, row func(*checker, *T) error) error {
	base := t.base(nil)
	entries := make([]int, len(t.Indexes))
	for pair, err := range c.tx.scan(base, successor(base), false) {
		if err != nil {
			return err
		}
		if c.rows++; c.rows%256 == 0 && c.tx.ctx.Err() != nil {
			return c.tx.ctx.Err()
		}
		c.meter.step()
		key := pair.Key[len(base):]
		v, err := t.decode(key, pair.Value)
		if err != nil {
			c.fault("%v", err)
			continue
		}
		if own := t.Key(v); !bytes.Equal(own, key) {
			c.fault("%s %s lies where %s belongs", t.Name, readable(own), readable(key))
		}
		for i := range t.Indexes {
			if err := t.checkEntries(c, &t.Indexes[i], key, v, &entries[i]); err != nil {
				return err
			}
		}
		if row != nil {
			if err := row(c, v); err != nil {
				return err
			}
		}
	}
	for i := range t.Indexes {
		if err := t.checkIndex(c, &t.Indexes[i], entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkEntries sees that a row is found through an index.
func (t *Table[T]) checkEntries(c *checker, x *Index[T], key []byte, v *T, found *int) error {
	keys := x.Keys(v)
	for i, k := range keys {
		if contains(keys[:i], k) {
			continue
		}
		entry, err := c.tx.get(t.entry(c.tx, x.Name, k, key))
		if err != nil {
			return err
		}
		if entry == nil {
			c.fault("%s %s is missing from index %s", t.Name, readable(key), x.Name)
			continue
		}
		*found++
	}
	return nil
}

// checkIndex sees that an index has no entries but those found; if it has, it names them.
func (t *Table[T]) checkIndex(c *checker, x *Index[T], found int) error {
	base := t.indexBase(nil, x.Name)
	n := 0
	for _, err := range c.tx.scan(base, successor(base), false) {
		if err != nil {
			return err
		}
		n++
	}
	if n == found {
		return nil
	}
	for pair, err := range c.tx.scan(base, successor(base), false) {
		if err != nil {
			return err
		}
		indexKey, key, ok := splitEntry(pair.Key[len(base):])
		if !ok {
			c.fault("an entry of index %s of table %s is malformed", x.Name, t.Name)
			continue
		}
		v, err := t.Get(c.tx, key)
		if err := c.missing(err, "index %s of table %s names the row %s, which is not there", x.Name, t.Name, readable(key)); err != nil {
			return err
		}
		if v != nil && !contains(x.Keys(v), indexKey) {
			c.fault("index %s of table %s has an old entry for the row %s", x.Name, t.Name, readable(key))
		}
	}
	return nil
}

// named sees that the event that a record names speaks of this record.
func (c *checker) named(what string, seq uint64, ca string, serial Serial, kinds ...string) error {
	e, err := c.tx.Event(seq)
	if err != nil {
		return c.missing(err, "%s %s/%s names event %d, which is not there", what, ca, serial, seq)
	}
	for _, kind := range kinds {
		if e.Kind == kind && e.CA == ca && e.Serial == serial {
			return nil
		}
	}
	c.fault("%s %s/%s names event %d, but that is %s of %s/%s", what, ca, serial, seq, e.Kind, e.CA, e.Serial)
	return nil
}

func (c *checker) ca(a *CA) error {
	if len(a.Certificate) > 0 {
		if p, err := parseCertificate(a.Certificate); err != nil || p.spki != a.SPKI {
			c.fault("the certificate of CA %s is not one for the key in its record", a.ID)
		}
	}
	if a.Seq == 0 {
		return nil
	}
	e, err := c.tx.Event(a.Seq)
	if err != nil {
		return c.missing(err, "CA %s names event %d, which is not there", a.ID, a.Seq)
	}
	if e.CA != a.ID {
		c.fault("CA %s names event %d, but that is %s of %q", a.ID, a.Seq, e.Kind, e.CA)
	}
	return nil
}

func (c *checker) certificate(r *Certificate) error {
	if err := c.named("certificate", r.Seq, r.CA, r.Serial, KindIssued); err != nil {
		return err
	}
	_, err := Statuses.Get(c.tx, SerialKey(r.CA, r.Serial))
	if err := c.missing(err, "certificate %s/%s has no status", r.CA, r.Serial); err != nil {
		return err
	}
	p, err := parseCertificate(r.DER)
	if err != nil {
		c.fault("certificate %s/%s: %v", r.CA, r.Serial, err)
		return nil
	}
	if p.serial != r.Serial {
		c.fault("certificate %s/%s has the serial number %s inside", r.CA, r.Serial, p.serial)
	}
	if p.spki != r.SPKI {
		c.fault("certificate %s/%s is for another key than its record says", r.CA, r.Serial)
	}
	if !p.notBefore.Equal(r.NotBefore) || !p.notAfter.Equal(r.NotAfter) {
		c.fault("certificate %s/%s is valid from %v to %v, which is not what its record says", r.CA, r.Serial, p.notBefore, p.notAfter)
	}
	intent, err := Intents.Get(c.tx, SerialKey(r.CA, r.Serial))
	if err := c.missing(err, ""); err != nil || intent == nil {
		return err
	}
	if intent.TBSHash != p.tbs || intent.SPKI != r.SPKI {
		c.fault("certificate %s/%s is not what its intent says", r.CA, r.Serial)
	}
	return nil
}

func (c *checker) status(s *Status) error {
	e, err := c.tx.Event(s.Seq)
	if err != nil {
		return c.missing(err, "status %s/%s names event %d, which is not there", s.CA, s.Serial, s.Seq)
	}
	fits := e.CA == s.CA && e.Serial == s.Serial
	switch e.Kind {
	case KindIssued:
		fits = fits && (s.State == Good || s.State == Held) && !s.Unissued
	case KindResumed:
		fits = fits && s.State == Good
	case KindHeld:
		fits = fits && s.State == Held
	case KindRevoked:
		fits = fits && s.State == Revoked
	case KindIntentClosed:
		fits = fits && s.State == Revoked && s.Unissued
	default:
		fits = false
	}
	if !fits {
		c.fault("status %s/%s (%s) names event %d, but that is %s of %s/%s", s.CA, s.Serial, s.State, s.Seq, e.Kind, e.CA, e.Serial)
	}
	return nil
}

func (c *checker) intent(i *Intent) error {
	return c.named("intent", i.Seq, i.CA, i.Serial, KindIntent)
}

func (c *checker) crl(l *CRL) error {
	_, err := io.Copy(io.Discard, OpenCRL(c.tx, l))
	if err := c.missing(err, ""); err != nil {
		return err
	}
	if l.Seq == 0 {
		return nil
	}
	return c.named("CRL", l.Seq, l.CA, Serial{}, KindCRL)
}

// serials sees that no serial number was used twice, by whatever CA.
func (c *checker) serials() error {
	serialOf := func(indexKey []byte) []byte { return indexKey[:min(len(indexKey), len(Serial{}))] }
	return c.twins("serial", serialOf, func(a, b []byte) error {
		c.fault("certificates %s and %s have one serial number", readable(a), readable(b))
		return nil
	})
}

// lines sees that no key belongs to two lines of certificates.
func (c *checker) lines() error {
	spkiOf := func(indexKey []byte) []byte { return indexKey }
	return c.twins("spki", spkiOf, func(a, b []byte) error {
		x, err := Certificates.Get(c.tx, a)
		if err != nil {
			return c.missing(err, "")
		}
		y, err := Certificates.Get(c.tx, b)
		if err != nil {
			return c.missing(err, "")
		}
		if x.Line != y.Line && x.Line != "" && y.Line != "" {
			c.fault("certificates %s and %s are for one key but belong to two lines", readable(a), readable(b))
		}
		return nil
	})
}

// twins calls both for every two certificates that lie next to each other in an index and share a part of their index keys.
func (c *checker) twins(index string, part func(indexKey []byte) []byte, both func(a, b []byte) error) error {
	base := Certificates.indexBase(nil, index)
	var lastShared, lastKey []byte
	for pair, err := range c.tx.scan(base, successor(base), false) {
		if err != nil {
			return err
		}
		indexKey, key, _ := splitEntry(pair.Key[len(base):])
		shared := part(indexKey)
		if lastKey != nil && bytes.Equal(shared, lastShared) {
			if err := both(lastKey, key); err != nil {
				return err
			}
		}
		lastShared, lastKey = shared, key
	}
	return nil
}

// parsed is what Check reads from the DER form of a certificate. It knows no algorithm, so that certificates of every suite fit.
type parsed struct {
	serial              Serial
	spki, tbs           Hash
	notBefore, notAfter time.Time
}

// parseCertificate reads RFC 5280, Section 4.1, as far as the public key.
func parseCertificate(der []byte) (p parsed, err error) {
	input := cryptobyte.String(der)
	var outer, tbs, inner, validity, spki, serial cryptobyte.String
	ok := input.ReadASN1(&outer, asn1.SEQUENCE) && input.Empty() &&
		outer.ReadASN1Element(&tbs, asn1.SEQUENCE)
	p.tbs = sha256.Sum256(tbs)
	ok = ok && tbs.ReadASN1(&inner, asn1.SEQUENCE) &&
		inner.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) &&
		inner.ReadASN1(&serial, asn1.INTEGER) &&
		inner.SkipASN1(asn1.SEQUENCE) && // signature
		inner.SkipASN1(asn1.SEQUENCE) && // issuer
		inner.ReadASN1(&validity, asn1.SEQUENCE) &&
		readTime(&validity, &p.notBefore) && readTime(&validity, &p.notAfter) &&
		inner.SkipASN1(asn1.SEQUENCE) && // subject
		inner.ReadASN1Element(&spki, asn1.SEQUENCE)
	if !ok {
		return parsed{}, errors.New("it is not a certificate in DER")
	}
	if len(serial) == len(p.serial) {
		copy(p.serial[:], serial)
	}
	p.spki = sha256.Sum256(spki)
	return p, nil
}

// readTime reads a Time (RFC 5280, Section 4.1.2.5).
func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(asn1.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}
