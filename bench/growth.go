package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"hufu/bench/world"
	"hufu/internal/softhsm"
)

// growing measures revoke.growth: what revocations cost beside the many that
// there are already.
func (b *bench) growing(ctx context.Context) ([]figure, error) {
	var sides []side
	for _, n := range []int{max(int(listed*b.pace), 50_000), 10_000} {
		name := fmt.Sprintf("%d revoked", n)
		b.say("  a node with %s", name)
		filled, err := b.filledNode(ctx, fmt.Sprintf("filled-%d", n), n)
		if err != nil {
			return nil, err
		}
		s := filled.revokeSide()
		s.name = name
		sides = append(sides, s)
	}
	rates, err := b.race(ctx, 5, 500, 3*time.Second, sides...)
	if err != nil {
		return nil, err
	}
	return []figure{newFigure("revoke.growth", rates[0], rates[1], "the same with "+sides[1].name, 0.85, "revocations/s with "+sides[0].name)}, nil
}

// filledNode is a node whose CA "services" has revoked n certificates before.
func (b *bench) filledNode(ctx context.Context, name string, n int) (*node, error) {
	w, err := world.Start(ctx, b.hufu, filepath.Join(b.dir, name), 0)
	if err != nil {
		return nil, err
	}
	if err := w.Stop(); err != nil {
		return nil, err
	}
	if _, err := b.million(ctx, "fill", filepath.Join(w.Dir, "centre", "data", "book.db"), fmt.Sprint(n)); err != nil {
		return nil, err
	}
	home, err := softhsm.New(filepath.Join(w.Dir, "centre", "hsm"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(b.hufu, "serve", "-c", filepath.Join(w.Dir, "centre", "hufu.yaml"))
	cmd.Env = append(os.Environ(), home.Env()...)
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.atEnd(func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	})
	return &node{World: w, pid: cmd.Process.Pid}, w.Answers(ctx)
}
