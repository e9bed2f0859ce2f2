package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/api"
	"hufu/api/client"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/readers/stage1"
	"hufu/store"
	"hufu/verify"
)

var update = flag.Bool("update", false, "write the table of doors anew, for review")

// homes are where the callers of a walk belong: the centre, the city that
// everything asked about belongs to, and another city.
var homes = []string{"", "330100", "330200"}

// TestEveryDoor asks every route for every role of every home, and of people
// who may ask nothing, about what belongs to city 330100. The table says who
// passes; what is refused changes nothing.
func TestEveryDoor(t *testing.T) {
	w := newWorld(t)
	things := w.furnish()
	callers := w.crowd()
	var table strings.Builder
	fmt.Fprintf(&table, "# Who passes which door, asked about city 330100. Three letters for each role: of the centre, of city 330100, of city 330200.\n"+
		"# y: the door opens, whatever comes of the request; n: refused, and nothing changes but the journal of refusals; x: no connection.\n")
	fmt.Fprintf(&table, "%-20s", "# route")
	for _, r := range policy.Roles {
		fmt.Fprintf(&table, " %-13s", r)
	}
	fmt.Fprintln(&table, " unknown revoked expired")
	for i, rt := range api.Routes {
		fmt.Fprintf(&table, "%-20s", rt.ID)
		for _, role := range policy.Roles {
			cell := ""
			for _, home := range homes {
				cell += w.try(rt, callers[string(role)+home], things)
			}
			fmt.Fprintf(&table, " %-13s", cell)
		}
		expired := w.from(w.expired(), fmt.Sprintf("127.0.1.%d", i+1))
		fmt.Fprintf(&table, " %-7s %-7s %s\n", w.try(rt, callers["unknown"], things), w.try(rt, callers["revoked"], things), w.try(rt, expired, things))
	}
	golden := filepath.Join("testdata", "doors.txt")
	if *update {
		w.must(os.WriteFile(golden, []byte(table.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	w.must(err)
	have, reviewed := strings.Split(table.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(have), len(reviewed)) {
		if i >= len(have) || i >= len(reviewed) || have[i] != reviewed[i] {
			t.Errorf("line %d of %s:\n have %s\n want %s", i+1, golden, at(have, i), at(reviewed, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// crowd is somebody of every role and home, and two who may ask nothing.
func (w *world) crowd() map[string]*person {
	callers := map[string]*person{}
	for _, role := range policy.Roles {
		for _, home := range homes {
			callers[string(role)+home] = w.hire(string(role)+" "+home+"-", home, role)
		}
	}
	callers["unknown"] = w.certify("operator", policy.Name{Person: "Nobody"})
	callers["revoked"] = w.hire("Gone", "", policy.CAAdmin)
	w.revoke(callers["revoked"])
	return callers
}

func (w *world) revoke(p *person) {
	w.t.Helper()
	w.must(w.book.Update(context.Background(), func(tx *store.Tx) error {
		return w.authority.Revoke(tx, refOf(p), 1, time.Time{}, "test")
	}))
}

// expired is somebody whose certificate ended a minute ago.
func (w *world) expired() *testpki.Leaf {
	return testpki.Must(w.pki.CA("staff").Certify(testpki.Must(testpki.Key()), issuance.Request{
		Profile: "operator", Name: policy.Name{Person: "Late"}, NotBefore: time.Now().Add(-50 * time.Minute), NotAfter: time.Now().Add(-time.Minute),
	}))
}

// from is a person who calls from another address of the loopback network.
func (w *world) from(leaf *testpki.Leaf, address string) *person {
	p := w.person(leaf)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	p.http.Transport.(*http.Transport).DialContext = dialer.DialContext
	return p
}

// furnish makes one thing of each kind in city 330100, all past change, and
// returns what stands for the parts of paths.
func (w *world) furnish() map[string]string {
	ctx := w.t.Context()
	op, other := w.hire("Furnisher", "330100", policy.CityOperator), w.hire("Consenter", "330100", policy.CityOperator)
	things := map[string]string{"name": "forbidden", "fingerprint": strings.Repeat("0", 64)}

	order := client.IssueRequest{CA: "330100", Profile: "city-sign", CSR: testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))), Name: client.Name{City: "330100"}}
	a, err := op.client.RequestIssue(ctx, order)
	w.must(err)
	_, err = other.client.Approve(ctx, a.ID, other.consent(a.Canonical))
	w.must(err)
	order.Approval = a.ID
	cert, err := op.client.Issue(ctx, order)
	w.must(err)
	_, err = op.client.Revoke(ctx, cert.Serial, client.Revocation{})
	w.must(err)
	things["approval"], things["serial"] = a.ID, cert.Serial

	r, err := op.client.IssuePair(ctx, client.PairRequest{Number: "1001", City: "330100", CSR: pairCSR()})
	w.must(err)
	_, err = op.client.RevokeReader(ctx, r.Number, client.Revocation{})
	w.must(err)
	things["number"] = r.Number

	j, err := op.client.IssueBatch(ctx, client.BatchRequest{City: "330100", Readers: []client.PairRequest{{Number: "2", City: "330100", CSR: []byte("x")}}})
	w.must(err)
	_, err = op.client.WaitJob(ctx, j.ID, nil)
	w.must(err)
	things["job"], things["ca"] = j.ID, "330100"

	expires := time.Now().Add(time.Hour)
	w.must(w.book.Update(ctx, func(tx *store.Tx) error {
		ticket, _, err := w.stage1.Begin(tx, stage1.TicketOrder{City: "330100", Expires: expires}, []string{"7"}, "test")
		if err == nil {
			things["ticket"] = ticket.ID
			_, err = w.stage1.Revoke(tx, ticket.ID, "test", "")
		}
		return err
	}))
	things["manifest"] = "none"
	content := testpki.Must((&verify.Ticket{ID: strings.Repeat("0", 32), City: "330100", Issued: time.Now(), Expires: expires, Quota: 1,
		Readers: []verify.TicketReader{{Number: "7", Model: "XF-100"}}}).Marshal())
	centre := testpki.Must(w.pki.CentreSigner()) // whom the book does not know
	questions["importTicket"] = client.TicketImport{Ticket: testpki.Must(cms.Sign(oid.ContentTicket, content, centre.Certificate, centre.Chain[:1], centre.Key, time.Now()))}

	gateway, d := w.hire("Furnisher's gateway", "330100", policy.TopUp), w.device(op, "330100", "1002")
	request := d.load("330100", "8600000000000001", 1)
	message := d.say(oid.ContentLoadRequest, request)
	load := client.Authorisation{Message: message, CommandScript: []byte("c"), DataScript: []byte("d")}
	permission, err := gateway.client.AuthoriseLoad(ctx, load)
	w.must(err)
	result := client.Confirmation{Message: d.say(oid.ContentLoadResult, &verify.LoadResult{
		Transaction: request.Transaction, City: "330100", Reader: request.Reader, Card: request.Card, Counter: 1, Outcome: verify.NotCredited,
		Balance: request.Balance, ScriptResult: []byte{0x69, 0x85}, PermissionHash: sha256.Sum256(permission.Message),
	})}
	_, err = gateway.client.ConfirmLoad(ctx, result)
	w.must(err)
	things["transaction"] = request.Transaction
	session, err := op.client.OpenSession(ctx, client.SessionRequest{Number: "1002", City: "330100", Renew: true})
	w.must(err)
	things["session"] = session.ID
	questions["verifyLoad"], questions["authoriseLoad"], questions["confirmLoad"] = client.LoadMessage{Message: message}, load, result
	return things
}

// questions are the bodies of the walk: each belongs to city 330100, passes
// every check of its form, and then fails, so that a door can be opened any
// number of times.
var questions = map[string]any{
	"issueCertificate":   client.IssueRequest{CA: "330100", Profile: "city-sign", CSR: []byte("x"), Name: client.Name{City: "330100"}, Approval: "none"},
	"issueReader":        client.PairRequest{Number: "3", City: "330100", CSR: []byte("x")},
	"issueReaders":       client.BatchRequest{City: "330100"},
	"suspendCertificate": client.Note{}, "resumeCertificate": client.Note{}, "revokeCertificate": client.Revocation{},
	"suspendReader": client.Note{}, "resumeReader": client.Note{}, "revokeReader": client.Revocation{},
	"bindReader": client.Binding{Customer: "c"}, "replaceReader": client.Replacement{By: "1003"}, "retireReader": client.Note{},
	"requestMass": planOfNoBook, "runMass": client.MassRequest{Plan: planOfNoBook},
	"addModel": client.Model{}, "withdrawModel": client.Note{}, "checkManifest": client.ManifestRequest{}, "importManifest": client.ManifestRequest{},
	"createTicket": client.TicketRequest{City: "330100"}, "revokeTicket": client.Note{}, "reconcileTicket": client.Receipts{},
	"addOfficer":         client.OfficerRequest{Name: "x", Roles: []string{"auditor"}, Certificate: []byte("x")},
	"importCRL":          client.CRLImport{CRL: []byte("x")},
	"approve":            client.Consent{CMS: []byte("x")},
	"resolveTransaction": client.Resolution{Note: "x"},
	"requestRecovery":    client.RecoveryRequest{Serial: "x", Recipient: []byte("x"), Reason: "x"},
	"openSession":        client.SessionRequest{Number: "3", City: "330100"},
	"enrolReader":        client.StageMessage{Message: []byte("x")},
	"receiveReceipt":     client.StageMessage{Message: []byte("x")},
	"putAgreement":       client.AgreementRequest{City: "330100", Other: "330200"},
}

// planOfNoBook is a mass change in city 330100 that no book takes.
var planOfNoBook = client.MassPlan{Hufu: "reader-mass", Book: "x", Seq: 1, Action: "suspend", Selection: client.MassSelection{City: "330100"},
	Count: 1000, SHA256: strings.Repeat("0", 64)}

// try asks one route and tells whether the door opened.
func (w *world) try(rt api.Route, p *person, things map[string]string) string {
	w.t.Helper()
	path := rt.Path
	id := "id"
	for prefix, thing := range map[string]string{"/v1/approvals/": "approval", "/v1/jobs/": "job", "/v1/cas/": "ca", "/v1/topup/": "transaction", "/v1/stage2/": "session", "/v1/tickets/": "ticket", "/v1/manifests/": "manifest"} {
		if strings.HasPrefix(path, prefix) {
			id = thing
		}
	}
	path = strings.ReplaceAll(path, "{id}", things[id])
	for name, value := range things {
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	query := ""
	for _, q := range rt.Query {
		if q.Name == "city" {
			query = "?city=330100"
		}
	}
	if rt.ID == "proveJournal" {
		query = "?seq=1"
	}
	body := ""
	if q, ok := questions[rt.ID]; ok {
		body = string(testpki.Must(json.Marshal(q)))
	}
	head := w.head()
	req, err := http.NewRequest(rt.Method, w.url+path+query, strings.NewReader(body))
	w.must(err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if rt.Write {
		req.Header.Set("Idempotency-Key", client.NewKey())
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return "x" // in TLS 1.3 a client learns in many ways that it was refused
	}
	defer resp.Body.Close()
	var problem client.Problem
	if resp.StatusCode >= 400 {
		if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil || problem.Remedy == "" {
			w.t.Errorf("%s %s: status %d without a problem that has a remedy (%v)", rt.Method, path, resp.StatusCode, err)
		}
	}
	if resp.StatusCode >= 500 {
		w.t.Errorf("%s %s: %+v", rt.Method, path, problem)
	}
	switch problem.Type {
	case "/problems/forbidden", "/problems/caller-refused", "/problems/too-many-requests":
		if kinds := w.since(head); len(kinds) > 0 {
			w.t.Errorf("%s %s was refused, and journalled %v", rt.Method, path, kinds)
		}
		return "n"
	}
	return "y"
}
