package examples_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hufu/examples/topup/purse"
	"hufu/examples/topup/script"
	"hufu/internal/oid"
	"hufu/verify"
)

// TestTornBeforeCommit: the card left before it wrote. Nobody can tell; the next
// load proves by the same counter and a fresh MAC1 that the first never credited.
func TestTornBeforeCommit(t *testing.T) {
	w := live(t)
	r, c := w.reader(t), w.card(t, 10000)
	field := c.enter(t, "-tear", "before")
	r.refuses(t, field, "50.00", "is not known", "is torn")
	c.holds(t, 10000, 1)
	torn := c.ledger(t, "torn")[0]
	if out, err := c.resolve(field, torn.ID); err == nil || !bytes.Contains(out, []byte("wait until then")) {
		t.Errorf("a permission that still holds was resolved: %v: %s", err, out)
	}
	c.ledger(t, "torn")
	out, err := r.load(field, "50.00")
	w.must(t, out, err)
	c.holds(t, 15000, 2)
	list := c.ledger(t, "superseded", "credited")
	if list[0].SupersededBy != list[1].ID || list[0].Counter != list[1].Counter {
		t.Errorf("the ledger has %+v", list)
	}
}

// TestTornAfterCommit: the card wrote and left before it answered. Read again, it
// shows the TAC of that load, and the load is closed by it.
func TestTornAfterCommit(t *testing.T) {
	w := live(t)
	r, c, other := w.reader(t), w.card(t, 10000), w.card(t, 0)
	field := c.enter(t, "-tear", "after")
	r.refuses(t, field, "50.00", "is not known", "is torn")
	c.holds(t, 15000, 2)
	torn := c.ledger(t, "torn")[0]
	if out, err := c.resolve(other.enter(t), torn.ID); err == nil || !bytes.Contains(out, []byte("the load was for card")) {
		t.Errorf("another card resolved it: %v: %s", err, out)
	}
	out, err := c.resolve(field, torn.ID)
	if !bytes.Contains(w.must(t, out, err), []byte("is credited")) {
		t.Errorf("the city says %s", out)
	}
	if out, err := c.resolve(field, torn.ID); err == nil || !bytes.Contains(out, []byte("has ended")) {
		t.Errorf("it was resolved twice: %v: %s", err, out)
	}
	out, err = r.load(field, "0.01")
	w.must(t, out, err)
	c.holds(t, 15001, 3)
	c.ledger(t, "credited", "credited")
}

// TestReplay: the same bytes get the same bytes, whoever crashed in between; a
// new attempt of the same card supersedes the old one only with a right MAC1.
func TestReplay(t *testing.T) {
	w := live(t)
	h, c := w.hand(t), w.card(t, 10000)
	inHand := purse.NewCard(c.memory(t))

	first := h.ask(t, inHand, 5000)
	message := h.request(t, first)
	permission := h.permitted(t, message)
	if !bytes.Equal(h.permitted(t, message), permission) {
		t.Error("the same request got another permission")
	}
	w.crashCity(t)
	if !bytes.Equal(h.permitted(t, message), permission) {
		t.Error("after a crash of the city the same request got another permission")
	}
	c.ledger(t, "authorised")

	// The transaction's number for another request.
	more := *first
	more.Amount = 9000
	h.denied(t, h.request(t, &more), "MAC1 is wrong")
	again := h.ask(t, inHand, 5000)
	stolen := *again
	stolen.Transaction = first.Transaction
	h.denied(t, h.request(t, &stolen), "that of another request")
	c.ledger(t, "authorised")

	// A fresh random without the card's key.
	forged := *again
	forged.Random = []byte{1, 2, 3, 4}
	h.denied(t, h.request(t, &forged), "MAC1 is wrong")
	c.ledger(t, "authorised")

	// A fresh random with it.
	second := h.request(t, again)
	h.permitted(t, second)
	list := c.ledger(t, "superseded", "authorised")
	if list[0].SupersededBy != list[1].ID {
		t.Errorf("the ledger has %+v", list)
	}
	h.denied(t, message, "superseded")

	// The old permission is worth nothing at the card, the new one is.
	steps, values, _ := h.open(t, permission, message)
	if _, err := script.Run(steps, values, transmit(inHand)); err == nil {
		t.Error("the card took the old permission")
	}
	third := h.ask(t, inHand, 5000)
	if third.Counter != again.Counter {
		t.Fatalf("a load that the card refused moved its counter to %d", third.Counter)
	}
	message = h.request(t, third)
	granted := h.permitted(t, message)
	steps, values, _ = h.open(t, granted, message)
	captured, err := script.Run(steps, values, transmit(inHand))
	if err != nil {
		t.Fatal(err)
	}
	result := &verify.LoadResult{Transaction: third.Transaction, City: city, Reader: h.name, Card: c.asn, Counter: third.Counter, Outcome: verify.Credited,
		TAC: captured["tac"], Balance: 15000, PermissionHash: sha256.Sum256(granted)}

	// A wrong TAC is a dispute, and the right one ends it.
	wrong := *result
	wrong.TAC = []byte{9, 9, 9, 9}
	for _, r := range []struct {
		*verify.LoadResult
		state string
	}{{&wrong, "disputed"}, {result, "credited"}, {result, "credited"}} {
		if receipt, refused := h.post(t, "/results", h.signed(t, oid.ContentLoadResult, r)); !bytes.Contains(receipt, []byte(r.state)) {
			t.Errorf("the city says %q %q, want %s", receipt, refused, r.state)
		}
	}
	c.ledger(t, "superseded", "superseded", "credited")
	h.denied(t, second, "superseded")
	if !bytes.Equal(h.permitted(t, message), granted) {
		t.Error("a request that was credited got another permission")
	}
	if m := inHand.Memory(); m.Balance != 15000 || m.Online != 2 {
		t.Errorf("the card holds %d fen at counter %d", m.Balance, m.Online)
	}
}

func transmit(c *purse.Card) func([]byte) ([]byte, error) {
	return func(apdu []byte) ([]byte, error) {
		answer, torn := c.Transmit(apdu)
		if torn {
			return nil, fmt.Errorf("the card left the field")
		}
		return answer, nil
	}
}

// TestForeignCard: a city's back end speaks for its own cards.
func TestForeignCard(t *testing.T) {
	w := live(t)
	r := w.reader(t)
	c := w.cardOf(t, "330200", w.path("other.keys"), 10000)
	r.refuses(t, c.enter(t), "50.00", "the city refuses", "330200")
	c.holds(t, 10000, 1)
	c.ledger(t)

	// One that claims to be of this city has not its keys.
	c = w.cardOf(t, city, w.path("other.keys"), 10000)
	r.refuses(t, c.enter(t), "50.00", "MAC1 is wrong")
	c.holds(t, 10000, 1)
	c.ledger(t)
}

// TestSwappedEncryptionCertificate: scripts are sealed to the reader that signed,
// and to no other key, however the certificates are mixed.
func TestSwappedEncryptionCertificate(t *testing.T) {
	w := live(t)
	h, other, c := w.hand(t), w.hand(t), w.card(t, 10000)
	inHand := purse.NewCard(c.memory(t))
	for name, x := range map[string]struct {
		named     []byte
		travels   [][]byte
		complaint string
	}{
		"another reader's, named by the request": {other.sealed, [][]byte{other.sealed}, "the encryption certificate is that of " + other.name},
		"another reader's in place of the own":   {h.sealed, [][]byte{other.sealed}, "does not travel with it"},
		"the signing certificate":                {h.cert, [][]byte{h.cert}, "refuse"},
		"none":                                   {h.sealed, nil, "does not travel with it"},
	} {
		r := h.ask(t, inHand, 5000)
		r.EncryptionHash = sha256.Sum256(x.named)
		message := h.signed(t, oid.ContentLoadRequest, r, x.travels...)
		_, refused := h.post(t, "/loads", message)
		if refused == "" || x.complaint != "refuse" && !strings.Contains(refused, x.complaint) {
			t.Errorf("%s: the city's reason is %q, want one with %q", name, refused, x.complaint)
		}
	}
	c.ledger(t)
	// And the other reader's message over this one's connection is that reader's.
	r := other.ask(t, inHand, 5000)
	r.Reader = h.name
	h.denied(t, other.request(t, r), "reader of the request")
	c.ledger(t)
}

// TestSuspendedReader: a hold stops the next load, and ends when it is lifted.
func TestSuspendedReader(t *testing.T) {
	w := live(t)
	r, c := w.reader(t), w.card(t, 10000)
	field := c.enter(t)
	out, err := r.load(field, "1.00")
	w.must(t, out, err)
	out, err = w.as("city-operator", "reader", "suspend", r.number)
	w.must(t, out, err)
	r.refuses(t, field, "1.00", "on hold")
	c.holds(t, 10100, 2)
	out, err = w.as("city-operator", "reader", "resume", r.number)
	w.must(t, out, err)
	out, err = r.load(field, "1.00")
	w.must(t, out, err)
	c.holds(t, 10200, 3)
	c.ledger(t, "credited", "credited")
}

// TestAmountLimit: the city's limit for one load holds to the fen.
func TestAmountLimit(t *testing.T) {
	w := live(t)
	r, c := w.reader(t), w.card(t, 0)
	field := c.enter(t)
	r.refuses(t, field, "1000.01", "100001 fen is not between 1 and 100000")
	c.holds(t, 0, 1)
	c.ledger(t)
	out, err := r.load(field, "1000.00")
	w.must(t, out, err)
	c.holds(t, 100000, 2)
}

// TestNoCoreDumps looks at the limits of the processes that hold keys or open
// scripts.
func TestNoCoreDumps(t *testing.T) {
	w := live(t)
	limits := func(name string, pid int) {
		t.Helper()
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
				if f := strings.Fields(rest); f[0] != "0" || f[1] != "0" {
					t.Errorf("%s may leave a core file:%s", name, rest)
				}
				return
			}
		}
		t.Errorf("no limit is told of %s", name)
	}
	limits("the city", w.back.Process.Pid)
	raw, err := os.ReadFile(w.path("running"))
	if err != nil {
		t.Fatal(err)
	}
	// The last line that names a node is the one that runs.
	var node int
	for line := range strings.Lines(string(raw)) {
		var name string
		var pid int
		if n, _ := fmt.Sscan(line, &name, &pid); n == 2 && name == "node" {
			node = pid
		}
	}
	limits("the node", node)

	// A reader that waits for its card.
	field, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer field.Close()
	r := w.reader(t)
	p := exec.Command(program("reader"), r.args(field.Addr().String(), "1.00")...)
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Wait()
	defer p.Process.Kill()
	conn, err := field.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	limits("the reader", p.Process.Pid)
}

// TestSecretsStayWhereTheyBelong loads a card and looks for MAC2 and the script's
// data, in every form, in all that the processes said and wrote. Four octets may
// stand somewhere by chance; a leak would show in every load.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	w := live(t)
	h, r, c := w.hand(t), w.reader(t), w.card(t, 0)
	field := c.enter(t)
	var secrets [][]byte
	var mac2 [][]byte
	for range 3 {
		// Half of a load in the hand tells what the city put into its script.
		inHand := purse.NewCard(c.memory(t))
		message := h.request(t, h.ask(t, inHand, 100))
		_, values, data := h.open(t, h.permitted(t, message), message)
		if len(values["mac2"]) != 4 || !bytes.Contains(data, []byte("mac2=")) {
			t.Fatalf("the data script has %d values", len(values))
		}
		secrets, mac2 = append(secrets, bytes.Clone(data)), append(mac2, bytes.Clone(values["mac2"]))
		// And a whole one by the reader takes its place, so that the next differs.
		out, err := r.load(field, "1.00")
		w.must(t, out, err)
		mac2 = append(mac2, proven(t, field, c))
	}
	m := c.memory(t)
	secrets = append(secrets, m.LoadKey[:], m.TACKey[:])
	pin, err := os.ReadFile(w.path("centre", "hufu-centre.pin"))
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, pin)

	places := map[string][]byte{"what the programs said": w.logs.Bytes()}
	for _, dir := range []string{"log", "centre/data"} {
		err := filepath.WalkDir(w.path(dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			places[path], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if places["the city's ledger"], err = os.ReadFile(w.path("city-ledger.jsonl")); err != nil {
		t.Fatal(err)
	}
	if len(places) < 5 || len(places[w.path("centre", "data", "book.db")]) == 0 || len(places[w.path("log", "node.log")]) == 0 {
		t.Fatalf("only %d places to look at", len(places))
	}
	for place, text := range places {
		for i, s := range secrets {
			for form, f := range forms(s) {
				if bytes.Contains(text, f) {
					t.Errorf("secret %d stands in %s as %s", i, place, form)
				}
			}
		}
		found := map[string]int{}
		for _, s := range mac2 {
			for form, f := range forms(s) {
				if bytes.Contains(text, f) {
					found[form]++
				}
			}
		}
		for form, n := range found {
			if n > 1 {
				t.Errorf("%d of %d MAC2 stand in %s as %s", n, len(mac2), place, form)
			}
		}
	}
}

// proven is MAC2 of the card's last load, from the card.
func proven(t *testing.T, field string, c *card) []byte {
	t.Helper()
	f, err := purse.Enter(field)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Identify(); err != nil {
		t.Fatal(err)
	}
	p, err := f.Proof(c.memory(t).Online - 1)
	if err != nil || p == nil {
		t.Fatalf("the card does not prove its last load: %v", err)
	}
	return p.MAC2[:]
}

// forms are the ways in which octets are written.
func forms(b []byte) map[string][]byte {
	all := map[string][]byte{"octets": b, "hex": []byte(hex.EncodeToString(b)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(b)))}
	// In base64 the octets may begin at any of three places; what is before and
	// after them then shares the outer digits.
	for skip := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, skip), b...))
		first := (skip*8 + 5) / 6
		last := (skip + len(b)) * 8 / 6
		all[fmt.Sprintf("base64 at %d", skip)] = []byte(text[first:last])
	}
	return all
}

// TestForms: what the search looks for is what an encoder writes.
func TestForms(t *testing.T) {
	secret := []byte{0xDE, 0xAD, 0xBE, 0xEF, 0x01}
	for before := range 3 {
		for after := range 3 {
			whole := append(append(bytes.Repeat([]byte{0x55}, before), secret...), bytes.Repeat([]byte{0xAA}, after)...)
			text := []byte(base64.StdEncoding.EncodeToString(whole))
			if f := forms(secret)[fmt.Sprintf("base64 at %d", before)]; len(f) < 5 || !bytes.Contains(text, f) {
				t.Errorf("%s does not stand in %s", f, text)
			}
		}
	}
}
