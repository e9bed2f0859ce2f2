package hsm_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hufu/hsm"
	"hufu/internal/softhsm"
)

// load signs in sixteen goroutines until it is stopped.
type load struct {
	signed [16]atomic.Int64
	failed atomic.Pointer[error]
	stop   chan struct{}
	wg     sync.WaitGroup
}

func startLoad(keys ...*hsm.Key) *load {
	l := &load{stop: make(chan struct{})}
	for i := range l.signed {
		k := keys[i%len(keys)]
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if err := signs(k); err != nil {
					l.failed.CompareAndSwap(nil, &err)
					return
				}
				l.signed[i].Add(1)
			}
		})
	}
	return l
}

// advance waits until each goroutine has made two more signatures, so that no
// operation meets more than one fault.
func (l *load) advance(t testing.TB) {
	t.Helper()
	var want [len(l.signed)]int64
	for i := range want {
		want[i] = l.signed[i].Load() + 2
	}
	for i := range want {
		waitFor(t, "signatures", func() bool {
			if err := l.failed.Load(); err != nil {
				t.Fatal(*err)
			}
			return l.signed[i].Load() >= want[i]
		})
	}
}

func (l *load) end(t testing.TB) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if err := l.failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// soak multiplies the number of trials.
func soak(n int) int {
	if factor, err := strconv.Atoi(os.Getenv("HUFU_SOAK")); err == nil && factor > 0 {
		return n * factor
	}
	return n
}

// No caller sees an error when sessions, the login or the library's state vanish.
func TestHealUnderLoad(t *testing.T) {
	for name, breakIt := range map[string]func(*hsm.Token) error{
		"sessions closed":   (*hsm.Token).CloseAllSessions,
		"logged out":        (*hsm.Token).Logout,
		"library finalised": (*hsm.Token).Finalize,
	} {
		t.Run(name, func(t *testing.T) {
			token := openNew(t)
			l := startLoad(generate(t, token, hsm.KeySpec{Label: "a", Kind: hsm.P256, Use: hsm.Sign}),
				generate(t, token, hsm.KeySpec{Label: "b", Kind: hsm.P256, Use: hsm.Sign}))
			for range soak(4) {
				if err := breakIt(token); err != nil {
					t.Fatal(err)
				}
				l.advance(t)
			}
			l.end(t)
		})
	}
}

// Two tokens of one library: what is done to heal one may not hurt the other.
func TestHealNeighbours(t *testing.T) {
	h := newHome(t)
	a, b := open(t, newToken(t, h, "a")), open(t, newToken(t, h, "b"))
	l := startLoad(generate(t, a, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign}),
		generate(t, b, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign}))
	for range soak(2) {
		for _, breakIt := range []func() error{a.CloseAllSessions, b.Finalize, a.Finalize, b.CloseAllSessions} {
			if err := breakIt(); err != nil {
				t.Fatal(err)
			}
			l.advance(t)
		}
	}
	l.end(t)
}

// away takes the token directory from SoftHSM and returns what brings it back.
func away(t testing.TB, h *softhsm.Home) (back func()) {
	t.Helper()
	elsewhere := filepath.Join(t.TempDir(), "tokens")
	if err := os.Rename(h.Tokens(), elsewhere); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(elsewhere, h.Tokens()); err != nil {
			t.Error(err)
		}
	}
}

func TestTokenDirectoryMoved(t *testing.T) {
	h := newHome(t)
	cfg := newToken(t, h, "hufu")
	cfg.Patience = time.Second
	token := open(t, cfg)
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	back := away(t, h)
	err := signs(k)
	wantError(t, err, hsm.ErrTokenGone, `"hufu"`, `"k"`)
	if errors.Is(err, hsm.ErrKeyNotFound) {
		t.Fatalf("a token that is away is called a key that is missing: %v", err)
	}
	back()
	start := time.Now()
	waitFor(t, "the token to heal", func() bool { return signs(k) == nil })
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("healing took %v", took)
	}
}

// One who is patient sees nothing of a token that was away for a moment.
func TestPatienceRidesOverAnAbsence(t *testing.T) {
	h := newHome(t)
	cfg := newToken(t, h, "hufu")
	cfg.Patience = 30 * time.Second
	token := open(t, cfg)
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	back := away(t, h)
	done := make(chan error, 1)
	go func() { done <- signs(k) }()
	// One who is not patient gives up after the first attempts.
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err := token.KeyByLabel(ctx, "k")
	wantError(t, err, context.DeadlineExceeded, "come back")
	back()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// remote is a token in another process, reached through p11-kit.
type remote struct {
	socket string
	env    []string
	cmd    *exec.Cmd
}

const p11KitClient = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"

func newRemote(t *testing.T) (*remote, hsm.Config) {
	t.Helper()
	h := newHome(t)
	cfg := newToken(t, h, "remote")
	// The client library reads the address once, and a socket's path must be short.
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("hufu-p11-%d", os.Getpid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &remote{socket: filepath.Join(dir, "s"), env: append(os.Environ(), append(h.Env(), "XDG_RUNTIME_DIR="+dir)...)}
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+r.socket)
	r.start(t)
	t.Cleanup(r.kill)
	cfg.Module = p11KitClient
	return r, cfg
}

func (r *remote) start(t *testing.T) {
	t.Helper()
	os.Remove(r.socket)
	r.cmd = exec.Command("p11-kit", "server", "-f", "--provider", "/usr/lib/softhsm/libsofthsm2.so", "-n", r.socket, "pkcs11:token=remote")
	r.cmd.Env = r.env
	// The server works in a child for each connection: the whole group is stopped.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the p11-kit server", func() bool {
		c, err := net.Dial("unix", r.socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (r *remote) signal(s syscall.Signal) { syscall.Kill(-r.cmd.Process.Pid, s) }

func (r *remote) kill() {
	r.signal(syscall.SIGKILL)
	r.cmd.Wait()
}

func TestTokenInAnotherProcessKilled(t *testing.T) {
	r, cfg := newRemote(t)
	cfg.Patience = time.Second
	token := open(t, cfg)
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	for range soak(2) {
		checkSigns(t, k)
		r.kill()
		wantError(t, signs(k), hsm.ErrTokenGone)
		r.start(t)
		start := time.Now()
		waitFor(t, "the token to heal", func() bool { return signs(k) == nil })
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("healing took %v", took)
		}
	}
}

// A call that hangs gives its caller back at the deadline, keeps one session of the
// pool busy until it returns, and then leaves nothing half done in the pool.
func TestStuckCall(t *testing.T) {
	r, cfg := newRemote(t)
	cfg.MaxSessions, cfg.Patience = 1, 300*time.Millisecond
	token := open(t, cfg)
	k := generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	checkSigns(t, k)

	r.signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	err := signs(k.Within(ctx))
	wantError(t, err, context.DeadlineExceeded, `"remote"`)
	err = signs(k)
	wantError(t, err, hsm.ErrBusy, "max_sessions")

	r.signal(syscall.SIGCONT)
	waitFor(t, "the session to come back", func() bool { return signs(k) == nil })
}

// Sixteen callers share two sessions.
func TestBackPressure(t *testing.T) {
	cfg := newToken(t, newHome(t), "hufu")
	cfg.MaxSessions = 2
	token := open(t, cfg)
	l := startLoad(generate(t, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign}))
	l.advance(t)
	l.end(t)
}
