package officers

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/policy"
	"hufu/store"
)

// approvalLife is how long an approval can be given and used.
const approvalLife = 72 * time.Hour

// maxRequest bounds the request bytes of an approval.
const maxRequest = 32 << 10

// Approval is a request that needs other people's signatures.
type Approval struct {
	ID        string
	Op        policy.Operation
	City      string
	Request   []byte     // what is asked for, as compact JSON
	Canonical []byte     // what is signed: a Statement
	Hash      store.Hash // of Canonical
	Requester store.Hash // fingerprint
	Name      string     // of the requester
	Needed    int
	Given     []Consent
	State     string // Open, Granted, Used; Expired is one of the former two past its end
	Created   time.Time
	Expires   time.Time
	Seq       uint64 // the event of the last change
}

// Statement is what an approver signs, as JSON: the request and what pins it to
// one place and one time, so that no signature serves twice.
type Statement struct {
	Hufu      string           `json:"hufu"` // "approval"
	Book      string           `json:"book"`
	ID        string           `json:"id"`
	Operation policy.Operation `json:"operation"`
	City      string           `json:"city,omitempty"`
	Requester string           `json:"requester"`
	Expires   time.Time        `json:"expires"`
	SHA256    store.Hash       `json:"sha256"` // of Request's octets as given
	Request   json.RawMessage  `json:"request"`
}

// Consent is one person's signature under an approval.
type Consent struct {
	Fingerprint store.Hash
	Name        string
	Time        time.Time
	CMS         []byte
}

// States of an Approval.
const (
	Open    = "open"
	Granted = "granted"
	Used    = "used"
	Expired = "expired"
)

// ApprovalError says why an approval cannot be given or used.
type ApprovalError struct {
	ID      string
	Problem string // stable: "expired", "not-open", "not-granted", "own-request", "given-before", "other-bytes", "signature", "withdrawn", "role"
	Detail  string
	Remedy  string
}

func (e *ApprovalError) Error() string {
	return fmt.Sprintf("approval %s: %s: %s", e.ID, e.Detail, e.Remedy)
}

// Request opens an approval for an operation in a city ("" = none or all),
// described by canonical bytes (compact JSON), that needs the signatures of
// `needed` people other than the caller.
func (o *Office) Request(tx *store.Tx, c policy.Caller, op policy.Operation, city string, canonical []byte, needed int) (*Approval, error) {
	if needed < 1 || len(canonical) > maxRequest || !json.Valid(canonical) {
		return nil, fmt.Errorf("requesting an approval: %d signatures over %d octets: at least one, over at most %d octets of JSON", needed, len(canonical), maxRequest)
	}
	var id [8]byte
	rand.Read(id[:])
	now := wholeSeconds(tx.Now())
	a := &Approval{
		ID: hex.EncodeToString(id[:]), Op: op, City: city, Request: canonical,
		Requester: c.Fingerprint, Name: c.Name, Needed: needed, State: Open, Created: now, Expires: now.Add(approvalLife),
	}
	var err error
	a.Canonical, err = json.Marshal(Statement{Hufu: "approval", Book: o.Book.ID(), ID: a.ID, Operation: op, City: city,
		Requester: c.Name, Expires: a.Expires, SHA256: store.Sum(canonical), Request: canonical})
	if err != nil {
		return nil, fmt.Errorf("writing the statement to be signed: %w", err)
	}
	a.Hash = store.Sum(a.Canonical)
	a.Seq = a.journal(tx, store.KindApprovalRequested, c)
	if err := approvals.Insert(tx, a); err != nil {
		return nil, fmt.Errorf("recording approval %s: %w", a.ID, err)
	}
	return a, nil
}

// Approve adds the caller's signature: CMS SignedData of content type
// oid.ContentApproval over Approval.Canonical. With the last signature needed
// the approval is Granted.
func (o *Office) Approve(tx *store.Tx, c policy.Caller, id string, der []byte) (*Approval, error) {
	a, err := approvals.Get(tx, store.Key(id))
	if err != nil {
		return nil, fmt.Errorf("looking up approval %q: %w", id, err)
	}
	if err := policy.Allowed(c, policy.OpApprovalGive, a.City); err != nil {
		return nil, err
	}
	if !counts(c, a.Op) {
		return nil, &ApprovalError{id, "role", fmt.Sprintf("only a %s can approve %s", policy.Approver(a.Op), a.Op), "ask people with that role"}
	}
	switch {
	case a.state(tx.Now()) == Expired:
		return nil, &ApprovalError{id, "expired", "it has expired", "have it requested again"}
	case a.State != Open:
		return nil, &ApprovalError{id, "not-open", "it is " + a.State, "no more signatures are needed"}
	case a.Requester == c.Fingerprint || a.Name == c.Name:
		return nil, &ApprovalError{id, "own-request", "the requester cannot approve", "ask another person"}
	case slices.ContainsFunc(a.Given, func(g Consent) bool { return g.Fingerprint == c.Fingerprint || g.Name == c.Name }):
		return nil, &ApprovalError{id, "given-before", "this person has signed it", "ask another person"}
	}
	if err := o.stillStands(tx, a); err != nil {
		return nil, err
	}
	if err := checkConsent(tx, a, c, der); err != nil {
		return nil, &ApprovalError{id, "signature", err.Error(), "sign the canonical bytes of this approval with your own key"}
	}
	a.Given = append(a.Given, Consent{Fingerprint: c.Fingerprint, Name: c.Name, Time: wholeSeconds(tx.Now()), CMS: der})
	if len(a.Given) >= a.Needed {
		a.State = Granted
	}
	a.Seq = a.journal(tx, store.KindApprovalGiven, c)
	return a, approvals.Put(tx, a)
}

// counts tells whether the caller has the role that approvers of the operation need.
func counts(c policy.Caller, op policy.Operation) bool {
	role := policy.Approver(op)
	return role == "" || slices.Contains(c.Roles, role)
}

// checkConsent checks that the message is the caller's signature over exactly
// what is to be approved.
func checkConsent(tx *store.Tx, a *Approval, c policy.Caller, der []byte) error {
	msg, err := cms.Parse(der, cms.MaxMessage+maxRequest)
	if err != nil {
		return fmt.Errorf("reading the signature: %w", err)
	}
	if !msg.ContentType.Equal(oid.ContentApproval) || !bytes.Equal(msg.Content, a.Canonical) {
		return errors.New("the signature is over something else")
	}
	cert, err := store.FindCertificate(tx, c.CA, store.Serial(c.Serial))
	if err != nil {
		return fmt.Errorf("looking up the certificate of %q: %w", c.Name, err)
	}
	// The certificate is the one that the gate knew the caller by, not one that
	// travels in the message.
	return msg.CheckSignature(cert.DER)
}

// Consume uses a granted approval up, in the transaction that does what was
// approved: request is the hash of the bytes given to Request.
func (o *Office) Consume(tx *store.Tx, id string, request store.Hash) error {
	a, err := approvals.Get(tx, store.Key(id))
	if err != nil {
		return fmt.Errorf("looking up approval %q: %w", id, err)
	}
	switch {
	case a.state(tx.Now()) == Expired:
		return &ApprovalError{id, "expired", "it has expired", "have it requested again"}
	case a.State != Granted:
		return &ApprovalError{id, "not-granted", fmt.Sprintf("it is %s, with %d of %d signatures", a.State, len(a.Given), a.Needed), "have it signed first, and use it once"}
	case store.Sum(a.Request) != request:
		return &ApprovalError{id, "other-bytes", "it was given for another request", "do what was approved, or have this approved"}
	}
	if err := o.stillStands(tx, a); err != nil {
		return err
	}
	a.State = Used
	a.Seq = a.journal(tx, store.KindApprovalUsed, policy.Caller{Name: a.Name})
	return approvals.Put(tx, a)
}

// stillStands checks that whoever asked, and whoever has signed, could do so now:
// what was begun with a certificate that was held or revoked since, or by somebody
// whose rights were taken away, comes to nothing. A certificate that was renewed
// stands for the one before it.
func (o *Office) stillStands(tx *store.Tx, a *Approval) error {
	if err := o.couldNow(tx, a, a.Requester, a.Name, a.Op, false); err != nil {
		return err
	}
	for _, g := range a.Given {
		if err := o.couldNow(tx, a, g.Fingerprint, g.Name, policy.OpApprovalGive, true); err != nil {
			return err
		}
	}
	return nil
}

func (o *Office) couldNow(tx *store.Tx, a *Approval, fingerprint store.Hash, name string, op policy.Operation, approves bool) error {
	gone := func(why string) error {
		return &ApprovalError{a.ID, "withdrawn", fmt.Sprintf("%q, who had a part in it, %s", name, why), "have it requested again, by people who may"}
	}
	p, err := people.Get(tx, store.Key(fingerprint))
	if err == nil && p.State != Active {
		p, err = successor(tx, p)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return gone("acts no more")
	case err != nil:
		return fmt.Errorf("looking up %q: %w", name, err)
	}
	problem, err := standing(tx, p.ca, p.serial, p.notAfter, o.Now())
	switch {
	case err != nil:
		return err
	case problem != "":
		return gone("has a certificate that is " + problem)
	}
	c := policy.Caller{Name: p.Name, Roles: p.Roles, City: p.City}
	switch {
	case policy.Allowed(c, op, a.City) != nil:
		return gone("may not do " + string(op) + " any more")
	case approves && !counts(c, a.Op):
		return gone("is no " + string(policy.Approver(a.Op)) + " any more")
	}
	return nil
}

// successor finds the person who has the renewed certificate of a removed one.
func successor(tx *store.Tx, removed *Person) (*Person, error) {
	for p, err := range people.Scan(tx, "active", nil) {
		if err != nil {
			return nil, err
		}
		if p.line == removed.line {
			return p, nil
		}
	}
	return nil, store.ErrNotFound
}

// Approval returns one approval.
func (o *Office) Approval(ctx context.Context, id string) (*Approval, error) {
	var a *Approval
	err := o.Book.View(ctx, func(tx *store.Tx) (err error) {
		a, err = approvals.Get(tx, store.Key(id))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking up approval %q: %w", id, err)
	}
	a.State = a.state(o.Now())
	return a, nil
}

// Approvals lists approvals, newest first, page by page: of one city ("" = all)
// and in one state ("" = all). A page may be shorter than its limit, or empty,
// and have a next.
func (o *Office) Approvals(ctx context.Context, city, state string, after []byte, limit int) (list []*Approval, next []byte, err error) {
	q := store.Query{Index: "created", After: after, Limit: limit, Reverse: true}
	switch {
	case city != "":
		q.Index, q.Prefix = "city", store.Key(city)
	case state != "" && state != Expired:
		q.Index, q.Prefix = "state", store.Key(state)
	}
	err = o.Book.View(ctx, func(tx *store.Tx) (err error) {
		list, next, err = approvals.Page(tx, q)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing approvals: %w", err)
	}
	now := o.Now()
	for _, a := range list {
		a.State = a.state(now)
	}
	if state != "" {
		list = slices.DeleteFunc(list, func(a *Approval) bool { return a.State != state })
	}
	return list, next, nil
}

// state is the state of the approval at a time.
func (a *Approval) state(now time.Time) string {
	if a.State != Used && now.After(a.Expires) {
		return Expired
	}
	return a.State
}

func (a *Approval) journal(tx *store.Tx, kind string, c policy.Caller) uint64 {
	return tx.Append(store.Event{Kind: kind, CA: c.CA, Serial: c.Serial, Actor: c.Name,
		Detail: fmt.Sprintf(`{"id":%q,"operation":%q,"sha256":%q}`, a.ID, a.Op, a.Hash)})
}

func wholeSeconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
