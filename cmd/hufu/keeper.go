package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"hufu/ca"
	"hufu/policy"
	"hufu/store"
)

// keeper keeps one of the node's own TLS certificates: it takes it up from its
// file, issues a new one with a new key when two thirds of its life are over,
// and hands it to new connections without a restart.
//
// The key is a file of mode 0600 below the data folder: it proves this node to
// its clients and can be replaced at any minute, unlike a CA's key.
type keeper struct {
	name      string // file name and the journal's requester
	dir       string
	ca        string // the CA line that issues it
	profile   string
	dns       []string
	life      time.Duration // 0 = the profile's
	book      *store.Book
	authority *ca.Authority
	now       func() time.Time
	log       *slog.Logger

	cur atomic.Pointer[tls.Certificate]
}

func (k *keeper) path() string { return filepath.Join(k.dir, k.name+".pem") }

// take loads the certificate, or issues one: the first, or one in place of a
// certificate that has ended or that the book does not know as good, as after
// the restore of a backup. One that is only due serves on until Run has renewed
// it, so that a start does not hang on a renewal.
func (k *keeper) take(ctx context.Context) error {
	c, err := tls.LoadX509KeyPair(k.path(), k.path())
	if errors.Is(err, fs.ErrNotExist) {
		return k.renew(ctx)
	}
	if err != nil {
		return &hinted{err: fmt.Errorf("loading the node's certificate %s: %w", k.path(), err), hint: "remove the file, and the next start issues a new one", code: exitUnready}
	}
	good, err := k.good(ctx, c.Leaf)
	if err != nil {
		return err
	}
	if !good || !k.now().Before(c.Leaf.NotAfter) {
		return k.renew(ctx)
	}
	k.cur.Store(&c)
	return nil
}

// good tells whether the book knows a certificate and its status is good.
func (k *keeper) good(ctx context.Context, cert *x509.Certificate) (good bool, err error) {
	serial, err := store.SerialFrom(cert.SerialNumber)
	if err != nil {
		return false, nil // not one of this book
	}
	err = k.book.View(ctx, func(tx *store.Tx) error {
		for c, err := range store.Certificates.Scan(tx, "serial", store.Key(serial)) {
			if err != nil {
				return err
			}
			s, err := store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial))
			if err != nil {
				return err
			}
			good = good || s.State == store.Good && bytes.Equal(c.DER, cert.Raw)
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("looking up the node's certificate %q: %w", k.name, err)
	}
	return good, nil
}

// due is when a third of the certificate's life is left.
func (k *keeper) due() time.Time {
	leaf := k.cur.Load().Leaf
	return leaf.NotAfter.Add(-k.span() / 3)
}

// span is how long the certificate is made for.
func (k *keeper) span() time.Duration {
	if k.life > 0 {
		return k.life
	}
	leaf := k.cur.Load().Leaf
	return leaf.NotAfter.Sub(leaf.NotBefore)
}

// renew issues a certificate for a new key and replaces the file in one step,
// so that a crash leaves the old pair or the new one.
func (k *keeper) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	r := ca.Request{CA: k.ca, Profile: k.profile, CSR: csr, Name: policy.Name{DNS: k.dns}}
	if k.profile == "client" {
		r.Name.CommonName = k.dns[0]
	}
	if k.life > 0 {
		r.NotAfter = k.now().Add(k.life)
	}
	certs, err := k.authority.Issue(ctx, ca.Order{Requests: []ca.Request{r}, Requester: "node:" + k.name})
	if err != nil {
		return fmt.Errorf("issuing the node's certificate %q: %w", k.name, err)
	}
	authority, err := caRecord(ctx, k.book, certs[0].CA)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for _, der := range append([][]byte{certs[0].DER, authority.Certificate}, withoutRoot(authority.Chain)...) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	c, err := tls.X509KeyPair(out, out)
	if err != nil {
		return fmt.Errorf("pairing the node's new certificate: %w", err)
	}
	if err := replaceFile(k.path(), out, 0o600); err != nil {
		return fmt.Errorf("keeping the node's new certificate: %w", err)
	}
	k.cur.Store(&c)
	k.log.Info("took up a new node certificate", "name", k.name, "serial", certs[0].Serial.String(), "not_after", certs[0].NotAfter)
	return nil
}

// Run renews in time, until ctx ends. A renewal that fails is tried again every
// minute, or sooner where the certificate is short-lived; the old one serves on.
func (k *keeper) Run(ctx context.Context) error {
	for {
		wait := max(k.due().Sub(k.now()), 0)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if err := k.renew(ctx); err != nil {
			k.log.Error("renewing the node's certificate failed", "name", k.name, "error", err, "not_after", k.cur.Load().Leaf.NotAfter)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(min(time.Minute, k.span()/30)):
			}
		}
	}
}

func (k *keeper) server(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.cur.Load(), nil }

func (k *keeper) client(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return k.cur.Load(), nil
}

// replaceFile puts data at path in one step: written beside it, made durable,
// renamed.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	// Always the same name: what a crash leaves, and it may hold a key, is gone
	// with the next try.
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err = f.Chmod(mode); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
