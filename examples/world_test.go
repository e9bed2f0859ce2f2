package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hufu/examples/topup/purse"
	"hufu/examples/topup/script"
	"hufu/examples/topup/trust"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/verify"
)

const city = "330100"

// world is the one node and the one city that all tests of loads share. Every
// test has readers and cards of its own.
type world struct {
	dir   string
	facts struct{ API, Publish, Domain string }
	back  *exec.Cmd // the city's back end
	url   string    // its address
	logs  lockedBuffer
	next  int // reader and card numbers
}

// lockedBuffer takes what several processes say.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

var shared struct {
	once  sync.Once
	world *world
	err   error
}

// live gives the world, which begins with the first test that asks.
func live(t *testing.T) *world {
	t.Helper()
	shared.once.Do(func() {
		shared.world = &world{dir: filepath.Join(bin, "world")}
		shared.err = shared.world.begin()
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the programs said last:\n%s", tail(shared.world.logs.Bytes(), 4000))
		}
	})
	return shared.world
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func (w *world) begin() error {
	if _, err := w.run(program("hufu"), "quickstart", w.dir, "--readers", "0", "--directories", "0"); err != nil {
		return err
	}
	raw, err := os.ReadFile(w.path("world.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &w.facts); err != nil {
		return err
	}
	if _, err := w.run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/",
		"-keyout", w.path("city-tls.key"), "-out", w.path("city-tls.csr")); err != nil {
		return err
	}
	if _, err := w.as("operator", "cert", "issue", w.path("city-tls.csr"), "--ca", "services", "--profile", "server", "--dns", "localhost", "--out", w.path("city-tls.pem")); err != nil {
		return err
	}
	if _, err := w.run(program("city"), "personalise", "-keys", w.path("city.keys"), "-city", city, "-asn", asn(0), "-fen", "0", "-out", w.path("first.json")); err != nil {
		return err
	}
	return w.startCity()
}

// endWorld stops what the tests share.
func endWorld() error {
	w := shared.world
	if w == nil {
		return nil
	}
	if w.back != nil {
		w.back.Process.Signal(syscall.SIGTERM)
		w.back.Wait()
	}
	if _, err := os.Stat(w.dir); err != nil {
		return nil
	}
	_, err := w.run(program("hufu"), "quickstart", "--stop", w.dir)
	return err
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

// run runs a program to its end; its error holds what it said.
func (w *world) run(name string, args ...string) ([]byte, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	fmt.Fprintf(&w.logs, "$ %s %s\n%s", filepath.Base(name), strings.Join(args, " "), out)
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(name), args[0], err, bytes.TrimSpace(out))
	}
	return out, err
}

// as runs hufu as one of the world's officers.
func (w *world) as(officer string, args ...string) ([]byte, error) {
	return w.run(program("hufu"), append(args, "--client", w.path("officers", officer+".yaml"))...)
}

func (w *world) must(t *testing.T, out []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// start runs a program that prints its address at the end of its first line.
func (w *world) start(name string, args ...string) (*exec.Cmd, string, error) {
	c := exec.Command(program(name), args...)
	c.Stderr = &w.logs
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := c.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := c.Start(); err != nil {
		return nil, "", err
	}
	said := bufio.NewReader(pipe)
	line, err := said.ReadString('\n')
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("%s ended before it was ready: %s", name, tail(w.logs.Bytes(), 500)), c.Wait())
	}
	go io.Copy(&w.logs, said)
	line = strings.TrimSpace(line)
	return c, line[strings.LastIndex(line, " ")+1:], nil
}

// trusted is whom the programs believe, as flags.
func (w *world) trusted() []string {
	return []string{"-roots", w.path("roots.pem"), "-publish", w.facts.Publish, "-domain", w.facts.Domain, "-cas", "device," + city + ",services,staff"}
}

// cityArgs are the flags of both serve and resolve.
func (w *world) cityArgs() []string {
	return append([]string{"-city", city, "-keys", w.path("city.keys"), "-ledger", w.path("city-ledger.jsonl"), "-hufu", w.facts.API,
		"-client-certificate", w.path("officers", "topup-"+city+".pem"), "-client-key", w.path("officers", "topup-"+city+".key")}, w.trusted()...)
}

func (w *world) startCity() error {
	c, address, err := w.start("city", append([]string{"serve", "-certificate", w.path("city-tls.pem"), "-key", w.path("city-tls.key")}, w.cityArgs()...)...)
	if err != nil {
		return err
	}
	w.back, w.url = c, strings.Replace(address, "127.0.0.1", "localhost", 1)
	return nil
}

// crashCity kills the back end and starts it again.
func (w *world) crashCity(t *testing.T) {
	t.Helper()
	w.back.Process.Kill()
	w.back.Wait()
	w.back = nil
	if err := w.startCity(); err != nil {
		t.Fatal(err)
	}
}

func asn(n int) string { return fmt.Sprintf("3301%016d", n) }

// card is a card with its memory in a file.
type card struct {
	*world
	asn, file string
}

func (w *world) card(t *testing.T, fen int) *card {
	t.Helper()
	return w.cardOf(t, city, w.path("city.keys"), fen)
}

func (w *world) cardOf(t *testing.T, city, keys string, fen int) *card {
	t.Helper()
	w.next++
	c := &card{world: w, asn: asn(w.next), file: w.path(fmt.Sprintf("card-%d.json", w.next))}
	out, err := w.run(program("city"), "personalise", "-keys", keys, "-city", city, "-asn", c.asn, "-fen", strconv.Itoa(fen), "-out", c.file)
	w.must(t, out, err)
	return c
}

// enter starts the card's process and gives its address.
func (c *card) enter(t *testing.T, args ...string) string {
	t.Helper()
	p, address, err := c.start("card", append([]string{"-state", c.file}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Signal(syscall.SIGTERM)
		p.Wait()
	})
	return address
}

func (c *card) memory(t *testing.T) (m purse.Memory) {
	t.Helper()
	raw, err := os.ReadFile(c.file)
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// holds compares the card's memory.
func (c *card) holds(t *testing.T, fen uint32, counter uint16) {
	t.Helper()
	if m := c.memory(t); m.Balance != fen || m.Online != counter {
		t.Errorf("the card holds %d fen at counter %d, want %d at %d", m.Balance, m.Online, fen, counter)
	}
}

type transaction struct {
	ID, Card, State, SupersededBy string
	Counter                       uint32
}

// loads are the card's transactions in Hufu's ledger, oldest first.
func (c *card) loads(t *testing.T) (list []transaction) {
	t.Helper()
	out, err := c.as("auditor", "topup", "list", "--city", city, "--limit", "0", "-o", "json")
	var all []transaction
	if err := json.Unmarshal(c.must(t, out, err), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, x := range all {
		if x.Card == c.asn {
			list = append(list, x)
		}
	}
	return list
}

// ledger compares the states of the card's transactions.
func (c *card) ledger(t *testing.T, want ...string) []transaction {
	t.Helper()
	list := c.loads(t)
	var have []string
	for _, x := range list {
		have = append(have, x.State)
	}
	if strings.Join(have, " ") != strings.Join(want, " ") {
		t.Fatalf("the ledger says %v of the card, want %v", have, want)
	}
	return list
}

// resolve has the city read the card again.
func (c *card) resolve(address, id string) ([]byte, error) {
	return c.run(program("city"), append([]string{"resolve", "-card", address, "-transaction", id}, c.cityArgs()...)...)
}

// reader is a reader as a process, with its keys in a token of its own.
type reader struct {
	*world
	number, dir string
}

func (w *world) reader(t *testing.T) *reader {
	t.Helper()
	w.next++
	number := fmt.Sprintf("9%05d", w.next)
	r := &reader{world: w, number: number, dir: w.path("reader-" + number)}
	out, err := w.run(program("reader"), "make", "-dir", r.dir, "-number", number)
	w.must(t, out, err)
	out, err = w.as("city-operator", "reader", "issue", r.dir+"/reader.csr", "--number", number, "--city", city, "--out", r.dir+"/pair.pem")
	w.must(t, out, err)
	return r
}

func (r *reader) args(card, yuan string) []string {
	return append([]string{"load", "-dir", r.dir, "-yuan", yuan, "-card", card, "-city", r.url}, r.trusted()...)
}

func (r *reader) load(card, yuan string) ([]byte, error) {
	return r.run(program("reader"), r.args(card, yuan)...)
}

// refuses sees that a load fails and that the reader tells why.
func (r *reader) refuses(t *testing.T, card, yuan string, why ...string) {
	t.Helper()
	out, err := r.load(card, yuan)
	if err == nil {
		t.Fatalf("the load succeeded: %s", out)
	}
	for _, w := range why {
		if !bytes.Contains(out, []byte(w)) {
			t.Errorf("the reader does not say %q: %s", w, out)
		}
	}
}

// hand is a reader in the test's own hand: it says what a reader must not say.
type hand struct {
	*world
	sign, seal   *ecdsa.PrivateKey
	cert, sealed []byte // DER
	chain        [][]byte
	name         string
	client       *http.Client
}

func (w *world) hand(t *testing.T) *hand {
	t.Helper()
	w.next++
	number := fmt.Sprintf("9%05d", w.next)
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	h := &hand{world: w, sign: key(), seal: key()}
	spki, err := x509.MarshalPKIXPublicKey(h.seal.Public())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: oid.EncryptionKey, Value: spki}}}, h.sign)
	if err != nil {
		t.Fatal(err)
	}
	base := w.path("hand-" + number)
	if err := os.WriteFile(base+".csr", csr, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := w.as("city-operator", "reader", "issue", base+".csr", "--number", number, "--city", city, "--out", base+".pem")
	w.must(t, out, err)
	raw, err := os.ReadFile(base + ".pem")
	if err != nil {
		t.Fatal(err)
	}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			t.Fatal(err)
		case c.IsCA:
			h.chain = append(h.chain, c.Raw)
		case c.KeyUsage&x509.KeyUsageDigitalSignature != 0:
			h.cert, h.name = c.Raw, c.DNSNames[0]
		default:
			h.sealed = c.Raw
		}
	}
	h.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust.Pool(w.verifier(t)),
		Certificates: []tls.Certificate{{Certificate: append([][]byte{h.cert}, h.chain...), PrivateKey: h.sign}}}}}
	t.Cleanup(h.client.CloseIdleConnections)
	return h
}

func (w *world) verifier(t *testing.T) *verify.Verifier {
	t.Helper()
	v, err := trust.Open(trust.Config{Roots: w.path("roots.pem"), Publish: w.facts.Publish, Domain: w.facts.Domain, CAs: []string{"device", city, "services", "staff"}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var terminal = purse.Terminal{0x33, 0x01, 0x00, 0x00, 0x00, 0x42}

// ask initialises a load on a card in the test's hand and makes the request.
func (h *hand) ask(t *testing.T, c *purse.Card, fen uint32) *verify.LoadRequest {
	t.Helper()
	c.Reset()
	answer := func(apdu []byte) []byte {
		a, _ := c.Transmit(apdu)
		if !bytes.HasSuffix(a, []byte{0x90, 0x00}) {
			t.Fatalf("the card answered %X to %X", a, apdu)
		}
		return a[:len(a)-2]
	}
	answer(purse.Select())
	init, err := purse.ParseInitialized(answer(purse.InitializeForLoad(1, fen, terminal)))
	if err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	m := c.Memory()
	return &verify.LoadRequest{
		Transaction: hex.EncodeToString(id), CardCity: hex.EncodeToString(m.City[:]), ReaderCity: city, Reader: h.name, Card: hex.EncodeToString(m.ASN[:]),
		Counter: uint32(init.Counter), Random: init.Random[:], Amount: uint64(fen), Balance: uint64(init.Balance), Type: purse.TypeEPLoad, KeyIndex: 1,
		KeyVersion: init.Version, Algorithm: init.Algorithm, MAC1: init.MAC1[:], Terminal: terminal[:], Expiry: time.Now().Add(5 * time.Minute),
		EncryptionHash: sha256.Sum256(h.sealed),
	}
}

// signed signs a message with the certificates that travel with it.
func (h *hand) signed(t *testing.T, kind []int, m interface{ Marshal() ([]byte, error) }, travelling ...[]byte) []byte {
	t.Helper()
	content, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	der, err := cms.Sign(kind, content, h.cert, append(travelling, h.chain...), h.sign, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (h *hand) request(t *testing.T, r *verify.LoadRequest) []byte {
	t.Helper()
	return h.signed(t, oid.ContentLoadRequest, r, h.sealed)
}

// post sends a message to the city; refused is the reason that it gives.
func (h *hand) post(t *testing.T, path string, message []byte) (answer []byte, refused string) {
	t.Helper()
	a, err := h.client.Post(h.url+path, "application/pkcs7-mime", bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode == http.StatusOK {
		return raw, ""
	}
	var r struct{ Reason string }
	if err := json.Unmarshal(raw, &r); err != nil || r.Reason == "" {
		t.Fatalf("the city answered %s: %s", a.Status, raw)
	}
	return nil, r.Reason
}

// permitted is post for a request that must be granted.
func (h *hand) permitted(t *testing.T, message []byte) []byte {
	t.Helper()
	answer, refused := h.post(t, "/loads", message)
	if refused != "" {
		t.Fatalf("the city refuses: %s", refused)
	}
	return answer
}

// denied is post for a request that must be refused, and why.
func (h *hand) denied(t *testing.T, message []byte, why string) {
	t.Helper()
	if _, refused := h.post(t, "/loads", message); !strings.Contains(refused, why) {
		t.Errorf("the city's reason is %q, want one with %q", refused, why)
	}
}

// open verifies a permission, opens what is sealed in it, and gives the steps
// and their values.
func (h *hand) open(t *testing.T, permission, request []byte) ([]script.Step, map[string][]byte, []byte) {
	t.Helper()
	p, _, err := h.verifier(t).LoadPermission(context.Background(), permission, request)
	if err != nil {
		t.Fatal(err)
	}
	key, err := h.seal.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := (&cms.Opener{Certificate: h.sealed, ECDH: key}).Open(p.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	s, err := verify.ParseSealedScript(plain)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := script.Parse(s.CommandScript)
	if err != nil {
		t.Fatal(err)
	}
	values, err := script.ParseData(s.DataScript)
	if err != nil {
		t.Fatal(err)
	}
	return steps, values, s.DataScript
}
