package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hufu/examples/topup/purse"
)

// TestLedgerAfterACrash: whatever a crash leaves of the last line, the decisions
// before it stand, and the next one is whole.
func TestLedgerAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	open := func() *ledger {
		t.Helper()
		l, err := openLedger(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.file.Close() })
		return l
	}
	decide := func(l *ledger, id string, amount uint32) *decided {
		t.Helper()
		d, err := l.decide(&decided{Transaction: id, ASN: make([]byte, 10), Load: purse.Load{Amount: amount}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	l := open()
	decide(l, "a", 1)
	if d := decide(l, "a", 2); d.Load.Amount != 1 {
		t.Errorf("the second decision stands: %+v", d)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decide(l, "b", 3)
	both, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for end := len(whole); end <= len(both); end++ {
		if err := os.WriteFile(path, both[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open()
		if l.find("a") == nil || (l.find("b") != nil) != (end == len(both)) {
			t.Fatalf("of %d octets: a %v, b %v", end, l.find("a"), l.find("b"))
		}
		decide(l, "c", 4)
		again, err := readLedger(path)
		if err != nil || again.find("c") == nil || again.find("a") == nil {
			t.Fatalf("of %d octets, read again: %v", end, err)
		}
	}

	// A line that is damaged in the middle is no crash.
	if err := os.WriteFile(path, append([]byte("{\n"), both...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(path); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a damaged ledger: %v", err)
	}
}

// TestKeysThatOthersCanRead are not used.
func TestKeysThatOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "city.keys")
	if err := personalise(keys, "330100", "33010000000000000001", 0, filepath.Join(dir, "card.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(keys, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := readMasters(keys); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("keys that others can read: %v", err)
	}
}
