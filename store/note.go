package store

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// SignNote returns text as a signed note (C2SP, signed-note) with an ECDSA signature over SHA-256. The signature's name is the first line
// of the text.
func SignNote(text string, key crypto.Signer) ([]byte, error) {
	k, err := newNoteKey(text, key.Public())
	if err != nil {
		return nil, err
	}
	k.signer = key
	return note.Sign(&note.Note{Text: text}, k)
}

// OpenNote checks the signature of a note that SignNote made and returns its text.
func OpenNote(signed []byte, key crypto.PublicKey) (string, error) {
	k, err := newNoteKey(string(signed), key)
	if err != nil {
		return "", err
	}
	n, err := note.Open(signed, note.VerifierList(k))
	if err != nil {
		return "", err
	}
	return n.Text, nil
}

// noteKey is an ECDSA key as package note wants to see it. The key hash is the beginning of the SHA-256 of the SubjectPublicKeyInfo.
type noteKey struct {
	name   string
	public *ecdsa.PublicKey
	hash   uint32
	signer crypto.Signer
}

func newNoteKey(text string, public crypto.PublicKey) (*noteKey, error) {
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a note is signed with an ECDSA key, not with %T", public)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(text, "\n")
	sum := sha256.Sum256(spki)
	return &noteKey{name: name, public: key, hash: binary.BigEndian.Uint32(sum[:])}, nil
}

func (k *noteKey) Name() string    { return k.name }
func (k *noteKey) KeyHash() uint32 { return k.hash }

func (k *noteKey) Sign(msg []byte) ([]byte, error) {
	digest := sha256.Sum256(msg)
	return k.signer.Sign(rand.Reader, digest[:], crypto.SHA256)
}

func (k *noteKey) Verify(msg, sig []byte) bool {
	digest := sha256.Sum256(msg)
	return ecdsa.VerifyASN1(k.public, digest[:], sig)
}
