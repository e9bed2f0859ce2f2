// Package world runs a whole node as hufu quickstart makes it, without readers: a ceremony, four working CAs with their keys in
// SoftHSM, a book on disk, officers. The benchmarks ask it and the soak kills it.
package world

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hufu/api/client"
)

// World is a node below Dir.
type World struct {
	Dir      string
	Hufu     string // the program
	API      string // addresses
	Publish  string
	Operator *client.Client // an officer of the role ca-operator
	LDAP     []string       // addresses of the directories, for whoever reads
	Base     string         // of the directories
}

// Start has hufu make a world in dir, which must not exist, with so many
// directories, and leaves it running.
func Start(ctx context.Context, hufu, dir string, directories int) (*World, error) {
	w := &World{Dir: dir, Hufu: hufu}
	out, err := exec.CommandContext(ctx, hufu, "quickstart", dir, "--readers", "0", "--directories", strconv.Itoa(directories)).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("hufu quickstart: %w\n%s", err, out)
	}
	if err := w.open(); err != nil {
		return nil, errors.Join(err, w.Stop())
	}
	return w, nil
}

// Open finds what hufu made in dir before, whether it runs or not.
func Open(hufu, dir string) (*World, error) {
	w := &World{Dir: dir, Hufu: hufu}
	return w, w.open()
}

func (w *World) open() error {
	raw, err := os.ReadFile(filepath.Join(w.Dir, "world.json"))
	if err != nil {
		return err
	}
	var facts struct {
		API, Publish, Base string
		Directories        []string
	}
	if err := json.Unmarshal(raw, &facts); err != nil {
		return err
	}
	w.API, w.Publish, w.LDAP, w.Base = facts.API, facts.Publish, facts.Directories, facts.Base
	officer := filepath.Join(w.Dir, "officers", "operator")
	pair, err := tls.LoadX509KeyPair(officer+".pem", officer+".key")
	if err != nil {
		return err
	}
	roots, err := w.Roots()
	if err != nil {
		return err
	}
	// It asks once: whoever kills the node wants to know what was answered.
	w.Operator, err = client.New(client.Config{URL: w.API, TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}, Patience: -1})
	return err
}

// Roots is what the node's certificate is checked with.
func (w *World) Roots() (*x509.CertPool, error) {
	anchors, err := os.ReadFile(filepath.Join(w.Dir, "officers", "root.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(anchors) {
		return nil, errors.New("there is no certificate in officers/root.pem")
	}
	return roots, nil
}

// Beside is the folder of this program, and the program hufu: the one that was
// named, or else the one in the folder above.
func Beside(named string) (programs, hufu string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	programs = filepath.Dir(self)
	return programs, cmp.Or(named, filepath.Join(programs, "..", "hufu")), nil
}

// Answers waits until the node answers.
func (w *World) Answers(ctx context.Context) error {
	for end := time.Now().Add(time.Minute); ; {
		_, err := w.Operator.WhoAmI(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("the node does not answer: %w", err)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// Node is the number of the node's process.
func (w *World) Node() (pid int, err error) {
	raw, err := os.ReadFile(filepath.Join(w.Dir, "running"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		var name string
		if n, _ := fmt.Sscan(line, &name, &pid); n == 2 && name == "node" {
			return pid, nil
		}
	}
	return 0, errors.New("quickstart left no node running")
}

// Stop ends what Start left running.
func (w *World) Stop() error {
	if out, err := exec.Command(w.Hufu, "quickstart", "--stop", w.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("hufu quickstart --stop: %w\n%s", err, out)
	}
	return nil
}
