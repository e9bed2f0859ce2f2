package hsm_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hufu/hsm"
)

// spy is a library that writes down every call and passes it on.
const spy = "/usr/lib/x86_64-linux-gnu/pkcs11/pkcs11-spy.so"

func spyLog() string { return filepath.Join(os.TempDir(), fmt.Sprintf("hufu-spy-%d", os.Getpid())) }

func TestMain(m *testing.M) {
	m.Run()
	os.Remove(spyLog())
}

// spied has cfg go through the spy and returns what counts the logins from now on. The
// spy opens its log once in a process.
func spied(t *testing.T, cfg *hsm.Config) (logins func() int) {
	t.Helper()
	out := spyLog()
	t.Setenv("PKCS11SPY", cfg.Module)
	t.Setenv("PKCS11SPY_OUTPUT", out)
	cfg.Module = spy
	count := func() int {
		calls, err := os.ReadFile(out)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Count(string(calls), ": C_Login\n")
	}
	before := count()
	return func() int { return count() - before }
}

func writePIN(t *testing.T, path, pin string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWrongPINIsSentOnce(t *testing.T) {
	cfg := newToken(t, newHome(t), "hufu")
	logins := spied(t, &cfg)
	path := filepath.Join(t.TempDir(), "pin")
	writePIN(t, path, "wrong one")
	cfg.PIN = hsm.PINSource{File: path}.Func("hufu")
	for range 5 {
		_, err := hsm.Open(context.Background(), cfg)
		wantError(t, err, hsm.ErrWrongPIN, "PIN source")
	}
	hsm.Doctor(context.Background(), cfg)
	if n := logins(); n != 1 {
		t.Fatalf("the wrong PIN was sent %d times", n)
	}
	writePIN(t, path, string(userPIN))
	open(t, cfg)
	if n := logins(); n != 2 {
		t.Fatalf("%d logins, not 2", n)
	}
}

// A PIN source that goes bad while the token is open stops the healing after one try,
// and is taken up again as soon as it is corrected.
func TestPINChangedWhileOpen(t *testing.T) {
	cfg := newToken(t, newHome(t), "hufu")
	logins := spied(t, &cfg)
	path := filepath.Join(t.TempDir(), "pin")
	writePIN(t, path, string(userPIN))
	cfg.PIN = hsm.PINSource{File: path}.Func("hufu")
	token := open(t, cfg)
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	writePIN(t, path, "wrong two")
	if err := token.Finalize(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		wantError(t, signs(k), hsm.ErrWrongPIN)
	}
	if n := logins(); n != 2 {
		t.Fatalf("%d logins, not 2", n)
	}
	writePIN(t, path, string(userPIN))
	checkSigns(t, k)
}

func TestPINIsWiped(t *testing.T) {
	cfg := newToken(t, newHome(t), "hufu")
	given := []byte(string(userPIN))
	cfg.PIN = func() ([]byte, error) { return given, nil }
	open(t, cfg)
	for _, b := range given {
		if b != 0 {
			t.Fatalf("the PIN still reads %q", given)
		}
	}
}

func TestPINSources(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pin")
	if err := os.WriteFile(path, []byte("1234\r\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	write.WriteString("1234\n")
	write.Close()
	for name, source := range map[string]hsm.PINSource{
		"file":       {File: path},
		"descriptor": {FD: int(file.Fd())},
		"pipe":       {FD: int(read.Fd())},
		"credential": {Credential: "pin", CredentialsDir: dir},
	} {
		f := source.Func("hufu")
		for range 3 { // the token may come back more than once
			pin, err := f()
			if err != nil || string(pin) != "1234" {
				t.Fatalf("%s: %q, %v", name, pin, err)
			}
			clear(pin)
		}
	}
}

func TestPINSourcesRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		name   string
		source hsm.PINSource
		word   string
	}{
		{"none", hsm.PINSource{}, "exactly one"},
		{"two", hsm.PINSource{File: "a", Prompt: true}, "exactly one"},
		{"readable by all", hsm.PINSource{File: write("all", "1234", 0o644)}, "chmod 0600"},
		{"readable by the group", hsm.PINSource{File: write("group", "1234", 0o640)}, "chmod 0600"},
		{"missing", hsm.PINSource{File: filepath.Join(dir, "nothing")}, "nothing"},
		{"directory", hsm.PINSource{File: dir}, "regular"},
		{"empty", hsm.PINSource{File: write("empty", "\n", 0o600)}, "empty"},
		{"too long", hsm.PINSource{File: write("long", strings.Repeat("1", 2000), 0o600)}, "longer"},
		{"standard output", hsm.PINSource{FD: 1}, "descriptor"},
		{"closed descriptor", hsm.PINSource{FD: 999}, "999"},
		{"credential without systemd", hsm.PINSource{Credential: "pin"}, "LoadCredential"},
		{"credential with a path", hsm.PINSource{Credential: "../pin", CredentialsDir: dir}, "name"},
	} {
		_, err := test.source.Func("hufu")()
		if err == nil {
			t.Errorf("%s: accepted", test.name)
			continue
		}
		wantError(t, err, nil, test.word, "hufu")
	}
}
