package ldapsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// Names of attributes. The binary ones are those of RFC 4523; the others are in schema/hufu.schema.
const (
	attrClass          = "objectClass"
	attrBook           = "hufuBook"
	attrEpoch          = "hufuEpoch"
	attrSeq            = "hufuSeq"
	attrSerial         = "hufuSerial"
	attrStatus         = "hufuStatus"
	attrReason         = "hufuReason"
	attrStatusTime     = "hufuStatusTime"
	attrInvalidityDate = "hufuInvalidityDate"
	attrNotAfter       = "hufuNotAfter"
	attrProfile        = "hufuProfile"
	attrReader         = "hufuReader"
	attrCity           = "hufuCity"
	attrLine           = "hufuLine"
	attrShard          = "hufuShard"
	attrCRLNumber      = "hufuCRLNumber"
	attrStatement      = "hufuStatement"
	attrFence          = "hufuFence"
	attrWriter         = "hufuWriter"
	attrUserCert       = "userCertificate;binary"
	attrCACert         = "cACertificate;binary"
	attrCRL            = "certificateRevocationList;binary"
	attrDeltaCRL       = "deltaRevocationList;binary"
)

// generalizedTime is the form of RFC 4517, Section 3.3.13, that Hufu writes.
const generalizedTime = "20060102150405Z"

// position is where an event stands in the life of a book. After a restore the same sequence numbers are given out again, so the epoch
// comes first. An event of an epoch that was cut short by a restore is before those that took its place.
type position struct{ epoch, seq uint64 }

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.epoch, q.epoch), cmp.Compare(p.seq, q.seq))
}

func (p position) String() string { return fmt.Sprintf("epoch %d, sequence %d", p.epoch, p.seq) }

// positionOf finds the epoch of one of the book's own events.
func positionOf(epochs []store.Epoch, seq uint64) position {
	p := position{seq: seq}
	for _, e := range epochs {
		if seq > uint64(e.Size) {
			p.epoch = e.Epoch
		}
	}
	return p
}

// target names an entry: a serial number of a CA or, with the zero Serial, one of its lists; shard 0 is the CA itself with that of the whole.
type target struct {
	ca     string
	serial store.Serial
	shard  uint16
}

// isCA: the CA or one of its shards, whose entries hold lists and may be long.
func (t target) isCA() bool { return t.serial == store.Serial{} }

func (t target) String() string { return t.name() }

// name returns the entry's name below the base.
func (t target) name() string {
	if t.shard > 0 {
		return shardName(t.ca, t.shard)
	}
	if t.isCA() {
		return caName(t.ca)
	}
	return "hufuSerial=" + t.serial.String() + "," + certificatesName(t.ca)
}

func caName(ca string) string           { return "ou=" + ldap.EscapeDN(ca) }
func certificatesName(ca string) string { return "ou=certificates," + caName(ca) }
func shardName(ca string, shard uint16) string {
	return fmt.Sprintf("cn=%d,%s", shard, caName(ca))
}

// targetOf says which entry an event may have changed. What an event says of the change is not looked at: the record in the book is
// what gets published.
func targetOf(e *store.Event) (target, bool) {
	return target{ca: e.CA, serial: e.Serial}, e.CA != "" && e.Kind != store.KindIntent
}

// record is what the book wants an entry to be.
type record struct {
	Entry
	target  target
	at      position
	issued  uint64 // Seq of the event that made the entry; 0 = not known
	classes []string
}

// read returns what the book has of a target now, or nil if it has nothing that is published.
func (p *Publisher) read(ctx context.Context, t target) (r *record, err error) {
	err = p.book.View(ctx, func(tx *store.Tx) error {
		r, err = p.readTx(tx, t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s in the book: %w", t, err)
	}
	return r, nil
}

// entriesOf returns the entries that events of a target after one may have changed: of a CA, its own and those of its shards. Which list an
// event is about does not matter, only which lists are that new.
func (p *Publisher) entriesOf(ctx context.Context, t target, since uint64) (all []target, err error) {
	if !t.isCA() {
		return []target{t}, nil
	}
	err = p.book.View(ctx, func(tx *store.Tx) error {
		all = nil
		ca, err := optional(store.CAs.Get(tx, store.Key(t.ca)))
		if err != nil || ca == nil {
			return err
		}
		// The lists of a CA lie side by side, so the last of them has the highest shard.
		last, err := optional(store.CRLs.Last(tx, "", store.Key(t.ca)))
		if err != nil {
			return err
		}
		shards := 0
		if last != nil {
			shards = int(last.Shard)
		}
		for shard := range shards + 1 {
			full, delta, err := lists(tx, t.ca, uint16(shard))
			if err != nil {
				return err
			}
			if newest(ca, full, delta) >= since && (shard == 0 || full != nil) {
				all = append(all, target{ca: t.ca, shard: uint16(shard)})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the lists of %s: %w", t.ca, err)
	}
	return all, nil
}

// records reads what entriesOf names.
func (p *Publisher) records(ctx context.Context, t target, since uint64) (all []*record, err error) {
	entries, err := p.entriesOf(ctx, t, since)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		r, err := p.read(ctx, e)
		if err != nil {
			return nil, err
		}
		// A record that is older than the event was not changed by it.
		if r != nil && r.at.seq >= since {
			all = append(all, r)
		}
	}
	return all, nil
}

// lists returns the newest full list of a shard, and the newest delta if it is not older than that.
func lists(tx *store.Tx, ca string, shard uint16) (full, delta *store.CRL, err error) {
	if full, err = optional(store.LastCRL(tx, ca, shard, false)); err != nil || full == nil {
		return nil, nil, err
	}
	if delta, err = optional(store.LastCRL(tx, ca, shard, true)); err != nil || delta == nil || delta.Number < full.Number {
		return full, nil, err
	}
	return full, delta, nil
}

// newest returns the last event that the entry of a CA or of its shard shows.
func newest(ca *store.CA, full, delta *store.CRL) uint64 {
	seq := ca.Seq
	for _, l := range []*store.CRL{full, delta} {
		if l != nil {
			seq = max(seq, l.Seq)
		}
	}
	return seq
}

func (p *Publisher) readTx(tx *store.Tx, t target) (*record, error) {
	if t.isCA() {
		return p.readCA(tx, t)
	}
	cert, err := optional(store.FindCertificate(tx, t.ca, t.serial))
	if err != nil {
		return nil, err
	}
	status, err := optional(store.Statuses.Get(tx, store.SerialKey(t.ca, t.serial)))
	if err != nil || cert == nil && status == nil {
		return nil, err
	}
	return p.certificate(t, cert, status), nil
}

// certificate renders a serial number. One whose intent was closed without a certificate has a status only: it is not to be relied on,
// should a certificate with it ever turn up.
func (p *Publisher) certificate(t target, cert *store.Certificate, status *store.Status) *record {
	if cert == nil {
		cert = &store.Certificate{NotAfter: status.NotAfter, Shard: status.Shard}
	}
	if status == nil {
		status = &store.Status{State: store.Good, Time: cert.NotBefore, Seq: cert.Seq}
	}
	r := p.newRecord(t, max(cert.Seq, status.Seq), "hufuCertificate", "pkiUser")
	r.issued = cert.Seq
	r.text(attrSerial, t.serial.String())
	r.text(attrStatus, status.State.String())
	r.time(attrStatusTime, status.Time)
	if status.State != store.Good {
		r.text(attrReason, strconv.Itoa(status.Reason))
	}
	r.time(attrInvalidityDate, status.InvalidityDate)
	r.time(attrNotAfter, cert.NotAfter)
	r.text(attrProfile, cert.Profile)
	r.text(attrReader, cert.Reader)
	r.text(attrCity, cert.City)
	r.text(attrLine, cert.Line)
	if cert.Shard != 0 {
		r.text(attrShard, strconv.Itoa(int(cert.Shard)))
	}
	r.add(attrUserCert, cert.DER)
	return r
}

// readCA renders a CA with its newest full CRL and delta, or a shard with its own.
func (p *Publisher) readCA(tx *store.Tx, t target) (*record, error) {
	ca, err := optional(store.CAs.Get(tx, store.Key(t.ca)))
	if err != nil || ca == nil {
		return nil, err
	}
	full, delta, err := lists(tx, t.ca, t.shard)
	if err != nil || t.shard > 0 && full == nil {
		return nil, err
	}
	var r *record
	if seq := newest(ca, full, delta); t.shard > 0 {
		r = p.newRecord(t, seq, "cRLDistributionPoint", "hufuAuthority")
	} else {
		r = p.newRecord(t, seq, "organizationalUnit", "hufuAuthority", "pkiCA", "deltaCRL")
		r.text(attrStatus, ca.State)
		r.text(attrCity, ca.City)
		r.add(attrCACert, ca.Certificate)
	}
	if full != nil {
		r.text(attrCRLNumber, strconv.FormatUint(full.Number, 10))
	}
	for attribute, crl := range map[string]*store.CRL{attrCRL: full, attrDeltaCRL: delta} {
		if crl == nil {
			continue
		}
		der, err := io.ReadAll(store.OpenCRL(tx, crl))
		if err != nil {
			return nil, fmt.Errorf("reading CRL %d of %s: %w", crl.Number, t.ca, err)
		}
		r.add(attribute, der)
	}
	return r, nil
}

// newRecord begins an entry. Superclasses are written out, since not every server finds an entry by a class that is only implied.
func (p *Publisher) newRecord(t target, seq uint64, classes ...string) *record {
	r := &record{target: t, at: positionOf(p.epochs, seq), classes: append([]string{"top", "hufuEntry"}, classes...)}
	r.Name = t.name()
	r.text(attrBook, p.book.ID())
	r.text(attrEpoch, strconv.FormatUint(r.at.epoch, 10))
	r.text(attrSeq, strconv.FormatUint(r.at.seq, 10))
	return r
}

// add adds an attribute, unless it would be empty.
func (r *record) add(attribute string, value []byte) {
	if len(value) > 0 {
		r.Attributes = append(r.Attributes, Attribute{attribute, [][]byte{value}})
	}
}

func (r *record) text(attribute, value string) { r.add(attribute, []byte(value)) }

func (r *record) time(attribute string, t time.Time) {
	if !t.IsZero() {
		r.text(attribute, t.UTC().Format(generalizedTime))
	}
}

// optional makes a record that is not there nil.
func optional[T any](v *T, err error) (*T, error) {
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// entryOf is an entry that a server sent, with its name below the base in the form that digests use.
func entryOf(e *ldap.Entry, base *ldap.DN) (*Entry, error) {
	name, err := nameBelow(e.DN, base)
	if err != nil {
		return nil, err
	}
	return &Entry{Name: name, Attributes: attributesOf(e)}, nil
}

func attributesOf(e *ldap.Entry) (all []Attribute) {
	for _, a := range e.Attributes {
		all = append(all, Attribute{a.Name, a.ByteValues})
	}
	return all
}

// nameBelow takes the base off a DN.
func nameBelow(dn string, base *ldap.DN) (string, error) {
	d, err := ldap.ParseDN(dn)
	if err != nil {
		return "", fmt.Errorf("reading the name %q: %w", dn, err)
	}
	if !base.EqualFold(d) && !base.AncestorOfFold(d) {
		return "", fmt.Errorf("reading the name %q: it does not lie below %s", dn, base)
	}
	var rdns []string
	for _, rdn := range d.RDNs[:len(d.RDNs)-len(base.RDNs)] {
		var parts []string
		for _, a := range rdn.Attributes {
			parts = append(parts, strings.ToLower(a.Type+"="+ldap.EscapeDN(a.Value)))
		}
		rdns = append(rdns, strings.Join(parts, "+"))
	}
	return strings.Join(rdns, ","), nil
}

// value returns the first value of an attribute, or "".
func (e *Entry) value(attribute string) string {
	want, _ := managed(attribute)
	for _, a := range e.Attributes {
		if name, ok := managed(a.Type); ok && name == want && len(a.Values) > 0 {
			return string(a.Values[0])
		}
	}
	return ""
}

// position returns what the entry says of itself; the zero position if it says nothing.
func (e *Entry) position() position {
	epoch, err1 := strconv.ParseUint(e.value(attrEpoch), 10, 64)
	seq, err2 := strconv.ParseUint(e.value(attrSeq), 10, 64)
	if err1 != nil || err2 != nil {
		return position{}
	}
	return position{epoch, seq}
}
