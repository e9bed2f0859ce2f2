// Package slapd runs private OpenLDAP servers: one process each, with a folder, ports and a configuration of its own.
//
// A server answers on ldap:// (with StartTLS) and ldaps:// on the loopback interface. Everyone may read; only who shows the
// publisher's client certificate (SASL EXTERNAL, RFC 4513, Section 5.2.3) may write. Every write is on the disk before it is
// answered. The package never touches the slapd of the system, nor its configuration; it knows no password and no root DN, so
// there is no second way to write. Schema and certificates are the caller's.
package slapd

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"hufu/internal/child"
)

// Config describes one server. MaxSize, Wait and Outlive may be left out.
type Config struct {
	Dir         string        // folder of the server; made when it is not there, kept by Stop
	Suffix      string        // base of the tree, such as "o=Hufu,c=CN"
	Schema      []byte        // Hufu's schema in slapd's own form; loaded after core and cosine
	Certificate []byte        // PEM: the server's certificate and its chain
	Key         []byte        // PEM: the server's key
	ClientCA    []byte        // PEM: who signs client certificates
	Publisher   []byte        // PEM: a client certificate; whoever shows one with this subject may write
	Modules     []string      // loaded besides back_mdb, such as "syncprov"
	Database    []string      // more lines of the database's section, slapd.conf(5)
	MaxSize     int64         // of the database in octets; 0 = 1 GiB
	Wait        time.Duration // how long a start or a stop may take; 0 = 30 s
	Outlive     bool          // the server goes on when this process ends; otherwise it dies with it
}

// Server is a slapd that runs, or that was stopped and can be started again at the same place. It is safe for concurrent use.
type Server struct {
	cfg         Config
	plain, tls  int // ports
	publisherDN string
	mu          sync.Mutex // guards process
	process     *child.Process
}

// Start writes the configuration and starts the server on free ports of the loopback interface. It returns when the server answers.
// ctx bounds the start, not the life of the server.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = 1 << 30
	}
	if cfg.Wait == 0 {
		cfg.Wait = 30 * time.Second
	}
	dn, err := subject(cfg.Publisher)
	if err != nil {
		return nil, fmt.Errorf("reading the publisher's certificate: %w", err)
	}
	s := &Server{cfg: cfg, publisherDN: dn}
	if err := s.writeFiles(); err != nil {
		return nil, fmt.Errorf("writing the configuration of slapd: %w", err)
	}
	// Between the look for free ports and the moment slapd takes them, somebody else may: then slapd ends, and other ports are tried.
	for range 20 {
		if s.plain, s.tls, err = child.FreePorts(); err != nil {
			return nil, fmt.Errorf("starting slapd: %w", err)
		}
		if s.process, err = s.launch(ctx); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// URL returns the address for StartTLS and for reading, "ldap://127.0.0.1:port".
func (s *Server) URL() string { return fmt.Sprintf("ldap://127.0.0.1:%d", s.plain) }

// SecureURL returns the address for TLS, "ldaps://127.0.0.1:port".
func (s *Server) SecureURL() string { return fmt.Sprintf("ldaps://127.0.0.1:%d", s.tls) }

// PublisherDN returns the name that may write, as RFC 4514 writes it.
func (s *Server) PublisherDN() string { return s.publisherDN }

// Pid returns the process ID, or 0 when the server does not run.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid
}

// Stop ends the process cleanly and waits for it. The folder stays. Stopping a stopped server is no error.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop()
}

func (s *Server) stop() error {
	if s.process == nil {
		return nil
	}
	err := s.process.End(s.cfg.Wait)
	s.process = nil
	if err != nil {
		return fmt.Errorf("stopping slapd: %w", err)
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for it.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	err := s.process.Kill()
	s.process = nil
	if err != nil {
		return fmt.Errorf("killing slapd: %w", err)
	}
	return nil
}

// Pause stops the process with SIGSTOP: its connections stay open and nothing is answered until Resume.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errors.New("sending a signal to slapd: it does not run")
	}
	return s.process.Signal(sig)
}

// Restart starts a stopped or killed server again on the same ports. One that runs is stopped first.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(); err != nil {
		return err
	}
	deadline := time.Now().Add(s.cfg.Wait)
	for {
		p, err := s.launch(ctx)
		// The ports lie below the range that the kernel gives to outgoing connections, so who has taken one is a passing guest.
		if errors.Is(err, errPortTaken) && time.Now().Before(deadline) && pause(ctx, 50*time.Millisecond) {
			continue
		}
		s.process = p
		return err
	}
}

// Snapshot copies the database into the folder to, which it makes. The server must be stopped.
func (s *Server) Snapshot(to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return errors.New("copying the database of slapd: it still runs; stop it first")
	}
	if err := os.CopyFS(to, os.DirFS(s.path("data"))); err != nil {
		return fmt.Errorf("copying the database of slapd: %w", err)
	}
	return nil
}

// Revert replaces the database by a copy that Snapshot made. The server must be stopped.
func (s *Server) Revert(from string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return errors.New("replacing the database of slapd: it still runs; stop it first")
	}
	if _, err := os.Stat(filepath.Join(from, "data.mdb")); err != nil {
		return fmt.Errorf("replacing the database of slapd: %s holds no copy of one: %w", from, err)
	}
	if err := os.RemoveAll(s.path("data")); err != nil {
		return fmt.Errorf("replacing the database of slapd: %w", err)
	}
	if err := os.CopyFS(s.path("data"), os.DirFS(from)); err != nil {
		return fmt.Errorf("replacing the database of slapd: %w", err)
	}
	return nil
}

func (s *Server) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

// writeFiles makes the folder, its files and slapd.conf.
func (s *Server) writeFiles() error {
	dir, err := filepath.Abs(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.cfg.Dir = dir
	if err := os.MkdirAll(s.path("data"), 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"hufu.schema": s.cfg.Schema, "server.pem": s.cfg.Certificate, "server.key": s.cfg.Key, "clients.pem": s.cfg.ClientCA,
	} {
		if len(bytes.TrimSpace(content)) == 0 {
			return fmt.Errorf("nothing was given for %s", name)
		}
		if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(s.path("slapd.conf"), []byte(s.configuration()), 0o600)
}

// configuration returns slapd.conf(5).
func (s *Server) configuration() string {
	q := func(v string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"` }
	file := func(name string) string { return q(s.path(name)) }
	lines := []string{
		"include /etc/ldap/schema/core.schema",
		"include /etc/ldap/schema/cosine.schema",
		"include " + file("hufu.schema"),
		"pidfile " + file("slapd.pid"),
		"modulepath /usr/lib/ldap",
		"moduleload back_mdb",
	}
	for _, m := range s.cfg.Modules {
		lines = append(lines, "moduleload "+m)
	}
	lines = append(lines,
		"TLSCertificateFile "+file("server.pem"),
		"TLSCertificateKeyFile "+file("server.key"),
		"TLSCACertificateFile "+file("clients.pem"),
		"TLSVerifyClient try",
		"TLSProtocolMin 3.3",
		// The default of 4 MiB does not let a large CRL in.
		"sockbuf_max_incoming_auth 268435456",
		"database mdb",
		"suffix "+q(s.cfg.Suffix),
		"directory "+file("data"),
		fmt.Sprintf("maxsize %d", s.cfg.MaxSize),
		"index objectClass,hufuSerial,hufuReader,hufuSeq,hufuEpoch eq",
	)
	lines = append(lines, s.cfg.Database...)
	lines = append(lines,
		// A stranger may read everything, page by page, so that anyone can recompute the digest.
		"limits dn.exact="+q(s.publisherDN)+" size=unlimited time=unlimited",
		"limits * size.soft=500 size.hard=500 size.pr=1000 size.prtotal=unlimited time=unlimited",
		"access to * by dn.exact="+q(s.publisherDN)+" write by * read",
	)
	return strings.Join(lines, "\n") + "\n"
}

// subject returns the subject of a certificate in the string form of RFC 4514, which is how SASL EXTERNAL names its holder.
func subject(certificate []byte) (string, error) {
	block, _ := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", errors.New("it is not a PEM certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(c.RawSubject, &rdns); err != nil {
		return "", err
	}
	if len(rdns) == 0 {
		return "", errors.New("it has no subject, which slapd could not let in by name")
	}
	dn := rdns.String()
	// slapd 2.5 writes other characters of a certificate's subject in hexadecimal and then does not find the rule for it.
	if strings.ContainsFunc(dn, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", fmt.Errorf("its subject %s is not plain ASCII, and slapd would not recognise it; give it another one", dn)
	}
	return dn, nil
}
