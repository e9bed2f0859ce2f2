package device_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hufu/examples/reader/device"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/readers/apdu"
)

// TestLife: a reader from the maker's line to its second pair, with an encryption
// key from the centre and with one of its own.
func TestLife(t *testing.T) {
	for name, by := range map[string]byte{"centre": apdu.ByCentre, "reader": apdu.ByReader} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.blank("7", false)
			live(h, "7", by)
		})
	}
}

// TestToken: the same, with keys in a token of the reader's own.
func TestToken(t *testing.T) {
	h := newHost(t)
	for number, by := range map[string]byte{"8": apdu.ByCentre, "9": apdu.ByReader} {
		h.blank(number, true)
		live(h, number, by)
	}
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && testpki.Must(d.Info()).Mode().Perm()&0o077 != 0 {
			t.Errorf("%s may be read by others", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func live(h *host, n string, by byte) {
	t := h.t
	t.Helper()
	h.is(n, apdu.Blank)
	h.refuses(n, apdu.Enrol, h.ask(city, by), apdu.Conditions, "no device certificate")
	h.refuses(n, apdu.PutDevice, apdu.Elements{apdu.Certificate: {1}, apdu.Issuer: {1}, apdu.Root: {1}}, apdu.Conditions, "blank")
	h.prepared(n)
	h.is(n, apdu.Prepared)
	h.refuses(n, apdu.MakeDevice, nil, apdu.Conditions, "is certified")
	h.refuses(n, apdu.Finish, nil, apdu.Conditions, "nothing is installed")
	h.refuses(n, apdu.GetReceipt, nil, apdu.NotFound, "no receipt")

	first := h.life(n, by)
	if state, where := h.state(n); state != apdu.Finished || where != city {
		t.Errorf("it is %d in %q", state, where)
	}
	for which, tag := range map[byte]byte{apdu.SigningCertificate: apdu.Certificate, apdu.EncryptionCertificate: apdu.Certificate2} {
		if !bytes.Equal(h.must(n, apdu.GetCertificate, which, nil), first[tag]) {
			t.Errorf("certificate %d is another one", which)
		}
	}
	h.refuses(n, apdu.Install, first, apdu.Conditions, "did not enrol")
	h.refuses(n, apdu.Enrol, h.ask("330200", by), apdu.Conditions, "belongs to city 330100")

	// A renewal: other keys, vouched for by the signing key of the first pair, which
	// serves until the second is taken.
	asked := h.ask(city, by)
	w := h.enrolled(h.must(n, apdu.Enrol, 0, asked), asked)
	if !bytes.Equal(w.signer.DER, first[apdu.Certificate]) {
		t.Errorf("the renewal is signed by %s", w.signer.Subject)
	}
	if bytes.Equal(w.sign, w.signer.X509.RawSubjectPublicKeyInfo) {
		t.Error("the signing key is the old one")
	}
	h.is(n, apdu.Enrolled)
	if !bytes.Equal(h.must(n, apdu.GetCertificate, apdu.SigningCertificate, nil), first[apdu.Certificate]) {
		t.Error("the first pair is gone before the second is there")
	}
	second := h.pair(w)
	h.receipted(h.must(n, apdu.Install, 0, second), n, second)
	h.must(n, apdu.Finish, 0, nil)
	h.must(n, apdu.Finish, 0, nil)
	h.receipted(h.must(n, apdu.GetReceipt, 0, nil), n, second)
}

// TestPowerCuts: the power goes in each command, at each point, and the same command
// again finishes what was begun, with the same keys.
func TestPowerCuts(t *testing.T) {
	h := newHost(t)
	number, torn := 0, 0
	for _, by := range []byte{apdu.ByCentre, apdu.ByReader} {
		for _, step := range []string{"identify", "certificate", "make", "put", "enrol", "install", "receipt", "finish"} {
			for _, point := range []string{"before", "during", "after"} {
				for _, token := range []bool{false, true} {
					if token && (point == "during" || by == apdu.ByReader || !slices.Contains([]string{"make", "enrol", "install"}, step)) {
						continue // where keys lie makes no difference there
					}
					number++
					n := fmt.Sprint(number)
					h.rack.Cuts = nil
					h.blank(n, token)
					h.rack.Cuts = &device.Cuts{At: testpki.Must(device.ParseCuts(step + ":" + point))}
					halves := func() []string { return testpki.Must(filepath.Glob(filepath.Join(h.dir, "*.new"))) }
					if !cutLife(h, n, by, func() { torn += len(halves()) }) {
						t.Errorf("%s:%s: the power did not go", step, point)
					}
					if left := halves(); len(left) > 0 {
						t.Errorf("%s:%s: %s is left", step, point, left)
					}
				}
			}
		}
	}
	if torn != 2*5 { // commands that write
		t.Errorf("%d writes were cut in the middle", torn)
	}
	if list := testpki.Must(h.rack.Numbers()); len(list) != number {
		t.Errorf("there are %d readers, %d were made", len(list), number)
	}
}

// cutLife leads a reader through both stages and asks every command until it is
// answered, and then once more: what it says stays the same.
func cutLife(h *host, n string, by byte, look func()) (cut bool) {
	t := h.t
	t.Helper()
	do := func(ins, p1 byte, e apdu.Elements) []byte {
		t.Helper()
		b, err := h.do(n, ins, p1, e)
		if err != nil {
			if cut {
				t.Errorf("the power went twice: %v", err)
			}
			cut = true
			look()
			b = h.must(n, ins, p1, e)
		}
		return b
	}
	twice := func(ins, p1 byte, e apdu.Elements) []byte {
		t.Helper()
		b := do(ins, p1, e)
		if again := h.must(n, ins, p1, e); !bytes.Equal(b, again) {
			t.Errorf("command %02X says %x, and then %x", ins, b, again)
		}
		return b
	}
	twice(apdu.Identify, 0, nil)
	csr := do(apdu.MakeDevice, 0, nil)
	do(apdu.PutDevice, 0, h.deviceElements(h.pki, n, do(apdu.MakeDevice, 0, nil)))
	twice(apdu.PutDevice, 0, h.deviceElements(h.pki, n, csr)) // fits, so both requests had one key
	twice(apdu.GetCertificate, apdu.DeviceCertificate, nil)

	asked := h.ask(city, by)
	w := h.enrolled(twice(apdu.Enrol, 0, asked), asked)
	// Another session has the same keys, but for the transport key.
	asked = h.ask(city, by)
	other := h.enrolled(twice(apdu.Enrol, 0, asked), asked)
	if !bytes.Equal(w.sign, other.sign) || !bytes.Equal(w.encrypt, other.encrypt) || by == apdu.ByCentre && bytes.Equal(w.transport, other.transport) {
		t.Error("another session has other keys")
	}
	pair := h.pair(other)
	h.receipted(twice(apdu.Install, 0, pair), n, pair)
	twice(apdu.GetReceipt, 0, nil)
	if state, _ := h.state(n); state != apdu.Installed {
		t.Errorf("the reader is %s", device.StateName(state))
	}

	// The city lost the receipt: a session more, and the same pair once more.
	asked = h.ask(city, by)
	w = h.enrolled(twice(apdu.Enrol, 0, asked), asked)
	if !bytes.Equal(w.sign, other.sign) || w.signer.City != "" {
		t.Error("a pair that was not finished is asked for with other keys")
	}
	h.refuses(n, apdu.Install, pair, apdu.WrongData, "the session is")
	pair = h.pair(w)
	h.receipted(twice(apdu.Install, 0, pair), n, pair)
	twice(apdu.Finish, 0, nil)
	h.is(n, apdu.Finished)
	return cut
}

// TestRandomCuts: a crowd whose power comes and goes, all at once.
func TestRandomCuts(t *testing.T) {
	h := newHost(t)
	const crowd = 60
	for i := range crowd {
		h.blank(fmt.Sprint(i), false)
	}
	cuts := &device.Cuts{Random: 0.3, Seed: 7}
	h.rack.Cuts = cuts
	var group sync.WaitGroup
	var number atomic.Int64
	for range 6 {
		group.Go(func() {
			own := *h // sessions of its own
			for i := number.Add(1) - 1; i < crowd; i = number.Add(1) - 1 {
				n := fmt.Sprint(i)
				own.prepared(n)
				own.life(n, byte(i%2))
				own.is(n, apdu.Finished)
			}
		})
	}
	group.Wait()
}

// TestCutsRepeat: the same seed cuts the same commands.
func TestCutsRepeat(t *testing.T) {
	for _, text := range []string{"", "enrol:", "enrol:later", "load", "enrol,,put"} {
		if list, err := device.ParseCuts(text); err == nil {
			t.Errorf("%q is %v", text, list)
		}
	}
	if list, err := device.ParseCuts("enrol,install:after"); err != nil || !slices.Equal(list, []device.Cut{{apdu.Enrol, device.Before}, {apdu.Install, device.After}}) {
		t.Errorf("%v, %v", list, err)
	}
	run := func(seed uint64) (what []bool) {
		h := newHost(t)
		h.rack.Cuts = &device.Cuts{Random: 0.5, Seed: seed}
		h.blank("1", false)
		for range 64 {
			_, err := h.do("1", apdu.Identify, 0, nil)
			what = append(what, err != nil)
		}
		return what
	}
	first := run(1)
	if !slices.Equal(first, run(1)) || slices.Equal(first, run(2)) || !slices.Contains(first, true) || !slices.Contains(first, false) {
		t.Error("cuts by chance do not follow the seed")
	}
}

// TestHostileHost: what a reader must not take, whoever brings it.
func TestHostileHost(t *testing.T) {
	h := newHost(t)
	h.blank("1", false)
	foreign := testpki.Must(testpki.New(testpki.Config{}))
	otherPKCS8, otherSPKI := h.centreKey()

	// Stage 1.
	csr := h.must("1", apdu.MakeDevice, 0, nil)
	good := h.deviceElements(h.pki, "1", csr)
	with := func(e apdu.Elements, change apdu.Elements) apdu.Elements {
		e = maps.Clone(e)
		for tag, v := range change {
			if e[tag] = v; v == nil {
				delete(e, tag)
			}
		}
		return e
	}
	refused := func(ins byte, e apdu.Elements, status uint16, words string) {
		t.Helper()
		before, _ := h.state("1")
		h.refuses("1", ins, e, status, words)
		h.is("1", before)
	}
	refused(apdu.PutDevice, with(good, apdu.Elements{apdu.Root: foreign.Anchors()[0]}), apdu.SecurityStatus, "not acceptable")
	refused(apdu.PutDevice, with(good, apdu.Elements{apdu.Root: good[apdu.Issuer]}), apdu.SecurityStatus, "not one")
	refused(apdu.PutDevice, with(good, apdu.Elements{apdu.Issuer: nil}), apdu.WrongData, "is missing")
	refused(apdu.PutDevice, with(good, apdu.Elements{apdu.Issuer: h.pki.CA(city).Record.Certificate}), apdu.SecurityStatus, "not acceptable")
	refused(apdu.PutDevice, with(good, apdu.Elements{apdu.Certificate: []byte("certificate")}), apdu.WrongData, "cannot be read")
	refused(apdu.PutDevice, with(good, apdu.Elements{apdu.Certificate: testpki.Must(h.pki.Device("1")).Certificate}), apdu.SecurityStatus, "another key")
	refused(apdu.PutDevice, h.deviceElements(h.pki, "11", csr), apdu.SecurityStatus, "not reader 1")
	refused(apdu.PutDevice, with(good, apdu.Elements{apdu.Ticket: make([]byte, 16)}), apdu.WrongData, "no use for")
	h.must("1", apdu.PutDevice, 0, good)
	refused(apdu.PutDevice, h.deviceElements(foreign, "1", csr), apdu.SecurityStatus, "stays with it")

	// Enrolment.
	refused(apdu.Enrol, with(h.ask(city, apdu.ByCentre), apdu.Elements{apdu.Challenge: make([]byte, 8)}), apdu.WrongData, "challenge has 8 octets")
	refused(apdu.Enrol, h.ask("33010x", apdu.ByCentre), apdu.WrongData, "not six digits")
	refused(apdu.Enrol, h.ask(city, 2), apdu.WrongData, "nobody knows")
	refused(apdu.Install, apdu.Elements{apdu.Certificate: {1}, apdu.Certificate2: {1}, apdu.Issuer: {1}, apdu.Session: make([]byte, 16)}, apdu.Conditions, "did not enrol")

	// A stranger had it enrol in another city: that binds nobody.
	stray := h.ask("330200", apdu.ByCentre)
	elsewhere := h.enrolled(h.must("1", apdu.Enrol, 0, stray), stray)
	if _, where := h.state("1"); where != "" {
		t.Errorf("the reader says it is of city %s", where)
	}
	asked := h.ask(city, apdu.ByCentre)
	w := h.enrolled(h.must("1", apdu.Enrol, 0, asked), asked)
	if bytes.Equal(w.sign, elsewhere.sign) {
		t.Error("two cities are asked to certify one key")
	}

	// The pair.
	pair := h.pair(w)
	cert := func(pki *testpki.World, ca, profile, number string, spki []byte) []byte {
		t.Helper()
		return h.certify(pki, ca, profile, policy.Name{Reader: number, City: ca[:6]}, spki)
	}
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Session: make([]byte, 16)}), apdu.WrongData, "the session is")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Ticket: {1}}), apdu.WrongData, "the ticket has")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.SealedKey: nil}), apdu.WrongData, "sealed key is missing")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate: pair[apdu.Certificate2], apdu.Certificate2: pair[apdu.Certificate]}), apdu.SecurityStatus, "signing certificate is not acceptable")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate2: pair[apdu.Certificate]}), apdu.SecurityStatus, "encryption certificate is not acceptable")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Issuer: h.pki.CA("330200").Record.Certificate}), apdu.SecurityStatus, "not acceptable")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate: cert(h.pki, city, "reader-sign", "2", w.sign)}), apdu.SecurityStatus, "is for reader 2")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate: cert(h.pki, city, "reader-sign", "1", otherSPKI)}), apdu.SecurityStatus, "another key")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate2: cert(h.pki, city, "reader-encrypt", "2", otherSPKI)}), apdu.SecurityStatus, "is for reader 2")

	wrongCity := *w
	wrongCity.City = "330200"
	refused(apdu.Install, h.pair(&wrongCity), apdu.SecurityStatus, "of city 330200")
	them := *w
	them.Number = "2"
	refused(apdu.Install, h.pair(&them), apdu.SecurityStatus, "is for reader 2")
	refused(apdu.Install, with(pair, apdu.Elements{
		apdu.Certificate: cert(foreign, city, "reader-sign", "1", w.sign), apdu.Certificate2: cert(foreign, city, "reader-encrypt", "1", otherSPKI),
		apdu.Issuer: foreign.CA(city).Record.Certificate, apdu.SealedKey: h.seal(w.transport, otherPKCS8),
	}), apdu.SecurityStatus, "not acceptable")
	// The issuer is named as ours; another's key signed.
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate: cert(foreign, city, "reader-sign", "1", w.sign)}), apdu.SecurityStatus, "not acceptable")
	testpki.Must(h.pki.AddCA(city+".2", policy.KindCity, city))
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate2: cert(h.pki, city+".2", "reader-encrypt", "1", otherSPKI), apdu.SealedKey: h.seal(w.transport, otherPKCS8)}), apdu.SecurityStatus, "not acceptable")

	// The sealed key.
	refused(apdu.Install, with(pair, apdu.Elements{apdu.SealedKey: h.seal(w.transport, otherPKCS8)}), apdu.SecurityStatus, "not the one of the encryption certificate")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.SealedKey: h.seal(elsewhere.transport, otherPKCS8)}), apdu.SecurityStatus, "another transport key")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.SealedKey: h.seal(w.transport, []byte("this is not a private key"))}), apdu.SecurityStatus, "does not open")
	damaged := bytes.Clone(pair[apdu.SealedKey])
	damaged[len(damaged)-1] ^= 1
	refused(apdu.Install, with(pair, apdu.Elements{apdu.SealedKey: damaged}), apdu.SecurityStatus, "does not open")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate2: cert(h.pki, city, "reader-encrypt", "1", w.sign)}), apdu.SecurityStatus, "for something else")

	// What was sent once does not pass in another session.
	asked = h.ask(city, apdu.ByCentre)
	w = h.enrolled(h.must("1", apdu.Enrol, 0, asked), asked)
	refused(apdu.Install, pair, apdu.WrongData, "the session is")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Session: asked[apdu.Session]}), apdu.SecurityStatus, "another transport key")

	// The reader makes its key itself: one that comes from elsewhere is not its own.
	asked = h.ask(city, apdu.ByReader)
	w = h.enrolled(h.must("1", apdu.Enrol, 0, asked), asked)
	pair = h.pair(w)
	refused(apdu.Install, with(pair, apdu.Elements{apdu.SealedKey: damaged}), apdu.WrongData, "made its encryption key itself")
	refused(apdu.Install, with(pair, apdu.Elements{apdu.Certificate2: cert(h.pki, city, "reader-encrypt", "1", otherSPKI)}), apdu.SecurityStatus, "another key")

	// After all that, what is right is taken, and is out of time in the end.
	var later atomic.Int64
	h.rack.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	later.Store(int64(50 * 365 * 24 * time.Hour))
	refused(apdu.Install, pair, apdu.SecurityStatus, "not acceptable")
	later.Store(0)
	h.receipted(h.must("1", apdu.Install, 0, pair), "1", pair)
	h.must("1", apdu.Finish, 0, nil)
	refused(apdu.Install, pair, apdu.Conditions, "did not enrol")
	h.receipted(h.must("1", apdu.GetReceipt, 0, nil), "1", pair)
}

// TestForm: what is no command of this reader.
func TestForm(t *testing.T) {
	h := newHost(t)
	h.blank("1", false)
	for _, c := range []struct {
		what    string
		command []byte
		status  uint16
		words   string
	}{
		{"nothing", nil, apdu.WrongLength, "malformed"},
		{"another class", []byte{0, apdu.Identify, 0, 0}, apdu.UnknownClass, "class is 00"},
		{"another instruction", []byte{apdu.Class, 0xA4, 0, 0}, apdu.UnknownINS, "no command A4"},
		{"P1", []byte{apdu.Class, apdu.Identify, 1, 0}, apdu.WrongData, "P1"},
		{"P2", []byte{apdu.Class, apdu.GetCertificate, 1, 1}, apdu.WrongData, "P2"},
		{"which certificate", []byte{apdu.Class, apdu.GetCertificate, 9, 0}, apdu.WrongData, "certificate 09"},
		{"none yet", []byte{apdu.Class, apdu.GetCertificate, 1, 0}, apdu.NotFound, "no such certificate"},
		{"not elements", []byte{apdu.Class, apdu.Enrol, 0, 0, 1, 0xC6}, apdu.WrongData, "malformed"},
		{"an element too many", []byte{apdu.Class, apdu.Identify, 0, 0, 3, 0xC1, 1, 'x'}, apdu.WrongData, "C1"},
	} {
		r := testpki.Must(h.rack.Reader("1"))
		a := testpki.Must(apdu.ParseAnswer(testpki.Must(r.Answer(c.command))))
		words := testpki.Must(apdu.ParseAnswer(testpki.Must(r.Answer([]byte{apdu.Class, apdu.GetReason, 0, 0}))))
		if a.Status != c.status || len(a.Data) > 0 || !strings.Contains(string(words.Data), c.words) {
			t.Errorf("%s: %04X %q, want %04X %q", c.what, a.Status, words.Data, c.status, c.words)
		}
		r.Close()
		if _, err := r.Answer(c.command); err == nil {
			t.Error("a reader without power answers")
		}
	}
	if _, err := apdu.Open(t.Context(), h.address, "2"); err == nil || !strings.Contains(err.Error(), "there is no reader 2") {
		t.Errorf("a reader that is not there: %v", err)
	}
	if _, err := apdu.Open(t.Context(), h.address, "../1"); err == nil || !strings.Contains(err.Error(), "digits") {
		t.Errorf("a number with a path: %v", err)
	}
	if names, err := apdu.Slots(t.Context(), h.address); err != nil || !slices.Equal(names, []string{"1"}) {
		t.Errorf("the slots are %q, %v", names, err)
	}
}

// TestFlash: an image is good for its reader and its folder, nobody reads keys in
// it, and one process at a time has a folder in hand.
func TestFlash(t *testing.T) {
	h := newHost(t)
	for _, n := range []string{"1", "2"} {
		h.blank(n, false)
		h.prepared(n)
	}
	path := func(n string) string { return filepath.Join(h.dir, n+".flash") }
	first, second := testpki.Must(os.ReadFile(path("1"))), testpki.Must(os.ReadFile(path("2")))
	if bytes.Contains(first, []byte("PKCS8")) || bytes.Contains(first, []byte(maker.Model)) {
		t.Error("the image can be read by anybody")
	}
	for what, image := range map[string][]byte{"another reader's": second, "half": first[:len(first)/2], "empty": nil} {
		if err := os.WriteFile(path("1"), image, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := apdu.Open(t.Context(), h.address, "1"); err == nil || !strings.Contains(err.Error(), "the flash of reader 1") {
			t.Errorf("an image that is %s: %v", what, err)
		}
	}
	if err := os.WriteFile(path("1"), first, 0o600); err != nil {
		t.Fatal(err)
	}
	h.life("1", apdu.ByCentre)
	if k, err := device.OpenRack(h.dir); err == nil {
		k.Close()
		t.Error("two have the folder in hand")
	}
	s := maker
	s.Number, s.Model = "1", "XF-200"
	h.power("1").Close()
	if r, err := h.rack.New(s); err == nil || !strings.Contains(err.Error(), "made already") {
		r.Close()
		t.Errorf("a reader was made again as another model: %v", err)
	}
	count := 0
	if err := device.All(h.dir, func(f device.Facts) { count++ }); err != nil || count != 2 {
		t.Errorf("%d readers are shown, %v", count, err)
	}
	r := h.power("1")
	if err := r.Forget(); err != nil {
		t.Error(err)
	}
	r.Close()
	h.is("1", apdu.Prepared)
	h.life("1", apdu.ByReader)
}

// TestOneHostAtATime: who comes second waits until the first has gone.
func TestOneHostAtATime(t *testing.T) {
	h := newHost(t)
	h.blank("1", false)
	first := testpki.Must(apdu.Open(t.Context(), h.address, "1"))
	testpki.Must(first.Do(apdu.Identify, 0, nil))
	second := make(chan error)
	go func() {
		r, err := apdu.Open(t.Context(), h.address, "1")
		if err == nil {
			_, err = r.Do(apdu.Identify, 0, nil)
			r.Close()
		}
		second <- err
	}()
	testpki.Must(first.Do(apdu.MakeDevice, 0, nil))
	select {
	case err := <-second:
		t.Errorf("the second did not wait: %v", err)
	default:
	}
	first.Close()
	if err := <-second; err != nil {
		t.Error(err)
	}
}
