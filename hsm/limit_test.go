package hsm_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"hufu/hsm"
)

// limited builds the library that gives so many sessions and says so, or says nothing.
func limited(t *testing.T, cfg *hsm.Config, limit, says int) {
	t.Helper()
	library := filepath.Join(t.TempDir(), "limit.so")
	cmd := exec.Command("cc", "-shared", "-fPIC", "-o", library, fmt.Sprintf("-DLIMIT=%d", limit), fmt.Sprintf("-DSAYS=%d", says),
		fmt.Sprintf("-DMODULE=%q", cfg.Module), "testdata/limit.c", "-ldl", "-lpthread")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the library: %v\n%s", err, out)
	}
	cfg.Module = library
}

// Sixteen callers share what the token has, whether it says how much that is or not.
func TestSessionCount(t *testing.T) {
	for name, says := range map[string]int{"told": 4, "not told": 0} {
		t.Run(name, func(t *testing.T) {
			cfg := newToken(t, newHome(t), "hufu")
			limited(t, &cfg, 4, says)
			cfg.Patience = 30 * time.Second
			token := open(t, cfg)
			k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
			l := startLoad(k)
			l.advance(t)
			// A read-write session finds room among the idle ones, and so does the one
			// that session keys live in.
			generate(t, token, hsm.KeySpec{Label: "s", Kind: hsm.P256, Use: hsm.Sign, Session: true})
			generate(t, token, hsm.KeySpec{Label: "k2", Kind: hsm.P256, Use: hsm.Sign})
			l.advance(t)
			l.end(t)
			if err := token.CloseAllSessions(); err != nil {
				t.Fatal(err)
			}
			checkSigns(t, k)
		})
	}
}

func TestNoSessionLeft(t *testing.T) {
	cfg := newToken(t, newHome(t), "hufu")
	limited(t, &cfg, 1, 0)
	token := open(t, cfg)
	_, err := token.Keys(context.Background())
	wantError(t, err, hsm.ErrBusy, "session limit")
}
