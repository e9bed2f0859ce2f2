// Package examples_test runs the example programs as processes, against a real
// node, and judges them from outside.
package examples_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// bin is the folder of the programs; everything that the tests start runs from
// there or was given a path below it.
var bin string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if bin, err = os.MkdirTemp("", "hufu-examples-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	// As scripts/build builds them, so that they come from the cache. The players
	// of a load have the race detector where the test has it; the node runs with it
	// in its own tests.
	if err := build("-trimpath", "hufu/cmd/hufu", "hufu/examples/..."); err != nil {
		return 0, err
	}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		if err := build("-race", "hufu/examples/topup/..."); err != nil {
			return 0, err
		}
	}
	defer func() { err = errors.Join(err, endWorld(), nothingRuns()) }()
	return m.Run(), nil
}

func build(args ...string) error {
	if out, err := exec.Command("go", append([]string{"build", "-o", bin + "/"}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w: %s", err, out)
	}
	return nil
}

func program(name string) string { return filepath.Join(bin, name) }

// nothingRuns looks for processes whose command line names the test's folder.
func nothingRuns() error {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	if len(lines) == 0 {
		return errors.New("/proc shows no processes: nobody can tell what still runs")
	}
	var left []error
	for _, path := range lines {
		raw, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(raw, []byte(bin)) {
			continue // ended meanwhile, or somebody else's
		}
		left = append(left, fmt.Errorf("a process is left behind (%s): %s", path, strings.ReplaceAll(string(raw), "\x00", " ")))
	}
	return errors.Join(left...)
}

// TestDemo tells the story twice in a row.
func TestDemo(t *testing.T) {
	temp := filepath.Join(bin, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c := exec.Command(program("demo"), "-readers", "3", "-crowd", "40")
		c.Dir, c.Env = temp, append(os.Environ(), "TMPDIR="+temp)
		out, err := c.CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err != nil || lines[len(lines)-1] != "demo: ok" {
			t.Fatalf("the demo failed: %v\n%s", err, out)
		}
		if err := nothingRuns(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("the demo left %v behind (%v)", left, err)
		}
	}
}
