package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hufu/internal/softhsm"
)

// TestMain lets the test binary be hufu itself, so that every script, and every
// process that a script's hufu starts, runs with the race detector too.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hufu": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			home, err := softhsm.New(filepath.Join(env.WorkDir, "hsm"))
			if err != nil {
				return err
			}
			env.Setenv("SOFTHSM2_CONF", home.Conf())
			env.Setenv("MODULE", home.Module())
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TMPDIR", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"token":  makeToken,
			"sealed": sealed,
			"world":  quickWorld,
			"rack":   readerRack,
			"fetch":  fetch,
		},
	})
}

// exits runs a program and holds its exit code: exits 2 hufu …; its output is
// for stdout and stderr as with exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE program …")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("%v", err)
		}
		code = e.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// makeToken makes a token with the PIN 123456: token LABEL.
func makeToken(ts *testscript.TestScript, neg bool, args []string) {
	home, err := softhsm.New(filepath.Join(ts.Getenv("WORK"), "hsm"))
	ts.Check(err)
	_, err = home.Init(args[0], []byte("87654321"), []byte("123456"))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pin"), []byte("123456\n"), 0o600))
}

// quickWorld makes a quickstart in the folder w and stops it when the script
// ends, however it ends.
func quickWorld(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs("w")
	ts.Defer(func() {
		if out, err := exec.Command("hufu", "quickstart", "--stop", dir).CombinedOutput(); err != nil {
			ts.Logf("stopping the world: %v: %s", err, out)
		}
	})
	ts.Check(ts.Exec("hufu", append([]string{"quickstart", "w"}, args...)...))
}

// fetch keeps what the world publishes: fetch PATH FILE.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	var world struct{ Publish string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("w/world.json")), &world))
	resp, err := http.Get(world.Publish + args[0])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", args[0], resp.Status)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o600))
}

// TestExampleConfiguration: the manual is a configuration that works.
func TestExampleConfiguration(t *testing.T) {
	c, err := decodeConfig([]byte(exampleConfig))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.CAs) != 4 || len(c.Directories) != 2 || c.CRL.Valid != 24*time.Hour {
		t.Errorf("decoded to %+v", c)
	}
}

func TestConfigurationSaysWhatIsWrong(t *testing.T) {
	for name, change := range map[string][2]string{
		"line 6: field nod not found": {"node: centre-1", "nod: centre-1"},
		"cas[1]":                      {`city: "330100"`, `city: "33010"`},
		"plain http":                  {"url: http://pki.card.example:8080", "url: https://pki.card.example:8080"},
		"stands twice":                {"id: services", "id: device"},
		"acme: ca":                    {"ca: services", "ca: servers"},
		"uri":                         {"uri: pkcs11:token=hufu-centre", "uri: token=hufu-centre"},
		"host:port":                   {"listen: 0.0.0.0:8443", "listen: 8443x"},
		"valid must be longer":        {"valid: 24h", "valid: 1m"},
	} {
		if !strings.Contains(exampleConfig, change[0]) {
			t.Fatalf("the example has no %q", change[0])
		}
		_, err := decodeConfig([]byte(strings.Replace(exampleConfig, change[0], change[1], 1)))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
