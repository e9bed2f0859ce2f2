// Command demo tells Hufu's whole story on real parts and ends with the line
// "demo: ok", or with the step that failed.
//
//	demo [-readers 100] [-keep DIR]
//
// It drives the programs beside it (hufu, reader, card, city) and judges with
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
	readers := flag.Int("readers", 100, "how many reader pairs to issue")
	keep := flag.String("keep", "", "keep the world's `folder` (the processes are stopped all the same)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := tell(ctx, *readers, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: failed:", err)
		os.Exit(1)
	}
	fmt.Println("demo: ok")
}

func tell(ctx context.Context, readers int, keep string) (err error) {
	s, err := begin(readers, keep)
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
		{"A reader with a token of its own, a card, and the city's back end", s.cast},
		{"A load of 50.00 yuan", s.load},
		{"The reader is revoked", s.revoke},
		{"The next load", s.refused},
	}
	for _, step := range steps {
		fmt.Printf("\n=== %s\n", step.title)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	fmt.Printf("\nThe story took %s. To look around in a world that stays: build/hufu quickstart\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}
