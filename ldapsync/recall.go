package ldapsync

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"hufu/store"
)

// Recalled is what a directory knows of a book and the book, put back to an older state, does not.
type Recalled struct {
	Directory string
	Statement *Statement // nil: the directory shows none that the key signed
	Verified  bool       // what the directory holds has the digest of the statement
	// Certificates and Statuses are what the book lacks, or what changed since, in the order of the lost events. Serial numbers that never
	// got a certificate have a status alone. Where the book is the stricter, its own status is to be said again.
	Certificates []*store.Certificate
	Statuses     []*store.Status
	CAs          []string // that changed
	CRLs         []RecalledCRL
	Kept         []string // entries that stay in the directory and cannot be brought back: which, and why
	Notes        []string // where directory and book contradict each other

	latest map[uint64]uint64 // the last sequence number seen, for each epoch
	began  uint64            // events after this are of the book's present epoch
}

// RecalledCRL is a full CRL that is newer than those in the book.
type RecalledCRL struct {
	CRL *store.CRL
	DER []byte
}

// Recall reads the certificates, statuses and CRLs of a book that a directory has and the book has lost. It changes nothing. The book must
// have been restored, so that what is brought back gets its place in a new epoch; a certificate must be signed by a CA that the book
// knows. Where the directory does not have the digest of a statement signed with key (the writer died before it could make one, or somebody
// else wrote), nobody is let out of a hold.
func Recall(ctx context.Context, d Directory, book *store.Book, key crypto.PublicKey) (*Recalled, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("directory %q: %w", d.Name, err)
	}
	l, err := connect(ctx, &d)
	if err != nil {
		return nil, err
	}
	defer l.close()
	r := &Recalled{Directory: d.Name, latest: map[uint64]uint64{}}
	m, err := l.watermark(book.ID())
	if err != nil {
		return nil, fmt.Errorf("reading the watermark of %s: %w", d.Name, err)
	}
	if m != nil {
		r.Statement, _ = ParseStatement([]byte(m.note), key) // nil when it cannot be believed
	}
	lost, err := r.collect(ctx, l, book)
	if err != nil {
		return nil, fmt.Errorf("reading directory %s: %w", d.Name, err)
	}
	slices.SortFunc(lost, func(a, b lostEntry) int { return a.position().compare(b.position()) })
	for _, e := range lost {
		err := book.View(ctx, func(tx *store.Tx) error { return r.take(tx, e) })
		if err != nil {
			return nil, fmt.Errorf("comparing directory %s with the book: %w", d.Name, err)
		}
	}
	return r, nil
}

// lostEntry is an entry that is later than anything in its epoch of the book.
type lostEntry struct {
	*Entry
	target target
}

// collect reads the whole directory: all of it for the digest, and what is lost.
func (r *Recalled) collect(ctx context.Context, l *link, book *store.Book) (lost []lostEntry, err error) {
	head, err := book.Tree(ctx)
	if err != nil {
		return nil, err
	}
	ends := map[uint64]uint64{}
	epochs := book.Epochs()
	r.began = uint64(epochs[len(epochs)-1].Size)
	for i, e := range epochs {
		ends[e.Epoch] = uint64(head.Size)
		if i+1 < len(epochs) {
			ends[e.Epoch] = uint64(epochs[i+1].Size)
		}
	}
	tree := new(Tree)
	err = l.entries(ctx, bookFilter(book.ID()), func(dn *ldap.DN, e *Entry) error {
		tree.Set(e.Name, e.Digest())
		p := e.position()
		if end, ok := ends[p.epoch]; ok && p.seq <= end {
			return nil
		}
		if p.epoch >= book.Epoch() {
			return fmt.Errorf("entry %s is of %v: that epoch of the book has not ended; restore the book first, which begins a new one", e.Name, p)
		}
		r.latest[p.epoch] = max(r.latest[p.epoch], p.seq)
		t, ok := targetAt(dn, l.base)
		if !ok {
			r.keep(e, "it lies where Hufu writes nothing")
			return nil
		}
		lost = append(lost, lostEntry{e, t})
		return nil
	})
	r.Verified = r.Statement != nil && tree.Root() == r.Statement.Digest
	return lost, err
}

func (r *Recalled) keep(e *Entry, why string) { r.Kept = append(r.Kept, e.Name+": "+why) }

// targetAt is the inverse of target.name, with letters as they are.
func targetAt(dn, base *ldap.DN) (t target, ok bool) {
	names := dn.RDNs[:len(dn.RDNs)-len(base.RDNs)]
	value := func(i int, attribute string) string {
		if a := names[i].Attributes; len(a) == 1 && strings.EqualFold(a[0].Type, attribute) {
			return a[0].Value
		}
		return ""
	}
	switch len(names) {
	case 1:
		t.ca = value(0, "ou")
		return t, t.ca != ""
	case 2:
		n, err := strconv.ParseUint(value(0, "cn"), 10, 16)
		t = target{ca: value(1, "ou"), shard: uint16(n)}
		return t, err == nil && n > 0 && t.ca != ""
	case 3:
		serial, err := store.ParseSerial(strings.ToLower(value(0, attrSerial)))
		t = target{ca: value(2, "ou"), serial: serial}
		return t, err == nil && t.ca != "" && value(1, "ou") == "certificates"
	}
	return t, false
}

// take compares one lost entry with the book.
func (r *Recalled) take(tx *store.Tx, e lostEntry) error {
	ca, err := optional(store.CAs.Get(tx, store.Key(e.target.ca)))
	if err != nil {
		return err
	}
	if ca == nil {
		r.keep(e.Entry, "the book does not know this CA; add it first")
		return nil
	}
	issuer, err := x509.ParseCertificate(ca.Certificate)
	if err != nil {
		r.keep(e.Entry, fmt.Sprintf("the certificate of its CA cannot be read: %v", err))
		return nil
	}
	if e.target.isCA() {
		return r.takeCRL(tx, e, issuer)
	}
	status, err := e.status()
	if err != nil {
		r.keep(e.Entry, err.Error())
		return nil
	}
	key := store.SerialKey(e.target.ca, e.target.serial)
	have, err := optional(store.Statuses.Get(tx, key))
	if err != nil {
		return err
	}
	if have != nil {
		r.takeStatus(e, have, status)
		return nil
	}
	if status.Unissued {
		r.Statuses = append(r.Statuses, status)
		return nil
	}
	cert, err := e.certificate(issuer)
	if err != nil {
		r.keep(e.Entry, err.Error())
		return nil
	}
	r.Certificates = append(r.Certificates, cert)
	r.Statuses = append(r.Statuses, status)
	return nil
}

// takeStatus takes what became of a serial number that the book knows. Revoked stays revoked, and where the digest does not fit nobody is
// let out of a hold: the book's own status then becomes the later one.
func (r *Recalled) takeStatus(e lostEntry, have, status *store.Status) {
	if have.State == store.Revoked || status.State < have.State && !r.Verified {
		if status.State != have.State {
			r.Notes = append(r.Notes, fmt.Sprintf("%s: the directory has it %s, the book %s; the book's holds", e.Name, status.State, have.State))
		}
		status = have
	}
	status.Unissued = have.Unissued
	r.Statuses = append(r.Statuses, status)
}

// takeCRL takes the full CRL of a CA's entry, if it is newer.
func (r *Recalled) takeCRL(tx *store.Tx, e lostEntry, issuer *x509.Certificate) error {
	r.CAs = append(r.CAs, e.target.ca)
	der := []byte(e.value(attrCRL))
	if len(der) == 0 {
		return nil
	}
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		err = list.CheckSignatureFrom(issuer)
	}
	if err != nil || list.Number == nil || !list.Number.IsUint64() {
		r.keep(e.Entry, fmt.Sprintf("its CRL is not one of this CA: %v", err))
		return nil
	}
	last, err := optional(store.LastCRL(tx, e.target.ca, e.target.shard, false))
	if err != nil {
		return err
	}
	number := list.Number.Uint64()
	if last != nil && last.Number >= number {
		return nil
	}
	r.CRLs = append(r.CRLs, RecalledCRL{&store.CRL{
		CA: e.target.ca, Shard: e.target.shard, Number: number, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Entries: len(list.RevokedCertificateEntries),
	}, der})
	return nil
}

// shard is the list that an entry's serial number stands on, 0 if it names none.
func (e *lostEntry) shard() uint16 {
	n, _ := strconv.ParseUint(e.value(attrShard), 10, 16)
	return uint16(n)
}

// status reads the status that an entry shows.
func (e *lostEntry) status() (*store.Status, error) {
	s := &store.Status{CA: e.target.ca, Serial: e.target.serial, Unissued: e.value(attrUserCert) == "", Shard: e.shard()}
	for _, state := range []store.State{store.Good, store.Held, store.Revoked} {
		if strings.EqualFold(e.value(attrStatus), state.String()) {
			s.State = state
		}
	}
	if s.State == 0 || s.Unissued && s.State != store.Revoked {
		return nil, fmt.Errorf("%q is no status", e.value(attrStatus))
	}
	var err error
	if v := e.value(attrReason); v != "" {
		if s.Reason, err = strconv.Atoi(v); err != nil {
			return nil, fmt.Errorf("its reason: %w", err)
		}
	}
	for attribute, t := range map[string]*time.Time{attrStatusTime: &s.Time, attrInvalidityDate: &s.InvalidityDate, attrNotAfter: &s.NotAfter} {
		if v := e.value(attribute); v != "" {
			if *t, err = time.Parse(generalizedTime, v); err != nil {
				return nil, fmt.Errorf("its %s: %w", attribute, err)
			}
		}
	}
	return s, nil
}

// certificate reads the certificate in an entry, which must be one that the CA signed, for this serial number.
func (e *lostEntry) certificate(issuer *x509.Certificate) (*store.Certificate, error) {
	der := []byte(e.value(attrUserCert))
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	serial, err := store.SerialFrom(c.SerialNumber)
	if err != nil || serial != e.target.serial {
		return nil, errors.New("its certificate has another serial number")
	}
	return &store.Certificate{
		CA: e.target.ca, Serial: serial, DER: bytes.Clone(der), Profile: e.value(attrProfile), Subject: c.Subject.String(), Line: e.value(attrLine),
		Reader: e.value(attrReader), City: e.value(attrCity), Requester: "recalled", Names: c.DNSNames, SPKI: store.Sum(c.RawSubjectPublicKeyInfo),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), Shard: e.shard(),
	}, nil
}

// KindRecalled is the event that tells what was brought back from which directory.
const KindRecalled = "directory.recalled"

// Commit puts what was recalled into the book: each certificate as intended and issued, each later status as an event of its own. also, if
// not nil, runs in the transaction of each certificate, so that upper floors can record what they keep beside it. It may be repeated
// after a failure; what is in the book already is left alone. From then on the directory no longer counts as ahead.
func (r *Recalled) Commit(ctx context.Context, book *store.Book, actor string, also func(*store.Tx, *store.Certificate) error) error {
	states := map[target]*store.Status{}
	for _, s := range r.Statuses {
		states[target{ca: s.CA, serial: s.Serial}] = s
	}
	for batch := range slices.Chunk(r.Certificates, 200) {
		err := book.Update(ctx, func(tx *store.Tx) error {
			for _, c := range batch {
				if err := r.commitCertificate(tx, c, states[target{ca: c.CA, serial: c.Serial}], actor, also); err != nil {
					return fmt.Errorf("certificate %s of %s: %w", c.Serial, c.CA, err)
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("bringing back from %s: %w", r.Directory, err)
		}
	}
	for batch := range slices.Chunk(r.Statuses, 200) {
		err := book.Update(ctx, func(tx *store.Tx) error {
			for _, s := range batch {
				if err := r.commitStatus(tx, s, actor); err != nil {
					return fmt.Errorf("status of %s of %s: %w", s.Serial, s.CA, err)
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("bringing back from %s: %w", r.Directory, err)
		}
	}
	err := book.Update(ctx, func(tx *store.Tx) error { return r.commitRest(tx, actor) })
	if err != nil {
		return fmt.Errorf("bringing back from %s: %w", r.Directory, err)
	}
	return nil
}

func (r *Recalled) detail() string { return "recalled from directory " + r.Directory }

func (r *Recalled) commitCertificate(tx *store.Tx, c *store.Certificate, s *store.Status, actor string, also func(*store.Tx, *store.Certificate) error) error {
	cert := *c
	if have, err := optional(store.FindCertificate(tx, c.CA, c.Serial)); err != nil || have != nil {
		return err
	}
	if err := r.intend(tx, c.CA, c.Serial, actor); err != nil {
		return err
	}
	cert.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: c.Serial, Actor: actor, Detail: r.detail()})
	if err := store.Certificates.Insert(tx, &cert); err != nil {
		return err
	}
	first := store.Status{CA: c.CA, Serial: c.Serial, State: store.Good, Time: s.Time, NotAfter: c.NotAfter, Shard: c.Shard, Seq: cert.Seq}
	if err := store.Statuses.Insert(tx, &first); err != nil {
		return err
	}
	if err := r.commitStatus(tx, s, actor); err != nil || also == nil {
		return err
	}
	return also(tx, &cert)
}

// intend makes sure that the journal has an intent before what follows from it, and that nobody waits for it any longer.
func (r *Recalled) intend(tx *store.Tx, ca string, serial store.Serial, actor string) error {
	err := store.Intents.Delete(tx, store.SerialKey(ca, serial))
	if errors.Is(err, store.ErrNotFound) {
		tx.Append(store.Event{Kind: store.KindIntent, CA: ca, Serial: serial, Actor: actor, Detail: r.detail()})
		return nil
	}
	return err
}

// commitStatus records a status with an event of this epoch, so that it is later than what stands in any directory.
func (r *Recalled) commitStatus(tx *store.Tx, s *store.Status, actor string) error {
	have, err := optional(store.Statuses.Get(tx, store.SerialKey(s.CA, s.Serial)))
	if err != nil {
		return err
	}
	kind := map[store.State]string{store.Good: store.KindResumed, store.Held: store.KindHeld, store.Revoked: store.KindRevoked}[s.State]
	next := *s
	switch {
	case have == nil:
		if err := r.intend(tx, s.CA, s.Serial, actor); err != nil {
			return err
		}
		kind = store.KindIntentClosed
	case have.State == s.State && have.Seq > r.began:
		return nil
	default:
		next.NotAfter, next.Shard = have.NotAfter, have.Shard
	}
	next.Lifted = kind == store.KindResumed
	next.Seq = tx.Append(store.Event{Kind: kind, CA: s.CA, Serial: s.Serial, Actor: actor, Detail: r.detail()})
	return store.Statuses.Put(tx, &next)
}

// commitRest puts the CRLs into the book and notes up to where this directory's knowledge is in it.
func (r *Recalled) commitRest(tx *store.Tx, actor string) error {
	for _, c := range r.CRLs {
		crl := *c.CRL
		if have, err := optional(store.CRLs.Get(tx, store.CRLs.Key(&crl))); err != nil {
			return err
		} else if have != nil {
			continue
		}
		crl.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: crl.CA, Actor: actor, Detail: r.detail()})
		if err := store.PutCRL(tx, &crl, bytes.NewReader(c.DER)); err != nil {
			return err
		}
	}
	for _, id := range r.CAs {
		ca, err := store.CAs.Get(tx, store.Key(id))
		if err != nil {
			return err
		}
		if ca.Seq <= r.began {
			ca.Seq = tx.Append(store.Event{Kind: KindRecalled, CA: id, Actor: actor, Detail: r.detail()})
			if err := store.CAs.Put(tx, ca); err != nil {
				return err
			}
		}
	}
	rows := map[uint64]*recall{}
	for epoch, seq := range r.latest {
		rows[epoch] = &recall{Directory: r.Directory, Epoch: epoch, Latest: seq}
	}
	if st := r.Statement; st != nil {
		if rows[st.Epoch] == nil {
			rows[st.Epoch] = &recall{Directory: r.Directory, Epoch: st.Epoch}
		}
		rows[st.Epoch].Complete = st.Seq
		rows[st.Epoch].Latest = max(rows[st.Epoch].Latest, st.Seq)
	}
	for _, row := range rows {
		if err := recalls.Put(tx, row); err != nil {
			return err
		}
	}
	tx.Append(store.Event{Kind: KindRecalled, Actor: actor, Detail: fmt.Sprintf(
		"directory %s: certificates %d, statuses %d, CRLs %d, left in the directory %d", r.Directory, len(r.Certificates), len(r.Statuses), len(r.CRLs), len(r.Kept))})
	return nil
}
