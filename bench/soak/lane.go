package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"hufu/bench/world"
	"hufu/internal/softhsm"
	"hufu/store"
)

// lane kills one node after another on books of one world.
type lane struct {
	soak  *soak
	world *world.World
	home  *softhsm.Home
	node  *exec.Cmd // nil while none runs
	cut   bool      // the last start was cut short
	head  uint64    // the last event of the book that the world was made with

	// Of the present book.
	seen     uint64          // the last event that was looked at
	intended map[string]bool // hashes that the journal's intents announce
	lists    map[string]bool // hashes of the CRLs that were recorded
	read     int64           // how far the witness's file was read
	changes  map[string]int  // events of a kind for a serial
	orders   []*order        // of the last life
	steps    []*step         // of the last life
	good     []string        // serials to be revoked
}

func (l *lane) path(parts ...string) string {
	return filepath.Join(append([]string{l.world.Dir}, parts...)...)
}

// newLane makes a world, stops it and puts the witness before its token.
func (s *soak) newLane(ctx context.Context, dir string) (*lane, error) {
	w, err := world.Start(ctx, s.hufu, dir, 0)
	if err != nil {
		return nil, err
	}
	l := &lane{soak: s, world: w}
	if err := w.Stop(); err != nil {
		return nil, err
	}
	w.Operator.Close()
	if l.home, err = softhsm.New(l.path("centre", "hsm")); err != nil {
		return nil, err
	}
	if err := os.CopyFS(l.path("centre", "tokens"), os.DirFS(l.home.Tokens())); err != nil {
		return nil, err
	}
	conf, err := os.ReadFile(l.path("centre", "hufu.yaml"))
	if err != nil {
		return nil, err
	}
	module := regexp.MustCompile(`(?m)^  module: .*$`)
	if !module.Match(conf) {
		return nil, errors.New("centre/hufu.yaml names no module")
	}
	if err := os.WriteFile(l.path("centre", "hufu.yaml"), module.ReplaceAll(conf, []byte("  module: "+s.witness)), 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(l.path("centre", "data"), l.path("centre", "fresh")); err != nil {
		return nil, err
	}
	if err := l.renew(); err != nil {
		return nil, err
	}
	// What a fresh book holds was signed before the witness came.
	return l, l.open(ctx, func(book *store.Book) error {
		return book.View(ctx, func(tx *store.Tx) error { l.head = tx.Head(); return nil })
	})
}

// renew puts the book that the world was made with back into its place.
func (l *lane) renew() error {
	l.kill()
	for _, old := range []string{"data", "signed"} {
		if err := os.RemoveAll(l.path("centre", old)); err != nil {
			return err
		}
	}
	if err := os.CopyFS(l.path("centre", "data"), os.DirFS(l.path("centre", "fresh"))); err != nil {
		return err
	}
	if err := os.Chmod(l.path("centre", "data", "book.db"), 0o600); err != nil {
		return err
	}
	l.seen, l.read, l.orders, l.steps, l.good = l.head, 0, nil, nil, nil
	l.intended, l.lists, l.changes = make(map[string]bool), make(map[string]bool), make(map[string]int)
	return nil
}

// launch starts the node. SoftHSM rewrites its token's file in place at every
// login, so that a kill at that moment leaves it empty. A real HSM does not die
// with its node; the token is as it was when the world was made, every time.
func (l *lane) launch() error {
	if err := os.RemoveAll(l.home.Tokens()); err != nil {
		return err
	}
	if err := os.CopyFS(l.home.Tokens(), os.DirFS(l.path("centre", "tokens"))); err != nil {
		return err
	}
	log, err := os.OpenFile(l.path("log", "soak.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	l.node = exec.Command(l.soak.hufu, "serve", "-c", l.path("centre", "hufu.yaml"))
	l.node.Env = append(append(os.Environ(), l.home.Env()...), "HUFU_WITNESS_MODULE="+l.home.Module(), "HUFU_WITNESS_LOG="+l.path("centre", "signed"))
	l.node.Stdout, l.node.Stderr = log, log
	if err := l.node.Start(); err != nil {
		l.node = nil
		return err
	}
	return nil
}

// start starts the node and waits until it answers.
func (l *lane) start(ctx context.Context) error {
	if err := l.launch(); err != nil {
		return err
	}
	if err := l.world.Answers(ctx); err != nil {
		return fmt.Errorf("%w; it said: %s", err, l.said())
	}
	return nil
}

func (l *lane) said() string {
	said, _ := os.ReadFile(l.path("log", "soak.log"))
	return string(said[max(len(said)-4000, 0):])
}

// kill ends the node, if one runs, and waits for its end.
func (l *lane) kill() error {
	if l.node == nil {
		return nil
	}
	cmd := l.node
	l.node = nil
	l.world.Operator.Close()
	cmd.Process.Kill()
	cmd.Wait()
	if cmd.ProcessState.Exited() {
		return fmt.Errorf("the node ended by itself: %s", l.said())
	}
	return nil
}

// dice throws a number below n.
func dice(n int) int {
	v, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // the system has no chance left
	}
	return int(v.Int64())
}

// workers ask the node at once.
const workers = 16

// killAt runs work in all workers and kills the node a random moment after it
// has answered a random number of times. work calls answered after every answer;
// its error counts only if it came before the kill.
func (l *lane) killAt(ctx context.Context, most int, work func(ctx context.Context, worker int, answered func()) error) error {
	words, moment := dice(most), time.Duration(dice(6000))*time.Microsecond
	var count atomic.Int64
	var killed atomic.Bool
	end := make(chan struct{})
	dead := make(chan error, 1)
	var once sync.Once
	stop := func() { once.Do(func() { close(end) }) }
	go func() {
		<-end
		timer := time.NewTimer(moment)
		defer timer.Stop()
		<-timer.C
		killed.Store(true)
		dead <- l.node.Process.Kill()
	}()
	if words == 0 {
		stop()
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			errs[w] = work(ctx, w, func() {
				if count.Add(1) == int64(words) {
					stop()
				}
			})
			if errs[w] != nil && killed.Load() {
				errs[w] = nil
			}
		})
	}
	wg.Wait()
	stop() // all work may be done before the word
	err := <-dead
	return errors.Join(err, errors.Join(errs...), l.kill())
}

// cutStart starts the node and kills it while it starts, every fifth time: a
// recovery must bear that too. It is not counted as a trial.
func (l *lane) cutStart() error {
	l.cut = dice(5) == 0
	if !l.cut {
		return nil
	}
	if err := l.launch(); err != nil {
		return err
	}
	timer := time.NewTimer(time.Duration(dice(500)) * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	return l.kill()
}
