package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"hufu/hsm"
	"hufu/issuance/escrow"
)

// exampleConfig is a whole configuration with every field and its meaning;
// `hufu help config` prints it and a test decodes it.
//
//go:embed config_example.yaml
var exampleConfig string

// Config is a node's one configuration file. Its manual is the example that
// `hufu help config` prints. An unknown field is an error with its line;
// relative paths start at the file's own folder.
type Config struct {
	Node        string            `yaml:"node"`
	Domain      string            `yaml:"domain"`
	Data        string            `yaml:"data"`
	Token       TokenConfig       `yaml:"token"`
	CAs         []CAConfig        `yaml:"cas"`
	API         APIConfig         `yaml:"api"`
	Publish     PublishConfig     `yaml:"publish"`
	Ops         OpsConfig         `yaml:"ops"`
	ACME        *ACMEConfig       `yaml:"acme"`
	Directories []DirectoryConfig `yaml:"directories"`
	CRL         CRLConfig         `yaml:"crl"`
	Mass        MassConfig        `yaml:"mass"`
	Escrow      *EscrowConfig     `yaml:"escrow"`
}

type TokenConfig struct {
	Module   string        `yaml:"module"`
	URI      string        `yaml:"uri"`
	PIN      hsm.PINSource `yaml:"pin"`
	Sessions int           `yaml:"sessions"`
}

type CAConfig struct {
	ID   string `yaml:"id"`
	Kind string `yaml:"kind"`
	City string `yaml:"city"`
	Key  string `yaml:"key"`

	CRLShards uint16 `yaml:"crl_shards"`
	CRLDeltas *bool  `yaml:"crl_deltas"` // nil = true
}

type APIConfig struct {
	Listen string   `yaml:"listen"`
	Names  []string `yaml:"names"`
}

type PublishConfig struct {
	Listen string `yaml:"listen"`
	URL    string `yaml:"url"`
}

type OpsConfig struct {
	Listen string `yaml:"listen"`
}

type ACMEConfig struct {
	Listen   string   `yaml:"listen"`
	Name     string   `yaml:"name"`
	CA       string   `yaml:"ca"`
	Domains  []string `yaml:"domains"`
	HTTPPort int      `yaml:"http_port"`
}

type DirectoryConfig struct {
	Name     string `yaml:"name"`
	URL      string `yaml:"url"`
	Base     string `yaml:"base"`
	Roots    string `yaml:"roots"`
	StartTLS bool   `yaml:"starttls"`
	InFlight int    `yaml:"in_flight"`

	Bound   time.Duration `yaml:"bound"`
	Alarm   time.Duration `yaml:"alarm"`
	Compare time.Duration `yaml:"compare"`
}

type EscrowConfig struct {
	Wrapping string `yaml:"wrapping"`
	Kind     string `yaml:"kind"`
	Spare    int    `yaml:"spare"`
	Recovery int    `yaml:"recovery"`
}

type MassConfig struct {
	Alone int `yaml:"alone"`
}

type CRLConfig struct {
	Every time.Duration `yaml:"every"`
	Valid time.Duration `yaml:"valid"`
	Full  time.Duration `yaml:"full"`
}

var (
	idForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	cityForm = regexp.MustCompile(`^[0-9]{6}$`)
)

// loadConfig reads, decodes and checks a node's configuration.
func loadConfig(path string) (*Config, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("name it with --config FILE; `hufu help config` prints an example", "there is no configuration file %s", path)
	}
	if err != nil {
		return nil, usagef("the file must be readable by the user that runs hufu", "reading the configuration: %v", err)
	}
	c, err := decodeConfig(raw)
	if err != nil {
		return nil, usagef("`hufu help config` prints every field with its meaning", "%s: %v", path, err)
	}
	c.anchor(filepath.Dir(path))
	return c, nil
}

func decodeConfig(raw []byte) (*Config, error) {
	c := &Config{}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file holds more than one YAML document")
	}
	c.defaults()
	return c, c.validate()
}

func (c *Config) defaults() {
	if c.Data == "" {
		c.Data = "data"
	}
	if c.CRL.Every == 0 {
		c.CRL.Every = 10 * time.Minute
	}
	if c.CRL.Valid == 0 {
		c.CRL.Valid = 24 * time.Hour
	}
	if c.CRL.Full == 0 {
		c.CRL.Full = c.CRL.Every
	}
	if c.Ops.Listen == "" {
		c.Ops.Listen = "127.0.0.1:8081"
	}
	for i := range c.CAs {
		if c.CAs[i].Key == "" {
			c.CAs[i].Key = "ca-" + c.CAs[i].ID
		}
	}
	if c.ACME != nil && c.ACME.HTTPPort == 0 {
		c.ACME.HTTPPort = 80
	}
	if c.Escrow != nil {
		c.Escrow.Spare = cmp.Or(c.Escrow.Spare, 1000)
		c.Escrow.Recovery = cmp.Or(c.Escrow.Recovery, 2)
	}
	if c.ACME != nil && len(c.ACME.Domains) == 0 {
		c.ACME.Domains = []string{c.Domain}
	}
}

// validate says in a sentence what is missing or wrong.
func (c *Config) validate() error {
	if !idForm.MatchString(c.Node) {
		return fmt.Errorf("node: must be a short name of this machine in lower-case letters, digits and hyphens, not %q", c.Node)
	}
	if c.Domain == "" {
		return errors.New("domain: must be the DNS domain below which readers and services are named")
	}
	if c.Token.Module == "" || c.Token.URI == "" {
		return errors.New("token: module (the PKCS#11 library) and uri (pkcs11:token=…) must be set")
	}
	if _, err := hsm.ParseURI(c.Token.URI); err != nil {
		return fmt.Errorf("token: uri: %w", err)
	}
	if len(c.CAs) == 0 {
		return errors.New("cas: at least one working CA must be named")
	}
	seen := map[string]bool{}
	for i, a := range c.CAs {
		if !idForm.MatchString(a.ID) || a.ID == "root" {
			return fmt.Errorf("cas[%d]: id %q must be lower-case letters, digits and hyphens, and not root", i, a.ID)
		}
		if seen[a.ID] {
			return fmt.Errorf("cas[%d]: id %q stands twice", i, a.ID)
		}
		seen[a.ID] = true
		if !slices.Contains([]string{"device", "city", "services", "staff"}, a.Kind) {
			return fmt.Errorf("cas[%d] (%s): kind must be device, city, services or staff, not %q", i, a.ID, a.Kind)
		}
		if (a.Kind == "city") != cityForm.MatchString(a.City) {
			return fmt.Errorf("cas[%d] (%s): city must be six digits for a city CA, and absent for any other", i, a.ID)
		}
	}
	for name, listen := range map[string]string{"api": c.API.Listen, "publish": c.Publish.Listen, "ops": c.Ops.Listen} {
		if _, _, err := net.SplitHostPort(listen); err != nil {
			return fmt.Errorf("%s: listen %q must be host:port", name, listen)
		}
	}
	if len(c.API.Names) == 0 {
		return errors.New("api: names: at least one DNS name, by which clients reach this node, must be set")
	}
	// RFC 5280, Section 4.2.1.13 and 4.2.2.1: an https address in a
	// certificate would need a certificate to be checked.
	if u, err := url.Parse(c.Publish.URL); err != nil || u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("publish: url %q must be a plain http address: it stands in every certificate", c.Publish.URL)
	}
	if c.ACME != nil && !seen[c.ACME.CA] {
		return fmt.Errorf("acme: ca %q is not among cas", c.ACME.CA)
	}
	if c.Escrow != nil {
		if err := c.Escrow.validate(); err != nil {
			return err
		}
	}
	names := map[string]bool{}
	for i, d := range c.Directories {
		if d.Name == "" || d.URL == "" || d.Base == "" || names[d.Name] {
			return fmt.Errorf("directories[%d]: name (unique), url and base must be set", i)
		}
		if d.Bound < 0 || d.Alarm < 0 || d.Compare < 0 || cmp.Or(d.Alarm, time.Minute) < cmp.Or(d.Bound, 5*time.Second) {
			return fmt.Errorf("directories[%d]: bound, alarm and compare must not be negative, and alarm no shorter than bound", i)
		}
		names[d.Name] = true
	}
	if c.CRL.Every < time.Second || c.CRL.Full < c.CRL.Every || 4*c.CRL.Full > 3*c.CRL.Valid {
		return errors.New("crl: valid must be longer than every and full by a third, full no shorter than every, and every at least 1s")
	}
	return nil
}

func (e *EscrowConfig) validate() error {
	if e.Wrapping == "" {
		return errors.New("escrow: wrapping must be the label of the token's key that wraps what is kept")
	}
	if _, err := escrow.ParseKind(e.Kind); err != nil {
		return fmt.Errorf("escrow: kind: %w", err)
	}
	if e.Spare < 1 || e.Spare > 1_000_000 {
		return fmt.Errorf("escrow: spare must be 1 to 1000000 keys, not %d", e.Spare)
	}
	if e.Recovery < 2 || e.Recovery > 16 {
		return fmt.Errorf("escrow: recovery must be 2 to 16 key officers, not %d: nobody recovers a key alone", e.Recovery)
	}
	return nil
}

// anchor makes relative paths start at dir.
func (c *Config) anchor(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	abs(&c.Data)
	abs(&c.Token.PIN.File)
	for i := range c.Directories {
		abs(&c.Directories[i].Roots)
	}
}

// The files below the data folder.
func (c *Config) bookPath() string        { return filepath.Join(c.Data, "book.db") }
func (c *Config) path(name string) string { return filepath.Join(c.Data, name) }

func newConfigHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "The node's configuration file, field by field",
		Long:  exampleConfig,
	}
}
