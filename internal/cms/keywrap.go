package cms

import (
	"crypto/aes"
	"crypto/cipher"
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
	if len(key) < 16 || len(key)%8 != 0 {
		return nil, errors.New("cms: a key to be wrapped has 16 octets or more, in eights")
	}
	return wrapBlocks(block, wrapIV, key), nil
}

func wrapBlocks(block cipher.Block, head, key []byte) []byte {
	n := len(key) / 8
	out := append(append([]byte{}, head...), key...)
	var b [16]byte
	copy(b[:8], head)
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[8:], out[8*i:])
			block.Encrypt(b[:], b[:])
			step(&b, n*j+i)
			copy(out[8*i:], b[8:])
		}
	}
	copy(out, b[:8])
	return out
}

// unwrapKey undoes wrapKey (RFC 3394, Section 2.2.2). Whether the key is whole is
// told without a branch on its octets.
func unwrapKey(kek, wrapped []byte) (key []byte, ok bool) {
	head, key, ok := unwrapBlocks(kek, wrapped)
	return key, ok && subtle.ConstantTimeCompare(head[:], wrapIV) == 1
}

// wrapPaddedIV begins the initial value of RFC 5649, Section 3; the length of the
// plaintext follows it.
var wrapPaddedIV = []byte{0xA6, 0x59, 0x59, 0xA6}

// unwrapPadded undoes AES key wrap with padding (RFC 5649, Section 4.2) of more than
// eight octets.
func unwrapPadded(kek, wrapped []byte) (plain []byte, ok bool) {
	head, padded, ok := unwrapBlocks(kek, wrapped)
	if !ok || subtle.ConstantTimeCompare(head[:4], wrapPaddedIV) != 1 {
		return nil, false
	}
	size := uint64(binary.BigEndian.Uint32(head[4:]))
	if size > uint64(len(padded)) || size+8 <= uint64(len(padded)) {
		return nil, false
	}
	if subtle.ConstantTimeCompare(padded[size:], make([]byte, len(padded)-int(size))) != 1 {
		return nil, false
	}
	return padded[:size], true
}

// unwrapBlocks is the decryption that both have in common; head is to be checked.
func unwrapBlocks(kek, wrapped []byte) (head [8]byte, rest []byte, ok bool) {
	block, err := aes.NewCipher(kek)
	n := len(wrapped)/8 - 1
	if err != nil || n < 2 || len(wrapped)%8 != 0 {
		return head, nil, false
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
	return [8]byte(b[:8]), out[8:], true
}

// step adds the counter of a step to the left half.
func step(b *[16]byte, t int) {
	left := binary.BigEndian.Uint64(b[:8]) ^ uint64(t)
	binary.BigEndian.PutUint64(b[:8], left)
}
