package slapd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"hufu/internal/child"
)

const binary = "/usr/sbin/slapd"

var errPortTaken = errors.New("the port is taken")

// launch starts slapd and waits until it answers on both ports.
func (s *Server) launch(ctx context.Context) (*child.Process, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("starting slapd: %s is not there; install it with: apt-get install slapd", binary)
	}
	// A killed slapd leaves its file behind, and the file is how the new one says that it has its ports.
	if err := os.Remove(s.path("slapd.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("starting slapd: %w", err)
	}
	cmd := exec.Command(binary, "-d", "none", "-f", s.path("slapd.conf"), "-h", s.URL()+" "+s.SecureURL())
	cmd.Dir, cmd.Env = s.cfg.Dir, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LDAPNOINIT=1"}
	log, err := os.OpenFile(s.path("slapd.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting slapd: %w", err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, s.cfg.Outlive)
	if err != nil {
		return nil, fmt.Errorf("starting slapd: %w", err)
	}
	if err := s.await(ctx, p); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

// await returns when the server has its ports and answers on them.
func (s *Server) await(ctx context.Context, p *child.Process) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Wait)
	defer cancel()
	for !s.answers(p) {
		select {
		case <-p.Exited:
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
func (s *Server) answers(p *child.Process) bool {
	written, err := os.ReadFile(s.path("slapd.pid"))
	if err != nil || strings.TrimSpace(string(written)) != strconv.Itoa(p.Pid) {
		return false
	}
	return child.Listens(s.plain) && child.Listens(s.tls)
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
