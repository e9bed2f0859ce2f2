package ceremony_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/ca/ceremony"
	"hufu/hsm"
	"hufu/internal/softhsm"
	"hufu/issuance"
)

const userPIN = "123456"

// world is a folder with a script, requests and a token.
type world struct {
	dir    string
	home   *softhsm.Home
	serial string // of the root's token
	names  string // what the officers type
	said   bytes.Buffer
	env    ceremony.Env
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), names: strings.Repeat("Li Wei\nWang Fang\n", 10)}
	var err error
	if w.home, err = softhsm.New(filepath.Join(w.dir, "hsm")); err != nil {
		t.Fatal(err)
	}
	if err := w.home.Activate(); err != nil {
		t.Fatal(err)
	}
	if w.serial, err = w.home.Init("root", []byte("87654321"), []byte(userPIN)); err != nil {
		t.Fatal(err)
	}
	w.write(t, "pin", []byte(userPIN), 0o600)
	w.env = ceremony.Env{Out: &w.said, CloneKey: func(context.Context) error {
		_, err := w.home.Clone(w.serial, "copy")
		return err
	}}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(t *testing.T, name string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), content, mode); err != nil {
		t.Fatal(err)
	}
}

// request writes a request of a new key and returns the hash of its DER.
func (w *world) request(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), 0o644)
	return fmt.Sprintf("%x", sha256.Sum256(der))
}

// script is a whole ceremony with two working CAs.
func (w *world) script(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf(`name: Ceremony of the test
officers: [Li Wei, Wang Fang]
country: CN
organisation: Test Cards
domain: card.example
base_url: http://pki.card.example
token: {module: %[1]s, uri: "pkcs11:token=root", pin: {file: pin}}
root: {key: root-1, common_name: Test Root 1}
requests:
  - {id: device, kind: device, file: requests/device.csr, sha256: %[2]s}
  - {id: "330100", kind: city, city: "330100", file: requests/330100.csr, sha256: %[3]s, days: 1000}
crl: {days: 100}
clone: {module: %[1]s, uri: "pkcs11:token=copy", pin: {file: pin}}
out: out
`, w.home.Module(), w.request(t, "requests/device.csr"), w.request(t, "requests/330100.csr"))
}

func (w *world) run(t *testing.T, script string) (*ceremony.Result, error) {
	t.Helper()
	w.write(t, "ceremony.yaml", []byte(script), 0o644)
	s, err := ceremony.Read(w.path("ceremony.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w.env.In = strings.NewReader(w.names)
	return ceremony.Run(context.Background(), s, w.env)
}

func (w *world) mustRun(t *testing.T, script string) *ceremony.Result {
	t.Helper()
	result, err := w.run(t, script)
	if err != nil {
		t.Fatalf("%v\n%s", err, w.said.String())
	}
	return result
}

func (w *world) transcript(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile(w.path("out/" + ceremony.TranscriptName))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (w *world) verify(t *testing.T) (*ceremony.Report, error) {
	t.Helper()
	return ceremony.Verify(w.transcript(t), os.DirFS(w.path("out")))
}

func (w *world) openssl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = w.path("out")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error does not say %q: %v", w, err)
		}
	}
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	result := w.mustRun(t, w.script(t))

	report, err := w.verify(t)
	if err != nil {
		t.Fatal(err)
	}
	if report.Head != result.Head || report.Root != result.Root || report.Name != "Ceremony of the test" ||
		len(report.Officers) != 2 || report.Unattended || report.Rehearsal || report.Ended.Before(report.Began) {
		t.Errorf("report is %+v", report)
	}
	if want := "script.yaml requests/device.csr requests/330100.csr root.cer device.cer 330100.cer root.crl"; strings.Join(report.Files, " ") != want {
		t.Errorf("files are %v", report.Files)
	}
	if !strings.Contains(w.said.String(), result.Head) || !strings.Contains(w.said.String(), "Wang Fang, type your name to confirm the root") {
		t.Errorf("the officers read:\n%s", w.said.String())
	}
	w.judge(t)
}

// judge lets OpenSSL and zlint judge what was made.
func (w *world) judge(t *testing.T) {
	t.Helper()
	w.openssl(t, "x509", "-inform", "DER", "-in", "root.cer", "-out", "root.pem")
	w.openssl(t, "crl", "-inform", "DER", "-in", "root.crl", "-out", "crl.pem", "-CAfile", "root.pem")
	w.openssl(t, "verify", "-x509_strict", "-check_ss_sig", "-CAfile", "root.pem", "root.pem")
	for _, id := range []string{"device", "330100"} {
		w.openssl(t, "x509", "-inform", "DER", "-in", id+".cer", "-out", id+".pem")
		w.openssl(t, "verify", "-x509_strict", "-check_ss_sig", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "root.pem", id+".pem")
	}
	for _, id := range []string{"root", "device", "330100"} {
		der, err := os.ReadFile(w.path("out/" + id + ".cer"))
		if err != nil {
			t.Fatal(err)
		}
		if err := issuance.Lint(der); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// A later ceremony uses the root that exists: another working CA, a revoked one.
func TestLaterCeremony(t *testing.T) {
	w := newWorld(t)
	first := w.mustRun(t, w.script(t))
	if err := os.Rename(w.path("out"), w.path("first")); err != nil {
		t.Fatal(err)
	}
	der, err := os.ReadFile(w.path("first/device.cer"))
	if err != nil {
		t.Fatal(err)
	}
	device, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	script := w.script(t)
	script = strings.Replace(script, "root: {key: root-1, common_name: Test Root 1}", "root: {certificate: first/root.cer}", 1)
	script = strings.Replace(script, "id: device", "id: device.2", 1)
	script = strings.Replace(script, "crl: {days: 100}",
		fmt.Sprintf("crl: {days: 100, revoked: [{serial: %034x, time: 2026-01-02T00:00:00Z, reason: 4}]}", device.SerialNumber), 1)
	w.env.CloneKey = nil // it is there since the first time
	second := w.mustRun(t, script)
	if second.Root != first.Root {
		t.Error("it is another root")
	}
	if report, err := w.verify(t); err != nil || report.Root != first.Root {
		t.Fatalf("%+v, %v", report, err)
	}
	if out := w.openssl(t, "crl", "-inform", "DER", "-in", "root.crl", "-noout", "-text"); !strings.Contains(strings.ToLower(out), fmt.Sprintf("%x", device.SerialNumber)) {
		t.Errorf("the CRL does not revoke it:\n%s", out)
	}
}

// nothingMade fails if a ceremony that was refused left anything.
func (w *world) nothingMade(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(w.path("out")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
	if n := w.keys(t); n != 0 {
		t.Errorf("%d keys were made", n)
	}
}

func (w *world) keys(t *testing.T) int {
	t.Helper()
	token, err := hsm.Open(context.Background(), hsm.Config{Module: w.home.Module(), URI: "pkcs11:token=root;serial=" + w.serial,
		PIN: func() ([]byte, error) { return []byte(userPIN), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	keys, err := token.Keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return len(keys)
}

func TestRefusedBeforeItBegins(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(t *testing.T, w *world, script string) string
		words  []string
	}{
		{"another request", func(t *testing.T, w *world, script string) string {
			w.request(t, "requests/device.csr")
			return script
		}, []string{"CA device", "SHA-256", "is not the one"}},
		{"no request", func(t *testing.T, w *world, script string) string {
			return strings.Replace(script, "requests/device.csr", "requests/none.csr", 1)
		}, []string{"none.csr"}},
		{"not a request", func(t *testing.T, w *world, script string) string {
			w.write(t, "requests/device.csr", []byte("rubbish"), 0o644)
			_, hash, _ := strings.Cut(script, "device.csr, sha256: ")
			return strings.Replace(script, hash[:64], fmt.Sprintf("%x", sha256.Sum256([]byte("rubbish"))), 1)
		}, []string{"CA device"}},
		{"a city CA without its city", func(t *testing.T, w *world, script string) string {
			return strings.Replace(script, `city: "330100", `, "", 1)
		}, []string{"CA 330100", "city"}},
		{"a CA that outlives the root", func(t *testing.T, w *world, script string) string {
			return strings.Replace(script, "days: 1000", "days: 10000", 1)
		}, []string{"CA 330100", "validity"}},
		{"a country that is none", func(t *testing.T, w *world, script string) string {
			return strings.Replace(script, "country: CN", "country: China", 1)
		}, []string{"ountry"}},
		{"a key too short for a root", func(t *testing.T, w *world, script string) string {
			return strings.Replace(script, "root: {", "root: {algorithm: rsa2048, ", 1)
		}, []string{"rsa2048"}},
		{"no such token", func(t *testing.T, w *world, script string) string {
			return strings.Replace(script, "token=root", "token=other", 1)
		}, []string{"not there", "other"}},
		{"wrong PIN", func(t *testing.T, w *world, script string) string {
			w.write(t, "pin", []byte("wrong one"), 0o600)
			return script
		}, []string{"refuses the PIN"}},
		{"open PIN file", func(t *testing.T, w *world, script string) string {
			if err := os.Chmod(w.path("pin"), 0o644); err != nil {
				t.Fatal(err)
			}
			return script
		}, []string{"chmod 0600"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.run(t, test.change(t, w, w.script(t)))
			wantError(t, err, test.words...)
			w.nothingMade(t)
		})
	}
}

// A key of an earlier ceremony is neither used silently nor joined by a second one.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	script := w.script(t)
	w.names = "Li Wei\nWang Fang\nLi Wei\n" // nobody confirms the root after Li Wei
	_, err := w.run(t, script)
	wantError(t, err, "certifying the root", "Wang Fang")
	_, err = w.verify(t)
	wantError(t, err, "did not end")
	if !strings.Contains(string(w.transcript(t)), "given up while certifying the root") {
		t.Error("the transcript does not tell of the failure")
	}

	w.names = strings.Repeat("Li Wei\nWang Fang\n", 10)
	_, err = w.run(t, script)
	wantError(t, err, "interrupted", "line", "never resumed")
	_, err = w.run(t, strings.Replace(script, "out: out", "out: again", 1))
	wantError(t, err, `"root-1"`, "earlier ceremony", "destroy")
	if n := w.keys(t); n != 1 {
		t.Errorf("there are %d keys", n)
	}
	w.mustRun(t, strings.NewReplacer("out: out", "out: again", "key: root-1", "key: root-2").Replace(script))
}

func TestFolderInUse(t *testing.T) {
	w := newWorld(t)
	script := w.script(t)
	w.mustRun(t, script)
	_, err := w.run(t, script)
	wantError(t, err, "ended on")
	w.write(t, "other/file", nil, 0o644)
	_, err = w.run(t, strings.Replace(script, "out: out", "out: other", 1))
	wantError(t, err, "not empty")
}

func TestOfficersMustConfirm(t *testing.T) {
	w := newWorld(t)
	w.names = "Li Wei\nLi Wei\nWang Feng\nwang fang\n"
	_, err := w.run(t, w.script(t))
	wantError(t, err, "Wang Fang did not confirm the plan")
	if n := w.keys(t); n != 0 {
		t.Errorf("%d keys were made without a consent", n)
	}
	if strings.Contains(string(w.transcript(t)), "Wang Feng") {
		t.Error("what was mistyped, which may be a PIN, stands in the transcript")
	}

	w = newWorld(t)
	w.names = "Li Wei\nWang Feng\nWang Fang\n" + strings.Repeat("Li Wei\nWang Fang\n", 10)
	w.mustRun(t, w.script(t))
	if _, err := w.verify(t); err != nil {
		t.Error(err)
	}
}

// The end of the context ends the waiting for a name.
func TestCancelled(t *testing.T) {
	w := newWorld(t)
	w.write(t, "ceremony.yaml", []byte(w.script(t)), 0o644)
	s, err := ceremony.Read(w.path("ceremony.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	in, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer typed.Close()
	w.env.In = in
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = ceremony.Run(ctx, s, w.env)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestUnattended(t *testing.T) {
	w := newWorld(t)
	w.names, w.env.Unattended = "", true
	w.mustRun(t, w.script(t))
	report, err := w.verify(t)
	if err != nil || !report.Unattended {
		t.Fatalf("%+v, %v", report, err)
	}
}

// A second token that does not hold the key, or is the first again, proves nothing.
func TestCloneRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(w *world, script string) string
		words  []string
	}{
		"empty token": {func(w *world, script string) string {
			w.env.CloneKey = func(context.Context) error {
				_, err := w.home.Init("copy", []byte("87654321"), []byte(userPIN))
				return err
			}
			return script
		}, []string{"no such key"}},
		"the same token": {func(w *world, script string) string {
			w.env.CloneKey = nil
			return strings.Replace(script, "token=copy", "token=root", 1)
		}, []string{"is the first one"}},
		"cloning fails": {func(w *world, script string) string {
			w.env.CloneKey = func(context.Context) error { return errors.New("card is missing") }
			return script
		}, []string{"card is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.run(t, test.change(w, w.script(t)))
			wantError(t, err, append(test.words, "clone")...)
		})
	}
}

func TestRehearse(t *testing.T) {
	w := newWorld(t)
	script := w.script(t)
	// The tokens of the script are not there on the machine of the rehearsal.
	script = strings.NewReplacer("token=root", "token=safe-1", "token=copy", "token=safe-2").Replace(script)
	w.write(t, "ceremony.yaml", []byte(script), 0o644)
	s, err := ceremony.Read(w.path("ceremony.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w.env.In = strings.NewReader(w.names)
	token := func(label string) ceremony.Token {
		return ceremony.Token{Module: w.home.Module(), URI: "pkcs11:token=" + label, PIN: hsm.PINSource{File: w.path("pin")}}
	}
	second := token("copy")
	if _, err := ceremony.Rehearse(context.Background(), s, w.env, ceremony.Stage{Token: token("root"), Out: w.path("out")}); err == nil {
		t.Fatal("a rehearsal without the second token was held")
	}
	if _, err := ceremony.Rehearse(context.Background(), s, w.env, ceremony.Stage{Token: token("root"), Clone: &second, Out: w.path("out")}); err != nil {
		t.Fatal(err)
	}
	report, err := w.verify(t)
	if err != nil || !report.Rehearsal {
		t.Fatalf("%+v, %v", report, err)
	}
	if out := w.openssl(t, "x509", "-inform", "DER", "-in", "root.cer", "-noout", "-subject"); !strings.Contains(out, "Test Root 1 REHEARSAL") {
		t.Errorf("the root is named %s", out)
	}
}
