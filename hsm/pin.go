package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// longestPIN bounds what is read as a PIN.
const longestPIN = 1024

// PINSource says where a PIN comes from. Exactly one of File, FD, Credential and
// Prompt is set; there is no default PIN, and none from the command line or the
// environment.
type PINSource struct {
	// File holds the PIN and nothing else; only its owner may read it (mode 0600 or 0400).
	File string `yaml:"file,omitempty"`
	// FD is an open file descriptor, 3 or higher. What comes from a pipe can be had
	// once only, so it is kept in memory; a regular file is read again.
	FD int `yaml:"fd,omitempty"`
	// Credential is the name of a systemd credential (LoadCredential=, LoadCredentialEncrypted=).
	Credential string `yaml:"credential,omitempty"`
	// Prompt asks on the terminal, once; the answer is kept in memory, so that a
	// token that restarts can be logged in to again.
	Prompt bool `yaml:"prompt,omitempty"`

	// CredentialsDir is the value of $CREDENTIALS_DIRECTORY, which the program passes in.
	CredentialsDir string `yaml:"-"`
}

// Func returns the function that Config.PIN wants. A file and a credential are read
// anew each time, so a PIN changed there is taken up. The prompt shows name.
func (p PINSource) Func(name string) func() ([]byte, error) {
	var mu sync.Mutex
	var kept []byte
	return func() ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept != nil {
			return bytes.Clone(kept), nil
		}
		pin, again, err := p.read(name)
		if err != nil {
			return nil, fmt.Errorf("reading the PIN for %s: %w", name, err)
		}
		if !again {
			kept = bytes.Clone(pin)
		}
		return pin, nil
	}
}

// read returns the PIN and whether it can be had again.
func (p PINSource) read(name string) (pin []byte, again bool, err error) {
	if err := p.check(); err != nil {
		return nil, false, err
	}
	switch {
	case p.File != "":
		pin, err = readPINFile(p.File)
		again = true
	case p.FD != 0:
		pin, again, err = readPINDescriptor(p.FD)
	case p.Credential != "":
		pin, err = p.readCredential()
		again = true
	default:
		pin, err = promptPIN(name)
	}
	if err != nil {
		return nil, false, err
	}
	pin = bytes.TrimSuffix(bytes.TrimSuffix(pin, []byte("\n")), []byte("\r"))
	if len(pin) == 0 {
		return nil, false, errors.New("the PIN is empty")
	}
	return pin, again, nil
}

func (p PINSource) check() error {
	set := 0
	for _, is := range []bool{p.File != "", p.FD != 0, p.Credential != "", p.Prompt} {
		if is {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("a PIN source names exactly one of file, fd, credential and prompt; %d are set", set)
	}
	if p.FD < 0 || p.FD == 1 || p.FD == 2 {
		return fmt.Errorf("file descriptor %d cannot hold a PIN; pass one from 3 upward", p.FD)
	}
	return nil
}

func readPINFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, remedied("make the file readable for the user that runs this program", "opening the PIN file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("looking at the PIN file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("the PIN file %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, remedied("chmod 0600 "+path+", and change the PIN if others may have read it",
			"the PIN file %s is open to others (mode %04o)", path, mode)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return nil, remedied("chown it to the user that runs this program", "the PIN file %s belongs to user %d", path, stat.Uid)
	}
	return readPIN(f)
}

// readPIN reads into one buffer of fixed size, so that growing leaves no copies behind.
func readPIN(r io.Reader) ([]byte, error) {
	buf := make([]byte, longestPIN+1)
	n, err := io.ReadFull(r, buf)
	switch {
	case err == nil:
		clear(buf)
		return nil, fmt.Errorf("the PIN is longer than %d bytes", longestPIN)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return buf[:n], nil
	}
	clear(buf)
	return nil, err
}

func readPINDescriptor(fd int) (pin []byte, again bool, err error) {
	// A duplicate, because os.File closes its descriptor when it is collected.
	dup, err := syscall.Dup(fd)
	if err != nil {
		return nil, false, fmt.Errorf("using file descriptor %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(dup), fmt.Sprintf("descriptor %d", fd))
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("looking at file descriptor %d: %w", fd, err)
	}
	if info.Mode().IsRegular() {
		pin, err = readPIN(io.NewSectionReader(f, 0, longestPIN+1))
		return pin, true, err
	}
	pin, err = readPIN(f)
	return pin, false, err
}

func (p PINSource) readCredential() ([]byte, error) {
	if p.CredentialsDir == "" {
		return nil, remedied("start the program by systemd with LoadCredential="+p.Credential+":…, or name a PIN file",
			"the PIN is the systemd credential %q, but $CREDENTIALS_DIRECTORY is not set", p.Credential)
	}
	if strings.ContainsRune(p.Credential, '/') || p.Credential == ".." || p.Credential == "." {
		return nil, fmt.Errorf("%q is not the name of a systemd credential", p.Credential)
	}
	// systemd sets the rights itself, by an access list that shows as group-readable.
	f, err := os.Open(filepath.Join(p.CredentialsDir, p.Credential))
	if err != nil {
		return nil, fmt.Errorf("opening the systemd credential: %w", err)
	}
	defer f.Close()
	return readPIN(f)
}

func promptPIN(name string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, remedied("name a PIN file, descriptor or credential", "there is no terminal to ask on: %w", err)
	}
	defer tty.Close()
	fmt.Fprintf(tty, "PIN for %s: ", name)
	pin, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return pin, err
}
