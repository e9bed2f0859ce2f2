package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"hufu/internal/ocsp"
	"hufu/store"
)

// statusSample is for how many certificates the status is asked, in turn.
const statusSample = 100

// pair is a request and the answer that the node gave to it.
type pair struct{ Request, Answer []byte }

// presigned measures ocsp.presigned.
func (b *bench) presigned(ctx context.Context) ([]figure, error) {
	n, issuer, err := b.statusNode(ctx)
	if err != nil {
		return nil, err
	}
	pairs, err := n.ask(ctx, issuer)
	if err != nil {
		return nil, err
	}
	bare, pid, err := b.startBare(pairs)
	if err != nil {
		return nil, fmt.Errorf("starting the bare handler: %w", err)
	}
	for _, p := range pairs {
		for _, u := range []string{n.Publish + "/ocsp/services", bare + "/ocsp/services"} {
			if again, err := askOCSP(ctx, u, p.Request); err != nil || !bytes.Equal(again, p.Answer) {
				return nil, fmt.Errorf("%s gives another answer than before: %v", u, err)
			}
		}
	}
	var sides []side
	for _, at := range []struct {
		name, url string
		pid       int
	}{{"responder", n.Publish, n.pid}, {"bare", bare, pid}} {
		u, err := url.Parse(at.url)
		if err != nil {
			return nil, err
		}
		g, err := newGenerator(u.Host, requests(pairs))
		if err != nil {
			return nil, err
		}
		defer g.close()
		sides = append(sides, side{name: at.name, work: g.run, pid: at.pid})
	}
	rates, err := b.race(ctx, 9, 2000, 1200*time.Millisecond, sides...)
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("ocsp.presigned", rates[0], rates[1], "bare net/http handler that returns the same answers", 0.85, "OCSP answers/s")}, nil
}

// statusNode is the node, with certificates whose status can be asked for, and
// the CA that issued them.
func (b *bench) statusNode(ctx context.Context) (*node, *ocsp.Issuer, error) {
	n, err := b.startNode(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := n.side().once(ctx, statusSample); err != nil {
		return nil, nil, err
	}
	authority, err := n.Operator.CA(ctx, "services")
	if err != nil {
		return nil, nil, err
	}
	issuer, err := ocsp.NewIssuer(authority.Certificate)
	return n, issuer, err
}

// once prepares and does n pieces of work, with no clock.
func (s side) once(ctx context.Context, n int) error {
	_, err := s.run(ctx, n)
	return err
}

// ask has the node sign an answer for each certificate of the sample.
func (n *node) ask(ctx context.Context, issuer *ocsp.Issuer) ([]pair, error) {
	pairs := make([]pair, len(n.serials))
	for i := range pairs {
		q, err := n.question(issuer, i, nil)
		if err != nil {
			return nil, err
		}
		pairs[i].Request = q.request
		if pairs[i].Answer, err = n.good(ctx, q); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

// question is a request for the status of one certificate.
type question struct {
	serial         string
	id             ocsp.CertID
	nonce, request []byte
}

// question asks for a certificate of the sample, which is gone through in turn.
func (n *node) question(issuer *ocsp.Issuer, i int, nonce []byte) (*question, error) {
	q := &question{serial: n.serials[i%len(n.serials)], nonce: nonce}
	serial, err := store.ParseSerial(q.serial)
	if err != nil {
		return nil, err
	}
	q.id = issuer.CertID(crypto.SHA1, serial[:])
	q.request, err = ocsp.MakeRequest(nonce, q.id)
	return q, err
}

// good has the node answer, and sees that it says good with the question's nonce.
func (n *node) good(ctx context.Context, q *question) ([]byte, error) {
	answer, err := askOCSP(ctx, n.Publish+"/ocsp/services", q.request)
	if err != nil {
		return nil, err
	}
	parsed, err := ocsp.ParseResponse(answer, 1<<16)
	if err != nil {
		return nil, err
	}
	if s := parsed.Find(q.id); s == nil || s.Status != ocsp.Good || !bytes.Equal(parsed.Nonce, q.nonce) {
		return nil, fmt.Errorf("the node does not say good of %s, or with another nonce than was asked with", q.serial)
	}
	return answer, nil
}

func askOCSP(ctx context.Context, u string, request []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", u, res.Status)
	}
	return io.ReadAll(res.Body)
}

// requests writes the pairs' requests as HTTP has them on the wire.
func requests(pairs []pair) [][]byte {
	var all [][]byte
	for _, p := range pairs {
		all = append(all, append(fmt.Appendf(nil, "POST /ocsp/services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n",
			len(p.Request)), p.Request...))
	}
	return all
}

// startBare starts the bare handler and returns its address and process.
func (b *bench) startBare(pairs []pair) (url string, pid int, err error) {
	raw, err := json.Marshal(pairs)
	if err != nil {
		return "", 0, err
	}
	file := filepath.Join(b.dir, "answers.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return "", 0, err
	}
	cmd := exec.Command(filepath.Join(b.programs, "bare"), file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	b.atEnd(func() error { return errors.Join(in.Close(), cmd.Wait()) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", 0, err
	}
	return "http://" + strings.TrimSpace(line), cmd.Process.Pid, nil
}
