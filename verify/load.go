package verify

import (
	"context"
	"time"
)

// LoadRequest is what a reader signs to ask for a load.
type LoadRequest struct {
	Transaction    string // 32 hex digits, chosen by the reader at random
	CardCity       string
	ReaderCity     string
	Reader         string // the reader's DNS name
	Card           string // the card's application serial number
	Counter        uint32 // the card's online transaction counter
	Random         []byte // the card's random of this load
	Amount         uint64 // fen
	Balance        uint64 // fen, before
	Type           byte   // transaction type, 02 for an electronic purse
	KeyIndex       byte
	KeyVersion     byte
	Algorithm      byte
	MAC1           []byte
	Terminal       []byte // 6 bytes
	Expiry         time.Time
	EncryptionHash [32]byte // SHA-256 of the reader's encryption certificate
}

// Marshal encodes the request as DER.
func (r *LoadRequest) Marshal() ([]byte, error) { return nil, errNotBuilt }

// ParseLoadRequest reads what Marshal wrote, and nothing else.
func ParseLoadRequest(der []byte) (*LoadRequest, error) { return nil, errNotBuilt }

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

// Marshal encodes the permission as DER.
func (p *LoadPermission) Marshal() ([]byte, error) { return nil, errNotBuilt }

// ParseLoadPermission reads what Marshal wrote, and nothing else.
func ParseLoadPermission(der []byte) (*LoadPermission, error) { return nil, errNotBuilt }

// SealedScript is the plaintext inside a permission's envelope.
type SealedScript struct {
	Transaction   string
	City          string
	Reader        string
	Expiry        time.Time
	RequestHash   [32]byte
	CommandScript []byte
	DataScript    []byte
}

// Marshal encodes the script as DER.
func (s *SealedScript) Marshal() ([]byte, error) { return nil, errNotBuilt }

// ParseSealedScript reads what Marshal wrote, and nothing else.
func ParseSealedScript(der []byte) (*SealedScript, error) { return nil, errNotBuilt }

// Check compares the plaintext with the permission that carried it.
func (s *SealedScript) Check(p *LoadPermission) error { return errNotBuilt }

// Outcome is how a load ended.
type Outcome uint8

// Outcomes.
const (
	Credited    Outcome = 1 // the card was credited and gave a TAC
	NotCredited Outcome = 2 // the card refused or was not asked
	Unknown     Outcome = 3 // the card left the field before it answered
)

// LoadResult is what a reader signs at the end.
type LoadResult struct {
	Transaction    string
	City           string // the card's
	Reader         string
	Card           string
	Counter        uint32 // before the load
	Outcome        Outcome
	TAC            []byte
	Balance        uint64 // fen, after
	ScriptResult   []byte // what the command script returned, for the log
	PermissionHash [32]byte
}

// Marshal encodes the result as DER.
func (r *LoadResult) Marshal() ([]byte, error) { return nil, errNotBuilt }

// ParseLoadResult reads what Marshal wrote, and nothing else.
func ParseLoadResult(der []byte) (*LoadResult, error) { return nil, errNotBuilt }

// Load is a verified load request.
type Load struct {
	*LoadRequest
	Message    *Message
	Encryption *Cert
	Evidence   Evidence // the older of the two certificates'
}

// LoadRequest verifies a reader's load request with both of its certificates.
func (v *Verifier) LoadRequest(ctx context.Context, der []byte) (*Load, error) {
	return nil, errNotBuilt
}

// LoadPermission verifies a city's permission for the request that the reader
// itself has sent.
func (v *Verifier) LoadPermission(ctx context.Context, der, request []byte) (*LoadPermission, *Message, error) {
	return nil, nil, errNotBuilt
}

// LoadResult verifies a reader's result.
func (v *Verifier) LoadResult(ctx context.Context, der []byte) (*LoadResult, *Message, error) {
	return nil, nil, errNotBuilt
}
