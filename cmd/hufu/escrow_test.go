package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hufu/internal/cms"
	"hufu/internal/testpki"
	"hufu/policy"
)

// TestNoCommandToEscrow: the commands of the key management centre are these five, with
// these flags. The one that takes a private key is the recipient's, who opens with it, and
// it talks to no node.
func TestNoCommandToEscrow(t *testing.T) {
	root := newRootCommand()
	var commands []string
	flags := map[string][]string{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.HasParent() && c.Parent().Name() == "escrow" {
			commands = append(commands, c.Name())
			c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" {
					flags[c.Name()] = append(flags[c.Name()], f.Name)
				}
			})
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	slices.Sort(commands)
	if want := []string{"list", "open", "recover", "request", "status"}; !slices.Equal(commands, want) {
		t.Errorf("the commands are %v; read what is new, and say here that it brings no key in", commands)
	}
	for name, want := range map[string][]string{
		"list": {"limit", "reader"}, "recover": {"out"}, "request": {"reason", "recipient"}, "status": nil,
		"open": {"certificate", "key", "key-uri", "module", "out", "pin-file", "recipient"},
	} {
		if have := flags[name]; !slices.Equal(have, want) {
			t.Errorf("escrow %s has the flags %v", name, have)
		}
	}
}

// sealed makes the files that hufu escrow open is for: reader.crt, whose key lies sealed
// in key.p7m for the holder of judge.crt and judge.key, and stranger.key.
func sealed(ts *testscript.TestScript, neg bool, args []string) {
	pki, err := testpki.New(testpki.Config{})
	ts.Check(err)
	reader, err := pki.Reader("330100", "1001")
	ts.Check(err)
	judge, err := pki.CA("staff").New("recipient", policy.Name{Person: "Bao Zheng"})
	ts.Check(err)
	private := reader.Encrypt.Key.(*ecdsa.PrivateKey)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	envelope, err := cms.SealKey(cms.KeyRecipient{Certificate: judge.Certificate}, func(content []byte) ([]byte, error) {
		in := filepath.Join(ts.Getenv("WORK"), "plain")
		if err := os.WriteFile(in, pkcs8, 0o600); err != nil {
			return nil, err
		}
		defer os.Remove(in)
		return exec.Command("openssl", "enc", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(content), "-iv", "A65959A6", "-in", in).Output()
	})
	ts.Check(err)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	stranger := &testpki.Leaf{Key: other}
	for name, b := range map[string][]byte{
		"reader.crt": testpki.PEM("CERTIFICATE", reader.Encrypt.Certificate), "sign.crt": testpki.PEM("CERTIFICATE", reader.Sign.Certificate), "key.p7m": envelope,
		"judge.crt": testpki.PEM("CERTIFICATE", judge.Certificate), "judge.key": judge.KeyPEM(), "stranger.key": stranger.KeyPEM(), "expected.key": testpki.PEM("PRIVATE KEY", pkcs8),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), b, 0o600))
	}
}
