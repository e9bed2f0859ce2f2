package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
)

// generator keeps one request in flight on each of its connections. It is one
// thread over epoll, so that it takes as little as it can of the CPUs that it
// shares with the server.
type generator struct {
	requests [][]byte
	epoll    int
	conns    map[int32]*connection
}

type connection struct {
	fd   int
	have int // octets of the answer in buf
	buf  [16 << 10]byte
}

func newGenerator(address string, requests [][]byte) (*generator, error) {
	to, err := loopback(address)
	if err != nil {
		return nil, err
	}
	g := &generator{requests: requests, conns: make(map[int32]*connection)}
	if g.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for range clients {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		g.conns[int32(fd)] = &connection{fd: fd}
		if err := syscall.Connect(fd, to); err != nil {
			return nil, fmt.Errorf("connecting to %s: %w", address, err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return nil, err
		}
		if err := syscall.SetNonblock(fd, true); err != nil {
			return nil, err
		}
		if err := syscall.EpollCtl(g.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// loopback reads "localhost:80" or "127.0.0.1:80".
func loopback(address string) (*syscall.SockaddrInet4, error) {
	if port, ok := bytes.CutPrefix([]byte(address), []byte("localhost:")); ok {
		address = "127.0.0.1:" + string(port)
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}, nil
}

func (g *generator) close() {
	for _, c := range g.conns {
		syscall.Close(c.fd)
	}
	syscall.Close(g.epoll)
}

// run sends n requests and reads their answers.
func (g *generator) run(ctx context.Context, n int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sent, answered := 0, 0
	for _, c := range g.conns {
		if sent < n {
			if err := c.send(g.requests[sent%len(g.requests)]); err != nil {
				return err
			}
			sent++
		}
	}
	events := make([]syscall.EpollEvent, len(g.conns))
	for answered < n {
		ready, err := syscall.EpollWait(g.epoll, events, 1000)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range events[:ready] {
			c := g.conns[e.Fd]
			whole, err := c.receive()
			if err != nil {
				return err
			}
			if !whole {
				continue
			}
			answered++
			if sent < n {
				if err := c.send(g.requests[sent%len(g.requests)]); err != nil {
					return err
				}
				sent++
			}
		}
	}
	return nil
}

// send writes a request, which always fits into the socket's buffer.
func (c *connection) send(request []byte) error {
	n, err := syscall.Write(c.fd, request)
	if err == nil && n < len(request) {
		err = errors.New("a request did not fit into the socket")
	}
	return err
}

var (
	endOfHeader   = []byte("\r\n\r\n")
	okay          = []byte("HTTP/1.1 200 ")
	contentLength = []byte("\r\nContent-Length: ")
)

// receive reads what is there, and tells whether the answer is whole.
func (c *connection) receive() (whole bool, err error) {
	n, err := syscall.Read(c.fd, c.buf[c.have:])
	if errors.Is(err, syscall.EAGAIN) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if n == 0 {
		return false, errors.New("the server closed the connection")
	}
	c.have += n
	got := c.buf[:c.have]
	header := bytes.Index(got, endOfHeader)
	if header < 0 {
		return false, nil
	}
	if !bytes.HasPrefix(got, okay) {
		return false, fmt.Errorf("the server answers %q", got[:header])
	}
	at := bytes.Index(got[:header], contentLength)
	if at < 0 {
		return false, fmt.Errorf("an answer without a length: %q", got[:header])
	}
	length := 0
	for _, d := range got[at+len(contentLength) : header+1] {
		if d == '\r' {
			break
		}
		length = length*10 + int(d-'0')
	}
	switch want := header + len(endOfHeader) + length; {
	case c.have > want || want > len(c.buf):
		return false, errors.New("the server sends more than one answer")
	case c.have < want:
		return false, nil
	}
	c.have = 0
	return true, nil
}
