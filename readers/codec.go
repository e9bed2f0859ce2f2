package readers

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"hufu/store"
)

// codec writes a reader in as few octets as a register of millions wants, and
// reads it back many times faster than JSON would be read: a plan for many readers
// reads them all. The first octet is the version of the layout.
var codec = store.Codec[Reader]{Append: appendReader, Decode: decodeReader}

const layout = 1

// words, serials, hashes and flags are the fields of a kind, in the order in which
// they are written; a test holds that none is forgotten.
func (rd *Reader) words() []*string {
	return []*string{&rd.Number, &rd.City, (*string)(&rd.State), &rd.Model, &rd.Firmware, &rd.Approval, &rd.Batch, &rd.Customer, &rd.Ticket,
		&rd.DeviceCA, &rd.CA, &rd.NextCA, &rd.Successor, &rd.Predecessor}
}

func (rd *Reader) serials() []*store.Serial {
	return []*store.Serial{&rd.DeviceSerial, &rd.Sign, &rd.Encrypt, &rd.NextSign, &rd.NextEncrypt}
}

func (rd *Reader) hashes() []*store.Hash {
	return []*store.Hash{&rd.Device, &rd.DeviceKey, &rd.Receipt}
}

func (rd *Reader) flags() []*bool { return []*bool{&rd.Escrowed, &rd.Elsewhere, &rd.NextEscrowed} }

func (c *Change) words() []*string {
	return []*string{&c.Step, (*string)(&c.From), (*string)(&c.To), &c.Actor, &c.Note}
}

func appendReader(dst []byte, rd *Reader) []byte {
	dst = append(dst, layout)
	for _, w := range rd.words() {
		dst = appendWord(dst, *w)
	}
	for _, s := range rd.serials() {
		if s.IsZero() {
			dst = append(dst, 0)
			continue
		}
		dst = append(append(dst, 1), s[:]...)
	}
	for _, h := range rd.hashes() {
		if h.IsZero() {
			dst = append(dst, 0)
			continue
		}
		dst = append(append(dst, 1), h[:]...)
	}
	var flags byte
	for i, f := range rd.flags() {
		if *f {
			flags |= 1 << i
		}
	}
	dst = append(dst, flags)
	dst = appendMoment(dst, rd.NotAfter)
	dst = binary.AppendUvarint(dst, rd.Seq)
	dst = binary.AppendUvarint(dst, uint64(len(rd.History)))
	for i := range rd.History {
		c := &rd.History[i]
		dst = appendMoment(dst, c.Time)
		dst = binary.AppendUvarint(dst, c.Seq)
		for _, w := range c.words() {
			dst = appendWord(dst, *w)
		}
	}
	return dst
}

func appendWord(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendMoment writes whole seconds: neither certificates nor histories have more.
func appendMoment(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(dst, 0)
	}
	return binary.BigEndian.AppendUint64(append(dst, 1), uint64(t.Unix()))
}

var errEncoding = errors.New("the reader's record is cut short, too long, or of a layout that is unknown")

func decodeReader(src []byte, rd *Reader) error {
	d := &decoder{src: src}
	if d.octet() != layout {
		return errEncoding
	}
	for _, w := range rd.words() {
		*w = d.word()
	}
	for _, s := range rd.serials() {
		if d.octet() == 1 {
			copy(s[:], d.take(uint64(len(s))))
		}
	}
	for _, h := range rd.hashes() {
		if d.octet() == 1 {
			copy(h[:], d.take(uint64(len(h))))
		}
	}
	flags := d.octet()
	for i, f := range rd.flags() {
		*f = flags&(1<<i) != 0
	}
	rd.NotAfter = d.moment()
	rd.Seq = d.number()
	n := d.number()
	if n > uint64(len(d.src)) { // a change has more octets than one
		return errEncoding
	}
	rd.History = slices.Grow([]Change(nil), int(n))[:n]
	for i := range rd.History {
		c := &rd.History[i]
		c.Time, c.Seq = d.moment(), d.number()
		for _, w := range c.words() {
			*w = d.word()
		}
	}
	if d.bad || len(d.src) > 0 {
		return errEncoding
	}
	return nil
}

// decoder takes values off the front of src; after the first mistake it gives zero
// values.
type decoder struct {
	src []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.src)) {
		d.bad = true
		return nil
	}
	b := d.src[:n]
	d.src = d.src[n:]
	return b
}

func (d *decoder) octet() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) number() uint64 {
	x, n := binary.Uvarint(d.src)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.src = d.src[n:]
	return x
}

func (d *decoder) word() string { return string(d.take(d.number())) }

func (d *decoder) moment() time.Time {
	if d.octet() == 0 {
		return time.Time{}
	}
	b := d.take(8)
	if b == nil {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b)), 0).UTC()
}
