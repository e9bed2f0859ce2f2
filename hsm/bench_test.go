package hsm_test

import (
	"crypto"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"hufu/hsm"
)

// BenchmarkSign compares the pool with a bare loop of C_SignInit and C_Sign over as many
// sessions and goroutines on one key. The two take turns, so that a machine whose speed
// changes slows both.
func BenchmarkSign(b *testing.B) {
	cfg := newToken(b, newHome(b), "hufu")
	generate(b, open(b, cfg), hsm.KeySpec{Label: "k", Kind: hsm.P256, Use: hsm.Sign})
	for _, sessions := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			cfg.MaxSessions = sessions
			token := open(b, cfg)
			k, err := token.KeyByLabel(b.Context(), "k")
			if err != nil {
				b.Fatal(err)
			}
			ctx, handles, key := bareSessions(b, cfg.Module, sessions)
			mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}
			digest := make([]byte, 32)
			var bare, pool time.Duration
			done := 0
			for ; done < b.N; done += 200 * sessions {
				bare += spread(b, sessions, func(i int) error {
					if err := ctx.SignInit(handles[i], mechanism, key); err != nil {
						return err
					}
					_, err := ctx.Sign(handles[i], digest)
					return err
				})
				pool += spread(b, sessions, func(int) error {
					_, err := k.Sign(nil, digest, crypto.SHA256)
					return err
				})
			}
			b.ReportMetric(float64(done)/bare.Seconds(), "bare/s")
			b.ReportMetric(float64(done)/pool.Seconds(), "pool/s")
			b.ReportMetric(bare.Seconds()/pool.Seconds(), "pool/bare")
		})
	}
}

// bareSessions opens sessions beside the open token, whose login they share.
func bareSessions(b *testing.B, module string, n int) (*pkcs11.Ctx, []pkcs11.SessionHandle, pkcs11.ObjectHandle) {
	ctx := pkcs11.New(module)
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		b.Fatal(err)
	}
	var handles []pkcs11.SessionHandle
	for range n {
		s, err := ctx.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { ctx.CloseSession(s) })
		handles = append(handles, s)
	}
	if err := ctx.FindObjectsInit(handles[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}); err != nil {
		b.Fatal(err)
	}
	defer ctx.FindObjectsFinal(handles[0])
	keys, _, err := ctx.FindObjects(handles[0], 1)
	if err != nil || len(keys) != 1 {
		b.Fatalf("%d keys, %v", len(keys), err)
	}
	return ctx, handles, keys[0]
}

// spread runs f 200 times in each of n goroutines.
func spread(b *testing.B, n int, f func(i int) error) time.Duration {
	start := time.Now()
	done := make(chan error, n)
	for i := range n {
		go func() {
			for range 200 {
				if err := f(i); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range n {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}
