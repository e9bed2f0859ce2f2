package store_test

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"hufu/store"
)

// BenchmarkUpdate measures what the second commit of an issuance costs: a certificate, its status and two events.
func BenchmarkUpdate(b *testing.B) {
	for _, c := range []struct {
		name    string
		writers int
	}{{"1", 1}, {"64", 64}} {
		b.Run("writers="+c.name, func(b *testing.B) {
			book := create(b)
			benchmarkUpdate(b, book, c.writers)
		})
	}
}

func benchmarkUpdate(b *testing.B, book *store.Book, writers int) {
	work := make(chan int)
	var group sync.WaitGroup
	for range writers {
		m := newMint(b)
		group.Go(func() {
			for range work {
				c, i := m.certificate("330100")
				err := book.Update(ctx, func(tx *store.Tx) error {
					tx.Append(store.Event{Kind: store.KindIntent, CA: i.CA, Serial: i.Serial, Actor: i.Requester})
					return commit(tx, c)
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	before := cpuTime(b)
	for n := range b.N {
		work <- n
	}
	close(work)
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	b.ReportMetric((cpuTime(b)-before).Seconds()*1e6/float64(b.N), "cpu-µs/op")
}

// cpuTime is what this process has used of the processors, which a busy machine changes less than it does the clock.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
