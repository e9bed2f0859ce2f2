package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"hufu/internal/child"
	"hufu/internal/testpki"
	"hufu/issuance"
	"hufu/policy"
	"hufu/readers/apdu"
)

// bin is the folder of the programs.
var bin string

func TestMain(m *testing.M) {
	code := 1
	err := func() (err error) {
		if bin, err = os.MkdirTemp("", "hufu-readers-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
		if out, err := exec.Command("go", "build", "-o", bin+"/", ".").CombinedOutput(); err != nil {
			return fmt.Errorf("building the program: %w: %s", err, out)
		}
		code = m.Run()
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func readers(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "readers"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("readers %s: %v: %s", args, err, out)
	}
	return string(out)
}

func refused(t testing.TB, words string, args ...string) {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "readers"), args...).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte(words)) {
		t.Errorf("readers %s: %v: %s; want %q", args, err, out, words)
	}
}

var made = []string{"-model", "读卡器 XF-100", "-firmware", "1.2.0", "-approval", "A-2026-1"}

// serve starts a program that prints its address in one line.
func serve(t testing.TB, program string, env []string, args ...string) (address string, p *child.Process) {
	t.Helper()
	c := exec.Command(filepath.Join(bin, program), args...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Env, c.Stderr = append(os.Environ(), env...), os.Stderr
	if p, err = child.Start(c, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.End(10 * time.Second); err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s %s says nothing: %v", program, args, err)
	}
	return strings.TrimSpace(line), p
}

// TestCrowd: the maker's line makes a crowd, stage 1 prepares it, and hosts initialise
// all of it at once while the power comes and goes and the bench is killed again and
// again. One of them has a token of its own.
func TestCrowd(t *testing.T) {
	const crowd = 300
	pki := testpki.Must(testpki.New(testpki.Config{}))
	dir, work := t.TempDir(), t.TempDir()
	file := func(name string) string { return filepath.Join(work, name) }

	line := append([]string{"make", "-dir", dir, "-count", fmt.Sprint(crowd - 1), "-first", "33010000002", "-encoding", "gb18030", "-manifest", file("m.csv")}, made...)
	readers(t, line...)
	rows := manifest(t, file("m.csv"), "公钥")
	if readers(t, line...); len(manifest(t, file("m.csv"), "公钥")) != len(rows) || manifest(t, file("m.csv"), "公钥")["33010000200"] != rows["33010000200"] {
		t.Error("the same line again has other keys")
	}
	readers(t, append([]string{"make", "-dir", dir, "-first", "33010000001", "-token", "-csr", "-manifest", file("one.csv")}, made...)...)
	one := manifest(t, file("one.csv"), "csr")["33010000001"]
	rows["33010000001"] = string(testpki.Must(issuance.ParseCSR([]byte(one))).SPKI)
	refused(t, "was made already, and otherwise", "make", "-dir", dir, "-first", "33010000002", "-model", "M", "-firmware", "1", "-approval", "A", "-manifest", file("no.csv"))
	refused(t, "does not end with digits", append([]string{"make", "-dir", dir, "-first", "abc", "-manifest", file("no.csv")}, made...)...)
	refused(t, "too few digits", append([]string{"make", "-dir", dir, "-first", "a9", "-count", "2", "-manifest", file("no.csv")}, made...)...)
	if _, err := os.Stat(file("no.csv")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a manifest was written of what was not made")
	}
	readers(t, "forget", "-dir", dir, "-number", "a9") // made before the digits ran out
	if err := os.Remove(filepath.Join(dir, "a9.flash")); err != nil {
		t.Error(err)
	}

	ca := pki.CA("device").Record.Certificate
	pem := testpki.PEM("CERTIFICATE", ca)
	for number, spki := range rows {
		pem = append(pem, testpki.PEM("CERTIFICATE", certify(t, pki, "device", "device", policy.Name{Reader: number}, []byte(spki)))...)
	}
	for name, content := range map[string][]byte{"root.pem": testpki.PEM("CERTIFICATE", pki.Anchors()[0]), "device.pem": pem, "ca.pem": testpki.PEM("CERTIFICATE", ca)} {
		if err := os.WriteFile(file(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, "and 280 more", "prepare", "-dir", dir, "-certificates", file("device.pem"), "-root", file("ca.pem"))
	readers(t, "prepare", "-dir", dir, "-certificates", file("device.pem"), "-root", file("root.pem"))
	if out := readers(t, "show", "-dir", dir); !strings.Contains(out, fmt.Sprintf("\n%d prepared, %d in all\n", crowd, crowd)) || !strings.Contains(out, "33010000001\tprepared\t-\t读卡器 XF-100\t1.2.0\tkeys in token\n") {
		t.Errorf("show says %s", out)
	}

	bench := &killed{t: t, args: []string{"bench", "-dir", dir, "-cut-random", "0.05", "-seed", "9"}}
	bench.start()
	refused(t, "another program has the readers", "forget", "-dir", dir, "-number", "33010000002")
	if slots := testpki.Must(apdu.Slots(t.Context(), bench.at())); len(slots) != crowd || slots[0] != "33010000001" {
		t.Fatalf("there are %d slots", len(slots))
	}
	var next, done atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := next.Add(1); i <= crowd; i = next.Add(1) {
				life(t, pki, bench.at, fmt.Sprintf("33010000%03d", i))
				if done.Add(1)%75 == 0 {
					bench.kill()
				}
			}
		})
	}
	group.Wait()
	if out := readers(t, "show", "-dir", dir); !strings.Contains(out, fmt.Sprintf("\n%d finished, %d in all\n", crowd, crowd)) {
		t.Errorf("show says %s", out[max(0, len(out)-200):])
	}
	if bench.times != 4 {
		t.Errorf("the bench was killed %d times", bench.times)
	}
}

// killed is a bench that is killed with SIGKILL and begins again.
type killed struct {
	t       testing.TB
	args    []string
	mu      sync.Mutex
	address string
	process *child.Process
	times   int
}

func (k *killed) start() { k.address, k.process = serve(k.t, "readers", nil, k.args...) }

func (k *killed) at() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.address
}

func (k *killed) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.process.Signal(syscall.SIGKILL); err != nil {
		k.t.Error(err)
	}
	<-k.process.Exited
	k.times++
	k.start()
}

// manifest reads a manifest as the centre would: what the last column holds, by number.
func manifest(t testing.TB, path, last string) map[string]string {
	t.Helper()
	raw := testpki.Must(os.ReadFile(path))
	if last == "公钥" {
		raw = testpki.Must(simplifiedchinese.GB18030.NewDecoder().Bytes(raw))
	}
	rows := testpki.Must(csv.NewReader(bytes.NewReader(raw)).ReadAll())
	if rows[0][4] != last {
		t.Fatalf("the manifest begins with %q", rows[0])
	}
	found := map[string]string{}
	for _, r := range rows[1:] {
		if r[1] != made[1] || r[2] != made[3] || r[3] != made[5] {
			t.Errorf("a row is %q", r)
		}
		found[r[0]] = string(testpki.Must(base64.StdEncoding.DecodeString(r[4])))
	}
	return found
}

func certify(t testing.TB, pki *testpki.World, ca, profile string, name policy.Name, spki []byte) []byte {
	t.Helper()
	serial := testpki.Must(issuance.NewSerial(rand.Reader))
	token, err := pki.CA(ca).Prepare(issuance.Request{Profile: profile, Name: name, SPKI: spki, Serial: serial})
	if err != nil {
		t.Fatal(err)
	}
	return testpki.Must(pki.CA(ca).Issuer.Issue(context.Background(), token))
}
