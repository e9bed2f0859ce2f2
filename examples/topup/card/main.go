// Command card is one CPU card of a city as a process of its own: an e-purse
// that is loaded with INITIALIZE FOR LOAD and CREDIT FOR LOAD, byte for byte as
// a PBOC card does it.
//
//	card -state card.json -listen 127.0.0.1:0
//
// The state file is what the card keeps without power: keys, balance, counters,
// log; it is written and made durable before a command that changed it is
// answered. Each connection is the card entering a reader's field. -tear takes
// it out of the field in the middle of the next CREDIT FOR LOAD.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"hufu/examples/topup/memory"
	"hufu/examples/topup/purse"
)

func main() {
	state := flag.String("state", "", "the card's memory, a JSON `file`")
	listen := flag.String("listen", "127.0.0.1:0", "the loopback `address` of the card's field")
	tear := flag.String("tear", "", "leave the field `before` or after the next load is written")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "card: error:", run(*state, *listen, *tear))
	os.Exit(1)
}

// run serves until it fails.
func run(state, listen, tear string) error {
	if err := memory.Keep(); err != nil {
		return err
	}
	raw, err := os.ReadFile(state)
	if err != nil {
		return fmt.Errorf("reading the card's memory (city personalise makes one): %w", err)
	}
	var m purse.Memory
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("%s: %w", state, err)
	}
	card := purse.NewCard(m)
	card.Save = func(m *purse.Memory) error { return save(state, m) }
	switch tear {
	case "":
	case "before":
		card.Tear = purse.TearBeforeCommit
	case "after":
		card.Tear = purse.TearAfterCommit
	default:
		return fmt.Errorf("-tear %q: it is before or after", tear)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("card at", l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		field(card, c)
	}
}

// field serves one stay in the field; a card is in one field at a time.
func field(card *purse.Card, c net.Conn) {
	defer c.Close()
	card.Reset()
	for {
		apdu, err := purse.ReadFrame(c)
		if err != nil {
			return
		}
		answer, torn := card.Transmit(apdu)
		if torn {
			return
		}
		if err := purse.WriteFrame(c, answer); err != nil {
			return
		}
	}
}

// save replaces the memory in one step.
func save(path string, m *purse.Memory) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".card-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
