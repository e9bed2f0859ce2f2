package path_test

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"hufu/verify/path"
)

// TestJudges lets others judge the same chains: openssl, GnuTLS and crypto/x509.
// Where one of them differs from path, testdata/judges.txt says who is right and
// why; an entry that no longer tells the truth fails as well.
func TestJudges(t *testing.T) {
	differ := readJudges(t)
	seen := map[string]bool{}
	compare := func(name string, want, lists bool, plant func(*chain)) {
		t.Run(name, func(t *testing.T) {
			c := newChain(t)
			plant(c)
			c.sign()
			for judge, ask := range map[string]func(*chain, string) bool{"openssl": askOpenSSL, "gnutls": askGnuTLS, "go": askGo} {
				// None of them reads OCSP answers here, and crypto/x509 no lists.
				if len(c.ocsp) > 0 || lists && judge == "go" {
					continue
				}
				entry := judge + "|" + name
				got := ask(c, t.TempDir())
				if got == want == (differ[entry] != "") {
					t.Errorf("%s says valid %v, want %v; testdata/judges.txt says %q", judge, got, want, differ[entry])
				}
				seen[entry] = true
			}
		})
	}
	for _, g := range goods {
		compare(g.name, true, g.lists, g.make)
	}
	for _, f := range faults {
		lists := f.want == path.Revoked || f.want == path.OnHold || strings.HasPrefix(f.want, "status-")
		compare(f.name, false, lists, f.plant)
	}
	for entry := range differ {
		if !seen[entry] {
			t.Errorf("testdata/judges.txt has %q, and no such case was judged", entry)
		}
	}
	t.Logf("%d judgements, %d differ", len(seen), len(differ))
}

// readJudges reads "judge|case|why" lines.
func readJudges(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("testdata/judges.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if s.Text() == "" || strings.HasPrefix(s.Text(), "#") {
			continue
		}
		parts := strings.SplitN(s.Text(), "|", 3)
		if len(parts) != 3 || !strings.Contains(parts[2], "RFC") {
			t.Fatalf("testdata/judges.txt: %q is not judge|case|why with its RFC", s.Text())
		}
		all[parts[0]+"|"+parts[1]] = parts[2]
	}
	return all
}

// files writes the chain for other programs.
func (c *chain) files(dir string) (anchors, others, lists, target string) {
	write := func(name, kind string, ders ...[]byte) string {
		file := filepath.Join(dir, name)
		var all []byte
		for _, der := range ders {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		}
		if err := os.WriteFile(file, all, 0o600); err != nil {
			c.t.Fatal(err)
		}
		return file
	}
	return write("anchors.pem", "CERTIFICATE", c.req.Anchors...), write("others.pem", "CERTIFICATE", c.req.Intermediates...),
		write("lists.pem", "X509 CRL", c.lists()...), write("target.pem", "CERTIFICATE", c.req.Certificate)
}

func askOpenSSL(c *chain, dir string) bool {
	anchors, others, lists, target := c.files(dir)
	args := []string{"verify", "-x509_strict", "-policy_check", "-auth_level", "2", "-CAfile", anchors, "-untrusted", others, "-attime", strconv.FormatInt(c.now.Unix(), 10)}
	if !c.req.NoStatus {
		args = append(args, "-crl_check_all", "-use_deltas", "-extended_crl", "-CRLfile", lists)
	}
	if c.req.Purpose == "server" {
		args = append(args, "-purpose", "sslserver")
	}
	if net.ParseIP(c.req.Name) != nil {
		args = append(args, "-verify_ip", c.req.Name)
	} else if c.req.Name != "" {
		args = append(args, "-verify_hostname", c.req.Name)
	}
	for _, p := range c.req.Policies {
		args = append(args, "-policy", p)
	}
	if c.req.ExplicitPolicy {
		args = append(args, "-explicit_policy")
	}
	out, err := exec.Command("openssl", append(args, target)...).CombinedOutput()
	c.t.Logf("openssl: %s", out)
	return err == nil
}

func askGnuTLS(c *chain, dir string) bool {
	anchors, _, lists, _ := c.files(dir)
	whole := filepath.Join(dir, "chain.pem")
	var all []byte
	for _, der := range append([][]byte{c.req.Certificate}, c.req.Intermediates...) {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(whole, all, 0o600); err != nil {
		c.t.Fatal(err)
	}
	args := []string{"--verify", "--load-ca-certificate", anchors, "--infile", whole}
	if !c.req.NoStatus {
		args = append(args, "--load-crl", lists)
	}
	if c.req.Name != "" {
		args = append(args, "--verify-hostname", c.req.Name)
	}
	if c.req.Purpose == "server" {
		args = append(args, "--verify-purpose", "1.3.6.1.5.5.7.3.1")
	}
	out, err := exec.Command("certtool", args...).CombinedOutput()
	c.t.Logf("certtool: %s", out)
	return err == nil
}

func askGo(c *chain, _ string) bool {
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: c.now, DNSName: c.req.Name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if c.req.Purpose == "server" {
		opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if c.req.ExplicitPolicy {
		opts.CertificatePolicies = oids(c.req.Policies...)
	}
	target, err := x509.ParseCertificate(c.req.Certificate)
	if err != nil {
		return false
	}
	for _, der := range c.req.Anchors {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			return false
		}
		opts.Roots.AddCert(x)
	}
	for _, der := range c.req.Intermediates {
		if x, err := x509.ParseCertificate(der); err == nil {
			opts.Intermediates.AddCert(x)
		}
	}
	_, err = target.Verify(opts)
	c.t.Logf("go: %v", err)
	return err == nil
}
