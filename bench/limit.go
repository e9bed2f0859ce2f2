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
	"math/big"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// limit is issuing with everything left out that makes a CA: parse the request
// and check it, encode, sign in the token, check, commit in groups.
type limit struct {
	ca     *x509.Certificate
	key    *bareKey
	db     *bbolt.DB
	queue  chan *entry
	orders []order
}

// entry is a certificate that waits for its commit.
type entry struct {
	serial, der []byte
	done        chan error
}

var certificates = []byte("certificates")

// newLimit makes a CA over the bare key, and its database.
func (b *bench) newLimit(database string) (*limit, error) {
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	l := &limit{key: b.token.bare, queue: make(chan *entry, clients)}
	if _, l.ca, err = hierarchy(root, l.key.Public()); err != nil {
		return nil, err
	}
	if l.db, err = bbolt.Open(filepath.Join(b.dir, database), 0o600, nil); err != nil {
		return nil, err
	}
	err = l.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(certificates)
		return err
	})
	if err != nil {
		return nil, err
	}
	go l.commit()
	b.atEnd(func() error {
		close(l.queue)
		return l.db.Close()
	})
	return l, nil
}

// hierarchy is a root and a working CA whose public key is given.
func hierarchy(root *ecdsa.PrivateKey, working any) (rootCert, workingCert *x509.Certificate, err error) {
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"CN"}, Organization: []string{"Bench"}, CommonName: "Bench Root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	if rootCert, err = certify(t, t, root.Public(), root); err != nil {
		return nil, nil, err
	}
	w := *t
	w.SerialNumber, w.Subject.CommonName, w.MaxPathLenZero = big.NewInt(2), "Bench Services", true
	workingCert, err = certify(&w, rootCert, working, root)
	return rootCert, workingCert, err
}

func certify(template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// policyOID stands in certificates of the limit where Hufu's own stands in its.
var policyOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1, 4}

// issue makes one certificate of what Hufu's profile "server" puts into one.
func (l *limit) issue(o *order) error {
	csr, err := x509.ParseCertificateRequest(o.csr)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	serial := make([]byte, 17)
	rand.Read(serial[1:])
	serial[0] = 1
	now := time.Now()
	id := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	// CreateCertificate encodes once, has the token sign and checks the
	// signature with the CA's key.
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{Country: l.ca.Subject.Country, Organization: l.ca.Subject.Organization, CommonName: o.name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		SubjectKeyId: id[:20], DNSNames: []string{o.name}, PolicyIdentifiers: []asn1.ObjectIdentifier{policyOID},
		CRLDistributionPoints: []string{"http://localhost:8080/crl/services.crl"}, OCSPServer: []string{"http://localhost:8080/ocsp/services"},
		IssuingCertificateURL: []string{"http://localhost:8080/issuer/services.cer"},
	}, l.ca, csr.PublicKey, l.key)
	if err != nil {
		return err
	}
	e := &entry{serial: serial, der: der, done: make(chan error, 1)}
	l.queue <- e
	return <-e.done
}

// commit writes what waits in one transaction, and then what came to wait
// meanwhile.
func (l *limit) commit() {
	for first := range l.queue {
		group := []*entry{first}
		for len(group) < cap(l.queue) && len(l.queue) > 0 {
			group = append(group, <-l.queue)
		}
		err := l.db.Update(func(tx *bbolt.Tx) error {
			var all error
			for _, e := range group {
				all = errors.Join(all, tx.Bucket(certificates).Put(e.serial, e.der))
			}
			return all
		})
		for _, e := range group {
			e.done <- err
		}
	}
}

func (l *limit) side() side {
	return side{name: "limit", pid: os.Getpid(),
		prepare: func(n int) (err error) {
			l.orders, err = newOrders(n, nil)
			return err
		},
		work: func(ctx context.Context, n int) error {
			return together(ctx, clients, n, func(_ context.Context, _, i int) error { return l.issue(&l.orders[i]) })
		}}
}
