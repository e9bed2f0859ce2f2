package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/sync/semaphore"
)

// connection is one login to a token with its sessions and object handles. It is never
// mended: when it is lost, a new one takes its place and every handle is found anew.
type connection struct {
	m    *module
	slot uint
	info pkcs11.TokenInfo
	name string // for errors

	// anchor is an idle logged-in session: a token logs out when its last session closes.
	anchor pkcs11.SessionHandle

	dead      atomic.Bool // no operation may begin
	forfeited atomic.Bool // its handle numbers may be somebody else's by now

	patience time.Duration
	permits  *semaphore.Weighted // one for each session in use
	limit    int64

	mu       sync.Mutex
	retired  bool // a session that comes back is closed
	idle     []pkcs11.SessionHandle
	withheld int64     // permits kept back because the token had no more sessions to give
	since    time.Time // of the last one withheld

	// resident is the session that session objects live in, opened when first needed.
	residentMu sync.Mutex
	resident   pkcs11.SessionHandle
}

// errFull says that the token gave no further session.
var errFull = errors.New("the token gives no further session")

// withholdTime is how long a learnt, lower cap holds.
const withholdTime = time.Minute

// mode says which kind of session an operation needs.
type mode int

const (
	pooled   mode = iota // read-only, kept for the next operation
	writing              // read-write, closed afterwards
	resident             // the one that keeps session objects alive
)

// acquire takes a permit; it waits for patience at most.
func (c *connection) acquire(ctx context.Context) error {
	if c.permits.TryAcquire(1) {
		return nil
	}
	c.mu.Lock()
	if c.withheld > 0 && time.Since(c.since) > withholdTime {
		c.permits.Release(c.withheld)
		c.withheld = 0
	}
	withheld := c.withheld
	c.mu.Unlock()
	if withheld == c.limit {
		return remedied("close other programs that use the token, or raise its session limit",
			"%w: the token %s gives this program no session besides the idle one", ErrBusy, c.name)
	}
	waiting, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	if err := c.permits.Acquire(waiting, 1); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for a session of the token %s: %w", c.name, context.Cause(ctx))
		}
		return remedied("raise max_sessions if the token allows it", "%w: %d on the token %s, for %v", ErrBusy, c.limit, c.name, c.patience)
	}
	return nil
}

// withhold keeps the caller's permit back: the token has fewer sessions than the cap.
func (c *connection) withhold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withheld++
	c.since = time.Now()
}

// run gives f a session. It runs f in this goroutine when ctx cannot end, which is the
// way of crypto.Signer and costs nothing; otherwise in one of its own, so that a call
// stuck in the library holds up neither the caller nor, when it comes back, the pool.
func run[T any](ctx context.Context, c *connection, kind mode, f func(pkcs11.SessionHandle) (T, error)) (T, error) {
	for {
		v, err := runOnce(ctx, c, kind, f)
		if !errors.Is(err, errFull) {
			return v, err
		}
	}
}

func runOnce[T any](ctx context.Context, c *connection, kind mode, f func(pkcs11.SessionHandle) (T, error)) (T, error) {
	var none T
	if err := c.acquire(ctx); err != nil {
		return none, err
	}
	if ctx.Done() == nil {
		return inside(ctx, c, kind, nil, f)
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	abandoned := new(atomic.Bool)
	go func() {
		v, err := inside(ctx, c, kind, abandoned, f)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		abandoned.Store(true)
		return none, fmt.Errorf("waiting for the token %s: %w", c.name, context.Cause(ctx))
	}
}

// inside holds the permit and gives it back, whatever f does.
func inside[T any](ctx context.Context, c *connection, kind mode, abandoned *atomic.Bool, f func(pkcs11.SessionHandle) (T, error)) (v T, err error) {
	defer func() {
		if errors.Is(err, errFull) {
			c.withhold()
			return
		}
		c.permits.Release(1)
	}()
	if err := c.m.enter(ctx); err != nil {
		return v, err
	}
	defer c.m.leave()
	if c.dead.Load() {
		return v, errDead
	}
	if kind == resident {
		c.residentMu.Lock()
		defer c.residentMu.Unlock()
	}
	s, err := c.session(kind)
	if err != nil {
		return v, err
	}
	v, err = f(s)
	c.put(s, kind, err != nil && !lost(err) || abandoned != nil && abandoned.Load())
	return v, err
}

// session returns one of the wanted kind, an idle one or a new one.
func (c *connection) session(kind mode) (pkcs11.SessionHandle, error) {
	flags := uint(pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION)
	switch kind {
	case resident:
		if c.resident != 0 {
			return c.resident, nil
		}
	case pooled:
		if s, ok := c.pop(); ok {
			return s, nil
		}
		flags = pkcs11.CKF_SERIAL_SESSION
	}
	s, err := c.m.ctx.OpenSession(c.slot, flags)
	if is(err, pkcs11.CKR_SESSION_COUNT) {
		// An idle session of another kind makes room.
		spare, ok := c.pop()
		if !ok {
			return 0, errFull
		}
		c.m.ctx.CloseSession(spare)
		s, err = c.m.ctx.OpenSession(c.slot, flags)
	}
	if is(err, pkcs11.CKR_SESSION_COUNT) {
		return 0, errFull
	}
	if kind == resident && err == nil {
		c.resident = s
	}
	return s, failed("C_OpenSession", err)
}

// pop takes an idle session, the one used last.
func (c *connection) pop() (pkcs11.SessionHandle, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle)
	if n == 0 {
		return 0, false
	}
	s := c.idle[n-1]
	c.idle = c.idle[:n-1]
	return s, true
}

// rest waits until every operation has ended, or ctx does.
func (c *connection) rest(ctx context.Context) {
	c.mu.Lock()
	n := c.limit - c.withheld
	c.mu.Unlock()
	if c.permits.Acquire(ctx, n) == nil {
		c.permits.Release(n)
	}
}

// put takes a session back. After an error the state of its operation is unknown, so it
// is closed: PKCS#11 allows one operation in a session and has no sure way to end it.
// What comes back to a dead connection waits on the list for retire to judge it.
func (c *connection) put(s pkcs11.SessionHandle, kind mode, spoilt bool) {
	if kind == resident {
		return
	}
	c.mu.Lock()
	keep := kind == pooled && !spoilt || c.dead.Load()
	if keep && !c.retired {
		c.idle = append(c.idle, s)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	if !c.forfeited.Load() {
		c.m.ctx.CloseSession(s)
	}
}

// retire closes what a dead connection has. If its anchor is gone, then so are all
// sessions of the slot, and the numbers may come again as somebody else's: nothing is
// closed, and the slot's other connections learn of it.
func (c *connection) retire() {
	if c.m.enter(context.Background()) != nil {
		return
	}
	defer c.m.leave()
	defer c.m.part(c)
	if c.forfeited.Load() {
		return
	}
	if _, err := c.m.ctx.GetSessionInfo(c.anchor); err != nil {
		c.forfeited.Store(true)
		c.m.doom(c.slot)
	}
	c.close()
}

// close closes the sessions at rest. The anchor goes last: it holds the login.
func (c *connection) close() {
	c.mu.Lock()
	c.retired = true
	sessions := c.idle
	c.idle = nil
	c.mu.Unlock()
	if c.forfeited.Load() {
		return
	}
	// A resident session in use is left to the token: waiting for a call that may be
	// stuck would keep the healing back.
	if c.residentMu.TryLock() {
		if c.resident != 0 {
			sessions = append(sessions, c.resident)
			c.resident = 0
		}
		c.residentMu.Unlock()
	}
	for _, s := range append(sessions, c.anchor) {
		c.m.ctx.CloseSession(s)
	}
}

// well asks the token whether this connection still stands and is logged in.
func (c *connection) well(s pkcs11.SessionHandle) error {
	info, err := c.m.ctx.GetSessionInfo(s)
	if err != nil {
		return failed("C_GetSessionInfo", err)
	}
	if wants := c.info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0; wants &&
		(info.State == pkcs11.CKS_RO_PUBLIC_SESSION || info.State == pkcs11.CKS_RW_PUBLIC_SESSION) {
		return fmt.Errorf("%w: it is logged out", errLost)
	}
	// SoftHSM keeps its sessions when the token directory is taken away; the token
	// itself then answers with an error.
	token, err := c.m.ctx.GetTokenInfo(c.slot)
	if err != nil || token.SerialNumber != c.info.SerialNumber {
		return fmt.Errorf("%w: the token is not in its slot", errLost)
	}
	return nil
}
