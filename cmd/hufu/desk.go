package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"hufu/api/client"
	"hufu/internal/cms"
	"hufu/readers/apdu"
	"hufu/verify"
)

const (
	deskTime      = 2 * time.Minute  // that one reader may take
	deskPatience  = 45 * time.Second // that a batch waits for a node that is away
	deskPause     = 200 * time.Millisecond
	sessionsTried = 10 // a session that a node forgot is begun anew so often
)

// Outcomes of a reader at a desk that are no refusals of the node's. A refusal has
// the name of the node's problem.
const (
	atDeskActive     = "active"        // done now
	atDeskDone       = "done-before"   // by an earlier run
	atDeskUnprepared = "not-prepared"  // the first stage is not done
	atDeskReader     = "reader-failed" // the reader refuses, or went away
	atDeskNode       = "unfinished"    // the node could not answer
)

// deskResult is a line of the results file.
type deskResult struct {
	Time    time.Time `json:"time"`
	Bench   string    `json:"bench"`
	Slot    string    `json:"slot"`
	Number  string    `json:"number,omitempty"`
	Outcome string    `json:"outcome"`
	Detail  string    `json:"detail,omitempty"`
	Remedy  string    `json:"remedy,omitempty"`
	Sign    string    `json:"sign,omitempty"`    // serial number
	Encrypt string    `json:"encrypt,omitempty"` // serial number
	Took    string    `json:"took"`
}

func (r *deskResult) good() bool { return r.Outcome == atDeskActive || r.Outcome == atDeskDone }

// desk is where a city works with its readers.
type desk struct {
	node   *client.Client
	city   string
	ticket string
	renew  bool
	batch  bool // a node that is away for a moment is waited for
	again  bool // a reader that is finished is asked for its receipt, not initialised anew
	g      *globals
	out    io.Writer // each step is told there, as it is done; nil: nowhere
}

// say tells a step.
func (d *desk) say(format string, args ...any) {
	if d.out != nil {
		d.g.tell(d.out, format, args...)
	}
}

// initialise takes the reader in a slot through the second stage, from wherever it
// stands.
func (d *desk) initialise(ctx context.Context, bench, slot string) *deskResult {
	began := time.Now()
	res := &deskResult{Time: began.UTC().Truncate(time.Second), Bench: bench, Slot: slot}
	ctx, cancel := context.WithTimeout(ctx, deskTime)
	defer cancel()
	d.settle(res, d.work(ctx, res, bench, slot))
	res.Took = time.Since(began).Round(time.Millisecond).String()
	return res
}

// settle names the outcome of an error.
func (d *desk) settle(res *deskResult, err error) {
	var problem *client.Problem
	var hint *hinted
	switch {
	case err == nil:
		return
	case errors.As(err, &problem):
		res.Outcome, res.Detail, res.Remedy = strings.TrimPrefix(problem.Type, "/problems/"), problem.Error(), problem.Remedy
		if problem.Status >= 500 {
			res.Outcome = atDeskNode
		}
		return
	case errors.As(err, &hint):
		res.Remedy = hint.hint
	}
	res.Detail = err.Error()
	switch {
	case res.Outcome != "":
	case errors.As(err, new(*readerError)):
		res.Outcome, res.Remedy = atDeskReader, "see to the reader and its plug, and run the same command again: it goes on where it stopped"
	default:
		res.Outcome, res.Remedy = atDeskNode, "run the same command again when the node answers: it goes on where it stopped"
	}
}

// readerError is what went wrong between host and reader.
type readerError struct{ err error }

func (e *readerError) Error() string { return e.err.Error() }
func (e *readerError) Unwrap() error { return e.err }

// plugged is a reader that is connected.
type plugged struct {
	*apdu.Reader
	number string
	state  byte
}

func plug(ctx context.Context, bench, slot string) (*plugged, apdu.Elements, error) {
	r, err := apdu.Open(ctx, bench, slot)
	if err != nil {
		return nil, nil, &readerError{err}
	}
	p := &plugged{Reader: r}
	b, err := p.do(apdu.Identify, 0, nil)
	var e apdu.Elements
	if err == nil {
		if e, err = apdu.ParseElements(b); err == nil && (len(e[apdu.State]) != 1 || len(e[apdu.Number]) == 0) {
			err = errors.New("the reader does not tell its number and its state")
		}
	}
	if err != nil {
		r.Close()
		return nil, nil, &readerError{fmt.Errorf("asking the reader in slot %s who it is: %w", slot, err)}
	}
	p.number, p.state = string(e[apdu.Number]), e[apdu.State][0]
	return p, e, nil
}

func (p *plugged) do(ins, p1 byte, e apdu.Elements) ([]byte, error) {
	b, err := p.Do(ins, p1, e)
	if err != nil {
		return nil, &readerError{err}
	}
	return b, nil
}

func (d *desk) work(ctx context.Context, res *deskResult, bench, slot string) error {
	r, e, err := plug(ctx, bench, slot)
	if err != nil {
		return err
	}
	defer r.Close()
	res.Number = r.number
	d.say("reader %s, model %s, firmware %s", r.number, e[apdu.Model], e[apdu.Firmware])
	switch {
	case r.state < apdu.Prepared:
		res.Outcome = atDeskUnprepared
		return &hinted{err: fmt.Errorf("reader %s has no device certificate", r.number), hint: "the first stage is not done: hufu stage1 deliver", code: exitRefused}
	case r.state == apdu.Installed, r.state == apdu.Finished && d.again && !d.renew:
		// It was cut off between its receipt and our word that it arrived, or it is
		// done: either way the receipt tells.
		done, err := d.resend(ctx, res, r)
		if done || err != nil {
			return err
		}
	}
	for try := 1; ; try++ {
		err := d.session(ctx, res, r)
		var p *client.Problem
		if try < sessionsTried && errors.As(err, &p) && p.Type == "/problems/session-unknown" {
			continue // the node was started in between
		}
		return err
	}
}

// patient asks the node until it answers, in a batch: one that is started again must
// not cost every reader that is plugged in meanwhile. All that is asked may be asked
// twice.
func patient[A any](ctx context.Context, d *desk, ask func() (A, error)) (A, error) {
	for began := time.Now(); ; {
		a, err := ask()
		if err == nil || !d.batch || errors.As(err, new(*client.Problem)) || time.Since(began) > deskPatience {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, err
		case <-time.After(deskPause):
		}
	}
}

// resend sends the receipt that a reader has kept. It is done where the node takes
// it; where the node says that the receipt is not for the pair on hold, the reader
// gets another one.
func (d *desk) resend(ctx context.Context, res *deskResult, r *plugged) (done bool, err error) {
	receipt, err := r.do(apdu.GetReceipt, 0, nil)
	if err != nil {
		return false, err
	}
	session, err := sessionOf(receipt)
	if err != nil {
		return false, &readerError{err}
	}
	before := r.state == apdu.Finished
	rd, err := patient(ctx, d, func() (*client.Reader, error) { return d.node.SendReceipt(ctx, session, receipt) })
	var p *client.Problem
	if !before && errors.As(err, &p) && p.Type == "/problems/proof-failed" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d.say("the receipt that it kept was taken: it is %s", rd.State)
	return true, d.finish(res, r, rd, before)
}

// sessionOf reads the session of a receipt; it judges nothing.
func sessionOf(receipt []byte) (string, error) {
	m, err := cms.Parse(receipt, apdu.MaxData)
	if err != nil {
		return "", fmt.Errorf("reading the receipt of the reader: %w", err)
	}
	r, err := verify.ParseReceipt(m.Content)
	if err != nil {
		return "", err
	}
	return r.Session, nil
}

// finish tells the reader that its receipt was taken.
func (d *desk) finish(res *deskResult, r *plugged, rd *client.Reader, before bool) error {
	res.Sign, res.Encrypt, res.Outcome = rd.Sign, rd.Encrypt, atDeskActive
	if before {
		res.Outcome = atDeskDone
		return nil
	}
	if _, err := r.do(apdu.Finish, 0, nil); err != nil {
		res.Outcome = ""
		return err
	}
	d.say("reader %s is %s: signing %s, encryption %s", r.number, rd.State, short(rd.Sign), short(rd.Encrypt))
	return nil
}

// session is the whole exchange.
func (d *desk) session(ctx context.Context, res *deskResult, r *plugged) error {
	request := client.SessionRequest{Number: r.number, City: d.city, Ticket: d.ticket, Renew: d.renew}
	s, err := patient(ctx, d, func() (*client.Session, error) { return d.node.OpenSession(ctx, request) })
	if err != nil {
		return err
	}
	id, err := hex.DecodeString(s.ID)
	if err != nil {
		return fmt.Errorf("reading the session: %w", err)
	}
	d.say("session %s, challenge %x…", s.ID, s.Challenge[:min(4, len(s.Challenge))])
	by := map[string]byte{"centre": apdu.ByCentre, "reader": apdu.ByReader}[s.Encryption]
	enrolment, err := r.do(apdu.Enrol, 0, apdu.Elements{apdu.Session: id, apdu.Challenge: s.Challenge, apdu.City: []byte(s.City), apdu.Encryption: {by}})
	if err != nil {
		return err
	}
	d.say("the reader made its keys and proved itself: %d octets", len(enrolment))
	g, err := patient(ctx, d, func() (*client.Grant, error) { return d.node.Enrol(ctx, s.ID, enrolment) })
	if err != nil {
		return err
	}
	if len(g.Chain) == 0 {
		return errors.New("the node sent a pair without its issuer")
	}
	install := apdu.Elements{apdu.Certificate: g.Sign, apdu.Certificate2: g.Encrypt, apdu.Issuer: g.Chain[0], apdu.Session: id}
	if len(g.SealedKey) > 0 {
		install[apdu.SealedKey] = g.SealedKey
	}
	if s.Ticket != "" {
		if install[apdu.Ticket], err = hex.DecodeString(s.Ticket); err != nil {
			return fmt.Errorf("reading the ticket's ID: %w", err)
		}
	}
	d.say("its pair is issued, on hold")
	receipt, err := r.do(apdu.Install, 0, install)
	if err != nil {
		return err
	}
	d.say("the reader installed it and signed a receipt with its new key")
	rd, err := patient(ctx, d, func() (*client.Reader, error) { return d.node.SendReceipt(ctx, s.ID, receipt) })
	if err != nil {
		return err
	}
	return d.finish(res, r, rd, false)
}
