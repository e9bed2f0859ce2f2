package ldapsync_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hufu/internal/slapd"
	"hufu/ldapsync"
)

// proxy stands between a publisher and a directory, and can hold back what the publisher sends.
type proxy struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	gate     chan struct{} // closed: octets pass; guarded by mu
	held     atomic.Int64  // octets that wait at the gate
	group    sync.WaitGroup
	conns    []net.Conn // guarded by mu
}

func startProxy(t testing.TB, s *slapd.Server) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startProxyAt(t, s, l)
}

// startProxyAt listens where the caller wants.
func startProxyAt(t testing.TB, s *slapd.Server, l net.Listener) *proxy {
	p := &proxy{listener: l, target: strings.TrimPrefix(s.SecureURL(), "ldaps://"), gate: make(chan struct{})}
	close(p.gate)
	p.group.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.release()
		p.cut()
		p.group.Wait()
	})
	return p
}

func (p *proxy) directory(name string) ldapsync.Directory {
	return ldapsync.Directory{Name: name, URL: "ldaps://" + p.listener.Addr().String(), Base: base, TLS: clientTLS(), Timeout: directoryTimeout}
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.group.Go(func() { p.forward(server, client) })
		p.group.Go(func() {
			io.Copy(client, server)
			client.Close()
		})
	}
}

// forward passes what the client sends. What is held reaches the server after the release, even if the client has long hung up.
func (p *proxy) forward(server, client net.Conn) {
	defer server.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		p.held.Add(int64(n))
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		<-gate
		server.Write(buf[:n])
		p.held.Add(-int64(n))
		if err != nil {
			return
		}
	}
}

// hold keeps back what clients send from now on.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		p.gate = make(chan struct{})
	default: // it holds already
	}
}

// release lets it go.
func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// cut breaks every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}
