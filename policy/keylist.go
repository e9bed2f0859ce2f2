package policy

import (
	"bufio"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// A KeyList names keys that must not be certified: keys whose private half is
// known, and the guessable keys that Debian's OpenSSL made from 2006 to 2008.
//
// Hufu brings no list. The Debian one is the data of the package
// openssl-blacklist, which the operator has to obtain and load; until that is
// done, CheckKey does not know such keys. Keys shared between two
// certificate lines are found by the book, not here.
//
// The format is text, one key a line; blank lines and what follows # are left out:
//
//	spki-sha256:<64 hexadecimal digits>   SHA-256 of the SubjectPublicKeyInfo's DER
//	<20 hexadecimal digits>               as openssl-blacklist writes an RSA modulus
//
// The second form is the last 80 bits of the SHA-1 of "Modulus=<hex>\n", with the
// modulus in capital hexadecimal digits: what "openssl rsa -modulus" prints.
//
// A nil *KeyList names nothing.
type KeyList struct {
	keys   map[[sha256.Size]byte]struct{}
	moduli map[[10]byte]struct{}
}

const spkiPrefix = "spki-sha256:"

// ReadKeyList reads a list. A line that it does not understand is an error, so
// that no key is let through by a slip of the pen.
func ReadKeyList(r io.Reader) (*KeyList, error) {
	l := &KeyList{keys: map[[sha256.Size]byte]struct{}{}, moduli: map[[10]byte]struct{}{}}
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		digits, isKey := strings.CutPrefix(text, spkiPrefix)
		b, err := hex.DecodeString(digits)
		switch {
		case err == nil && isKey && len(b) == sha256.Size:
			l.keys[[sha256.Size]byte(b)] = struct{}{}
		case err == nil && !isKey && len(b) == 10:
			l.moduli[[10]byte(b)] = struct{}{}
		default:
			return nil, fmt.Errorf("reading the list of keys: line %d is neither %s and 64 hexadecimal digits nor 20 hexadecimal digits", number, spkiPrefix)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the list of keys: %w", err)
	}
	return l, nil
}

// Len is the number of keys on the list.
func (l *KeyList) Len() int {
	if l == nil {
		return 0
	}
	return len(l.keys) + len(l.moduli)
}

// blocks says why a key is on the list, "" when it is not.
func (l *KeyList) blocks(spki []byte, k *publicKey) string {
	if l == nil {
		return ""
	}
	if len(l.keys) > 0 {
		if _, found := l.keys[sha256.Sum256(spki)]; found {
			return "its private half is known"
		}
	}
	if len(l.moduli) > 0 && k.kind.RSA() {
		sum := sha1.Sum(fmt.Appendf(nil, "Modulus=%X\n", k.modulus)) // a fingerprint, not a signature: SHA-1 is what the list has
		if _, found := l.moduli[[10]byte(sum[10:])]; found {
			return "Debian's guessable generator made it"
		}
	}
	return ""
}
