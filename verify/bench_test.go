package verify_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"testing"

	"hufu/verify"
)

// A known reader's message costs about what its one signature costs.
func BenchmarkMessage(b *testing.B) {
	w := newWorld(b)
	r := w.reader(b, "330100", "1001")
	der := w.sign(b, r, w.request(r))
	b.Run("known reader", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.verifier.LoadRequest(b.Context(), der); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("known reader, status from a book", func(b *testing.B) {
		book := newBook(b)
		w.fill(b, book)
		record(b, book, "330100", r.Sign)
		record(b, book, "330100", r.Encrypt)
		v := &verify.Verifier{Anchors: w.Anchors(), Domain: w.verifier.Domain, Status: verify.FromBook(book), Now: w.now}
		for b.Loop() {
			if _, err := v.LoadRequest(b.Context(), der); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first sight", func(b *testing.B) {
		for b.Loop() {
			v := &verify.Verifier{Anchors: w.Anchors(), Domain: w.verifier.Domain, Status: w.status, Now: w.now}
			if _, err := v.LoadRequest(b.Context(), der); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare signature", func(b *testing.B) {
		digest := sha256.Sum256(der)
		key := r.Sign.Key.(*ecdsa.PrivateKey)
		signature, err := ecdsa.SignASN1(nil, key, digest[:])
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
				b.Fatal("does not fit")
			}
		}
	})
}
