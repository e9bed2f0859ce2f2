package readers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hufu/ca"
	"hufu/store"
)

// What a mass change does.
const (
	MassSuspend = "suspend"
	MassResume  = "resume"
	MassRevoke  = "revoke"
)

// massSteps are the steps of a mass change. None of them is for a reader without
// a pair: those are handled with their ticket.
var massSteps = map[string]struct {
	Step
	from []State
}{
	MassSuspend: {suspend, []State{Active}},
	MassResume:  {resume, []State{Suspended}},
	MassRevoke:  {revoke, []State{Initialised, Active, Suspended}},
}

// Selection selects readers for a mass change by what does not change in their
// lives; at least one field is set.
type Selection struct {
	City     string `json:"city,omitempty"`
	Model    string `json:"model,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	Batch    string `json:"batch,omitempty"`
}

func (s Selection) query() Query {
	return Query{City: s.City, Model: s.Model, Firmware: s.Firmware, Batch: s.Batch}
}

// Plan is a mass change that was looked at and not done: of the readers as they
// were when the journal stood at Seq. It is a plain file; what it says is held
// against the book before anything is done.
type Plan struct {
	Hufu      string        `json:"hufu"` // "reader-mass"
	Book      string        `json:"book"`
	Epoch     uint64        `json:"epoch"`
	Seq       uint64        `json:"seq"`
	Time      time.Time     `json:"time"`
	Action    string        `json:"action"`
	Reason    int           `json:"reason,omitempty"` // of a revocation
	Note      string        `json:"note,omitempty"`
	Selection Selection     `json:"selection"`
	Count     int           `json:"count"`  // of the readers that will be changed
	SHA256    store.Hash    `json:"sha256"` // of their numbers, in order, each with a line feed
	Sample    []string      `json:"sample"`
	States    map[State]int `json:"states"` // of all that are selected
	Elsewhere int           `json:"elsewhere,omitempty"`
}

// planMark is what a plan file says of itself.
const planMark = "reader-mass"

// sampled is how many numbers a plan shows.
const sampled = 10

// PlanError says why a plan cannot be made or done.
type PlanError struct {
	Detail string
	Remedy string
}

func (e *PlanError) Error() string { return "the plan is refused: " + e.Detail + ": " + e.Remedy }

// Canonical is the plan as compact JSON: what an approval is given for.
func (p *Plan) Canonical() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic("readers: a plan cannot be written as JSON: " + err.Error()) // plain values only
	}
	return b
}

// Plan looks at what a mass change would do. It changes nothing.
func (r *Register) Plan(ctx context.Context, action string, s Selection, reason int, note string) (*Plan, error) {
	p := &Plan{Hufu: planMark, Book: r.Book.ID(), Epoch: r.Book.Epoch(), Action: action, Reason: reason, Note: note, Selection: s, Sample: []string{}, States: map[State]int{}}
	if err := p.checkWhat(); err != nil {
		return nil, err
	}
	var numbers []string
	err := r.Book.View(ctx, func(tx *store.Tx) (err error) {
		p.Seq, p.Time = tx.Head(), tx.Now().UTC().Truncate(time.Second)
		numbers, err = p.numbers(tx, func(rd *Reader) {
			p.States[rd.State]++
			if rd.Elsewhere {
				p.Elsewhere++
			}
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("planning to %s readers: %w", action, err)
	}
	p.Count, p.SHA256 = len(numbers), sumOf(numbers)
	p.Sample = append(p.Sample, numbers[:min(sampled, len(numbers))]...)
	return p, nil
}

// checkWhat refuses a plan whose words are wrong.
func (p *Plan) checkWhat() error {
	_, known := massSteps[p.Action]
	switch {
	case !known:
		return &PlanError{fmt.Sprintf("%q is nothing that is done to many readers", p.Action), "suspend, resume or revoke"}
	case p.Selection == Selection{}:
		return &PlanError{"it selects every reader", "name a city, a model, a firmware or a batch"}
	case p.Selection.Firmware != "" && p.Selection.Model == "":
		return &PlanError{"a firmware's number says nothing without the model", "name the model too"}
	case p.Reason != 0 && p.Action != MassRevoke:
		return &PlanError{"a reason is for a revocation", "leave it out, or say why in the note"}
	case p.Reason != 0 && !slices.Contains([]int{1, 2, 3, 4, 5, 9, 10}, p.Reason):
		return &PlanError{fmt.Sprintf("reason %d cannot be given for a revocation", p.Reason), "use 0, 1, 3, 4, 5 or 9 (RFC 5280, Section 5.3.1)"}
	case len(p.Note) > maxNote:
		return &PlanError{fmt.Sprintf("the note has %d octets", len(p.Note)), fmt.Sprintf("say it in %d", maxNote)}
	}
	return nil
}

// Judge holds a plan that came from outside against this book, as far as that
// takes no search: Planned does the rest.
func (r *Register) Judge(tx *store.Tx, p *Plan) error {
	switch {
	case p.Hufu != planMark:
		return &PlanError{"it is no plan of a mass change", "give the file that `hufu reader mass plan` wrote"}
	case p.Book != r.Book.ID():
		return &PlanError{"it was made for book " + p.Book + ", and this is " + r.Book.ID(), "make a plan at this node"}
	case p.Epoch != r.Book.Epoch():
		return &PlanError{"the book was restored since it was made", "make a new plan"}
	case p.Seq == 0 || p.Seq > tx.Head():
		return &PlanError{fmt.Sprintf("it is of event %d, which the book does not have", p.Seq), "make a new plan"}
	case p.Count == 0:
		return &PlanError{"there is no reader that it changes", "look at what it selects: hufu reader list"}
	}
	return p.checkWhat()
}

// Planned returns the numbers of the readers that a plan is about, in order: those
// that the book had, in the states that the action is for, when the plan was made.
// A plan that says something else than the book is a *PlanError.
func (r *Register) Planned(ctx context.Context, p *Plan) (numbers []string, err error) {
	err = r.Book.View(ctx, func(tx *store.Tx) error {
		if err := r.Judge(tx, p); err != nil {
			return err
		}
		numbers, err = p.numbers(tx, func(*Reader) {})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the readers of a plan: %w", err)
	}
	if len(numbers) != p.Count || sumOf(numbers) != p.SHA256 {
		return nil, &PlanError{fmt.Sprintf("it is of %d readers, and the book had %d such, or others", p.Count, len(numbers)), "make a new plan; nothing was done"}
	}
	return numbers, nil
}

// numbers finds the readers that the plan changes, in order of their numbers.
// Whatever became of them since, their states at the plan's event count.
func (p *Plan) numbers(tx *store.Tx, each func(*Reader)) (numbers []string, err error) {
	q := p.Selection.query()
	lead := q.lead()
	from := massSteps[p.Action].from
	for rd, err := range register.Scan(tx, lead.Index, lead.Prefix) {
		if err != nil {
			return nil, err
		}
		if !q.holds(rd) {
			continue
		}
		each(rd)
		if !rd.Elsewhere && slices.Contains(from, rd.stateAt(p.Seq)) {
			numbers = append(numbers, rd.Number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// stateAt is the state that the reader had at an event of the journal: "" before
// it was registered.
func (rd *Reader) stateAt(seq uint64) State {
	for i := range rd.History {
		if rd.History[i].Seq > seq {
			return rd.History[i].From
		}
	}
	return rd.State
}

func sumOf(numbers []string) store.Hash {
	var b strings.Builder
	for _, n := range numbers {
		b.WriteString(n)
		b.WriteByte('\n')
	}
	return store.Sum([]byte(b.String()))
}

// MassResult is what became of one reader of a mass change.
type MassResult struct {
	Number string
	State  State // that it has now
	Err    error // why it was left alone: a *ChangedError, or what refused it
}

// ChangedError says that a reader changed its state after a plan was made.
type ChangedError struct {
	Number string
	Last   Change
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("reader %s was left alone: since the plan was made it became %s (event %d, %s by %s)", e.Number, e.Last.To, e.Last.Seq, e.Last.Step, e.Last.Actor)
}

// massChunk is how many readers of a mass change share one commit.
const massChunk = 100

// Mass does a plan, from its reader at place from on. commit runs one chunk in one
// transaction with whatever remembers next, the place to go on from, so that a
// kill leaves both or neither; work may be run more than once. A reader that
// changed its state since the plan was made is left alone and named.
func (r *Register) Mass(ctx context.Context, p *Plan, numbers []string, from int, actor string, commit func(next int, work func(*store.Tx) ([]MassResult, error)) error) error {
	if from < 0 || from > len(numbers) {
		return fmt.Errorf("a mass change goes on from reader %d of %d", from, len(numbers))
	}
	for from < len(numbers) {
		chunk := numbers[from:min(from+massChunk, len(numbers))]
		refused := map[string]error{}
		for {
			var failed string
			var cause error
			err := commit(from+len(chunk), func(tx *store.Tx) ([]MassResult, error) {
				failed, cause = "", nil
				results := make([]MassResult, len(chunk))
				for i, number := range chunk {
					results[i] = MassResult{Number: number, Err: refused[number]}
					if results[i].Err != nil {
						continue
					}
					var err error
					if results[i], err = r.massOne(tx, p, number, actor); err != nil {
						failed, cause = number, err
						return nil, err
					}
				}
				return results, nil
			})
			if err == nil {
				break
			}
			// One reader that cannot be changed does not keep the others of its
			// chunk from it: they are done again without it.
			if failed == "" || !ofReader(cause) {
				return fmt.Errorf("changing readers %d to %d of a plan: %w", from+1, from+len(chunk), err)
			}
			refused[failed] = cause
		}
		from += len(chunk)
	}
	return nil
}

// ofReader tells whether an error is about one reader, not about the book.
func ofReader(err error) bool {
	var (
		state  *StateError
		pair   *PairError
		status *ca.StateError
	)
	return errors.As(err, &state) || errors.As(err, &pair) || errors.As(err, &status)
}

// massOne changes one reader, unless it has changed its state since the plan.
func (r *Register) massOne(tx *store.Tx, p *Plan, number, actor string) (MassResult, error) {
	rd, err := r.Find(tx, number)
	if err != nil {
		return MassResult{}, err
	}
	for i := len(rd.History) - 1; i >= 0 && rd.History[i].Seq > p.Seq; i-- {
		if h := rd.History[i]; h.From != h.To {
			return MassResult{number, rd.State, &ChangedError{number, h}}, nil
		}
	}
	switch p.Action {
	case MassSuspend:
		rd, err = r.Suspend(tx, number, actor, p.Note)
	case MassResume:
		rd, err = r.Resume(tx, number, actor, p.Note)
	default:
		rd, err = r.Revoke(tx, number, p.Reason, time.Time{}, actor, p.Note)
	}
	if err != nil {
		return MassResult{}, err
	}
	return MassResult{number, rd.State, nil}, nil
}
