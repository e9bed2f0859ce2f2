package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"hufu/bench/world"
	"hufu/internal/child"
	"hufu/internal/softhsm"
)

// registered is how many readers the book of readers.search holds.
const registered = 1_000_000

// Goals of a large register, as they were asked for.
const (
	searchGoal = 10 * time.Millisecond // p99 of a page of 50
	startGoal  = 2 * time.Second
)

// A search over the register: the query for the i-th of n readers, as million
// made them.
type search struct {
	name  string
	query func(i int) string
}

// searches are all the ways to look for readers. What they name is what million
// spreads readers by.
var searches = []search{
	{"number", func(i int) string { return fmt.Sprintf("number=%010d", i*7) }},
	{"number prefix", func(i int) string { return fmt.Sprintf("number=%08d", i*7/100) }},
	{"city", func(i int) string { return fmt.Sprintf("city=%06d", 110000+i/1000%100*100) }},
	{"city+state", func(i int) string { return fmt.Sprintf("city=%06d&state=suspended", 110000+i/1000%100*100) }},
	{"model", func(i int) string { return fmt.Sprintf("model=CR-%d", i%5) }},
	{"model+firmware", func(i int) string { return fmt.Sprintf("model=CR-%d&firmware=2.%d", i%5, i/5%4) }},
	{"batch", func(i int) string { return fmt.Sprintf("batch=m%06d", i/1000) }},
	{"customer", func(i int) string { return fmt.Sprintf("customer=c%012d", i) }},
	{"state", func(int) string { return "state=suspended" }},
	{"expiry", func(i int) string {
		return "expires-before=" + time.Now().Add(time.Duration(1+i%1800)*24*time.Hour).UTC().Format(time.RFC3339)
	}},
	{"ticket", func(i int) string { return fmt.Sprintf("ticket=%032x", i/1000) }},
}

// searching measures readers.start and readers.search: the start of a node whose
// book holds a million readers with their certificates, and then each search, asked
// by one client over mutual TLS.
func (b *bench) searching(ctx context.Context) ([]figure, error) {
	if b.full != "" {
		w, err := world.Open(b.hufu, b.full)
		if err != nil {
			return nil, err
		}
		return b.searchIn(ctx, w, registered)
	}
	n := max(int(registered*b.pace), 20_000)
	w, err := world.Start(ctx, b.hufu, filepath.Join(b.dir, "registered"), 0)
	if err != nil {
		return nil, err
	}
	if err := w.Stop(); err != nil {
		return nil, err
	}
	b.say("  recording %d readers with their certificates", n)
	if _, err := b.million(ctx, "readers", filepath.Join(w.Dir, "centre", "data", "book.db"), fmt.Sprint(n)); err != nil {
		return nil, err
	}
	return b.searchIn(ctx, w, n)
}

// searchIn starts the node of a world that is full of readers, and asks it.
func (b *bench) searchIn(ctx context.Context, w *world.World, n int) ([]figure, error) {
	if err := warm(filepath.Join(w.Dir, "centre", "data", "book.db")); err != nil {
		return nil, err
	}
	var starts []float64
	for r := range 3 {
		took, stop, err := b.startTime(ctx, w)
		if err != nil {
			return nil, err
		}
		starts = append(starts, took.Seconds())
		if r < 2 {
			if err := stop(); err != nil {
				return nil, err
			}
		} else {
			b.atEnd(stop)
		}
	}
	b.say("  starts of the node: %.2f s", starts)
	figures := []figure{newTime("readers.start", median(starts), startGoal.Seconds(), "the goal", 1, fmt.Sprintf("s from exec to the first answer, with %d readers", n))}
	ask, err := asker(w)
	if err != nil {
		return nil, err
	}
	chance := rand.New(rand.NewPCG(1, uint64(n)))
	for _, s := range searches {
		const asked = 1000
		took := make([]float64, asked)
		found := 0
		for i := range took {
			began := time.Now()
			items, err := ask(ctx, "/v1/readers?limit=50&"+s.query(chance.IntN(n)))
			if err != nil {
				return nil, fmt.Errorf("search by %s: %w", s.name, err)
			}
			took[i] = float64(time.Since(began).Microseconds()) / 1000
			found += items
		}
		slices.Sort(took)
		p99, worst := took[asked*99/100], took[asked-1]
		b.say("  %-15s p50 %6.2f ms, p99 %6.2f ms, worst %6.2f ms, %4.1f readers a page", s.name, took[asked/2], p99, worst, float64(found)/asked)
		if found == 0 {
			return nil, fmt.Errorf("search by %s found nothing", s.name)
		}
		figures = append(figures, newTime("readers.search."+s.name, p99, float64(searchGoal.Milliseconds()), fmt.Sprintf("the goal; worst %.2f ms", worst), 1, "ms, p99 of a page of 50"))
	}
	return figures, nil
}

// warm reads a file once: a disk that is read for the first time is not what is
// measured, and differs from machine to machine more than anything else here.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// startTime starts a world's node and says how long it took until it answered.
func (b *bench) startTime(ctx context.Context, w *world.World) (took time.Duration, stop func() error, err error) {
	home, err := softhsm.New(filepath.Join(w.Dir, "centre", "hsm"))
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.Command(b.hufu, "serve", "-c", filepath.Join(w.Dir, "centre", "hufu.yaml"))
	cmd.Env = append(os.Environ(), home.Env()...)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	began := time.Now()
	p, err := child.Start(cmd, false)
	if err != nil {
		return 0, nil, err
	}
	stop = func() error { return p.End(20 * time.Second) }
	if err := w.Answers(ctx); err != nil {
		return 0, nil, fmt.Errorf("%w; %w", err, stop())
	}
	return time.Since(began), stop, nil
}

// asker asks for one page over a connection that is kept, and counts its items.
func asker(w *world.World) (func(ctx context.Context, path string) (int, error), error) {
	officer := filepath.Join(w.Dir, "officers", "operator")
	pair, err := tls.LoadX509KeyPair(officer+".pem", officer+".key")
	if err != nil {
		return nil, err
	}
	roots, err := w.Roots()
	if err != nil {
		return nil, err
	}
	// Without compression, which nobody asks for between two machines.
	c := &http.Client{Transport: &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}}}
	return func(ctx context.Context, path string) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.API+path, nil)
		if err != nil {
			return 0, err
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("status %d: %s (%v)", resp.StatusCode, body, err)
		}
		var page struct{ Items []json.RawMessage }
		err = json.Unmarshal(body, &page)
		return len(page.Items), err
	}, nil
}
