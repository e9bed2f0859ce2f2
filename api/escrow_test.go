package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hufu/api/client"
	"hufu/ca"
	"hufu/hsm"
	"hufu/internal/cms"
	"hufu/internal/leak"
	"hufu/internal/softhsm"
	"hufu/internal/testpki"
	"hufu/issuance/escrow"
	"hufu/policy"
	"hufu/store"
	"hufu/verify"
)

// answers keeps every octet that the door sends.
type answers struct {
	mu  sync.Mutex
	all bytes.Buffer
}

type tapped struct {
	http.ResponseWriter
	to *answers
}

func (t *tapped) Write(b []byte) (int, error) {
	t.to.mu.Lock()
	t.to.all.Write(b)
	t.to.mu.Unlock()
	return t.ResponseWriter.Write(b)
}

func (t *tapped) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (a *answers) tap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&tapped{w, a}, r) })
}

// newCentre is a world with a key management centre on a real token.
func newCentre(t *testing.T) (w *world, home *softhsm.Home, heard *answers) {
	t.Helper()
	home = testpki.Must(softhsm.New(t.TempDir()))
	w, heard = &world{t: t, readTimeout: time.Minute}, &answers{}
	w.must(home.Activate())
	_, err := home.Init("kmc", []byte("12345678"), []byte("1234"))
	w.must(err)
	w.tap = heard.tap
	newWorldOf(w, func(v *verify.Verifier) *escrow.Escrow {
		log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		token, err := hsm.Open(t.Context(), hsm.Config{Module: home.Module(), URI: "pkcs11:token=kmc", Patience: time.Second, Log: log,
			PIN: func() ([]byte, error) { return []byte("1234"), nil }})
		w.must(err)
		t.Cleanup(func() { token.Close() })
		return testpki.Must(escrow.New(t.Context(), escrow.Config{Book: w.book, Token: token, Wrapping: "kmc", Spare: 16, Verifier: v, Log: log}))
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.centre.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		w.must(<-done)
		w.must(w.centre.Check(context.Background()))
	})
	return w, home, heard
}

// keptReader is a reader whose encryption key the centre made.
type keptReader struct {
	number  string
	encrypt *store.Certificate
	key     []byte // PKCS #8, as the reader opened it
}

// initialise takes a reader through what concerns the centre, as the second stage does.
func (w *world) initialise(number string) *keptReader {
	w.t.Helper()
	ctx := context.Background()
	spki := testpki.Must(w.centre.Claim(ctx, number, "330100"))
	name := policy.Name{Reader: number, City: "330100"}
	certs, err := w.authority.Issue(ctx, ca.Order{Requester: "test",
		Requests: []ca.Request{
			{CA: "330100", Profile: "reader-sign", CSR: testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))), Name: name},
			{CA: "330100", Profile: "reader-encrypt", SPKI: spki, Kept: true, Name: name},
		},
		Reserve: func(tx *store.Tx, _ []*store.Certificate) error { return w.centre.Claimed(tx, spki, number) },
		Commit:  func(tx *store.Tx, certs []*store.Certificate) error { return w.centre.InUse(tx, spki, certs[1]) },
	})
	w.must(err)
	transport := testpki.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	envelope := testpki.Must(w.centre.Deliver(ctx, spki, testpki.Must(x509.MarshalPKIXPublicKey(transport.Public()))))
	o := &cms.Opener{ECDH: testpki.Must(transport.ECDH())}
	return &keptReader{number, certs[1], testpki.Must(o.OpenKey(envelope, spki))}
}

// refused fails unless an error is a problem of a kind whose words say this.
func refused(t *testing.T, what string, err error, kind, says string) {
	t.Helper()
	var p *client.Problem
	if !errors.As(err, &p) || p.Type != "/problems/"+kind || p.Remedy == "" || !strings.Contains(p.Detail, says) {
		t.Errorf("%s: %v", what, err)
	}
}

// TestNoLeak runs the whole life of kept keys through the doors, with all that is refused
// and all that fails, and then looks for the private keys, which only the readers have
// seen, in every file, log line and answer. It recovers a key with 2 of 3 key officers on
// the way, and with 1 of 3 it does not.
func TestNoLeak(t *testing.T) {
	w, home, heard := newCentre(t)
	ctx := t.Context()
	asks := w.hire("Zhao", "", policy.CAOperator)
	officers := []*person{w.hire("Wu", "", policy.KeyOfficer), w.hire("Zheng", "", policy.KeyOfficer), w.hire("Feng", "", policy.KeyOfficer)}
	auditor := w.hire("Zhou", "", policy.Auditor)
	judge := w.recipient("Judge Bao")
	stranger := w.recipient("Held")
	w.must(w.book.Update(ctx, func(tx *store.Tx) error { return w.authority.Suspend(tx, refOf(stranger), "test") }))

	var readers []*keptReader
	for i := range 6 {
		readers = append(readers, w.initialise(fmt.Sprint(4000+i)))
	}
	r := readers[0]

	// What is refused before anybody is asked.
	ask := client.RecoveryRequest{Serial: r.encrypt.Serial.String(), Recipient: judge.Certificate, Reason: "order of a court, file 17"}
	for what, c := range map[string]struct {
		change     func(*client.RecoveryRequest)
		kind, says string
	}{
		"no reason":           {func(a *client.RecoveryRequest) { a.Reason = "" }, "malformed", "reason"},
		"no serial":           {func(a *client.RecoveryRequest) { a.Serial = "7" }, "malformed", "serial"},
		"unknown serial":      {func(a *client.RecoveryRequest) { a.Serial = "01" + strings.Repeat("0", 32) }, "not-found", "keeps no key"},
		"a recipient on hold": {func(a *client.RecoveryRequest) { a.Recipient = stranger.Certificate }, "recovery-refused", "on-hold"},
		"the reader itself":   {func(a *client.RecoveryRequest) { a.Recipient = r.encrypt.DER }, "recovery-refused", "does not do"},
	} {
		bad := ask
		c.change(&bad)
		_, err := asks.client.RequestRecovery(ctx, bad)
		refused(t, what, err, c.kind, c.says)
	}
	_, err := auditor.client.RequestRecovery(ctx, ask)
	refused(t, "an auditor", err, "forbidden", "escrow.recover")

	// One of three is not enough, and who is no key officer does not count.
	approval := testpki.Must(asks.client.RequestRecovery(ctx, ask))
	sign := func(p *person) error {
		_, err := p.client.Approve(ctx, approval.ID, p.consent(approval.Canonical))
		return err
	}
	for _, sees := range []string{r.encrypt.Serial.String(), "Judge Bao", ask.Reason} {
		if !bytes.Contains(approval.Canonical, []byte(sees)) {
			t.Errorf("officers do not see %q in what they sign: %s", sees, approval.Canonical)
		}
	}
	refused(t, "the requester", sign(asks), "approval", "only a key-officer")
	refused(t, "an admin", sign(w.admins[0]), "approval", "only a key-officer")
	w.must(sign(officers[0]))
	head := w.head()
	_, err = asks.client.Recover(ctx, approval.ID)
	refused(t, "with 1 of 3", err, "approval", "with 1 of 2 signatures")
	if kinds := w.since(head); !slices.Equal(kinds, []string{escrow.KindRefused}) {
		t.Errorf("the journal says of the refusal: %v", kinds)
	}
	refused(t, "the same officer again", sign(officers[0]), "approval", "has signed it")
	w.must(sign(officers[2]))
	head = w.head()
	keyed := asks.client.Keyed("recover-once")
	recovered := testpki.Must(keyed.Recover(ctx, approval.ID))
	if again := testpki.Must(keyed.Recover(ctx, approval.ID)); !bytes.Equal(again.Envelope, recovered.Envelope) {
		t.Error("a lost answer is another the second time")
	}
	if kinds := w.since(head); !slices.Contains(kinds, escrow.KindRecovered) || !slices.Contains(kinds, store.KindApprovalUsed) {
		t.Errorf("the journal says of the recovery: %v", kinds)
	}
	o := &cms.Opener{Certificate: judge.Certificate, ECDH: testpki.Must(judge.Key.(*ecdsa.PrivateKey).ECDH())}
	if key := testpki.Must(o.OpenKey(recovered.Envelope, spkiOf(recovered.Certificate))); !bytes.Equal(key, r.key) {
		t.Error("what was recovered is another key")
	}
	_, err = asks.client.Recover(ctx, approval.ID)
	refused(t, "a second time", err, "approval", "it is used")
	_, err = asks.client.Recover(ctx, "nothing")
	refused(t, "no approval", err, "not-found", "nothing")

	// An approval of something else does not do, whatever its bytes.
	other := w.otherApproval(asks, officers[0])
	_, err = asks.client.Recover(ctx, other)
	refused(t, "an approval of something else", err, "approval", "not of a recovery")

	w.everything(ctx, readers)
	w.failing(ctx, home, readers[1])

	// Now look.
	var s leak.Scanner
	for _, r := range readers {
		private := testpki.Must(x509.ParsePKCS8PrivateKey(r.key)).(*ecdsa.PrivateKey)
		s.Add("the private key of reader "+r.number, testpki.Must(private.Bytes()))
	}
	var backup bytes.Buffer
	w.must(w.book.Backup(ctx, &backup, nil))
	looked := map[string][]byte{"a backup": backup.Bytes(), "the log": []byte(w.log.String()), "the answers": heard.all.Bytes()}
	for name, data := range looked {
		if len(data) < 1000 {
			t.Errorf("%s has %d octets: the test does not hear it", name, len(data))
		}
		for _, f := range s.Find(data) {
			t.Errorf("%s: %s", name, f)
		}
	}
	if !bytes.Contains(heard.all.Bytes(), []byte(base64.StdEncoding.EncodeToString(recovered.Envelope))) {
		t.Error("the recovered envelope is not among the answers: the test does not hear them")
	}
	// The token's folder too: what is kept was never an object of the token, only of
	// sessions.
	for _, folder := range []string{w.folder, filepath.Dir(home.Conf())} {
		found, files, err := s.Files(folder)
		w.must(err)
		for _, f := range found {
			t.Error(f)
		}
		if files == 0 {
			t.Errorf("there is no file in %s", folder)
		}
	}

	// The same scanner, in the same places, finds one that is planted.
	w.must(os.WriteFile(filepath.Join(w.folder, "planted"), readers[3].key, 0o600))
	if found, _, err := s.Files(w.folder); err != nil || len(found) != 1 || !strings.Contains(found[0], "reader 4003") {
		t.Errorf("a planted file: %v, %v", found, err)
	}
	w.must(w.book.Update(ctx, func(tx *store.Tx) error {
		tx.Append(store.Event{Kind: "planted", Detail: fmt.Sprintf("%x", readers[4].key)})
		return nil
	}))
	var after bytes.Buffer
	w.must(w.book.Backup(ctx, &after, nil))
	if len(s.Find(after.Bytes())) == 0 {
		t.Error("one that was planted in the journal is not found in a backup")
	}
	slog.New(slog.NewTextHandler(w.log, nil)).Error("planted", "key", readers[5].key)
	if len(s.Find([]byte(w.log.String()))) == 0 {
		t.Error("one that was planted in the log is not found")
	}
}

// recipient is a person to whom recovered keys are sealed.
func (w *world) recipient(name string) *person {
	w.t.Helper()
	key := testpki.Must(testpki.Key())
	certs, err := w.authority.Issue(context.Background(), ca.Order{Requester: "test",
		Requests: []ca.Request{{CA: "staff", Profile: "recipient", CSR: testpki.Must(testpki.CSR(key)), Name: policy.Name{Person: name}}}})
	w.must(err)
	return &person{Leaf: &testpki.Leaf{Certificate: certs[0].DER, Key: key, Serial: certs[0].Serial, Record: *certs[0]}}
}

func spkiOf(cert []byte) []byte {
	return testpki.Must(x509.ParseCertificate(cert)).RawSubjectPublicKeyInfo
}

// otherApproval is one that was granted for something else.
func (w *world) otherApproval(asks, agrees *person) string {
	w.t.Helper()
	ctx := context.Background()
	a, err := w.office.Caller(ctx, asks.Certificate)
	w.must(err)
	b, err := w.office.Caller(ctx, agrees.Certificate)
	w.must(err)
	var id string
	w.must(w.book.Update(ctx, func(tx *store.Tx) error {
		r, err := w.office.Request(tx, a, policy.OpCertificateIssue, "", []byte(`{}`), 1)
		if err != nil {
			return err
		}
		id = r.ID
		_, err = w.office.Approve(tx, b, r.ID, agrees.consent(r.Canonical))
		return err
	}))
	return id
}

// everything asks for all that can be read of the centre.
func (w *world) everything(ctx context.Context, readers []*keptReader) {
	w.t.Helper()
	admin := w.admins[0]
	counts := testpki.Must(admin.client.Escrow(ctx))
	if counts.InUse != uint64(len(readers)) || counts.Officers != 2 {
		w.t.Errorf("the counts are %+v", counts)
	}
	listed := 0
	for k, err := range admin.client.EscrowKeys(ctx, "") {
		w.must(err)
		if k.State != "in-use" || k.Serial == "" {
			w.t.Errorf("listed: %+v", k)
		}
		listed++
	}
	if listed != len(readers) {
		w.t.Errorf("%d keys are listed", listed)
	}
	for _, path := range []string{"/metrics", "/v1/journal?limit=1000", "/v1/approvals", "/v1/certificates", "/openapi.json", "/v1/escrow/keys?reader=4000", "/v1/escrow/nothing"} {
		if status, _, body := admin.ask(w, http.MethodGet, path, "", ""); status != http.StatusOK && path != "/v1/escrow/nothing" || len(body) == 0 {
			w.t.Errorf("%s: %d", path, status)
		}
	}
	if _, _, body := admin.ask(w, http.MethodGet, "/metrics", "", ""); !strings.Contains(string(body), `hufu_escrow_keys{state="in-use"} 6`) {
		w.t.Error("the metrics do not count the kept keys")
	}
	j := testpki.Must(admin.client.Check(ctx))
	if j = testpki.Must(admin.client.WaitJob(ctx, j.ID, nil)); j.State != "done" {
		w.t.Errorf("the check: %+v", j)
	}
	if _, err := admin.client.Backup(ctx, &bytes.Buffer{}); err != nil {
		w.t.Errorf("the backup: %v", err)
	}
}

// failing makes what goes wrong go wrong: a token that is away, and deliveries to nobody.
func (w *world) failing(ctx context.Context, home *softhsm.Home, r *keptReader) {
	w.t.Helper()
	spki := spkiOf(r.encrypt.DER)
	for _, transport := range [][]byte{nil, []byte("x"), spki[:20]} {
		if _, err := w.centre.Deliver(ctx, spki, transport); err == nil {
			w.t.Error("delivered to nobody")
		} else {
			slog.New(slog.NewTextHandler(w.log, nil)).Error("delivering", "err", err)
		}
	}
	elsewhere := filepath.Join(w.t.TempDir(), "tokens")
	w.must(os.Rename(home.Tokens(), elsewhere))
	if _, err := w.centre.Deliver(ctx, spki, spki); err == nil {
		w.t.Error("delivered without a token")
	} else {
		slog.New(slog.NewTextHandler(w.log, nil)).Error("delivering", "err", err)
	}
	w.must(os.Rename(elsewhere, home.Tokens()))
}

// TestNodeWithoutCentre: such a node says so.
func TestNodeWithoutCentre(t *testing.T) {
	w := newWorld(t)
	_, err := w.admins[0].client.Escrow(t.Context())
	refused(t, "the counts", err, "no-centre", "no key management centre")
}
