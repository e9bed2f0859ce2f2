// Command readers is a rack of card readers as a process of its own: a simulator of
// the maker's line, and of readers at a bench or on a desk. Each has one file in the
// rack's folder, which stands for its protected memory; nobody else has its keys.
//
//	readers make -dir DIR -count N -first NUMBER -model M -firmware F -approval A -manifest FILE [-encoding gb18030] [-csr] [-token]
//	        the maker's line: make readers with device keys, and the manifest for stage 1
//	readers prepare -dir DIR -certificates FILE -root FILE
//	        give readers their device certificates and the root to trust
//	readers bench -dir DIR [-listen 127.0.0.1:0]
//	        offer all readers as the slots of a bench; prints its address
//	readers card -dir DIR -number N [-vpcd 127.0.0.1:35963]
//	        put one reader as a card into the virtual PC/SC slot of vsmartcard
//	readers show -dir DIR
//	        a line for each reader, and how many are how far
//	readers forget -dir DIR -number N
//	        throw away the pair of one reader; its device key stays
//
// bench and card take -cut STEP[:before|during|after] and -cut-random P -seed S:
// where the readers' power goes. STEP is a command: identify, certificate, make,
// put, enrol, install, receipt, finish.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"hufu/examples/reader/device"
	"hufu/examples/topup/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		err = nil
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "readers: error:", err)
		os.Exit(1)
	}
}

// commands are the programs in this one.
var commands = map[string]func(ctx context.Context, f *flag.FlagSet, args []string, out io.Writer) error{
	"make": makeReaders, "prepare": prepare, "bench": bench, "card": card, "show": show, "forget": forget,
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if err := memory.Keep(); err != nil {
		return err
	}
	const use = "use: readers make|prepare|bench|card|show|forget -h"
	if len(args) == 0 {
		return errors.New(use)
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("unknown command %q; %s", args[0], use)
	}
	return command(ctx, flag.NewFlagSet("readers "+args[0], flag.ContinueOnError), args[1:], out)
}

// parse reads the flags, and demands those that are named.
func parse(f *flag.FlagSet, args []string, needed ...string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q was not understood", f.Args())
	}
	for _, name := range needed {
		if f.Lookup(name).Value.String() == "" {
			return fmt.Errorf("-%s is missing", name)
		}
	}
	return nil
}

func folder(f *flag.FlagSet) *string { return f.String("dir", "", "the `folder` of the readers") }

// power adds the flags of the schedule of power cuts.
func power(f *flag.FlagSet) func() (*device.Cuts, error) {
	at := f.String("cut", "", "once for each reader: its power goes at this `point`, STEP[:before|during|after], several with commas")
	random := f.Float64("cut-random", 0, "the `part` of all commands in which the power goes, 0 to 1")
	seed := f.Uint64("seed", 1, "the `number` that -cut-random begins with; the same number, the same cuts")
	return func() (*device.Cuts, error) {
		if *random < 0 || *random > 1 {
			return nil, fmt.Errorf("-cut-random %v is not a part of one", *random)
		}
		c := &device.Cuts{Random: *random, Seed: *seed}
		if *at == "" {
			return c, nil
		}
		var err error
		c.At, err = device.ParseCuts(*at)
		return c, err
	}
}

// bench serves the readers until it is told to end.
func bench(ctx context.Context, f *flag.FlagSet, args []string, out io.Writer) error {
	dir, cuts := folder(f), power(f)
	listen := f.String("listen", "127.0.0.1:0", "the `address` to serve at")
	if err := parse(f, args, "dir"); err != nil {
		return err
	}
	rack, err := device.OpenRack(*dir)
	if err != nil {
		return err
	}
	defer rack.Close()
	if rack.Cuts, err = cuts(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	return rack.Bench(func(err error) { fmt.Fprintln(os.Stderr, "readers:", err) }).Serve(ctx, l)
}

func show(_ context.Context, f *flag.FlagSet, args []string, out io.Writer) error {
	dir := folder(f)
	if err := parse(f, args, "dir"); err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	counts := map[byte]int{}
	err := device.All(*dir, func(r device.Facts) {
		counts[r.State]++
		keys, city := "flash", r.City
		if r.Token {
			keys = "token"
		}
		if city == "" {
			city = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\tkeys in %s\n", r.Number, device.StateName(r.State), city, r.Model, r.Firmware, keys)
	})
	if err != nil {
		return err
	}
	total := 0
	for state := range byte(6) {
		if n := counts[state]; n > 0 {
			fmt.Fprintf(w, "%d %s, ", n, device.StateName(state))
			total += n
		}
	}
	fmt.Fprintf(w, "%d in all\n", total)
	return w.Flush()
}

func forget(_ context.Context, f *flag.FlagSet, args []string, out io.Writer) error {
	dir, number := folder(f), f.String("number", "", "the reader's `number`")
	if err := parse(f, args, "dir", "number"); err != nil {
		return err
	}
	rack, err := device.OpenRack(*dir)
	if err != nil {
		return err
	}
	defer rack.Close()
	r, err := rack.Reader(*number)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Forget(); err != nil {
		return err
	}
	fmt.Fprintf(out, "reader %s has thrown its pair away and is %s\n", *number, device.StateName(r.Facts().State))
	return nil
}
