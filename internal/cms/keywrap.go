package cms

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// wrapIV is the initial value of RFC 3394, Section 2.2.3.1.
var wrapIV = []byte{0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6}

// wrapKey is AES key wrap (RFC 3394, Section 2.2.1).
func wrapKey(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	n := len(key) / 8
	if n < 2 || len(key)%8 != 0 {
		return nil, errors.New("cms: a key to be wrapped has 16 octets or more, in eights")
	}
	out := append(append([]byte{}, wrapIV...), key...)
	var b [16]byte
	copy(b[:8], wrapIV)
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[8:], out[8*i:])
			block.Encrypt(b[:], b[:])
			step(&b, n*j+i)
			copy(out[8*i:], b[8:])
		}
	}
	copy(out, b[:8])
	return out, nil
}

// unwrapKey undoes wrapKey (RFC 3394, Section 2.2.2). Whether the key is whole is
// told without a branch on its octets.
func unwrapKey(kek, wrapped []byte) (key []byte, ok bool) {
	block, err := aes.NewCipher(kek)
	n := len(wrapped)/8 - 1
	if err != nil || n < 2 || len(wrapped)%8 != 0 {
		return nil, false
	}
	out := append([]byte{}, wrapped...)
	var b [16]byte
	copy(b[:8], out)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			step(&b, n*j+i)
			copy(b[8:], out[8*i:])
			block.Decrypt(b[:], b[:])
			copy(out[8*i:], b[8:])
		}
	}
	return out[8:], subtle.ConstantTimeCompare(b[:8], wrapIV) == 1
}

// step adds the counter of a step to the left half.
func step(b *[16]byte, t int) {
	left := binary.BigEndian.Uint64(b[:8]) ^ uint64(t)
	binary.BigEndian.PutUint64(b[:8], left)
}
