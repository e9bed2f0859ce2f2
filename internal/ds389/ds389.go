// Package ds389 runs private 389 Directory Servers for tests: one process each, with a folder, ports and a configuration of its own, in the
// manner of package slapd.
//
// A server answers on ldap:// (with StartTLS) and ldaps:// on the loopback interface. Everyone may read; only who shows the publisher's
// client certificate (SASL EXTERNAL, RFC 4513, Section 5.2.3) may write. The package never touches an instance of the system. It makes its
// instance with the server's own tools (dscreate, certutil, pk12util), which takes some seconds and needs root.
package ds389

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"hufu/internal/child"
)

// Config describes one server. All of it must be given.
type Config struct {
	Dir         string // folder of the server; made when it is not there, kept by Stop
	Suffix      string // base of the tree, such as "o=Hufu,c=CN"
	Schema      []byte // Hufu's schema in slapd's own form; it is rewritten for this server
	Certificate []byte // PEM: the server's certificate and its chain
	Key         []byte // PEM: the server's key
	ClientCA    []byte // PEM: who signs client certificates
	Publisher   []byte // PEM: a client certificate; whoever shows one with this subject may write
}

// Server is a 389 Directory Server that runs, or that was stopped and can be started again at the same place. It is safe for concurrent use.
type Server struct {
	cfg        Config
	plain, tls int
	mu         sync.Mutex // guards process
	process    *child.Process
}

const (
	binary   = "/usr/sbin/ns-slapd"
	patience = time.Minute // for a start or a stop, and each of the tools
)

// Start makes an instance and starts it on free ports of the loopback interface. It returns when the server answers.
// ctx bounds the start, not the life of the server.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("starting a 389 Directory Server: %s is not there; install it with: apt-get install 389-ds-base libnss3-tools", binary)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("starting a 389 Directory Server: %w", err)
	}
	cfg.Dir = dir
	s := &Server{cfg: cfg}
	if s.plain, s.tls, err = child.FreePorts(); err != nil {
		return nil, fmt.Errorf("starting a 389 Directory Server: %w", err)
	}
	if err := s.make(ctx); err != nil {
		return nil, fmt.Errorf("making a 389 Directory Server: %w", err)
	}
	if err := s.Restart(ctx); err != nil {
		return nil, err
	}
	if err := s.fill(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("filling a 389 Directory Server: %w", err), s.Kill())
	}
	return s, nil
}

// URL returns the address for StartTLS and for reading, "ldap://127.0.0.1:port".
func (s *Server) URL() string { return fmt.Sprintf("ldap://127.0.0.1:%d", s.plain) }

// SecureURL returns the address for TLS, "ldaps://127.0.0.1:port".
func (s *Server) SecureURL() string { return fmt.Sprintf("ldaps://127.0.0.1:%d", s.tls) }

// Stop ends the process cleanly and waits for it; one that does not end is killed. Stopping a stopped server is no error.
func (s *Server) Stop() error {
	return s.end(func(p *child.Process) error { return p.End(patience) })
}

// Kill ends the process with SIGKILL and waits for it.
func (s *Server) Kill() error { return s.end((*child.Process).Kill) }

// Pause stops the process with SIGSTOP: its connections stay open and nothing is answered until Resume.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errors.New("sending a signal to a 389 Directory Server: it does not run")
	}
	return s.process.Signal(sig)
}

func (s *Server) end(how func(*child.Process) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	p := s.process
	s.process = nil
	if err := how(p); err != nil {
		return fmt.Errorf("stopping a 389 Directory Server: %w", err)
	}
	return nil
}

// Restart starts a stopped or killed server again on the same ports. One that runs is stopped first.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	log, err := os.Create(s.path("ns-slapd.log"))
	if err != nil {
		return fmt.Errorf("starting a 389 Directory Server: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "-D", s.instance(), "-i", s.path("ns-slapd.pid"), "-d", "0")
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.cfg.Dir, log, log
	p, err := child.Start(cmd, false)
	if err != nil {
		return fmt.Errorf("starting a 389 Directory Server: %w", err)
	}
	s.process = p
	deadline := time.After(patience)
	for !child.Listens(s.plain) || !child.Listens(s.tls) {
		select {
		case <-p.Exited:
			s.process = nil
			return fmt.Errorf("starting a 389 Directory Server: it ended at once: %s", s.complaint())
		case <-deadline:
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
			continue
		}
		s.process = nil
		return errors.Join(fmt.Errorf("starting a 389 Directory Server: it did not answer in time: %s", s.complaint()), p.Kill())
	}
	return nil
}

// complaint returns the end of what the server has written.
func (s *Server) complaint() string {
	said, _ := os.ReadFile(s.path("ns-slapd.log"))
	more, _ := os.ReadFile(s.path("var/log/dirsrv/slapd-hufu/errors"))
	said = bytes.TrimSpace(append(said, more...))
	return string(said[max(0, len(said)-1000):])
}

func (s *Server) path(name string) string { return filepath.Join(s.cfg.Dir, name) }
func (s *Server) instance() string        { return s.path("etc/dirsrv/slapd-hufu") }

// run runs one of the tools.
func (s *Server) run(ctx context.Context, stdin []byte, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = s.cfg.Dir, bytes.NewReader(stdin)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PREFIX=" + s.cfg.Dir, "HOME=" + s.cfg.Dir, "LDAPNOINIT=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// make builds the instance, which does not run yet.
func (s *Server) make(ctx context.Context) error {
	for _, d := range []string{"etc/dirsrv", "etc/default", "etc/tmpfiles.d", "share/dirsrv/inf", "run/dirsrv", "run/lock/dirsrv", "var", "shm", "lib"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return err
		}
	}
	for _, d := range []string{"config", "schema"} {
		if err := os.CopyFS(s.path("etc/dirsrv/"+d), os.DirFS("/etc/dirsrv/"+d)); err != nil {
			return err
		}
	}
	// Where the tools look for everything.
	defaults, err := os.ReadFile("/usr/share/dirsrv/inf/defaults.inf")
	if err != nil {
		return err
	}
	text := string(defaults)
	for _, rule := range [][2]string{
		{`(?m)^with_systemd = .*`, "with_systemd = 0"}, {`(?m)^(user|group) = .*`, "$1 = root"},
		{`(?m) = /(etc|run|var)\b`, " = " + s.cfg.Dir + "/$1"}, {`(?m) = /dev/shm\b`, " = " + s.path("shm")},
		{`(?m)^inst_dir = .*`, "inst_dir = " + s.path("lib/slapd-{instance_name}")},
	} {
		text = regexp.MustCompile(rule[0]).ReplaceAllString(text, rule[1])
	}
	pin := fmt.Sprintf("%016x", rand.Uint64()) // of the manager, whom nobody ever binds as
	for name, content := range map[string][]byte{
		"share/dirsrv/inf/defaults.inf": []byte(text),
		"instance.inf": fmt.Appendf(nil, "[general]\nconfig_version = 2\nfull_machine_name = localhost\nstart = False\nstrict_host_checking = False\n"+
			"selinux = False\nsystemd = False\n[slapd]\ninstance_name = hufu\nroot_password = %s\nport = %d\nsecure_port = %d\nself_sign_cert = False\n"+
			"[backend-userroot]\nsuffix = %s\ncreate_suffix_entry = False\nsample_entries = no\n"+
			"[backend-accounts]\nsuffix = o=accounts\ncreate_suffix_entry = False\nsample_entries = no\n", pin, s.plain, s.tls, s.cfg.Suffix),
		"server.pem": s.cfg.Certificate, "server.key": s.cfg.Key, "clients.pem": s.cfg.ClientCA,
	} {
		if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
			return err
		}
	}
	if err := s.run(ctx, nil, "dscreate", "from-file", s.path("instance.inf")); err != nil {
		return err
	}
	if err := s.certify(ctx); err != nil {
		return err
	}
	schema, err := schemaLDIF(s.cfg.Schema)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.instance(), "schema", "98hufu.ldif"), schema, 0o600); err != nil {
		return err
	}
	certmap := "certmap default default\ndefault:DNComps\ndefault:FilterComps\ndefault:verifycert off\ndefault:CmapLdapAttr nsCertSubjectDN\n"
	if err := os.WriteFile(filepath.Join(s.instance(), "certmap.conf"), []byte(certmap), 0o600); err != nil {
		return err
	}
	dse := filepath.Join(s.instance(), "dse.ldif")
	content, err := os.ReadFile(dse)
	if err != nil {
		return err
	}
	more := "\ndn: cn=config\ncn: config\nnsslapd-listenhost: 127.0.0.1\nnsslapd-securelistenhost: 127.0.0.1\nnsslapd-security: on\nnsslapd-maxbersize: 268435456\n"
	changed := strings.Replace(string(content), "\ndn: cn=config\ncn: config\n", more, 1)
	if changed == string(content) {
		return fmt.Errorf("%s does not begin as expected", dse)
	}
	return os.WriteFile(dse, []byte(changed), 0o600)
}

// certify puts the server's key and the CA of the clients into the instance's key store.
func (s *Server) certify(ctx context.Context) error {
	pins := filepath.Join(s.instance(), "pwdfile.txt")
	err := s.run(ctx, nil, "openssl", "pkcs12", "-export", "-in", "server.pem", "-inkey", "server.key", "-name", "Server-Cert",
		"-passout", "pass:", "-out", "server.p12")
	if err != nil {
		return err
	}
	if err := s.run(ctx, nil, "pk12util", "-i", "server.p12", "-W", "", "-d", s.instance(), "-k", pins); err != nil {
		return err
	}
	return s.run(ctx, nil, "certutil", "-A", "-n", "clients", "-t", "CT,,", "-a", "-i", "clients.pem", "-d", s.instance(), "-f", pins)
}

// fill adds the publisher's account, and to the base the rules of who may do what. It speaks over the socket of the instance, where root
// is the manager.
func (s *Server) fill(ctx context.Context) error {
	block, _ := pem.Decode(s.cfg.Publisher)
	if block == nil {
		return errors.New("the publisher's certificate is no PEM certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	// The tool has made the two bases.
	ldif := "dn: cn=publisher,o=accounts\nchangetype: add\nobjectClass: top\nobjectClass: applicationProcess\nobjectClass: nsAccount\ncn: publisher\n" +
		"nsCertSubjectDN: " + c.Subject.String() + "\n\n" +
		"dn: " + s.cfg.Suffix + "\nchangetype: modify\nreplace: aci\n" +
		`aci: (targetattr="*")(version 3.0; acl "everyone"; allow (read, search, compare) userdn="ldap:///anyone";)` + "\n" +
		`aci: (targetattr="*")(version 3.0; acl "publisher"; allow (all) userdn="ldap:///cn=publisher,o=accounts";)` + "\n"
	socket := strings.ReplaceAll(s.path("run/slapd-hufu.socket"), "/", "%2F")
	return s.run(ctx, []byte(ldif), "ldapmodify", "-Q", "-Y", "EXTERNAL", "-H", "ldapi://"+socket)
}

// schemaLDIF writes a schema in slapd's own form as this server wants it: no names for numbers, one definition a line.
func schemaLDIF(schema []byte) ([]byte, error) {
	numbers := map[string]string{}
	number := func(text string) string {
		name, rest, ok := strings.Cut(text, ":")
		if ok {
			return numbers[name] + "." + rest
		}
		return text
	}
	var out bytes.Buffer
	out.WriteString("dn: cn=schema\n")
	for _, line := range strings.Split(strings.ReplaceAll(string(schema), "\n\t", " "), "\n") {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		switch f[0] {
		case "objectidentifier":
			numbers[f[1]] = number(f[2])
		case "attributetype", "objectclass":
			f[2] = number(f[2])
			kind := map[string]string{"attributetype": "attributeTypes", "objectclass": "objectClasses"}[f[0]]
			fmt.Fprintf(&out, "%s: %s\n", kind, strings.Join(f[1:], " "))
		default:
			return nil, fmt.Errorf("the schema has a line that begins with %s", f[0])
		}
	}
	return out.Bytes(), nil
}
