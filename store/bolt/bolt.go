// Package bolt keeps a book in one file, on go.etcd.io/bbolt.
//
// The file belongs to one process at a time. It refuses a file that others may read or write, and after a commit that failed it refuses
// everything: what then is on the disk is for the next start to find out.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"hufu/store"
)

// Options of Open. The zero value serves.
type Options struct {
	Timeout   time.Duration // how long to wait for another process to let go of the file; 0 = 5 s
	MustExist bool          // a file that is not there is an error and is not made
	ReadOnly  bool          // other readers may have the file open too; Update is refused
}

const defaultTimeout = 5 * time.Second

// mapSize is how much of the address space the file gets: 256 GiB, next to nothing on a machine of 32 bits. bbolt stops all writers, until
// the last reader has ended, when a file outgrows its map; so the map is made larger than the file will be. It costs no memory.
const mapSize = math.MaxInt >> 25

// Engine is a store.Engine in one file.
type Engine struct {
	db *bbolt.DB

	mu      sync.Mutex
	changed chan struct{} // closed at the next commit, and for good once failed is set; guarded by mu
	failed  error         // why nothing works any more: a failed commit, or Close; guarded by mu
}

var _ store.Engine = (*Engine)(nil)

// Open opens the file, or makes it with mode 0600.
func Open(path string, opt Options) (*Engine, error) {
	e, err := openFile(path, opt)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return e, nil
}

func openFile(path string, opt Options) (*Engine, error) {
	info, err := os.Stat(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	switch {
	case isNew && (opt.MustExist || opt.ReadOnly):
		return nil, fmt.Errorf("there is no such file: %w", store.ErrNotFound)
	case isNew:
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others may use it (mode %04o): chmod 600 it", info.Mode().Perm())
	}
	if opt.Timeout == 0 {
		opt.Timeout = defaultTimeout
	}
	bopt := &bbolt.Options{
		Timeout:  opt.Timeout,
		ReadOnly: opt.ReadOnly,
		// The list of free pages is written with every commit: without it, a start after a crash reads the whole file. bbolt's other kind
		// of list sorts itself for each writing, which after a large batch makes small commits five times slower.
		NoFreelistSync:  false,
		FreelistType:    bbolt.FreelistArrayType,
		InitialMmapSize: mapSize,
		NoStatistics:    true,
	}
	db, err := bbolt.Open(path, 0o600, bopt)
	if errors.Is(err, syscall.ENOMEM) {
		// Where the address space is rationed, long readers may make writers wait.
		bopt.InitialMmapSize = 0
		db, err = bbolt.Open(path, 0o600, bopt)
	}
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s still has it open after %v: stop that process, or let it do the work", holder(info), opt.Timeout)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return nil, fmt.Errorf("it is not the file of a book, or it is damaged: restore a backup: %w: %w", store.ErrCorrupt, err)
	case err != nil:
		return nil, err
	}
	if isNew {
		// A file whose name is not on the disk is gone after a power cut, with all that was ever committed to it.
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return &Engine{db: db, changed: make(chan struct{})}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// View implements store.Engine.
func (e *Engine) View(ctx context.Context, f func(store.Snapshot) error) error {
	tx, err := e.begin(ctx, false)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return f(&snapshot{tx: tx})
}

// Update implements store.Engine.
func (e *Engine) Update(ctx context.Context, f func(store.Snapshot) ([]store.Write, error)) error {
	tx, err := e.begin(ctx, true)
	if err != nil {
		return err
	}
	defer tx.Rollback() // without effect after a commit
	writes, err := f(&snapshot{tx: tx})
	if err != nil || len(writes) == 0 {
		return err
	}
	if err := e.commit(tx, writes); err != nil {
		return err
	}
	e.wake(nil)
	return nil
}

// begin starts a transaction, unless the engine has failed or was closed.
func (e *Engine) begin(ctx context.Context, writable bool) (*bbolt.Tx, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tx, err := e.db.Begin(writable)
	switch {
	case errors.Is(err, berrors.ErrDatabaseNotOpen):
		return nil, store.ErrClosed
	case errors.Is(err, berrors.ErrDatabaseReadOnly):
		return nil, store.ErrReadOnly
	case err != nil:
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		return nil, errors.Join(e.failed, tx.Rollback())
	}
	return tx, nil
}

// commit makes the writes. Whatever goes wrong from here on is final: after a failed fsync the kernel may hold pages that it takes for written
// and the disk does not have, and a meta page that did not reach the disk is seen by every later reader.
func (e *Engine) commit(tx *bbolt.Tx, writes []store.Write) (err error) {
	err = errors.New("the commit ended in a panic")
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", store.ErrFailed, err)
			e.wake(err)
		}
	}()
	if err = apply(tx, writes); err != nil {
		return err
	}
	return tx.Commit()
}

// apply puts the writes into the transaction. Keys lie in one bucket for each first octet, so that keys which only grow, as those of a journal do,
// lie apart from those that come in any order.
func apply(tx *bbolt.Tx, writes []store.Write) error {
	var bucket *bbolt.Bucket
	var key []byte // bbolt copies it
	space := -1
	for _, w := range writes {
		key = append(key[:0], w.Key...)
		if int(key[0]) != space {
			var err error
			if bucket, err = tx.CreateBucketIfNotExists(key[:1]); err != nil {
				return err
			}
			space = int(key[0])
			// Pages that nothing will be put between later are filled; the others keep the room that bbolt leaves them.
			bucket.FillPercent = bbolt.DefaultFillPercent
			if last, _ := bucket.Cursor().Last(); bytes.Compare(key, last) > 0 {
				bucket.FillPercent = 0.95
			}
		}
		var err error
		if w.Value == nil {
			err = bucket.Delete(key)
		} else {
			err = bucket.Put(key, w.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wake tells those who wait that there is something to see, or that there never will be.
func (e *Engine) wake(failed error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		return
	}
	close(e.changed)
	if e.failed = failed; failed == nil {
		e.changed = make(chan struct{})
	}
}

// Changed implements store.Engine.
func (e *Engine) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// Close implements store.Engine.
func (e *Engine) Close() error {
	err := e.db.Close()
	e.wake(store.ErrClosed)
	return err
}

// snapshot is a transaction of bbolt as store reads it.
type snapshot struct {
	tx    *bbolt.Tx
	known []space // bbolt looks a bucket up anew each time
}

type space struct {
	first  byte
	bucket *bbolt.Bucket // nil if there is none
}

func (s *snapshot) bucket(first byte) *bbolt.Bucket {
	for _, k := range s.known {
		if k.first == first {
			return k.bucket
		}
	}
	b := s.tx.Bucket([]byte{first})
	s.known = append(s.known, space{first, b})
	return b
}

// Get implements store.Snapshot.
func (s *snapshot) Get(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, nil
	}
	b := s.bucket(key[0])
	if b == nil {
		return nil, nil
	}
	return b.Get(key), nil
}

// Scan implements store.Snapshot.
func (s *snapshot) Scan(from, to []byte, reverse bool) iter.Seq2[store.Pair, error] {
	return func(yield func(store.Pair, error) bool) {
		first, last := 0, 255
		if len(from) > 0 {
			first = int(from[0])
		}
		if len(to) > 0 {
			last = int(to[0])
		}
		for i := first; i <= last; i++ {
			space := i
			if reverse {
				space = last - (i - first)
			}
			if b := s.bucket(byte(space)); b != nil && !scanBucket(b.Cursor(), from, to, reverse, yield) {
				return
			}
		}
	}
}

// scanBucket goes through the keys of one bucket that lie in the range; it returns false when the reader has had enough.
func scanBucket(c *bbolt.Cursor, from, to []byte, reverse bool, yield func(store.Pair, error) bool) bool {
	var k, v []byte
	if !reverse {
		for k, v = c.Seek(from); k != nil && (to == nil || bytes.Compare(k, to) < 0); k, v = c.Next() {
			if !yield(store.Pair{Key: k, Value: v}, nil) {
				return false
			}
		}
		return true
	}
	if to == nil {
		k, v = c.Last()
	} else if k, _ = c.Seek(to); k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	for ; k != nil && bytes.Compare(k, from) >= 0; k, v = c.Prev() {
		if !yield(store.Pair{Key: k, Value: v}, nil) {
			return false
		}
	}
	return true
}

// holder names the process that has the file locked, where the system says so.
func holder(file fs.FileInfo) string {
	pid := lockHolder(file)
	if pid == "" {
		return "another process"
	}
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "process " + pid
	}
	return "process " + pid + " (" + strings.TrimSpace(string(name)) + ")"
}
