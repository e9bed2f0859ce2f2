// Package hsm reaches keys that live in PKCS#11 tokens and shows them as the
// standard library's own interfaces: crypto.Signer, crypto.Decrypter and
// ecdh.KeyExchanger. It is the only package that talks to a token.
//
// A token is found by its label and serial (RFC 7512), never by a slot number, which
// moves. A key is bound by the SHA-256 of its SubjectPublicKeyInfo and found again
// after every reconnect, because an old object handle can point at another key. When
// sessions, the login, the library or the whole token go away, the next operation
// connects anew and is done once more.
//
// It refuses to guess: two tokens with one label, two keys for one public key, a PIN
// that was wrong before (it is sent once, ever), a PIN file that others may read, a PIN
// in a URI, PKCS #1 v1.5 decryption. It does not verify the signatures that it returns;
// who holds the certificate does.
//
// ECDSA signatures are made as raw r||s in the token and returned in DER (RFC 3279,
// Section 2.2.3); RSA follows RFC 8017; key wrapping follows RFC 5649.
package hsm

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultSessions = 16
	defaultPatience = 10 * time.Second
)

// Config says which token to open.
type Config struct {
	// Module is the path of the PKCS#11 library; empty takes module-path of the URI.
	Module string
	// URI names the token: token= and serial=, at least one of them (RFC 7512).
	URI string
	// PIN is asked at every login, also after a token came back; the bytes it returns
	// are wiped afterwards. Nil does not log in. See PINSource.Func.
	PIN func() ([]byte, error)
	// MaxSessions caps the sessions in use at once; 0 is 16. The token's own limit holds too.
	MaxSessions int
	// Patience is how long an operation waits for a free session, and for a token that
	// went away to come back, where its context ends no earlier; 0 is 10 seconds.
	Patience time.Duration
	// Log hears of lost and healed connections; nil is silent.
	Log *slog.Logger
}

// Token is a token that is logged in to. Its methods may be called from many
// goroutines at once.
type Token struct {
	cfg Config
	uri *URI
	m   *module
	log *slog.Logger

	conn atomic.Pointer[connection] // nil while there is none

	mu      sync.Mutex // guards all below
	closed  bool
	info    TokenInfo
	attempt *attempt      // the one under way
	failed  time.Time     // end of the last attempt, if that failed
	lost    []*connection // to be retired by the next attempt
	oaep    crypto.Hash   // see Key.OAEPHash; 0 until asked
}

// TokenInfo is what the token says of itself.
type TokenInfo struct {
	Label, Serial, Model, Manufacturer, Firmware string
	Mechanisms                                   []uint // CKM_ numbers
}

// Open finds the token and logs in. It tries once; only a token that was there before
// is waited for.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	uri, err := ParseURI(cfg.URI)
	if err != nil {
		return nil, err
	}
	if err := checkTokenURI(uri); err != nil {
		return nil, err
	}
	if cfg.Module == "" {
		cfg.Module = uri.ModulePath
	}
	if cfg.MaxSessions <= 0 {
		cfg.MaxSessions = defaultSessions
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	t := &Token{cfg: cfg, uri: uri, log: cfg.Log}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.m, err = loadModule(cfg.Module); err != nil {
		return nil, err
	}
	a, err := t.reconnection(true)
	if err == nil {
		err = a.wait(ctx)
	}
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("opening the token %s: %w", t.name(), err)
	}
	// From here on it is this token and no other that bears the label.
	t.uri = t.URI()
	return t, nil
}

func checkTokenURI(u *URI) error {
	switch {
	case u.Token == "" && u.Serial == "":
		return errors.New("the token's URI must name its label (token=) or its serial (serial=)")
	case u.SlotID != "" || u.SlotDescription != "" || u.SlotManufacturer != "":
		return errors.New("the token's URI names a slot; slots move, so name the token's label and serial instead")
	case u.PINSource != "":
		return errors.New("pin-source in the token's URI is not used; set the PIN source beside the URI")
	}
	return nil
}

// name is how errors and logs call the token.
func (t *Token) name() string {
	if t.uri.Token == "" {
		return t.uri.Serial
	}
	return fmt.Sprintf("%q", t.uri.Token)
}

// Info returns what the token said of itself when it was last connected.
func (t *Token) Info() TokenInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
}

// URI returns the token's address, label and serial.
func (t *Token) URI() *URI {
	info := t.Info()
	return &URI{Token: info.Label, Serial: info.Serial, Manufacturer: info.Manufacturer, Model: info.Model}
}

// Close waits for the operations under way, closes the sessions and, with the last
// token of its library, finalises the library.
func (t *Token) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	a := t.attempt
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if a != nil {
		_ = a.wait(ctx) // what it brought is closed below
	}
	if c := t.conn.Swap(nil); c != nil {
		c.rest(ctx)
		if c.m.enter(ctx) == nil {
			c.dead.Store(true)
			c.close()
			c.m.leave()
		}
		c.m.part(c)
	}
	t.m.release()
	return nil
}
