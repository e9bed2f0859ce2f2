package apdu

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A bench is a place with readers: a rack of them, one on a desk behind PC/SC, or a simulator. Whoever connects names a slot and then talks
// to the reader in it: one frame a command, one frame an answer. A frame is four octets of length and what they count. An empty name asks
// for the names of all slots, answered with one on a line, and the connection ends. A bench answers the name of a slot with one empty frame,
// or with words why not.

// maxFrame bounds what is read before it is looked at.
const maxFrame = 4 << 20

func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

func readFrame(r io.Reader, most uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > most {
		return nil, fmt.Errorf("a frame of %d octets, at most %d are taken: %w", n, most, ErrMalformed)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// Slots asks a bench for the names of its slots.
func Slots(ctx context.Context, address string) ([]string, error) {
	c, words, err := dial(ctx, address, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if len(words) == 0 {
		return nil, nil
	}
	return strings.Split(string(words), "\n"), nil
}

// Reader is a reader in a slot, as its host sees it. It is used by one goroutine at a time.
type Reader struct {
	c    net.Conn
	in   *bufio.Reader
	stop func() bool
}

// Open connects to the reader in a slot. When ctx ends, so does the connection.
func Open(ctx context.Context, address, slot string) (*Reader, error) {
	if slot == "" {
		return nil, errors.New("the name of the slot is missing")
	}
	c, words, err := dial(ctx, address, slot)
	if err != nil {
		return nil, err
	}
	if len(words) > 0 {
		c.Close()
		return nil, fmt.Errorf("bench %s, slot %s: %s", address, slot, words)
	}
	return &Reader{c: c, in: bufio.NewReader(c), stop: context.AfterFunc(ctx, func() { c.Close() })}, nil
}

func dial(ctx context.Context, address, slot string) (net.Conn, []byte, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to the bench at %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	err = writeFrame(c, []byte(slot))
	var words []byte
	if err == nil {
		words, err = readFrame(c, maxFrame)
	}
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("asking the bench at %s: %w", address, err)
	}
	return c, words, nil
}

// Close ends the connection.
func (r *Reader) Close() error {
	r.stop()
	return r.c.Close()
}

// Do sends a command and returns the data of the answer; a refusal is a *StatusError with the reader's reason.
func (r *Reader) Do(ins, p1 byte, e Elements) ([]byte, error) {
	a, err := r.transmit(&Command{INS: ins, P1: p1, Data: e.Encode()})
	if err != nil {
		return nil, fmt.Errorf("command %02X to the reader: %w", ins, err)
	}
	if a.Status == OK {
		return a.Data, nil
	}
	refused := &StatusError{INS: ins, Status: a.Status}
	if a, err := r.transmit(&Command{INS: GetReason}); err == nil && a.Status == OK {
		refused.Reason = string(a.Data)
	}
	return nil, refused
}

func (r *Reader) transmit(c *Command) (*Answer, error) {
	b, err := c.Encode()
	if err != nil {
		return nil, err
	}
	if err := writeFrame(r.c, b); err != nil {
		return nil, err
	}
	if b, err = readFrame(r.in, MaxData+2); err != nil {
		return nil, err
	}
	return ParseAnswer(b)
}

// A Slot answers the octets of one command with those of an answer. An error takes the reader away: the connection ends, as when its plug
// is pulled.
type Slot func(command []byte) (answer []byte, err error)

// Bench serves slots to hosts. One host has a slot at a time; another one waits for it, but not for ever.
type Bench struct {
	Names func() []string
	Open  func(name string) (s Slot, close func(), err error)

	mu   sync.Mutex
	busy map[string]chan struct{} // slots that a host has; closed when it leaves
}

// patience is how long a host waits for another one to leave a slot. One that comes back after its connection broke waits a moment only.
const patience = 10 * time.Second

func (b *Bench) take(name string) error {
	late := time.After(patience)
	for {
		b.mu.Lock()
		left, taken := b.busy[name]
		if !taken {
			if b.busy == nil {
				b.busy = map[string]chan struct{}{}
			}
			b.busy[name] = make(chan struct{})
			b.mu.Unlock()
			return nil
		}
		b.mu.Unlock()
		select {
		case <-left:
		case <-late:
			return fmt.Errorf("another host has the slot, and did not leave it within %v", patience)
		}
	}
}

func (b *Bench) leave(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.busy[name])
	delete(b.busy, name)
}

// Serve answers on l until ctx ends.
func (b *Bench) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var group sync.WaitGroup
	defer group.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serving the bench: %w", err)
		}
		group.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			b.talk(c)
		})
	}
}

func (b *Bench) talk(c net.Conn) {
	in := bufio.NewReader(c)
	name, err := readFrame(in, 256)
	if err != nil {
		return
	}
	if len(name) == 0 {
		_ = writeFrame(c, []byte(strings.Join(b.Names(), "\n"))) // who asked has gone, or asks again
		return
	}
	if err := b.take(string(name)); err != nil {
		_ = writeFrame(c, []byte(err.Error()))
		return
	}
	defer b.leave(string(name))
	slot, done, err := b.Open(string(name))
	if err != nil {
		_ = writeFrame(c, []byte(err.Error()))
		return
	}
	defer done()
	if writeFrame(c, nil) != nil {
		return
	}
	for {
		command, err := readFrame(in, 4+3+MaxData+2)
		if err != nil {
			return
		}
		answer, err := slot(command)
		if err != nil || writeFrame(c, answer) != nil {
			return
		}
	}
}
