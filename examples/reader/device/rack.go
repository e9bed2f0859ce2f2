package device

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"hufu/hsm"
	"hufu/internal/softhsm"
	"hufu/readers/apdu"
)

// Rack is a folder of readers. A reader is in memory only while somebody talks to
// it, so a rack may hold any number of them.
type Rack struct {
	Cuts *Cuts            // nil: the power stays
	Now  func() time.Time // nil: time.Now

	dir  string
	lock *os.File // held by the one process that changes the readers
	chip cipher.AEAD

	mu   sync.Mutex
	busy map[string]bool // numbers of readers that are powered

	home struct {
		once sync.Once
		home *softhsm.Home
		err  error
	}
}

// OpenRack takes up a folder, and makes it where it is missing.
func OpenRack(dir string) (*Rack, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another program has the readers of %s in hand; end it first: %w", dir, err)
	}
	k, err := lookAt(dir)
	if isMissing(err) {
		err = makeChipKey(dir)
		if err == nil {
			k, err = lookAt(dir)
		}
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	k.lock = lock
	return k, nil
}

// Close gives the folder back.
func (k *Rack) Close() { k.lock.Close() }

// chipKey is the file with the key of all images of a folder.
const chipKey = "chip.key"

func makeChipKey(dir string) error {
	key := make([]byte, 32)
	rand.Read(key)
	path := filepath.Join(dir, chipKey)
	if err := os.WriteFile(path+temporary, key, 0o600); err != nil {
		return err
	}
	return os.Rename(path+temporary, path)
}

// lookAt opens a folder without taking it in hand.
func lookAt(dir string) (*Rack, error) {
	key, err := os.ReadFile(filepath.Join(dir, chipKey))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", chipKey, err)
	}
	k := &Rack{dir: dir, busy: map[string]bool{}}
	k.chip, err = cipher.NewGCM(block)
	return k, err
}

// All shows the facts of each reader, while others may work with them.
func All(dir string, show func(Facts)) error {
	k, err := lookAt(dir)
	if err != nil {
		return fmt.Errorf("there are no readers in %s: %w", dir, err)
	}
	numbers, err := k.Numbers()
	if err != nil {
		return err
	}
	for _, n := range numbers {
		m, err := k.load(n)
		if err != nil {
			return err
		}
		show(m.facts())
	}
	return nil
}

// Numbers lists the readers, sorted.
func (k *Rack) Numbers() ([]string, error) {
	d, err := os.Open(k.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, name := range names {
		if number, ok := strings.CutSuffix(name, suffix); ok {
			list = append(list, number)
		}
	}
	slices.Sort(list)
	return list, nil
}

// Spec is what the maker gives a reader. Its number is set by the maker, and
// nobody else.
type Spec struct {
	Number, Model, Firmware, Approval string
	Token                             bool
}

// New powers a reader that leaves the maker's line, or takes up the same one that
// was begun before. It lasts from the first command that writes.
func (k *Rack) New(s Spec) (*Reader, error) {
	if err := checkNumber(s.Number); err != nil {
		return nil, err
	}
	r, err := k.Reader(s.Number)
	if err == nil {
		if f := r.Facts(); (Spec{f.Number, f.Model, f.Firmware, f.Approval, f.Token}) != s {
			r.Close()
			return nil, fmt.Errorf("reader %s was made already, and otherwise: model %s, firmware %s, approval %s", s.Number, f.Model, f.Firmware, f.Approval)
		}
		return r, nil
	}
	if !isMissing(err) {
		return nil, err
	}
	m := &image{Number: s.Number, Model: s.Model, Firmware: s.Firmware, Approval: s.Approval}
	if err := k.claim(s.Number); err != nil {
		return nil, err
	}
	r = &Reader{rack: k, flash: m}
	if s.Token {
		// The PIN lasts before there is a token, so that no token is without one.
		m.PIN = []byte(rand.Text())
		if err := r.save(m); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// Reader powers a reader, which only one has in hand at a time.
func (k *Rack) Reader(number string) (*Reader, error) {
	if err := k.claim(number); err != nil {
		return nil, err
	}
	m, err := k.load(number)
	if err != nil {
		k.release(number)
		return nil, err
	}
	return &Reader{rack: k, flash: m}, nil
}

func (k *Rack) claim(number string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[number] {
		return fmt.Errorf("reader %s is powered already", number)
	}
	k.busy[number] = true
	return nil
}

func (k *Rack) release(number string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.busy, number)
}

// Bench serves the readers to hosts, a slot each. trouble hears why the slots could
// not be listed.
func (k *Rack) Bench(trouble func(error)) *apdu.Bench {
	return &apdu.Bench{
		Names: func() []string {
			list, err := k.Numbers()
			if err != nil {
				trouble(err)
			}
			return list
		},
		Open: func(number string) (apdu.Slot, func(), error) {
			r, err := k.Reader(number)
			if err != nil {
				return nil, nil, err
			}
			return r.Answer, r.Close, nil
		},
	}
}

func (k *Rack) now() time.Time {
	if k.Now != nil {
		return k.Now()
	}
	return time.Now()
}

// tokens is the home of the tokens of those readers that have one.
func (k *Rack) tokens() (*softhsm.Home, error) {
	k.home.once.Do(func() {
		if k.home.home, k.home.err = softhsm.New(filepath.Join(k.dir, "tokens")); k.home.err == nil {
			k.home.err = k.home.home.Activate()
		}
	})
	return k.home.home, k.home.err
}

func tokenLabel(number string) string { return "reader-" + number }

// own opens the reader's token, once, and removes what the reader forgot.
func (r *Reader) own() (*hsm.Token, error) {
	if r.token != nil {
		return r.token, nil
	}
	home, err := r.rack.tokens()
	if err != nil {
		return nil, err
	}
	token, err := r.openToken(home.Module())
	if errors.Is(err, hsm.ErrTokenGone) && r.flash.Device == nil {
		// The PIN of the security officer is forgotten: nobody unblocks a reader.
		if _, err := hsm.InitToken(home.Module(), tokenLabel(r.flash.Number), []byte(rand.Text()), r.flash.PIN); err != nil {
			return nil, fmt.Errorf("making the token of reader %s: %w", r.flash.Number, err)
		}
		token, err = r.openToken(home.Module())
	}
	if err != nil {
		return nil, fmt.Errorf("opening the token of reader %s: %w", r.flash.Number, err)
	}
	if err := sweep(context.Background(), token, r.flash.keys()); err != nil {
		token.Close()
		return nil, err
	}
	r.token = token
	return token, nil
}

func (r *Reader) openToken(module string) (*hsm.Token, error) {
	return hsm.Open(context.Background(), hsm.Config{Module: module, URI: "pkcs11:token=" + tokenLabel(r.flash.Number),
		PIN: func() ([]byte, error) { return slices.Clone(r.flash.PIN), nil }})
}

func sweep(ctx context.Context, token *hsm.Token, keep []*key) error {
	all, err := token.Keys(ctx)
	if err != nil {
		return err
	}
	for _, info := range all {
		if slices.ContainsFunc(keep, func(k *key) bool { return k != nil && k.Label == info.Label }) {
			continue
		}
		k, err := token.KeyByLabel(ctx, info.Label)
		if err == nil {
			err = token.DestroyKey(ctx, k)
		}
		if err != nil {
			return fmt.Errorf("removing a key that is not needed any more: %w", err)
		}
	}
	return nil
}

var errNumber = errors.New("a reader's number has 1 to 20 digits and lower-case letters")

func checkNumber(number string) error {
	if number == "" || len(number) > 20 || strings.Trim(number, "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
		return fmt.Errorf("%q: %w", number, errNumber)
	}
	return nil
}
