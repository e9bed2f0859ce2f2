package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"hufu/api/client"
	"hufu/internal/testpki"
)

// node starts a TLS server that asks for a client certificate, and a client
// that has one.
func node(t *testing.T, h http.Handler) *client.Client {
	t.Helper()
	w := testpki.Must(testpki.New(testpki.Config{}))
	server, me := testpki.Must(w.Server("node.card.example")), testpki.Must(w.Client("gateway", "330100"))
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server.TLS()},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: w.Pool(),
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{
		URL: srv.URL,
		TLS: &tls.Config{RootCAs: w.Pool(), ServerName: "node.card.example", Certificates: []tls.Certificate{me.TLS()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// breakOff ends the connection without an answer, as a node does that dies.
func breakOff(t *testing.T, w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	conn.Close()
}

func TestLostAnswerIsAskedForWithTheSameKey(t *testing.T) {
	var keys []string
	var bodies []string
	c := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		b.ReadFrom(r.Body)
		keys, bodies = append(keys, r.Header.Get(client.HeaderIdempotencyKey)), append(bodies, b.String())
		if len(keys)%3 != 0 {
			breakOff(t, w)
			return
		}
		answer(w, http.StatusCreated, client.Certificate{Serial: "01ab"})
	}))
	for range 2 {
		cert, err := c.Issue(t.Context(), client.IssueRequest{CA: "services", Profile: "server"})
		if err != nil || cert.Serial != "01ab" {
			t.Fatalf("Issue: %+v, %v", cert, err)
		}
	}
	if len(keys) != 6 || keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] || keys[3] != keys[5] {
		t.Errorf("one call sent the keys %q; all attempts of a call share one", keys)
	}
	if keys[0] == keys[3] {
		t.Errorf("two calls share the key %q", keys[0])
	}
	if bodies[0] != bodies[2] || !strings.Contains(bodies[0], `"server"`) {
		t.Errorf("the attempts sent the bodies %q", bodies)
	}
	keys = keys[:2]
	if _, err := c.Keyed("mine").Issue(t.Context(), client.IssueRequest{}); err != nil || keys[2] != "mine" {
		t.Errorf("Keyed sent the keys %q (%v)", keys, err)
	}
}

func TestProblems(t *testing.T) {
	asked := 0
	problem := client.Problem{Type: "/problems/forbidden", Title: "The caller may not do this", Status: 403, Detail: "no", Remedy: "ask somebody else", Rule: "r"}
	c := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("Content-Type", client.MediaProblem)
		if r.URL.Path == "/v1/readers/1/suspend" && asked == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			json.NewEncoder(w).Encode(client.Problem{Status: 503})
			return
		}
		w.WriteHeader(problem.Status)
		json.NewEncoder(w).Encode(problem)
	}))
	_, err := c.SuspendReader(t.Context(), "1", client.Note{})
	var p *client.Problem
	if !errors.As(err, &p) || *p != problem || p.Hint() != problem.Remedy || asked != 2 {
		t.Errorf("the error is %#v after %d questions, want %+v after 2", err, asked, problem)
	}
	asked, problem.Status = 1, http.StatusServiceUnavailable
	if _, err := c.Ready(t.Context()); !errors.As(err, &p) || asked != 2 {
		t.Errorf("a node that is not ready was asked %d times: %v", asked-1, err)
	}
	problem.Status = 403
	if !strings.Contains(err.Error(), "may not do this: no") {
		t.Errorf("the error reads %q", err)
	}
}

func TestWhatIsNotANodeIsRefused(t *testing.T) {
	c := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/cas/redirect":
			http.Redirect(w, r, "/v1/cas/other", http.StatusFound)
		case "/v1/cas/page":
			fmt.Fprint(w, "<html>")
		case "/v1/cas/cut":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"id":"x"`)
		default:
			t.Errorf("the client went to %s", r.URL.Path)
		}
	}))
	for _, id := range []string{"redirect", "page", "cut"} {
		if got, err := c.CA(t.Context(), id); err == nil {
			t.Errorf("%s: taken as %+v", id, got)
		}
	}
	for _, cfg := range []client.Config{{}, {URL: "http://node", TLS: &tls.Config{}}, {URL: "https://node"}, {URL: "https://", TLS: &tls.Config{}}} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("New takes %+v", cfg)
		}
	}
}

func TestUnreachableNodeIsSaidAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := testpki.Must(client.New(client.Config{URL: "https://" + l.Addr().String(), TLS: &tls.Config{}, Patience: time.Hour}))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.WhoAmI(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("a node that does not listen: %v", err)
	}
}

func TestPagesAreWalked(t *testing.T) {
	c := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("city") != "330100" || r.URL.Query().Get("limit") != "2" {
			t.Errorf("the query is %s", r.URL.RawQuery)
		}
		switch r.URL.Query().Get("after") {
		case "":
			answer(w, 200, client.Page[client.Reader]{Items: []client.Reader{{Number: "1"}, {Number: "2"}}, Next: "x"})
		case "x":
			answer(w, 200, client.Page[client.Reader]{Next: "y"}) // a page may be empty and not the last
		case "y":
			answer(w, 200, client.Page[client.Reader]{Items: []client.Reader{{Number: "3"}}})
		}
	}))
	var got []string
	for r, err := range c.Readers(t.Context(), client.ReaderQuery{City: "330100", Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Number)
	}
	if !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("walked %v", got)
	}
}

func TestWaitJob(t *testing.T) {
	var after []string
	c := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after = append(after, r.URL.Query().Get("after"))
		j := client.Job{ID: "j", State: "running", Version: uint64(len(after)), Done: int64(len(after))}
		if len(after) == 3 {
			j.State = "done"
		}
		answer(w, 200, j)
	}))
	var seen []int64
	j, err := c.WaitJob(t.Context(), "j", func(j *client.Job) { seen = append(seen, j.Done) })
	if err != nil || j.State != "done" || !slices.Equal(seen, []int64{1, 2, 3}) || !slices.Equal(after, []string{"", "1", "2"}) {
		t.Errorf("WaitJob: %+v, %v; saw %v, asked after %q", j, err, seen, after)
	}
}

func TestBackupThatBreaksOffIsAnError(t *testing.T) {
	whole := true
	c := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 100_000))
		if !whole {
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	var b bytes.Buffer
	if n, err := c.Backup(t.Context(), &b); err != nil || n != 100_000 {
		t.Errorf("Backup: %d, %v", n, err)
	}
	whole = false
	if _, err := c.Backup(t.Context(), &b); err == nil {
		t.Error("a backup that broke off is taken as whole")
	}
}
