package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.step.sm/crypto/jose"
)

// stepCA is the peer: a step-ca process with its CA key in a token of its own.
type stepCA struct {
	url    string
	key    *jose.JSONWebKey // of the provisioner that its clients stand for
	http   *http.Client
	pid    int
	orders []order
}

const provisioner = "bench"

// startStepCA makes a hierarchy and a configuration and starts the process.
func (b *bench) startStepCA(ctx context.Context) (*stepCA, error) {
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rootCert, workingCert, err := hierarchy(root, b.token.peer.public)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "stepca")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s := &stepCA{}
	if s.key, err = jose.GenerateJWK("EC", "P-256", "ES256", "sig", "bench", 0); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s.url = "https://" + address
	if err := s.configure(dir, address, b.token, rootCert, workingCert); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(rootCert)
	s.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: clients}}
	return s, b.launch(ctx, s, dir)
}

// configure writes ca.json and what it names.
func (s *stepCA) configure(dir, address string, t *token, root, working *x509.Certificate) error {
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, cert := range map[string]*x509.Certificate{"root.pem": root, "ca.pem": working} {
		if err := os.WriteFile(path(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path("pin"), []byte(t.peer.pin), 0o600); err != nil {
		return err
	}
	public := s.key.Public()
	raw, err := json.Marshal(map[string]any{
		"root": path("root.pem"), "crt": path("ca.pem"), "key": "pkcs11:token=stepca;object=stepca",
		"kms":     map[string]any{"type": "pkcs11", "uri": "pkcs11:module-path=" + t.home.Module() + ";token=stepca?pin-source=" + path("pin")},
		"address": address, "dnsNames": []string{"127.0.0.1"},
		"db":        map[string]any{"type": "bbolt", "dataSource": path("db")},
		"authority": map[string]any{"provisioners": []any{map[string]any{"type": "JWK", "name": provisioner, "key": &public}}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path("ca.json"), raw, 0o600)
}

// launch starts the process and waits until it answers.
func (b *bench) launch(ctx context.Context, s *stepCA, dir string) error {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(b.programs, "stepca"), "-config", filepath.Join(dir, "ca.json"))
	cmd.Env = append(os.Environ(), b.token.home.Env()...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.pid = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.atEnd(func() error {
		cmd.Process.Kill()
		<-ended
		return nil
	})
	for range 600 {
		if res, err := s.http.Get(s.url + "/health"); err == nil {
			res.Body.Close()
			return nil
		}
		select {
		case err := <-ended:
			ended <- err
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("it ended: %v: %s", err, said)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("it does not answer at %s", s.url)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// claims are those of step-ca's one-time tokens.
type claims struct {
	jose.Claims
	SANs []string `json:"sans"`
}

func (s *stepCA) side() side {
	return side{name: "step-ca", pid: s.pid,
		prepare: func(n int) error {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(s.key.Algorithm), Key: s.key.Key},
				new(jose.SignerOptions).WithType("JWT").WithHeader("kid", s.key.KeyID))
			if err != nil {
				return err
			}
			s.orders, err = newOrders(n, func(o *order) (err error) {
				now := time.Now()
				o.token, err = jose.Signed(signer).Claims(claims{
					Claims: jose.Claims{ID: rand.Text(), Subject: o.name, Issuer: provisioner, Audience: jose.Audience{s.url + "/1.0/sign"},
						NotBefore: jose.NewNumericDate(now), IssuedAt: jose.NewNumericDate(now), Expiry: jose.NewNumericDate(now.Add(5 * time.Minute))},
					SANs: []string{o.name},
				}).CompactSerialize()
				return err
			})
			return err
		},
		work: func(ctx context.Context, n int) error {
			return together(ctx, clients, n, func(ctx context.Context, _, i int) error { return s.issue(ctx, &s.orders[i]) })
		}}
}

func (s *stepCA) issue(ctx context.Context, o *order) error {
	body, err := json.Marshal(map[string]string{"ott": o.token,
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: o.csr}))})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/1.0/sign", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", res.Status, answer)
	}
	var signed struct {
		Certificate string `json:"crt"`
	}
	if err := json.Unmarshal(answer, &signed); err != nil {
		return err
	}
	if block, _ := pem.Decode([]byte(signed.Certificate)); block == nil {
		return fmt.Errorf("an answer without a certificate: %s", answer)
	}
	return nil
}
