package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

type quickstartOptions struct {
	dir     string
	readers int
	dirs    int
	stop    bool
}

func newQuickstartCommand(g *globals) *cobra.Command {
	o := &quickstartOptions{}
	c := &cobra.Command{
		Use:   "quickstart [DIR]",
		Short: "Set up a whole world on this machine and leave it running: root, CAs, directories, readers",
		Long: `Set up a whole world below DIR (default hufu-quickstart): a root ceremony on a
SoftHSM token of its own, four working CAs in another, a node with slapd
directories (two, or as many as --directories says), officers, and reader pairs.
Every step is a command that you could have typed; each is shown. The world is
left running in the background: hufu quickstart --stop DIR ends it.

A directory is ended with kill $(cat DIR/ldap-one/slapd.pid), to see what the node
does without it, and is started again with sh DIR/ldap-one/start.

It needs softhsm2, slapd and openssl (Debian packages of these names) and no
rights of root. Its tokens and keys are for trying things out only.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir = "hufu-quickstart"
			if len(args) == 1 {
				o.dir = args[0]
			}
			dir, err := filepath.Abs(o.dir)
			if err != nil {
				return err
			}
			if o.stop {
				return g.stopWorld(cmd, dir)
			}
			return g.startWorld(cmd, dir, o)
		},
	}
	c.Flags().IntVar(&o.readers, "readers", 100, "how many reader pairs to issue")
	c.Flags().IntVar(&o.dirs, "directories", 2, "how many slapd directories to start")
	c.Flags().BoolVar(&o.stop, "stop", false, "stop what runs below DIR")
	return c
}

// startWorld builds the world step by step. What it started is stopped again
// when a step fails.
func (g *globals) startWorld(cmd *cobra.Command, dir string, o *quickstartOptions) error {
	if _, err := os.Stat(dir); err == nil {
		return &hinted{err: fmt.Errorf("%s exists already", dir), hint: "name another folder, or end that world and remove it: hufu quickstart --stop " + dir + " && rm -r " + dir, code: exitConflict}
	}
	if o.dirs < 0 || o.dirs > len(dirNames) {
		return usagef(fmt.Sprintf("ask for 0 to %d", len(dirNames)), "%d directories", o.dirs)
	}
	w := &world{g: g, cmd: cmd, dir: dir, readers: o.readers, dirs: dirNames[:o.dirs], began: time.Now()}
	if err := w.prepare(); err != nil {
		return err
	}
	steps := []step{
		{"root ceremony and working CAs", w.ceremony},
		{"book, first admins, first CRLs", w.init},
		{directoriesTitle, w.directories},
		{"node", w.serve},
		{"officers, each approved by a second admin", w.officers},
		{"reader pairs", w.issueReaders},
	}
	if o.dirs == 0 {
		steps = slices.DeleteFunc(steps, func(s step) bool { return s.title == directoriesTitle })
	}
	for i, s := range steps {
		w.say("\n%s", fmt.Sprintf("%d. %s", i+1, g.say(s.title)))
		if err := s.run(cmd.Context()); err != nil {
			return fmt.Errorf("quickstart, step %d (%s): %w", i+1, s.title, errors.Join(err, g.stopWorld(cmd, dir)))
		}
	}
	return w.farewell()
}

const directoriesTitle = "directories (slapd)"

// step is one step of a quickstart.
type step struct {
	title string
	run   func(context.Context) error
}

// world is a quickstart under way.
type world struct {
	g       *globals
	cmd     *cobra.Command
	dir     string
	readers int
	dirs    []string // names of the directories
	began   time.Time
	self    string // this program
	ports   worldPorts
	ldap    []string // the directories' plain addresses, for whoever reads
	pids    []string
}

// worldPorts are loopback ports that were free when the world began.
type worldPorts struct{ api, publish, ops, acme, http01 int }

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w *world) say(format string, args ...any) { w.g.tell(w.cmd.OutOrStdout(), format, args...) }

// prepare makes the folder and looks for the programs that the world needs.
func (w *world) prepare() error {
	var err error
	if w.self, err = os.Executable(); err != nil {
		return err
	}
	for name, pkg := range map[string]string{"softhsm2-util": "softhsm2", "/usr/sbin/slapd": "slapd"} {
		if _, err := exec.LookPath(name); err != nil {
			return &hinted{err: fmt.Errorf("there is no %s", name), hint: "apt-get install " + pkg, code: exitUnready}
		}
	}
	if w.ports, err = freePorts(); err != nil {
		return err
	}
	for _, d := range []string{"", "root", "centre", "officers", "readers", "log"} {
		if err := os.MkdirAll(w.path(d), 0o700); err != nil {
			return err
		}
	}
	w.say("a world of its own in %s", w.dir)
	return nil
}

// run runs this program's own command, as a person would type it, and shows it.
// Its output is shown, indented.
func (w *world) run(ctx context.Context, env []string, args ...string) error {
	w.say("   $ hufu %s", strings.Join(relative(w.dir, args), " "))
	c := exec.CommandContext(ctx, w.self, args...)
	c.Env = append(os.Environ(), env...)
	c.Dir = w.dir
	out, err := c.CombinedOutput()
	text := strings.TrimRight(string(out), "\n")
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" {
			fmt.Fprintf(w.cmd.OutOrStdout(), "     %s\n", line)
		}
	}
	if err != nil {
		return fmt.Errorf("hufu %s: %w", args[0], err)
	}
	return nil
}

// relative shortens paths below dir, for people.
func relative(dir string, args []string) []string {
	short := make([]string, len(args))
	for i, a := range args {
		short[i] = strings.ReplaceAll(a, dir+string(filepath.Separator), "")
		if strings.ContainsAny(short[i], " '") {
			short[i] = strconv.Quote(short[i])
		}
	}
	return short
}

// detach starts a program that outlives this one and notes how to end it.
func (w *world) detach(name string, env []string, args ...string) error {
	log, err := os.OpenFile(w.path("log", name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(w.self, args...)
	c.Dir, c.Env, c.Stdout, c.Stderr = w.dir, append(os.Environ(), env...), log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	if err := w.note(name, c.Process.Pid); err != nil {
		return fmt.Errorf("noting %s: %w", name, errors.Join(err, c.Process.Kill())) // nobody could end it later
	}
	return c.Process.Release()
}

// note records a process for stopWorld: its name, number and start time, by
// which it is told from a later process of the same number.
func (w *world) note(name string, pid int) error {
	w.pids = append(w.pids, fmt.Sprintf("%s %d %s", name, pid, startTime(pid)))
	return os.WriteFile(w.path("running"), []byte(strings.Join(w.pids, "\n")+"\n"), 0o600)
}

// startTime is the kernel's start time of a process (proc(5), field 22), or ""
// when it is gone.
func startTime(pid int) string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the program's name in parentheses and may hold blanks.
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// stopWorld ends what quickstart started below dir, the node before its
// directories.
func (g *globals) stopWorld(cmd *cobra.Command, dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "running"))
	if errors.Is(err, os.ErrNotExist) {
		g.tell(cmd.OutOrStdout(), "nothing runs below %s", dir)
		return nil
	}
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var name, began string
		var pid int
		if n, _ := fmt.Sscan(lines[i], &name, &pid, &began); n != 3 || startTime(pid) != began {
			continue
		}
		// An interrupted world is stopped too.
		if err := endProcess(context.WithoutCancel(cmd.Context()), pid, began); err != nil {
			return fmt.Errorf("stopping %s (process %d): %w", name, pid, err)
		}
		g.tell(cmd.OutOrStdout(), "stopped %s", name)
	}
	return os.Remove(filepath.Join(dir, "running"))
}

// endProcess asks a process to end and makes it after a while.
func endProcess(ctx context.Context, pid int, began string) error {
	for _, s := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, 20 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := syscall.Kill(pid, s.signal); err != nil {
			if errors.Is(err, syscall.ESRCH) {
				return nil
			}
			return err
		}
		if waitUntil(ctx, s.wait, func() bool { return startTime(pid) != began }) {
			return nil
		}
	}
	return errors.New("it does not end")
}

// waitUntil looks every few milliseconds whether done is true.
func waitUntil(ctx context.Context, d time.Duration, done func() bool) bool {
	end := time.Now().Add(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		select {
		case <-ctx.Done():
			return done()
		case <-tick.C:
		}
	}
}
