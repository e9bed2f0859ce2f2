// Command soak kills a node, again and again, while it issues and while it
// revokes, and looks for what it lost.
//
// The node is hufu serve as quickstart makes it: a process with a real book that
// fsyncs, its CA keys in SoftHSM, asked over mutual TLS. It is killed with
// SIGKILL at a random moment of its work. Then its book is opened and held
// against three witnesses who saw its life from outside: the clients, who know
// what was answered; the token, through a PKCS#11 module that writes down every
// signature before it leaves; and the book's own Check. Then the same node
// starts on the same book, and every question of the last life is asked again.
//
//	acknowledged  answers that clients had in their hands
//	recovered     intents that the next start found open and closed
//	lost          acknowledged, and not in the book, or not as it was acknowledged
//	double        one order with two certificates, one change made twice, one
//	              idempotency key with two answers
//	unrecorded    a signature of a CA's key without its intent in the journal, a
//	              status without its event
//
// Then many readers go through both stages in one world: hufu manifest import and
// hufu stage2 batch against a bench of simulated readers, and the node, or now and
// then the command alone, is killed at a random moment. The same command is run
// again until every reader is active. There, acknowledged are the readers that the
// command reported active; lost is a reader that is not active or lacks one of its
// three certificates, double one that was reported active twice or has a second
// good certificate of a kind. Every certificate must chain and pass zlint, the
// register and the kept keys their checks, and the counts of manifest, ticket,
// receipts and readers be one.
//
// The last three must be 0; the program ends with an error otherwise, and keeps
// the world in which it happened.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"hufu/bench/world"
)

func main() {
	issuing := flag.Int("issuing", 2000, "how often to kill the node while it issues")
	revoking := flag.Int("revoking", 1000, "how often to kill the node while it revokes")
	batch := flag.Int("batch", 50, "how often to kill the node or the command while readers go through both stages")
	count := flag.Int("readers", 10_000, "how many readers that are")
	hufu := flag.String("hufu", "", "the `program` to kill (default: the one beside this program's folder)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *hufu, *issuing, *revoking, *batch, *count); err != nil {
		fmt.Fprintln(os.Stderr, "soak: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, hufu string, issuing, revoking, batch, count int) error {
	programs, hufu, err := world.Beside(hufu)
	if err != nil {
		return err
	}
	s := &soak{began: time.Now(), hufu: hufu, witness: filepath.Join(programs, "witness.so")}
	if s.dir, err = os.MkdirTemp(programs, "soak-"); err != nil {
		return err
	}
	kinds := []*kind{{what: "issuing", wanted: issuing, trial: (*lane).issuing}, {what: "revoking", wanted: revoking, trial: (*lane).revoking}}
	if issuing+revoking > 0 {
		err = s.run(ctx, kinds)
	}
	if err == nil && batch > 0 {
		k := &kind{what: fmt.Sprintf("%d readers went through both stages", count), wanted: batch}
		k.tally, err = s.batch(ctx, count, batch)
		kinds = append(kinds, k)
	}
	for _, k := range kinds {
		if k.wanted == 0 {
			continue
		}
		fmt.Printf("node killed while %s: %s\n", k.what, k.tally)
		if t := k.tally; err == nil && t.lost+t.double+t.unrecorded > 0 {
			err = errors.New("the node lost, doubled or did not record something")
		}
		if err == nil && k.wanted > 0 && k.tally.acknowledged == 0 {
			err = errors.New("nothing was ever acknowledged")
		}
	}
	if err != nil {
		return fmt.Errorf("%w; the worlds are kept in %s", err, s.dir)
	}
	return os.RemoveAll(s.dir)
}

// soak is one run.
type soak struct {
	began              time.Time
	hufu, witness, dir string
}

// kind is a kind of work that the node is killed at.
type kind struct {
	what   string
	wanted int
	trial  func(*lane, context.Context) (tally, error)

	mu    sync.Mutex
	begun int
	tally tally
}

// tally is what was counted.
type tally struct{ trials, acknowledged, recovered, lost, double, unrecorded int }

func (t tally) String() string {
	return fmt.Sprintf("trials %d, acknowledged %d, recovered %d, lost %d, double %d, unrecorded %d",
		t.trials, t.acknowledged, t.recovered, t.lost, t.double, t.unrecorded)
}

func (t *tally) add(o tally) {
	t.trials += o.trials
	t.acknowledged += o.acknowledged
	t.recovered += o.recovered
	t.lost += o.lost
	t.double += o.double
	t.unrecorded += o.unrecorded
}

// run does the trials of every kind in as many lanes as there are CPUs, each
// with a world of its own.
func (s *soak) run(ctx context.Context, kinds []*kind) error {
	s.say("making %d worlds", runtime.NumCPU())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range runtime.NumCPU() {
		wg.Go(func() {
			if err := s.lane(ctx, i, kinds); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// lifetimes is how many trials one book lives through before a fresh one takes
// its place, so that looking through all of it stays quick.
const lifetimes = 25

func (s *soak) lane(ctx context.Context, i int, kinds []*kind) error {
	l, err := s.newLane(ctx, filepath.Join(s.dir, fmt.Sprintf("world-%d", i)))
	if err != nil {
		return fmt.Errorf("making a world: %w", err)
	}
	defer l.kill()
	for _, k := range kinds {
		for n := 0; k.next(); n++ {
			if n%lifetimes == 0 {
				if err := l.renew(); err != nil {
					return fmt.Errorf("making a fresh book: %w", err)
				}
			}
			t, err := k.trial(l, ctx)
			k.count(s, t)
			if err != nil {
				return fmt.Errorf("while %s, in %s: %w", k.what, l.world.Dir, err)
			}
			if t.lost+t.double+t.unrecorded > 0 {
				return nil // this book stays as it is; the other lanes go on
			}
		}
	}
	return nil
}

// next takes a trial, as long as there are any.
func (k *kind) next() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun++
	return k.begun <= k.wanted
}

func (k *kind) count(s *soak, t tally) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tally.add(t)
	if k.tally.trials%50 == 0 || k.tally.trials == k.wanted {
		s.say("killed while %s: %s", k.what, k.tally)
	}
}

func (s *soak) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "soak %5.0fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}
