// Package softhsm keeps SoftHSM homes: private token directories for tests,
// rehearsals and demonstrations. It never touches the tokens of the machine.
//
// It refuses nothing that SoftHSM allows: what lies in a home is a software key
// in a file, so a home is never the place of a key that matters.
package softhsm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// modules are the places where distributions install the library.
var modules = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",
}

// A Home is one private SoftHSM configuration with its token directory.
type Home struct {
	dir    string
	module string
}

// New makes a home in dir, or takes up the one that stands there.
func New(dir string) (*Home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the SoftHSM home: %w", err)
	}
	h := &Home{dir: dir}
	for _, path := range modules {
		if _, err := os.Stat(path); err == nil {
			h.module = path
			break
		}
	}
	if h.module == "" {
		return nil, errors.New("finding libsofthsm2.so: it is in none of its usual places; install the package softhsm2")
	}
	if err := os.MkdirAll(h.Tokens(), 0o700); err != nil {
		return nil, fmt.Errorf("making the token directory: %w", err)
	}
	conf := "directories.tokendir = " + h.Tokens() + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	if err := os.WriteFile(h.Conf(), []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("writing the SoftHSM configuration: %w", err)
	}
	return h, nil
}

// Module returns the path of the PKCS#11 library.
func (h *Home) Module() string { return h.module }

// Conf returns the path of the configuration file.
func (h *Home) Conf() string { return filepath.Join(h.dir, "softhsm2.conf") }

// Tokens returns the directory that holds one folder for each token.
func (h *Home) Tokens() string { return filepath.Join(h.dir, "tokens") }

// Env returns what a child process needs in its environment to see this home.
func (h *Home) Env() []string { return []string{"SOFTHSM2_CONF=" + h.Conf()} }

// Activate points this process at the home. It works only before the library is
// initialised: SoftHSM reads the variable in C_Initialize.
func (h *Home) Activate() error { return os.Setenv("SOFTHSM2_CONF", h.Conf()) }

// Init makes a token and returns its serial number. The PINs pass through the
// command line of softhsm2-util, which is why only throw-away tokens are made so.
func (h *Home) Init(label string, soPIN, pin []byte) (serial string, err error) {
	before, err := h.serials()
	if err != nil {
		return "", err
	}
	if _, err := h.util("--init-token", "--free", "--label", label, "--so-pin", string(soPIN), "--pin", string(pin)); err != nil {
		return "", err
	}
	after, err := h.serials()
	if err != nil {
		return "", err
	}
	for s := range after {
		if !before[s] {
			return s, nil
		}
	}
	return "", fmt.Errorf("making the token %q: softhsm2-util said nothing, but no new token is there", label)
}

// serials lists the tokens that are initialised.
func (h *Home) serials() (map[string]bool, error) {
	out, err := h.util("--show-slots")
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for line := range strings.Lines(out) {
		// A free slot shows the line without a value.
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "Serial number:"); ok && strings.TrimSpace(value) != "" {
			found[strings.TrimSpace(value)] = true
		}
	}
	return found, nil
}

func (h *Home) util(args ...string) (string, error) {
	cmd := exec.Command("softhsm2-util", args...)
	cmd.Env = append(os.Environ(), h.Env()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("running softhsm2-util %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
