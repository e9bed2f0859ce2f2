package stage1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/jobs"
	"hufu/readers"
	"hufu/store"
	"hufu/verify"
)

// States of a Ticket. One that is past its expiry keeps its state.
const (
	TicketMaking  = "making"  // its readers are being allotted, or taken in
	TicketOpen    = "open"    // its readers may be initialised
	TicketRevoked = "revoked" // none may any more
	TicketFailed  = "failed"  // it never held a reader
)

// Ticket is what the book keeps of a ticket, beside its file.
type Ticket struct {
	ID       string
	City     string
	State    string
	Issued   time.Time
	Expires  time.Time
	Quota    uint32
	Readers  uint32     // on the file
	Used     uint32     // of them, that were initialised
	Size     int64      // octets of the file
	Sum      store.Hash // of the file
	Imported bool       // it came from the centre: this is a city's book
	Offline  bool       // taken in without asking for the status of its signer
	Actor    string
	Job      string    // that made it or took it in
	Revoked  time.Time `json:",omitzero"`
	Note     string    `json:",omitempty"` // of the revocation
	Seq      uint64
}

// part is a piece of a ticket's file.
type part struct {
	Ticket string
	N      uint64
	Octets []byte
}

const partSize = 256 << 10

var (
	tickets = store.Table[Ticket]{
		Name:  "stage1.ticket",
		Key:   func(t *Ticket) []byte { return store.Key(t.ID) },
		Codec: store.JSON[Ticket](),
		Indexes: []store.Index[Ticket]{
			{Name: "issued", Keys: func(t *Ticket) [][]byte { return [][]byte{store.Key(t.Issued, t.ID)} }},
			{Name: "city", Keys: func(t *Ticket) [][]byte { return [][]byte{store.Key(t.City, t.Issued, t.ID)} }},
		},
	}
	parts = store.Table[part]{
		Name:  "stage1.ticketpart",
		Key:   func(p *part) []byte { return store.Key(p.Ticket, p.N) },
		Codec: store.JSON[part](),
	}
)

// Ticket returns one ticket.
func (s *Stage) Ticket(ctx context.Context, id string) (t *Ticket, err error) {
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		t, err = FindTicket(tx, id)
		return err
	})
	return t, err
}

// FindTicket returns one ticket as the transaction sees it. The error wraps
// store.ErrNotFound where there is none.
func FindTicket(tx *store.Tx, id string) (*Ticket, error) {
	t, err := tickets.Get(tx, store.Key(id))
	if err != nil {
		return nil, fmt.Errorf("looking up ticket %q: %w", id, err)
	}
	return t, nil
}

// Tickets returns the tickets, the newest first, page by page; city "" means all.
func (s *Stage) Tickets(ctx context.Context, city string, after []byte, limit int) (list []*Ticket, next []byte, err error) {
	q := store.Query{Index: "issued", After: after, Limit: limit, Reverse: true}
	if city != "" {
		q.Index, q.Prefix = "city", store.Key(city)
	}
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		list, next, err = tickets.Page(tx, q)
		return err
	})
	return list, next, err
}

// HasFile is nil for a ticket whose file is there.
func (s *Stage) HasFile(ctx context.Context, id string) error {
	t, err := s.Ticket(ctx, id)
	if err == nil && t.Size == 0 {
		err = &Refusal{TicketNotReady, fmt.Sprintf("ticket %s is %s and has no file", id, t.State), "wait for its job: hufu job watch " + t.Job}
	}
	return err
}

// WriteTicket writes a ticket's file, a piece at a time.
func (s *Stage) WriteTicket(ctx context.Context, id string, w io.Writer) error {
	if err := s.HasFile(ctx, id); err != nil {
		return err
	}
	for n := uint64(0); ; n++ {
		var p *part
		err := s.Book.View(ctx, func(tx *store.Tx) (err error) {
			p, err = parts.Get(tx, store.Key(id, n))
			return err
		})
		if isNotFound(err) && n > 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading ticket %s: %v", id, err)
		}
		if _, err := w.Write(p.Octets); err != nil {
			return err
		}
	}
}

// file is a ticket's whole file.
func file(tx *store.Tx, id string) ([]byte, error) {
	var der []byte
	for p, err := range parts.Scan(tx, "", store.Key(id)) {
		if err != nil {
			return nil, fmt.Errorf("reading ticket %s: %w", id, err)
		}
		der = append(der, p.Octets...)
	}
	return der, nil
}

// keep records the file of a ticket. It may be done again.
func (t *Ticket) keep(tx *store.Tx, der []byte) error {
	t.Size, t.Sum = int64(len(der)), store.Sum(der)
	for n := uint64(0); len(der) > 0; n++ {
		p := &part{t.ID, n, der[:min(len(der), partSize)]}
		der = der[len(p.Octets):]
		if err := parts.Put(tx, p); err != nil {
			return fmt.Errorf("recording ticket %s: %w", t.ID, err)
		}
	}
	return tickets.Put(tx, t)
}

// TicketOrder says what ticket is wanted.
type TicketOrder struct {
	City    string
	Expires time.Time
	Quota   uint32 // 0: as many as there are readers

	// Numbers are the readers; or, where it is empty, all prepared readers that
	// Select finds by Model, Firmware, Batch and Number, at most Count of them
	// (0: all).
	Numbers []string
	Select  readers.Query
	Count   int
}

// TicketArgs are the arguments of a job of kind JobTicket.
type TicketArgs struct {
	Ticket  string
	Numbers []string `json:",omitempty"`
}

// Choose finds the readers of an order, sorted by number, and refuses it as a whole
// where one of them cannot be on the ticket.
func (s *Stage) Choose(ctx context.Context, o TicketOrder) ([]string, error) {
	if s.Signer == nil {
		return nil, &Refusal{"no-centre", "this node signs no tickets", "make tickets at the centre's node"}
	}
	if len(o.City) != 6 || !validNumber(o.City) {
		return nil, &Refusal{"ticket-order", fmt.Sprintf("city %q is not six digits", o.City), "name the city that the ticket is for"}
	}
	now := s.Now()
	if !o.Expires.After(now) || o.Expires.After(now.AddDate(2, 0, 0)) {
		return nil, &Refusal{"ticket-order", "the ticket expires at " + o.Expires.UTC().Format(time.RFC3339), "let it expire after now and within two years"}
	}
	numbers := slices.Compact(slices.Sorted(slices.Values(o.Numbers)))
	if len(numbers) < len(o.Numbers) {
		return nil, &Refusal{"ticket-order", "a reader is named twice", "name each reader once"}
	}
	var err error
	if len(numbers) == 0 {
		numbers, err = s.prepared(ctx, o)
	} else {
		err = s.ready(ctx, numbers)
	}
	switch {
	case err != nil:
		return nil, err
	case len(numbers) == 0:
		return nil, &Refusal{"ticket-order", "no prepared reader fits", "import a manifest first, or ask for another model or batch"}
	case len(numbers) > verify.MaxTicketReaders:
		return nil, &Refusal{"ticket-order", fmt.Sprintf("%d readers are more than a ticket holds", len(numbers)), fmt.Sprintf("make several tickets of at most %d", verify.MaxTicketReaders)}
	case uint64(o.Quota) > uint64(len(numbers)):
		return nil, &Refusal{"ticket-order", fmt.Sprintf("the quota %d is larger than the %d readers", o.Quota, len(numbers)), "give a quota up to their number"}
	}
	return numbers, nil
}

// prepared finds readers that may go on a ticket.
func (s *Stage) prepared(ctx context.Context, o TicketOrder) ([]string, error) {
	q := readers.Query{State: readers.Prepared, Model: o.Select.Model, Firmware: o.Select.Firmware, Batch: o.Select.Batch, Number: o.Select.Number, Limit: chunk}
	most := verify.MaxTicketReaders + 1 // one more than may be, so that it shows
	if o.Count > 0 {
		most = o.Count
	}
	var numbers []string
	for {
		page, next, err := s.Register.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, rd := range page {
			if len(numbers) < most && !rd.Device.IsZero() {
				numbers = append(numbers, rd.Number)
			}
		}
		if next == nil || len(numbers) >= most {
			break
		}
		q.After = next
	}
	if len(numbers) < o.Count {
		return nil, &Refusal{"ticket-order", fmt.Sprintf("only %d of %d readers are prepared and fit", len(numbers), o.Count), "ask for fewer, or import more"}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// ready refuses named readers that may not go on a ticket, all of them at once.
func (s *Stage) ready(ctx context.Context, numbers []string) error {
	faults := 0
	var first error
	for len(numbers) > 0 {
		some := numbers[:min(len(numbers), chunk)]
		numbers = numbers[len(some):]
		err := s.Book.View(ctx, func(tx *store.Tx) error {
			for _, n := range some {
				rd, err := s.Register.Find(tx, n)
				var fault error
				switch {
				case isNotFound(err):
					fault = &Refusal{"ticket-order", fmt.Sprintf("reader %q is not registered", n), "import its manifest first"}
				case err != nil:
					return err
				case rd.State != readers.Prepared || rd.Device.IsZero():
					fault = &readers.StateError{Number: n, State: rd.State, Want: "allot"}
				}
				if fault != nil {
					if faults++; first == nil {
						first = fault
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if faults > 1 {
		return &Refusal{"ticket-order", fmt.Sprintf("%d readers cannot be on a ticket; the first: %v", faults, first), "see each of them: hufu reader show; no reader was allotted"}
	}
	return first
}

// Begin records a ticket for the readers that Choose found, and returns the
// arguments of the job of kind JobTicket that makes it. The caller starts that in
// the same transaction, and tells the ticket with Started.
func (s *Stage) Begin(tx *store.Tx, o TicketOrder, numbers []string, actor string) (*Ticket, TicketArgs, error) {
	t := &Ticket{ID: newID(), City: o.City, State: TicketMaking, Issued: tx.Now().UTC().Truncate(time.Second), Expires: o.Expires.UTC().Truncate(time.Second), Quota: o.Quota, Actor: actor}
	if t.Quota == 0 {
		t.Quota = uint32(len(numbers))
	}
	t.event(tx, KindTicketBegun, actor)
	return t, TicketArgs{t.ID, numbers}, tickets.Insert(tx, t)
}

// Started notes the job that works at a ticket.
func (s *Stage) Started(tx *store.Tx, t *Ticket, job string) error {
	t.Job = job
	return tickets.Put(tx, t)
}

func (t *Ticket) event(tx *store.Tx, kind, actor string) {
	detail := fmt.Sprintf(`{"ticket":%q,"city":%q,"quota":%d`, t.ID, t.City, t.Quota)
	if t.Size > 0 {
		detail += fmt.Sprintf(`,"readers":%d,"sha256":%q`, t.Readers, t.Sum)
	}
	t.Seq = tx.Append(store.Event{Kind: kind, Actor: actor, Detail: detail + "}"})
}

// makeTicket is the job: it allots the readers, a chunk at a time, and then signs
// what was allotted.
func (s *Stage) makeTicket(ctx context.Context, r *jobs.Run) error {
	var args TicketArgs
	if err := json.Unmarshal(r.Args, &args); err != nil {
		return fmt.Errorf("reading the ticket: %w", err)
	}
	from, err := cursorOf(r, len(args.Numbers))
	if err != nil {
		return err
	}
	if done, err := s.isOpen(ctx, args.Ticket); done || err != nil {
		return err
	}
	if err := r.Progress(ctx, int64(from), int64(len(args.Numbers))); err != nil {
		return err
	}
	for from < len(args.Numbers) {
		some := args.Numbers[from:min(from+chunk, len(args.Numbers))]
		err := r.SaveWith(ctx, from+len(some), func(tx *store.Tx) ([]jobs.Item, error) {
			t, err := FindTicket(tx, args.Ticket)
			if err != nil || t.State != TicketMaking {
				return nil, errors.Join(err, t.notMaking())
			}
			return each(some, func(number string) error {
				_, err := s.Register.Allot(tx, number, t.City, t.ID, r.Actor)
				return err
			})
		})
		if err != nil {
			return err
		}
		from += len(some)
	}
	return s.signTicket(ctx, r, args.Ticket, from)
}

// isOpen tells whether a job that was killed had come to its end.
func (s *Stage) isOpen(ctx context.Context, id string) (bool, error) {
	t, err := s.Ticket(ctx, id)
	return err == nil && t.State == TicketOpen, err
}

func (t *Ticket) notMaking() error {
	if t == nil || t.State == TicketMaking {
		return nil
	}
	return &Refusal{"ticket-state", fmt.Sprintf("ticket %s is %s by now", t.ID, t.State), "make another one"}
}

// cursorOf is where a job goes on, and tells how far it is.
func cursorOf(r *jobs.Run, total int) (from int, err error) {
	if len(r.Cursor) > 0 {
		if err := json.Unmarshal(r.Cursor, &from); err != nil {
			return 0, fmt.Errorf("reading where the job stopped: %w", err)
		}
	}
	if from < 0 || from > total {
		return 0, fmt.Errorf("the job goes on from %d of %d", from, total)
	}
	return from, nil
}

// each does one thing to each reader of a chunk; what one of them refuses does not
// stop the others.
func each(numbers []string, f func(number string) error) ([]jobs.Item, error) {
	items := make([]jobs.Item, len(numbers))
	for i, n := range numbers {
		items[i] = jobs.Item{Name: n, OK: true}
		if err := f(n); err != nil {
			if !ordinary(err) {
				return nil, err
			}
			items[i].OK, items[i].Error = false, err.Error()
		}
	}
	return items, nil
}

// signTicket signs what was allotted. Killed anywhere, it does it again.
func (s *Stage) signTicket(ctx context.Context, r *jobs.Run, id string, cursor int) error {
	t, err := s.Ticket(ctx, id)
	if err != nil || t.State != TicketMaking {
		return errors.Join(err, t.notMaking())
	}
	list, err := s.allotted(ctx, id)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		t.State = TicketFailed
		err := r.SaveWith(ctx, cursor, func(tx *store.Tx) ([]jobs.Item, error) { return nil, tickets.Put(tx, t) })
		return errors.Join(err, &Refusal{"ticket-order", "none of the readers could be allotted", "see why: hufu job show " + r.ID + " --failed"})
	}
	t.Readers, t.Quota = uint32(len(list)), min(t.Quota, uint32(len(list)))
	content, err := (&verify.Ticket{ID: t.ID, City: t.City, Issued: t.Issued, Expires: t.Expires, Quota: t.Quota, Readers: list}).Marshal()
	if err != nil {
		return err
	}
	signer, err := s.Signer(ctx)
	if err != nil {
		return err
	}
	der, err := cms.Sign(oid.ContentTicket, content, signer.Certificate, signer.Chain, signer.Key, t.Issued)
	if err != nil {
		return fmt.Errorf("signing ticket %s: %w", id, err)
	}
	return r.SaveWith(ctx, cursor, func(tx *store.Tx) ([]jobs.Item, error) {
		now, err := FindTicket(tx, id)
		if err != nil || now.State != TicketMaking {
			return nil, errors.Join(err, now.notMaking())
		}
		t.State = TicketOpen
		if err := t.keep(tx, der); err != nil {
			return nil, err
		}
		t.event(tx, KindTicketSigned, r.Actor)
		return nil, tickets.Put(tx, t)
	})
}

// allotted is the list of a ticket by number, as the register has it.
func (s *Stage) allotted(ctx context.Context, id string) ([]verify.TicketReader, error) {
	var list []verify.TicketReader
	q := readers.Query{Ticket: id, Limit: chunk}
	for {
		page, next, err := s.Register.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, rd := range page {
			list = append(list, verify.TicketReader{Number: rd.Number, Device: rd.Device, Model: rd.Model})
		}
		if next == nil {
			return list, nil
		}
		q.After = next
	}
}

// Revoke ends a ticket: from now on no reader of it is initialised in this book. The
// caller starts a job of kind JobTicketRevoke in the same transaction, which takes
// the readers that are not initialised off it. A city that works offline with the
// file learns of it only from people.
func (s *Stage) Revoke(tx *store.Tx, id, actor, note string) (*Ticket, error) {
	t, err := FindTicket(tx, id)
	if err != nil {
		return nil, err
	}
	if t.State == TicketRevoked {
		return nil, &Refusal{"ticket-state", fmt.Sprintf("ticket %s was revoked on %s", id, day(t.Revoked)), "nothing needs to be done"}
	}
	if len(note) > maxNote {
		return nil, noteTooLong(note)
	}
	t.State, t.Revoked, t.Note = TicketRevoked, tx.Now().UTC(), note
	t.event(tx, KindTicketRevoked, actor)
	return t, tickets.Put(tx, t)
}

// withdrawTicket is the job that follows Revoke. A reader that is off the ticket is
// not found any more, so that it goes on by beginning anew.
func (s *Stage) withdrawTicket(ctx context.Context, r *jobs.Run) error {
	var args TicketArgs
	if err := json.Unmarshal(r.Args, &args); err != nil {
		return fmt.Errorf("reading the ticket: %w", err)
	}
	q := readers.Query{Ticket: args.Ticket, State: readers.Allotted, Limit: chunk}
	for {
		page, next, err := s.Register.List(ctx, q)
		if err != nil {
			return err
		}
		err = r.SaveWith(ctx, nil, func(tx *store.Tx) ([]jobs.Item, error) {
			numbers := make([]string, len(page))
			for i, rd := range page {
				numbers[i] = rd.Number
			}
			return each(numbers, func(number string) error {
				rd, err := s.Register.Find(tx, number)
				if err == nil && rd.Ticket == args.Ticket {
					_, err = s.Register.Withdraw(tx, number, r.Actor, "ticket revoked")
				}
				return err
			})
		})
		if err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		q.After = next
	}
}

// TakeIn records a ticket of the centre in a city's book; the caller starts a job of
// kind JobTicketImport in the same transaction, which takes its readers in. The
// ticket was verified by Judge.
func (s *Stage) TakeIn(tx *store.Tx, v *verify.Ticket, der []byte, offline bool, actor string) (*Ticket, error) {
	if known, err := tickets.Get(tx, store.Key(v.ID)); err == nil {
		return nil, &Refusal{"ticket-known", fmt.Sprintf("ticket %s is in this book already, and %s", v.ID, known.State), "use it; a city of the centre's book needs no import"}
	} else if !isNotFound(err) {
		return nil, err
	}
	t := &Ticket{ID: v.ID, City: v.City, State: TicketMaking, Issued: v.Issued, Expires: v.Expires, Quota: v.Quota, Readers: uint32(len(v.Readers)), Imported: true, Offline: offline, Actor: actor}
	if err := t.keep(tx, der); err != nil {
		return nil, err
	}
	t.event(tx, KindTicketImported, actor)
	return t, tickets.Put(tx, t)
}

// Judge verifies a ticket's file for a city of this node. offline says that nobody
// here can ask for the status of the centre's certificate.
func (s *Stage) Judge(ctx context.Context, der []byte, offline bool) (v *verify.Ticket, err error) {
	if offline {
		v, _, err = s.Verifier.TicketFile(der)
	} else {
		v, _, err = s.Verifier.Ticket(ctx, der)
	}
	if err != nil {
		return nil, err
	}
	for _, i := range s.Authority.Issuers {
		if i.CA().City == v.City {
			return v, nil
		}
	}
	return nil, &Refusal{"wrong-city", fmt.Sprintf("the ticket is for city %s, and this node holds no CA of it", v.City), "take it to the node of that city"}
}

// acceptTicket is the job that takes the readers of a ticket into a city's book.
func (s *Stage) acceptTicket(ctx context.Context, r *jobs.Run) error {
	var args TicketArgs
	if err := json.Unmarshal(r.Args, &args); err != nil {
		return fmt.Errorf("reading the ticket: %w", err)
	}
	var der []byte
	err := s.Book.View(ctx, func(tx *store.Tx) (err error) {
		der, err = file(tx, args.Ticket)
		return err
	})
	if err != nil {
		return err
	}
	v, err := verify.ReadTicket(der) // Judge verified it before it came into the book
	if err != nil {
		return err
	}
	from, err := cursorOf(r, len(v.Readers))
	if err != nil {
		return err
	}
	if done, err := s.isOpen(ctx, args.Ticket); done || err != nil {
		return err
	}
	if err := r.Progress(ctx, int64(from), int64(len(v.Readers))); err != nil {
		return err
	}
	for {
		some := v.Readers[from:min(from+chunk, len(v.Readers))]
		end := from+len(some) == len(v.Readers)
		err := r.SaveWith(ctx, from+len(some), func(tx *store.Tx) ([]jobs.Item, error) {
			t, err := FindTicket(tx, v.ID)
			if err != nil || t.State != TicketMaking {
				return nil, errors.Join(err, t.notMaking())
			}
			numbers, places := make([]string, len(some)), map[string]*verify.TicketReader{}
			for i := range some {
				numbers[i], places[some[i].Number] = some[i].Number, &some[i]
			}
			items, err := each(numbers, func(number string) error { return s.accept(tx, v, places[number], r.Actor) })
			if err == nil && end {
				t.State = TicketOpen
				err = tickets.Put(tx, t)
			}
			return items, err
		})
		if err != nil || end {
			return err
		}
		from += len(some)
	}
}

// accept takes one reader in. One that came by an earlier ticket, which was revoked,
// is known already.
func (s *Stage) accept(tx *store.Tx, v *verify.Ticket, on *verify.TicketReader, actor string) error {
	rd, err := s.Register.Find(tx, on.Number)
	switch {
	case err == nil && rd.State == readers.Prepared && rd.Device == store.Hash(on.Device):
		_, err = s.Register.Allot(tx, on.Number, v.City, v.ID, actor)
	case err == nil || isNotFound(err):
		_, err = s.Register.Accept(tx, readers.Reader{Number: on.Number, City: v.City, Ticket: v.ID, Device: on.Device, Model: on.Model}, actor)
	}
	return err
}
