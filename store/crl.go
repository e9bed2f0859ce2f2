package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// The octets of a CRL lie in chunks beside its record, since a CRL may have tens of megabytes and nobody wants them in one piece.
const (
	chunkSize  = 64 << 10
	stageBatch = 64 // chunks in one transaction of StageCRL
)

// CRLKey is what the keys of a CA's lists of one shard begin with, the full ones or the deltas. Shard 0 is the list of the whole CA.
func CRLKey(ca string, shard uint16, delta bool) []byte { return Key(ca, shard, delta) }

// LastCRL returns the newest list of that kind. The error wraps ErrNotFound when there is none.
func LastCRL(tx *Tx, ca string, shard uint16, delta bool) (*CRL, error) {
	return CRLs.Last(tx, "", CRLKey(ca, shard, delta))
}

func chunkKey(c *CRL, n uint32) []byte {
	key := append([]byte{spaceChunks}, CRLs.Key(c)...)
	return binary.BigEndian.AppendUint32(key, n)
}

// PutCRL records a CRL and its octets. It fills in Size and Sum, or compares them if they are set. Since a transaction's function may run
// more than once, der is to be opened inside it. For a CRL whose octets StageCRL has brought in before, der is nil. The number of a CRL is used
// once: ErrExists.
func PutCRL(tx *Tx, c *CRL, der io.Reader) error {
	want := *c
	sum := sha256.New()
	var size int64
	var err error
	if der == nil {
		size, err = io.Copy(sum, &crlReader{tx: tx, crl: c})
	} else {
		size, err = eachChunk(io.TeeReader(der, sum), func(n uint32, chunk []byte) error { return tx.set(chunkKey(c, n), chunk) })
	}
	if err != nil {
		return fmt.Errorf("keeping CRL %d of %s: %w", c.Number, c.CA, err)
	}
	c.Size = size
	sum.Sum(c.Sum[:0])
	if size == 0 || want.Size != 0 && want.Size != c.Size || !want.Sum.IsZero() && want.Sum != c.Sum {
		*c = want
		return fmt.Errorf("keeping CRL %d of %s: read %d octets that are not those of the CRL", c.Number, c.CA, size)
	}
	return CRLs.Insert(tx, c)
}

// StageCRL brings the octets of a large CRL into the book a few at a time, so that no other writer waits long, and fills in Size and Sum.
// Nobody sees them until PutCRL records the CRL.
func (b *Book) StageCRL(ctx context.Context, c *CRL, der io.Reader) error {
	sum := sha256.New()
	der = io.TeeReader(der, sum)
	if err := b.dropStaged(ctx, c); err != nil {
		return fmt.Errorf("staging CRL %d of %s: %w", c.Number, c.CA, err)
	}
	var batch [][]byte
	var next uint32
	flush := func() error {
		err := b.Update(ctx, func(tx *Tx) error {
			for i, chunk := range batch {
				if err := tx.set(chunkKey(c, next+uint32(i)), chunk); err != nil {
					return err
				}
			}
			return nil
		})
		next, batch = next+uint32(len(batch)), nil
		return err
	}
	size, err := eachChunk(der, func(_ uint32, chunk []byte) error {
		if batch = append(batch, chunk); len(batch) < stageBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return fmt.Errorf("staging CRL %d of %s: %w", c.Number, c.CA, err)
	}
	c.Size = size
	sum.Sum(c.Sum[:0])
	return nil
}

// dropStaged removes what a StageCRL of this CA left behind that was cut short, and refuses if the CRL is there already.
func (b *Book) dropStaged(ctx context.Context, c *CRL) error {
	return b.Update(ctx, func(tx *Tx) error {
		if _, err := CRLs.Get(tx, CRLs.Key(c)); !errors.Is(err, ErrNotFound) {
			return errors.Join(err, fmt.Errorf("CRL %d of %s: %w", c.Number, c.CA, ErrExists))
		}
		from := append([]byte{spaceChunks}, CRLKey(c.CA, c.Shard, c.Delta)...)
		to := successor(from)
		for {
			number, found, err := firstChunk(tx, from, to)
			if err != nil || !found {
				return err
			}
			old := &CRL{CA: c.CA, Shard: c.Shard, Delta: c.Delta, Number: number}
			_, err = CRLs.Get(tx, CRLs.Key(old))
			if errors.Is(err, ErrNotFound) {
				err = dropChunks(tx, old)
			}
			if err != nil {
				return err
			}
			if number == 1<<64-1 {
				return nil
			}
			from = append([]byte{spaceChunks}, Key(c.CA, c.Shard, c.Delta, number+1)...)
		}
	})
}

// firstChunk returns the number of the CRL that the first chunk in the range belongs to.
func firstChunk(tx *Tx, from, to []byte) (number uint64, found bool, err error) {
	for pair, err := range tx.scan(from, to, false) {
		if err != nil || len(pair.Key) < 12 {
			return 0, false, errors.Join(err, ErrCorrupt)
		}
		return binary.BigEndian.Uint64(pair.Key[len(pair.Key)-12:]), true, nil
	}
	return 0, false, nil
}

// DeleteCRL removes the record of a CRL and its octets.
func DeleteCRL(tx *Tx, c *CRL) error {
	if err := CRLs.Delete(tx, CRLs.Key(c)); err != nil {
		return err
	}
	return dropChunks(tx, c)
}

func dropChunks(tx *Tx, c *CRL) error {
	for n := uint32(0); ; n++ {
		key := chunkKey(c, n)
		chunk, err := tx.get(key)
		if err != nil || chunk == nil {
			return err
		}
		if err := tx.set(key, nil); err != nil {
			return err
		}
	}
}

// eachChunk cuts what r gives into chunks, each a slice of its own, and returns how many octets there were.
func eachChunk(r io.Reader, each func(n uint32, chunk []byte) error) (size int64, err error) {
	for n := uint32(0); ; n++ {
		chunk := make([]byte, chunkSize)
		got, err := io.ReadFull(r, chunk)
		if got > 0 {
			size += int64(got)
			if err := each(n, chunk[:got:got]); err != nil {
				return size, err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return size, nil
		default:
			return size, err
		}
	}
}

// OpenCRL returns the octets of a CRL, to be read while tx lasts. Where they do not fit Size and Sum, the reader ends with ErrCorrupt in place
// of io.EOF.
func OpenCRL(tx *Tx, c *CRL) io.Reader {
	return &crlReader{tx: tx, crl: c, sum: sha256.New(), check: true}
}

type crlReader struct {
	tx    *Tx
	crl   *CRL
	next  uint32
	rest  []byte
	size  int64
	sum   hash.Hash
	check bool
}

func (r *crlReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		chunk, err := r.tx.get(chunkKey(r.crl, r.next))
		if err != nil {
			return 0, fmt.Errorf("reading CRL %d of %s: %w", r.crl.Number, r.crl.CA, err)
		}
		if chunk == nil {
			return 0, r.end()
		}
		r.next++
		r.rest = chunk
	}
	n := copy(p, r.rest)
	if r.check {
		r.sum.Write(p[:n])
	}
	r.size += int64(n)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *crlReader) end() error {
	if r.check && (r.size != r.crl.Size || Hash(r.sum.Sum(nil)) != r.crl.Sum) {
		return fmt.Errorf("%w: CRL %d of %s has %d octets that are not those recorded", ErrCorrupt, r.crl.Number, r.crl.CA, r.size)
	}
	return io.EOF
}
