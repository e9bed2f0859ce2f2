package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"hufu/api/client"
	"hufu/hsm"
)

// ClientConfig says which node the CLI talks to, and as whom. The key is a
// file, or lies in a token (a staff card) when key_uri is set.
type ClientConfig struct {
	Server      string        `yaml:"server"`
	Roots       string        `yaml:"roots"`
	Certificate string        `yaml:"certificate"`
	Key         string        `yaml:"key,omitempty"`
	Module      string        `yaml:"module,omitempty"`
	KeyURI      string        `yaml:"key_uri,omitempty"`
	PIN         hsm.PINSource `yaml:"pin,omitempty"`
}

func defaultClientFile() string {
	if f := os.Getenv("HUFU_CLIENT"); f != "" {
		return f
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "client.yaml"
	}
	return filepath.Join(dir, "hufu", "client.yaml")
}

const clientHint = "name a file with --client or $HUFU_CLIENT; it has the fields server, roots, certificate and key;\n`hufu init` and `hufu quickstart` write one for each officer"

func loadClientConfig(path string) (*ClientConfig, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef(clientHint, "there is no client configuration %s", path)
	}
	if err != nil {
		return nil, usagef(clientHint, "reading the client configuration: %v", err)
	}
	c := &ClientConfig{}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil {
		return nil, usagef(clientHint, "%s: %v", path, err)
	}
	if c.Server == "" || c.Roots == "" || c.Certificate == "" || (c.Key == "") == (c.KeyURI == "") {
		return nil, usagef(clientHint, "%s: server, roots, certificate and either key or key_uri must be set", path)
	}
	for _, p := range []*string{&c.Roots, &c.Certificate, &c.Key, &c.PIN.File} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	return c, nil
}

// identity is an officer's certificate chain and key; close gives the token
// back.
type identity struct {
	cert  tls.Certificate
	leaf  *x509.Certificate
	key   crypto.Signer
	close func()
}

func (c *ClientConfig) identity(ctx context.Context) (*identity, error) {
	pemBytes, err := os.ReadFile(c.Certificate)
	if err != nil {
		return nil, usagef(clientHint, "reading the officer's certificate: %v", err)
	}
	id := &identity{close: func() {}}
	for block, rest := pem.Decode(pemBytes); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			id.cert.Certificate = append(id.cert.Certificate, block.Bytes)
		}
	}
	if len(id.cert.Certificate) == 0 {
		return nil, usagef(clientHint, "%s holds no PEM certificate", c.Certificate)
	}
	if id.leaf, err = x509.ParseCertificate(id.cert.Certificate[0]); err != nil {
		return nil, usagef(clientHint, "parsing %s: %v", c.Certificate, err)
	}
	if c.Key != "" {
		if id.key, err = readKey(c.Key); err != nil {
			return nil, err
		}
	} else {
		token, err := hsm.Open(ctx, hsm.Config{Module: c.Module, URI: c.KeyURI, PIN: c.PIN.Func("the officer's token"), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, fmt.Errorf("opening the officer's token: %w", err)
		}
		id.close = func() { token.Close() }
		if id.key, err = token.Key(ctx, id.leaf.PublicKey); err != nil {
			token.Close()
			return nil, fmt.Errorf("finding the officer's key: %w", err)
		}
	}
	id.cert.PrivateKey = id.key
	return id, nil
}

// readKey reads an unencrypted PKCS#8 key file that only its owner can read.
func readKey(path string) (crypto.Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, usagef(clientHint, "reading the key: %v", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, usagef("chmod 600 "+path, "the key %s can be read by others (mode %04o); it is not used", path, info.Mode().Perm())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef(clientHint, "reading the key: %v", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, usagef("keys are PKCS#8 in PEM (BEGIN PRIVATE KEY)", "%s holds no private key", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, usagef("keys are PKCS#8 in PEM (BEGIN PRIVATE KEY)", "parsing %s: %v", path, err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, usagef("use an ECDSA P-256 key", "%s holds a key that cannot sign", path)
	}
	return s, nil
}

// dial gives the API client of the configured node; the caller calls close.
func (g *globals) dial(ctx context.Context) (c *client.Client, id *identity, err error) {
	conf, err := loadClientConfig(g.client)
	if err != nil {
		return nil, nil, err
	}
	roots, err := readRoots(conf.Roots)
	if err != nil {
		return nil, nil, err
	}
	if id, err = conf.identity(ctx); err != nil {
		return nil, nil, err
	}
	c, err = client.New(client.Config{
		URL: conf.Server,
		TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{id.cert}, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		id.close()
		return nil, nil, err
	}
	return c, id, nil
}

func readRoots(path string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("the file holds the root certificate in PEM", "reading the roots: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, usagef("the file holds the root certificate in PEM", "%s holds no PEM certificate", path)
	}
	return pool, nil
}
