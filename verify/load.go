package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"
)

// loadVersion is the version that every content begins with.
const loadVersion = 1

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

// The contents on the wire, each a SEQUENCE. Integers that are not negative fit
// into 63 bits.
type (
	wireRequest struct {
		Version        int
		Transaction    []byte
		CardCity       string `asn1:"utf8"`
		ReaderCity     string `asn1:"utf8"`
		Reader         string `asn1:"utf8"`
		Card           string `asn1:"utf8"`
		Counter        int64
		Random         []byte
		Amount         int64
		Balance        int64
		Type           int
		KeyIndex       int
		KeyVersion     int
		Algorithm      int
		MAC1           []byte
		Terminal       []byte
		Expiry         time.Time `asn1:"generalized"`
		EncryptionHash []byte
	}
	wirePermission struct {
		Version     int
		Transaction []byte
		City        string    `asn1:"utf8"`
		Reader      string    `asn1:"utf8"`
		Expiry      time.Time `asn1:"generalized"`
		RequestHash []byte
		CommandHash []byte
		Sealed      []byte
	}
	wireScript struct {
		Version       int
		Transaction   []byte
		City          string    `asn1:"utf8"`
		Reader        string    `asn1:"utf8"`
		Expiry        time.Time `asn1:"generalized"`
		RequestHash   []byte
		CommandScript []byte
		DataScript    []byte
	}
	wireResult struct {
		Version        int
		Transaction    []byte
		City           string `asn1:"utf8"`
		Reader         string `asn1:"utf8"`
		Card           string `asn1:"utf8"`
		Counter        int64
		Outcome        asn1.Enumerated
		TAC            []byte
		Balance        int64
		ScriptResult   []byte
		PermissionHash []byte
	}
)

// Marshal encodes the request as DER.
func (r *LoadRequest) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("encoding the load request: %w", err)
	}
	transaction, _ := hex.DecodeString(r.Transaction)
	return asn1.Marshal(wireRequest{
		loadVersion, transaction, r.CardCity, r.ReaderCity, r.Reader, r.Card, int64(r.Counter), r.Random, int64(r.Amount), int64(r.Balance),
		int(r.Type), int(r.KeyIndex), int(r.KeyVersion), int(r.Algorithm), r.MAC1, r.Terminal, second(r.Expiry), r.EncryptionHash[:],
	})
}

// ParseLoadRequest reads what Marshal wrote, and nothing else.
func ParseLoadRequest(der []byte) (*LoadRequest, error) {
	const what = "the load request"
	var w wireRequest
	r, err := read(what, der, &w, func() *LoadRequest {
		return &LoadRequest{
			Transaction: hex.EncodeToString(w.Transaction), CardCity: w.CardCity, ReaderCity: w.ReaderCity, Reader: w.Reader, Card: w.Card,
			Counter: uint32(w.Counter), Random: w.Random, Amount: uint64(w.Amount), Balance: uint64(w.Balance), Type: byte(w.Type),
			KeyIndex: byte(w.KeyIndex), KeyVersion: byte(w.KeyVersion), Algorithm: byte(w.Algorithm), MAC1: w.MAC1, Terminal: w.Terminal,
			Expiry: w.Expiry.UTC(), EncryptionHash: hash(w.EncryptionHash),
		}
	})
	return r, err
}

func (r *LoadRequest) check() error {
	return errors.Join(
		checkNames(r.Transaction, r.Reader, r.CardCity, r.ReaderCity), checkCard(r.Card), checkExpiry(r.Expiry),
		bounded("the card's random", len(r.Random), 4, 16), bounded("MAC1", len(r.MAC1), 0, 16), bounded("the terminal number", len(r.Terminal), 6, 6),
		checkMoney(r.Amount, 1), checkMoney(r.Balance, 0),
	)
}

// Marshal encodes the permission as DER.
func (p *LoadPermission) Marshal() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("encoding the load permission: %w", err)
	}
	transaction, _ := hex.DecodeString(p.Transaction)
	return asn1.Marshal(wirePermission{
		loadVersion, transaction, p.City, p.Reader, second(p.Expiry), p.RequestHash[:], p.CommandHash[:], p.Sealed,
	})
}

// ParseLoadPermission reads what Marshal wrote, and nothing else.
func ParseLoadPermission(der []byte) (*LoadPermission, error) {
	var w wirePermission
	return read("the load permission", der, &w, func() *LoadPermission {
		return &LoadPermission{
			Transaction: hex.EncodeToString(w.Transaction), City: w.City, Reader: w.Reader, Expiry: w.Expiry.UTC(),
			RequestHash: hash(w.RequestHash), CommandHash: hash(w.CommandHash), Sealed: w.Sealed,
		}
	})
}

func (p *LoadPermission) check() error {
	return errors.Join(checkNames(p.Transaction, p.Reader, p.City), checkExpiry(p.Expiry), bounded("the envelope", len(p.Sealed), 1, math.MaxInt32))
}

// Marshal encodes the script as DER.
func (s *SealedScript) Marshal() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("encoding the script: %w", err)
	}
	transaction, _ := hex.DecodeString(s.Transaction)
	return asn1.Marshal(wireScript{
		loadVersion, transaction, s.City, s.Reader, second(s.Expiry), s.RequestHash[:], s.CommandScript, s.DataScript,
	})
}

// ParseSealedScript reads what Marshal wrote, and nothing else. Its errors do not
// hold anything of the script.
func ParseSealedScript(der []byte) (*SealedScript, error) {
	var w wireScript
	return read("the script", der, &w, func() *SealedScript {
		return &SealedScript{
			Transaction: hex.EncodeToString(w.Transaction), City: w.City, Reader: w.Reader, Expiry: w.Expiry.UTC(),
			RequestHash: hash(w.RequestHash), CommandScript: w.CommandScript, DataScript: w.DataScript,
		}
	})
}

func (s *SealedScript) check() error {
	return errors.Join(checkNames(s.Transaction, s.Reader, s.City), checkExpiry(s.Expiry))
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

// Marshal encodes the result as DER.
func (r *LoadResult) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("encoding the load result: %w", err)
	}
	transaction, _ := hex.DecodeString(r.Transaction)
	return asn1.Marshal(wireResult{
		loadVersion, transaction, r.City, r.Reader, r.Card, int64(r.Counter), asn1.Enumerated(r.Outcome), r.TAC, int64(r.Balance),
		r.ScriptResult, r.PermissionHash[:],
	})
}

// ParseLoadResult reads what Marshal wrote, and nothing else.
func ParseLoadResult(der []byte) (*LoadResult, error) {
	var w wireResult
	return read("the load result", der, &w, func() *LoadResult {
		return &LoadResult{
			Transaction: hex.EncodeToString(w.Transaction), City: w.City, Reader: w.Reader, Card: w.Card, Counter: uint32(w.Counter),
			Outcome: Outcome(w.Outcome), TAC: w.TAC, Balance: uint64(w.Balance), ScriptResult: w.ScriptResult, PermissionHash: hash(w.PermissionHash),
		}
	})
}

func (r *LoadResult) check() error {
	errs := []error{
		checkNames(r.Transaction, r.Reader, r.City), checkCard(r.Card), checkMoney(r.Balance, 0),
		bounded("the TAC", len(r.TAC), 0, 16), bounded("the script's result", len(r.ScriptResult), 0, 4096),
	}
	if r.Outcome < Credited || r.Outcome > Uncertain {
		errs = append(errs, fmt.Errorf("%v is not one", r.Outcome))
	}
	if (r.Outcome == Credited) != (len(r.TAC) > 0) {
		errs = append(errs, errors.New("a credit has a TAC, and nothing else has"))
	}
	return errors.Join(errs...)
}

// read decodes a content, checks its fields, and encodes it again: it must come
// out octet for octet, so that a content has one spelling and no number was cut.
func read[T interface {
	Marshal() ([]byte, error)
}](what string, der []byte, wire any, make func() T) (T, error) {
	var none T
	if rest, err := asn1.Unmarshal(der, wire); err != nil || len(rest) > 0 {
		return none, &FormError{What: what, Err: errors.New("it is not the sequence that is expected")}
	}
	v := make()
	again, err := v.Marshal()
	if err != nil {
		return none, &FormError{What: what, Err: err}
	}
	if !bytes.Equal(again, der) {
		return none, &FormError{What: what, Err: errors.New("it is not written as Hufu writes it")}
	}
	return v, nil
}

// hash copies 32 octets; any other number of them is noticed by read.
func hash(b []byte) (h [32]byte) {
	copy(h[:], b)
	return h
}

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func checkNames(transaction, reader string, cities ...string) error {
	if b, err := hex.DecodeString(transaction); err != nil || len(b) != 16 || hex.EncodeToString(b) != transaction {
		return errors.New("a transaction has 32 lower-case hexadecimal digits")
	}
	for _, c := range cities {
		if !isCity(c) {
			return errors.New("a city has six digits")
		}
	}
	if len(reader) == 0 || len(reader) > 253 || !onlyOf(reader, "abcdefghijklmnopqrstuvwxyz0123456789-.") {
		return errors.New("a reader has a DNS name in lower case")
	}
	return nil
}

func checkCard(card string) error {
	if len(card) < 8 || len(card) > 32 || !onlyOf(card, "0123456789ABCDEF") {
		return errors.New("a card has 8 to 32 digits or capital letters A to F")
	}
	return nil
}

func checkMoney(fen, min uint64) error {
	if fen < min || fen > math.MaxUint32 {
		return fmt.Errorf("an amount lies between %d and %d fen", min, uint32(math.MaxUint32))
	}
	return nil
}

func checkExpiry(t time.Time) error {
	if y := t.UTC().Year(); y < 2000 || y > 9999 {
		return errors.New("the expiry is not a date")
	}
	return nil
}

func bounded(what string, n, min, max int) error {
	if n < min || n > max {
		return fmt.Errorf("%s has %d octets, not %d to %d", what, n, min, max)
	}
	return nil
}

func onlyOf(s, chars string) bool {
	for _, r := range s {
		if !bytes.ContainsRune([]byte(chars), r) {
			return false
		}
	}
	return true
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
