// Package pcscd runs a pcscd of one's own with a virtual slot of vsmartcard in it, for
// tests of what speaks PC/SC: with a socket, ports and a folder below /run that nobody
// else sees, beside the one of the machine. A card is a program that connects to the
// slot.
//
// It needs root, since that folder is hidden in a mount namespace.
package pcscd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"hufu/internal/child"
)

// driver is vsmartcard's.
const driver = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"

// ErrCannot says that pcscd cannot run here, and why.
var ErrCannot = errors.New("pcscd cannot run here")

// Server is a pcscd that runs.
type Server struct {
	Socket string // for clients: PCSCLITE_CSOCK_NAME
	Slot   string // the address where a card is put in
	Reader string // begins the slot's name

	process *child.Process
	listens net.Listener
}

// Start starts a pcscd that keeps its files in dir, which must have a short path. What
// it says goes to log.
func Start(dir string, log io.Writer) (*Server, error) {
	if err := can(); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Socket: filepath.Join(dir, "pcscd.comm"), Slot: fmt.Sprintf("127.0.0.1:%d", port), Reader: "Hufu test slot"}
	conf := filepath.Join(dir, "reader.conf")
	text := fmt.Sprintf("FRIENDLYNAME %q\nDEVICENAME /dev/null:0x%04X\nLIBPATH %s\nCHANNELID 0x%04X\n", s.Reader, port, driver, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if s.listens, err = net.Listen("unix", s.Socket); err != nil {
		return nil, err
	}
	if err := s.run(conf, log); err != nil {
		return nil, errors.Join(fmt.Errorf("starting pcscd: %w", err), s.listens.Close())
	}
	for late := time.Now().Add(10 * time.Second); !child.Listens(port); {
		if time.Now().After(late) {
			return nil, errors.Join(errors.New("pcscd does not open its virtual slot"), s.Stop())
		}
	}
	return s, nil
}

// run starts the process. pcscd has no option for its socket, but takes one from
// whoever starts it, as systemd does (sd_listen_fds(3)).
func (s *Server) run(conf string, log io.Writer) error {
	file, err := s.listens.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	c := exec.Command("unshare", "--mount", "sh", "-c", hide+` && LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --foreground --critical --config "$1"`, program, conf)
	c.ExtraFiles, c.Stdout, c.Stderr = []*os.File{file}, log, log
	s.process, err = child.Start(c, false)
	return err
}

const (
	program = "/usr/sbin/pcscd"
	hide    = "mount -t tmpfs none /run && mkdir /run/pcscd"
)

// Stop ends it.
func (s *Server) Stop() error {
	return errors.Join(s.process.End(10*time.Second), s.listens.Close())
}

func can() error {
	for path, name := range map[string]string{program: "pcscd", driver: "vsmartcard-vpcd"} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: the package %s is missing (scripts/setup test installs it): %w", ErrCannot, name, err)
		}
	}
	if out, err := exec.Command("unshare", "--mount", "sh", "-c", hide).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: its folder below /run cannot be hidden from others, which takes root: %w: %s", ErrCannot, err, out)
	}
	return nil
}

// freePort finds a port that is free, and the next one, which vpcd takes for its
// second slot.
func freePort() (int, error) {
	for range 100 {
		first, _, err := child.FreePorts()
		if err != nil {
			return 0, err
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+1)); err == nil {
			l.Close()
			return first, nil
		}
	}
	return 0, errors.New("no two ports in a row are free")
}
