package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stage is the demo's folder, programs and processes.
type stage struct {
	bin, dir string
	readers  int
	crowd    int
	keep     bool
	procs    []*exec.Cmd
	facts    struct {
		API, Publish, Domain, City, Base string
		Directories                      []string
	}
	city string // address of the city's back end
	card string // address of the card

	bench string // address of the bench with the crowd of readers
}

func begin(readers, crowd int, keep string) (*stage, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &stage{bin: filepath.Dir(self), readers: readers, crowd: crowd, keep: keep != ""}
	for _, p := range []string{"hufu", "readers", "reader", "card", "city"} {
		if _, err := os.Stat(filepath.Join(s.bin, p)); err != nil {
			return nil, fmt.Errorf("%s is not beside the demo; build all with: make build", p)
		}
	}
	for _, p := range []string{"ldapsearch", "openssl"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("there is no %s; install what the demo needs with: scripts/setup", p)
		}
	}
	if keep != "" {
		s.dir, err = filepath.Abs(keep)
	} else if s.dir, err = os.MkdirTemp("", "hufu-demo-"); err == nil {
		s.dir = filepath.Join(s.dir, "world")
	}
	return s, err
}

// end stops every process and removes the folder.
func (s *stage) end() error {
	var failed []error
	for _, p := range s.procs {
		_ = p.Process.Signal(syscall.SIGTERM) // who does not take it is killed below
		done := make(chan struct{})
		go func() {
			_ = p.Wait() // ended by a signal, which is an error
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = p.Process.Kill() // gone in the meantime, or dead
			<-done
		}
	}
	if _, err := os.Stat(s.dir); err == nil {
		// Not with the demo's context: an interrupted demo cleans up too.
		if out, err := exec.Command(s.program("hufu"), "quickstart", "--stop", s.dir).CombinedOutput(); err != nil {
			failed = append(failed, fmt.Errorf("stopping the world: %w: %s", err, out))
		}
	}
	if !s.keep {
		failed = append(failed, os.RemoveAll(filepath.Dir(s.dir)))
	}
	return errors.Join(failed...)
}

func (s *stage) program(name string) string { return filepath.Join(s.bin, name) }
func (s *stage) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}
func (s *stage) officer(name string) string { return s.path("officers", name+".yaml") }
func indent(b []byte) string {
	return "   " + strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n   ")
}

// show runs a program, shows what it printed, and gives its output.
func (s *stage) show(ctx context.Context, name string, args ...string) ([]byte, error) {
	if filepath.Base(name) == name {
		if _, err := os.Stat(s.program(name)); err == nil {
			name = s.program(name)
		}
	}
	short := strings.ReplaceAll(strings.Join(args, " "), s.dir+"/", "")
	fmt.Printf("   $ %s %s\n", filepath.Base(name), short)
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if len(bytes.TrimSpace(out)) > 0 {
		fmt.Println(indent(out))
	}
	if err != nil {
		return out, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return out, nil
}

// quiet is show without showing.
func (s *stage) quiet(ctx context.Context, name string, args ...string) ([]byte, error) {
	if _, err := os.Stat(s.program(name)); err == nil {
		name = s.program(name)
	}
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(out))
	}
	return out, nil
}

// start runs one of our programs in the background. It prints its address in
// its first line, which ends with it; the lines after it are shown.
func (s *stage) start(name string, args ...string) (address string, err error) {
	c := exec.Command(s.program(name), args...)
	c.Stderr = os.Stderr
	pipe, err := c.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := c.Start(); err != nil {
		return "", err
	}
	s.procs = append(s.procs, c)
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() {
		return "", fmt.Errorf("%s ended before it was ready", name)
	}
	fmt.Println("   " + lines.Text())
	go func() {
		for lines.Scan() {
			fmt.Println("   " + lines.Text())
		}
	}()
	return lines.Text()[strings.LastIndex(lines.Text(), " ")+1:], nil
}

// readFacts learns where the world's doors are.
func (s *stage) readFacts() error {
	raw, err := os.ReadFile(s.path("world.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &s.facts); err != nil {
		return err
	}
	if len(s.facts.Directories) != 2 {
		return fmt.Errorf("the world has %d directories, not two", len(s.facts.Directories))
	}
	return nil
}
