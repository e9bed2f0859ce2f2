// Command reader is a card reader as a process of its own. Its two private keys
// live in a token that belongs to it alone; scripts are opened and run inside
// this process and nowhere else.
//
//	reader make -dir DIR -number N
//	        make the token and both keys; write DIR/reader.csr
//	reader load -dir DIR -yuan 50.00 -card HOST:PORT -city https://HOST:PORT …
//	        load the card in the field
//
// Between the two, a city operator has the request certified (hufu reader
// issue) and puts the pair into DIR/pair.pem.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"hufu/examples/topup/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "reader: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if err := memory.Keep(); err != nil {
		return err
	}
	if len(args) == 0 {
		return fmt.Errorf("use: reader make|load -h")
	}
	f := flag.NewFlagSet("reader "+args[0], flag.ContinueOnError)
	r := &reader{}
	f.StringVar(&r.dir, "dir", "", "the reader's `folder`: token, request, pair")
	switch args[0] {
	case "make":
		number := f.String("number", "", "the reader's number")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return r.make(ctx, *number)
	case "load":
		l := &load{}
		yuan := f.String("yuan", "", "the amount, such as 50.00")
		f.StringVar(&l.card, "card", "", "the `address` of the card in the field")
		f.StringVar(&l.city, "city", "", "the `URL` of the card's city")
		f.StringVar(&l.terminal, "terminal", "330100000042", "the terminal number, 12 digits")
		f.StringVar(&r.trust.Roots, "roots", "", "the root and the working CAs in a PEM `file`")
		f.StringVar(&r.trust.Publish, "publish", "", "the `URL` of OCSP and CRLs")
		f.StringVar(&r.trust.Domain, "domain", "card.example", "the domain of readers and cities")
		cas := f.String("cas", "", "IDs of the working CAs in the roots file, with commas")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		r.trust.CAs = split(*cas)
		fen, err := parseYuan(*yuan)
		if err != nil {
			return err
		}
		l.fen = fen
		return r.load(ctx, l)
	}
	return fmt.Errorf("unknown command %q: use make or load", args[0])
}
