package apdu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hufu/readers/apdu"
)

// TestBench: hosts talk to readers in slots; a refusal brings the reader's words, a pulled plug ends the connection.
func TestBench(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var opened atomic.Int32
	b := &apdu.Bench{
		Names: func() []string { return []string{"000001", "000002"} },
		Open: func(name string) (apdu.Slot, func(), error) {
			if name != "000001" {
				return nil, nil, fmt.Errorf("slot %s is empty", name)
			}
			opened.Add(1)
			return answers, func() { opened.Add(-1) }, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.Serve(ctx, l) }()
	address := l.Addr().String()

	if names, err := apdu.Slots(ctx, address); err != nil || !slices.Equal(names, []string{"000001", "000002"}) {
		t.Errorf("slots %q, %v", names, err)
	}
	if _, err := apdu.Open(ctx, address, "000002"); err == nil || !bytes.Contains([]byte(err.Error()), []byte("slot 000002 is empty")) {
		t.Errorf("an empty slot: %v", err)
	}
	r, err := apdu.Open(ctx, address, "000001")
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte{7}, 60_000)
	got, err := r.Do(apdu.Install, 0, apdu.Elements{apdu.Certificate: long, apdu.Number: []byte("1")})
	if err != nil || !bytes.Equal(got, long) {
		t.Errorf("%d octets came back, %v", len(got), err)
	}
	var refused *apdu.StatusError
	if _, err := r.Do(apdu.Finish, 0, nil); !errors.As(err, &refused) || refused.Status != apdu.Conditions || refused.Reason != "nothing is installed" {
		t.Errorf("a refusal is %v", err)
	}
	if _, err := r.Do(apdu.Enrol, 0, nil); err == nil || errors.As(err, &refused) && refused.INS == apdu.Enrol {
		t.Errorf("a pulled plug is %v", err)
	}
	if err := r.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if opened.Load() != 0 {
		t.Error("a slot was not closed")
	}
}

func answers(command []byte) ([]byte, error) {
	_, c, err := apdu.ParseCommand(command)
	if err != nil {
		return nil, err
	}
	a := apdu.Answer{Status: apdu.OK}
	switch c.INS {
	case apdu.Install:
		e, err := apdu.ParseElements(c.Data)
		if err != nil {
			return nil, err
		}
		a.Data = e[apdu.Certificate]
	case apdu.GetReason:
		a.Data = []byte("nothing is installed")
	case apdu.Enrol:
		return nil, errors.New("unplugged")
	default:
		a.Status = apdu.Conditions
	}
	return a.Encode(), nil
}

func TestForms(t *testing.T) {
	for hex, data := range map[string]int{
		"80100000": 0, "8010000000": 0, "80100000000000": 0,
		"8018000002AABB": 2, "8018000002AABB00": 2, "80180000000002AABB": 2, "80180000000002AABB0000": 2,
	} {
		var b []byte
		fmt.Sscanf(hex, "%x", &b)
		if class, c, err := apdu.ParseCommand(b); err != nil || class != 0x80 || len(c.Data) != data {
			t.Errorf("%s: %+v, %v", hex, c, err)
		}
	}
	for _, hex := range []string{"", "801000", "8018000003AABB", "8018000001AABBCC", "80180000000003AABB", "80180000000000AABB"} {
		var b []byte
		fmt.Sscanf(hex, "%x", &b)
		if _, c, err := apdu.ParseCommand(b); !errors.Is(err, apdu.ErrMalformed) {
			t.Errorf("%s was read as %+v", hex, c)
		}
	}
	if _, err := (&apdu.Command{Data: make([]byte, apdu.MaxData+1)}).Encode(); err == nil {
		t.Error("a command that is too long was written")
	}
}

// FuzzParse: what is read is written again as it was.
func FuzzParse(f *testing.F) {
	whole, err := (&apdu.Command{INS: apdu.Enrol, Data: apdu.Elements{apdu.Session: make([]byte, 16), apdu.Challenge: make([]byte, 200), apdu.Certificate: make([]byte, 700)}.Encode()}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte{0x80, 0x10, 0, 0})
	f.Add((&apdu.Answer{Data: []byte("x"), Status: apdu.OK}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := apdu.ParseElements(b); err == nil && !bytes.Equal(e.Encode(), b) {
			t.Errorf("%x became %x", b, e.Encode())
		}
		if a, err := apdu.ParseAnswer(b); err == nil && !bytes.Equal(a.Encode(), b) {
			t.Errorf("%x became %x", b, a.Encode())
		}
		if class, c, err := apdu.ParseCommand(b); err == nil && class == apdu.Class {
			again, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, d, err := apdu.ParseCommand(again); err != nil || d.INS != c.INS || d.P1 != c.P1 || d.P2 != c.P2 || !bytes.Equal(d.Data, c.Data) {
				t.Errorf("%x became %x", b, again)
			}
		}
	})
}

// TestOneHost: who comes second to a slot waits until the first has gone.
func TestOneHost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var inside atomic.Int32
	b := &apdu.Bench{Open: func(string) (apdu.Slot, func(), error) {
		if inside.Add(1) > 1 {
			t.Error("two hosts have one slot")
		}
		return answers, func() { inside.Add(-1) }, nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.Serve(ctx, l) }()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				r, err := apdu.Open(ctx, l.Addr().String(), "1")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := r.Do(apdu.Install, 0, apdu.Elements{apdu.Certificate: {1}}); err != nil {
					t.Error(err)
				}
				r.Close()
			}
		})
	}
	group.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
