package main

import (
	"bufio"
	"encoding/json"
	"fmt"
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
// gets the same MAC2.
type ledger struct {
	mu    sync.Mutex // guards all below
	file  *os.File
	loads map[string]*decided
}

func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	l := &ledger{file: f, loads: map[string]*decided{}}
	in := bufio.NewScanner(f)
	for in.Scan() {
		d := &decided{}
		if err := json.Unmarshal(in.Bytes(), d); err != nil {
			return nil, fmt.Errorf("%s: a line is damaged: %w", path, err)
		}
		l.loads[d.Transaction] = d
	}
	return l, in.Err()
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
