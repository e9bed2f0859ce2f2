package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// A backup is a stream that knows nothing of the engine below the book: a line that names the format of the stream, a description in JSON, all
// keys in order with their values, a zero octet, the number of keys, and the SHA-256 value of everything before it. Lengths are unsigned
// varints.
const (
	backupMagic    = "hufu backup 1\n"
	maxDescription = 1 << 16
	restoreBatch   = 8 << 20 // octets in one transaction of a restore
	keysToWipe     = 10_000  // in one transaction
)

// ErrDamagedBackup says that a stream is not what Backup wrote.
var ErrDamagedBackup = errors.New("the backup is damaged")

// Backup describes a backup: which book, and what its journal was.
type Backup struct {
	Book   string    `json:"book"`
	Epoch  uint64    `json:"epoch"`
	Format int       `json:"format"`
	Size   int64     `json:"size"`
	Root   Hash      `json:"root"`
	Rows   uint64    `json:"rows"`
	Time   time.Time `json:"time"` // when it was made
}

// Backup writes a consistent snapshot of the book as a stream that any engine can be restored from, while writers go on. progress may be
// nil.
func (b *Book) Backup(ctx context.Context, w io.Writer, progress func(done, total int64)) error {
	err := b.engine.View(ctx, func(s Snapshot) error {
		h, err := readHead(s)
		if err != nil {
			return err
		}
		raw, err := s.Get(bookKey)
		if err != nil {
			return err
		}
		i, err := decodeIdentity(raw)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		about := &Backup{Book: i.ID, Epoch: h.epoch, Format: i.Format, Size: int64(h.seq), Root: h.root, Rows: h.rows, Time: b.now().UTC()}
		return about.write(ctx, s, w, progress)
	})
	if err != nil {
		return fmt.Errorf("writing backup: %w", err)
	}
	return nil
}

func (a *Backup) write(ctx context.Context, s Snapshot, w io.Writer, progress func(done, total int64)) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<18)
	out.WriteString(backupMagic)
	buf := appendString(nil, JSON[Backup]().Append(nil, a))
	out.Write(buf)
	m := meter{total: a.Size + int64(a.Rows), progress: progress}
	keys := uint64(0)
	for pair, err := range s.Scan([]byte{0}, nil, false) {
		if err != nil {
			return err
		}
		if keys++; keys%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		buf = appendString(appendString(buf[:0], pair.Key), pair.Value)
		if _, err := out.Write(buf); err != nil {
			return err
		}
		if pair.Key[0] == spaceEvents || pair.Key[0] == spaceRows {
			m.step()
		}
	}
	out.Write(binary.BigEndian.AppendUint64([]byte{0}, keys))
	if err := out.Flush(); err != nil {
		return err
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return err
	}
	m.end()
	return nil
}

// VerifyBackup reads a backup to its end without restoring it: its checksum, the order of its keys, the Merkle tree of its events.
func VerifyBackup(ctx context.Context, r io.Reader, progress func(done, total int64)) (*Backup, error) {
	contents, err := readBackup(ctx, r, progress, func(key, value []byte) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("reading backup: %w", err)
	}
	return &contents.about, nil
}

// contents is what is known of a backup when it was read to its end.
type contents struct {
	about    Backup
	identity *identity
	head     *head
}

// readBackup reads a backup and gives every key and value to keep, but for those two that make an engine a book. What keep was given counts for
// nothing if readBackup returns an error. key and value are only good until keep returns.
func readBackup(ctx context.Context, r io.Reader, progress func(done, total int64), keep func(key, value []byte) error) (*contents, error) {
	in := &backupReader{in: bufio.NewReaderSize(r, 1<<18), sum: sha256.New()}
	c := new(contents)
	if err := in.begin(&c.about); err != nil {
		return nil, err
	}
	m := meter{total: c.about.Size + int64(c.about.Rows), progress: progress}
	tree := new(head)
	for {
		key, value, err := in.next()
		if err != nil {
			return nil, err
		}
		if key == nil {
			break
		}
		if in.keys%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		switch key[0] {
		case spaceBook:
			if err := c.own(key, value); err != nil {
				return nil, err
			}
			continue
		case spaceEvents:
			if !bytes.Equal(key, eventKey(tree.seq+1)) {
				return nil, fmt.Errorf("%w: event %d is missing", ErrDamagedBackup, tree.seq+1)
			}
			tree.push(leafHash(value), nil)
			m.step()
		case spaceRows:
			m.step()
		}
		if err := keep(key, value); err != nil {
			return nil, err
		}
	}
	tree.seal()
	if err := c.fit(tree); err != nil {
		return nil, err
	}
	m.end()
	return c, nil
}

// own takes the records that the book keeps of itself.
func (c *contents) own(key, value []byte) (err error) {
	switch {
	case bytes.Equal(key, bookKey):
		c.identity, err = decodeIdentity(value)
	case bytes.Equal(key, headKey):
		c.head, err = decodeHead(value)
	default:
		err = fmt.Errorf("it has an unknown record %q", key)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamagedBackup, err)
	}
	return nil
}

// fit compares what a backup says of itself with what was in it.
func (c *contents) fit(tree *head) error {
	switch {
	case c.identity == nil || c.head == nil:
		return fmt.Errorf("%w: it does not say what book it is of", ErrDamagedBackup)
	case c.identity.ID != c.about.Book || c.identity.Format != c.about.Format || c.head.epoch != c.about.Epoch || c.identity.epoch() != c.head.epoch:
		return fmt.Errorf("%w: its description is that of another book", ErrDamagedBackup)
	case tree.seq != c.head.seq || tree.root != c.head.root || int64(tree.seq) != c.about.Size || tree.root != c.about.Root:
		return fmt.Errorf("%w: its %d events do not have the Merkle root that it states", ErrDamagedBackup, tree.seq)
	}
	return nil
}

// backupReader takes a stream apart and hashes it.
type backupReader struct {
	in   *bufio.Reader
	sum  hash.Hash
	last []byte // key
	buf  []byte
	keys uint64
}

func (r *backupReader) begin(about *Backup) error {
	magic := make([]byte, len(backupMagic))
	if err := r.full(magic); err != nil || string(magic) != backupMagic {
		return errors.New("it is not a backup of a book, or one of a newer kind")
	}
	description, err := r.octets(nil, maxDescription)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(description, about); err != nil {
		return fmt.Errorf("%w: its description: %w", ErrDamagedBackup, err)
	}
	if about.Size < 0 {
		return fmt.Errorf("%w: its description is impossible", ErrDamagedBackup)
	}
	return nil
}

// next returns the next key and its value, or nil at the end, which it checks.
func (r *backupReader) next() (key, value []byte, err error) {
	key, err = r.octets(r.buf[:0], MaxKey)
	if err != nil {
		return nil, nil, err
	}
	if len(key) == 0 {
		return nil, nil, r.end()
	}
	if bytes.Compare(key, r.last) <= 0 {
		return nil, nil, fmt.Errorf("%w: its keys are not in order", ErrDamagedBackup)
	}
	n := len(key)
	r.last = append(r.last[:0], key...)
	both, err := r.octets(key, MaxValue)
	if err != nil {
		return nil, nil, err
	}
	r.keys++
	r.buf = both
	return both[:n:n], both[n:], nil
}

func (r *backupReader) end() error {
	var count [8]byte
	if err := r.full(count[:]); err != nil {
		return err
	}
	want := r.sum.Sum(nil)
	var got [sha256.Size]byte
	if err := r.full(got[:]); err != nil {
		return err
	}
	if !bytes.Equal(got[:], want) || binary.BigEndian.Uint64(count[:]) != r.keys {
		return fmt.Errorf("%w: its checksum does not fit", ErrDamagedBackup)
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return errors.Join(err, fmt.Errorf("%w: something comes after its end", ErrDamagedBackup))
	}
	return nil
}

// octets reads a length and as many octets, which it appends to dst.
func (r *backupReader) octets(dst []byte, most uint64) ([]byte, error) {
	var length uint64
	for shift := 0; ; shift += 7 {
		c, err := r.in.ReadByte()
		if err != nil {
			return nil, cutShort(err)
		}
		r.sum.Write([]byte{c})
		length |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
		if shift > 21 {
			length = most + 1
			break
		}
	}
	if length > most {
		return nil, fmt.Errorf("%w: it has a key or a value that is too long", ErrDamagedBackup)
	}
	n := len(dst)
	dst = append(dst, make([]byte, length)...)
	return dst, r.full(dst[n:])
}

func (r *backupReader) full(dst []byte) error {
	if _, err := io.ReadFull(r.in, dst); err != nil {
		return cutShort(err)
	}
	r.sum.Write(dst)
	return nil
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut short", ErrDamagedBackup)
	}
	return err
}
