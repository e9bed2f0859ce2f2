package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"hufu/hsm"
)

func wrapping(t testing.TB, token *hsm.Token, label string) *hsm.SecretKey {
	t.Helper()
	k, err := token.GenerateWrappingKey(context.Background(), label)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// opened lets openssl undo RFC 5649 and reads the PKCS #8 inside.
func opened(t testing.TB, content, wrapped []byte) any {
	t.Helper()
	in := filepath.Join(t.TempDir(), "wrapped")
	if err := os.WriteFile(in, wrapped, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("openssl", "enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(content), "-iv", "A65959A6", "-in", in).Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(out)
	if err != nil {
		t.Fatalf("what openssl unwrapped is no PKCS #8: %v", err)
	}
	return key
}

// nothingLeft fails if the token holds any private key object.
func nothingLeft(t testing.TB, token *hsm.Token) {
	t.Helper()
	keys, err := token.Keys(context.Background())
	if err != nil || len(keys) != 0 {
		t.Fatalf("the token holds %d keys that nobody should see: %v", len(keys), err)
	}
}

func TestKeptKey(t *testing.T) {
	token := openNew(t)
	ctx := context.Background()
	kek, other := wrapping(t, token, "kek"), wrapping(t, token, "other")
	content := make([]byte, hsm.ContentKeySize)
	rand.Read(content)
	for _, kind := range []hsm.KeyKind{hsm.P256, hsm.P384, hsm.RSA2048} {
		t.Run(kind.String(), func(t *testing.T) {
			spki, blob, err := kek.MakeWrapped(ctx, kind)
			if err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, token)
			out, err := kek.Rewrap(ctx, blob, spki, content)
			if err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, token)
			public := opened(t, content, out).(interface{ Public() crypto.PublicKey }).Public()
			if der, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(der, spki) {
				t.Fatalf("what came out is another key: %v", err)
			}

			stranger, _, err := kek.MakeWrapped(ctx, kind)
			if err != nil {
				t.Fatal(err)
			}
			_, err = kek.Rewrap(ctx, blob, stranger, content)
			wantError(t, err, hsm.ErrBlob, "another public key")
			_, err = other.Rewrap(ctx, blob, spki, content)
			wantError(t, err, hsm.ErrBlob, "another wrapping key")
			for i, bad := range [][]byte{nil, blob[:8], blob[:len(blob)-8], append(bytes.Clone(blob), make([]byte, 8)...), flipped(blob, 0), flipped(blob, len(blob)-1), bytes.Repeat([]byte{7}, len(blob))} {
				if _, err = kek.Rewrap(ctx, bad, spki, content); !errors.Is(err, hsm.ErrBlob) {
					t.Fatalf("bad blob %d: %v", i, err)
				}
			}
			_, err = kek.Rewrap(ctx, blob, spki, content[:16])
			wantError(t, err, nil, "content key", "32")
			// After all these faults the key still comes out.
			if _, err = kek.Rewrap(ctx, blob, spki, content); err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, token)
		})
	}
	_, _, err := kek.MakeWrapped(ctx, 0)
	wantError(t, err, nil, "kind")
	_, err = kek.Rewrap(ctx, []byte("x"), []byte("no key"), content)
	wantError(t, err, nil, "public key")
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// What was wrapped before the token was away opens after it came back, and makers and
// openers side by side see no error while the token loses its sessions, its login and
// its library's state; nothing stays behind.
func TestKeptKeyUnderFaults(t *testing.T) {
	token := openNew(t)
	kek := wrapping(t, token, "kek")
	ctx := context.Background()
	spki, blob, err := kek.MakeWrapped(ctx, hsm.P256)
	if err != nil {
		t.Fatal(err)
	}
	var made, came atomic.Int64
	var running sync.WaitGroup
	stop := make(chan struct{})
	until := func(f func() error) {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					t.Errorf("a caller saw the fault: %v", err)
					return
				}
			}
		})
	}
	content := make([]byte, hsm.ContentKeySize)
	rand.Read(content)
	for range 4 {
		until(func() error {
			_, _, err := kek.MakeWrapped(ctx, hsm.P256)
			made.Add(1)
			return err
		})
		until(func() error {
			_, err := kek.Rewrap(ctx, blob, spki, content)
			came.Add(1)
			return err
		})
	}
	for range soak(3) {
		for name, breakIt := range map[string]func() error{"sessions closed": token.CloseAllSessions, "logged out": token.Logout, "library finalised": token.Finalize} {
			if err := breakIt(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m, c := made.Load(), came.Load()
			waitFor(t, "makers and openers to go on after: "+name, func() bool { return made.Load() > m+20 && came.Load() > c+20 || t.Failed() })
		}
	}
	close(stop)
	running.Wait()
	nothingLeft(t, token)
}

// A token whose wrapping key is gone says so, and one that is away is called away.
func TestKeptKeyWithoutItsToken(t *testing.T) {
	h := newHome(t)
	cfg := newToken(t, h, "hufu")
	cfg.Patience = time.Second
	token := open(t, cfg)
	kek := wrapping(t, token, "kek")
	back := away(t, h)
	_, _, err := kek.MakeWrapped(context.Background(), hsm.P256)
	wantError(t, err, hsm.ErrTokenGone, `"kek"`)
	back()
	waitFor(t, "the token to heal", func() bool {
		_, _, err := kek.MakeWrapped(context.Background(), hsm.P256)
		return err == nil
	})
	_, err = token.WrappingKey(context.Background(), "nobody's")
	wantError(t, err, hsm.ErrKeyNotFound)
}

// No kept key can be found in the token afterwards, whoever knows its public half.
func TestKeptKeyIsNotFound(t *testing.T) {
	cfg := newToken(t, newHome(t), "hufu")
	token := open(t, cfg)
	kek := wrapping(t, token, "kek")
	spki, _, err := kek.MakeWrapped(context.Background(), hsm.P256)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Key(context.Background(), pub); !errors.Is(err, hsm.ErrKeyNotFound) {
		t.Fatalf("a kept key is found in the token: %v", err)
	}
}

// BenchmarkMakeWrapped compares MakeWrapped with a bare loop of the same calls over as
// many sessions. The two take turns, so that a machine whose speed changes slows both.
func BenchmarkMakeWrapped(b *testing.B) {
	cfg := newToken(b, newHome(b), "hufu")
	token := open(b, cfg)
	generate(b, token, hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	wrapping(b, token, "kek")
	for _, sessions := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			cfg.MaxSessions = sessions
			token := open(b, cfg)
			kek, err := token.WrappingKey(b.Context(), "kek")
			if err != nil {
				b.Fatal(err)
			}
			ctx, handles, _ := bareSessions(b, cfg.Module, sessions)
			under := bareWrapping(b, ctx, handles[0])
			curve := []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}
			var bare, pool time.Duration
			done := 0
			for ; done < b.N; done += 200 * sessions {
				bare += spread(b, sessions, func(i int) error {
					pub, private, err := ctx.GenerateKeyPair(handles[i], []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
						[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_VERIFY, false), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, curve)},
						[]*pkcs11.Attribute{flag(pkcs11.CKA_TOKEN, false), flag(pkcs11.CKA_PRIVATE, true), flag(pkcs11.CKA_SENSITIVE, true), flag(pkcs11.CKA_EXTRACTABLE, true),
							flag(pkcs11.CKA_SIGN, false), flag(pkcs11.CKA_SIGN_RECOVER, false), flag(pkcs11.CKA_DECRYPT, false), flag(pkcs11.CKA_DERIVE, true), flag(pkcs11.CKA_UNWRAP, false)})
					if err != nil {
						return err
					}
					if _, err := ctx.GetAttributeValue(handles[i], pub, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)}); err != nil {
						return err
					}
					if _, err := ctx.WrapKey(handles[i], []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, under, private); err != nil {
						return err
					}
					return errors.Join(ctx.DestroyObject(handles[i], private), ctx.DestroyObject(handles[i], pub))
				})
				pool += spread(b, sessions, func(int) error {
					_, _, err := kek.MakeWrapped(b.Context(), hsm.P256)
					return err
				})
			}
			b.ReportMetric(float64(done)/bare.Seconds(), "bare/s")
			b.ReportMetric(float64(done)/pool.Seconds(), "pool/s")
			b.ReportMetric(bare.Seconds()/pool.Seconds(), "pool/bare")
		})
	}
}

func flag(kind uint, v bool) *pkcs11.Attribute { return pkcs11.NewAttribute(kind, v) }

func bareWrapping(b *testing.B, ctx *pkcs11.Ctx, s pkcs11.SessionHandle) pkcs11.ObjectHandle {
	if err := ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "kek")}); err != nil {
		b.Fatal(err)
	}
	found, _, err := ctx.FindObjects(s, 2)
	if err != nil || len(found) != 1 {
		b.Fatal(found, err)
	}
	if err := ctx.FindObjectsFinal(s); err != nil {
		b.Fatal(err)
	}
	return found[0]
}
