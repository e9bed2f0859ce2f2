package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"hufu/api/client"
	"hufu/examples/topup/trust"
	"hufu/verify"
)

// The reader of the story, besides those that the world begins with.
const readerNumber = "888001"

const cardASN = "33010000000000012345"

func (s *stage) world(ctx context.Context) error {
	c := exec.CommandContext(ctx, s.program("hufu"), "quickstart", s.dir, "--readers", fmt.Sprint(s.readers))
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return err
	}
	return s.readFacts()
}

// search asks a directory as anyone may and gives its entries as LDIF. It asks
// without TLS: libldap takes "localhost" for the machine's own name, which the
// certificate of a world for one machine does not know. What it reads is public
// and signed.
func (s *stage) search(ctx context.Context, url, base, filter string, attributes ...string) ([]string, error) {
	args := append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-H", url, "-b", base, filter}, attributes...)
	out, err := exec.CommandContext(ctx, "ldapsearch", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("ldapsearch at %s: %w", url, said(err))
	}
	var entries []string
	for e := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n\n") {
		if e != "" {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// directories compares what both hold, octet for octet, once both have caught
// up.
func (s *stage) directories(ctx context.Context) error {
	base := "ou=" + s.facts.City + "," + s.facts.Base
	want := 2 * s.readers
	var sums [2][32]byte
	for i, url := range s.facts.Directories {
		var entries []string
		err := until(ctx, 20*time.Second, 50*time.Millisecond, func() (bool, error) {
			var err error
			entries, err = s.search(ctx, url, base, "(&(hufuSerial=*)(hufuReader=*)(hufuStatus=good))", "userCertificate;binary", "hufuStatus", "hufuSeq", "hufuReader")
			return len(entries) == want, err
		})
		if err != nil {
			return err
		}
		if len(entries) != want {
			return fmt.Errorf("%s holds %d reader certificates, not %d", url, len(entries), want)
		}
		sums[i] = sha256.Sum256([]byte(sorted(entries)))
		fmt.Printf("   $ ldapsearch -x -H %s -b %s '(&(hufuReader=*)(hufuStatus=good))'\n   %d entries, SHA-256 of them sorted: %x\n", url, base, len(entries), sums[i][:12])
	}
	if sums[0] != sums[1] {
		return errors.New("the two directories differ")
	}
	_, err := s.show(ctx, "hufu", "dir", "status", "--client", s.officer("auditor"))
	return err
}

// certificateFiles gives a reader's signing certificate as PEM files for openssl.
func (s *stage) certificateFiles(ctx context.Context, reader string) (cert, issuer, serial string, err error) {
	out, err := s.quiet(ctx, "hufu", "reader", "show", reader, "-o", "json", "--client", s.officer("operator"))
	if err != nil {
		return "", "", "", err
	}
	var r struct{ Sign, CA string }
	if err := json.Unmarshal(out, &r); err != nil {
		return "", "", "", err
	}
	cert, issuer = s.path("demo-"+reader+".pem"), s.path("demo-issuer.pem")
	for file, args := range map[string][]string{cert: {"cert", "show", r.Sign, "--pem"}, issuer: {"ca", "show", r.CA, "--pem"}} {
		out, err := s.quiet(ctx, "hufu", append(args, "--client", s.officer("operator"))...)
		if err != nil {
			return "", "", "", err
		}
		if err := os.WriteFile(file, out, 0o644); err != nil {
			return "", "", "", err
		}
	}
	return cert, issuer, r.Sign, nil
}

func (s *stage) ocspGood(ctx context.Context) error {
	cert, issuer, _, err := s.certificateFiles(ctx, "000001")
	if err != nil {
		return err
	}
	return s.askOpenSSL(ctx, cert, issuer, ": good")
}

func (s *stage) askOpenSSL(ctx context.Context, cert, issuer, want string) error {
	out, err := s.show(ctx, "openssl", "ocsp", "-issuer", issuer, "-cert", cert, "-url", s.facts.Publish+"/ocsp/"+s.facts.City, "-CAfile", s.path("roots.pem"))
	if err != nil {
		return err
	}
	if !bytes.Contains(out, []byte("Response verify OK")) || !bytes.Contains(out, []byte(want)) {
		return fmt.Errorf("openssl does not say %q with a verified answer", want)
	}
	return nil
}

// cast brings the players of a load together.
func (s *stage) cast(ctx context.Context) error {
	reader := s.path("reader")
	if _, err := s.show(ctx, "reader", "make", "-dir", reader, "-number", readerNumber); err != nil {
		return err
	}
	if _, err := s.show(ctx, "hufu", "reader", "issue", reader+"/reader.csr", "--number", readerNumber, "--city", s.facts.City,
		"--out", reader+"/pair.pem", "--client", s.officer("city-operator")); err != nil {
		return err
	}
	if _, err := s.show(ctx, "city", "personalise", "-keys", s.path("city.keys"), "-city", s.facts.City, "-asn", cardASN, "-fen", "10000", "-out", s.path("card.json")); err != nil {
		return err
	}
	if _, err := s.quiet(ctx, "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/",
		"-keyout", s.path("city-tls.key"), "-out", s.path("city-tls.csr")); err != nil {
		return err
	}
	if _, err := s.show(ctx, "hufu", "cert", "issue", s.path("city-tls.csr"), "--ca", "services", "--profile", "server", "--dns", "localhost",
		"--out", s.path("city-tls.pem"), "--client", s.officer("operator")); err != nil {
		return err
	}
	var err error
	if s.card, err = s.start("card", "-state", s.path("card.json")); err != nil {
		return err
	}
	address, err := s.start("city", append([]string{"serve", "-city", s.facts.City, "-keys", s.path("city.keys"), "-ledger", s.path("city-ledger.jsonl"),
		"-certificate", s.path("city-tls.pem"), "-key", s.path("city-tls.key"), "-hufu", s.facts.API,
		"-client-certificate", s.path("officers", "topup-"+s.facts.City+".pem"), "-client-key", s.path("officers", "topup-"+s.facts.City+".key")}, s.trust()...)...)
	s.city = strings.Replace(address, "127.0.0.1", "localhost", 1)
	return err
}

// trustConfig says whom the programs of the story believe.
func (s *stage) trustConfig() trust.Config {
	return trust.Config{Roots: s.path("roots.pem"), Publish: s.facts.Publish, Domain: s.facts.Domain, CAs: []string{"device", s.facts.City, "services", "staff"}}
}

// trust is the same as flags.
func (s *stage) trust() []string {
	c := s.trustConfig()
	return []string{"-roots", c.Roots, "-publish", c.Publish, "-domain", c.Domain, "-cas", strings.Join(c.CAs, ",")}
}

func (s *stage) runLoad(ctx context.Context) ([]byte, error) {
	return s.show(ctx, "reader", append([]string{"load", "-dir", s.path("reader"), "-yuan", "50.00", "-card", s.card, "-city", s.city}, s.trust()...)...)
}

// balance reads the card's own memory.
func (s *stage) balance() (uint32, error) {
	raw, err := os.ReadFile(s.path("card.json"))
	if err != nil {
		return 0, err
	}
	var m struct{ Balance uint32 }
	return m.Balance, json.Unmarshal(raw, &m)
}

func (s *stage) load(ctx context.Context) error {
	if _, err := s.runLoad(ctx); err != nil {
		return err
	}
	fen, err := s.balance()
	if err != nil {
		return err
	}
	if fen != 15000 {
		return fmt.Errorf("the card holds %d fen, not 15000", fen)
	}
	fmt.Println("   on the card: 150.00 yuan, with a valid TAC")
	out, err := s.show(ctx, "hufu", "topup", "list", "--city", s.facts.City, "--client", s.officer("auditor"))
	if err == nil && !bytes.Contains(out, []byte("credited")) {
		err = errors.New("the ledger does not say credited")
	}
	return err
}

// revoke revokes the reader and measures when each place shows it, from the
// moment the request is sent.
func (s *stage) revoke(ctx context.Context) error {
	cert, issuer, serial, err := s.certificateFiles(ctx, readerNumber)
	if err != nil {
		return err
	}
	places, err := s.places(serial, cert)
	if err != nil {
		return err
	}
	operator, err := s.operator()
	if err != nil {
		return err
	}
	defer operator.Close()
	group, watching := errgroup.WithContext(ctx)
	took := make([]time.Duration, len(places))
	began := time.Now()
	for i, p := range places {
		group.Go(func() error {
			err := until(watching, 30*time.Second, p.every, func() (bool, error) { return p.shows(watching) })
			took[i] = time.Since(began)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	fmt.Printf("   POST %s/v1/readers/%s/revoke\n", s.facts.API, readerNumber)
	if _, err := operator.RevokeReader(ctx, readerNumber, client.Revocation{Reason: 1, Note: "stolen"}); err != nil {
		return err
	}
	fmt.Printf("   %-24s after %4d ms\n", "answered", time.Since(began).Milliseconds())
	if err := group.Wait(); err != nil {
		return err
	}
	for i, p := range places {
		fmt.Printf("   %-24s after %4d ms: revoked (asked every %s)\n", p.name, took[i].Milliseconds(), p.every)
	}
	return s.askOpenSSL(ctx, cert, issuer, ": revoked")
}

// operator is the API as the CA operator uses it.
func (s *stage) operator() (*client.Client, error) {
	v, err := trust.Open(s.trustConfig())
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(s.path("officers", "operator.pem"), s.path("officers", "operator.key"))
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{URL: s.facts.API, TLS: &tls.Config{RootCAs: trust.Pool(v), Certificates: []tls.Certificate{cert}}})
}

// place is somewhere a status is published, and how often it is asked.
type place struct {
	name  string
	every time.Duration
	shows func(context.Context) (bool, error)
}

func (s *stage) places(serial, certFile string) ([]place, error) {
	v, err := trust.Open(s.trustConfig())
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	cert, err := v.Chain(block.Bytes, nil, verify.ReaderSigning)
	if err != nil {
		return nil, err
	}
	all := []place{
		{"OCSP", 2 * time.Millisecond, func(ctx context.Context) (bool, error) {
			e, err := v.Status(ctx, cert)
			return e.State == verify.Revoked, err
		}},
		{"CRL over HTTP", 2 * time.Millisecond, func(ctx context.Context) (bool, error) { return s.onCRL(ctx, serial) }},
	}
	for i, url := range s.facts.Directories {
		all = append(all, place{fmt.Sprintf("directory %d (ldapsearch)", i+1), 25 * time.Millisecond, func(ctx context.Context) (bool, error) {
			e, err := s.search(ctx, url, "ou="+s.facts.City+","+s.facts.Base, "(&(hufuSerial="+serial+")(hufuStatus=revoked))", "hufuStatus")
			return len(e) == 1, err
		}})
	}
	return all, nil
}

// onCRL fetches the city CA's list and looks for the serial number.
func (s *stage) onCRL(ctx context.Context, serial string) (bool, error) {
	der, err := fetch(ctx, s.facts.Publish+"/crl/"+s.facts.City+".crl")
	if err != nil {
		return false, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return false, err
	}
	raw, err := os.ReadFile(s.path("demo-issuer.pem"))
	if err != nil {
		return false, err
	}
	block, _ := pem.Decode(raw)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false, err
	}
	if err := list.CheckSignatureFrom(ca); err != nil {
		return false, err
	}
	for _, e := range list.RevokedCertificateEntries {
		if fmt.Sprintf("%034x", e.SerialNumber) == serial {
			return true, nil
		}
	}
	return false, nil
}

// refused is the load that must not happen.
func (s *stage) refused(ctx context.Context) error {
	out, err := s.runLoad(ctx)
	if err == nil {
		return errors.New("a revoked reader loaded a card")
	}
	if !bytes.Contains(out, []byte("revoked")) {
		return fmt.Errorf("the refusal does not name its reason: %s", out)
	}
	fen, err := s.balance()
	if err != nil {
		return err
	}
	if fen != 15000 {
		return fmt.Errorf("the card holds %d fen after a refused load", fen)
	}
	fmt.Println("   refused, and the card still holds 150.00 yuan")
	return nil
}
