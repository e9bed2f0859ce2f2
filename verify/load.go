package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// LoadRequest is what a reader signs to ask for a load.
type LoadRequest struct {
	Transaction    string // 32 hexadecimal digits, chosen by the reader at random
	CardCity       string
	ReaderCity     string
	Reader         string // the reader's DNS name
	Card           string // the card's application serial number
	Counter        uint32 // the card's online transaction counter; for a memory card the city's account sequence
	Random         []byte // the card's random of this load
	Amount         uint64 // fen
	Balance        uint64 // fen, before
	Type           byte   // transaction type: 02 loads an electronic purse
	KeyIndex       byte
	KeyVersion     byte
	Algorithm      byte
	MAC1           []byte // empty for a memory card
	Terminal       []byte // 6 octets
	Expiry         time.Time
	EncryptionHash [32]byte // SHA-256 of the reader's encryption certificate
}

// LoadPermission is what a city signs to allow a load.
type LoadPermission struct {
	Transaction string
	City        string // the card's
	Reader      string
	Expiry      time.Time
	RequestHash [32]byte // SHA-256 of the reader's whole signed message
	CommandHash [32]byte // SHA-256 of the command script
	Sealed      []byte   // SealedScript in AuthEnvelopedData for the reader's encryption certificate
}

// SealedScript is the plaintext inside a permission's envelope. It repeats whom it
// is for, so that no envelope can be put under another permission.
type SealedScript struct {
	Transaction   string
	City          string
	Reader        string
	Expiry        time.Time
	RequestHash   [32]byte
	CommandScript []byte
	DataScript    []byte
}

// Outcome is how a load ended.
type Outcome uint8

// The outcomes.
const (
	Credited    Outcome = 1 // the card was credited and gave a TAC
	NotCredited Outcome = 2 // the card refused, or was not asked
	Uncertain   Outcome = 3 // the card left the field before it answered
)

func (o Outcome) String() string {
	switch o {
	case Credited:
		return "credited"
	case NotCredited:
		return "not credited"
	case Uncertain:
		return "uncertain"
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// LoadResult is what a reader signs at the end.
type LoadResult struct {
	Transaction    string
	City           string // the card's
	Reader         string
	Card           string
	Counter        uint32 // before the load
	Outcome        Outcome
	TAC            []byte // of a credit
	Balance        uint64 // fen, after
	ScriptResult   []byte // what the command script returned, for the log
	PermissionHash [32]byte
}

// fields walks the content on the wire, in one direction or the other.
func (r *LoadRequest) fields(c *coder) {
	c.transaction(&r.Transaction)
	c.city("card's city", &r.CardCity)
	c.city("reader's city", &r.ReaderCity)
	c.reader(&r.Reader)
	c.card(&r.Card)
	number(c, "counter", &r.Counter, 0)
	c.octets("card's random", &r.Random, 4, 16)
	c.money("amount", &r.Amount, 1)
	c.money("balance", &r.Balance, 0)
	number(c, "type", &r.Type, 0)
	number(c, "key index", &r.KeyIndex, 0)
	number(c, "key version", &r.KeyVersion, 0)
	number(c, "algorithm", &r.Algorithm, 0)
	c.octets("MAC1", &r.MAC1, 0, 16)
	c.octets("terminal number", &r.Terminal, 6, 6)
	c.time("expiry", &r.Expiry)
	c.hash("hash of the encryption certificate", &r.EncryptionHash)
}

func (p *LoadPermission) fields(c *coder) {
	c.transaction(&p.Transaction)
	c.city("city", &p.City)
	c.reader(&p.Reader)
	c.time("expiry", &p.Expiry)
	c.hash("hash of the request", &p.RequestHash)
	c.hash("hash of the command script", &p.CommandHash)
	c.octets("envelope", &p.Sealed, 1, maxScript)
}

func (s *SealedScript) fields(c *coder) {
	c.transaction(&s.Transaction)
	c.city("city", &s.City)
	c.reader(&s.Reader)
	c.time("expiry", &s.Expiry)
	c.hash("hash of the request", &s.RequestHash)
	c.octets("command script", &s.CommandScript, 0, maxScript)
	c.octets("data script", &s.DataScript, 0, maxScript)
}

func (r *LoadResult) fields(c *coder) {
	c.transaction(&r.Transaction)
	c.city("city", &r.City)
	c.reader(&r.Reader)
	c.card(&r.Card)
	number(c, "counter", &r.Counter, 0)
	number(c, "outcome", &r.Outcome, Credited)
	c.octets("TAC", &r.TAC, 0, 16)
	c.money("balance", &r.Balance, 0)
	c.octets("script's result", &r.ScriptResult, 0, 4096)
	c.hash("hash of the permission", &r.PermissionHash)
	c.demand(r.Outcome <= Uncertain, "outcome")
	c.demand((r.Outcome == Credited) == (len(r.TAC) > 0), "TAC: a credit has one, and nothing else has")
}

// Marshal encodes the request as DER.
func (r *LoadRequest) Marshal() ([]byte, error) { return encode("the load request", r) }

// Marshal encodes the permission as DER.
func (p *LoadPermission) Marshal() ([]byte, error) { return encode("the load permission", p) }

// Marshal encodes the script as DER. Its errors hold nothing of the script.
func (s *SealedScript) Marshal() ([]byte, error) { return encode("the script", s) }

// Marshal encodes the result as DER.
func (r *LoadResult) Marshal() ([]byte, error) { return encode("the load result", r) }

// ParseLoadRequest reads what Marshal wrote, and nothing else.
func ParseLoadRequest(der []byte) (*LoadRequest, error) {
	return parse[LoadRequest]("the load request", der)
}

// ParseLoadPermission reads what Marshal wrote, and nothing else.
func ParseLoadPermission(der []byte) (*LoadPermission, error) {
	return parse[LoadPermission]("the load permission", der)
}

// ParseSealedScript reads what Marshal wrote, and nothing else. Its errors hold
// nothing of the script.
func ParseSealedScript(der []byte) (*SealedScript, error) {
	return parse[SealedScript]("the script", der)
}

// ParseLoadResult reads what Marshal wrote, and nothing else.
func ParseLoadResult(der []byte) (*LoadResult, error) {
	return parse[LoadResult]("the load result", der)
}

// Check compares the plaintext with the permission that carried it.
func (s *SealedScript) Check(p *LoadPermission) error {
	command := sha256.Sum256(s.CommandScript)
	return firstMismatch([]comparison{
		{"transaction of the script", p.Transaction, s.Transaction},
		{"city of the script", p.City, s.City},
		{"reader of the script", p.Reader, s.Reader},
		{"expiry of the script", stamp(p.Expiry), stamp(s.Expiry)},
		{"request that the script answers", hex.EncodeToString(p.RequestHash[:]), hex.EncodeToString(s.RequestHash[:])},
		{"command script", hex.EncodeToString(p.CommandHash[:]), hex.EncodeToString(command[:])},
	})
}

type comparison struct{ field, want, have string }

func firstMismatch(all []comparison) error {
	for _, c := range all {
		if c.want != c.have {
			return &MismatchError{Field: c.field, Want: c.want, Have: c.have}
		}
	}
	return nil
}
