package api_test

import (
	"context"
	"sync/atomic"
	"testing"

	"hufu/api/client"
	"hufu/ca"
	"hufu/internal/testpki"
	"hufu/policy"
)

// BenchmarkIssue shows what the door costs beside the spine behind it: both do
// the same work, 64 at a time.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b)
	op := w.hire("Wang Wu", "", policy.CAOperator)
	run := func(b *testing.B, issue func(csr []byte) error) {
		csrs := make([][]byte, b.N)
		for i := range b.N {
			csrs[i] = testpki.Must(testpki.CSR(testpki.Must(testpki.Key())))
		}
		var next atomic.Int64
		b.SetParallelism(32)
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := issue(csrs[next.Add(1)-1]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("spine", func(b *testing.B) {
		run(b, func(csr []byte) error {
			_, err := w.authority.Issue(context.Background(), ca.Order{Requester: "bench", Requests: []ca.Request{
				{CA: "services", Profile: "client", CSR: csr, Name: policy.Name{CommonName: "bench"}},
			}})
			return err
		})
	})
	b.Run("api", func(b *testing.B) {
		run(b, func(csr []byte) error {
			_, err := op.client.Issue(b.Context(), client.IssueRequest{CA: "services", Profile: "client", CSR: csr, Name: client.Name{CommonName: "bench"}})
			return err
		})
	})
	b.Run("whoami", func(b *testing.B) {
		run(b, func([]byte) error {
			_, err := op.client.WhoAmI(b.Context())
			return err
		})
	})
}
