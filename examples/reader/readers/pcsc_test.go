package main_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hufu/internal/child"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/readers/apdu"
)

// driver is vsmartcard's driver of virtual slots.
const driver = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"

// TestPCSC: a reader in a real PC/SC slot goes through both stages, and its power
// goes on the way, behind the same bench as all others. pcscd is one of this test's
// own, with ports, socket and folder that no other sees.
func TestPCSC(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	slot := startPCSCD(t)
	dir, work := t.TempDir(), t.TempDir()
	readers(t, append([]string{"make", "-dir", dir, "-first", "33010000001", "-manifest", filepath.Join(work, "m.csv")}, made...)...)

	pki := testpki.Must(testpki.New(testpki.Config{}))
	put := certify(t, pki, "device", "device", policy.Name{Reader: "33010000001"}, []byte(manifest(t, filepath.Join(work, "m.csv"), "key")["33010000001"]))
	serve(t, "readers", nil, "card", "-dir", dir, "-number", "33010000001", "-vpcd", slot, "-cut", "put:before,enrol:during,install:after")
	address, _ := serve(t, "pcsc", nil)
	at := func() string { return address }

	var names []string
	for late := time.Now().Add(30 * time.Second); len(names) == 0; {
		if time.Now().After(late) {
			t.Fatal("no slot has a reader")
		}
		names = testpki.Must(apdu.Slots(t.Context(), address))
	}
	if len(names) != 1 || !strings.HasPrefix(names[0], "Hufu test slot") {
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

// startPCSCD starts pcscd with one virtual slot, builds the bridge, and returns the
// address where a card is put in. Clients find the pcscd by the environment.
func startPCSCD(t testing.TB) (slot string) {
	t.Helper()
	if err := exec.Command("pkg-config", "--exists", "libpcsclite").Run(); err != nil {
		t.Skipf("PC/SC is not tested: libpcsclite-dev or pkg-config is missing (scripts/setup test installs them): %v", err)
	}
	if _, err := exec.LookPath("pcscd"); err != nil {
		t.Skipf("PC/SC is not tested: pcscd is missing (scripts/setup test installs it): %v", err)
	}
	if _, err := os.Stat(driver); err != nil {
		t.Skipf("PC/SC is not tested: vsmartcard-vpcd is missing (scripts/setup test installs it): %v", err)
	}
	if out, err := exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run").CombinedOutput(); err != nil {
		t.Skipf("PC/SC is not tested: pcscd's folder below /run cannot be hidden from others, which takes root: %v: %s", err, out)
	}
	flags := strings.Fields(os.Getenv("GOFLAGS"))
	tags := "pcsc"
	for _, f := range flags {
		if more, ok := strings.CutPrefix(f, "-tags="); ok {
			tags = more + ",pcsc"
		}
	}
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", bin+"/", "../pcsc").CombinedOutput(); err != nil {
		t.Fatalf("building the bridge: %v: %s", err, out)
	}

	port := freePort(t)
	conf := filepath.Join(bin, "reader.conf")
	text := fmt.Sprintf("FRIENDLYNAME \"Hufu test slot\"\nDEVICENAME /dev/null:0x%04X\nLIBPATH %s\nCHANNELID 0x%04X\n", port, driver, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// pcscd takes its socket from whoever starts it (sd_listen_fds(3)); it has no
	// option for another path.
	socket := filepath.Join(bin, "pcscd.comm")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	file := testpki.Must(l.(*net.UnixListener).File())
	defer file.Close()
	c := exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && mkdir /run/pcscd && LISTEN_PID=$$ LISTEN_FDS=1 exec pcscd --foreground --error --config "+conf)
	c.ExtraFiles, c.Stderr, c.Stdout = []*os.File{file}, os.Stderr, os.Stderr
	p, err := child.Start(c, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.End(10 * time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("PCSCLITE_CSOCK_NAME", socket)
	for late := time.Now().Add(10 * time.Second); !child.Listens(port); {
		if time.Now().After(late) {
			t.Fatal("pcscd does not open its virtual slot")
		}
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// freePort finds a port that is free, and the next one, which vpcd takes for its
// second slot.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		first, _, err := child.FreePorts()
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+1)); err == nil {
			l.Close()
			return first
		}
	}
	t.Fatal("no two ports in a row are free")
	return 0
}
