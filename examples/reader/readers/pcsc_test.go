package main_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/internal/pcscd"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/readers/apdu"
)

// TestPCSC: a reader in a real PC/SC slot goes through both stages, and its power
// goes on the way, behind the same bench as all others. pcscd is one of this test's
// own, with ports, socket and folder that no other sees.
func TestPCSC(t *testing.T) {
	slot := startPCSCD(t)
	dir, work := t.TempDir(), t.TempDir()
	readers(t, append([]string{"make", "-dir", dir, "-first", "33010000001", "-manifest", filepath.Join(work, "m.csv")}, made...)...)

	pki := testpki.Must(testpki.New(testpki.Config{}))
	put := certify(t, pki, "device", "device", policy.Name{Reader: "33010000001"}, []byte(manifest(t, filepath.Join(work, "m.csv"), "key")["33010000001"]))
	serve(t, "readers", nil, "card", "-dir", dir, "-number", "33010000001", "-vpcd", slot.Slot, "-cut", "put:before,enrol:during,install:after")
	address, _ := serve(t, "pcsc", nil)
	at := func() string { return address }

	var names []string
	for late := time.Now().Add(30 * time.Second); len(names) == 0; {
		if time.Now().After(late) {
			t.Fatal("no slot has a reader")
		}
		names = testpki.Must(apdu.Slots(t.Context(), address))
	}
	if len(names) != 1 || !strings.HasPrefix(names[0], slot.Reader) {
		t.Fatalf("the slots are %q", names)
	}
	persist(t, at, names[0], apdu.PutDevice, 0, apdu.Elements{apdu.Certificate: put, apdu.Issuer: pki.CA("device").Record.Certificate, apdu.Root: pki.Anchors()[0]})
	life(t, pki, at, names[0])
	e := testpki.Must(apdu.ParseElements(persist(t, at, names[0], apdu.Identify, 0, nil)))
	if e[apdu.State][0] != apdu.Finished || string(e[apdu.City]) != city {
		t.Errorf("the reader says %q", e)
	}
	if _, err := apdu.Open(t.Context(), address, "no slot"); err == nil || !strings.Contains(err.Error(), "connects to no reader") {
		t.Errorf("a slot that is not there: %v", err)
	}

	// A program that nobody here wrote reads the same.
	out, err := exec.Command("opensc-tool", "--reader", names[0], "--send-apdu", "80:10:00:00").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("SW1=0x90, SW2=0x00")) || !bytes.Contains(octets(out), []byte("33010000001")) {
		t.Errorf("opensc-tool: %v: %s", err, out)
	}
}

// octets gathers what opensc-tool dumps.
func octets(dump []byte) (all []byte) {
	for line := range strings.Lines(string(dump)) {
		for _, f := range strings.Fields(line) {
			b, err := hex.DecodeString(f)
			if err != nil || len(b) != 1 {
				break
			}
			all = append(all, b...)
		}
	}
	return all
}

// startPCSCD starts pcscd with one virtual slot, and builds the bridge. Clients find
// the pcscd by the environment.
func startPCSCD(t testing.TB) *pcscd.Server {
	t.Helper()
	if err := exec.Command("pkg-config", "--exists", "libpcsclite").Run(); err != nil {
		t.Skipf("PC/SC is not tested: libpcsclite-dev or pkg-config is missing (scripts/setup test installs them): %v", err)
	}
	s, err := pcscd.Start(bin, os.Stderr)
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
	tags := "pcsc"
	for f := range strings.FieldsSeq(os.Getenv("GOFLAGS")) {
		if more, ok := strings.CutPrefix(f, "-tags="); ok {
			tags = more + ",pcsc"
		}
	}
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", bin+"/", "../pcsc").CombinedOutput(); err != nil {
		t.Fatalf("building the bridge: %v: %s", err, out)
	}
	t.Setenv("PCSCLITE_CSOCK_NAME", s.Socket)
	return s
}
