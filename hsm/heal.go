package hsm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/sync/semaphore"
)

// attemptPause is the time between two attempts to reach a token that is away.
const attemptPause = 200 * time.Millisecond

var (
	errPIN       = errors.New("no PIN")
	errAmbiguous = errors.New("more than one token fits")
)

// call is what an operation works with: the library, a session, and the handle of its
// object, if it has one.
type call struct {
	*pkcs11.Ctx
	conn    *connection
	session pkcs11.SessionHandle
	object  pkcs11.ObjectHandle
}

// do is the way of every operation. A stale handle is searched again; a lost connection
// is made anew and f runs once more, so f must be something that may be done twice.
func do[T any](ctx context.Context, t *Token, o *object, kind mode, f func(call) (T, error)) (T, error) {
	searched, repeated := false, false
	for {
		v, c, err := once(ctx, t, o, kind, f)
		again := false
		switch {
		case err == nil:
			return v, nil
		case stale(err) && o != nil && !searched:
			searched, again = true, true
			o.bound.Store(nil)
		case errors.Is(err, errDead): // f did not run
			t.lose(c, err)
			again = true
		case lost(err):
			t.lose(c, err)
			again, repeated = !repeated, true
		}
		if !again {
			return v, fmt.Errorf("token %s: %w", t.name(), err)
		}
	}
}

// careful is do for what must not be done twice: it first makes sure that the
// connection stands.
func careful[T any](ctx context.Context, t *Token, o *object, kind mode, f func(call) (T, error)) (T, error) {
	_, err := do(ctx, t, o, pooled, func(x call) (struct{}, error) { return struct{}{}, x.conn.well(x.session) })
	if err != nil {
		var none T
		return none, err
	}
	v, c, err := once(ctx, t, o, kind, f)
	if err == nil {
		return v, nil
	}
	if lost(err) {
		t.lose(c, err)
	}
	return v, fmt.Errorf("token %s: %w", t.name(), err)
}

// once runs f on the present connection; without one it waits for the next.
func once[T any](ctx context.Context, t *Token, o *object, kind mode, f func(call) (T, error)) (v T, c *connection, err error) {
	if c, err = t.connected(ctx); err != nil {
		return v, nil, err
	}
	v, err = run(ctx, c, kind, func(s pkcs11.SessionHandle) (none T, err error) {
		x := call{Ctx: c.m.ctx, conn: c, session: s}
		if o != nil {
			if x.object, err = o.handle(x); err != nil {
				return none, err
			}
		}
		return f(x)
	})
	return v, c, err
}

// lose takes c out of use; whoever comes next connects anew.
func (t *Token) lose(c *connection, cause error) {
	if c == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.conn.CompareAndSwap(c, nil) {
		return
	}
	c.dead.Store(true)
	t.lost = append(t.lost, c)
	t.log.Warn("hsm: connection lost", "token", t.uri.Token, "serial", t.uri.Serial, "error", cause)
}

// connected returns the present connection. Where there is none it makes one, and goes
// on trying until the patience ends or the token refuses for good.
func (t *Token) connected(ctx context.Context) (*connection, error) {
	if c := t.conn.Load(); c != nil {
		return c, nil
	}
	waiting, cancel := context.WithTimeout(ctx, t.cfg.Patience)
	defer cancel()
	var last error
	for {
		a, err := t.reconnection(false)
		if err != nil {
			return nil, err
		}
		err = a.wait(waiting)
		switch {
		case err == nil:
			return a.conn, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("waiting for the token to come back: %w", context.Cause(ctx))
		case waiting.Err() != nil:
			if last == nil {
				last = errors.New("the library does not answer")
			}
			return nil, remedied("look at the HSM, its cable and its network; it is taken up again by itself",
				"%w (waited %v): %w", ErrTokenGone, t.cfg.Patience, last)
		case forGood(err):
			return nil, err
		}
		last = err
	}
}

// forGood reports whether trying again is of no use, or would do harm.
func forGood(err error) bool {
	return errors.Is(err, ErrWrongPIN) || errors.Is(err, errPIN) || errors.Is(err, errAmbiguous) || errors.Is(err, ErrClosed)
}

// attempt is one try to connect, in a goroutine of its own: the library may hang in it
// while those that wait for it give up.
type attempt struct {
	done chan struct{}
	conn *connection
	err  error
}

func (a *attempt) wait(ctx context.Context) error {
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reconnection joins the attempt under way or begins one; there is never a second.
func (t *Token) reconnection(first bool) (*attempt, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	if c := t.conn.Load(); c != nil {
		a := &attempt{done: make(chan struct{}), conn: c}
		close(a.done)
		return a, nil
	}
	if t.attempt == nil {
		t.attempt = &attempt{done: make(chan struct{})}
		go t.reconnect(t.attempt, t.lost, time.Until(t.failed.Add(attemptPause)), first)
		t.lost = nil
	}
	return t.attempt, nil
}

func (t *Token) reconnect(a *attempt, old []*connection, pause time.Duration, first bool) {
	<-time.After(pause)
	for _, c := range old {
		c.retire()
	}
	c, info, err := t.dial(first)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempt = nil
	a.conn, a.err = c, err
	switch {
	case err != nil:
		t.failed = time.Now()
	case t.closed:
		c.retire()
		a.conn, a.err = nil, ErrClosed
	default:
		t.info = info
		t.conn.Store(c)
		if !first {
			t.log.Info("hsm: connected again", "token", info.Label, "serial", info.Serial)
		}
	}
	close(a.done)
}

// dial connects. A library that does not show the token is started anew and asked once
// more: some see a token that was away only then.
func (t *Token) dial(first bool) (*connection, TokenInfo, error) {
	began := time.Now()
	c, info, err := t.logIn()
	if err == nil || forGood(err) || first && !t.m.shared() {
		return c, info, err
	}
	restarted, problem := t.m.restart(began, first || is(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED))
	if problem != nil {
		return nil, info, fmt.Errorf("%w; %w", err, problem)
	}
	if !restarted {
		return nil, info, err
	}
	return t.logIn()
}

// logIn finds the token, asks for the PIN and opens the anchor session.
func (t *Token) logIn() (*connection, TokenInfo, error) {
	slot, token, err := t.find()
	if err != nil {
		return nil, TokenInfo{}, err
	}
	var pin []byte
	needed := t.cfg.PIN != nil && token.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0
	if needed {
		if pin, err = t.cfg.PIN(); err != nil {
			return nil, TokenInfo{}, fmt.Errorf("%w: %w", errPIN, err)
		}
		defer clear(pin)
		if len(pin) == 0 {
			return nil, TokenInfo{}, fmt.Errorf("%w: the PIN source gave an empty one", errPIN)
		}
	}
	if err := t.m.enter(context.Background()); err != nil {
		return nil, TokenInfo{}, err
	}
	defer t.m.leave()
	anchor, err := t.m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, TokenInfo{}, failed("C_OpenSession", err)
	}
	if needed {
		err = t.m.login(anchor, token, pin)
	}
	if err != nil {
		t.m.ctx.CloseSession(anchor)
		return nil, TokenInfo{}, err
	}
	mechanisms, err := t.m.ctx.GetMechanismList(slot)
	if err != nil {
		t.m.ctx.CloseSession(anchor)
		return nil, TokenInfo{}, failed("C_GetMechanismList", err)
	}
	c := &connection{
		m: t.m, slot: slot, info: token, name: fmt.Sprintf("%q", token.Label), anchor: anchor,
		patience: t.cfg.Patience, limit: sessionLimit(token, t.cfg.MaxSessions),
	}
	c.permits = semaphore.NewWeighted(c.limit)
	t.m.join(c)
	return c, tokenInfo(token, mechanisms), nil
}

// sessionLimit leaves room for the anchor and the resident session.
func sessionLimit(token pkcs11.TokenInfo, wanted int) int64 {
	const besides = 2
	if token.MaxSessionCount == pkcs11.CK_EFFECTIVELY_INFINITE || token.MaxSessionCount >= uint(wanted)+besides {
		return int64(wanted) // CK_UNAVAILABLE_INFORMATION is the greatest number
	}
	return max(1, int64(token.MaxSessionCount)-besides)
}

func tokenInfo(token pkcs11.TokenInfo, mechanisms []*pkcs11.Mechanism) TokenInfo {
	info := TokenInfo{
		Label: token.Label, Serial: token.SerialNumber, Model: token.Model, Manufacturer: token.ManufacturerID,
		Firmware: fmt.Sprintf("%d.%d", token.FirmwareVersion.Major, token.FirmwareVersion.Minor),
	}
	for _, m := range mechanisms {
		info.Mechanisms = append(info.Mechanisms, m.Mechanism)
	}
	return info
}

// find returns the slot of the one token that the URI describes.
func (t *Token) find() (uint, pkcs11.TokenInfo, error) {
	if err := t.m.enter(context.Background()); err != nil {
		return 0, pkcs11.TokenInfo{}, err
	}
	defer t.m.leave()
	tokens, err := t.m.tokens()
	if err != nil {
		return 0, pkcs11.TokenInfo{}, err
	}
	var fits []presentToken
	var labels, serials []string
	for _, p := range tokens {
		labels = append(labels, fmt.Sprintf("%q (serial %s)", p.info.Label, p.info.SerialNumber))
		if t.uri.describes(p.info.Label, p.info.SerialNumber, p.info.Model, p.info.ManufacturerID) {
			fits = append(fits, p)
			serials = append(serials, p.info.SerialNumber)
		}
	}
	switch len(fits) {
	case 1:
		return fits[0].slot, fits[0].info, nil
	case 0:
		seen := "it shows no token at all"
		if len(labels) > 0 {
			seen = "it shows " + strings.Join(labels, ", ")
		}
		return 0, pkcs11.TokenInfo{}, fmt.Errorf("%w: looked for %s in %s; %s", ErrTokenGone, t.uri, t.m.path, seen)
	}
	return 0, pkcs11.TokenInfo{}, remedied("add serial= to the URI",
		"%w: %s describes those with serials %s", errAmbiguous, t.uri, strings.Join(serials, " and "))
}

type presentToken struct {
	slot uint
	info pkcs11.TokenInfo
}

// tokens lists the initialised tokens. The caller is inside the gate.
func (m *module) tokens() ([]presentToken, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, failed("C_GetSlotList", err)
	}
	var found []presentToken
	for _, slot := range slots {
		// A slot whose token does not answer is a token that is away.
		info, err := m.ctx.GetTokenInfo(slot)
		if err == nil && info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			found = append(found, presentToken{slot, info})
		}
	}
	return found, nil
}
