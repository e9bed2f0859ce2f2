package responder_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"hufu/internal/ocsp"
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

// prepare makes the raw requests for a hundred certificates, each asked for once
// already, and returns them and one answer.
func prepare(b *testing.B, w *world) (requests [][]byte, answer []byte) {
	b.Helper()
	for range 100 {
		c := w.issue()
		der := testpki.Must(ocsp.MakeRequest(nil, w.id(c.Serial)))
		requests = append(requests, append(fmt.Appendf(nil,
			"POST /ocsp/services HTTP/1.1\r\nHost: pki.card.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n", len(der)), der...))
		res, err := http.Post(w.url+"/ocsp/services", "application/ocsp-request", bytes.NewReader(der))
		if err != nil {
			b.Fatal(err)
		}
		answer = testpki.Must(io.ReadAll(res.Body))
		res.Body.Close()
	}
	return requests, answer
}

// hammer sends b.N requests over all connections and reads the responses.
func hammer(b *testing.B, url string, requests [][]byte) {
	b.Helper()
	address := strings.TrimPrefix(url, "http://")
	var conns []net.Conn
	for range connections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	together(connections, func(i int) {
		r := bufio.NewReader(conns[i])
		for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
			if err := exchange(conns[i], r, requests[int(n)%len(requests)]); err != nil {
				b.Error(err)
				return
			}
		}
	})
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
