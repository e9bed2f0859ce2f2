package api_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"hufu/api"
	"hufu/api/client"
	"hufu/internal/testpki"
	"hufu/policy"
)

func TestDoorTakesOnlyItsOwn(t *testing.T) {
	w := newWorld(t)
	stranger := testpki.Must(testpki.New(testpki.Config{}))
	good := w.hire("Wang Wu", "", policy.CAOperator)
	old := w.person(good.Leaf)
	old.http.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS12
	old.http.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	bare := w.person(good.Leaf)
	bare.http.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	for what, p := range map[string]*person{
		"no certificate":              bare,
		"TLS 1.2":                     old,
		"another hierarchy":           w.person(testpki.Must(stranger.Operator("Wang Wu", ""))),
		"an expired certificate":      w.person(w.expired()),
		"a reader's certificate":      w.person(testpki.Must(w.pki.Reader("330100", "7")).Sign),
		"a device's certificate":      w.person(testpki.Must(w.pki.Device("7"))),
		"a server's certificate":      w.person(testpki.Must(w.pki.Server("x.card.example"))),
		"a city signer's certificate": w.person(testpki.Must(w.pki.CitySigner("330100"))),
	} {
		if resp, err := p.http.Get(w.url + "/healthz"); err == nil {
			resp.Body.Close()
			t.Errorf("%s: the door opens with %s", what, resp.Status)
		}
	}
	if status, _, _ := good.ask(w, "GET", "/healthz", "", ""); status != http.StatusOK {
		t.Errorf("the door does not open for its own: %d", status)
	}
}

func TestDoorResumesNothing(t *testing.T) {
	w := newWorld(t)
	conf := w.hire("Wang Wu", "", policy.CAOperator).http.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	conf.NextProtos = []string{"h2", "http/1.1"}
	for range 2 {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), conf)
		w.must(err)
		// A ticket would come before the answer.
		_, err = conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		w.must(err)
		buf := make([]byte, 64)
		_, err = conn.Read(buf)
		w.must(err)
		cs := conn.ConnectionState()
		if cs.DidResume || cs.NegotiatedProtocol != "http/1.1" || cs.Version != tls.VersionTLS13 {
			t.Errorf("the connection is resumed: %v, speaks %s over TLS %x", cs.DidResume, cs.NegotiatedProtocol, cs.Version)
		}
		conn.Close()
	}
}

func TestRevokedOnAnOpenConnection(t *testing.T) {
	w := newWorld(t)
	p := w.hire("Wang Wu", "", policy.CAOperator)
	if _, err := p.client.WhoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.revoke(p)
	_, err := p.client.WhoAmI(t.Context())
	if problem := refusedAs(t, err, "caller-refused"); !strings.Contains(problem.Detail, "revoked") {
		t.Errorf("the problem does not say why: %+v", problem)
	}
}

// knock tells whether the door opens for p.
func (w *world) knock(p *person) error {
	resp, err := p.http.Get(w.url + "/healthz")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func TestFailedHandshakesAreLimited(t *testing.T) {
	w := newWorld(t)
	bare := w.from(w.hire("Wang Wu", "", policy.CAOperator).Leaf, "127.0.9.1")
	bare.http.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	good := w.from(w.admins[0].Leaf, "127.0.9.1")
	good.http.Transport.(*http.Transport).DisableKeepAlives = true
	elsewhere := w.from(w.admins[0].Leaf, "127.0.9.2")
	for until := time.Now().Add(30 * time.Second); ; {
		if w.knock(bare) == nil {
			t.Fatal("the door opens without a certificate")
		}
		if w.knock(good) != nil {
			break // whoever shares the address waits
		}
		if time.Now().After(until) {
			t.Fatal("failed handshakes are not limited")
		}
	}
	if status, _, _ := elsewhere.ask(w, "GET", "/healthz", "", ""); status != http.StatusOK {
		t.Errorf("another address is refused too: %d", status)
	}
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if w.knock(good) == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the address is not forgiven")
		}
	}
}

func TestStrangersAreLimited(t *testing.T) {
	w := newWorld(t)
	nobody, known := w.certify("operator", policy.Name{Person: "Nobody"}), w.hire("Wang Wu", "", policy.CAOperator)
	head := w.head()
	for until := time.Now().Add(30 * time.Second); ; {
		status, header, _ := nobody.ask(w, "GET", "/v1/cas", "", "")
		if status == http.StatusTooManyRequests {
			if header.Get("Retry-After") == "" {
				t.Error("nothing says when to come back")
			}
			break
		}
		if status != http.StatusForbidden || time.Now().After(until) {
			t.Fatalf("a stranger gets %d", status)
		}
	}
	if status, _, _ := known.ask(w, "GET", "/v1/cas", "", ""); status != http.StatusOK {
		t.Errorf("a stranger's requests slow others at the same address: %d", status)
	}
	if kinds := w.since(head); len(kinds) > 0 || w.head() != head {
		t.Errorf("a stranger fills the journal: %v", kinds)
	}
}

func TestHost(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:443": "192.0.2.7", "[2001:db8:1:2:3:4:5:6]:443": "2001:db8:1:2::", "[2001:db8:1:2::9]:1": "2001:db8:1:2::", "[::ffff:192.0.2.7]:1": "::ffff:192.0.2.7", "pipe": "pipe",
	} {
		if got := api.Host(addr); got != want {
			t.Errorf("%s is counted as %s, want %s", addr, got, want)
		}
	}
}

func TestOps(t *testing.T) {
	w := newWorld(t)
	op := w.hire("Wang Wu", "", policy.CAOperator)
	cert, err := op.client.Issue(t.Context(), client.IssueRequest{
		CA: "services", Profile: "server", CSR: testpki.Must(testpki.CSR(testpki.Must(testpki.Key()))), Name: client.Name{DNS: []string{"a.card.example"}},
	})
	w.must(err)
	op.client.Certificate(t.Context(), cert.Serial)
	get := func(h http.Handler, path string) *httptest.ResponseRecorder {
		r := httptest.NewRecorder()
		h.ServeHTTP(r, httptest.NewRequest("GET", path, nil))
		return r
	}
	ops := w.server.OpsHandler()
	metrics := get(ops, "/metrics").Body.String()
	for _, line := range []string{
		`hufu_requests_total{code="201",route="issueCertificate"} 1`, `hufu_requests_total{code="200",route="readCertificate"} 1`,
		"hufu_journal_head ", `hufu_directory_lag_changes{directory="north"} `, `hufu_request_seconds_count{route="issueCertificate"} 1`, `hufu_jobs{state="done"} 0`, "hufu_book_epoch 1",
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %q:\n%s", line, metrics)
		}
	}
	if found := regexp.MustCompile(`[0-9a-f]{32,}`).FindString(metrics); found != "" {
		t.Errorf("the metrics name %s", found)
	}
	if _, _, body := op.ask(w, "GET", "/metrics", "", ""); !strings.Contains(string(body), "hufu_journal_head") {
		t.Errorf("the door's metrics are %.200s", body)
	}
	if r := get(ops, "/healthz"); r.Code != http.StatusOK {
		t.Errorf("/healthz: %d %s", r.Code, r.Body)
	}
	if _, err := op.client.Ready(t.Context()); err != nil {
		t.Errorf("the node is not ready: %v", err)
	}
	if list, err := op.client.Directories(t.Context()); err != nil || len(list) != 1 || list[0].Name != "north" || list[0].Head == 0 {
		t.Errorf("the directories are %+v, %v", list, err)
	}
	if r := get(ops, "/v1/whoami"); r.Code != http.StatusNotFound {
		t.Errorf("the plain listener answers the API: %d", r.Code)
	}
}

func TestReadinessTellsWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	w.sick.Store(true)
	r := httptest.NewRecorder()
	w.server.OpsHandler().ServeHTTP(r, httptest.NewRequest("GET", "/readyz", nil))
	var h client.Health
	w.must(json.Unmarshal(r.Body.Bytes(), &h))
	wrong := map[string]string{}
	for _, c := range h.Checks {
		if !c.OK {
			wrong[c.Name] = c.Detail
		}
	}
	if r.Code != http.StatusServiceUnavailable || h.OK || len(wrong) != 1 || wrong["token"] != "the token is gone" {
		t.Errorf("/readyz is %d %+v", r.Code, h)
	}
	w.refused(w.admins[0], "ready", question{what: "a node without its token", method: "GET", path: "/readyz", kind: "unavailable"})

	other := api.New(api.Config{Book: w.book, Office: w.office, Jobs: w.jobs, Node: "another"})
	r = httptest.NewRecorder()
	other.OpsHandler().ServeHTTP(r, httptest.NewRequest("GET", "/readyz", nil))
	if r.Code != http.StatusServiceUnavailable || !strings.Contains(r.Body.String(), "has no lease") {
		t.Errorf("a node without a lease is %d %s", r.Code, r.Body)
	}
}

func TestLogHoldsNoBody(t *testing.T) {
	w := newWorld(t)
	op := w.hire("Wang Wu", "330100", policy.CityOperator)
	pair := client.PairRequest{Number: "1001", City: "330100", Model: "a-model-that-nobody-logs", CSR: pairCSR()}
	_, err := op.client.IssuePair(t.Context(), pair)
	w.must(err)
	op.client.Reader(t.Context(), "1001")
	text := w.log.String()
	if strings.Contains(text, pair.Model) || strings.Count(text, "msg=write") != 1 || !strings.Contains(text, `caller="Wang Wu"`) || !strings.Contains(text, "route=issueReader") {
		t.Errorf("the log is:\n%s", text)
	}
}
