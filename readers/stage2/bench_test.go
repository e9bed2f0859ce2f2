package stage2_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"hufu/readers/stage2"
)

// BenchmarkInitialise takes readers through the whole exchange, 32 at once: keys of
// the CA in memory, a durable book, the readers' own work in the same process.
func BenchmarkInitialise(b *testing.B) {
	p := newCentre(b)
	var numbers []string
	for i := range b.N {
		numbers = append(numbers, fmt.Sprintf("%07d", i))
	}
	all := p.prepared(numbers...)
	for _, r := range all {
		r.makeKeys()
	}
	p.ticket(city, b.N, numbers...)
	queue := make(chan *reader)
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for range 32 {
		wg.Go(func() {
			for r := range queue {
				s, err := p.Open(b.Context(), operator, stage2.Request{Number: r.number, City: city})
				if err != nil {
					b.Error(err)
					continue
				}
				g, err := p.Enrol(b.Context(), operator, s.ID, r.enrolment(s))
				if err != nil {
					b.Error(err)
					continue
				}
				r.pair, r.ticket = g, s.Ticket
				if _, err := p.Receipt(b.Context(), operator, s.ID, r.receipt(s)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for _, n := range numbers {
		queue <- all[n]
	}
	close(queue)
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "readers/s")
}
