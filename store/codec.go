package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Codec turns a record into octets and back. Append never fails: a record is always encodable. Decode keeps nothing of src.
type Codec[T any] struct {
	Append func(dst []byte, v *T) []byte
	Decode func(src []byte, v *T) error
}

// JSON is the codec for records that are neither written nor read often.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		Append: func(dst []byte, v *T) []byte {
			b, err := json.Marshal(v)
			if err != nil {
				panic("store: a record cannot be written as JSON: " + err.Error())
			}
			return append(dst, b...)
		},
		Decode: func(src []byte, v *T) error { return json.Unmarshal(src, v) },
	}
}

// The binary codecs below begin with the octet 01, the version of their layout. Numbers are big-endian or unsigned varints, times are
// as appendTime writes them, strings and octet strings have their length in front. Each record has exactly one encoding: Decode refuses
// every other.
const layout = 1

var (
	errLayout   = errors.New("the layout of the record is unknown")
	errEncoding = errors.New("the record is cut short, too long, or not written in the one valid way")
)

func appendString[S string | []byte](dst []byte, s S) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendSerial writes one octet for no serial number, so that events without one are short.
func appendSerial(dst []byte, s Serial) []byte {
	if s.IsZero() {
		return append(dst, 0)
	}
	return append(append(dst, byte(len(s))), s[:]...)
}

// decoder takes values off the front of src. After the first mistake it gives zero values.
type decoder struct {
	src []byte
	bad bool
}

// take returns the next n octets, or nil when there are fewer.
func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.src)) {
		d.bad = true
		return nil
	}
	b := d.src[:n]
	d.src = d.src[n:]
	return b
}

func (d *decoder) uint8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	x, n := binary.Uvarint(d.src)
	if d.bad || n <= 0 || n > 1 && d.src[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.src = d.src[n:]
	return x
}

func (d *decoder) string() string { return string(d.take(d.uvarint())) }

// octets returns a copy, nil if there are none.
func (d *decoder) octets() []byte { return append([]byte(nil), d.take(d.uvarint())...) }

func (d *decoder) bool() bool {
	b := d.uint8()
	d.bad = d.bad || b > 1
	return b == 1
}

func (d *decoder) hash() (h Hash) {
	copy(h[:], d.take(uint64(len(h))))
	return h
}

func (d *decoder) serial() (s Serial) {
	switch d.uint8() {
	case 0:
	case byte(len(s)):
		copy(s[:], d.take(uint64(len(s))))
		d.bad = d.bad || s.IsZero()
	default:
		d.bad = true
	}
	return s
}

func (d *decoder) time() time.Time {
	b := d.take(12)
	if b == nil {
		return time.Time{}
	}
	seconds, nanos := binary.BigEndian.Uint64(b)^(1<<63), binary.BigEndian.Uint32(b[8:])
	t := time.Unix(int64(seconds), int64(nanos)).UTC()
	// time.Unix carries nanoseconds over, and wraps around at the ends of time.
	d.bad = d.bad || t.Unix() != int64(seconds) || uint32(t.Nanosecond()) != nanos
	return t
}

// end returns what went wrong, if anything did or something is left over.
func (d *decoder) end() error {
	if d.bad || len(d.src) > 0 {
		return errEncoding
	}
	return nil
}

// open begins to decode a record.
func open(src []byte) (*decoder, error) {
	if len(src) == 0 || src[0] != layout {
		return nil, errLayout
	}
	return &decoder{src: src[1:]}, nil
}

// MaxEvent is how long an encoded event may be.
const MaxEvent = 1 << 16

// AppendEvent appends the one encoding of e: what the journal keeps, and what the leaf of the Merkle tree is the hash of.
func AppendEvent(dst []byte, e *Event) []byte {
	dst = append(dst, layout)
	dst = binary.BigEndian.AppendUint64(dst, e.Seq)
	dst = appendTime(dst, e.Time)
	dst = appendString(dst, e.Kind)
	dst = appendString(dst, e.CA)
	dst = appendSerial(dst, e.Serial)
	dst = appendString(dst, e.Actor)
	return appendString(dst, e.Detail)
}

// DecodeEvent reads what AppendEvent writes, and nothing else.
func DecodeEvent(src []byte, e *Event) error {
	if len(src) > MaxEvent {
		return fmt.Errorf("decoding event: %d octets; it has at most %d", len(src), MaxEvent)
	}
	d, err := open(src)
	if err == nil {
		*e = Event{Seq: d.uint64(), Time: d.time(), Kind: d.string(), CA: d.string(), Serial: d.serial(), Actor: d.string(), Detail: d.string()}
		err = d.end()
	}
	if err != nil {
		return fmt.Errorf("decoding event: %w", err)
	}
	return nil
}

// caCodec is not JSON since a CA is read for every certificate that is issued.
var caCodec = Codec[CA]{
	Append: func(dst []byte, c *CA) []byte {
		dst = append(dst, layout)
		for _, s := range [...]string{c.ID, c.Line, c.Kind, c.City, c.Suite, c.State, c.KeyURI} {
			dst = appendString(dst, s)
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(c.Generation))
		dst = append(dst, c.SPKI[:]...)
		dst = binary.BigEndian.AppendUint64(dst, c.Seq)
		dst = appendString(dst, c.Certificate)
		dst = binary.AppendUvarint(dst, uint64(len(c.Chain)))
		for _, der := range c.Chain {
			dst = appendString(dst, der)
		}
		return dst
	},
	Decode: func(src []byte, c *CA) error {
		d, err := open(src)
		if err != nil {
			return err
		}
		*c = CA{}
		for _, s := range [...]*string{&c.ID, &c.Line, &c.Kind, &c.City, &c.Suite, &c.State, &c.KeyURI} {
			*s = d.string()
		}
		c.Generation, c.SPKI, c.Seq = int(d.uint64()), d.hash(), d.uint64()
		c.Certificate = d.octets()
		for range d.uvarint() {
			if d.bad {
				break
			}
			c.Chain = append(c.Chain, d.octets())
		}
		return d.end()
	},
}

var certificateCodec = Codec[Certificate]{
	Append: func(dst []byte, c *Certificate) []byte {
		dst = append(dst, layout)
		dst = appendString(dst, c.CA)
		dst = append(dst, c.Serial[:]...)
		dst = append(dst, c.SPKI[:]...)
		dst = appendTime(dst, c.NotBefore)
		dst = appendTime(dst, c.NotAfter)
		dst = binary.BigEndian.AppendUint16(dst, c.Shard)
		dst = binary.BigEndian.AppendUint64(dst, c.Seq)
		for _, s := range [...]string{c.Profile, c.Subject, c.Line, c.Reader, c.City, c.Requester} {
			dst = appendString(dst, s)
		}
		dst = binary.AppendUvarint(dst, uint64(len(c.Names)))
		for _, s := range c.Names {
			dst = appendString(dst, s)
		}
		return appendString(dst, c.DER)
	},
	Decode: func(src []byte, c *Certificate) error {
		d, err := open(src)
		if err != nil {
			return err
		}
		*c = Certificate{CA: d.string()}
		copy(c.Serial[:], d.take(uint64(len(c.Serial))))
		c.SPKI = d.hash()
		c.NotBefore, c.NotAfter = d.time(), d.time()
		c.Shard, c.Seq = d.uint16(), d.uint64()
		for _, s := range [...]*string{&c.Profile, &c.Subject, &c.Line, &c.Reader, &c.City, &c.Requester} {
			*s = d.string()
		}
		for range d.uvarint() {
			if d.bad {
				break
			}
			c.Names = append(c.Names, d.string())
		}
		c.DER = d.octets()
		return d.end()
	},
}

var statusCodec = Codec[Status]{
	Append: func(dst []byte, s *Status) []byte {
		dst = append(dst, layout)
		dst = appendString(dst, s.CA)
		dst = append(dst, s.Serial[:]...)
		dst = append(dst, byte(s.State))
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.Reason))
		dst = appendTime(dst, s.Time)
		dst = appendTime(dst, s.InvalidityDate)
		dst = appendTime(dst, s.NotAfter)
		dst = appendBool(dst, s.Unissued)
		dst = appendBool(dst, s.Lifted)
		dst = binary.BigEndian.AppendUint16(dst, s.Shard)
		return binary.BigEndian.AppendUint64(dst, s.Seq)
	},
	Decode: func(src []byte, s *Status) error {
		d, err := open(src)
		if err != nil {
			return err
		}
		*s = Status{CA: d.string()}
		copy(s.Serial[:], d.take(uint64(len(s.Serial))))
		s.State, s.Reason = State(d.uint8()), int(d.uint64())
		s.Time, s.InvalidityDate, s.NotAfter = d.time(), d.time(), d.time()
		s.Unissued, s.Lifted, s.Shard, s.Seq = d.bool(), d.bool(), d.uint16(), d.uint64()
		return d.end()
	},
}

var intentCodec = Codec[Intent]{
	Append: func(dst []byte, i *Intent) []byte {
		dst = append(dst, layout)
		dst = appendString(dst, i.CA)
		dst = append(dst, i.Serial[:]...)
		for _, h := range [...]Hash{i.TBSHash, i.SPKI, i.RequestHash} {
			dst = append(dst, h[:]...)
		}
		for _, s := range [...]string{i.Requester, i.Profile, i.IdempotencyKey, i.Line, i.Node} {
			dst = appendString(dst, s)
		}
		dst = binary.BigEndian.AppendUint16(dst, i.Shard)
		dst = appendTime(dst, i.Time)
		return binary.BigEndian.AppendUint64(dst, i.Seq)
	},
	Decode: func(src []byte, i *Intent) error {
		d, err := open(src)
		if err != nil {
			return err
		}
		*i = Intent{CA: d.string()}
		copy(i.Serial[:], d.take(uint64(len(i.Serial))))
		i.TBSHash, i.SPKI, i.RequestHash = d.hash(), d.hash(), d.hash()
		for _, s := range [...]*string{&i.Requester, &i.Profile, &i.IdempotencyKey, &i.Line, &i.Node} {
			*s = d.string()
		}
		i.Shard, i.Time, i.Seq = d.uint16(), d.time(), d.uint64()
		return d.end()
	},
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}
