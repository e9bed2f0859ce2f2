// Command million makes a CRL of a book with a million revoked certificates and
// says what it took: seconds, and octets of anonymous memory at the peak.
//
//	million make DIR N      a CA and a book with N revoked certificates
//	million fill FILE N     N revoked certificates of the CA "services" in a node's book
//	million readers FILE N  N readers with their certificates in a node's book
//	million hufu DIR        its CRL by Hufu: streamed from the book into the book
//	million x509 DIR        its CRL by x509.CreateRevocationList, fed from the same book
//
// Each is a process of its own, so that the memory of one is not that of another.
package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/store"
	"hufu/store/bolt"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "million: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 3 && args[0] == "make":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return create(ctx, args[1], n)
	case len(args) == 3 && (args[0] == "fill" || args[0] == "readers"):
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		engine, err := bolt.Open(args[1], bolt.Options{MustExist: true})
		if err != nil {
			return err
		}
		book, err := store.Open(ctx, store.Config{Engine: engine})
		if err != nil {
			return err
		}
		put := fill
		if args[0] == "readers" {
			put = enrol
		}
		return errors.Join(put(ctx, book, n), book.Close())
	case len(args) == 2 && args[0] == "hufu":
		return measured(ctx, args[1], byHufu)
	case len(args) == 2 && args[0] == "x509":
		return measured(ctx, args[1], byX509)
	}
	return errors.New("usage: million make DIR N | fill FILE N | readers FILE N | hufu DIR | x509 DIR")
}

// create makes the CA and its book.
func create(ctx context.Context, dir string, n int) error {
	world, err := testpki.New(testpki.Config{})
	if err != nil {
		return err
	}
	services := world.CA("services")
	key, err := x509.MarshalPKCS8PrivateKey(services.Signer.Key)
	if err != nil {
		return err
	}
	record, err := json.Marshal(services.Record)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "ca.json"), record, 0o600),
		os.WriteFile(filepath.Join(dir, "ca.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)); err != nil {
		return err
	}
	engine, err := bolt.Open(filepath.Join(dir, "book.db"), bolt.Options{})
	if err != nil {
		return err
	}
	defer engine.Close()
	book, err := store.Create(ctx, store.Config{Engine: engine})
	if err != nil {
		return err
	}
	if err := book.Update(ctx, func(tx *store.Tx) error { return store.CAs.Insert(tx, &services.Record) }); err != nil {
		return err
	}
	return fill(ctx, book, n)
}

// fill records n revoked certificates.
func fill(ctx context.Context, book *store.Book, n int) error {
	end := time.Now().Add(365 * 24 * time.Hour).UTC().Truncate(time.Second)
	for left := n; left > 0; {
		batch := min(left, 20_000)
		left -= batch
		err := book.Update(ctx, func(tx *store.Tx) error {
			for i := range batch {
				var serial store.Serial
				rand.Read(serial[1:])
				serial[0] = 1
				s := store.Status{CA: "services", Serial: serial, State: store.Revoked, Reason: 1 + i%5, Time: tx.Now(), NotAfter: end}
				s.Seq = tx.Append(store.Event{Kind: store.KindRevoked, CA: s.CA, Serial: serial, Actor: "bench"})
				if err := store.Statuses.Insert(tx, &s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measured runs f and prints what it took.
func measured(ctx context.Context, dir string, f func(context.Context, *subject) (int64, error)) error {
	s, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer s.book.Close()
	stop := make(chan struct{})
	var peak atomic.Int64
	go func() {
		for {
			peak.Store(max(peak.Load(), anonymous()))
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	began := time.Now()
	size, err := f(ctx, s)
	took := time.Since(began)
	close(stop)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"seconds": took.Seconds(), "peak": max(peak.Load(), anonymous()), "size": size})
}

// anonymous is the process's anonymous memory now (proc_pid_status(5), RssAnon).
func anonymous() int64 {
	raw, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := bytes.Cut(raw, []byte("RssAnon:"))
	var kib int64
	fmt.Sscan(string(rest[:min(len(rest), 30)]), &kib)
	return kib << 10
}

// subject is the CA with its key, and its book.
type subject struct {
	book   *store.Book
	record store.CA
	key    crypto.Signer
}

// open opens what create made.
func open(ctx context.Context, dir string) (*subject, error) {
	s := new(subject)
	record, err := os.ReadFile(filepath.Join(dir, "ca.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(record, &s.record); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	s.key = key.(crypto.Signer)
	engine, err := bolt.Open(filepath.Join(dir, "book.db"), bolt.Options{MustExist: true})
	if err != nil {
		return nil, err
	}
	s.book, err = store.Open(ctx, store.Config{Engine: engine})
	return s, err
}

// byHufu signs the list and brings it into the book, durably.
func byHufu(ctx context.Context, s *subject) (size int64, err error) {
	issuer, err := issuance.NewIssuer(issuance.Config{CA: s.record, Key: s.key, Domain: testpki.Domain, BaseURL: "http://pki." + testpki.Domain})
	if err != nil {
		return 0, err
	}
	authority, err := ca.New(ca.Config{Book: s.book, Issuers: []*issuance.Issuer{issuer}, Node: "bench"})
	if err != nil {
		return 0, err
	}
	list, err := authority.PublishCRL(ctx, s.record.ID)
	if err != nil {
		return 0, err
	}
	return list.Size, nil
}

// byX509 signs the list in memory and keeps it nowhere.
func byX509(ctx context.Context, s *subject) (size int64, err error) {
	issuer, err := x509.ParseCertificate(s.record.Certificate)
	if err != nil {
		return 0, err
	}
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixMilli()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(24 * time.Hour)}
	err = s.book.View(ctx, func(tx *store.Tx) error {
		for status, err := range store.Statuses.Scan(tx, "crl", store.Key(s.record.ID)) {
			if err != nil {
				return err
			}
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: status.Serial.BigInt(), RevocationTime: status.Time, ReasonCode: status.Reason})
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, issuer, s.key)
	return int64(len(der)), err
}
