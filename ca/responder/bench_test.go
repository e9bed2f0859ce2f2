package responder_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hufu/ca/responder"
	"hufu/hsm"
	"hufu/internal/ocsp"
	"hufu/internal/softhsm"
	"hufu/internal/testpki"
)

const connections = 64

// BenchmarkPresigned asks for answers that are kept; BenchmarkBare has a handler of
// two lines read the same requests and return the same octets. Both are asked over
// 64 connections on loopback by a client that does next to nothing.
func BenchmarkPresigned(b *testing.B) {
	w := newWorld(b, nil)
	requests, _ := prepare(b, w)
	hammer(b, w.url, requests)
	b.StopTimer()
	b.ReportMetric(float64(w.signer.Count()), "signatures")
}

func BenchmarkBare(b *testing.B) {
	w := newWorld(b, nil)
	requests, answer := prepare(b, w)
	// It reads what the responder reads, and sends as many headers.
	bare := http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body := make([]byte, req.ContentLength)
		if _, err := io.ReadFull(req.Body, body); err != nil {
			return
		}
		rw.Header()["Content-Type"] = []string{"application/ocsp-response"}
		_, _ = rw.Write(answer)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: bare}
	go server.Serve(listener)
	b.Cleanup(func() { server.Close() })
	hammer(b, "http://"+listener.Addr().String(), requests)
}

// BenchmarkLive has 64 connections ask with nonces, and 64 goroutines sign with the
// same key in a real token and check, in turns, so that a machine whose speed changes
// slows both.
func BenchmarkLive(b *testing.B) {
	home := testpki.Must(softhsm.New(b.TempDir()))
	if err := home.Activate(); err != nil {
		b.Fatal(err)
	}
	pin := []byte("24681357")
	serial, err := home.Init("bench", []byte("13572468"), pin)
	if err != nil {
		b.Fatal(err)
	}
	uri := hsm.URI{Token: "bench", Serial: serial}
	token, err := hsm.Open(ctx, hsm.Config{Module: home.Module(), URI: uri.String(), PIN: func() ([]byte, error) { return bytes.Clone(pin), nil }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { token.Close() })
	key, err := token.Generate(ctx, hsm.KeySpec{Label: "ocsp", Kind: hsm.P256, Use: hsm.Sign, Session: true})
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld(b, func(w *world, _ *responder.Config) { w.signer.Key = key })
	var requests [][]byte
	for range 100 {
		c := w.issue()
		nonce := make([]byte, 32)
		rand.Read(nonce)
		requests = append(requests, post(testpki.Must(ocsp.MakeRequest(nonce, w.id(c.Serial)))))
	}
	g := newGenerator(b, w.url)
	public, digest := key.Public().(*ecdsa.PublicKey), make([]byte, 32)
	const round = 2000
	bare := func() {
		var next atomic.Int64
		together(connections, func(int) {
			for next.Add(1) <= round {
				signature, err := key.Sign(nil, digest, crypto.SHA256)
				if err != nil || !ecdsa.VerifyASN1(public, digest, signature) {
					b.Error("the token's signature is not right", err)
					return
				}
			}
		})
	}
	g.run(round, requests)
	var live, alone time.Duration
	done := 0
	for ; done < b.N; done += round {
		began := time.Now()
		g.run(round, requests)
		live += time.Since(began)
		began = time.Now()
		bare()
		alone += time.Since(began)
	}
	b.ReportMetric(float64(done)/live.Seconds(), "answers/s")
	b.ReportMetric(float64(done)/alone.Seconds(), "signatures/s")
	b.ReportMetric(alone.Seconds()/live.Seconds(), "live/bare")
}

// prepare makes the raw requests for a hundred certificates, each asked for once
// already, and returns them and one answer.
func prepare(b *testing.B, w *world) (requests [][]byte, answer []byte) {
	b.Helper()
	for range 100 {
		c := w.issue()
		der := testpki.Must(ocsp.MakeRequest(nil, w.id(c.Serial)))
		requests = append(requests, post(der))
		res, err := http.Post(w.url+"/ocsp/services", "application/ocsp-request", bytes.NewReader(der))
		if err != nil {
			b.Fatal(err)
		}
		answer = testpki.Must(io.ReadAll(res.Body))
		res.Body.Close()
	}
	return requests, answer
}

// post is a request as HTTP has it on the wire.
func post(der []byte) []byte {
	return append(fmt.Appendf(nil, "POST /ocsp/services HTTP/1.1\r\nHost: pki.card.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n", len(der)), der...)
}

// generator asks over open connections.
type generator struct {
	b     *testing.B
	conns []net.Conn
	from  []*bufio.Reader
}

func newGenerator(b *testing.B, url string) *generator {
	b.Helper()
	g := &generator{b: b}
	for range connections {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		g.conns, g.from = append(g.conns, conn), append(g.from, bufio.NewReader(conn))
	}
	return g
}

// run sends n requests and reads the responses.
func (g *generator) run(n int, requests [][]byte) {
	var next atomic.Int64
	together(connections, func(i int) {
		for k := next.Add(1); k <= int64(n); k = next.Add(1) {
			if err := exchange(g.conns[i], g.from[i], requests[int(k)%len(requests)]); err != nil {
				g.b.Error(err)
				return
			}
		}
	})
}

// hammer sends b.N requests over all connections and reads the responses.
func hammer(b *testing.B, url string, requests [][]byte) {
	b.Helper()
	g := newGenerator(b, url)
	b.ReportAllocs()
	b.ResetTimer()
	g.run(b.N, requests)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// exchange sends one request and reads past its response.
func exchange(w io.Writer, r *bufio.Reader, request []byte) error {
	if _, err := w.Write(request); err != nil {
		return err
	}
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, c := range bytes.TrimSpace(value) {
				length = length*10 + int(c-'0')
			}
		}
	}
	if length == 0 {
		return fmt.Errorf("a response without an answer")
	}
	_, err := r.Discard(length)
	return err
}
