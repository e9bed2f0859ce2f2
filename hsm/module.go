package hsm

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/sync/semaphore"
)

const (
	// everyone is the weight of the gate: C_Finalize takes all of it.
	everyone = 1 << 30
	// drainTime is how long a finalisation waits for the calls under way. A call that
	// is stuck for longer keeps the library as it is.
	drainTime = 2 * time.Second
	// restartPause keeps a token that stays away from resetting its neighbours in the
	// same library more often than this.
	restartPause = 1500 * time.Millisecond
)

// modules are the PKCS#11 libraries of this process by their real path: C_Initialize
// is per process, so two users of one library must share it.
var modules = struct {
	sync.Mutex
	loaded map[string]*module
}{loaded: make(map[string]*module)}

// module is one library, initialised once.
type module struct {
	path  string
	ctx   *pkcs11.Ctx
	users int // under modules.Mutex

	// gate lets calls in, each with weight 1, and keeps them out while C_Finalize runs.
	// A semaphore, not an RWMutex: a waiter can give up.
	gate *semaphore.Weighted

	mu          sync.Mutex
	ours        bool // initialised here, so to be finalised here
	restarted   time.Time
	connections map[*connection]struct{}

	// loginMu makes one login at a time, so that two cannot try one wrong PIN twice.
	loginMu sync.Mutex
	salt    [32]byte
	refused map[[32]byte]struct{} // under loginMu: marks of token and PIN
}

// loadModule returns the library at path; every call is paired with a release.
func loadModule(path string) (*module, error) {
	if path == "" {
		return nil, remedied("set the module (for SoftHSM /usr/lib/softhsm/libsofthsm2.so)", "no PKCS#11 module is named")
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, remedied("install the HSM's PKCS#11 library or correct the path", "finding the PKCS#11 module %s: %w", path, err)
	}
	modules.Lock()
	defer modules.Unlock()
	m := modules.loaded[real]
	if m == nil {
		if m, err = newModule(real); err != nil {
			return nil, err
		}
		modules.loaded[real] = m
	}
	if m.users == 0 {
		if err := m.initialize(); err != nil {
			return nil, err
		}
	}
	m.users++
	return m, nil
}

// newModule maps the library. It is never unmapped: libraries leave threads and exit
// handlers behind.
func newModule(path string) (*module, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, remedied("give this user the right to read the library", "opening the PKCS#11 module: %w", err)
	}
	f.Close()
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, remedied("try `ldd "+path+"`: another architecture, or a library it needs is missing",
			"loading the PKCS#11 module %s: the system's loader refuses it or it has no C_GetFunctionList", path)
	}
	m := &module{
		path: path, ctx: ctx, gate: semaphore.NewWeighted(everyone),
		connections: make(map[*connection]struct{}), refused: make(map[[32]byte]struct{}),
	}
	rand.Read(m.salt[:])
	return m, nil
}

// release gives the library back; the last user finalises it.
func (m *module) release() {
	modules.Lock()
	defer modules.Unlock()
	m.users--
	if m.users > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if m.gate.Acquire(ctx, everyone) != nil {
		return // a call is stuck inside; finalising beneath it would crash the process
	}
	defer m.gate.Release(everyone)
	m.finalize()
}

// shared reports whether the library was initialised for somebody else before.
func (m *module) shared() bool {
	modules.Lock()
	defer modules.Unlock()
	return m.users > 1
}

// initialize calls C_Initialize. When another part of the process did so before, the
// library is used but never finalised on that part's behalf.
func (m *module) initialize() error {
	err := m.ctx.Initialize()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.ours = true
	case !is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED):
		return remedied("look at the library's own configuration (for SoftHSM: SOFTHSM2_CONF and its token directory)",
			"initialising the PKCS#11 module %s: %w", m.path, err)
	}
	return nil
}

// finalize calls C_Finalize. The caller holds the whole gate.
func (m *module) finalize() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.connections {
		m.forfeit(c)
	}
	if m.ours {
		_ = m.ctx.Finalize() // has no remedy: what comes next makes it anew
		m.ours = false
	}
}

// restart finalises and initialises the library, for those that show a token that came
// back only after that. It reports whether that was done since the given time, here or
// for a neighbour. It pauses between two restarts, unless it must.
func (m *module) restart(since time.Time, must bool) (bool, error) {
	m.mu.Lock()
	before := m.restarted
	if before.After(since) || time.Since(before) < restartPause && !must {
		m.mu.Unlock()
		return before.After(since), nil
	}
	m.restarted = time.Now()
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := m.gate.Acquire(ctx, everyone); err != nil {
		return false, fmt.Errorf("restarting the PKCS#11 module %s: a call is stuck inside: %w", m.path, err)
	}
	defer m.gate.Release(everyone)
	m.finalize()
	if err := m.initialize(); err != nil {
		return false, err
	}
	return true, nil
}

// enter lets one call sequence into the library; the returned error is ctx's.
func (m *module) enter(ctx context.Context) error { return m.gate.Acquire(ctx, 1) }
func (m *module) leave()                          { m.gate.Release(1) }

// forfeit takes its handles from a connection: the library numbers anew, so an old one
// may be another token's session or another key. The caller holds m.mu.
func (m *module) forfeit(c *connection) {
	c.forfeited.Store(true)
	c.dead.Store(true)
	delete(m.connections, c)
}

// doom forfeits every connection to a slot whose sessions are gone.
func (m *module) doom(slot uint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.connections {
		if c.slot == slot {
			m.forfeit(c)
		}
	}
}

func (m *module) join(c *connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connections[c] = struct{}{}
}

func (m *module) part(c *connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.connections, c)
}

// login logs in to the token of session s. A PIN that a token refused is never sent to
// that token again by this process; a PIN source that gives another one is tried.
func (m *module) login(s pkcs11.SessionHandle, info pkcs11.TokenInfo, pin []byte) error {
	m.loginMu.Lock()
	defer m.loginMu.Unlock()
	mark := m.mark(info.SerialNumber, pin)
	if _, known := m.refused[mark]; known {
		return wrongPIN("the PIN was refused before and is not tried again")
	}
	switch flags := info.Flags; {
	case flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
		return remedied("set it with the HSM's own tool", "the user PIN of the token %q was never set", info.Label)
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w: it is locked after too many wrong tries; the security officer must unlock it", ErrWrongPIN)
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fmt.Errorf("%w: one try is left before it locks, and a program must not take it; log in once by hand with the right PIN", ErrWrongPIN)
	}
	err := m.ctx.Login(s, pkcs11.CKU_USER, view(pin))
	switch {
	case err == nil, is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case refusedPIN(err):
		m.refused[mark] = struct{}{}
		return wrongPIN(err.Error())
	}
	return failed("C_Login", err)
}

func wrongPIN(why string) error {
	return remedied("correct the PIN source; it was tried once and will not be tried again until the PIN there changes",
		"%w: %s", ErrWrongPIN, why)
}

// mark stands for a PIN in memory without holding it.
func (m *module) mark(serial string, pin []byte) (sum [32]byte) {
	h := hmac.New(sha256.New, m.salt[:])
	h.Write([]byte(serial))
	h.Write([]byte{0})
	h.Write(pin)
	h.Sum(sum[:0])
	return sum
}
