package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"hufu/examples/reader/device"
)

// What vpcd says to a card in one octet; everything longer is a command.
const (
	powerOff = 0
	powerOn  = 1
	reset    = 2
	sendATR  = 4
)

// answerToReset: T=1, so that commands of extended length pass (ISO/IEC 7816-3,
// Section 8.2).
var answerToReset = []byte{0x3B, 0x80, 0x80, 0x01, 0x01}

// outside is how long the card is out of the slot when its power went: as long as a
// hand needs, and longer than pcscd takes to notice.
const outside = time.Second

// card puts a reader into the virtual slot. When its power is cut, the card is taken
// out and put in again.
func card(ctx context.Context, f *flag.FlagSet, args []string, out io.Writer) error {
	dir, number, cuts := folder(f), f.String("number", "", "the reader's `number`"), power(f)
	address := f.String("vpcd", "127.0.0.1:35963", "the `address` of vsmartcard's virtual slot")
	if err := parse(f, args, "dir", "number"); err != nil {
		return err
	}
	rack, err := device.OpenRack(*dir)
	if err != nil {
		return err
	}
	defer rack.Close()
	if rack.Cuts, err = cuts(); err != nil {
		return err
	}
	for {
		err := insert(ctx, rack, *number, *address, out)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, device.ErrCut) {
			return err
		}
		fmt.Fprintln(out, "the power of reader", *number, "went")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(outside):
		}
	}
}

// insert is one stay of the card in the slot.
func insert(ctx context.Context, rack *device.Rack, number, address string, out io.Writer) error {
	r, err := rack.Reader(number)
	if err != nil {
		return err
	}
	defer func() { r.Close() }()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("putting reader %s into the virtual slot: %w (does pcscd run, with vsmartcard-vpcd?)", number, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	fmt.Fprintln(out, "reader", number, "is in the slot at", address)
	in := bufio.NewReader(c)
	for {
		var head [2]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return fmt.Errorf("the virtual slot at %s is gone: %w", address, err)
		}
		command := make([]byte, binary.BigEndian.Uint16(head[:]))
		if _, err := io.ReadFull(in, command); err != nil {
			return fmt.Errorf("the virtual slot at %s is gone: %w", address, err)
		}
		var answer []byte
		switch {
		case len(command) != 1:
			if answer, err = r.Answer(command); err != nil {
				return err
			}
		case command[0] == sendATR:
			answer = answerToReset
		case command[0] == powerOff || command[0] == powerOn || command[0] == reset:
			r.Close()
			if r, err = rack.Reader(number); err != nil {
				return err
			}
			continue
		default:
			continue
		}
		if len(answer) > 0xFFFF {
			return fmt.Errorf("an answer of %d octets does not pass through vpcd", len(answer))
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return fmt.Errorf("the virtual slot at %s is gone: %w", address, err)
		}
	}
}
