package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"hufu/api/client"
	"hufu/internal/oid"
	"hufu/internal/slapd"
	"hufu/internal/softhsm"
	"hufu/ldapsync"
)

// The names of the quickstart's world.
const (
	worldDomain = "card.example"
	worldCity   = "330100"
	worldBase   = "o=Hufu,c=CN"
)

var worldCAs = []CAConfig{{ID: "device", Kind: "device"}, {ID: worldCity, Kind: "city", City: worldCity}, {ID: "services", Kind: "services"}, {ID: "staff", Kind: "staff"}}

func freePorts() (p worldPorts, err error) {
	for _, port := range []*int{&p.api, &p.publish, &p.ops, &p.acme, &p.http01} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return p, err
		}
		defer l.Close() // after all are found, so that they differ
		*port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// token makes a SoftHSM home with one token and a PIN file.
func (w *world) token(folder, label string) (*softhsm.Home, error) {
	home, err := softhsm.New(w.path(folder, "hsm"))
	if err != nil {
		return nil, err
	}
	pin := []byte(rand.Text())
	if _, err := home.Init(label, []byte(rand.Text()), pin); err != nil {
		return nil, err
	}
	return home, os.WriteFile(w.path(folder, label+".pin"), pin, 0o600)
}

// config writes the node's configuration; withDirectories is false until these
// run.
func (w *world) config(home *softhsm.Home, dirs []*slapd.Server) error {
	var b strings.Builder
	fmt.Fprintf(&b, `node: centre-1
domain: %s
data: data
token:
  module: %s
  uri: pkcs11:token=hufu-centre
  pin: {file: hufu-centre.pin}
cas:
`, worldDomain, home.Module())
	for _, a := range worldCAs {
		fmt.Fprintf(&b, "  - {id: %q, kind: %s", a.ID, a.Kind)
		if a.City != "" {
			fmt.Fprintf(&b, ", city: %q", a.City)
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, `api: {listen: "127.0.0.1:%d", names: [localhost]}
publish: {listen: "127.0.0.1:%d", url: "http://localhost:%d"}
ops: {listen: "127.0.0.1:%d"}
acme: {listen: "127.0.0.1:%d", name: localhost, ca: services, domains: [localhost], http_port: %d}
escrow: {wrapping: kmc, spare: 50}
`, w.ports.api, w.ports.publish, w.ports.publish, w.ports.ops, w.ports.acme, w.ports.http01)
	if len(dirs) > 0 {
		b.WriteString("directories:\n")
	}
	for i, d := range dirs {
		fmt.Fprintf(&b, "  - {name: %s, url: %q, base: %q}\n", w.dirs[i], strings.Replace(d.SecureURL(), "127.0.0.1", "localhost", 1), worldBase)
	}
	return os.WriteFile(w.path("centre", "hufu.yaml"), []byte(b.String()), 0o644)
}

// dirNames are what the directories of a quickstart are called, as many as there
// are.
var dirNames = []string{"one", "two", "three", "four", "five", "six", "seven", "eight"}

// ceremony runs the root ceremony with a token of its own, as on a machine of
// its own: another process, another SoftHSM home, files carried over.
func (w *world) ceremony(ctx context.Context) error {
	root, err := w.token("root", "hufu-root")
	if err != nil {
		return err
	}
	centre, err := w.token("centre", "hufu-centre")
	if err != nil {
		return err
	}
	if err := w.config(centre, nil); err != nil {
		return err
	}
	if err := w.run(ctx, centre.Env(), "ca", "request", "-c", w.path("centre", "hufu.yaml"), "--out", w.path("root", "requests")); err != nil {
		return err
	}
	if err := w.ceremonyScript(root); err != nil {
		return err
	}
	return w.run(ctx, root.Env(), "ceremony", "run", w.path("root", "ceremony.yaml"), "--yes")
}

// ceremonyScript writes root/ceremony.yaml from the requests that the centre
// brought.
func (w *world) ceremonyScript(root *softhsm.Home) error {
	var b strings.Builder
	fmt.Fprintf(&b, `name: Quickstart's root ceremony
officers: [Li Wei, Wang Fang]
country: CN
organisation: Hufu Quickstart
domain: %s
base_url: http://localhost:%d
token: {module: %s, uri: "pkcs11:token=hufu-root", pin: {file: hufu-root.pin}}
root: {key: root-1, common_name: Hufu Quickstart Root}
requests:
`, worldDomain, w.ports.publish, root.Module())
	for _, a := range worldCAs {
		raw, err := os.ReadFile(w.path("root", "requests", a.ID+".csr"))
		if err != nil {
			return err
		}
		block, _ := pem.Decode(raw)
		fmt.Fprintf(&b, "  - {id: %q, kind: %s, city: %q, file: requests/%s.csr, sha256: %x}\n", a.ID, a.Kind, a.City, a.ID, sha256.Sum256(block.Bytes))
	}
	b.WriteString("crl: {days: 180}\nout: out\n")
	return os.WriteFile(w.path("root", "ceremony.yaml"), []byte(b.String()), 0o644)
}

func (w *world) centre() (*softhsm.Home, error) { return softhsm.New(w.path("centre", "hsm")) }

func (w *world) init(ctx context.Context) error {
	for _, a := range []struct{ name, file string }{{"Li Wei", "li"}, {"Wang Fang", "wang"}} {
		if err := w.run(ctx, nil, "officer", "request", "--name", a.name, "--out", w.path("officers", a.file)); err != nil {
			return err
		}
	}
	home, err := w.centre()
	if err != nil {
		return err
	}
	return w.run(ctx, home.Env(), "init", "--yes", "-c", w.path("centre", "hufu.yaml"), "--from", w.path("root", "out"),
		"--admin", "Li Wei="+w.path("officers", "li.csr"), "--admin", "Wang Fang="+w.path("officers", "wang.csr"), "--out", w.path("officers"))
}

// admin gives the API client of an officer.
func (w *world) admin(ctx context.Context, name string) (*client.Client, *identity, error) {
	g := *w.g
	g.client = w.path("officers", name+".yaml")
	return g.dial(ctx)
}

// directories starts the node for as long as it takes to certify the
// directories, and starts these. A directory needs a certificate, and the node
// that issues it cannot wait for the directory.
func (w *world) directories(ctx context.Context) error {
	if err := w.node(ctx); err != nil {
		return err
	}
	c, id, err := w.admin(ctx, "li")
	if err != nil {
		return err
	}
	defer id.close()
	defer c.Close()
	roots, err := w.roots(ctx, c)
	if err != nil {
		return err
	}
	pair, err := os.ReadFile(w.path("centre", "data", "tls", "publisher.pem"))
	if err != nil {
		return err
	}
	publisher := certificates(pair)
	var servers []*slapd.Server
	for _, name := range w.dirs {
		if err := w.certify(ctx, c, w.path("ldap-"+name), client.IssueRequest{CA: "services", Profile: "server", Name: client.Name{DNS: []string{"localhost"}}}); err != nil {
			return err
		}
		cert, err := os.ReadFile(w.path("ldap-" + name + ".pem"))
		if err != nil {
			return err
		}
		key, err := os.ReadFile(w.path("ldap-" + name + ".key"))
		if err != nil {
			return err
		}
		s, err := slapd.Start(ctx, slapd.Config{Dir: w.path("ldap-" + name), Suffix: worldBase, Schema: ldapsync.Schema, Certificate: cert, Key: key,
			ClientCA: roots, Publisher: publisher, Outlive: true})
		if err != nil {
			return err
		}
		if err := w.note("slapd-"+name, s.Pid()); err != nil {
			return err
		}
		if err := os.WriteFile(w.path("ldap-"+name, "start"), w.starter(name, s), 0o700); err != nil {
			return err
		}
		w.say("   directory %s: %s", name, s.URL())
		w.ldap = append(w.ldap, s.URL())
		servers = append(servers, s)
	}
	home, err := w.centre()
	if err != nil {
		return err
	}
	if err := w.endNode(ctx); err != nil {
		return err
	}
	return w.config(home, servers)
}

// starter is a script that starts a directory again which was ended, and notes it
// for stopWorld as note does.
func (w *world) starter(name string, s *slapd.Server) []byte {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	return fmt.Appendf(nil, `#!/bin/sh
# Starts this directory again after it ended, on the same ports and with what it
# holds; hufu quickstart --stop ends it with the rest.
cd %s || exit 1
if kill -0 "$(cat slapd.pid 2>/dev/null)" 2>/dev/null; then
    echo "it runs already, as process $(cat slapd.pid)" >&2
    exit 1
fi
LDAPNOINIT=1 setsid /usr/sbin/slapd -d none -f slapd.conf -h '%s %s' >>slapd.log 2>&1 </dev/null &
echo "slapd-%s $! $(sed 's/.*) //' /proc/$!/stat | cut -d ' ' -f 20)" >>../running
`, quote(w.path("ldap-"+name)), s.URL(), s.SecureURL(), name)
}

// certificates keeps the certificates of a PEM file, and leaves its key out.
func certificates(file []byte) (out []byte) {
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			out = append(out, pem.EncodeToMemory(block)...)
		}
	}
	return out
}

// roots writes roots.pem: the root, then the working CAs in the order of
// worldCAs.
func (w *world) roots(ctx context.Context, c *client.Client) ([]byte, error) {
	var out []byte
	for _, id := range append([]CAConfig{{ID: "root"}}, worldCAs...) {
		ca, err := c.CA(ctx, id.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate})...)
	}
	return out, os.WriteFile(w.path("roots.pem"), out, 0o644)
}

// node starts hufu serve in the background and waits until it is ready.
func (w *world) node(ctx context.Context) error {
	home, err := w.centre()
	if err != nil {
		return err
	}
	if err := w.detach("node", home.Env(), "serve", "-c", w.path("centre", "hufu.yaml")); err != nil {
		return err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/readyz", w.ports.ops)
	pid := w.nodePid()
	ready := waitUntil(ctx, time.Minute, func() bool {
		a, err := http.Get(url)
		if err == nil {
			a.Body.Close()
		}
		return err == nil && a.StatusCode == http.StatusOK || startTime(pid) == ""
	})
	if !ready || startTime(pid) == "" {
		return fmt.Errorf("the node did not become ready; see %s", w.path("log", "node.log"))
	}
	return nil
}

func (w *world) nodePid() (pid int) {
	var name string
	for _, line := range w.pids {
		if strings.HasPrefix(line, "node ") {
			if _, err := fmt.Sscan(line, &name, &pid); err != nil {
				return 0
			}
		}
	}
	return pid
}

func (w *world) endNode(ctx context.Context) error {
	pid := w.nodePid()
	return endProcess(ctx, pid, startTime(pid))
}

func (w *world) serve(ctx context.Context) error {
	w.say("   $ hufu serve -c centre/hufu.yaml")
	if err := w.node(ctx); err != nil {
		return err
	}
	c, id, err := w.admin(ctx, "li")
	if err != nil {
		return err
	}
	defer id.close()
	defer c.Close()
	if _, err := w.roots(ctx, c); err != nil {
		return err
	}
	w.say("     API https://localhost:%d, OCSP and CRLs http://localhost:%d, ACME https://localhost:%d", w.ports.api, w.ports.publish, w.ports.acme)
	return nil
}

// certify makes a key and a request, has it certified and writes base.key and
// base.pem.
func (w *world) certify(ctx context.Context, c *client.Client, base string, r client.IssueRequest) error {
	if err := newKeyAndRequest(base, filepath.Base(base)); err != nil {
		return err
	}
	raw, err := os.ReadFile(base + ".csr")
	if err != nil {
		return err
	}
	block, _ := pem.Decode(raw)
	r.CSR = block.Bytes
	cert, err := c.Issue(ctx, r)
	if err != nil {
		return err
	}
	ca, err := c.CA(ctx, cert.CA)
	if err != nil {
		return err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.DER})
	out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate})...)
	return os.WriteFile(base+".pem", out, 0o644)
}

// people are the world's officers and machines besides the two admins.
var people = []struct {
	file, name, role, city, profile string
}{
	{"operator", "Zhao Min", "ca-operator", "", "operator"},
	{"city-operator", "Chen Jie", "city-operator", worldCity, "operator"},
	{"counter", "Sun Li", "counter", worldCity, "operator"},
	{"auditor", "Zhou Yan", "auditor", "", "operator"},
	{"key-1", "Wu Gang", "key-officer", "", "operator"},
	{"key-2", "Zheng Hui", "key-officer", "", "operator"},
	{"key-3", "Feng Lan", "key-officer", "", "operator"},
	{"topup-" + worldCity, "top-up server of " + worldCity, "topup", worldCity, "client"},
}

// officers has each person certified by one admin, and given rights with the
// other's approval.
func (w *world) officers(ctx context.Context) error {
	c, id, err := w.admin(ctx, "li")
	if err != nil {
		return err
	}
	defer id.close()
	defer c.Close()
	for _, p := range people {
		base := w.path("officers", p.file)
		r := client.IssueRequest{CA: "staff", Profile: p.profile, Name: client.Name{Person: p.name}}
		if p.profile == "client" {
			r = client.IssueRequest{CA: "services", Profile: p.profile, Name: client.Name{CommonName: p.file, City: p.city}}
		}
		if err := w.certify(ctx, c, base, r); err != nil {
			return fmt.Errorf("certifying %s: %w", p.name, err)
		}
		y := fmt.Sprintf("server: https://localhost:%d\nroots: root.pem\ncertificate: %s.pem\nkey: %s.key\n", w.ports.api, p.file, p.file)
		if err := os.WriteFile(base+".yaml", []byte(y), 0o644); err != nil {
			return err
		}
		if err := w.approved(ctx, p.name, p.role, p.city, base+".pem"); err != nil {
			return err
		}
		w.say("     %-14s %-22s %s", p.role, p.name, base+".yaml")
	}
	return nil
}

// approved runs the two commands by which a person gets rights: one admin asks,
// the other approves with a signature.
func (w *world) approved(ctx context.Context, name, role, city, cert string) error {
	ask := exec.CommandContext(ctx, w.self, "officer", "add", cert, "--name", name, "--role", role, "--city", city, "-o", "json", "--client", w.path("officers", "li.yaml"))
	out, err := ask.Output()
	if err != nil {
		return fmt.Errorf("asking for the rights of %s: %w%s", name, err, stderrOf(err))
	}
	var a client.Approval
	if err := json.Unmarshal(out, &a); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, w.self, "officer", "approve", a.ID, "--yes", "--client", w.path("officers", "wang.yaml")).CombinedOutput(); err != nil {
		return fmt.Errorf("approving the rights of %s: %w: %s", name, err, out)
	}
	return nil
}

func stderrOf(err error) string {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return ": " + strings.TrimSpace(string(e.Stderr))
	}
	return ""
}

// issueReaders has the city operator issue the readers' pairs in one job. Their
// keys are made here in files: they stand for readers somewhere else.
func (w *world) issueReaders(ctx context.Context) error {
	for i := range w.readers {
		if err := readerFiles(w.path("readers"), fmt.Sprintf("%06d", i+1)); err != nil {
			return err
		}
	}
	if w.readers == 0 {
		return nil
	}
	return w.run(ctx, nil, "reader", "batch", w.path("readers"), "--city", worldCity, "--client", w.path("officers", "city-operator.yaml"))
}

// readerFiles makes a reader's two keys and its request.
func readerFiles(dir, number string) error {
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
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "reader " + number}, ExtraExtensions: []pkix.Extension{{Id: oid.EncryptionKey, Value: spki}}}, sign)
	if err != nil {
		return err
	}
	for name, key := range map[string]*ecdsa.PrivateKey{"sign": sign, "encrypt": encrypt} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, number+"."+name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, number+".csr"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 0o644)
}

// farewell says what runs and what to try, and leaves the facts for programs.
func (w *world) farewell() error {
	facts := map[string]any{"dir": w.dir, "api": fmt.Sprintf("https://localhost:%d", w.ports.api), "publish": fmt.Sprintf("http://localhost:%d", w.ports.publish),
		"acme": fmt.Sprintf("https://localhost:%d/acme/hufu/directory", w.ports.acme), "http01": w.ports.http01, "directories": w.ldap, "domain": worldDomain, "city": worldCity, "base": worldBase}
	raw, err := json.MarshalIndent(facts, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.path("world.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	w.say("\nThe world runs (%s). Try next:", time.Since(w.began).Round(100*time.Millisecond))
	hufu := w.self
	if found, err := exec.LookPath("hufu"); err == nil && found == w.self {
		hufu = "hufu"
	}
	o := w.path("officers")
	lines := []string{
		"export HUFU_CLIENT=" + filepath.Join(o, "operator.yaml"),
		hufu + " reader list --limit 5",
		hufu + " reader suspend 000001 && " + hufu + " dir status",
		hufu + " cert list --state on-hold",
		hufu + " --lang zh reader show 000001",
		hufu + " audit log --kind held --client " + filepath.Join(o, "auditor.yaml"),
	}
	if len(w.dirs) > 0 {
		start := w.path("ldap-"+w.dirs[0], "start")
		lines = append(lines, "kill $(cat "+w.path("ldap-"+w.dirs[0], "slapd.pid")+"); "+hufu+" dir status; sh "+start)
	}
	for _, line := range append(lines, hufu+" quickstart --stop "+w.dir) {
		fmt.Fprintf(w.cmd.OutOrStdout(), "  %s\n", line)
	}
	return nil
}
