package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// side is one side of a comparison.
type side struct {
	name string
	// prepare makes what n pieces of work need, before the clock starts.
	prepare func(n int) error
	// work does n pieces and returns when the last is done.
	work func(ctx context.Context, n int) error
	pid  int // of the process that serves, for the progress lines only
}

// pace is how one round of a side went.
type pace struct{ rate, cpu float64 } // pieces a second, µs of the serving process's CPU time for a piece

func (p pace) String() string {
	if p.cpu == 0 {
		return thousands(p.rate) + "/s"
	}
	return fmt.Sprintf("%s/s (%.0f µs CPU each)", thousands(p.rate), p.cpu)
}

// race lets the sides take turns and returns the median rate of each. The first
// round of each side, which is not counted, opens connections, fills caches and
// finds how many pieces fill a slice of time.
func (b *bench) race(ctx context.Context, rounds, first int, slice time.Duration, sides ...side) ([]float64, error) {
	slice = time.Duration(float64(slice) * b.pace)
	counts := make([]int, len(sides))
	rates := make([][]float64, len(sides))
	for i, s := range sides {
		p, err := s.run(ctx, first)
		if err != nil {
			return nil, err
		}
		counts[i] = max(int(p.rate*slice.Seconds()), first)
	}
	for r := range rounds {
		words := make([]string, len(sides))
		for k := range sides {
			// Every other round goes backwards: nobody always follows the same
			// one and inherits what that one left behind.
			i := k
			if r%2 == 1 {
				i = len(sides) - 1 - k
			}
			p, err := sides[i].run(ctx, counts[i])
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], p.rate)
			words[i] = fmt.Sprintf("%s %s", sides[i].name, p)
		}
		if rounds < 20 || r%10 == 0 {
			b.say("  round %d of %d: %s", r+1, rounds, strings.Join(words, ", "))
		}
	}
	medians := make([]float64, len(sides))
	for i := range sides {
		medians[i] = median(rates[i])
	}
	return medians, nil
}

// run does n pieces and times them.
func (s *side) run(ctx context.Context, n int) (pace, error) {
	if s.prepare != nil {
		if err := s.prepare(n); err != nil {
			return pace{}, fmt.Errorf("preparing %s: %w", s.name, err)
		}
	}
	runtime.GC() // what the preparation left behind is not the work's
	cpu := cpuTime(s.pid)
	began := time.Now()
	if err := s.work(ctx, n); err != nil {
		return pace{}, fmt.Errorf("%s: %w", s.name, err)
	}
	took := time.Since(began)
	return pace{float64(n) / took.Seconds(), float64((cpuTime(s.pid) - cpu).Microseconds()) / float64(n)}, nil
}

// cpuTime is what a process has used of the CPUs (proc_pid_stat(5), fields 14
// and 15, in hundredths of a second).
func cpuTime(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if pid == 0 || err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // after the name, which may hold blanks
	var user, system int64
	if f := strings.Fields(rest); len(f) > 12 {
		user, _ = strconv.ParseInt(f[11], 10, 64)
		system, _ = strconv.ParseInt(f[12], 10, 64)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// together does pieces 0 to n-1 with as many workers at once and returns the
// first error, at which all of them stop.
func together(ctx context.Context, workers, n int, piece func(ctx context.Context, worker, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range next {
				if err := piece(ctx, w, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
