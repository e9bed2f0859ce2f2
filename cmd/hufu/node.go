package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"

	"hufu/api"
	"hufu/ca"
	"hufu/ca/stepca"
	"hufu/hsm"
	"hufu/issuance"
	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/officers"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/store/bolt"
	"hufu/topup"
)

// checkpointLabel is the token's key that signs checkpoints of the journal and
// the statements in directories.
const checkpointLabel = "checkpoint"

// citySignLabel is the token's key of a city's signer.
func citySignLabel(city string) string { return "sign-" + city }

// node is what serve and init stand on: the token, the book and the authority
// over both.
type node struct {
	conf       *Config
	log        *slog.Logger
	token      *hsm.Token
	book       *store.Book
	authority  *ca.Authority
	issuers    []*issuance.Issuer
	checkpoint *hsm.Key
	root       *store.CA
	signing    sync.Mutex // held while the centre's signer is found or made
}

// tables are the tables of other packages, so that the book's Check and Backup
// know them.
func tables() []store.Checked {
	return slices.Concat(ca.Tables, officers.Tables, jobs.Tables, readers.Tables, stage1.Tables, stage2.Tables, topup.Tables, api.Tables, stepca.Tables, ldapsync.Tables(), escrow.Tables)
}

// openBook opens the book of the configuration, which must exist.
func openBook(ctx context.Context, c *Config, log *slog.Logger) (*store.Book, error) {
	if _, err := os.Stat(c.bookPath()); errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("make it with: hufu init", "there is no book at %s", c.bookPath())
	}
	engine, err := bolt.Open(c.bookPath(), bolt.Options{})
	if err != nil {
		return nil, err
	}
	book, err := store.Open(ctx, store.Config{Engine: engine, Log: log, Tables: tables()})
	if err != nil {
		engine.Close()
		return nil, fmt.Errorf("opening the book %s: %w", c.bookPath(), err)
	}
	return book, nil
}

// openKeys opens the token and finds the checkpoint key.
func (n *node) openKeys(ctx context.Context) error {
	cfg := n.conf.hsm()
	cfg.Log = n.log
	var err error
	if n.token, err = openToken(ctx, cfg); err != nil {
		return fmt.Errorf("opening the token: %w", err)
	}
	if n.checkpoint, err = n.token.KeyByLabel(ctx, checkpointLabel); err != nil && !errors.Is(err, hsm.ErrKeyNotFound) {
		return fmt.Errorf("finding the checkpoint key: %w", err)
	}
	return nil
}

// openAuthority makes an issuer for every configured CA that stands in the
// book, and the authority over them. A CA whose key is missing stops the node:
// it would otherwise look alive and refuse every request.
func (n *node) openAuthority(ctx context.Context) error {
	var cas []*store.CA
	err := n.book.View(ctx, func(tx *store.Tx) error {
		cas = nil
		for c, err := range store.CAs.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			cas = append(cas, c)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the CAs: %w", err)
	}
	configured := map[string]bool{}
	for _, a := range n.conf.CAs {
		configured[a.ID] = true
	}
	for _, c := range cas {
		if c.Kind == "root" {
			n.root = c
			continue
		}
		if !configured[c.Line] || c.State == "retired" {
			continue
		}
		delete(configured, c.Line)
		i, err := n.issuer(ctx, c)
		if err != nil {
			return err
		}
		n.issuers = append(n.issuers, i)
	}
	for id := range configured {
		return usagef("take it out of cas, or add its certificate with: hufu init --from", "the configuration names CA %s, but the book does not hold it", id)
	}
	if n.root == nil {
		return damagedf("restore a backup, or begin anew with hufu init", "the book holds no root certificate")
	}
	n.authority, err = ca.New(ca.Config{Book: n.book, Issuers: n.issuers, Node: n.conf.Node, CRLEvery: n.conf.CRL.Every, CRLValidity: n.conf.CRL.Valid,
		CRLFullEvery: n.conf.CRL.Full, MayHold: escrow.MayHold, Log: n.log})
	return err
}

func (n *node) issuer(ctx context.Context, c *store.CA) (*issuance.Issuer, error) {
	cert, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate of CA %s: %w", c.ID, err)
	}
	key, err := n.token.Key(ctx, cert.PublicKey)
	if err != nil {
		return nil, &hinted{err: fmt.Errorf("finding the key of CA %s in the token: %w", c.ID, err), hint: "the token of token.uri must hold the key; `hufu hsm keys` lists what it holds", code: exitUnready}
	}
	cfg := issuance.Config{CA: *c, Key: key, Domain: n.conf.Domain, BaseURL: n.conf.Publish.URL}
	for _, a := range n.conf.CAs {
		if a.ID == c.Line {
			cfg.Shards, cfg.Deltas = a.CRLShards, a.CRLDeltas == nil || *a.CRLDeltas
		}
	}
	i, err := issuance.NewIssuer(cfg)
	if err != nil {
		return nil, fmt.Errorf("taking up CA %s: %w", c.ID, err)
	}
	return i, nil
}

// keyLabelled gives the token's key of that label and makes it when it is not
// there.
func keyLabelled(ctx context.Context, t *hsm.Token, label string, kind hsm.KeyKind) (*hsm.Key, error) {
	k, err := t.KeyByLabel(ctx, label)
	if errors.Is(err, hsm.ErrKeyNotFound) {
		k, err = t.Generate(ctx, hsm.KeySpec{Label: label, Kind: kind, Use: hsm.Sign})
	}
	if err != nil {
		return nil, fmt.Errorf("making the key %q in the token: %w", label, err)
	}
	return k, nil
}

// line gives the ID line of the only configured CA of a kind.
func (c *Config) lineOf(kind string) (string, error) {
	for _, a := range c.CAs {
		if a.Kind == kind {
			return a.ID, nil
		}
	}
	return "", usagef("add it to cas", "the configuration names no CA of kind %s", kind)
}

func (n *node) close() {
	if n.book != nil {
		n.book.Close()
	}
	if n.token != nil {
		n.token.Close()
	}
}

// request makes a PKCS#10 request for a key of this node; its only use is the
// proof of possession.
func request(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// caRecord reads the record of one CA.
func caRecord(ctx context.Context, b *store.Book, id string) (c *store.CA, err error) {
	err = b.View(ctx, func(tx *store.Tx) error {
		c, err = store.CAs.Get(tx, store.Key(id))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading CA %s: %w", id, err)
	}
	return c, nil
}
