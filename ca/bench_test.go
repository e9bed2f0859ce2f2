package ca_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"hufu/ca"
	"hufu/store"
)

// BenchmarkIssue is 64 clients that issue server certificates, each commit on
// disk, with keys in memory. The clients' own work, key and CSR, is not counted.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b)
	orders := prepared(b.N)
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(orders)); i = next.Add(1) - 1 {
				if _, err := w.Issue(context.Background(), orders[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certs/s")
}

// BenchmarkIssueBatch is the same through IssueBatch.
func BenchmarkIssueBatch(b *testing.B) {
	w := newWorld(b)
	orders := prepared(b.N)
	b.ReportAllocs()
	b.ResetTimer()
	err := w.IssueBatch(context.Background(), orders, func(_ int, _ []*store.Certificate, err error) error { return err })
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "certs/s")
}

func prepared(n int) []ca.Order {
	orders := make([]ca.Order, n)
	for i := range orders {
		orders[i] = order(server(fmt.Sprintf("h%d.example", i)))
		orders[i].IdempotencyKey = fmt.Sprint(i)
	}
	return orders
}
