package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hufu/api/client"
	"hufu/internal/child"
	"hufu/issuance"
	"hufu/issuance/escrow"
	"hufu/readers"
	"hufu/store"
	"hufu/verify"
)

// crowd takes many readers through both stages, while the node and the commands
// that do it are killed again and again.
type crowd struct {
	*lane
	readers, kills int
	bench          string // address of the readers

	done     int // kills
	reported map[string]int
	tally    tally
}

const (
	crowdCity  = "330100"
	crowdModel = "XF-100"

	firstReader = 5000001
)

// batch is the whole of it. At its end every reader has exactly one device
// certificate and one pair, whatever was killed.
func (s *soak) batch(ctx context.Context, count, kills int) (tally, error) {
	l, err := s.newLane(ctx, filepath.Join(s.dir, "world-batch"))
	if err != nil {
		return tally{}, fmt.Errorf("making a world: %w", err)
	}
	defer l.kill()
	c := &crowd{lane: l, readers: count, kills: kills, reported: make(map[string]int)}
	if err := c.run(ctx); err != nil {
		return c.tally, fmt.Errorf("in %s: %w", l.world.Dir, err)
	}
	return c.tally, nil
}

func (c *crowd) run(ctx context.Context) error {
	if err := c.start(ctx); err != nil {
		return err
	}
	if err := c.make(ctx); err != nil {
		return err
	}
	// A fifth of the kills comes while the manifest is taken in.
	if err := c.importing(ctx, max(1, c.kills/5)); err != nil {
		return fmt.Errorf("taking the manifest in: %w", err)
	}
	operator := c.officer("operator")
	if out, err := c.hufu(ctx, "stage1", "deliver", "--bench", c.bench, "--client", operator); err != nil {
		return fmt.Errorf("delivering device certificates: %w: %s", err, out)
	}
	if out, err := c.hufu(ctx, "ticket", "create", "--city", crowdCity, "--expires", time.Now().AddDate(0, 1, 0).Format(time.DateOnly), "--model", crowdModel,
		"--out", c.path("city.ticket"), "--client", operator); err != nil {
		return fmt.Errorf("making the ticket: %w: %s", err, out)
	}
	if err := c.initialising(ctx); err != nil {
		return fmt.Errorf("initialising: %w", err)
	}
	if err := c.count(ctx); err != nil {
		return fmt.Errorf("counting: %w", err)
	}
	if err := c.kill(); err != nil {
		return err
	}
	return c.inspect(ctx, true)
}

func (c *crowd) officer(name string) string { return c.path("officers", name+".yaml") }

// hufu runs a command to its end.
func (c *crowd) hufu(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, c.soak.hufu, args...).CombinedOutput()
}

// make has the maker's line make the readers and their manifest, puts them on a
// bench and records their model.
func (c *crowd) make(ctx context.Context) error {
	program := filepath.Join(filepath.Dir(c.soak.hufu), "readers")
	out, err := exec.CommandContext(ctx, program, "make", "-dir", c.path("rack"), "-count", strconv.Itoa(c.readers), "-first", strconv.Itoa(firstReader),
		"-model", crowdModel, "-firmware", "1.2.0", "-approval", "CN-2026-017", "-manifest", c.path("manifest.csv")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making readers: %w: %s", err, out)
	}
	bench := exec.Command(program, "bench", "-dir", c.path("rack"))
	bench.Stderr = os.Stderr
	pipe, err := bench.StdoutPipe()
	if err != nil {
		return err
	}
	if _, err := child.Start(bench, false); err != nil {
		return err
	}
	line, err := bufio.NewReader(pipe).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the bench says nothing: %w", err)
	}
	c.bench = strings.TrimSpace(line)
	if out, err := c.hufu(ctx, "model", "add", crowdModel, "--maker", "M", "--approval", "CN-2026-017", "--until", "2099-12-31", "--client", c.officer("operator")); err != nil {
		return fmt.Errorf("adding the model: %w: %s", err, out)
	}
	return nil
}

// command is one run of a command that may be killed.
type command struct {
	process *child.Process
	cmd     *exec.Cmd
	said    bytes.Buffer
}

func (c *crowd) begin(args ...string) (*command, error) {
	r := &command{cmd: exec.Command(c.soak.hufu, args...)}
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	var err error
	r.process, err = child.Start(r.cmd, false)
	return r, err
}

func (r *command) ended() bool {
	select {
	case <-r.process.Exited:
		return true
	default:
		return false
	}
}

func (r *command) end() {
	_ = r.process.Signal(syscall.SIGKILL) // it may have ended by itself
	<-r.process.Exited
}

// after waits until so many more things were done, or the command ended, and then a
// few moments more.
func (r *command) after(ctx context.Context, more int, done func() (int, error)) error {
	first := -1
	for !r.ended() {
		n, err := done()
		if err != nil {
			return err
		}
		if first < 0 {
			first = n
		}
		if n-first >= more {
			break
		}
		select {
		case <-r.process.Exited:
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	timer := time.NewTimer(time.Duration(dice(6000)) * time.Microsecond)
	defer timer.Stop()
	<-timer.C
	return nil
}

// strike kills the node, or the command alone. A node that was killed is looked at
// before it starts again, and the command that met its death is ended too, in one
// of two cases.
func (c *crowd) strike(ctx context.Context, r *command) error {
	c.done++
	c.tally.trials++
	if dice(3) == 0 {
		r.end()
		return nil
	}
	if err := c.kill(); err != nil {
		return err
	}
	if dice(2) == 0 {
		r.end()
	}
	if err := c.inspect(ctx, false); err != nil {
		return err
	}
	return c.start(ctx)
}

// Exit codes of a command: what it was asked for is done or under way already, and
// its node could not be reached.
const (
	exitConflict = 5
	exitUnready  = 6
)

// importing imports the manifest until it is taken in, with so many kills.
func (c *crowd) importing(ctx context.Context, kills int) error {
	prepared := func() (n int, err error) {
		for m, err := range c.world.Operator.Manifests(ctx) {
			if err != nil {
				return 0, err
			}
			n += int(m.Prepared)
		}
		return n, nil
	}
	gap := max(1, c.readers/(kills+1))
	for runs := 0; ; runs++ {
		if runs > 20*c.kills+20 {
			return errors.New("it does not come to an end")
		}
		r, err := c.begin("manifest", "import", c.path("manifest.csv"), "--client", c.officer("operator"))
		if err != nil {
			return err
		}
		if c.done < kills {
			if err := r.after(ctx, dice(2*gap), prepared); err != nil {
				r.end()
				return err
			}
			if err := c.strike(ctx, r); err != nil {
				r.end()
				return err
			}
			r.end()
			continue
		}
		<-r.process.Exited
		state := r.cmd.ProcessState
		n, err := prepared()
		if err != nil {
			return err
		}
		switch {
		case state.Success(), state.ExitCode() == exitConflict && n == c.readers:
			c.soak.say("the manifest of %d readers is taken in after %d kills", c.readers, c.done)
			return nil
		case state.ExitCode() != exitUnready && state.ExitCode() != exitConflict:
			return fmt.Errorf("hufu manifest import: %s: %s", state, r.said.String())
		}
	}
}

// initialising runs the batch until all readers are active, with the other kills.
func (c *crowd) initialising(ctx context.Context) error {
	results := c.path("results.jsonl")
	gap := max(1, c.readers/(c.kills-c.done+1))
	var r *command
	defer func() {
		if r != nil {
			r.end()
		}
	}()
	for runs := 0; ; {
		if runs > 20*c.kills+20 {
			return fmt.Errorf("it does not come to an end; the last run said: %s", r.said.String())
		}
		if r == nil || r.ended() {
			if r != nil && c.done >= c.kills && r.cmd.ProcessState.Success() {
				return c.read(results)
			}
			if r != nil && r.cmd.ProcessState.Exited() && !r.cmd.ProcessState.Success() && r.cmd.ProcessState.ExitCode() != exitUnready {
				return fmt.Errorf("hufu stage2 batch: %s: %s", r.cmd.ProcessState, r.said.String())
			}
			var err error
			if r, err = c.begin("stage2", "batch", "--bench", c.bench, "--ticket", c.path("city.ticket"), "--results", results, "--client", c.officer("city-operator")); err != nil {
				return err
			}
			runs++
		}
		if c.done >= c.kills {
			<-r.process.Exited
			continue
		}
		err := r.after(ctx, dice(2*gap), func() (int, error) { return lines(results, `"outcome":"active"`) })
		if err != nil {
			return err
		}
		if err := c.strike(ctx, r); err != nil {
			return err
		}
		if c.done%10 == 0 {
			n, err := lines(results, `"outcome":"active"`)
			if err != nil {
				return err
			}
			c.soak.say("killed %d times of %d; %d of %d readers are reported active", c.done, c.kills, n, c.readers)
		}
	}
}

// lines counts the lines of a file that hold a word.
func lines(path, word string) (int, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return bytes.Count(raw, []byte(word)), err
}

// read reads the results of all runs: who was reported active, and how often. A
// last line that a kill cut in two runs into the next one, and both are left out.
func (c *crowd) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for in := bufio.NewScanner(f); ; {
		if !in.Scan() {
			break
		}
		var line struct{ Number, Outcome string }
		if json.Unmarshal(in.Bytes(), &line) == nil && line.Outcome == "active" {
			c.reported[line.Number]++
		}
	}
	for _, n := range c.reported {
		c.tally.acknowledged++
		if n > 1 {
			c.tally.double++ // initialised, and once more
		}
	}
	return nil
}

// count holds the numbers of the manifest, the ticket, the receipts and the readers
// themselves against each other.
func (c *crowd) count(ctx context.Context) error {
	operator := c.officer("operator")
	var tickets []client.Ticket
	out, err := exec.CommandContext(ctx, c.soak.hufu, "ticket", "list", "-o", "json", "--client", operator).Output()
	if err == nil {
		err = json.Unmarshal(out, &tickets)
	}
	if err != nil {
		return fmt.Errorf("listing tickets: %w: %s", err, out)
	}
	var prepared, manifests int
	for m, err := range c.world.Operator.Manifests(ctx) {
		if err != nil {
			return err
		}
		manifests++
		prepared += int(m.Prepared)
	}
	if manifests != 1 || prepared != c.readers {
		return fmt.Errorf("%d manifests say that %d of %d readers are prepared", manifests, prepared, c.readers)
	}
	if len(tickets) != 1 || int(tickets[0].Readers) != c.readers || int(tickets[0].Used) != c.readers {
		return fmt.Errorf("the tickets are %+v, not one that %d readers used up", tickets, c.readers)
	}
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"stage2", "receipts", "--ticket", tickets[0].ID, "--out", c.path("receipts.jsonl"), "--client", c.officer("city-operator")}, fmt.Sprintf("%d receipts", c.readers)},
		{[]string{"ticket", "reconcile", tickets[0].ID, c.path("receipts.jsonl"), "--client", operator}, fmt.Sprintf("matched %d double 0 foreign 0 missing 0", c.readers)},
		{[]string{"check", "--client", operator}, "records are whole"},
	} {
		out, err := c.hufu(ctx, step.args...)
		if err != nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), step.want) {
			return fmt.Errorf("hufu %s: want %q: %w: %s", strings.Join(step.args, " "), step.want, err, out)
		}
	}
	out, err = exec.CommandContext(ctx, filepath.Join(filepath.Dir(c.soak.hufu), "readers"), "show", "-dir", c.path("rack")).Output()
	if err != nil || !regexp.MustCompile(fmt.Sprintf(`(?m)^%d finished, %[1]d in all$`, c.readers)).Match(out) {
		return fmt.Errorf("the readers themselves are not all finished: %w: %s", err, out[max(0, len(out)-200):])
	}
	return nil
}

// inspect looks at the book of a node that is dead. At the end each certificate must
// chain and lint as well, and each reader have one of each.
func (c *crowd) inspect(ctx context.Context, last bool) error {
	if err := c.look(ctx, &c.tally, true, func(*store.Tx) error { return nil }); err != nil {
		return err
	}
	return c.open(ctx, func(book *store.Book) error {
		register := readers.New(readers.Config{Book: book})
		if err := errors.Join(register.Check(ctx), escrow.Check(ctx, book)); err != nil || !last {
			return err
		}
		ders, err := c.judge(ctx, book, register)
		if err != nil {
			return err
		}
		return c.chains(ders)
	})
}

// judge holds all certificates of readers in the book against the register.
func (c *crowd) judge(ctx context.Context, book *store.Book, register *readers.Register) (ders [][]byte, err error) {
	good := make(map[string]map[string]int) // how many of each profile, by reader
	err = book.View(ctx, func(tx *store.Tx) error {
		for cert, err := range store.Certificates.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			if cert.Reader == "" {
				continue
			}
			s, err := store.Statuses.Get(tx, store.SerialKey(cert.CA, cert.Serial))
			if err != nil {
				return err
			}
			ders = append(ders, cert.DER)
			if s.State == store.Held {
				return fmt.Errorf("certificate %s of reader %s is left on hold", cert.Serial, cert.Reader)
			}
			if s.State == store.Good {
				if good[cert.Reader] == nil {
					good[cert.Reader] = make(map[string]int)
				}
				good[cert.Reader][cert.Profile]++
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range c.readers {
		number := strconv.Itoa(firstReader + i)
		r, err := register.Reader(ctx, number)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if err != nil || r.State != readers.Active {
			c.tally.lost++
		}
		for _, profile := range []string{"device", "reader-sign", "reader-encrypt"} {
			switch n := good[number][profile]; {
			case n == 0:
				c.tally.lost++
			case n > 1:
				c.tally.double++
			}
		}
		delete(good, number)
	}
	if len(good) > 0 {
		return nil, fmt.Errorf("%d readers have certificates, and stand on no manifest", len(good))
	}
	c.soak.say("%d certificates of %d readers, of which %d are good", len(ders), c.readers, 3*c.readers)
	return ders, nil
}

// chains judges every certificate from the root, and by zlint.
func (c *crowd) chains(ders [][]byte) error {
	raw, err := os.ReadFile(c.path("roots.pem")) // the root, then the working CAs
	if err != nil {
		return err
	}
	v := &verify.Verifier{Domain: "card.example"}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if v.Anchors == nil {
			v.Anchors = [][]byte{block.Bytes}
		} else {
			v.Intermediates = append(v.Intermediates, block.Bytes)
		}
	}
	next := make(chan []byte)
	errs := make([]error, runtime.NumCPU())
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for der := range next {
				if errs[w] == nil {
					_, err := v.Chain(der, nil, verify.Device, verify.ReaderSigning, verify.ReaderEncryption)
					errs[w] = errors.Join(err, issuance.Lint(der))
				}
			}
		})
	}
	for _, der := range ders {
		next <- der
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}
