package stage1_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"hufu/internal/testpki"
	"hufu/readers"
	"hufu/readers/stage1"
	"hufu/store"
)

// TestLargeTicket makes, verifies and imports a ticket of many readers: 5,000, or as
// many as HUFU_TICKET says, up to the bound of 100,000. They come into the book with
// one device certificate's hash each, without the certificates, which a ticket does
// not need.
func TestLargeTicket(t *testing.T) {
	n := 5000
	if v, err := strconv.Atoi(os.Getenv("HUFU_TICKET")); err == nil && v > 0 {
		n = v
	}
	c := newPlace(t, testpki.Must(testpki.New(testpki.Config{})), "device")
	city := newPlace(t, c.pki, "330100")
	numbers := numbersOf(n)
	for from := 0; from < n; from += 1000 {
		c.must(c.book.Update(t.Context(), func(tx *store.Tx) error {
			for _, number := range numbers[from:min(from+1000, n)] {
				hash := store.Hash(sha256.Sum256([]byte(number)))
				// As an offline city's book has it: on a ticket, and then off it.
				if _, err := c.Register.Accept(tx, readers.Reader{Number: number, City: "330100", Ticket: "before", Device: hash, Model: model.Name}, "tester"); err != nil {
					return err
				}
				if _, err := c.Register.Withdraw(tx, number, "tester", ""); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	began := time.Now()
	step := func(what string) {
		t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
		began = time.Now()
	}
	ticket, der := c.ticket(stage1.TicketOrder{City: "330100"})
	step(fmt.Sprintf("made, %d readers, %d octets", ticket.Readers, len(der)))
	if _, _, err := c.Verifier.TicketFile(der); err != nil {
		t.Fatal(err)
	}
	step("verified")
	in, job := city.bring(der, true)
	city.good(job)
	step("imported")
	var b bytes.Buffer
	city.must(city.WriteTicket(t.Context(), in.ID, &b))
	if int(in.Readers) != n || job.Done != int64(n) || !bytes.Equal(b.Bytes(), der) {
		t.Errorf("%+v, %+v", in, job)
	}
	for _, number := range []string{numbers[0], numbers[n/2], numbers[n-1]} {
		if city.state(number) != readers.Allotted {
			t.Errorf("reader %s is %s", number, city.state(number))
		}
	}
}
