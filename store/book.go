package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Format is the number of the layout of a book that this package writes.
const Format = 1

// Config is what a book needs. Engine is required.
type Config struct {
	Engine Engine
	Now    func() time.Time // nil = time.Now
	Log    *slog.Logger     // nil = no log
	// Tables are the tables of other packages, so that Check goes through their rows as it does through those of this package.
	Tables []Checked
	// Backup opens the place for the backup that is written before a book of an older format is upgraded. Without it, such a book
	// is refused.
	Backup func(format int) (io.WriteCloser, error)
}

// FormatError says that a book has another format than this package writes.
type FormatError struct{ Book, Program int }

func (e *FormatError) Error() string {
	if e.Book > e.Program {
		return fmt.Sprintf("the book has format %d and this program knows no newer than %d: run the version that wrote it, or a later one", e.Book, e.Program)
	}
	return fmt.Sprintf("the book has format %d and this program works with %d: give it a place for a backup, and it upgrades the book", e.Book, e.Program)
}

// Book is a set of tables and one journal. It is safe for concurrent use.
type Book struct {
	engine Engine
	now    func() time.Time
	log    *slog.Logger
	tables []Checked
	id     string
	epoch  uint64
	epochs []Epoch

	mu    sync.Mutex
	queue []*writer // who waits for the next commit; guarded by mu
	busy  bool      // somebody leads; guarded by mu
}

// Epoch is a stretch of the book's life that began with its creation or with a restore.
type Epoch struct {
	Epoch uint64    `json:"epoch"`
	Size  int64     `json:"size"` // of the journal when it began
	Time  time.Time `json:"time"`
}

// identity is the record of what the book is. Only Create, Restore and an upgrade write it, and Restore writes it last: an engine without
// one holds no book.
type identity struct {
	Format int     `json:"format"`
	ID     string  `json:"id"`
	Epochs []Epoch `json:"epochs"` // the present one last
}

var bookKey = []byte{spaceBook, 'b', 'o', 'o', 'k'}

func (i *identity) epoch() uint64 { return i.Epochs[len(i.Epochs)-1].Epoch }

func decodeIdentity(raw []byte) (*identity, error) {
	i := new(identity)
	if err := json.Unmarshal(raw, i); err != nil {
		return nil, err
	}
	if id, err := hex.DecodeString(i.ID); err != nil || len(id) != 16 || len(i.Epochs) == 0 {
		return nil, errors.New("the identity of the book is incomplete")
	}
	return i, nil
}

func (i *identity) encode() []byte { return JSON[identity]().Append(nil, i) }

// Create begins a new book in an empty engine and opens it.
func Create(ctx context.Context, cfg Config) (*Book, error) {
	var id [16]byte
	rand.Read(id[:])
	i := &identity{Format: Format, ID: hex.EncodeToString(id[:]), Epochs: []Epoch{{Epoch: 1, Time: cfg.now().UTC()}}}
	err := cfg.found(ctx, i, &head{}, func(tx *Tx) error {
		for _, err := range tx.scan([]byte{0}, nil, false) {
			return errors.Join(err, fmt.Errorf("there is something in it already: choose another place: %w", ErrExists))
		}
		tx.Append(Event{Kind: KindBookCreated, Detail: detail(map[string]any{"book": i.ID, "format": Format})})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("creating book: %w", err)
	}
	return cfg.book(i), nil
}

// found makes a book of what is in the engine: in one transaction, f writes the first event of the identity's newest epoch, behind the
// journal that h ends.
func (cfg *Config) found(ctx context.Context, i *identity, h *head, f func(*Tx) error) error {
	return cfg.Engine.Update(ctx, func(s Snapshot) ([]Write, error) {
		g := &group{snap: s, now: cfg.now, head: *h}
		g.head.epoch, g.head.frontier = i.epoch(), slices.Clone(h.frontier)
		err := g.run(ctx, func(tx *Tx) error {
			if err := f(tx); err != nil {
				return err
			}
			return tx.set(bookKey, i.encode())
		})
		if err != nil {
			return nil, err
		}
		return g.finish(h)
	})
}

// Open opens the book in the engine. It reads no more than a few records, however large the book is.
func Open(ctx context.Context, cfg Config) (*Book, error) {
	b, err := openBook(ctx, cfg, upgrades)
	if err != nil {
		return nil, fmt.Errorf("opening book: %w", err)
	}
	return b, nil
}

func openBook(ctx context.Context, cfg Config, steps []upgrade) (*Book, error) {
	i, err := readIdentity(ctx, cfg.Engine)
	if err != nil {
		return nil, err
	}
	b := cfg.book(i)
	if err := b.upgrade(ctx, cfg, i, steps); err != nil {
		return nil, err
	}
	return b, b.View(ctx, func(tx *Tx) error { return tx.checkHead(b.epoch) })
}

// readIdentity reads what the book in the engine is.
func readIdentity(ctx context.Context, engine Engine) (i *identity, err error) {
	err = engine.View(ctx, func(s Snapshot) error {
		raw, err := s.Get(bookKey)
		if err != nil {
			return err
		}
		if raw == nil {
			if raw, err = s.Get(restoringKey); err == nil && raw != nil {
				return errors.New("a restore was cut short here: run it again, or begin a new book in another place")
			}
			return errors.Join(err, fmt.Errorf("there is no book here: create or restore one: %w", ErrNotFound))
		}
		if i, err = decodeIdentity(raw); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil
	})
	return i, err
}

// checkHead sees at once whether the journal ends where the head says.
func (tx *Tx) checkHead(epoch uint64) error {
	h, err := tx.head()
	if err != nil {
		return err
	}
	if h.epoch != epoch {
		return fmt.Errorf("%w: its head belongs to epoch %d, its identity to %d", ErrCorrupt, h.epoch, epoch)
	}
	for pair, err := range tx.scan([]byte{spaceEvents}, []byte{spaceEvents + 1}, true) {
		if err != nil {
			return err
		}
		if string(pair.Key) != string(eventKey(h.seq)) {
			return fmt.Errorf("%w: its head says that the journal ends at %d, but it ends at another event", ErrCorrupt, h.seq)
		}
		_, err = decodeEvent(h.seq, pair.Value)
		return err
	}
	if h.seq > 0 {
		return fmt.Errorf("%w: its head says that the journal has %d events, but it has none", ErrCorrupt, h.seq)
	}
	return nil
}

func (cfg *Config) now() time.Time {
	if cfg.Now == nil {
		return time.Now()
	}
	return cfg.Now()
}

func (cfg *Config) book(i *identity) *Book {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Book{engine: cfg.Engine, now: cfg.now, log: log, tables: cfg.Tables, id: i.ID, epoch: i.epoch(), epochs: i.Epochs}
}

// Close waits for the transactions that run and closes the engine.
func (b *Book) Close() error { return b.engine.Close() }

// ID returns the identity of the book, 32 hexadecimal digits.
func (b *Book) ID() string { return b.id }

// Epoch returns the number of the present stretch of the book's life: 1 at first, greater with every Restore.
func (b *Book) Epoch() uint64 { return b.epoch }

// Epochs returns all stretches of the book's life, the present one last.
func (b *Book) Epochs() []Epoch { return append([]Epoch(nil), b.epochs...) }

// View runs f on a snapshot of the book. It never waits for writers, nor they for it.
func (b *Book) View(ctx context.Context, f func(*Tx) error) error {
	return b.engine.View(ctx, func(s Snapshot) error {
		tx := &Tx{ctx: ctx, snap: s, now: b.now().UTC().Round(0)}
		defer tx.end()
		if err := f(tx); err != nil {
			return err
		}
		return tx.err
	})
}

// detail writes the Detail of an event.
func detail(fields map[string]any) string {
	return string(JSON[map[string]any]().Append(nil, &fields))
}
