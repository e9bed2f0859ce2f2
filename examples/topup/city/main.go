// Command city is the back end of one city's one-card system (一卡通系统): it has
// the card keys and decides about loads. Everything that has to do with
// certificates and seals it asks of Hufu, over mutual TLS.
//
//	city personalise -keys city.keys -asn 33010000000000012345 -fen 10000 -out card.json
//	        make a card (and, the first time, the city's keys)
//	city serve -listen 127.0.0.1:9443 -keys city.keys -ledger ledger.jsonl …
//	        serve readers
//	city resolve -card HOST:PORT -transaction ID -keys city.keys -ledger ledger.jsonl …
//	        close a load whose end is not known, by the card in the field
//
// It is an example: its master keys lie in a file of mode 0600, where a city
// has them in an HSM.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"hufu/examples/topup/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "city: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if err := memory.Keep(); err != nil {
		return err
	}
	if len(args) == 0 {
		return fmt.Errorf("use: city personalise|serve|resolve -h")
	}
	f := flag.NewFlagSet("city "+args[0], flag.ContinueOnError)
	keys := f.String("keys", "city.keys", "the city's master keys, a JSON `file` of mode 0600")
	code := f.String("city", "330100", "the city's code")
	switch args[0] {
	case "personalise":
		asn := f.String("asn", "", "the application serial number, 20 digits")
		fen := f.Uint64("fen", 0, "the balance in fen")
		out := f.String("out", "card.json", "the card's memory, a `file`")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return personalise(*keys, *code, *asn, *fen, *out)
	case "serve", "resolve":
		s := &server{code: *code}
		listen := f.String("listen", "127.0.0.1:0", "serve: the `address` for readers")
		card := f.String("card", "", "resolve: the `address` of the card in the field")
		transaction := f.String("transaction", "", "resolve: the load's `ID`")
		path := f.String("ledger", "ledger.jsonl", "the loads that were decided, a `file`")
		f.StringVar(&s.door.certificate, "certificate", "", "serve: the server certificate and its chain, a PEM `file`")
		f.StringVar(&s.door.key, "key", "", "serve: its key, a PEM `file`")
		f.StringVar(&s.hufu.url, "hufu", "", "the `URL` of Hufu's API")
		f.StringVar(&s.hufu.certificate, "client-certificate", "", "the certificate that Hufu knows this city by, a PEM `file`")
		f.StringVar(&s.hufu.key, "client-key", "", "its key, a PEM `file`")
		f.StringVar(&s.trust.Roots, "roots", "", "the root and the working CAs, a PEM `file`")
		f.StringVar(&s.trust.Publish, "publish", "", "the `URL` of OCSP and CRLs")
		f.StringVar(&s.trust.Domain, "domain", "card.example", "the domain of readers and cities")
		cas := f.String("cas", "", "IDs of the working CAs in the roots file, with commas")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		s.trust.CAs = strings.Split(*cas, ",")
		if err := s.open(*keys); err != nil {
			return err
		}
		open := openLedger
		if args[0] == "resolve" {
			open = readLedger
		}
		var err error
		if s.ledger, err = open(*path); err != nil {
			return fmt.Errorf("opening the ledger: %w", err)
		}
		if args[0] == "resolve" {
			return s.resolve(ctx, *card, *transaction)
		}
		return s.serve(ctx, *listen)
	}
	return fmt.Errorf("unknown command %q: use personalise, serve or resolve", args[0])
}
