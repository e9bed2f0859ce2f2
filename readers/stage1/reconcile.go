package stage1

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"hufu/readers"
	"hufu/store"
	"hufu/verify"
)

// The outcomes of a receipt.
const (
	Matched = "matched"
	Double  = "double"
	Foreign = "foreign"

	untold = "untold"
)

// MaxLines is how many receipts are held against a ticket at once. MaxLine is how
// many octets one of them has.
const (
	MaxLines = 500
	MaxLine  = 64 << 10
)

// Match is what became of one line of a receipts file.
type Match struct {
	Line    int    // 1, 2, … of those that were given
	Number  string // as the line says
	Outcome string
	Reason  string // why it is not matched, or that it was known
	State   string // of the reader here, afterwards
	Status  string // of its signing certificate: good, on-hold, or untold where nobody here can tell
}

// judged is a line before the register is asked.
type judged struct {
	Match
	receipt *verify.Receipted
}

// ReadReceiptLine reads one line of a receipts file.
func ReadReceiptLine(line []byte) (*verify.ReceiptLine, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("the line has %d octets, more than %d", len(line), MaxLine)
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var l verify.ReceiptLine
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("the line is not a receipt in JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the receipt on its line")
	}
	return &l, nil
}

// Reconcile holds receipts against a ticket and the register, and brings the state
// of the readers up: one that was initialised in another book becomes active here,
// with the serial numbers of its pair; one of this book has its pair resumed. It is
// idempotent: a receipt that is known already matches again.
func (s *Stage) Reconcile(ctx context.Context, id string, lines [][]byte, actor string) ([]Match, error) {
	if len(lines) > MaxLines {
		return nil, &Refusal{"receipts", fmt.Sprintf("%d receipts at once", len(lines)), fmt.Sprintf("send at most %d", MaxLines)}
	}
	if _, err := s.Ticket(ctx, id); err != nil {
		return nil, err
	}
	list := make([]judged, len(lines))
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), len(lines))
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(lines); i += workers {
				list[i] = s.judgeLine(ctx, lines[i])
				list[i].Line = i + 1
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var matches []Match
	err := s.Book.Update(ctx, func(tx *store.Tx) error {
		matches = make([]Match, len(list))
		seen := map[string]bool{}
		for i := range list {
			m := list[i].Match
			if list[i].receipt != nil {
				if seen[m.Number] {
					m.Outcome, m.Reason = Double, "the reader has a receipt above already"
				} else if err := s.bringUp(tx, id, list[i].receipt, &m, actor); err != nil {
					return err
				}
				seen[m.Number] = seen[m.Number] || m.Outcome == Matched
			}
			matches[i] = m
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("holding receipts against ticket %s: %w", id, err)
	}
	return matches, nil
}

// judgeLine judges a line by itself: form, signature, chains, hashes, and the status
// of the reader's certificates, where somebody here can tell it.
func (s *Stage) judgeLine(ctx context.Context, line []byte) (j judged) {
	foreign := func(err error) judged {
		j.Outcome, j.Reason = Foreign, err.Error()
		return j
	}
	l, err := ReadReceiptLine(line)
	if err != nil {
		return foreign(err)
	}
	if validNumber(l.Number) {
		j.Number = l.Number
	}
	r, err := s.Verifier.ReceiptLine(l)
	if err != nil {
		return foreign(err)
	}
	certs := []*verify.Cert{r.Message.Signer, r.Encrypt}
	if r.Device != nil {
		certs = append(certs, r.Device)
	}
	j.Status = verify.Good
	for _, c := range certs {
		ask := s.Verifier.CheckHeld // the receipt is what a pair's hold waits for
		if c == r.Device {
			ask = s.Verifier.CheckStatus
		}
		e, err := ask(ctx, c)
		stale := new(verify.StaleError)
		switch {
		case errors.As(err, &stale):
			j.Status = untold // the city's own book has it
		case err != nil:
			return foreign(err)
		case e.State == verify.OnHold && j.Status == verify.Good:
			j.Status = verify.OnHold
		}
	}
	j.receipt = r
	return j
}

// bringUp holds a good receipt against the ticket and the reader.
func (s *Stage) bringUp(tx *store.Tx, id string, r *verify.Receipted, m *Match, actor string) error {
	t, err := FindTicket(tx, id)
	if err != nil {
		return err
	}
	foreign := func(format string, args ...any) error {
		m.Outcome, m.Reason = Foreign, fmt.Sprintf(format, args...)
		return nil
	}
	switch {
	case r.Ticket != id:
		return foreign("it is of another ticket, %s", orNone(r.Ticket))
	case r.City != t.City:
		return foreign("it is of city %s, and the ticket is for %s", r.City, t.City)
	case r.Message.Signer.NotBefore.After(t.Expires):
		return foreign("its certificate was made on %s, after the ticket expired", r.Message.Signer.NotBefore.UTC().Format(time.RFC3339))
	}
	rd, err := s.Register.Find(tx, r.Number)
	switch {
	case isNotFound(err):
		return foreign("the reader is not on the ticket")
	case err != nil:
		return err
	case rd.Ticket != id && t.State == TicketRevoked:
		return foreign("the ticket was revoked on %s and the reader taken off it", day(t.Revoked))
	case rd.Ticket != id:
		return foreign("the reader is not on the ticket")
	case rd.Device != store.Hash(r.Receipt.Device):
		return foreign("its device certificate is not the one that the ticket names")
	}
	return s.step(tx, t, rd, r, m, actor)
}

// step takes a reader on by its receipt.
func (s *Stage) step(tx *store.Tx, t *Ticket, rd *readers.Reader, r *verify.Receipted, m *Match, actor string) error {
	sum := store.Hash(r.Message.Hash)
	same := rd.Sign == r.Message.Signer.Serial && rd.Encrypt == r.Encrypt.Serial
	var err error
	switch {
	case rd.State == readers.Allotted && t.Used >= t.Quota:
		m.Outcome, m.Reason = Foreign, fmt.Sprintf("all %d readers that the ticket allows have receipts already", t.Quota)
	case rd.State == readers.Allotted:
		m.Outcome = Matched
		t.Used++
		if err = tickets.Put(tx, t); err == nil {
			rd, err = s.Register.Reported(tx, r.Number, readers.Report{CA: r.City, Sign: r.Message.Signer.Serial, Encrypt: r.Encrypt.Serial,
				NotAfter: r.Message.Signer.NotAfter, Receipt: sum}, actor)
		}
	case rd.State == readers.Initialised && same:
		m.Outcome = Matched
		rd, err = s.Register.Activate(tx, r.Number, sum, actor)
	case rd.State == readers.Initialised:
		m.Outcome, m.Reason = Foreign, "it is for another pair than the reader was given"
	case rd.Receipt == sum:
		m.Outcome, m.Reason = Matched, "known already"
	default:
		m.Outcome, m.Reason = Double, "the reader has another receipt already"
	}
	if err != nil {
		return err
	}
	m.State = string(rd.State)
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "or of none"
	}
	return s
}
