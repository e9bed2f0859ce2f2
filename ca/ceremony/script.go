package ceremony

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"hufu/hsm"
	"hufu/policy"
	"hufu/store"
)

// Example is a whole script with every field and its meaning.
//
//go:embed example.yaml
var Example string

// Script is what a ceremony does. Its manual is Example.
type Script struct {
	Name         string    `yaml:"name"`
	Officers     []string  `yaml:"officers"`
	Country      string    `yaml:"country"`
	Organisation string    `yaml:"organisation"`
	Domain       string    `yaml:"domain"`
	BaseURL      string    `yaml:"base_url"`
	Token        Token     `yaml:"token"`
	Root         Root      `yaml:"root"`
	Requests     []Request `yaml:"requests"`
	CRL          CRL       `yaml:"crl"`
	Clone        *Token    `yaml:"clone"`
	Out          string    `yaml:"out"`

	source []byte // the file, which the transcript binds
}

// Token says how to reach a token.
type Token struct {
	Module string        `yaml:"module"`
	URI    string        `yaml:"uri"`
	PIN    hsm.PINSource `yaml:"pin"`
}

// Root is a root to be made, or one that exists.
type Root struct {
	Key         string `yaml:"key"`
	Algorithm   string `yaml:"algorithm"`
	CommonName  string `yaml:"common_name"`
	Days        int    `yaml:"days"`
	Certificate string `yaml:"certificate"`
}

// Request is a working CA to be certified.
type Request struct {
	ID     string `yaml:"id"`
	Kind   string `yaml:"kind"`
	City   string `yaml:"city"`
	File   string `yaml:"file"`
	SHA256 string `yaml:"sha256"`
	Days   int    `yaml:"days"`
}

// CRL is the root's list to be signed.
type CRL struct {
	Days    int       `yaml:"days"`
	Number  uint64    `yaml:"number"`
	Revoked []Revoked `yaml:"revoked"`
}

// Revoked is one certificate of a working CA that the root has revoked.
type Revoked struct {
	Serial string    `yaml:"serial"`
	Time   time.Time `yaml:"time"`
	Reason int       `yaml:"reason"`
}

// Read reads the script at path; its relative paths start at the script's folder.
func Read(path string) (*Script, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the ceremony script: %w", err)
	}
	s, err := Parse(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.anchor(filepath.Dir(path))
	return s, nil
}

// Parse decodes a script strictly and checks it.
func Parse(source []byte) (*Script, error) {
	s := &Script{source: source}
	d := yaml.NewDecoder(bytes.NewReader(source))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("reading the ceremony script: %w", err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading the ceremony script: it holds more than one YAML document")
	}
	s.defaults()
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("checking the ceremony script: %w", err)
	}
	return s, nil
}

func (s *Script) defaults() {
	if s.Out == "" {
		s.Out = "out"
	}
	if s.CRL.Days == 0 {
		s.CRL.Days = 180
	}
	if s.Root.Certificate == "" && s.Root.Algorithm == "" {
		s.Root.Algorithm = hsm.P384.String()
	}
}

// anchor makes the relative paths start at dir.
func (s *Script) anchor(dir string) {
	paths := []*string{&s.Out, &s.Root.Certificate, &s.Token.PIN.File}
	if s.Clone != nil {
		paths = append(paths, &s.Clone.PIN.File)
	}
	for i := range s.Requests {
		paths = append(paths, &s.Requests[i].File)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func (s *Script) check() error {
	if s.Name == "" {
		return errors.New("name says what the ceremony is; it is empty")
	}
	if s.Organisation == "" {
		return errors.New("organisation is empty")
	}
	if err := policy.ValidDomain(s.Domain); err != nil {
		return err
	}
	for _, step := range []func() error{s.checkOfficers, s.checkTokens, s.checkRoot, s.checkRequests, s.checkCRL} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Script) checkOfficers() error {
	if len(s.Officers) < 2 {
		return fmt.Errorf("officers names %d people; a ceremony needs two at least", len(s.Officers))
	}
	seen := make(map[string]bool)
	for _, name := range s.Officers {
		if name == "" || name != strings.TrimSpace(name) || strings.ContainsFunc(name, unicode.IsControl) {
			return fmt.Errorf("%q is no officer's name", name)
		}
		if seen[name] {
			return fmt.Errorf("the officer %s is named twice; two people are needed, not two signatures", name)
		}
		seen[name] = true
	}
	return nil
}

func (s *Script) checkTokens() error {
	tokens := []*Token{&s.Token}
	if s.Clone != nil {
		tokens = append(tokens, s.Clone)
	}
	for _, t := range tokens {
		if _, err := hsm.ParseURI(t.URI); err != nil {
			return err
		}
	}
	return nil
}

func (s *Script) checkRoot() error {
	r := s.Root
	if r.Certificate != "" {
		if r != (Root{Certificate: r.Certificate}) {
			return errors.New("root names a certificate that exists, so it names nothing else")
		}
		return nil
	}
	if _, err := hsm.ParseKeyKind(r.Algorithm); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if r.Key == "" || r.CommonName == "" {
		return errors.New("root needs the label of its key (key) and a common_name, or the certificate of a root that exists")
	}
	if r.Days < 0 {
		return errors.New("root: days is negative")
	}
	return nil
}

func (s *Script) checkRequests() error {
	seen := make(map[string]bool)
	for _, r := range s.Requests {
		switch hash, err := hex.DecodeString(r.SHA256); {
		case r.ID == "" || r.ID != filepath.Base(r.ID) || r.ID == rootID:
			return fmt.Errorf("requests: %q is no ID of a working CA", r.ID)
		case seen[r.ID]:
			return fmt.Errorf("requests: the CA %s stands twice", r.ID)
		case r.File == "":
			return fmt.Errorf("requests: the CA %s has no file", r.ID)
		case err != nil || len(hash) != 32:
			return fmt.Errorf("requests: the CA %s has no sha256 of 64 hexadecimal digits; `hufu ca request` shows it", r.ID)
		case r.Days < 0:
			return fmt.Errorf("requests: the CA %s has negative days", r.ID)
		}
		if _, err := policy.FindKind(r.Kind); err != nil {
			return fmt.Errorf("requests: the CA %s: %w", r.ID, err)
		}
		seen[r.ID] = true
	}
	return nil
}

func (s *Script) checkCRL() error {
	if s.CRL.Days < 1 || s.CRL.Days > 366 {
		return fmt.Errorf("crl: days is %d; a root's list is good for 1 to 366 days", s.CRL.Days)
	}
	for _, r := range s.CRL.Revoked {
		if _, err := store.ParseSerial(r.Serial); err != nil {
			return fmt.Errorf("crl: %w", err)
		}
		if r.Time.IsZero() {
			return fmt.Errorf("crl: the serial %s has no time of revocation", r.Serial)
		}
	}
	return nil
}
