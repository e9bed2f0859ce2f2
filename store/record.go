package store

import (
	"fmt"
	"time"
)

// CA is one generation of one working CA, or the root.
type CA struct {
	ID          string   // "root", "device", "330100", "services", "staff"; later generations "330100.2"
	Line        string   // what all generations share: "330100"
	Generation  int      // 1 for the first
	Kind        string   // "root", "device", "city", "services", "staff"
	City        string   // set for Kind "city"
	Suite       string   // "intl"
	Certificate []byte   // DER
	Chain       [][]byte // issuers upward, root last
	SPKI        Hash
	State       string // "active", "retiring", "retired"
	KeyURI      string // RFC 7512 URI of the key; "" when this book does not hold it
	Seq         uint64 // the event that last changed this record
}

// Certificate is a certificate that was issued. It never changes after commit.
type Certificate struct {
	CA        string
	Serial    Serial
	DER       []byte
	Profile   string
	Subject   string
	Line      string // the line of renewals that this certificate belongs to
	Reader    string
	City      string
	Requester string
	Names     []string // dNSNames
	SPKI      Hash
	NotBefore time.Time
	NotAfter  time.Time
	Shard     uint16 // the CA's list that its distribution point names, fixed at issuance; 0 = that of the whole CA
	Seq       uint64 // the event that issued it
}

// State says whether a certificate may be relied on.
type State uint8

// The states of a certificate. RFC 5280, Section 5.3.1: only a hold can be lifted.
const (
	Good State = iota + 1
	Held
	Revoked
)

// String returns "good", "on-hold" or "revoked".
func (s State) String() string {
	switch s {
	case Good:
		return "good"
	case Held:
		return "on-hold"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Status is what may change about a serial number.
type Status struct {
	CA             string
	Serial         Serial
	State          State
	Reason         int       // CRLReason, RFC 5280, Section 5.3.1
	Time           time.Time // when State was reached
	InvalidityDate time.Time
	NotAfter       time.Time
	Unissued       bool   // the intent was closed without a certificate
	Shard          uint16 // of its certificate: which of the CA's lists names it
	Lifted         bool   // good again after a hold: delta CRLs take it off the list
	Seq            uint64 // the event that last changed this record
}

// Intent is the promise, written before any signature is made, that a certificate with this serial number may come to be.
type Intent struct {
	CA             string
	Serial         Serial
	TBSHash        Hash
	SPKI           Hash
	RequestHash    Hash
	Requester      string
	Profile        string
	IdempotencyKey string
	Line           string
	Node           string
	Shard          uint16
	Time           time.Time
	Seq            uint64 // the event that recorded it
}

// CRL describes a revocation list whose bytes lie in chunks: see PutCRL and OpenCRL.
type CRL struct {
	CA         string
	Shard      uint16 // 0 = the list of the whole CA
	Number     uint64
	Delta      bool
	Base       uint64 // the full CRL that a delta builds on
	ThisUpdate time.Time
	NextUpdate time.Time
	Size       int64
	Sum        Hash
	Entries    int
	AsOf       uint64 // the last event that the list takes into account; 0 = not known: it was made elsewhere
	Seq        uint64 // the event that published it
}

// Node is a process that serves this book, and how long it may be taken to be alive.
type Node struct {
	ID          string
	Lease       time.Time
	Incarnation uint64
	Version     string
}

// Event is one entry of the journal. It is never changed and never removed.
type Event struct {
	Seq    uint64
	Time   time.Time
	Kind   string
	CA     string
	Serial Serial
	Actor  string
	Detail string // short JSON or text
}

// Kinds of events. Other packages add their own.
const (
	KindBookCreated  = "book.created"
	KindBookRestored = "book.restored"
	KindBookUpgraded = "book.upgraded"
	KindCheckpoint   = "checkpoint"

	KindCAAdded   = "ca.added"
	KindCARetired = "ca.retired"

	KindIntent       = "intent"
	KindIssued       = "issued"
	KindIntentClosed = "intent.closed"
	KindHeld         = "held"
	KindResumed      = "resumed"
	KindRevoked      = "revoked"
	KindCRL          = "crl"

	KindRefused           = "refused"
	KindOfficerAdded      = "officer.added"
	KindOfficerRemoved    = "officer.removed"
	KindApprovalRequested = "approval.requested"
	KindApprovalGiven     = "approval.given"
	KindApprovalUsed      = "approval.used"

	KindReaderIssued    = "reader.issued"
	KindReaderSuspended = "reader.suspended"
	KindReaderResumed   = "reader.resumed"
	KindReaderRevoked   = "reader.revoked"

	KindReaderEntered     = "reader.entered"
	KindReaderPrepared    = "reader.prepared"
	KindReaderAllotted    = "reader.allotted"
	KindReaderWithdrawn   = "reader.withdrawn"
	KindReaderAccepted    = "reader.accepted"
	KindReaderInitialised = "reader.initialised"
	KindReaderActivated   = "reader.activated"
	KindReaderReported    = "reader.reported"
	KindReaderRenewing    = "reader.renewing"
	KindReaderRenewed     = "reader.renewed"
	KindReaderReplaced    = "reader.replaced"
	KindReaderSucceeded   = "reader.succeeded"
	KindReaderRetired     = "reader.retired"
	KindReaderBound       = "reader.bound"
	KindReaderAdopted     = "reader.adopted"

	KindTopUpAuthorised = "topup.authorised"
	KindTopUpConfirmed  = "topup.confirmed"
	KindTopUpSuperseded = "topup.superseded"
	KindAgreement       = "agreement"

	KindDirectoryAdded    = "directory.added"
	KindDirectoryRepaired = "directory.repaired"
)

// The tables that several floors read. Any other table is declared by the package that owns it.
var (
	// CAs has the primary key Key(ID).
	CAs = Table[CA]{Name: "ca", Key: func(c *CA) []byte { return Key(c.ID) }, Codec: caCodec}

	// An index that many rows share a key of goes on with Seq: new entries then lie side by side, and one page of the engine takes many.

	// Every key that begins with something random costs the engine a page or two for each certificate, and the more so the longer its row.
	// So there are few such keys, and certificates, whose rows are the longest, lie in the order in which they were issued.

	// Certificates has the primary key Key(Seq) and the indexes "serial" SerialKey(CA, Serial), "spki" Key(SPKI), "reader" Key(Reader), "ca" Key(CA, Seq),
	// "city" Key(City, Seq), "expiry" Key(NotAfter, Seq), "subject" Key(Subject) and "line" Key(Line); an empty field is not indexed, nor is a
	// line that is named by the certificate's own serial number: see OneOfLine.
	Certificates = Table[Certificate]{Name: "cert", Key: func(c *Certificate) []byte { return Key(c.Seq) }, Codec: certificateCodec,
		Indexes: []Index[Certificate]{
			{"serial", func(c *Certificate) [][]byte { return [][]byte{SerialKey(c.CA, c.Serial)} }},
			{"spki", func(c *Certificate) [][]byte { return [][]byte{Key(c.SPKI)} }},
			{"reader", func(c *Certificate) [][]byte { return unlessEmpty(c.Reader, c.Reader) }},
			{"ca", func(c *Certificate) [][]byte { return [][]byte{Key(c.CA, c.Seq)} }},
			{"city", func(c *Certificate) [][]byte { return unlessEmpty(c.City, c.City, c.Seq) }},
			{"expiry", func(c *Certificate) [][]byte { return [][]byte{Key(c.NotAfter, c.Seq)} }},
			{"subject", func(c *Certificate) [][]byte { return unlessEmpty(c.Subject, c.Subject) }},
			{"line", func(c *Certificate) [][]byte {
				if c.Line == c.Serial.String() {
					return nil
				}
				return unlessEmpty(c.Line, c.Line)
			}},
		}}

	// Statuses has the primary key SerialKey(CA, Serial) and the indexes "state" Key(State.String(), CA, Seq), "crl" Key(CA, Shard, Serial, …) for what
	// is held or revoked (see Listed), "lifted" Key(CA, Seq) for what was held and is good again, and "seq" Key(Seq).
	Statuses = Table[Status]{Name: "status", Key: func(s *Status) []byte { return SerialKey(s.CA, s.Serial) }, Codec: statusCodec,
		Indexes: []Index[Status]{
			{"state", func(s *Status) [][]byte { return [][]byte{Key(s.State.String(), s.CA, s.Seq)} }},
			{"crl", func(s *Status) [][]byte {
				if s.State == Good {
					return nil
				}
				return [][]byte{listedKey(s)}
			}},
			{"lifted", func(s *Status) [][]byte {
				if !s.Lifted {
					return nil
				}
				return [][]byte{Key(s.CA, s.Seq)}
			}},
			{"seq", func(s *Status) [][]byte { return [][]byte{Key(s.Seq)} }},
		}}

	// Intents has the primary key SerialKey(CA, Serial) and the indexes "node" Key(Node, Seq) and "spki" Key(SPKI).
	Intents = Table[Intent]{Name: "intent", Key: func(i *Intent) []byte { return SerialKey(i.CA, i.Serial) }, Codec: intentCodec,
		Indexes: []Index[Intent]{
			{"node", func(i *Intent) [][]byte { return [][]byte{Key(i.Node, i.Seq)} }},
			{"spki", func(i *Intent) [][]byte { return [][]byte{Key(i.SPKI)} }},
		}}

	// CRLs has the primary key Key(CA, Shard, Delta, Number), so that the last one below CRLKey is the newest: see LastCRL.
	CRLs = Table[CRL]{Name: "crl", Key: func(c *CRL) []byte { return Key(c.CA, c.Shard, c.Delta, c.Number) }, Codec: JSON[CRL]()}

	// Nodes has the primary key Key(ID).
	Nodes = Table[Node]{Name: "node", Key: func(n *Node) []byte { return Key(n.ID) }, Codec: JSON[Node]()}
)

// SerialKey is the key of what the book keeps under a serial number of a CA: it is Key(serial, ca), so that the serial number alone is a
// prefix of it.
func SerialKey(ca string, serial Serial) []byte { return Key(serial, ca) }

// FindCertificate returns the certificate of that CA and serial number. The error wraps ErrNotFound when the book has none.
func FindCertificate(tx *Tx, ca string, serial Serial) (*Certificate, error) {
	key := SerialKey(ca, serial)
	for c, err := range Certificates.Scan(tx, "serial", key) {
		return c, err
	}
	return nil, &RowError{Certificates.Name, key, ErrNotFound}
}

// OneOfLine returns a certificate of the line, the first if the book has it. All of a line have one profile and one subject. The error wraps
// ErrNotFound when there is none.
func OneOfLine(tx *Tx, line string) (*Certificate, error) {
	if serial, err := ParseSerial(line); err == nil {
		for c, err := range Certificates.Scan(tx, "serial", Key(serial)) {
			if err != nil || c.Line == line {
				return c, err
			}
		}
	}
	return Certificates.Last(tx, "line", Key(line))
}

// unlessEmpty is no key at all when field is empty, and Key(parts...) else.
func unlessEmpty(field string, parts ...any) [][]byte {
	if field == "" {
		return nil
	}
	return [][]byte{Key(parts...)}
}
