package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"runtime"
	"time"

	"hufu/api/client"
	"hufu/ca"
	"hufu/internal/oid"
)

// batchCity is the city whose CA quickstart makes.
const batchCity = "330100"

// newPairs makes requests for readers' pairs with fresh keys and numbers.
func newPairs(n int) ([]client.PairRequest, error) {
	pairs := make([]client.PairRequest, n)
	return pairs, together(context.Background(), runtime.NumCPU(), n, func(_ context.Context, _, i int) error {
		sign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		encrypt, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		spki, err := x509.MarshalPKIXPublicKey(encrypt.Public())
		if err != nil {
			return err
		}
		p := &pairs[i]
		p.Number, p.City = fmt.Sprintf("b%09d", orderNumber.Add(1)), batchCity
		p.CSR, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "reader " + p.Number}, ExtraExtensions: []pkix.Extension{{Id: oid.EncryptionKey, Value: spki}}}, sign)
		return err
	})
}

// batching measures issue.batch and issue.batch.vs-stepca. step-ca has no batch: its
// figure is that of issue.single, of this run.
func (b *bench) batching(ctx context.Context) ([]figure, error) {
	n, err := b.startNode(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := b.newLimit("batch.db")
	if err != nil {
		return nil, fmt.Errorf("making the limit: %w", err)
	}
	sides := []side{n.batchSide(), limit.batchSide()}
	if b.peer == 0 { // issue.single was not asked for
		peer, err := b.startStepCA(ctx)
		if err != nil {
			return nil, fmt.Errorf("starting step-ca: %w", err)
		}
		sides = append(sides, peer.side())
	}
	rates, err := b.race(ctx, 5, 500, 4*time.Second, sides...)
	if err != nil {
		return nil, err
	}
	if len(rates) == 3 {
		b.peer = rates[2]
	}
	hufu, bare := 2*rates[0], 2*rates[1] // of pairs
	return []figure{
		newFigure("issue.batch", hufu, bare, "bare loop: parse the CSR of a pair and check it, encode two, sign both in SoftHSM, check, commit in groups", 0.65, "certificates/s"),
		newFigure("issue.batch.vs-stepca", hufu, b.peer, "step-ca v0.30.2 as in issue.single; it has no batch", 6, "certificates/s"),
	}, nil
}

// batchSide is Hufu: one job over the API, from the request to the end of the job.
func (n *node) batchSide() side {
	var pairs []client.PairRequest
	return side{name: "hufu", pid: n.pid,
		prepare: func(count int) (err error) {
			pairs, err = newPairs(count)
			return err
		},
		work: func(ctx context.Context, count int) error {
			j, err := n.Operator.IssueBatch(ctx, client.BatchRequest{City: batchCity, Readers: pairs})
			if err != nil {
				return err
			}
			if j, err = n.Operator.WaitJob(ctx, j.ID, nil); err != nil {
				return err
			}
			if j.State != "done" || j.Failures != 0 || j.Items != uint64(count) {
				return fmt.Errorf("the job is %s with %d items and %d failures of %d pairs: %s", j.State, j.Items, j.Failures, count, j.Error)
			}
			return nil
		}}
}

func (l *limit) batchSide() side {
	var pairs []client.PairRequest
	return side{name: "limit", pid: os.Getpid(),
		prepare: func(count int) (err error) {
			pairs, err = newPairs(count)
			return err
		},
		work: func(ctx context.Context, count int) error {
			return together(ctx, clients, count, func(_ context.Context, _, i int) error { return l.issuePair(&pairs[i]) })
		}}
}

// issuePair makes the two certificates of what Hufu's profiles put into those of a
// reader.
func (l *limit) issuePair(p *client.PairRequest) error {
	csr, err := x509.ParseCertificateRequest(p.CSR)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	spki, err := ca.EncryptionKeyOf(p.CSR)
	if err != nil {
		return err
	}
	encryption, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return err
	}
	sign, err := l.certifyReader(p, csr.RawSubjectPublicKeyInfo, csr.PublicKey, x509.KeyUsageDigitalSignature, oid.EKUClientAuth, oid.EKUTransactionSigning)
	if err != nil {
		return err
	}
	encrypt, err := l.certifyReader(p, spki, encryption, x509.KeyUsageKeyAgreement, oid.EKUScriptEncryption)
	if err != nil {
		return err
	}
	for _, e := range []*entry{sign, encrypt} {
		l.queue <- e
	}
	return errors.Join(<-sign.done, <-encrypt.done)
}

func (l *limit) certifyReader(p *client.PairRequest, spki []byte, public any, usage x509.KeyUsage, purposes ...asn1.ObjectIdentifier) (*entry, error) {
	serial := make([]byte, 17)
	rand.Read(serial[1:])
	serial[0] = 1
	now := time.Now()
	id := sha256.Sum256(spki)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{Country: l.ca.Subject.Country, Organization: l.ca.Subject.Organization, CommonName: p.Number},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(12 * time.Hour),
		KeyUsage: usage, UnknownExtKeyUsage: purposes, BasicConstraintsValid: true,
		SubjectKeyId: id[:20], DNSNames: []string{"r" + p.Number + "." + p.City + ".card.example"}, PolicyIdentifiers: []asn1.ObjectIdentifier{policyOID},
		CRLDistributionPoints: []string{"http://localhost:8080/crl/330100.crl"}, OCSPServer: []string{"http://localhost:8080/ocsp/330100"},
		IssuingCertificateURL: []string{"http://localhost:8080/issuer/330100.cer"},
	}, l.ca, public, l.key)
	if err != nil {
		return nil, err
	}
	return &entry{serial: serial, der: der, done: make(chan error, 1)}, nil
}
