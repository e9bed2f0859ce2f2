package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"hufu/api"
	"hufu/api/client"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
)

// refusedAs checks that an error is a problem of one kind with a remedy.
func refusedAs(t *testing.T, err error, kind string) *client.Problem {
	t.Helper()
	var p *client.Problem
	if !errors.As(err, &p) {
		t.Fatalf("the error is %v, want a problem %s", err, kind)
	}
	if p.Type != "/problems/"+kind || p.Remedy == "" || p.Title == "" || p.Status < 400 || p.Instance == "" {
		t.Fatalf("the problem is %+v, want one of kind %s with a remedy", p, kind)
	}
	return p
}

func TestCertificateLife(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	op := w.hire("Wang Wu", "", policy.CAOperator)
	csr := testpki.Must(testpki.CSR(testpki.Must(testpki.Key())))
	order := client.IssueRequest{CA: "services", Profile: "server", CSR: csr, Name: client.Name{DNS: []string{"a.card.example"}}}

	cert, err := op.client.Keyed("k1").Issue(ctx, order)
	w.must(err)
	if cert.Status.State != "good" || cert.Requester != "Wang Wu" || len(cert.DER) == 0 || !slices.Equal(cert.Names, order.Name.DNS) {
		t.Errorf("issued %+v", cert)
	}
	head := w.head()
	again, err := op.client.Keyed("k1").Issue(ctx, order)
	w.must(err)
	if !bytes.Equal(again.DER, cert.DER) || len(w.since(head)) > 0 {
		t.Errorf("the same key gave another certificate, or did more work: %v", w.since(head))
	}
	other := order
	other.Name.DNS = []string{"b.card.example"}
	_, err = op.client.Keyed("k1").Issue(ctx, other)
	refusedAs(t, err, "idempotency-key-reused")
	_, err = op.client.Issue(ctx, other)
	refusedAs(t, err, "key-taken")

	held, err := op.client.Keyed("s1").Suspend(ctx, cert.Serial)
	w.must(err)
	if held.Status.State != "on-hold" {
		t.Errorf("suspended: %+v", held.Status)
	}
	head = w.head()
	repeated, err := op.client.Keyed("s1").Suspend(ctx, cert.Serial)
	w.must(err)
	if repeated.Status != held.Status || len(w.since(head)) > 0 {
		t.Errorf("the answer under one key changed: %+v", repeated.Status)
	}
	_, err = op.client.Keyed("s1").Suspend(ctx, w.admins[0].Serial.String())
	refusedAs(t, err, "idempotency-key-reused")
	_, err = op.client.Suspend(ctx, cert.Serial)
	refusedAs(t, err, "wrong-state")
	_, err = op.client.Resume(ctx, cert.Serial)
	w.must(err)
	_, err = op.client.Revoke(ctx, cert.Serial, client.Revocation{Reason: 77})
	refusedAs(t, err, "malformed")
	gone, err := op.client.Revoke(ctx, cert.Serial, client.Revocation{Reason: 1})
	w.must(err)
	if gone.Status.State != "revoked" || gone.Status.Reason != 1 {
		t.Errorf("revoked: %+v", gone.Status)
	}
	_, err = op.client.Resume(ctx, cert.Serial)
	refusedAs(t, err, "wrong-state")
	read, err := op.client.Certificate(ctx, cert.Serial)
	w.must(err)
	if read.Status != gone.Status || !bytes.Equal(read.DER, cert.DER) {
		t.Errorf("read %+v", read)
	}
	crl, err := op.client.PublishCRL(ctx, "services")
	w.must(err)
	if crl.Entries != 1 || crl.CA != "services" {
		t.Errorf("the CRL is %+v", crl)
	}
	shown, err := op.client.CA(ctx, "services")
	w.must(err)
	list, err := op.client.CAs(ctx)
	w.must(err)
	if len(list) != len(w.pki.CAs()) {
		t.Errorf("%d CAs are listed", len(list))
	}
	if shown.CRL == nil || shown.CRL.Number < crl.Number || len(shown.Chain) != 1 || shown.Kind != "services" {
		t.Errorf("the CA is %+v", shown)
	}
}

func TestCertificateSearch(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	op := w.hire("Wang Wu", "", policy.CAOperator)
	here := w.hire("Zhao Liu", "330100", policy.CityOperator)
	var serials []string
	for i := range 5 {
		cert, err := op.client.Issue(ctx, client.IssueRequest{
			CA: "services", Profile: "client", CSR: testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))),
			Name: client.Name{CommonName: "gateway " + string(rune('a'+i)), City: []string{"330100", "330200"}[i%2]},
		})
		w.must(err)
		serials = append(serials, cert.Serial)
	}
	for _, s := range serials[:2] {
		_, err := op.client.Revoke(ctx, s, client.Revocation{Reason: 4})
		w.must(err)
	}
	first, err := op.client.Certificate(ctx, serials[0])
	w.must(err)
	cases := []struct {
		who  *person
		q    client.CertificateQuery
		want []string
	}{
		{op, client.CertificateQuery{City: "330100", CA: "services", Limit: 1}, []string{serials[0], serials[2], serials[4]}},
		{op, client.CertificateQuery{City: "330100", CA: "services", State: "good", Limit: 1}, []string{serials[2], serials[4]}},
		{op, client.CertificateQuery{State: "revoked", Limit: 1}, serials[:2]},
		{op, client.CertificateQuery{State: "revoked", CA: "staff"}, nil},
		{op, client.CertificateQuery{Serial: serials[3]}, serials[3:4]},
		{op, client.CertificateQuery{SPKI: first.SPKI}, serials[:1]},
		{op, client.CertificateQuery{Subject: first.Subject, Limit: 1}, serials[:1]},
		{op, client.CertificateQuery{Line: first.Line}, serials[:1]},
		{op, client.CertificateQuery{CA: "services", Limit: 2}, serials},
		{op, client.CertificateQuery{ExpiresBefore: first.NotAfter.Add(-time.Hour), City: "330200"}, nil},
		{op, client.CertificateQuery{ExpiresBefore: first.NotAfter.Add(time.Hour), City: "330200", Limit: 1}, []string{serials[1], serials[3]}},
		{here, client.CertificateQuery{CA: "services"}, []string{serials[0], serials[2], serials[4]}},
		{here, client.CertificateQuery{Serial: serials[1]}, nil},
	}
	for _, c := range cases {
		var got []string
		for cert, err := range c.who.client.Certificates(ctx, c.q) {
			w.must(err)
			got = append(got, cert.Serial)
		}
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(c.want))) {
			t.Errorf("%+v found %v, want %v", c.q, got, c.want)
		}
	}
	for _, err := range here.client.Certificates(ctx, client.CertificateQuery{City: "330200"}) {
		refusedAs(t, err, "forbidden")
	}
	page, _, body := op.ask(w, "GET", "/v1/certificates?city=330100&limit=1", "", "")
	var p client.Page[client.Certificate]
	w.must(json.Unmarshal(body, &p))
	if page != 200 || p.Next == "" {
		t.Fatalf("the first page is %d %s", page, body)
	}
	if status, _, body := op.ask(w, "GET", "/v1/certificates?city=330200&after="+p.Next, "", ""); status != 400 {
		t.Errorf("the place of one selection is taken for another: %d %s", status, body)
	}
}

func TestKeptAnswersAreForgottenAfterADay(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	op := w.hire("Wang Wu", "", policy.CAOperator)
	order := client.IssueRequest{
		CA: "services", Profile: "server", CSR: testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))), Name: client.Name{DNS: []string{"a.card.example"}},
	}
	cert, err := op.client.Issue(ctx, order)
	w.must(err)
	_, err = op.client.Keyed("k").Suspend(ctx, cert.Serial)
	w.must(err)
	w.ahead.Store(int64(25 * time.Hour))
	_, err = op.client.Keyed("k").Suspend(ctx, cert.Serial)
	refusedAs(t, err, "wrong-state") // asked anew, not answered from what was kept
	_, err = op.client.Keyed("k").Resume(ctx, cert.Serial)
	w.must(err)
	if n := w.keptAnswers(); n != 1 {
		t.Errorf("%d answers are kept, want the one of today", n)
	}
}

func TestReaderLife(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	city := w.hire("Zhao Liu", "330100", policy.CityOperator)
	counter := w.hire("Sun Qi", "330100", policy.Counter)
	pair := client.PairRequest{Number: "1001", City: "330100", Model: "CR-1", CSR: pairCSR()}
	r, err := city.client.Keyed("p1").IssuePair(ctx, pair)
	w.must(err)
	if r.State != "active" || len(r.Certificates) != 2 || r.Certificates[0].Profile != "reader-sign" || r.Certificates[1].Serial != r.Encrypt {
		t.Fatalf("the pair is %+v", r)
	}
	again, err := city.client.Keyed("p1").IssuePair(ctx, pair)
	w.must(err)
	if again.Sign != r.Sign || again.Encrypt != r.Encrypt {
		t.Errorf("the same key gave the pair %s, %s", again.Sign, again.Encrypt)
	}
	_, err = city.client.IssuePair(ctx, client.PairRequest{Number: "1001", City: "330100", CSR: pairCSR()})
	refusedAs(t, err, "exists")
	_, err = city.client.IssuePair(ctx, client.PairRequest{Number: "1002", City: "330200", CSR: pairCSR()})
	refusedAs(t, err, "forbidden")
	_, err = counter.client.IssuePair(ctx, client.PairRequest{Number: "1002", City: "330100", CSR: pairCSR()})
	refusedAs(t, err, "forbidden")

	_, err = city.client.Suspend(ctx, r.Sign)
	refusedAs(t, err, "reader-pair")
	held, err := counter.client.Keyed("s").SuspendReader(ctx, "1001", client.Note{Note: "lost"})
	w.must(err)
	if held.State != "suspended" || held.Certificates[0].Status.State != "on-hold" || held.Certificates[1].Status.State != "on-hold" {
		t.Errorf("suspended: %+v", held)
	}
	_, err = counter.client.Keyed("s").SuspendReader(ctx, "1001", client.Note{Note: "lost"})
	w.must(err)
	_, err = counter.client.ResumeReader(ctx, "1001", client.Note{})
	w.must(err)
	gone, err := counter.client.RevokeReader(ctx, "1001", client.Revocation{Reason: 1, Note: "stolen"})
	w.must(err)
	last := gone.History[len(gone.History)-1]
	if gone.State != "revoked" || last.Note != "stolen" || last.Actor != "Sun Qi" || gone.Certificates[1].Status.State != "revoked" {
		t.Errorf("revoked: %+v", gone)
	}
	_, err = counter.client.ResumeReader(ctx, "1001", client.Note{})
	refusedAs(t, err, "wrong-state")
	_, err = counter.client.Reader(ctx, "9999")
	refusedAs(t, err, "not-found")
}

func TestBatch(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	city := w.hire("Zhao Liu", "330100", policy.CityOperator)
	b := client.BatchRequest{City: "330100"}
	for i := range 7 {
		b.Readers = append(b.Readers, client.PairRequest{Number: "b" + string(rune('0'+i)), City: "330100", CSR: pairCSR()})
	}
	b.Readers[3].CSR = []byte("rubbish")
	j, err := city.client.Keyed("batch").IssueBatch(ctx, b)
	w.must(err)
	same, err := city.client.Keyed("batch").IssueBatch(ctx, b)
	w.must(err)
	if same.ID != j.ID {
		t.Errorf("one key started two jobs")
	}
	done, err := city.client.WaitJob(ctx, j.ID, nil)
	w.must(err)
	if done.State != "done" || done.Done != 7 || done.Total != 7 || done.Failures != 1 {
		t.Fatalf("the job ended as %+v", done)
	}
	var ok, failed int
	for item, err := range city.client.JobItems(ctx, j.ID) {
		w.must(err)
		if item.OK {
			ok++
		} else if failed++; item.Name != "b3" || item.Error == "" {
			t.Errorf("the item is %+v", item)
		}
	}
	var numbers []string
	for r, err := range city.client.Readers(ctx, client.ReaderQuery{Limit: 2}) {
		w.must(err)
		numbers = append(numbers, r.Number)
	}
	if ok != 6 || failed != 1 || !slices.Equal(numbers, []string{"b0", "b1", "b2", "b4", "b5", "b6"}) {
		t.Errorf("%d went well, %d failed, registered are %v", ok, failed, numbers)
	}
	for listed, err := range city.client.Jobs(ctx) {
		w.must(err)
		if listed.ID != j.ID || listed.Kind != api.JobBatch {
			t.Errorf("listed %+v", listed)
		}
	}
	b.Readers[0].City = "330200"
	_, err = city.client.IssueBatch(ctx, b)
	refusedAs(t, err, "malformed")
	if _, err := city.client.CancelJob(ctx, j.ID); err != nil {
		t.Errorf("cancelling what is done: %v", err)
	}
}

func TestOfficersNeedTwo(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i := range w.admins {
		w.admins[i] = w.person(w.admins[i].Leaf) // now that there is a door
	}
	one, two := w.admins[0], w.admins[1]
	wu := w.certify("operator", policy.Name{Person: "Wu Jiu"})
	if _, err := wu.client.WhoAmI(ctx); err == nil {
		t.Fatal("a stranger is known")
	} else {
		refusedAs(t, err, "caller-refused")
	}
	a, err := one.client.Keyed("add").AddOfficer(ctx, client.OfficerRequest{Name: "Wu Jiu", Roles: []string{"auditor"}, Certificate: wu.Certificate})
	w.must(err)
	if a.State != "open" || a.Needed != 1 || a.Hash != store.Sum(a.Canonical).String() {
		t.Errorf("the approval is %+v", a)
	}
	_, err = one.client.Approve(ctx, a.ID, one.consent(a.Canonical))
	refusedAs(t, err, "approval")
	_, err = two.client.Approve(ctx, a.ID, two.consent([]byte("something else")))
	refusedAs(t, err, "approval")
	_, err = two.client.Approve(ctx, a.ID, []byte("rubbish"))
	refusedAs(t, err, "approval")
	if _, err := wu.client.WhoAmI(ctx); err == nil {
		t.Fatal("nobody has agreed yet")
	}
	consent := two.consent(a.Canonical)
	got, err := two.client.Keyed("yes").Approve(ctx, a.ID, consent)
	w.must(err)
	if got.State != "used" || len(got.Given) != 1 || got.Given[0].Name != "Li Si" {
		t.Errorf("the approval is %+v", got)
	}
	me, err := wu.client.WhoAmI(ctx)
	w.must(err)
	if me.Name != "Wu Jiu" || !slices.Equal(me.Roles, []string{"auditor"}) {
		t.Errorf("the new officer is %+v", me)
	}
	again, err := two.client.Keyed("yes").Approve(ctx, a.ID, consent)
	w.must(err)
	if again.State != "used" || len(again.Given) != 1 {
		t.Errorf("the same consent again gets %+v", again)
	}
	a, err = two.client.RemoveOfficer(ctx, me.Fingerprint)
	w.must(err)
	_, err = one.client.Approve(ctx, a.ID, one.consent(a.Canonical))
	w.must(err)
	_, err = wu.client.WhoAmI(ctx)
	refusedAs(t, err, "caller-refused")
	var states []string
	for o, err := range one.client.Officers(ctx) {
		w.must(err)
		states = append(states, o.State)
	}
	slices.Sort(states)
	if !slices.Equal(states, []string{"active", "active", "removed"}) {
		t.Errorf("the officers are %v", states)
	}
	_, err = one.client.AddOfficer(ctx, client.OfficerRequest{Name: "x", Roles: []string{"king"}, Certificate: wu.Certificate})
	refusedAs(t, err, "malformed")
}

func TestCitySignerNeedsApproval(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	asks := w.hire("Zhao Liu", "330100", policy.CityOperator)
	agrees := w.hire("Qian Ba", "330100", policy.CityOperator)
	elsewhere := w.hire("He Shi", "330200", policy.CityOperator)
	order := client.IssueRequest{CA: "330100", Profile: "city-sign", CSR: testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))), Name: client.Name{City: "330100"}}
	a, err := asks.client.RequestIssue(ctx, order)
	w.must(err)
	order.Approval = a.ID
	_, err = asks.client.Issue(ctx, order)
	refusedAs(t, err, "approval")
	_, err = elsewhere.client.Approve(ctx, a.ID, elsewhere.consent(a.Canonical))
	refusedAs(t, err, "forbidden")
	for range elsewhere.client.Approvals(ctx, "") {
		t.Error("a city sees another city's approvals")
	}
	shown, err := agrees.client.Approval(ctx, a.ID)
	w.must(err)
	_, err = agrees.client.Approve(ctx, a.ID, agrees.consent(shown.Canonical))
	w.must(err)
	other := order
	other.CSR = testpki.Must(testpki.CSR(testpki.Must(testpki.Key())))
	_, err = asks.client.Issue(ctx, other)
	refusedAs(t, err, "approval")
	cert, err := asks.client.Issue(ctx, order)
	w.must(err)
	if cert.Profile != "city-sign" {
		t.Errorf("issued %+v", cert)
	}
	_, err = asks.client.Keyed("again").Issue(ctx, order)
	refusedAs(t, err, "key-taken")
	if a, err = asks.client.Approval(ctx, a.ID); err != nil || a.State != "used" {
		t.Errorf("the approval is %+v, %v", a, err)
	}
}

func TestRefusalsAreJournalled(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	counter, operator := w.hire("Sun Qi", "330100", policy.Counter), w.hire("Zhao Liu", "330100", policy.CityOperator)
	head := w.head()
	_, err := counter.client.PublishCRL(ctx, "330100")
	refusedAs(t, err, "forbidden")
	_, err = operator.client.PublishCRL(ctx, "330200")
	refusedAs(t, err, "forbidden")
	_, err = operator.client.Issue(ctx, client.IssueRequest{CA: "330100", Profile: "ocsp", CSR: []byte("x")})
	if p := refusedAs(t, err, "forbidden"); !strings.Contains(p.Detail, "ca-operator") {
		t.Errorf("the problem does not say who may: %+v", p)
	}
	events, err := w.book.Events(ctx, head, 100)
	w.must(err)
	var told []string
	for _, e := range events {
		told = append(told, e.Kind+" "+e.Actor+" "+e.Detail)
	}
	for i, want := range [][]string{{"Sun Qi", "crl.publish", "330100"}, {"Zhao Liu", "crl.publish", "330200"}, {"Zhao Liu", "certificate.issue", "profile"}} {
		for _, word := range append(want, store.KindRefused) {
			if len(told) != 3 || !strings.Contains(told[i], word) {
				t.Fatalf("the journal tells %q, want %v as number %d", told, want, i)
			}
		}
	}
}

func TestJournal(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	auditor := w.hire("Zhou Yi", "", policy.Auditor)
	var events []*client.Event
	for e, err := range auditor.client.Journal(ctx, 0) {
		w.must(err)
		events = append(events, e)
	}
	if uint64(len(events)) > w.head() || events[0].Kind != store.KindBookCreated || events[4].Seq != 5 {
		t.Fatalf("the journal has %d events, the book %d", len(events), w.head())
	}
	if status, _, body := auditor.ask(w, "GET", "/v1/journal?limit=3&after=2", "", ""); status != 200 || !bytes.Contains(body, []byte(`"next":"5"`)) {
		t.Errorf("a page of the journal: %d %s", status, body)
	}
	note, err := auditor.client.Checkpoint(ctx)
	w.must(err)
	if again, err := auditor.client.Checkpoint(ctx); err != nil || !bytes.Equal(note, again) {
		t.Errorf("nothing has happened, and another checkpoint was signed (%v)", err)
	}
	lines := bytes.Split(note, []byte("\n"))
	var size int64
	w.must(json.Unmarshal(lines[1], &size))
	proof, err := auditor.client.InclusionProof(ctx, 3, size)
	w.must(err)
	tree, err := w.book.ProveInclusion(ctx, 3, size)
	w.must(err)
	if len(proof.Hashes) != len(tree.Hashes) || proof.Size != size || proof.From != 3 || proof.Hashes[0] != tree.Hashes[0].String() {
		t.Errorf("the proof is %+v, the book's is %+v", proof, tree)
	}
	if proof, err := auditor.client.ConsistencyProof(ctx, 2, size); err != nil || proof.From != 2 || len(proof.Hashes) == 0 {
		t.Errorf("the proof of consistency is %+v, %v", proof, err)
	}
	_, err = auditor.client.InclusionProof(ctx, 3, size+1000)
	refusedAs(t, err, "not-found")

	head := w.head()
	came := make(chan []client.Event, 1)
	go func() {
		list, err := auditor.client.FollowJournal(ctx, head, 30*time.Second)
		if err != nil {
			t.Errorf("following: %v", err)
		}
		came <- list
	}()
	w.hire("Wang Wu", "", policy.CAOperator)
	if list := <-came; len(list) == 0 || list[0].Seq != head+1 {
		t.Errorf("following brought %+v, want what comes after %d", list, head)
	}
	if list, err := auditor.client.FollowJournal(ctx, w.head(), time.Millisecond); err != nil || len(list) != 0 {
		t.Errorf("waiting in vain brought %v, %v", list, err)
	}
	_, err = auditor.client.FollowJournal(ctx, w.head()+100, time.Millisecond)
	refusedAs(t, err, "wrong-state") // whoever knows more than the book is told so
}

// TestWaitOutlivesReadTimeout waits longer than a request may take to be read.
func TestWaitOutlivesReadTimeout(t *testing.T) {
	w := newWorldWith(t, 2*time.Second)
	auditor := w.hire("Zhou Yi", "", policy.Auditor)
	if list, err := auditor.client.FollowJournal(t.Context(), w.head(), 2500*time.Millisecond); err != nil || len(list) != 0 {
		t.Errorf("waiting in vain brought %v, %v", list, err)
	}
}

func TestCheckAndBackup(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	op := w.hire("Wang Wu", "", policy.CAOperator)
	j, err := op.client.Check(ctx)
	w.must(err)
	if j, err = op.client.WaitJob(ctx, j.ID, nil); err != nil || j.State != "done" {
		t.Errorf("the check ended as %+v, %v", j, err)
	}
	var b bytes.Buffer
	n, err := op.client.Backup(ctx, &b)
	w.must(err)
	engine, err := bolt.Open(t.TempDir()+"/copy", bolt.Options{})
	w.must(err)
	copied, err := store.Restore(context.Background(), store.Config{Engine: engine}, &b, "test")
	w.must(err)
	defer copied.Close()
	if n == 0 || copied.ID() != w.book.ID() {
		t.Errorf("%d octets restore book %s, want %s", n, copied.ID(), w.book.ID())
	}
}
