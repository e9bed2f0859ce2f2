// Package ldapsync carries the book into LDAP directories: one worker for each directory follows the journal, and every change of a
// certificate's status is there some milliseconds after it was committed.
package ldapsync

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"hufu/store"
)

var errNotBuilt = errors.New("not built")

// Directory is one LDAP server to publish to.
type Directory struct {
	Name     string        // what people call it; unique
	URL      string        // ldaps://host:port, or ldap://host:port with StartTLS
	StartTLS bool          // RFC 4511, Section 4.14
	Base     string        // the entry that everything is published below, such as "o=Hufu,c=CN"
	TLS      *tls.Config   // roots, and the client certificate for SASL EXTERNAL; without one, no bind is made
	InFlight int           // changes under way at once; 0 = 32
	Timeout  time.Duration // for each LDAP operation; 0 = 10 s
}

// Config is what a Publisher needs. Now and Log may be nil.
type Config struct {
	Book        *store.Book
	Directories []Directory
	Key         crypto.Signer // signs the statement in each watermark entry
	Node        string        // name of this node among those that share the book
	Lease       time.Duration // how long a silent worker of another node is waited for; 0 = 15 s
	Now         func() time.Time
	Log         *slog.Logger
}

// Publisher runs one worker for each directory.
type Publisher struct{}

// New checks the configuration. It connects to nothing.
func New(cfg Config) (*Publisher, error) { return nil, errNotBuilt }

// Run publishes until ctx ends. A directory that fails is tried again and delays no other.
func (p *Publisher) Run(ctx context.Context) error { return errNotBuilt }

// DirectoryStatus is what is known of one directory.
type DirectoryStatus struct {
	Name, URL  string
	State      string    // in words: "in step", "catching up", "unreachable", …
	Epoch      uint64    // of the statement in the directory
	Watermark  uint64    // every change up to here is in the directory
	Time       time.Time // of the statement
	Entries    int64     // entries that the statement covers
	Applied    uint64    // like Watermark, but as far as this worker knows right now
	From, Head uint64    // where this connection began, and the head of the book: progress is Applied-From of Head-From
	LagChanges uint64
	LagSeconds float64
	LastError  string
	ErrorTime  time.Time
	Repairs    int64 // entries that were not as they should have been and were put right
}

// Status says how far each directory is. It asks no directory.
func (p *Publisher) Status(ctx context.Context) []DirectoryStatus { return nil }

// Ahead is a directory that knows of changes that the book does not have.
type Ahead struct {
	Directory string
	Reason    string
}

// Ahead asks every directory that answers whether it is ahead of the book. A node calls it before it serves and refuses to start
// when the list is not empty.
func (p *Publisher) Ahead(ctx context.Context) []Ahead { return nil }

// Recalled is what a directory knows of a book.
type Recalled struct {
	Certificates []*store.Certificate
	Statuses     []*store.Status
}

// Recall reads the certificates and statuses of a book from a directory.
func Recall(ctx context.Context, d Directory, book *store.Book, key crypto.PublicKey) (*Recalled, error) {
	return nil, errNotBuilt
}
