package verify_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/store"
	"hufu/verify"
)

func someTicket() *verify.Ticket {
	return &verify.Ticket{
		ID: someID, City: "330100", Issued: expiry.Add(-time.Hour), Expires: expiry, Quota: 2,
		Readers: []verify.TicketReader{
			{Number: "33010000001", Device: sha256.Sum256([]byte("1")), Model: "XF-100"},
			{Number: "33010000002", Device: sha256.Sum256([]byte("2")), Model: "读卡器 2"},
		},
	}
}

func someEnrolment() *verify.Enrolment {
	return &verify.Enrolment{Session: someID, Challenge: bytes.Repeat([]byte{0xC5}, 32), Number: "33010000001", City: "330100", Firmware: "1.2.0", CSR: []byte("csr")}
}

func someReceipt() *verify.Receipt {
	return &verify.Receipt{
		Session: someID, Number: "33010000001", City: "330100", Ticket: someID, Firmware: "1.2.0", Time: expiry,
		Sign: sha256.Sum256([]byte("s")), Encrypt: sha256.Sum256([]byte("e")), Device: sha256.Sum256([]byte("d")),
	}
}

func TestStageContentsRoundTrip(t *testing.T) {
	roundTrip(t, someTicket(), verify.ParseTicket)
	roundTrip(t, someEnrolment(), verify.ParseEnrolment)
	roundTrip(t, someReceipt(), verify.ParseReceipt)
	direct := someReceipt()
	direct.Ticket, direct.Device = "", [32]byte{}
	roundTrip(t, direct, verify.ParseReceipt)
}

// TestStageVectors holds the contents on the wire: readers in the field were made
// for them.
func TestStageVectors(t *testing.T) {
	const hash = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b" // SHA-256 of "1"
	for want, v := range map[string]interface{ Marshal() ([]byte, error) }{
		"020101 041000112233445566778899aabbccddeeff 0c06333330313030 180f32303331303230333033303530365a 180f32303331303230333034303530365a 020102" +
			"3077 3037 0c0b3333303130303030303031 0420" + hash + " 0c0658462d313030" +
			"303c 0c0b3333303130303030303032 0420d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35 0c0be8afbbe58da1e599a82032": someTicket(),
		"020101 041000112233445566778899aabbccddeeff 0420c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5" +
			"0c0b3333303130303030303031 0c06333330313030 0c05312e322e30 0403637372": someEnrolment(),
		"020101 041000112233445566778899aabbccddeeff 0c0b3333303130303030303031 0c06333330313030 041000112233445566778899aabbccddeeff 0c05312e322e30 180f32303331303230333034303530365a" +
			"0420043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89 04203f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea" +
			"042018ac3e7343f016890c510e93f935261169d9e3f565436429830faf0934f4f8e4": someReceipt(),
	} {
		der := testpki.Must(v.Marshal())
		body := der[2:]
		if der[1]&0x80 != 0 {
			body = der[2+der[1]&0x7f:]
		}
		if have := hex.EncodeToString(body); have != strings.ReplaceAll(want, " ", "") {
			t.Errorf("%T is written as %s", v, have)
		}
	}
}

func TestStageContentsRefuse(t *testing.T) {
	for what, change := range map[string]func(*verify.Ticket){
		"no ID":                     func(v *verify.Ticket) { v.ID = "" },
		"no city":                   func(v *verify.Ticket) { v.City = "" },
		"expires when issued":       func(v *verify.Ticket) { v.Expires = v.Issued },
		"no quota":                  func(v *verify.Ticket) { v.Quota = 0 },
		"a quota above the list":    func(v *verify.Ticket) { v.Quota = 3 },
		"no readers":                func(v *verify.Ticket) { v.Readers = nil },
		"a reader twice":            func(v *verify.Ticket) { v.Readers[1] = v.Readers[0] },
		"readers out of order":      func(v *verify.Ticket) { v.Readers[0], v.Readers[1] = v.Readers[1], v.Readers[0] },
		"a number in capitals":      func(v *verify.Ticket) { v.Readers[0].Number = "A1" },
		"no model":                  func(v *verify.Ticket) { v.Readers[0].Model = "" },
		"a model with a newline":    func(v *verify.Ticket) { v.Readers[0].Model = "a\nb" },
		"a model that is not UTF-8": func(v *verify.Ticket) { v.Readers[0].Model = "\xff" },
		"too many readers":          func(v *verify.Ticket) { v.Readers = manyReaders(verify.MaxTicketReaders + 1) },
	} {
		v := someTicket()
		change(v)
		if _, err := v.Marshal(); err == nil {
			t.Errorf("%s: encoded", what)
		}
	}
	for what, change := range map[string]func(*verify.Enrolment){
		"no session":        func(v *verify.Enrolment) { v.Session = "" },
		"a short challenge": func(v *verify.Enrolment) { v.Challenge = v.Challenge[1:] },
		"no request":        func(v *verify.Enrolment) { v.CSR = nil },
		"no firmware":       func(v *verify.Enrolment) { v.Firmware = "" },
	} {
		v := someEnrolment()
		change(v)
		if _, err := v.Marshal(); err == nil {
			t.Errorf("%s: encoded", what)
		}
	}
	for what, change := range map[string]func(*verify.Receipt){
		"half a ticket": func(v *verify.Receipt) { v.Ticket = someID[:16] },
		"no number":     func(v *verify.Receipt) { v.Number = "" },
		"no time":       func(v *verify.Receipt) { v.Time = time.Time{} },
	} {
		v := someReceipt()
		change(v)
		if _, err := v.Marshal(); err == nil {
			t.Errorf("%s: encoded", what)
		}
	}
}

func manyReaders(n int) []verify.TicketReader {
	list := make([]verify.TicketReader, n)
	for i := range list {
		list[i] = verify.TicketReader{Number: fmt.Sprintf("3301%08d", i), Device: sha256.Sum256([]byte{byte(i)}), Model: "XF-100"}
	}
	return list
}

func FuzzStageContents(f *testing.F) {
	for _, v := range []interface{ Marshal() ([]byte, error) }{someTicket(), someEnrolment(), someReceipt()} {
		f.Add(testpki.Must(v.Marshal()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		same(t, b, verify.ParseTicket)
		same(t, b, verify.ParseEnrolment)
		same(t, b, verify.ParseReceipt)
	})
}

// marshal signs a content of the first days.
func (w *world) stage(t testing.TB, kind []int, v interface{ Marshal() ([]byte, error) }, signer *testpki.Leaf) []byte {
	t.Helper()
	return w.signed(t, kind, testpki.Must(v.Marshal()), signer)
}

func (w *world) ticket() *verify.Ticket {
	v := someTicket()
	v.Issued = w.now().UTC().Truncate(time.Second)
	v.Expires = v.Issued.Add(30 * 24 * time.Hour)
	return v
}

func TestTicket(t *testing.T) {
	w := newWorld(t)
	centre := testpki.Must(w.CentreSigner())
	der := w.stage(t, oid.ContentTicket, w.ticket(), centre)
	v, m, err := w.verifier.Ticket(t.Context(), der)
	if err != nil || v.City != "330100" || m.Signer.Name != "centre."+testpki.Domain || m.Evidence.State != verify.Good {
		t.Fatalf("%+v, %+v, %v", v, m, err)
	}
	if v.Find("33010000002") == nil || v.Find("33010000003") != nil {
		t.Error("the readers are not found by number")
	}
	opensslVerifies(t, w, "ticket", der, testpki.Must(w.ticket().Marshal()))

	alone := &verify.Verifier{Anchors: w.Anchors(), Domain: testpki.Domain, Now: w.now}
	if _, _, err := alone.TicketFile(der); err != nil {
		t.Error(err)
	}
	_, _, err = alone.Ticket(t.Context(), der)
	misfit[*verify.StaleError](t, "nobody tells the status", verify.Kept, err)

	check := func(der []byte) error { _, _, err := w.verifier.Ticket(t.Context(), der); return err }
	for what, signer := range map[string]*testpki.Leaf{
		"a city": testpki.Must(w.CitySigner("330100")), "a device": testpki.Must(w.Device("1")), "a person": testpki.Must(w.Operator("Li Lei", "")),
		"a server that calls itself the centre": testpki.Must(w.Server("centre." + testpki.Domain)),
	} {
		if check(w.stage(t, oid.ContentTicket, w.ticket(), signer)) == nil {
			t.Errorf("%s signs tickets", what)
		}
	}
	misfit[*verify.MismatchError](t, "a receipt's content type", verify.Presented, check(w.stage(t, oid.ContentReceipt, w.ticket(), centre)))
	misfit[*verify.FormError](t, "a receipt's content", verify.Presented, check(w.stage(t, oid.ContentTicket, someReceipt(), centre)))
	misfit[*verify.SizeError](t, "too large", verify.Presented, check(make([]byte, verify.MaxTicket+1)))
	bad := bytes.Clone(der)
	bad[bytes.Index(bad, []byte("330100"))] ^= 1
	if check(bad) == nil {
		t.Error("another city is accepted")
	}
	w.set(centre, verify.Revoked)
	misfit[*verify.RevokedError](t, "the centre's certificate is revoked", verify.Kept, check(der))
	w.set(centre, verify.Good)
	w.wait(31 * 24 * time.Hour)
	misfit[*verify.ExpiredError](t, "expired", verify.Presented, check(der))
	if v, err := verify.ReadTicket(der); err != nil || v.ID != someID {
		t.Errorf("an expired ticket is not shown: %v", err)
	}
}

// opensslVerifies has openssl judge a message from the root alone.
func opensslVerifies(t testing.TB, w *world, name string, der, content []byte) {
	t.Helper()
	dir := t.TempDir()
	root, file := filepath.Join(dir, "root.pem"), filepath.Join(dir, name)
	if err := os.WriteFile(root, testpki.PEM("CERTIFICATE", w.Anchors()[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", file, "-CAfile", root, "-purpose", "any", "-out", file+".content").CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	if have, err := os.ReadFile(file + ".content"); err != nil || !bytes.Equal(have, content) {
		t.Errorf("openssl reads another %s, %v", name, err)
	}
}

func TestEnrolment(t *testing.T) {
	w := newWorld(t)
	device, pair := testpki.Must(w.Device("33010000001")), w.reader(t, "330100", "33010000001")
	check := func(v *verify.Enrolment, signer *testpki.Leaf) (*verify.Message, error) {
		_, m, err := w.verifier.Enrolment(t.Context(), w.stage(t, oid.ContentEnrolment, v, signer))
		return m, err
	}
	m, err := check(someEnrolment(), device)
	if err != nil || m.Signer.City != "" || m.Signer.Reader != "33010000001" {
		t.Fatalf("%+v, %v", m, err)
	}
	if m, err = check(someEnrolment(), pair.Sign); err != nil || m.Signer.City != "330100" {
		t.Errorf("renewal: %+v, %v", m, err)
	}
	_, err = check(someEnrolment(), testpki.Must(w.Device("2")))
	misfit[*verify.MismatchError](t, "another device", verify.Presented, err)
	_, err = check(someEnrolment(), w.reader(t, "330200", "33010000001").Sign)
	misfit[*verify.MismatchError](t, "another city", verify.Presented, err)
	_, err = check(someEnrolment(), pair.Encrypt)
	if err == nil {
		t.Error("an encryption key enrols")
	}
	_, err = check(someEnrolment(), testpki.Must(w.CentreSigner()))
	if err == nil {
		t.Error("the centre enrols for a reader")
	}
	w.set(device, verify.Revoked)
	_, err = check(someEnrolment(), device)
	misfit[*verify.RevokedError](t, "a revoked device", verify.Kept, err)
}

func (w *world) line(t testing.TB, device *testpki.Leaf, pair *testpki.Reader, change func(*verify.Receipt)) *verify.ReceiptLine {
	t.Helper()
	r := someReceipt()
	r.Number, r.City, r.Time = pair.Number, pair.City, w.now().UTC().Truncate(time.Second)
	r.Sign, r.Encrypt, r.Device = sha256.Sum256(pair.Sign.Certificate), sha256.Sum256(pair.Encrypt.Certificate), sha256.Sum256(device.Certificate)
	if change != nil {
		change(r)
	}
	return &verify.ReceiptLine{Number: pair.Number, Receipt: w.stage(t, oid.ContentReceipt, r, pair.Sign),
		Sign: pair.Sign.Certificate, Encrypt: pair.Encrypt.Certificate, Device: bytes.Clone(device.Certificate), Chain: device.Chain[:1]}
}

func TestReceipt(t *testing.T) {
	w := newWorld(t)
	device, pair := testpki.Must(w.Device("33010000001")), w.reader(t, "330100", "33010000001")
	line := w.line(t, device, pair, nil)
	check := func() error { _, _, err := w.verifier.Receipt(t.Context(), line.Receipt); return err }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	s := testpki.Must(cms.Parse(line.Receipt, 0))
	opensslVerifies(t, w, "receipt", line.Receipt, s.Content)
	w.set(pair.Sign, verify.OnHold)
	if _, m, err := w.verifier.Receipt(t.Context(), line.Receipt); err != nil || m.Evidence.State != verify.OnHold {
		t.Errorf("of a pair on hold: %+v, %v", m, err)
	}
	city := &testpki.Leaf{Serial: testpki.Must(store.SerialFrom(testpki.Must(x509.ParseCertificate(w.CA("330100").Record.Certificate)).SerialNumber))}
	w.set(city, verify.Revoked)
	misfit[*verify.RevokedError](t, "the city CA is revoked", verify.Kept, check())
	w.set(city, verify.Good)
	w.set(pair.Sign, verify.Revoked)
	misfit[*verify.RevokedError](t, "the certificate is revoked", verify.Kept, check())
}

func TestReceiptLine(t *testing.T) {
	w := newWorld(t)
	device, pair := testpki.Must(w.Device("33010000001")), w.reader(t, "330100", "33010000001")
	other := w.reader(t, "330100", "2")
	good := w.line(t, device, pair, nil)
	var again verify.ReceiptLine
	if err := json.Unmarshal(testpki.Must(json.Marshal(good)), &again); err != nil {
		t.Fatal(err)
	}
	r, err := w.verifier.ReceiptLine(&again)
	if err != nil || r.Encrypt.Reader != "33010000001" || r.Device.Reader != "33010000001" || r.Message.Signer.City != "330100" {
		t.Fatalf("%+v, %v", r, err)
	}
	without := w.line(t, device, pair, func(r *verify.Receipt) { r.Device = [32]byte{} })
	without.Device = nil
	if _, err := w.verifier.ReceiptLine(without); err != nil {
		t.Errorf("without a device certificate: %v", err)
	}
	strange := w.reader(t, "330100", "33010000001")
	for what, line := range map[string]*verify.ReceiptLine{
		"another number":                  {Number: "2", Receipt: good.Receipt, Sign: good.Sign, Encrypt: good.Encrypt, Device: good.Device, Chain: good.Chain},
		"another signing certificate":     {Number: good.Number, Receipt: good.Receipt, Sign: strange.Sign.Certificate, Encrypt: good.Encrypt, Device: good.Device, Chain: good.Chain},
		"another encryption certificate":  {Number: good.Number, Receipt: good.Receipt, Sign: good.Sign, Encrypt: strange.Encrypt.Certificate, Device: good.Device, Chain: good.Chain},
		"no device certificate":           {Number: good.Number, Receipt: good.Receipt, Sign: good.Sign, Encrypt: good.Encrypt},
		"a device certificate unnamed":    {Number: good.Number, Receipt: without.Receipt, Sign: good.Sign, Encrypt: good.Encrypt, Device: good.Device, Chain: good.Chain},
		"a receipt of another reader":     {Number: good.Number, Receipt: w.line(t, device, other, nil).Receipt, Sign: other.Sign.Certificate, Encrypt: other.Encrypt.Certificate, Device: good.Device, Chain: good.Chain},
		"another reader's encryption key": swap(w.line(t, device, pair, func(r *verify.Receipt) { r.Encrypt = sha256.Sum256(other.Encrypt.Certificate) }), other.Encrypt.Certificate),
		"the signing key to encrypt with": swap(w.line(t, device, pair, func(r *verify.Receipt) { r.Encrypt = r.Sign }), good.Sign),
		"a receipt that names another":    w.line(t, device, pair, func(r *verify.Receipt) { r.Sign = sha256.Sum256(nil) }),
		"a receipt of another city":       w.line(t, device, pair, func(r *verify.Receipt) { r.City = "330200" }),
		"another device":                  w.line(t, testpki.Must(w.Device("2")), pair, nil),
		"nothing":                         {},
	} {
		if _, err := w.verifier.ReceiptLine(line); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func swap(l *verify.ReceiptLine, encrypt []byte) *verify.ReceiptLine {
	l.Encrypt = encrypt
	return l
}

// A full ticket stays below its bound, and is read and judged as a whole.
func TestFullTicket(t *testing.T) {
	w := newWorld(t)
	v := w.ticket()
	v.Readers, v.Quota = manyReaders(verify.MaxTicketReaders), verify.MaxTicketReaders
	for i := range v.Readers {
		v.Readers[i].Number = fmt.Sprintf("%020d", i)
		v.Readers[i].Model = strings.Repeat("x", 64)
	}
	start := time.Now()
	der := w.stage(t, oid.ContentTicket, v, testpki.Must(w.CentreSigner()))
	made := time.Now()
	got, _, err := w.verifier.Ticket(t.Context(), der)
	if err != nil || len(got.Readers) != verify.MaxTicketReaders {
		t.Fatal(err)
	}
	t.Logf("%d octets, made in %v, judged in %v", len(der), made.Sub(start), time.Since(made))
}
