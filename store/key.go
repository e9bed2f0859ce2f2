package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
)

// Key makes an ordered composite key of string, bool, uint8, uint16, uint32, uint64, int, int64, Serial, Hash, time.Time and []byte
// parts: keys compare as their parts do. A string part ends with 00, so the Key of the leading parts is a prefix of the whole; []byte
// is taken as it is and so belongs at the end. A part of another type is a mistake in the program and panics.
func Key(parts ...any) []byte {
	k := make([]byte, 0, keySize(parts))
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			k = appendKeyString(k, p)
		case []byte:
			k = append(k, p...)
		case Serial:
			k = append(k, p[:]...)
		case Hash:
			k = append(k, p[:]...)
		case time.Time:
			k = appendTime(k, p)
		case bool:
			if p {
				k = append(k, 1)
			} else {
				k = append(k, 0)
			}
		case uint8:
			k = append(k, p)
		case uint16:
			k = binary.BigEndian.AppendUint16(k, p)
		case uint32:
			k = binary.BigEndian.AppendUint32(k, p)
		case uint64:
			k = binary.BigEndian.AppendUint64(k, p)
		case int:
			k = appendInt(k, int64(p))
		case int64:
			k = appendInt(k, p)
		default:
			panic(fmt.Sprintf("store: a key cannot have a part of type %T", part))
		}
	}
	return k
}

// keySize is at least what the usual parts need, so that Key allocates once.
func keySize(parts []any) int {
	n := 0
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			n += len(p) + 1
		case []byte:
			n += len(p)
		case Serial:
			n += len(p)
		case Hash:
			n += len(p)
		default:
			n += 12
		}
	}
	return n
}

// appendKeyString writes s and the octet 00. An octet 00 or 01 inside s is written as two, so that no string ends early and the order
// stays that of the strings.
func appendKeyString(k []byte, s string) []byte {
	if strings.IndexByte(s, 0) < 0 && strings.IndexByte(s, 1) < 0 {
		return append(append(k, s...), 0)
	}
	for i := range len(s) {
		if s[i] <= 1 {
			k = append(k, 1, s[i]+1)
		} else {
			k = append(k, s[i])
		}
	}
	return append(k, 0)
}

// appendInt writes x so that the octets compare as the numbers do.
func appendInt(k []byte, x int64) []byte {
	return binary.BigEndian.AppendUint64(k, uint64(x)^(1<<63))
}

// appendTime writes seconds and nanoseconds since 1970, in octets that compare as the times do: 12 of them.
func appendTime(k []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint32(appendInt(k, t.Unix()), uint32(t.Nanosecond()))
}

// successor returns the first key after all keys that begin with prefix, or nil if there is no such key.
func successor(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != math.MaxUint8 {
			next := append([]byte(nil), prefix[:i+1]...)
			next[i]++
			return next
		}
	}
	return nil
}

// readable writes a key so that a person can recognise it: text as text, the rest in hexadecimal digits.
func readable(key []byte) string {
	var s strings.Builder
	i := 0
	if n := len(Serial{}); len(key) > n && key[0] == 1 {
		fmt.Fprintf(&s, "%x", key[:n])
		i = n
	}
	for i < len(key) {
		j := i
		for j < len(key) && ' ' < key[j] && key[j] < 0x7f {
			j++
		}
		// Printable octets that end with 00, and some that end with the key, are taken for text.
		if j > i && j < len(key) && key[j] == 0 || j-i >= 3 && j == len(key) {
			if s.Len() > 0 {
				s.WriteByte('/')
			}
			s.Write(key[i:j])
			i = j + 1
			continue
		}
		if s.Len() > 0 {
			s.WriteByte('/')
		}
		fmt.Fprintf(&s, "%x", key[i:])
		break
	}
	return s.String()
}
