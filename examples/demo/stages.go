package main

import (
	"bytes"
	"context"
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

// The maker's line of the two-stage story, and the city that one of its readers is
// for and that has no desk here.
const (
	model     = "XF-100"
	firmware  = "1.2.0"
	approval  = "CN-2026-017"
	otherCity = "330200"
)

// number is the number of the n-th reader of the crowd, from 1.
func number(n int) string { return strconv.Itoa(5000000 + n) }

// refusedWith is the exit code of a command that the node refuses.
const refusedWith = 3

// denied shows a command that must be refused, with all these words.
func (s *stage) denied(ctx context.Context, words []string, args ...string) error {
	out, err := s.show(ctx, "hufu", args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != refusedWith {
		return fmt.Errorf("it was to be refused: %w", errors.Join(err, errors.New("exit code 3 is missing")))
	}
	for _, w := range words {
		if !bytes.Contains(out, []byte(w)) {
			return fmt.Errorf("the refusal does not say %q", w)
		}
	}
	return nil
}

// live is show for a command with a progress bar, which it draws on a terminal only.
func (s *stage) live(ctx context.Context, args ...string) ([]byte, error) {
	fmt.Printf("   $ hufu %s\n", strings.ReplaceAll(strings.Join(args, " "), s.dir+"/", ""))
	var out bytes.Buffer
	c := exec.CommandContext(ctx, s.program("hufu"), args...)
	c.Stdout, c.Stderr = &out, os.Stderr
	err := c.Run()
	if out.Len() > 0 {
		fmt.Println(indent(out.Bytes()))
	}
	return out.Bytes(), err
}

// ask runs a command for its JSON.
func (s *stage) ask(ctx context.Context, v any, args ...string) error {
	out, err := exec.CommandContext(ctx, s.program("hufu"), append(args, "-o", "json")...).Output()
	if err != nil {
		return fmt.Errorf("hufu %s: %w", strings.Join(args, " "), said(err))
	}
	return json.Unmarshal(out, v)
}

// says holds an output against what it must say.
func says(out []byte, err error, fields ...string) error {
	if err != nil {
		return err
	}
	words := strings.Join(strings.Fields(string(out)), " ")
	for _, f := range fields {
		if !strings.Contains(words, f) {
			return fmt.Errorf("it does not say %q", f)
		}
	}
	return nil
}

// prepare is the first stage: the maker's line, and what the centre makes of its
// manifest.
func (s *stage) prepare(ctx context.Context) error {
	rack, list := s.path("rack"), s.path("manifest.csv")
	operator := s.officer("operator")
	if _, err := s.show(ctx, "readers", "make", "-dir", rack, "-count", strconv.Itoa(s.crowd), "-first", number(1),
		"-model", model, "-firmware", firmware, "-approval", approval, "-manifest", list); err != nil {
		return err
	}
	lapses := time.Now().AddDate(3, 0, 0).Format(time.DateOnly)
	if _, err := s.show(ctx, "hufu", "model", "add", model, "--maker", "Hangzhou Readers", "--approval", approval, "--firmware", firmware, "--until", lapses, "--client", operator); err != nil {
		return err
	}
	out, err := s.live(ctx, "manifest", "import", list, "--client", operator)
	if err := says(out, err, fmt.Sprintf("prepared %d", s.crowd)); err != nil {
		return err
	}
	if s.bench, err = s.start("readers", "bench", "-dir", rack); err != nil {
		return err
	}
	out, err = s.live(ctx, "stage1", "deliver", "--bench", s.bench, "--client", operator)
	return says(out, err, fmt.Sprintf("delivered %d", s.crowd))
}

// allot gives the city all readers but the last two: one is for another city, and
// one for none yet.
func (s *stage) allot(ctx context.Context) error {
	operator, expires := s.officer("operator"), time.Now().AddDate(0, 3, 0).Format(time.DateOnly)
	if err := os.WriteFile(s.path("other.txt"), []byte(number(s.crowd-1)+"\n"), 0o644); err != nil {
		return err
	}
	if _, err := s.show(ctx, "hufu", "ticket", "create", "--city", otherCity, "--expires", expires, "--readers", s.path("other.txt"), "--client", operator); err != nil {
		return err
	}
	out, err := s.show(ctx, "hufu", "ticket", "create", "--city", s.facts.City, "--expires", expires, "--model", model, "--count", strconv.Itoa(s.crowd-2),
		"--out", s.path("city.ticket"), "--client", operator)
	if err := says(out, err, fmt.Sprintf("readers %d", s.crowd-2)); err != nil {
		return err
	}
	out, err = s.show(ctx, "hufu", "ticket", "verify", s.path("city.ticket"), "--root", s.path("officers", "root.pem"), "--domain", s.facts.Domain)
	return says(out, err, "result valid")
}

// initialise is the second stage: one reader at the counter, the others in one go.
func (s *stage) initialise(ctx context.Context) error {
	ticket, city := s.path("city.ticket"), s.officer("city-operator")
	out, err := s.show(ctx, "hufu", "stage2", "run", "--bench", s.bench, "--slot", number(1), "--ticket", ticket, "--client", city)
	if err := says(out, err, "reader "+number(1)+" is active"); err != nil {
		return err
	}
	out, err = s.live(ctx, "stage2", "batch", "--bench", s.bench, "--ticket", ticket, "--results", s.path("results.jsonl"), "--parallel", "96", "--client", city)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != refusedWith {
		return errors.Join(err, errors.New("two readers on the bench were to be refused, with exit code 3"))
	}
	return says(out, nil, fmt.Sprintf("active %d", s.crowd-3), "done-before 1", number(s.crowd)+" "+number(s.crowd)+" not-on-ticket",
		number(s.crowd-1)+" "+number(s.crowd-1)+" wrong-city")
}

// strangers are the three who must not be initialised, each refused by name.
func (s *stage) strangers(ctx context.Context) error {
	for _, x := range []struct{ number, outcome string }{{number(s.crowd), "not-on-ticket"}, {number(s.crowd - 1), "wrong-city"}, {number(1), "already-initialised"}} {
		if err := s.denied(ctx, []string{x.number, x.outcome}, "stage2", "run", "--bench", s.bench, "--slot", x.number, "--ticket", s.path("city.ticket"), "--client", s.officer("city-operator")); err != nil {
			return err
		}
	}
	return nil
}

// reconcile brings the readers' receipts back to the centre.
func (s *stage) reconcile(ctx context.Context) error {
	var tickets []client.Ticket
	if err := s.ask(ctx, &tickets, "ticket", "list", "--city", s.facts.City, "--client", s.officer("operator")); err != nil {
		return err
	}
	if len(tickets) != 1 {
		return fmt.Errorf("the city has %d tickets, not one", len(tickets))
	}
	out, err := s.show(ctx, "hufu", "stage2", "receipts", "--ticket", tickets[0].ID, "--out", s.path("receipts.jsonl"), "--client", s.officer("city-operator"))
	if err := says(out, err, fmt.Sprintf("%d receipts", s.crowd-2)); err != nil {
		return err
	}
	out, err = s.live(ctx, "ticket", "reconcile", tickets[0].ID, s.path("receipts.jsonl"), "--client", s.officer("operator"))
	return says(out, err, fmt.Sprintf("used %d matched %d double 0 foreign 0 missing 0", s.crowd-2, s.crowd-2))
}

// recover has one kept encryption key recovered for a judge, whose certificate needs
// an approval of its own.
func (s *stage) recover(ctx context.Context) error {
	operator := s.officer("operator")
	key, request, judge := s.path("judge.key"), s.path("judge.csr"), s.path("judge.pem")
	if _, err := s.quiet(ctx, "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/", "-keyout", key, "-out", request); err != nil {
		return err
	}
	certify := []string{"cert", "issue", request, "--ca", "staff", "--profile", "recipient", "--person", "Judge Gao", "--client", s.officer("li")}
	var a client.Approval
	if err := s.ask(ctx, &a, certify...); err != nil {
		return err
	}
	if _, err := s.quiet(ctx, "hufu", "officer", "approve", a.ID, "--yes", "--client", s.officer("wang")); err != nil {
		return err
	}
	if _, err := s.show(ctx, "hufu", append(certify, "--approval", a.ID, "--out", judge)...); err != nil {
		return err
	}
	var r client.Reader
	if err := s.ask(ctx, &r, "reader", "show", number(2), "--client", operator); err != nil {
		return err
	}
	var wish client.Approval
	if err := s.ask(ctx, &wish, "escrow", "request", r.Encrypt, "--recipient", judge, "--reason", "court order 2026-17", "--client", operator); err != nil {
		return err
	}
	fmt.Printf("   the operator asks for the key of reader %s, certificate %s: approval %s\n", number(2), r.Encrypt, wish.ID)
	take := []string{"escrow", "recover", wish.ID, "--out", s.path("recovered"), "--client", operator}
	for i := range 2 {
		officer := fmt.Sprintf("key-%d", i+1)
		if _, err := s.quiet(ctx, "hufu", "officer", "approve", wish.ID, "--yes", "--client", s.officer(officer)); err != nil {
			return err
		}
		fmt.Printf("   %d of 3 recovery officers signed (%s)\n", i+1, officer)
		if i > 0 {
			break
		}
		if out, err := s.show(ctx, "hufu", take...); err == nil || !bytes.Contains(out, []byte(wish.ID)) {
			return errors.New("one officer of three was enough, or the refusal does not name the approval")
		}
		if left, _ := filepath.Glob(s.path("recovered") + ".*"); len(left) > 0 {
			return fmt.Errorf("a refused recovery left %v", left)
		}
	}
	if _, err := s.show(ctx, "hufu", take...); err != nil {
		return err
	}
	opened := s.path("recovered.key")
	if _, err := s.show(ctx, "hufu", "escrow", "open", s.path("recovered.p7m"), "--certificate", s.path("recovered.crt"), "--recipient", judge, "--key", key, "--out", opened); err != nil {
		return err
	}
	private, err := s.quiet(ctx, "openssl", "pkey", "-in", opened, "-pubout")
	if err != nil {
		return err
	}
	public, err := s.quiet(ctx, "openssl", "x509", "-in", s.path("recovered.crt"), "-noout", "-pubkey")
	if err != nil {
		return err
	}
	if !bytes.Equal(private, public) {
		return errors.New("the recovered key is not that of the certificate")
	}
	fmt.Println("   openssl: it is the key of the certificate")
	return nil
}
