package responder_test

import (
	"crypto"
	"encoding/base64"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hufu/internal/ocsp"
	"hufu/internal/testpki"
	"hufu/store"
)

// judges has openssl and GnuTLS say what they think of answers.
type judges struct {
	t            *testing.T
	dir          string
	issuer, root string
}

func newJudges(t *testing.T, w *world) *judges {
	j := &judges{t: t, dir: t.TempDir()}
	j.issuer, j.root = j.pem("issuer.pem", w.CA("services").Record.Certificate), j.pem("root.pem", w.Root.Record.Certificate)
	return j
}

func (j *judges) write(name string, b []byte) string {
	j.t.Helper()
	path := filepath.Join(j.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		j.t.Fatal(err)
	}
	return path
}

func (j *judges) pem(name string, der []byte) string {
	return j.write(name, testpki.PEM("CERTIFICATE", der))
}

// says runs a program and looks for words in what it says.
func (j *judges) says(words []string, program string, args ...string) {
	j.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		j.t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		return
	}
	for _, want := range words {
		if !strings.Contains(string(out), want) {
			j.t.Errorf("%s %s does not say %q:\n%s", program, strings.Join(args, " "), want, out)
		}
	}
}

// TestOCSPTool has GnuTLS ask, with and without a nonce, and judge.
func TestOCSPTool(t *testing.T) {
	w := newWorld(t, nil)
	j := newJudges(t, w)
	good, held, revoked := w.issue(), w.issue(), w.issue()
	w.set(held, store.Held, 6)
	w.set(revoked, store.Revoked, 1)
	for _, nonce := range []string{"--nonce", "--no-nonce"} {
		for status, c := range map[string]*store.Certificate{"good": good, "revoked": revoked} {
			j.says([]string{"Verifying OCSP Response: Success", "Certificate Status: " + status}, "ocsptool", "--ask="+w.url+"/ocsp/services", nonce,
				"--load-issuer", j.issuer, "--load-cert", j.pem(status+".pem", c.DER), "--load-trust", j.issuer)
		}
	}
	for _, c := range []*store.Certificate{good, held} {
		_, body := w.get("/ocsp/services/" + base64.StdEncoding.EncodeToString(testpki.Must(ocsp.MakeRequest(nil, w.id(c.Serial)))))
		j.says([]string{"Verifying OCSP Response: Success"}, "ocsptool", "--verify-response", "--load-response", j.write("response.der", body), "--load-trust", j.issuer)
	}
}

// TestOpenSSLReadsGET has openssl judge what GET gave, of several serial numbers too.
func TestOpenSSLReadsGET(t *testing.T) {
	w := newWorld(t, nil)
	j := newJudges(t, w)
	good, revoked := w.issue(), w.issue()
	w.set(revoked, store.Revoked, 4)
	sha1 := func(c *store.Certificate) ocsp.CertID { return w.issuer().CertID(crypto.SHA1, c.Serial[:]) }
	judge := func(hash string, der []byte, words ...string) {
		t.Helper()
		res, body := w.get("/ocsp/services/" + url.PathEscape(base64.StdEncoding.EncodeToString(der)))
		if res.ContentLength != int64(len(body)) {
			t.Errorf("%d octets came with the length %d", len(body), res.ContentLength)
		}
		args := []string{"ocsp", "-respin", j.write("response.der", body), "-no_nonce", "-CAfile", j.root, "-verify_other", j.issuer, "-issuer", j.issuer, hash}
		for _, c := range []*store.Certificate{good, revoked} {
			if strings.Contains(strings.Join(words, " "), c.Serial.String()) {
				args = append(args, "-cert", j.pem(c.Serial.String(), c.DER))
			}
		}
		j.says(append(words, "Response verify OK"), "openssl", args...)
	}
	isGood, isRevoked := good.Serial.String()+": good", revoked.Serial.String()+": revoked"
	judge("-sha256", testpki.Must(ocsp.MakeRequest(nil, w.id(good.Serial))), isGood)
	judge("-sha1", testpki.Must(ocsp.MakeRequest(nil, sha1(good))), isGood)
	judge("-sha1", testpki.Must(ocsp.MakeRequest(nil, sha1(revoked))), isRevoked, "Reason: superseded")
	judge("-sha256", testpki.Must(ocsp.MakeRequest(nil, w.id(good.Serial), w.id(revoked.Serial))), isGood, isRevoked)
	many := make([]ocsp.CertID, ocsp.MaxSerials)
	for i := range many {
		many[i] = w.id([]store.Serial{good.Serial, revoked.Serial}[i%2])
	}
	judge("-sha256", testpki.Must(ocsp.MakeRequest(nil, many...)), isGood, isRevoked)
}

// TestOpenSSL has openssl ask by POST, several serial numbers at once, and judge.
func TestOpenSSL(t *testing.T) {
	w := newWorld(t, nil)
	j := newJudges(t, w)
	good, held, revoked := w.issue(), w.issue(), w.issue()
	w.set(held, store.Held, 6)
	w.set(revoked, store.Revoked, 1)
	for _, hash := range []string{"-sha1", "-sha256"} {
		for _, nonce := range []string{"-nonce", "-no_nonce"} {
			j.says([]string{"Response verify OK", "good.pem: good", "held.pem: revoked", "Reason: certificateHold", "revoked.pem: revoked", "Reason: keyCompromise", "0x0123: unknown"},
				"openssl", "ocsp", "-url", w.url+"/ocsp/services", "-CAfile", j.root, "-verify_other", j.issuer, "-issuer", j.issuer, hash, nonce,
				"-cert", j.pem("good.pem", good.DER), "-cert", j.pem("held.pem", held.DER), "-cert", j.pem("revoked.pem", revoked.DER), "-serial", "0x0123")
		}
	}
}
