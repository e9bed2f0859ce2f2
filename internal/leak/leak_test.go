package leak_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hufu/internal/leak"
)

// TestFindsEveryForm plants a private key in every form in which one gets out, at every
// place in a line, and nothing where there is nothing.
func TestFindsEveryForm(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	innocent, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	var s leak.Scanner
	s.Add("the key", scalar)
	forms := map[string]func([]byte) []byte{
		"octets":    func(b []byte) []byte { return b },
		"hex":       func(b []byte) []byte { return []byte(hex.EncodeToString(b)) },
		"HEX":       func(b []byte) []byte { return []byte(strings.ToUpper(hex.EncodeToString(b))) },
		"%x":        func(b []byte) []byte { return fmt.Appendf(nil, "% x", b) },
		"%v":        func(b []byte) []byte { return fmt.Appendf(nil, "%v", b) },
		"%q":        func(b []byte) []byte { return fmt.Appendf(nil, "%q", b) },
		"base64":    func(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) },
		"base64url": func(b []byte) []byte { return []byte(base64.RawURLEncoding.EncodeToString(b)) },
		"PEM":       func(b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}) },
		"JSON": func(b []byte) []byte {
			j, err := json.Marshal(map[string]any{"k": b})
			if err != nil {
				t.Fatal(err)
			}
			return j
		},
	}
	folder := t.TempDir()
	for what, secret := range map[string][]byte{"scalar": scalar, "PKCS #8": pkcs8, "SEC 1": sec1, "half": scalar[:16], "other half": scalar[16:]} {
		for form, write := range forms {
			for ahead := range 4 {
				noise := make([]byte, ahead)
				rand.Read(noise)
				planted := write(append(append(noise, secret...), 7, 8, 9))
				line := append(append([]byte("some words before "), planted...), " and after"...)
				if len(s.Find(line)) == 0 {
					t.Errorf("%s as %s after %d octets is not found", what, form, ahead)
				}
			}
		}
	}
	for form, write := range forms {
		if found := s.Find(write(innocent)); len(found) > 0 {
			t.Errorf("another key as %s is taken for this one: %v", form, found)
		}
	}
	for name, data := range map[string][]byte{"clean": innocent, "sub/dirty": bytes.Join([][]byte{innocent, pkcs8}, nil)} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, files, err := s.Files(folder)
	if err != nil || files != 2 || len(found) != 1 || !strings.Contains(found[0], "dirty: the key as octets") || strings.Contains(found[0], hex.EncodeToString(scalar[:4])) {
		t.Errorf("%d files, %v, %v", files, found, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a short secret is looked for")
		}
	}()
	s.Add("short", scalar[:8])
}
