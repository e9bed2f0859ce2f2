package examples_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"hufu/internal/pcscd"
)

// TestPCSC: a reader in a real PC/SC slot goes through both stages with a real node,
// by the commands that all other readers go through. Its power goes on the way.
func TestPCSC(t *testing.T) {
	if err := exec.Command("pkg-config", "--exists", "libpcsclite").Run(); err != nil {
		t.Skipf("PC/SC is not tested: libpcsclite-dev or pkg-config is missing (scripts/setup test installs them): %v", err)
	}
	w := live(t)
	s, err := pcscd.Start(bin, &w.logs)
	if errors.Is(err, pcscd.ErrCannot) {
		t.Skipf("PC/SC is not tested: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("PCSCLITE_CSOCK_NAME", s.Socket)
	tags := "pcsc"
	for f := range strings.FieldsSeq(os.Getenv("GOFLAGS")) {
		if more, ok := strings.CutPrefix(f, "-tags="); ok {
			tags = more + ",pcsc"
		}
	}
	if err := build("-trimpath", "-tags", tags, "hufu/examples/reader/pcsc"); err != nil {
		t.Fatal(err)
	}

	const number = "77010000001"
	must := func(out []byte, err error) []byte { t.Helper(); return w.must(t, out, err) }
	must(w.run(program("readers"), "make", "-dir", w.path("pcsc"), "-first", number, "-model", "XF-PCSC", "-firmware", "1.2.0", "-approval", "CN-17", "-manifest", w.path("pcsc.csv")))
	must(w.as("operator", "model", "add", "XF-PCSC", "--maker", "M", "--approval", "CN-17", "--until", "2099-12-31"))
	must(w.as("operator", "manifest", "import", w.path("pcsc.csv")))
	w.serve(t, "readers", "card", "-dir", w.path("pcsc"), "-number", number, "-vpcd", s.Slot, "-cut", "enrol:before,install:after")
	bench := w.serve(t, "pcsc")
	for late := time.Now().Add(30 * time.Second); ; {
		out, err := w.as("operator", "stage1", "deliver", "--bench", bench)
		if err == nil && bytes.Contains(out, []byte("delivered")) {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("no reader is in the slot: %v: %s", err, out)
		}
	}
	must(w.as("operator", "ticket", "create", "--city", city, "--expires", time.Now().AddDate(1, 0, 0).Format(time.DateOnly), "--model", "XF-PCSC"))
	went := 0
	for late := time.Now().Add(60 * time.Second); ; {
		out, err := w.as("city-operator", "stage2", "run", "--bench", bench)
		if err == nil && bytes.Contains(out, []byte("reader "+number+" is active")) {
			break
		}
		switch {
		case time.Now().After(late):
			t.Fatalf("the reader does not become active: %v: %s", err, out)
		case bytes.Contains(out, []byte("reader-failed")):
			went++
		case !bytes.Contains(out, []byte("has 0 slots")): // it is put in again
			t.Fatalf("%v: %s", err, out)
		}
	}
	if went < 2 {
		t.Errorf("the power went %d times", went)
	}
	if out, err := w.as("city-operator", "stage2", "run", "--bench", bench); err == nil || !bytes.Contains(out, []byte("already-initialised")) {
		t.Errorf("a second time: %v: %s", err, out)
	}
	must(w.as("city-operator", "stage2", "run", "--bench", bench, "--renew"))
	if out := must(w.run(program("readers"), "show", "-dir", w.path("pcsc"))); !bytes.Contains(out, []byte(number+"\tfinished\t"+city)) {
		t.Errorf("the reader is %s", out)
	}
}

// serve starts a program for the length of a test and gives the address that it
// prints.
func (w *world) serve(t *testing.T, name string, args ...string) string {
	t.Helper()
	p, address, err := w.start(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Signal(syscall.SIGTERM)
		p.Wait()
	})
	return address
}
