// Package child runs server programs beside this one: a process that dies with its parent unless it is to outlive it, that is known to be
// gone once it is gone, and two ports for it.
package child

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is one run of a program.
type Process struct {
	Pid    int
	Exited <-chan struct{} // closed when the process is gone
	handle *os.Process
}

// Start starts the program. Unless outlive, the kernel kills it when this process ends.
func Start(cmd *exec.Cmd, outlive bool) (*Process, error) {
	// A process group of its own, so that Ctrl-C at the terminal does not take servers away before those that use them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !outlive {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	exited, started := make(chan struct{}), make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the process ends, so that thread is kept until the process is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return &Process{Pid: cmd.Process.Pid, Exited: exited, handle: cmd.Process}, nil
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error { return p.handle.Signal(sig) }

// End asks the process to end, also one that was stopped by a signal, and kills it when it does not.
func (p *Process) End(wait time.Duration) error {
	// What does not take these is killed below.
	_ = p.handle.Signal(syscall.SIGCONT)
	_ = p.handle.Signal(syscall.SIGTERM)
	select {
	case <-p.Exited:
		return nil
	case <-time.After(wait):
		if err := p.Kill(); err != nil {
			return err
		}
		return fmt.Errorf("process %d did not end within %v and was killed", p.Pid, wait)
	}
}

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() error {
	if err := p.handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing process %d: %w", p.Pid, err)
	}
	<-p.Exited
	return nil
}

// Listens tells whether somebody listens on a port of the loopback interface.
func Listens(port int) bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// FreePorts finds two ports that nobody listens on, below the range from which the kernel takes the ports of outgoing connections, so that
// a server that is down for a while finds its own again.
func FreePorts() (int, int, error) {
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
	return 0, 0, errors.New("no free port between 20000 and 32000")
}
