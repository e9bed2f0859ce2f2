// Command demo tells Hufu's whole story on real parts and ends with the line
// "demo: ok", or with the step that failed.
//
//	demo [-readers 100] [-crowd 1000] [-keep DIR]
//
// It drives the programs beside it (hufu, readers, reader, card, city) and judges with
// ldapsearch and openssl, which nobody here wrote. It leaves no process and no
// folder behind, unless -keep names one.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	pairs := flag.Int("readers", 100, "how many reader pairs the world begins with")
	crowd := flag.Int("crowd", 1000, "how many readers go through the two stages, 4 to 100000")
	keep := flag.String("keep", "", "keep the world's `folder` (the processes are stopped all the same)")
	flag.Parse()
	if *crowd < 4 || *crowd > 100_000 {
		fmt.Fprintf(os.Stderr, "demo: -crowd %d is not 4 to 100000\n", *crowd)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := tell(ctx, *pairs, *crowd, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: failed:", err)
		os.Exit(1)
	}
	fmt.Println("demo: ok")
}

func tell(ctx context.Context, pairs, crowd int, keep string) (err error) {
	s, err := begin(pairs, crowd, keep)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.end(); err == nil {
			err = e
		}
	}()
	began := time.Now()
	steps := []struct {
		title string
		run   func(context.Context) error
	}{
		{"A world: root ceremony, working CAs, node, directories, officers, readers", s.world},
		{"The same entries in both directories, asked with ldapsearch", s.directories},
		{"OCSP, asked with openssl", s.ocspGood},
		{fmt.Sprintf("Stage 1, the centre: a maker's manifest of %d readers, and their device certificates", crowd), s.prepare},
		{"A ticket to the city, signed by the centre", s.allot},
		{"Stage 2, the city: one reader at the counter, the others in one go", s.initialise},
		{"One reader not on the ticket, one of another city, one already initialised", s.strangers},
		{"The receipts, reconciled at the centre", s.reconcile},
		{"An encryption key is recovered with 2 of 3 officers, and not with 1", s.recover},
		{"A reader with a token of its own, a card, and the city's back end", s.cast},
		{"A load of 50.00 yuan", s.load},
		{"The reader is revoked", s.revoke},
		{"The next load", s.refused},
	}
	for _, step := range steps {
		fmt.Printf("\n=== %s\n", step.title)
		now := time.Now()
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
		fmt.Printf("   (%s)\n", time.Since(now).Round(100*time.Millisecond))
	}
	fmt.Printf("\nThe story took %s. To look around in a world that stays: build/hufu quickstart\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}
