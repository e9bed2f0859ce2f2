package cms

import "crypto/aes"

var (
	DeriveKey    = deriveKey
	SharedInfo   = sharedInfo
	WrapKey      = wrapKey
	UnwrapKey    = unwrapKey
	UnwrapPadded = unwrapPadded
)

// WrapWith wraps with any initial value.
func WrapWith(kek, head, key []byte) []byte {
	block, err := aes.NewCipher(kek)
	if err != nil {
		panic(err)
	}
	return wrapBlocks(block, head, key)
}
