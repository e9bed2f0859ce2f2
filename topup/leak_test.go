package topup_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"

	"hufu/issuance"
	"hufu/policy"
)

// leaks tells in which form b holds the canary or its hash; "" for none.
func leaks(b []byte) string {
	hash := sha256.Sum256(canary)
	for _, secret := range [][]byte{canary, hash[:]} {
		for form, text := range map[string][]byte{
			"octets": secret,
			"hex":    []byte(hex.EncodeToString(secret)), "HEX": bytes.ToUpper([]byte(hex.EncodeToString(secret))),
		} {
			if bytes.Contains(b, text) {
				return form
			}
		}
		// In base64 the octets may begin at any of three places.
		for skip := range 3 {
			whole := base64.StdEncoding.EncodeToString(append(make([]byte, skip), secret...))
			inner := whole[4 : len(whole)-4]
			if bytes.Contains(b, []byte(inner)) {
				return "base64"
			}
		}
	}
	return ""
}

func ecdhKey(key crypto.Signer) (ecdh.KeyExchanger, error) {
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an EC key")
	}
	return k.ECDH()
}

func rsaKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }

func requestFor(profile, number string) issuance.Request {
	return issuance.Request{Profile: profile, Name: policy.Name{Reader: number}}
}
