package slapd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	binary         = "/usr/sbin/slapd"
	stopSignal     = syscall.SIGSTOP
	continueSignal = syscall.SIGCONT
)

var errPortTaken = errors.New("the port is taken")

// process is one run of slapd.
type process struct {
	pid    int
	exited chan struct{} // closed when the process is gone
	handle *os.Process
}

// launch starts slapd and waits until it answers on both ports.
func (s *Server) launch(ctx context.Context) (*process, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("starting slapd: %s is not there; install it with: apt-get install slapd", binary)
	}
	// A killed slapd leaves its file behind, and the file is how the new one says that it has its ports.
	if err := os.Remove(s.path("slapd.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("starting slapd: %w", err)
	}
	cmd := exec.Command(binary, "-d", "none", "-f", s.path("slapd.conf"), "-h", s.URL()+" "+s.SecureURL())
	cmd.Dir, cmd.Env = s.cfg.Dir, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LDAPNOINIT=1"}
	// A process group of its own, so that Ctrl-C at the terminal does not take the directories away before their node.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.OpenFile(s.path("slapd.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting slapd: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if !s.cfg.Outlive {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}

	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the process ends, so that thread is kept until slapd is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting slapd: %w", err)
	}
	p.handle, p.pid = cmd.Process, cmd.Process.Pid
	if err := s.await(ctx, p); err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// await returns when the server has its ports and answers on them.
func (s *Server) await(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Wait)
	defer cancel()
	for !s.answers(p) {
		select {
		case <-p.exited:
			said, _ := os.ReadFile(s.path("slapd.log"))
			if strings.Contains(string(said), "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("starting slapd: it ended at once: %s", complaint(string(said)))
		default:
		}
		if !pause(ctx, 2*time.Millisecond) {
			return fmt.Errorf("starting slapd: it did not answer within %v", s.cfg.Wait)
		}
	}
	return nil
}

// answers: slapd writes its process ID after it has taken its ports, so a stranger on the port is not mistaken for it.
func (s *Server) answers(p *process) bool {
	written, err := os.ReadFile(s.path("slapd.pid"))
	if err != nil || strings.TrimSpace(string(written)) != strconv.Itoa(p.pid) {
		return false
	}
	for _, port := range []int{s.plain, s.tls} {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			return false
		}
		c.Close()
	}
	return true
}

// complaint returns what slapd said beyond its banner and its farewell.
func complaint(said string) string {
	var lines []string
	for line := range strings.Lines(said) {
		// "6b048d30.24c875c3 0x7f52111b4200 text": time and thread in hexadecimal.
		if fields := strings.SplitN(line, " ", 3); len(fields) == 3 && strings.HasPrefix(fields[1], "0x") {
			line = fields[2]
		}
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, "OpenLDAP") || line == "slapd stopped." || strings.HasPrefix(line, "connections_destroy") {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func (p *process) signal(sig syscall.Signal) error {
	if p == nil {
		return errors.New("sending a signal to slapd: it does not run")
	}
	return p.handle.Signal(sig)
}

// end asks the process to end, and kills it when it does not.
func (p *process) end(wait time.Duration) error {
	// What does not take these is killed below.
	_ = p.handle.Signal(syscall.SIGCONT)
	_ = p.handle.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-time.After(wait):
		if err := p.kill(); err != nil {
			return err
		}
		return fmt.Errorf("stopping slapd: process %d did not end within %v and was killed", p.pid, wait)
	}
}

func (p *process) kill() error {
	if err := p.handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing slapd: %w", err)
	}
	<-p.exited
	return nil
}

// freePorts finds two ports that nobody listens on, below the range from which the kernel takes the ports of outgoing connections,
// so that a server that is down for a while finds its own again.
func freePorts() (int, int, error) {
	var found []int
	for range 200 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close() // both are held until both are found
		if found = append(found, port); len(found) == 2 {
			return found[0], found[1], nil
		}
	}
	return 0, 0, errors.New("starting slapd: no free port between 20000 and 32000")
}

// pause waits for d; it is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
