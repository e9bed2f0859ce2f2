package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"hufu/examples/topup/purse"
)

// decided is one load as the city decided it: what TAC is later checked with.
type decided struct {
	Transaction string
	ASN         []byte
	Load        purse.Load
}

// ledger keeps decided loads in a file, a line each, durable before anything
// leaves the city. A repeated request finds its first decision here, so that it
// gets the same MAC2. MAC2 itself is in no line.
type ledger struct {
	mu    sync.Mutex // guards all below
	file  *os.File
	loads map[string]*decided
}

// openLedger opens the ledger for one writer. A last line without its end is
// that of a crash; it was told to nobody and is cut off.
func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	l := &ledger{file: f}
	whole, err := l.read()
	if err == nil {
		err = f.Truncate(whole)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// readLedger reads the ledger beside its writer.
func readLedger(path string) (*ledger, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := &ledger{file: f}
	_, err = l.read()
	return l, err
}

// read takes the lines in and gives the size of the whole ones.
func (l *ledger) read() (whole int64, err error) {
	l.loads = map[string]*decided{}
	raw, err := io.ReadAll(l.file)
	if err != nil {
		return 0, err
	}
	for n := 1; ; n++ {
		line, rest, ended := bytes.Cut(raw, []byte("\n"))
		if !ended {
			return whole, nil
		}
		d := &decided{}
		if err := json.Unmarshal(line, d); err != nil {
			return 0, fmt.Errorf("%s: line %d is damaged, restore the file: %w", l.file.Name(), n, err)
		}
		l.loads[d.Transaction] = d
		raw, whole = rest, whole+int64(len(line))+1
	}
}

// decide gives the decision that stands for a transaction: the first one.
func (l *ledger) decide(d *decided) (*decided, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first, ok := l.loads[d.Transaction]; ok {
		return first, nil
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if _, err := l.file.Write(append(raw, '\n')); err != nil {
		return nil, err
	}
	if err := l.file.Sync(); err != nil {
		return nil, err
	}
	l.loads[d.Transaction] = d
	return d, nil
}

func (l *ledger) find(transaction string) *decided {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loads[transaction]
}
