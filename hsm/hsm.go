// Package hsm reaches keys that live in PKCS#11 tokens and shows them as the
// standard library's own interfaces: crypto.Signer, crypto.Decrypter and
// ecdh.KeyExchanger.
package hsm

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"io"
	"log/slog"
	"time"
)

var (
	ErrWrongPIN    = errors.New("the token refuses the PIN")
	ErrTokenGone   = errors.New("the token is not there")
	ErrKeyNotFound = errors.New("the token holds no such key")
	ErrKeyExists   = errors.New("the token holds a key with this label already")
)

var errNotBuilt = errors.New("not built yet")

// PINSource says where a PIN comes from; exactly one field is set.
type PINSource struct {
	File       string `yaml:"file,omitempty"`
	FD         int    `yaml:"fd,omitempty"`
	Credential string `yaml:"credential,omitempty"`
	Prompt     bool   `yaml:"prompt,omitempty"`

	// CredentialsDir is the value of $CREDENTIALS_DIRECTORY; the program passes it in.
	CredentialsDir string `yaml:"-"`
}

// Func returns the function that Config.PIN wants; name is shown in a prompt.
func (p PINSource) Func(name string) func() ([]byte, error) {
	return func() ([]byte, error) { return nil, errNotBuilt }
}

// Config says which token to open.
type Config struct {
	Module      string                 // path of the PKCS#11 library; "" takes module-path of the URI
	URI         string                 // RFC 7512; names the token by label and serial
	PIN         func() ([]byte, error) // asked at every login; the bytes are wiped afterwards; nil does not log in
	MaxSessions int                    // cap of the session pool; 0 is 16
	Patience    time.Duration          // how long an operation without an earlier deadline waits; 0 is 10 s
	Log         *slog.Logger           // nil is silent
}

// URI is a PKCS#11 URI, RFC 7512.
type URI struct {
	Token, Manufacturer, Serial, Model                      string
	LibraryManufacturer, LibraryDescription, LibraryVersion string
	SlotManufacturer, SlotDescription, SlotID               string
	Object, Type                                            string
	ID                                                      []byte
	PINSource, ModuleName, ModulePath                       string
}

func ParseURI(s string) (*URI, error) { return nil, errNotBuilt }
func (u *URI) String() string         { return "" }

// Token is an open, logged-in token.
type Token struct{}

// TokenInfo is what the token says of itself.
type TokenInfo struct {
	Label, Serial, Model, Manufacturer, Firmware string
	Mechanisms                                   []uint
}

func Open(ctx context.Context, cfg Config) (*Token, error) { return nil, errNotBuilt }
func (t *Token) Close() error                              { return errNotBuilt }
func (t *Token) Info() TokenInfo                           { return TokenInfo{} }

// KeyKind is an algorithm with its size.
type KeyKind int

const (
	P256 KeyKind = 1 + iota
	P384
	RSA2048
	RSA3072
	RSA4096
)

// Use is the one thing a key may do.
type Use int

const (
	Sign Use = 1 + iota
	Derive
	Decrypt
)

// KeySpec describes a key to be made.
type KeySpec struct {
	Label       string
	Kind        KeyKind
	Use         Use
	Session     bool // lives as long as the token stays connected
	Extractable bool // may leave the token wrapped
}

// KeyInfo is one key pair found on the token.
type KeyInfo struct {
	Label      string
	ID         []byte
	Kind       KeyKind
	Public     crypto.PublicKey
	SPKI       [32]byte
	Attributes Attributes
}

// Attributes is what the token says of a private key.
type Attributes struct {
	Sensitive, AlwaysSensitive, Extractable, NeverExtractable, Local bool
	Sign, Decrypt, Derive, Wrap, Unwrap, Token                       bool
}

func (t *Token) Generate(ctx context.Context, spec KeySpec) (*Key, error)    { return nil, errNotBuilt }
func (t *Token) Key(ctx context.Context, pub crypto.PublicKey) (*Key, error) { return nil, errNotBuilt }
func (t *Token) KeyByLabel(ctx context.Context, label string) (*Key, error)  { return nil, errNotBuilt }
func (t *Token) Keys(ctx context.Context) ([]KeyInfo, error)                 { return nil, errNotBuilt }
func (t *Token) DestroyKey(ctx context.Context, k *Key) error                { return errNotBuilt }
func (t *Token) Random(ctx context.Context, n int) ([]byte, error)           { return nil, errNotBuilt }
func (t *Token) GenerateWrappingKey(ctx context.Context, label string) (*SecretKey, error) {
	return nil, errNotBuilt
}
func (t *Token) WrappingKey(ctx context.Context, label string) (*SecretKey, error) {
	return nil, errNotBuilt
}

// Key is a private key in a token.
type Key struct{}

func (k *Key) Label() string            { return "" }
func (k *Key) SPKI() [32]byte           { return [32]byte{} }
func (k *Key) Attributes() Attributes   { return Attributes{} }
func (k *Key) URI() *URI                { return nil }
func (k *Key) Public() crypto.PublicKey { return nil }
func (k *Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return nil, errNotBuilt
}
func (k *Key) Decrypt(rand io.Reader, msg []byte, opts crypto.DecrypterOpts) ([]byte, error) {
	return nil, errNotBuilt
}

// OAEPHash returns the hash that the token can use in RSA-OAEP with this key.
func (k *Key) OAEPHash(ctx context.Context) (crypto.Hash, error) { return 0, errNotBuilt }
func (k *Key) ECDHKey() (ecdh.KeyExchanger, error)               { return nil, errNotBuilt }

// SecretKey is an AES key that wraps others.
type SecretKey struct{}

func (s *SecretKey) Wrap(ctx context.Context, k *Key) ([]byte, error) { return nil, errNotBuilt }
func (s *SecretKey) Unwrap(ctx context.Context, blob []byte, spec KeySpec, pub crypto.PublicKey) (*Key, error) {
	return nil, errNotBuilt
}

func InitToken(module, label string, soPIN, pin []byte) (serial string, err error) {
	return "", errNotBuilt
}

// Finding is one line of Doctor's report.
type Finding struct {
	OK     bool
	What   string
	Remedy string
}

func Doctor(ctx context.Context, cfg Config) []Finding { return nil }
