package store

import (
	"fmt"
	"iter"
	"slices"
)

// listedKey is the key of index "crl": it carries all that a CRL says of a certificate, so that a list of a million is made from the index
// alone, without a look at a row.
func listedKey(s *Status) []byte {
	return Key(s.CA, s.Shard, s.Serial, s.Reason, s.Time, s.InvalidityDate, s.NotAfter)
}

// Listed goes through what is held or revoked of a CA, by shard and serial number; of one shard where that is not 0. It is far cheaper than a
// Scan: of a status it has CA, Shard, Serial, Reason, Time, InvalidityDate and NotAfter, and the Status is the same one each time.
func Listed(tx *Tx, ca string, shard uint16) iter.Seq2[*Status, error] {
	prefix := Key(ca)
	head := len(prefix)
	if shard > 0 {
		prefix = Key(ca, shard)
	}
	base := Statuses.indexBase(nil, "crl")
	from := slices.Concat(base, prefix)
	return func(yield func(*Status, error) bool) {
		s := &Status{CA: ca}
		n := 0
		for pair, err := range tx.scan(from, successor(from), false) {
			if n++; err == nil && n%4096 == 0 {
				err = tx.ctx.Err()
			}
			if err == nil {
				err = s.fromListedKey(pair.Key[len(base)+head:])
			}
			if err != nil {
				yield(nil, fmt.Errorf("reading what is revoked of CA %s: %w", ca, err))
				return
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

// fromListedKey reads what listedKey wrote behind the CA's ID, and the primary key behind that.
func (s *Status) fromListedKey(entry []byte) error {
	d := decoder{src: entry}
	s.Shard = d.uint16()
	copy(s.Serial[:], d.take(uint64(len(s.Serial))))
	s.Reason = int(int64(d.uint64() ^ 1<<63))
	s.Time, s.InvalidityDate, s.NotAfter = d.time(), d.time(), d.time()
	if d.bad {
		return fmt.Errorf("%w: entry %s of index crl is malformed", ErrCorrupt, readable(entry))
	}
	return nil
}
