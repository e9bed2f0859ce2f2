//go:build pcsc

// Command pcsc offers the card readers that stand on the PC/SC slots of this machine
// as a bench, so that whoever initialises readers finds them as it finds all others.
// The slots are named as PC/SC names them; one without a reader in it is left out.
//
//	pcsc [-listen 127.0.0.1:0]
//	        offer the slots; prints the address
//
// It speaks with the machine's pcscd, or with the one at PCSCLITE_CSOCK_NAME. It is
// built where libpcsclite's header is, with the build tag pcsc; scripts/build does so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/ebfe/scard"

	"hufu/readers/apdu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "pcsc: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("pcsc", flag.ContinueOnError)
	listen := f.String("listen", "127.0.0.1:0", "the `address` to serve at")
	if err := f.Parse(args); err != nil {
		return err
	}
	if _, err := names(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	b := &apdu.Bench{
		Names: func() []string {
			list, err := names()
			if err != nil {
				fmt.Fprintln(os.Stderr, "pcsc:", err)
			}
			return list
		},
		Open: open,
	}
	return b.Serve(ctx, l)
}

// names lists the slots that have a reader in them.
func names() ([]string, error) {
	pcsc, err := scard.EstablishContext()
	if err != nil {
		return nil, fmt.Errorf("asking PC/SC: %w (does pcscd run?)", err)
	}
	defer func() { _ = pcsc.Release() }() // nothing was done in it
	all, err := pcsc.ListReaders()
	if errors.Is(err, scard.ErrNoReadersAvailable) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking PC/SC for its slots: %w", err)
	}
	states := make([]scard.ReaderState, len(all))
	for i, name := range all {
		states[i] = scard.ReaderState{Reader: name, CurrentState: scard.StateUnaware}
	}
	if err := pcsc.GetStatusChange(states, 0); err != nil {
		return nil, fmt.Errorf("asking PC/SC what is in its slots: %w", err)
	}
	states = slices.DeleteFunc(states, func(s scard.ReaderState) bool { return s.EventState&scard.StatePresent == 0 })
	list := make([]string, len(states))
	for i := range states {
		list[i] = states[i].Reader
	}
	return list, nil
}

// patience is how long a reader that was pulled out may take to be put in again.
const patience = 5 * time.Second

// open connects to the reader in a slot, for one host alone.
func open(name string) (apdu.Slot, func(), error) {
	pcsc, err := scard.EstablishContext()
	if err != nil {
		return nil, nil, fmt.Errorf("asking PC/SC: %w", err)
	}
	card, err := pcsc.Connect(name, scard.ShareExclusive, scard.ProtocolAny)
	if errors.Is(err, scard.ErrNoSmartcard) || errors.Is(err, scard.ErrRemovedCard) {
		if await(pcsc, name, scard.StateEmpty) {
			card, err = pcsc.Connect(name, scard.ShareExclusive, scard.ProtocolAny)
		}
	}
	if err != nil {
		_ = pcsc.Release() // nothing was done in it
		return nil, nil, fmt.Errorf("PC/SC connects to no reader in %q: %w", name, err)
	}
	slot := func(command []byte) ([]byte, error) {
		answer, err := card.Transmit(command)
		if err == nil && len(answer) < 2 {
			err = errors.New("the reader was pulled out while it answered")
		}
		if err != nil {
			// The host is told when PC/SC knows it too, so that it may come back at once.
			await(pcsc, name, scard.StatePresent)
		}
		return answer, err
	}
	return slot, func() {
		// The host has gone; a reader that was pulled out cannot be let go of.
		_ = card.Disconnect(scard.LeaveCard)
		_ = pcsc.Release()
	}, nil
}

// await waits until a slot is in this state no more.
func await(pcsc *scard.Context, name string, now scard.StateFlag) bool {
	states := []scard.ReaderState{{Reader: name, CurrentState: scard.StateUnaware}}
	for late := time.Now().Add(patience); time.Now().Before(late); {
		if err := pcsc.GetStatusChange(states, time.Until(late)); err != nil {
			return false
		}
		if states[0].EventState&now == 0 {
			return true
		}
		states[0].CurrentState = states[0].EventState
	}
	return false
}
