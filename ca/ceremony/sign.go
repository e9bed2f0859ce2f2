package ceremony

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hufu/hsm"
	"hufu/internal/crl"
	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

const day = 24 * time.Hour

// makeKey makes the root's key, or takes the one that exists, and writes down what the
// token says of it.
func (r *room) makeKey(ctx context.Context) error {
	text := "the root's key was found in the token"
	if r.old == nil {
		kind, err := hsm.ParseKeyKind(r.script.Root.Algorithm)
		if err != nil {
			return err
		}
		if r.key, err = r.token.Generate(ctx, hsm.KeySpec{Label: r.script.Root.Key, Kind: kind, Use: hsm.Sign}); err != nil {
			return err
		}
		text = "the root's key was made in the token"
	}
	f := attributeFacts(r.key)
	return r.log.write(actKey, fmt.Sprintf("%s: %q, %v, SPKI %x", text, r.key.Label(), r.key.Kind(), r.key.SPKI()), f)
}

func attributeFacts(k *hsm.Key) facts {
	a, spki := k.Attributes(), k.SPKI()
	return facts{
		"label": k.Label(), "algorithm": k.Kind().String(), "spki": fmt.Sprintf("%x", spki),
		"sensitive": strconv.FormatBool(a.Sensitive), "always_sensitive": strconv.FormatBool(a.AlwaysSensitive),
		"extractable": strconv.FormatBool(a.Extractable), "never_extractable": strconv.FormatBool(a.NeverExtractable),
		"local": strconv.FormatBool(a.Local), "sign": strconv.FormatBool(a.Sign), "decrypt": strconv.FormatBool(a.Decrypt),
		"derive": strconv.FormatBool(a.Derive), "unwrap": strconv.FormatBool(a.Unwrap), "token": strconv.FormatBool(a.Token),
	}
}

// existingKey finds the key of a root's certificate and refuses one that could leave.
func existingKey(ctx context.Context, t *hsm.Token, root []byte) (*hsm.Key, error) {
	certificate, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, fmt.Errorf("reading the root's certificate: %w", err)
	}
	k, err := t.Key(ctx, certificate.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("finding the root's key: %w", err)
	}
	if a := k.Attributes(); !a.Sensitive || a.Extractable || !a.Sign || a.Decrypt || a.Derive || a.Unwrap {
		return nil, fmt.Errorf("the key %q is not fit to be a root's: it must be sensitive, not extractable, and for signing only; the token says %+v", k.Label(), a)
	}
	return k, nil
}

// certifyRoot signs the root's certificate and sets up its issuer.
func (r *room) certifyRoot(ctx context.Context) error {
	r.root = r.old
	if r.old == nil {
		if err := r.selfSign(ctx); err != nil {
			return err
		}
	}
	if err := checkRoot(r.root, r.env.Now()); err != nil {
		return err
	}
	if err := r.keep(rootID+".cer", "the root's certificate", r.root); err != nil {
		return err
	}
	var err error
	r.issuer, err = r.newIssuer(r.root, r.key.Within(ctx))
	return err
}

func (r *room) newIssuer(root []byte, key crypto.Signer) (*issuance.Issuer, error) {
	return issuance.NewIssuer(issuance.Config{
		CA:  store.CA{ID: rootID, Line: rootID, Generation: 1, Kind: policy.KindRoot, Suite: "intl", Certificate: root},
		Key: key, Domain: r.script.Domain, BaseURL: r.script.BaseURL, Now: r.env.Now,
	})
}

func (r *room) selfSign(ctx context.Context) error {
	token, err := r.prepareRoot(r.key.Within(ctx))
	if err != nil {
		return err
	}
	if err := r.tellPrepared(rootID, token); err != nil {
		return err
	}
	if err := r.confirm(ctx, rootID, "The root is about to be signed:\n"+describe(rootID, token)); err != nil {
		return err
	}
	if r.root, err = issuance.SelfSign(ctx, token); err != nil {
		return err
	}
	return signedAsPrepared(r.root, token)
}

func (r *room) prepareRoot(key crypto.Signer) (*issuance.Token, error) {
	serial, err := issuance.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	q := issuance.RootRequest{
		ID: rootID, Country: r.script.Country, Organisation: r.script.Organisation, CommonName: r.script.Root.CommonName,
		Domain: r.script.Domain, Serial: serial, NotBefore: r.env.Now(),
	}
	if r.script.Root.Days > 0 {
		q.NotAfter = q.NotBefore.Add(time.Duration(r.script.Root.Days) * day)
	}
	return issuance.PrepareRoot(key, q)
}

// tryOut makes the new root and prepares the working CAs under it with a key that is
// thrown away, so that a fault of the script is found before the real key is made. The
// linter has its only look at the root before it is signed here: it knows a root by its
// own signature.
func (r *room) tryOut(ctx context.Context) error {
	kind, err := hsm.ParseKeyKind(r.script.Root.Algorithm)
	if err != nil {
		return err
	}
	key, err := throwAway(kind)
	if err != nil {
		return err
	}
	token, err := r.prepareRoot(key)
	if err != nil {
		return err
	}
	root, err := issuance.SelfSign(ctx, token)
	if err != nil {
		return err
	}
	if err := issuance.Lint(root); err != nil {
		return err
	}
	issuer, err := r.newIssuer(root, key)
	if err != nil {
		return err
	}
	for _, q := range r.requests {
		if _, err := r.prepareCA(issuer, q); err != nil {
			return fmt.Errorf("CA %s: %w", q.ID, err)
		}
	}
	return nil
}

func throwAway(kind hsm.KeyKind) (crypto.Signer, error) {
	switch kind {
	case hsm.P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case hsm.P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case hsm.RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case hsm.RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("a root's key is p256, p384, rsa3072 or rsa4096, not %v", kind)
}

// tellPrepared writes down what is to be signed before the key is used.
func (r *room) tellPrepared(id string, token *issuance.Token) error {
	record := token.Record()
	return r.log.write(actPrepared, fmt.Sprintf("the certificate of CA %s is prepared and found good: serial %s", id, token.Serial()),
		facts{"ca": id, "serial": token.Serial().String(), "tbs": token.TBSHash().String(), "spki": record.SPKI.String(), "subject": record.Subject})
}

func describe(id string, token *issuance.Token) string {
	record := token.Record()
	return fmt.Sprintf("  CA %s: %s\n    key %s\n    %s to %s\n", id, record.Subject, record.SPKI,
		record.NotBefore.Format(time.DateTime), record.NotAfter.Format(time.DateTime))
}

// signedAsPrepared makes sure that what was judged is what was signed.
func signedAsPrepared(der []byte, token *issuance.Token) error {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if store.Sum(certificate.RawTBSCertificate) != token.TBSHash() {
		return errors.New("what was signed is not what was prepared")
	}
	return issuance.Lint(der)
}

// request is a working CA's request as it was brought.
type request struct {
	Request
	csr []byte // DER
}

// readRequests reads the requests and compares each with the hash in the script.
func (r *room) readRequests() error {
	for _, q := range r.script.Requests {
		der, err := readDER(q.File, "CERTIFICATE REQUEST")
		if err != nil {
			return err
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(der)); sum != strings.ToLower(q.SHA256) {
			return fmt.Errorf("the request of CA %s in %s is not the one that the script means: its SHA-256 is %s, the script says %s; "+
				"find out who changed which, and ask the CA's operator for the hash again", q.ID, q.File, sum, q.SHA256)
		}
		if _, err := issuance.ParseCSR(der); err != nil {
			return fmt.Errorf("the request of CA %s: %w", q.ID, err)
		}
		r.requests = append(r.requests, &request{Request: q, csr: der})
	}
	return nil
}

// certifyRequests prepares every working CA's certificate before it signs the first.
func (r *room) certifyRequests(ctx context.Context) error {
	if len(r.requests) == 0 {
		return nil
	}
	var tokens []*issuance.Token
	var list strings.Builder
	list.WriteString("These working CAs are about to be certified:\n")
	for _, q := range r.requests {
		token, err := r.prepareCA(r.issuer, q)
		if err != nil {
			return fmt.Errorf("CA %s: %w", q.ID, err)
		}
		if err := r.tellPrepared(q.ID, token); err != nil {
			return err
		}
		tokens = append(tokens, token)
		fmt.Fprintf(&list, "%s    request %x\n", describe(q.ID, token), sha256.Sum256(q.csr))
	}
	if err := r.confirm(ctx, "requests", list.String()); err != nil {
		return err
	}
	for i, q := range r.requests {
		der, err := r.issuer.Issue(ctx, tokens[i])
		if err == nil {
			err = signedAsPrepared(der, tokens[i])
		}
		if err == nil {
			err = checkCA(der, q.csr, r.root, r.env.Now())
		}
		if err == nil {
			err = r.keep(q.ID+".cer", "the certificate of CA "+q.ID, der)
		}
		if err != nil {
			return fmt.Errorf("CA %s: %w", q.ID, err)
		}
	}
	return nil
}

// prepareCA builds, judges and lints a working CA's certificate.
func (r *room) prepareCA(issuer *issuance.Issuer, q *request) (*issuance.Token, error) {
	serial, err := issuance.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := issuance.CARequest{ID: q.ID, Kind: q.Kind, City: q.City, CSR: q.csr, Serial: serial}
	if q.Days > 0 {
		ca.NotAfter = r.env.Now().Add(time.Duration(q.Days) * day)
	}
	token, err := issuer.PrepareCA(ca)
	if err != nil {
		return nil, err
	}
	return token, token.Lint()
}

// signCRL signs the root's list.
func (r *room) signCRL(ctx context.Context) error {
	now := r.env.Now().UTC().Truncate(time.Second)
	t := crl.Template{ThisUpdate: now, NextUpdate: now.Add(time.Duration(r.script.CRL.Days) * day), Number: r.script.CRL.Number}
	if t.Number == 0 {
		t.Number = uint64(r.env.Now().UnixMilli())
	}
	var list bytes.Buffer
	if err := r.issuer.SignCRL(ctx, t, r.revoked, &list); err != nil {
		return err
	}
	if err := checkCRL(list.Bytes(), r.root); err != nil {
		return err
	}
	return r.keep(rootID+".crl", fmt.Sprintf("the root's CRL, number %d, good until %s", t.Number, t.NextUpdate.Format(time.DateOnly)), list.Bytes())
}

// revoked gives the entries of the root's CRL.
func (r *room) revoked(yield func(crl.Entry, error) bool) {
	for _, e := range r.script.CRL.Revoked {
		serial, err := store.ParseSerial(e.Serial)
		if !yield(crl.Entry{Serial: serial[:], RevokedAt: e.Time, Reason: e.Reason}, err) || err != nil {
			return
		}
	}
}

// keep writes a file of the ceremony, durably, and then tells of it.
func (r *room) keep(name, what string, content []byte) error {
	path := filepath.Join(r.script.Out, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	r.written = append(r.written, "  "+sum+"  "+name)
	return r.log.write(actFile, fmt.Sprintf("%s: %s, SHA-256 %s", what, name, sum), facts{"file": name, "sha256": sum})
}

// maxInput bounds the files that are brought to a ceremony.
const maxInput = 64 << 10

// readDER reads a file that holds one PEM block of a type, or its DER.
func readDER(path, block string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxInput {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxInput)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, rest := pem.Decode(raw)
	switch {
	case b == nil:
		return raw, nil
	case b.Type != block || len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%s does not hold exactly one %s", path, strings.ToLower(block))
	}
	return b.Bytes, nil
}
