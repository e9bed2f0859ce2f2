package stage2

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"hufu/internal/cms"
	"hufu/policy"
	"hufu/readers"
	"hufu/store"
	"hufu/verify"
)

// Bounds of sessions.
const (
	lifetime    = 10 * time.Minute
	maxSessions = 50_000
)

// Who makes the encryption key.
const (
	ByCentre = "centre"
	ByReader = "reader"
)

// Request asks for a session.
type Request struct {
	Number string
	City   string
	Ticket string // "": whichever names the reader
	Renew  bool   // a new pair for an active reader, instead of a first one
}

// Session is what a reader answers with its enrolment.
type Session struct {
	ID         string // 32 hexadecimal digits
	Challenge  []byte // 32 octets
	Number     string
	City       string
	Ticket     string // that names the reader, "" where none does
	Renew      bool
	Encryption string // ByCentre or ByReader
	Expires    time.Time
}

// open is a session on its way.
type open struct {
	Session
	owner [32]byte // fingerprint of who opened it

	mu        sync.Mutex // held while an enrolment is judged
	enrolment store.Hash // that was granted
	granted   *Grant
}

// sessions are the open ones, the newest of each reader: an older one ends, so that
// nobody gets a pair that a later session has replaced without knowing.
type sessions struct {
	mu       sync.Mutex
	byID     map[string]*open // guarded by mu
	byReader map[string]*open
	queue    []*open // in the order in which they end
}

func newSessions() *sessions {
	return &sessions{byID: map[string]*open{}, byReader: map[string]*open{}}
}

func (s *sessions) add(o *open, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && (!s.queue[0].Expires.After(now) || s.byID[s.queue[0].ID] == nil) {
		s.drop(s.queue[0])
		s.queue = s.queue[1:]
	}
	if len(s.queue) >= maxSessions {
		return &BusyError{len(s.queue)}
	}
	if last := s.byReader[o.Number]; last != nil {
		s.drop(last)
	}
	s.byID[o.ID], s.byReader[o.Number] = o, o
	s.queue = append(s.queue, o)
	return nil
}

// drop forgets a session; what is left of it in the queue goes with its time.
func (s *sessions) drop(o *open) {
	delete(s.byID, o.ID)
	if s.byReader[o.Number] == o {
		delete(s.byReader, o.Number)
	}
}

func (s *sessions) find(id string, now time.Time) *open {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.byID[id]; o != nil && o.Expires.After(now) {
		return o
	}
	return nil
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.byID[id]; o != nil {
		s.drop(o)
	}
}

// Open begins the exchange with a reader. It changes nothing but the memory of this
// node; a refusal is journalled.
func (s *Service) Open(ctx context.Context, caller policy.Caller, r Request) (*Session, error) {
	var rd *readers.Reader
	err := s.Book.View(ctx, func(tx *store.Tx) (err error) {
		rd, err = s.admit(tx, &r)
		return err
	})
	if err != nil {
		return nil, s.refused(ctx, caller.Name, r.Number, r.City, err)
	}
	now := s.Now()
	random := make([]byte, 16+32)
	rand.Read(random)
	o := &open{owner: caller.Fingerprint, Session: Session{
		ID: hex.EncodeToString(random[:16]), Challenge: random[16:], Number: r.Number, City: r.City, Ticket: rd.Ticket, Renew: r.Renew,
		Encryption: ByReader, Expires: now.Add(lifetime).UTC().Truncate(time.Second),
	}}
	if s.Escrow != nil {
		o.Encryption = ByCentre
	}
	if err := s.sessions.add(o, now); err != nil {
		return nil, err
	}
	given := o.Session
	return &given, nil
}

// admit tells whether a reader may get a pair now.
func (s *Service) admit(tx *store.Tx, r *Request) (*readers.Reader, error) {
	if !r.Renew {
		_, rd, err := s.Stage.Admit(tx, r.Number, r.City, r.Ticket)
		return rd, outcome(r.Number, err)
	}
	rd, err := s.Register.Find(tx, r.Number)
	switch {
	case isNotFound(err):
		return nil, &Refusal{NotOnTicket, r.Number, fmt.Sprintf("reader %q is not registered here", r.Number), "renew it at its city's node"}
	case err != nil:
		return nil, err
	case rd.City != r.City:
		return nil, &Refusal{WrongCity, r.Number, fmt.Sprintf("reader %s belongs to city %q, not to %s", r.Number, rd.City, r.City), "renew it at its city's node"}
	case rd.State != readers.Active:
		return nil, &readers.StateError{Number: r.Number, State: rd.State, Want: "begin to renew"}
	case rd.Elsewhere:
		return nil, &readers.PairError{Number: r.Number, Detail: "its pair is in the book of city " + rd.City, Remedy: "renew it at that city's node"}
	}
	return rd, nil
}

// session finds an open session of the caller's.
func (s *Service) session(caller policy.Caller, id string) (*open, error) {
	o := s.sessions.find(id, s.Now())
	switch {
	case o == nil:
		return nil, &SessionError{id, "is not open here: it ended, was finished, or the node was started since"}
	case o.owner != caller.Fingerprint:
		return nil, &SessionError{id, "was opened by somebody else"}
	}
	return o, nil
}

// City is the city of an open session.
func (s *Service) City(id string) (string, error) {
	o := s.sessions.find(id, s.Now())
	if o == nil {
		return "", &SessionError{id, "is not open here: it ended, was finished, or the node was started since"}
	}
	return o.City, nil
}

// ReceiptCity is the city that a receipt concerns: that of its session, or, where
// this node forgot that, the city of the reader that the receipt names. It judges
// nothing.
func (s *Service) ReceiptCity(ctx context.Context, id string, der []byte) (string, error) {
	if o := s.sessions.find(id, s.Now()); o != nil {
		return o.City, nil
	}
	m, err := cms.Parse(der, maxReceipt)
	if err != nil {
		return "", &verify.FormError{What: "the receipt", Err: err}
	}
	r, err := verify.ParseReceipt(m.Content)
	if err != nil {
		return "", err
	}
	rd, err := s.Register.Reader(ctx, r.Number)
	if isNotFound(err) {
		return "", &SessionError{id, "is not open here, and the reader of the receipt is not registered"}
	}
	if err != nil {
		return "", err
	}
	return rd.City, nil
}
