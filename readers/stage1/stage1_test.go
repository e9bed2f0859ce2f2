package stage1_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/jobs"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/store"
	"hufu/verify"
)

func centre(t testing.TB) *place {
	p := newPlace(t, testpki.Must(testpki.New(testpki.Config{})), "device", "330100", "330200")
	p.addModel(model)
	return p
}

func TestModels(t *testing.T) {
	p := centre(t)
	for what, change := range map[string]func(*stage1.Model){
		"no name":         func(m *stage1.Model) { m.Name = "" },
		"a slash":         func(m *stage1.Model) { m.Name = "a/b" },
		"no approval":     func(m *stage1.Model) { m.Approval = "" },
		"lapsed already":  func(m *stage1.Model) { m.Until = time.Now().Add(-time.Hour) },
		"no end":          func(m *stage1.Model) { m.Until = time.Time{} },
		"empty firmware":  func(m *stage1.Model) { m.Firmware = []string{""} },
		"a long firmware": func(m *stage1.Model) { m.Firmware = []string{strings.Repeat("1", 65)} },
	} {
		m := model
		change(&m)
		err := p.book.Update(t.Context(), func(tx *store.Tx) error {
			_, err := p.AddModel(tx, m, "tester")
			return err
		})
		if !stage1.IsRefusal(err, "model") {
			t.Errorf("%s: %v", what, err)
		}
	}
	list, _, err := p.Models(t.Context(), nil, 10)
	if err != nil || len(list) != 1 || list[0].State(p.now()) != "approved" {
		t.Errorf("%+v, %v", list, err)
	}
	withdraw := func() error {
		return p.book.Update(t.Context(), func(tx *store.Tx) error {
			_, err := p.WithdrawModel(tx, model.Name, "tester", "recalled")
			return err
		})
	}
	p.must(withdraw())
	if err := withdraw(); !stage1.IsRefusal(err, "model-withdrawn") {
		t.Errorf("withdrawn twice: %v", err)
	}
	p.addModel(model)
	if m, err := p.Model(t.Context(), model.Name); err != nil || m.State(p.now()) != "approved" {
		t.Errorf("approved anew: %+v, %v", m, err)
	}
}

func TestManifest(t *testing.T) {
	p := centre(t)
	numbers := numbersOf(600)
	keys := keysOf(numbers)
	m, job := p.take(csvOf(keys, numbers...))
	p.good(job)
	if job.Done != 600 || m.Prepared != 600 {
		t.Errorf("%+v, %+v", job, m)
	}
	for _, n := range []string{numbers[0], numbers[599]} {
		rd, err := p.Register.Reader(t.Context(), n)
		if err != nil || rd.State != readers.Prepared || rd.Batch != m.ID || rd.DeviceKey != store.Sum(spki(keys[n])) || rd.Approval != model.Approval {
			t.Errorf("%+v, %v", rd, err)
		}
		c, err := p.Verifier.Chain(p.device(n), nil, verify.Device)
		if err != nil || c.Reader != n {
			t.Errorf("%+v, %v", c, err)
		}
	}
	_, err := p.CheckManifest(t.Context(), csvOf(keys, numbers...), "")
	p.must(err) // the same file
	err = p.book.Update(t.Context(), func(tx *store.Tx) error {
		sheet, _ := stage1.ReadManifest(csvOf(keys, numbers...), "")
		_, err := p.Import(tx, sheet, "again", "tester")
		return err
	})
	if !stage1.IsRefusal(err, "manifest-known") {
		t.Errorf("the same file again: %v", err)
	}
	_, err = p.CheckManifest(t.Context(), csvOf(keys, numbers[:3]...), "")
	faults := new(stage1.Faults)
	if !errors.As(err, &faults) || faults.Total != 6 {
		t.Errorf("known numbers and keys: %v", err)
	}
}

// A request proves possession of its key, as a bare key does not.
func TestManifestOfRequests(t *testing.T) {
	p := centre(t)
	key := testpki.Must(testpki.Key())
	csr := testpki.Must(testpki.CSR(key))
	head := "number,model,firmware,approval,csr\n"
	_, job := p.take([]byte(head + "1,XF-100,1.2.0,CN-2026-017," + hex.EncodeToString(csr) + "\n"))
	p.good(job)
	bad := bytes.Clone(csr)
	bad[len(bad)-1] ^= 1
	_, err := stage1.ReadManifest([]byte(head+"2,XF-100,1.2.0,CN-2026-017,"+base64.StdEncoding.EncodeToString(bad)+"\n"), "")
	if err == nil || !strings.Contains(err.Error(), "csr") {
		t.Errorf("a request with a bad signature: %v", err)
	}
}

// TestGB18030 reads a file that another program wrote, with Chinese headers.
func TestGB18030(t *testing.T) {
	p := centre(t)
	m := model
	m.Name, m.Firmware = "圈存器一型", []string{"版本1"}
	p.addModel(m)
	dir := t.TempDir()
	plain := filepath.Join(dir, "utf8.csv")
	key := base64.StdEncoding.EncodeToString(spki(testpki.Must(testpki.Key())))
	text := "编号,型号,固件,批准号,公钥\r\n7001,圈存器一型,版本1,CN-2026-017," + key + "\r\n"
	p.must(os.WriteFile(plain, []byte(text), 0o600))
	gb, err := exec.Command("iconv", "-f", "UTF-8", "-t", "GB18030", plain).Output()
	p.must(err)
	if bytes.Equal(gb, []byte(text)) {
		t.Fatal("iconv changed nothing")
	}
	for what, file := range map[string][]byte{"GB18030": gb, "UTF-8": []byte(text), "UTF-8 with a mark": append([]byte("\xef\xbb\xbf"), text...)} {
		sheet, err := stage1.ReadManifest(file, "")
		if err != nil || len(sheet.Rows) != 1 || sheet.Rows[0].Model != "圈存器一型" {
			t.Errorf("%s: %+v, %v", what, sheet, err)
		}
	}
	if sheet, err := stage1.ReadManifest(gb, stage1.GB18030); err != nil || sheet.Encoding != stage1.GB18030 {
		t.Errorf("told: %v", err)
	}
	for what, file := range map[string][]byte{"UTF-16": []byte("\xff\xfen\x00"), "neither": []byte("编号\xff\xff,\x80")} {
		if _, err := stage1.ReadManifest(file, ""); err == nil {
			t.Errorf("%s is read", what)
		}
	}
	if _, err := stage1.ReadManifest(gb, stage1.UTF8); err == nil {
		t.Error("GB18030 is read as UTF-8")
	}
	_, job := p.take(gb)
	p.good(job)
	if p.state("7001") != readers.Prepared {
		t.Error("the reader is not prepared")
	}
}

// TestFaults: a file with every sort of fault, all told at once, and nothing taken.
func TestFaults(t *testing.T) {
	p := centre(t)
	lapsed, gone := model, model
	lapsed.Name, gone.Name = "OLD-1", "GONE-1"
	lapsed.Until = time.Now().Add(time.Minute)
	p.addModel(lapsed)
	p.addModel(gone)
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := p.WithdrawModel(tx, "GONE-1", "tester", "")
		return err
	}))
	p.wait(time.Hour)
	b64 := base64.StdEncoding.EncodeToString
	key := func() string { return b64(spki(testpki.Must(testpki.Key()))) }
	weak := b64(spki(testpki.Must(rsa.GenerateKey(rand.Reader, 1024))))
	twice := key()
	rows := []struct{ row, column, reason string }{
		{"1,XF-100,1.2.0,CN-2026-017," + key() + ",", "", ""},
		{"A1,XF-100,1.2.0,CN-2026-017," + key() + ",", "number", "not a reader's number"},
		{"3.3E+10,XF-100,1.2.0,CN-2026-017," + key() + ",", "number", "not a reader's number"},
		{"1,XF-100,1.2.0,CN-2026-017," + key() + ",", "number", "line 2 already"},
		{"5,NEW-9,1.2.0,CN-2026-017," + key() + ",", "model", "not known"},
		{"6,OLD-1,1.2.0,CN-2026-017," + key() + ",", "approval", "lapsed"},
		{"7,GONE-1,1.2.0,CN-2026-017," + key() + ",", "model", "withdrawn"},
		{"8,XF-100,9.9,CN-2026-017," + key() + ",", "firmware", "not tested"},
		{"9,XF-100,1.2.0,CN-1999-1," + key() + ",", "approval", "is CN-2026-017"},
		{"10,,1.2.0,CN-2026-017," + key() + ",", "model", "is empty"},
		{"11,XF-100,1.2.0,CN-2026-017,,", "key", "neither key nor request"},
		{"12,XF-100,1.2.0,CN-2026-017," + key() + ",00", "key", "a key and a request"},
		{"13,XF-100,1.2.0,CN-2026-017,!!!,", "key", "neither base64"},
		{"14,XF-100,1.2.0,CN-2026-017,AAAA,", "key", "not acceptable"},
		{"15,XF-100,1.2.0,CN-2026-017," + weak + ",", "key", "not acceptable"},
		{"16,XF-100,1.2.0,CN-2026-017," + twice + ",", "", ""},
		{"17,XF-100,1.2.0,CN-2026-017," + twice + ",", "key", "same key"},
		{"18,XF-100,1.2.0", "", "3 fields"},
		{"19,XF-100,1.2.0,CN-2026-017,,00", "csr", "not acceptable"},
	}
	file, want := "number,model,firmware,approval,key,csr\n", 0
	for _, r := range rows {
		file += r.row + "\n"
		if r.reason != "" {
			want++
		}
	}
	_, err := p.CheckManifest(t.Context(), []byte(file), "")
	faults := new(stage1.Faults)
	if !errors.As(err, &faults) || faults.Total != want {
		t.Fatalf("%d faults wanted: %v", want, err)
	}
	for i, r := range rows {
		found := ""
		for _, f := range faults.List {
			if f.Row == i+2 {
				found += fmt.Sprintf("%s: %s (%s); ", f.Column, f.Reason, f.Remedy)
				if f.Remedy == "" {
					t.Errorf("line %d has no remedy", f.Row)
				}
			}
		}
		if (r.reason == "") != (found == "") || !strings.HasPrefix(found, r.column) || !strings.Contains(found, r.reason) {
			t.Errorf("line %d, %s: %q", i+2, r.row, found)
		}
	}
	if list, _, _ := p.Register.List(t.Context(), readers.Query{Limit: 10}); len(list) > 0 {
		t.Errorf("%d readers came in", len(list))
	}
	for what, file := range map[string]string{
		"nothing": "", "no rows": "number,model,firmware,approval,key\n", "no key column": "number,model,firmware,approval\n1,a,b,c\n",
		"an unknown column": "number,model,firmware,approval,key,colour\n", "a column twice": "number,编号,model,firmware,approval,key\n",
		"a quotation mark": "number,model,firmware,approval,key\n\"1,XF-100,1,1,1\n",
	} {
		if _, err := stage1.ReadManifest([]byte(file), ""); !errors.As(err, &faults) || faults.List[0].Remedy == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	many := "number,model,firmware,approval,key\n" + strings.Repeat("?,XF-100,1.2.0,CN-2026-017,x!\n", 500)
	if _, err := stage1.ReadManifest([]byte(many), ""); !errors.As(err, &faults) || faults.Total != 1000+499 || len(faults.List) != 100 {
		t.Errorf("many faults: %v", err)
	}
	if _, err := p.CheckManifest(t.Context(), []byte(file), "ebcdic"); err == nil {
		t.Error("an encoding that nobody knows")
	}
}

func FuzzReadManifest(f *testing.F) {
	f.Add([]byte("number,model,firmware,approval,key,csr\n1,a,b,c,AAAA,\n"))
	f.Add([]byte("编号,型号,固件,批准号,公钥\n1,\"a\nb\",b,c,00\n"))
	f.Add([]byte("\xb1\xe0\xba\xc5,\xd0\xcd\xba\xc5\n1,2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sheet, err := stage1.ReadManifest(b, "")
		faults := new(stage1.Faults)
		if err != nil && (!errors.As(err, &faults) || faults.Total < len(faults.List) || len(faults.List) == 0) {
			t.Fatalf("%v", err)
		}
		if err == nil {
			for _, r := range sheet.Rows {
				if r.Number == "" || r.SPKI == nil || r.Model == "" || r.Line < 2 {
					t.Fatalf("%+v passes", r)
				}
			}
		}
	})
}

func TestTicket(t *testing.T) {
	p := centre(t)
	numbers := numbersOf(300)
	m, job := p.take(csvOf(keysOf(numbers), numbers...))
	p.good(job)
	refused := func(what string, o stage1.TicketOrder, problem string) {
		t.Helper()
		if o.Expires.IsZero() {
			o.Expires = p.now().Add(time.Hour)
		}
		_, err := p.Choose(t.Context(), o)
		var state *readers.StateError
		if problem == "state" && errors.As(err, &state) {
			return
		}
		if !stage1.IsRefusal(err, problem) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("no city", stage1.TicketOrder{}, "ticket-order")
	refused("expired", stage1.TicketOrder{City: "330100", Expires: p.now().Add(-time.Second)}, "ticket-order")
	refused("unknown", stage1.TicketOrder{City: "330100", Numbers: []string{"nobody"}}, "ticket-order")
	refused("twice", stage1.TicketOrder{City: "330100", Numbers: []string{numbers[0], numbers[0]}}, "ticket-order")
	refused("another batch", stage1.TicketOrder{City: "330100", Select: readers.Query{Batch: "x"}}, "ticket-order")
	refused("too many", stage1.TicketOrder{City: "330100", Count: 301}, "ticket-order")
	refused("quota", stage1.TicketOrder{City: "330100", Quota: 301}, "ticket-order")

	first, der := p.ticket(stage1.TicketOrder{City: "330100", Numbers: numbers[:2], Quota: 1})
	v, msg, err := p.Verifier.Ticket(t.Context(), der)
	if err != nil || v.ID != first.ID || v.Quota != 1 || len(v.Readers) != 2 || msg.Signer.Name != "centre."+testpki.Domain {
		t.Fatalf("%+v, %v", v, err)
	}
	if v.Readers[0].Device != store.Sum(p.device(numbers[0])) || p.state(numbers[0]) != readers.Allotted {
		t.Error("the ticket does not name the device certificate")
	}
	opensslVerifies(t, p, der)
	refused("allotted", stage1.TicketOrder{City: "330100", Numbers: numbers[:1]}, "state")
	refused("allotted, and more", stage1.TicketOrder{City: "330100", Numbers: numbers[:2]}, "ticket-order")
	rest, der := p.ticket(stage1.TicketOrder{City: "330200", Select: readers.Query{Batch: m.ID}})
	if rest.Readers != 298 || rest.Quota != 298 || rest.Size != int64(len(der)) || rest.Sum != store.Sum(der) {
		t.Errorf("%+v", rest)
	}

	revoke := func() *jobs.Job {
		return p.run(stage1.JobTicketRevoke, func(tx *store.Tx) (any, error) {
			_, err := p.Revoke(tx, rest.ID, "tester", "lorry stolen")
			return stage1.TicketArgs{Ticket: rest.ID}, err
		})
	}
	if job := revoke(); job.State != jobs.Done || job.Done != 298 || p.state(numbers[299]) != readers.Prepared {
		t.Errorf("%+v", job)
	}
	err = p.book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := p.Revoke(tx, rest.ID, "tester", "")
		return err
	})
	if !stage1.IsRefusal(err, "ticket-state") {
		t.Errorf("revoked twice: %v", err)
	}
	again, _ := p.ticket(stage1.TicketOrder{City: "330100", Count: 10})
	if again.Readers != 10 {
		t.Errorf("%+v", again)
	}
	list, _, err := p.Tickets(t.Context(), "330100", nil, 10)
	if err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}

// opensslVerifies has openssl judge a ticket from the root alone.
func opensslVerifies(t testing.TB, p *place, der []byte) {
	t.Helper()
	dir := t.TempDir()
	root, file := filepath.Join(dir, "root.pem"), filepath.Join(dir, "ticket")
	p.must(os.WriteFile(root, testpki.PEM("CERTIFICATE", p.pki.Anchors()[0]), 0o600))
	p.must(os.WriteFile(file, der, 0o600))
	out, err := exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", file, "-CAfile", root, "-purpose", "any", "-out", os.DevNull).CombinedOutput()
	if err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

// TestAdmit: each outcome by its name.
func TestAdmit(t *testing.T) {
	p := centre(t)
	numbers := numbersOf(6)
	_, job := p.take(csvOf(keysOf(numbers), numbers...))
	p.good(job)
	ours, _ := p.ticket(stage1.TicketOrder{City: "330100", Numbers: numbers[:3], Quota: 1})
	other, _ := p.ticket(stage1.TicketOrder{City: "330200", Numbers: numbers[3:4]})
	ask := func(number, city, ticket string) error {
		return p.book.View(t.Context(), func(tx *store.Tx) error {
			_, _, err := p.Admit(tx, number, city, ticket)
			return err
		})
	}
	outcome := func(what string, err error, problem string) {
		t.Helper()
		if problem == "" && err != nil || problem != "" && !stage1.IsRefusal(err, problem) {
			t.Errorf("%s: %v", what, err)
		}
	}
	outcome("on the ticket", ask(numbers[0], "330100", ours.ID), "")
	outcome("whichever ticket", ask(numbers[0], "330100", ""), "")
	outcome("unknown", ask("nobody", "330100", ours.ID), stage1.NotOnTicket)
	outcome("prepared", ask(numbers[5], "330100", ours.ID), stage1.NotOnTicket)
	outcome("another ticket", ask(numbers[0], "330100", other.ID), stage1.NotOnTicket)
	outcome("another city", ask(numbers[3], "330100", ours.ID), stage1.WrongCity)
	outcome("asked by another city", ask(numbers[0], "330200", ours.ID), stage1.WrongCity)
	rd := func(number string) *readers.Reader {
		r, err := p.Register.Reader(t.Context(), number)
		p.must(err)
		return r
	}
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error { return p.Spend(tx, rd(numbers[0])) }))
	outcome("quota", ask(numbers[1], "330100", ours.ID), stage1.QuotaSpent)
	p.wait(31 * 24 * time.Hour)
	outcome("expired", ask(numbers[1], "330100", ours.ID), stage1.TicketExpired)
	p.must(p.book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := p.Revoke(tx, ours.ID, "tester", "")
		return err
	}))
	outcome("revoked", ask(numbers[1], "330100", ours.ID), stage1.TicketIsRevoked)
}

// TestOfflineCity: two books. The centre's ticket goes to a city as a file, the
// city's receipts come back as a file, and each that is not right is told apart.
func TestOfflineCity(t *testing.T) {
	c := newPlace(t, testpki.Must(testpki.New(testpki.Config{})), "device")
	c.addModel(model)
	city := newPlace(t, c.pki, "330100")
	elsewhere := newPlace(t, c.pki, "330200")
	numbers := numbersOf(8)
	_, job := c.take(csvOf(keysOf(numbers), numbers...))
	c.good(job)
	ticket, der := c.ticket(stage1.TicketOrder{City: "330100", Numbers: numbers[:6], Quota: 5})
	second, der2 := c.ticket(stage1.TicketOrder{City: "330100", Numbers: numbers[6:7]})

	if _, err := city.Judge(t.Context(), der, false); err == nil {
		t.Error("a city that cannot ask for the centre's status takes the ticket as if it had")
	}
	if _, err := elsewhere.Judge(t.Context(), der, true); !stage1.IsRefusal(err, "wrong-city") {
		t.Errorf("another city: %v", err)
	}
	in, job := city.bring(der, true)
	city.good(job)
	if in.State != stage1.TicketOpen || !in.Imported || in.Readers != 6 || city.state(numbers[0]) != readers.Allotted {
		t.Errorf("%+v", in)
	}
	err := city.book.Update(t.Context(), func(tx *store.Tx) error {
		v, err := city.Judge(t.Context(), der, true)
		if err == nil {
			_, err = city.TakeIn(tx, v, der, true, "tester")
		}
		return err
	})
	if !stage1.IsRefusal(err, "ticket-known") {
		t.Errorf("taken in twice: %v", err)
	}
	_, job = city.bring(der2, true)
	city.good(job)

	lines := make([][]byte, 6)
	made := make([]*reader, 6)
	for i := range 5 {
		made[i], lines[i] = city.initialise(numbers[i], c.device(numbers[i]), ticket.ID)
	}
	err = city.book.View(t.Context(), func(tx *store.Tx) error {
		_, _, err := city.Admit(tx, numbers[5], "330100", ticket.ID)
		return err
	})
	if !stage1.IsRefusal(err, stage1.QuotaSpent) {
		t.Errorf("a sixth of five: %v", err)
	}
	err = city.book.View(t.Context(), func(tx *store.Tx) error {
		_, _, err := city.Admit(tx, numbers[0], "330100", ticket.ID)
		return err
	})
	if !stage1.IsRefusal(err, stage1.AlreadyInitialised) {
		t.Errorf("a second time: %v", err)
	}
	of2, line2 := city.initialise(numbers[6], c.device(numbers[6]), second.ID)
	bad := bytes.Replace(lines[0], []byte(`"sign":"MII`), []byte(`"sign":"MIJ`), 1)
	otherDevice := of2.device
	swapped := *made[1]
	swapped.device = otherDevice
	forged := testpki.Must(json.Marshal(verify.ReceiptLine{Number: numbers[3], Receipt: []byte("x")}))
	send := [][]byte{
		lines[0], lines[0], line2, bad, swapped.receipt(ticket.ID, nil),
		made[1].receipt(ticket.ID, func(r *verify.Receipt) { r.City = "330200" }),
		made[1].receipt("", nil), made[1].receipt(second.ID, nil), forged, []byte("rubbish"), lines[1], made[1].receipt(ticket.ID, func(r *verify.Receipt) { r.Firmware = "9" }),
	}
	want := []struct{ outcome, reason string }{
		{stage1.Matched, ""}, {stage1.Double, "above already"}, {stage1.Foreign, "another ticket"}, {stage1.Foreign, ""}, {stage1.Foreign, "device"},
		{stage1.Foreign, "city"}, {stage1.Foreign, "another ticket"}, {stage1.Foreign, "another ticket"}, {stage1.Foreign, "reading"}, {stage1.Foreign, "JSON"}, {stage1.Matched, ""}, {stage1.Double, ""},
	}
	check := func(got []stage1.Match, err error) {
		t.Helper()
		if err != nil || len(got) != len(want) {
			t.Fatalf("%+v, %v", got, err)
		}
		for i, w := range want {
			if got[i].Outcome != w.outcome || !strings.Contains(got[i].Reason, w.reason) || got[i].Line != i+1 {
				t.Errorf("line %d: %+v, want %s %s", i+1, got[i], w.outcome, w.reason)
			}
		}
	}
	got, err := c.Reconcile(t.Context(), ticket.ID, send, "tester")
	check(got, err)
	head := c.head()
	got, err = c.Reconcile(t.Context(), ticket.ID, send, "tester")
	want[0].reason, want[10].reason = "known", "known"
	check(got, err)
	if c.head() != head {
		t.Error("the same file a second time changed something")
	}
	rd, err := c.Register.Reader(t.Context(), numbers[0])
	if err != nil || rd.State != readers.Active || !rd.Elsewhere || rd.Sign != made[0].sign.Serial || rd.Encrypt != made[0].encrypt.Serial {
		t.Errorf("%+v, %v", rd, err)
	}
	if now, err := c.Ticket(t.Context(), ticket.ID); err != nil || now.Used != 2 {
		t.Errorf("%+v, %v", now, err)
	}
	missing, _, err := c.Register.List(t.Context(), readers.Query{Ticket: ticket.ID, State: readers.Allotted})
	if err != nil || len(missing) != 4 {
		t.Errorf("%d readers are missing, %v", len(missing), err)
	}

	// What the city says of status counts, where the centre can ask it.
	p := made[2]
	city.must(city.book.Update(t.Context(), func(tx *store.Tx) error {
		_, err := city.Register.Revoke(tx, p.number, 1, time.Time{}, "tester", "")
		return err
	}))
	c.told = verify.FromBook(city.book)
	if got, err = c.Reconcile(t.Context(), ticket.ID, lines[2:3], "tester"); err != nil || got[0].Outcome != stage1.Foreign {
		t.Errorf("a revoked pair: %+v, %v", got, err)
	}
}

func (p *place) head() uint64 {
	p.t.Helper()
	tree, err := p.book.Tree(p.t.Context())
	p.must(err)
	return uint64(tree.Size)
}
