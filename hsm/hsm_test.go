package hsm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hufu/hsm"
	"hufu/internal/softhsm"
)

var errBadSignature = errors.New("the signature does not verify")

var soPIN, userPIN = []byte("87654321"), []byte("123456")

// newHome makes a private token directory and points the process at it.
func newHome(t testing.TB) *softhsm.Home {
	t.Helper()
	h, err := softhsm.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Activate(); err != nil {
		t.Fatal(err)
	}
	return h
}

// newToken makes a token and returns what opens it.
func newToken(t testing.TB, h *softhsm.Home, label string) hsm.Config {
	t.Helper()
	serial, err := h.Init(label, soPIN, userPIN)
	if err != nil {
		t.Fatal(err)
	}
	uri := hsm.URI{Token: label, Serial: serial}
	return hsm.Config{Module: h.Module(), URI: uri.String(), PIN: pin(string(userPIN))}
}

func pin(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

func open(t testing.TB, cfg hsm.Config) *hsm.Token {
	t.Helper()
	token, err := hsm.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { token.Close() })
	return token
}

func openNew(t testing.TB) *hsm.Token {
	t.Helper()
	return open(t, newToken(t, newHome(t), "hufu"))
}

func generate(t testing.TB, token *hsm.Token, spec hsm.KeySpec) *hsm.Key {
	t.Helper()
	k, err := token.Generate(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// wantError fails unless err is target and its text says each of the words.
func wantError(t testing.TB, err, target error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if target != nil && !errors.Is(err, target) {
		t.Fatalf("error is not %q: %v", target, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error does not say %q: %v", w, err)
		}
	}
}

func TestInfo(t *testing.T) {
	token := openNew(t)
	info := token.Info()
	if info.Label != "hufu" || info.Serial == "" || info.Model != "SoftHSM v2" || info.Firmware == "" || len(info.Mechanisms) < 10 {
		t.Fatalf("info is %+v", info)
	}
	if u := token.URI(); u.Token != "hufu" || u.Serial != info.Serial {
		t.Fatalf("URI is %v", u)
	}
}

func TestOpenRefuses(t *testing.T) {
	h := newHome(t)
	good := newToken(t, h, "hufu")
	notALibrary := filepath.Join(t.TempDir(), "library.so")
	if err := os.WriteFile(notALibrary, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*hsm.Config)
		target error
		words  []string
	}{
		{"no module", func(c *hsm.Config) { c.Module = "" }, nil, []string{"no PKCS#11 module", "/usr/lib/softhsm"}},
		{"missing module", func(c *hsm.Config) { c.Module = "/nowhere/p11.so" }, os.ErrNotExist, []string{"/nowhere/p11.so", "install"}},
		{"not a library", func(c *hsm.Config) { c.Module = notALibrary }, nil, []string{notALibrary, "ldd"}},
		{"no URI", func(c *hsm.Config) { c.URI = "" }, nil, []string{"pkcs11:"}},
		{"no token named", func(c *hsm.Config) { c.URI = "pkcs11:object=k" }, nil, []string{"token=", "serial="}},
		{"slot named", func(c *hsm.Config) { c.URI = "pkcs11:token=hufu;slot-id=0" }, nil, []string{"slot"}},
		{"PIN in the URI", func(c *hsm.Config) { c.URI += "?pin-value=1234" }, nil, []string{"pin-value"}},
		{"PIN source in the URI", func(c *hsm.Config) { c.URI += "?pin-source=/x" }, nil, []string{"pin-source"}},
		{"other label", func(c *hsm.Config) { c.URI = "pkcs11:token=other" }, hsm.ErrTokenGone, []string{"other", `"hufu"`}},
		{"other serial", func(c *hsm.Config) { c.URI = "pkcs11:token=hufu;serial=0" }, hsm.ErrTokenGone, nil},
		{"empty PIN", func(c *hsm.Config) { c.PIN = pin("") }, nil, []string{"PIN"}},
		{"PIN source fails", func(c *hsm.Config) { c.PIN = hsm.PINSource{File: "/nowhere/pin"}.Func("hufu") }, os.ErrNotExist, []string{"/nowhere/pin"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := good
			test.change(&cfg)
			_, err := hsm.Open(context.Background(), cfg)
			wantError(t, err, test.target, test.words...)
		})
	}
	open(t, good) // and none of these stood in the way of the right one
}

func TestTwoTokensWithOneLabel(t *testing.T) {
	h := newHome(t)
	first, second := newToken(t, h, "twin"), newToken(t, h, "twin")
	byLabel := first
	byLabel.URI = "pkcs11:token=twin"
	_, err := hsm.Open(context.Background(), byLabel)
	wantError(t, err, nil, "more than one token", "serial=")

	a, b := open(t, first), open(t, second)
	if a.Info().Serial == b.Info().Serial {
		t.Fatal("the serial did not decide")
	}
	generate(t, a, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	_, err = b.KeyByLabel(context.Background(), "k")
	wantError(t, err, hsm.ErrKeyNotFound)
}

func TestClosedToken(t *testing.T) {
	token := openNew(t)
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := k.Sign(nil, make([]byte, 32), nil256)
	wantError(t, err, hsm.ErrClosed)
}

func TestInitToken(t *testing.T) {
	h := newHome(t)
	serial, err := hsm.InitToken(h.Module(), "fresh", soPIN, userPIN)
	if err != nil {
		t.Fatal(err)
	}
	token := open(t, hsm.Config{Module: h.Module(), URI: "pkcs11:token=fresh", PIN: pin(string(userPIN))})
	if token.Info().Serial != serial {
		t.Fatalf("serial is %s, not %s", token.Info().Serial, serial)
	}
	_, err = hsm.InitToken(h.Module(), "fresh", soPIN, userPIN)
	wantError(t, err, nil, "fresh", "already")
	_, err = hsm.InitToken(h.Module(), "", soPIN, userPIN)
	wantError(t, err, nil, "label")
}

// A token that was made while the library was in use is seen, and the tokens that were
// open before go on.
func TestTokenMadeWhileOpen(t *testing.T) {
	h := newHome(t)
	first := open(t, newToken(t, h, "first"))
	k := generate(t, first, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	open(t, newToken(t, h, "second"))
	checkSigns(t, k)
}
