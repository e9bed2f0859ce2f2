package store_test

import (
	"path/filepath"
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

// fill puts n certificates with all that belongs to them into a book, a thousand at a time.
func fill(b *testing.B, book *store.Book, n int) {
	b.Helper()
	for ; n > 0; n -= 1000 {
		issue(b, book, "330100", min(n, 1000))
	}
}

// BenchmarkFollow measures how fast a reader goes through the journal.
func BenchmarkFollow(b *testing.B) {
	book := create(b)
	fill(b, book, 10_000*soak())
	size := uint64(tree(b, book).Size)
	b.ResetTimer()
	after := uint64(0)
	for range b.N {
		if after == size {
			after = 0
		}
		events, err := book.Follow(ctx, after, 0)
		if err != nil {
			b.Fatal(err)
		}
		after += uint64(len(events))
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkOpen measures how long a start takes: HUFU_SOAK=100 for a book of a million certificates.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "book")
	book, err := store.Create(ctx, store.Config{Engine: engineAt(b, path)})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, book, 10_000*soak())
	closeBook(b, book)
	b.ResetTimer()
	for range b.N {
		book, err := store.Open(ctx, store.Config{Engine: engineAt(b, path)})
		if err != nil {
			b.Fatal(err)
		}
		closeBook(b, book)
	}
}

// BenchmarkGet measures a look-up by serial number and one through an index.
func BenchmarkGet(b *testing.B) {
	book := create(b)
	fill(b, book, 10_000*soak())
	certs := issue(b, book, "330100", 1000)
	b.Run("status", func(b *testing.B) {
		for n := range b.N {
			c := certs[n%len(certs)]
			view(b, book, func(tx *store.Tx) error {
				_, err := store.Statuses.Get(tx, store.SerialKey(c.CA, c.Serial))
				return err
			})
		}
	})
	b.Run("spki", func(b *testing.B) {
		for n := range b.N {
			c := certs[n%len(certs)]
			view(b, book, func(tx *store.Tx) error {
				rows, _, err := store.Certificates.Page(tx, store.Query{Index: "spki", Prefix: store.Key(c.SPKI)})
				if len(rows) != 1 {
					b.Error("the certificate is not found")
				}
				return err
			})
		}
	})
}
