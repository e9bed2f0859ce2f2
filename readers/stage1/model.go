package stage1

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"hufu/store"
)

// Model is a sort of reader that was tested and approved.
type Model struct {
	Name      string
	Maker     string
	Approval  string    // the number of the approval
	Tested    time.Time `json:",omitzero"`
	Until     time.Time // the approval lapses then
	Firmware  []string  `json:",omitempty"` // those that were tested; none = any
	Withdrawn time.Time `json:",omitzero"`
	Note      string    `json:",omitempty"` // of the withdrawal
	Actor     string
	Seq       uint64
}

// State is approved, lapsed or withdrawn.
func (m *Model) State(now time.Time) string {
	switch {
	case !m.Withdrawn.IsZero():
		return "withdrawn"
	case !now.Before(m.Until):
		return "lapsed"
	}
	return "approved"
}

var models = store.Table[Model]{
	Name:  "stage1.model",
	Key:   func(m *Model) []byte { return store.Key(m.Name) },
	Codec: store.JSON[Model](),
}

// Bounds of a model.
const (
	maxWord     = 64 // octets of a name; a ticket has no room for more
	maxFirmware = 64
)

// AddModel records a model, or a new approval of one that is known: a maker comes
// back with more firmware and a later end.
func (s *Stage) AddModel(tx *store.Tx, m Model, actor string) (*Model, error) {
	words := append([]string{m.Name, m.Maker, m.Approval}, m.Firmware...)
	for _, w := range words {
		if fault := wordFault(w); fault != "" {
			return nil, &Refusal{"model", fmt.Sprintf("model %q: %q %s", m.Name, w, fault), "give name, maker, approval and each firmware as 1 to 64 octets that can be printed"}
		}
	}
	switch {
	case strings.ContainsAny(m.Name, "/?#%"):
		return nil, &Refusal{"model", fmt.Sprintf("the name %q has one of / ? # %%", m.Name), "leave these out"}
	case len(m.Firmware) > maxFirmware:
		return nil, &Refusal{"model", fmt.Sprintf("model %s has %d versions of firmware", m.Name, len(m.Firmware)), fmt.Sprintf("name at most %d, or none for any", maxFirmware)}
	case !m.Until.After(s.Now()):
		return nil, &Refusal{"model", fmt.Sprintf("the approval of model %s lapsed on %s", m.Name, day(m.Until)), "give the end of an approval that holds"}
	}
	m.Firmware = slices.Compact(slices.Sorted(slices.Values(m.Firmware)))
	m.Tested, m.Until = m.Tested.UTC(), m.Until.UTC()
	m.Withdrawn, m.Note, m.Actor = time.Time{}, "", actor
	m.Seq = tx.Append(store.Event{Kind: KindModelAdded, Actor: actor, Detail: fmt.Sprintf(`{"model":%q,"approval":%q,"until":%q}`, m.Name, m.Approval, day(m.Until))})
	return &m, models.Put(tx, &m)
}

// WithdrawModel ends a model: no more readers of it come in. Those that are in stay.
func (s *Stage) WithdrawModel(tx *store.Tx, name, actor, note string) (*Model, error) {
	m, err := findModel(tx, name)
	if err != nil {
		return nil, err
	}
	if !m.Withdrawn.IsZero() {
		return nil, &Refusal{"model-withdrawn", fmt.Sprintf("model %s was withdrawn on %s", name, day(m.Withdrawn)), "nothing needs to be done"}
	}
	if len(note) > maxNote {
		return nil, noteTooLong(note)
	}
	m.Withdrawn, m.Note, m.Actor = tx.Now().UTC(), note, actor
	m.Seq = tx.Append(store.Event{Kind: KindModelWithdrawn, Actor: actor, Detail: fmt.Sprintf(`{"model":%q}`, name)})
	return m, models.Put(tx, m)
}

// Model returns one model.
func (s *Stage) Model(ctx context.Context, name string) (m *Model, err error) {
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		m, err = findModel(tx, name)
		return err
	})
	return m, err
}

func findModel(tx *store.Tx, name string) (*Model, error) {
	m, err := models.Get(tx, store.Key(name))
	if err != nil {
		return nil, fmt.Errorf("looking up model %q: %w", name, err)
	}
	return m, nil
}

// Models returns the models by name, page by page.
func (s *Stage) Models(ctx context.Context, after []byte, limit int) (list []*Model, next []byte, err error) {
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		list, next, err = models.Page(tx, store.Query{After: after, Limit: limit})
		return err
	})
	return list, next, err
}

// allModels is the list as a manifest is judged by it.
func allModels(tx *store.Tx) (map[string]*Model, error) {
	list := map[string]*Model{}
	for m, err := range models.Scan(tx, "", nil) {
		if err != nil {
			return nil, fmt.Errorf("reading the models: %w", err)
		}
		list[m.Name] = m
	}
	return list, nil
}

// maxNote is how many octets a note has at most.
const maxNote = 512

func noteTooLong(note string) error {
	return &Refusal{"note", fmt.Sprintf("the note has %d octets", len(note)), fmt.Sprintf("say it in %d", maxNote)}
}

// wordFault tells what is wrong with a word that people gave, "" where nothing is.
func wordFault(w string) string {
	switch {
	case w == "":
		return "is empty"
	case len(w) > maxWord:
		return fmt.Sprintf("has %d octets, more than %d", len(w), maxWord)
	case !utf8.ValidString(w) || strings.ContainsFunc(w, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "has a character that cannot be printed"
	case strings.TrimSpace(w) != w:
		return "begins or ends with a blank"
	}
	return ""
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
