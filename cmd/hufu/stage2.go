package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"hufu/api/client"
	"hufu/readers/apdu"
	"hufu/verify"
)

func newStage2Command(g *globals) *cobra.Command {
	return group("stage2", "Initialise and renew readers in their city, and write their receipts",
		newStage2Run(g), newStage2Batch(g), newStage2Receipts(g))
}

// benchFlag names the places with readers.
const benchHelp = "address of the `host:port` that holds the readers"

func newStage2Run(g *globals) *cobra.Command {
	var bench, slot, city, ticket string
	var renew bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Initialise one reader on the desk, step by step",
		Long: `Initialise one reader on the desk, step by step: the node gives a challenge, the
reader proves its device key and makes its keys, the node issues its pair on hold,
the reader installs it and signs a receipt, and the pair is good.

After a power cut on either side the same command goes on. With --renew an active
reader gets a new pair in the same way.`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&bench, "bench", "", benchHelp)
	f.StringVar(&slot, "slot", "", "the reader's `place`; not needed where there is one")
	f.StringVar(&city, "city", "", "the city; absent means that of the operator")
	f.StringVar(&ticket, "ticket", "", "the ticket that must name it: its `file or ID`")
	f.BoolVar(&renew, "renew", false, "a new pair for an active reader")
	c.MarkFlagRequired("bench")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		d, err := g.desk(ctx, cl, city, ticket, renew)
		if err != nil {
			return err
		}
		if slot == "" {
			slots, err := slotsOf(ctx, []string{bench})
			if err != nil {
				return err
			}
			if len(slots) != 1 {
				return usagef("name one of them with --slot, or take them all: hufu stage2 batch", "the bench at %s has %d slots", bench, len(slots))
			}
			slot = slots[0].slot
		}
		if g.output == "table" {
			d.out = cmd.OutOrStdout()
		}
		res := d.initialise(ctx, bench, slot)
		if g.output != "table" {
			if err := g.show(cmd, res, nil); err != nil {
				return err
			}
		}
		if res.good() {
			return nil
		}
		return &hinted{err: fmt.Errorf("reader %s: %s: %s", orUnknown(res.Number), res.Outcome, res.Detail), hint: res.Remedy, code: deskCode(res)}
	})
	return c
}

func orUnknown(number string) string {
	if number == "" {
		return "(unknown)"
	}
	return number
}

func deskCode(r *deskResult) int {
	switch r.Outcome {
	case atDeskReader, atDeskNode:
		return exitUnready
	}
	return exitRefused
}

// desk makes a desk for a city: the one named, or that of the ticket, or the
// operator's own.
func (g *globals) desk(ctx context.Context, cl *client.Client, city, ticket string, renew bool) (*desk, error) {
	d := &desk{node: cl, city: city, renew: renew, g: g}
	if ticket != "" {
		id, of, err := ticketID(ticket)
		if err != nil {
			return nil, err
		}
		d.ticket = id
		if d.city == "" {
			d.city = of
		}
	}
	if d.city == "" {
		who, err := cl.WhoAmI(ctx)
		if err != nil {
			return nil, err
		}
		d.city = who.City
	}
	if d.city == "" {
		return nil, usagef("name it with --city", "no city is named, and the caller belongs to none")
	}
	return d, nil
}

// ticketID takes a ticket's ID, or its file, of which nothing is judged here: the
// node knows its tickets.
func ticketID(word string) (id, city string, err error) {
	if len(word) == 32 && strings.Trim(word, "0123456789abcdef") == "" {
		return word, "", nil
	}
	der, err := os.ReadFile(word)
	if err != nil {
		return "", "", usagef("give the ticket's ID (hufu ticket list), or its file", "reading the ticket: %v", err)
	}
	t, err := verify.ReadTicket(der)
	if err != nil {
		return "", "", usagef("give the file that hufu ticket create wrote", "%s: %v", word, err)
	}
	return t.ID, t.City, nil
}

// place is one slot of one bench.
type place struct{ bench, slot string }

func slotsOf(ctx context.Context, benches []string) (all []place, err error) {
	for _, b := range benches {
		slots, err := apdu.Slots(ctx, b)
		if err != nil {
			return nil, &hinted{err: err, hint: "is the bench's program running, and is this its address?", code: exitUnready}
		}
		for _, s := range slots {
			all = append(all, place{b, s})
		}
	}
	return all, nil
}

func newStage2Batch(g *globals) *cobra.Command {
	var benches []string
	var city, ticket, results string
	var parallel int
	var renew bool
	c := &cobra.Command{
		Use:   "batch",
		Short: "Initialise all readers on the benches",
		Long: `Initialise all readers on the benches, many at once. A progress bar shows on a
terminal; --results gets a line in JSON for each reader; the summary counts the
outcomes and names who was refused.

Stopped by whatever means, the same command goes on: readers that were done before
are asked for their receipts and counted as such.`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringArrayVar(&benches, "bench", nil, benchHelp+"; may be given several times")
	f.StringVar(&city, "city", "", "the city; absent means that of the ticket or the operator")
	f.StringVar(&ticket, "ticket", "", "the ticket that must name the readers: its `file or ID`")
	f.IntVar(&parallel, "parallel", 32, "so many readers at once")
	f.StringVar(&results, "results", "", "add a line for each reader to this `file`")
	f.BoolVar(&renew, "renew", false, "new pairs for active readers")
	c.MarkFlagRequired("bench")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		if parallel < 1 || parallel > 1024 {
			return usagef("give 1 to 1024", "--parallel %d", parallel)
		}
		d, err := g.desk(ctx, cl, city, ticket, renew)
		if err != nil {
			return err
		}
		if _, err := cl.WhoAmI(ctx); err != nil {
			return err // a node that is not there at all is not waited for
		}
		d.batch, d.again = true, true
		places, err := slotsOf(ctx, benches)
		if err != nil {
			return err
		}
		w := io.Discard
		if results != "" {
			file, err := os.OpenFile(results, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			if err != nil {
				return usagef("name a file that can be written", "opening the results: %v", err)
			}
			defer file.Close()
			w = file
		}
		b := newBar(cmd, "stage2 "+d.city)
		s, err := d.all(ctx, places, parallel, w, b.set)
		b.end()
		if e := g.showSummary(cmd, s); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		return s.fault(ctx)
	})
	return c
}

// deskSummary is what came of many readers.
type deskSummary struct {
	City     string         `json:"city"`
	Readers  int            `json:"readers"`
	Outcomes map[string]int `json:"outcomes"`
	Failed   []*deskResult  `json:"failed"` // all that are neither active nor done before
}

// all takes the readers of all places through the second stage, parallel at once,
// and writes a line for each as it is done.
func (d *desk) all(ctx context.Context, places []place, parallel int, w io.Writer, progress func(done, total int64)) (*deskSummary, error) {
	s := &deskSummary{City: d.city, Outcomes: map[string]int{}, Failed: []*deskResult{}}
	out := bufio.NewWriter(w)
	var mu sync.Mutex // guards s and out
	var group errgroup.Group
	group.SetLimit(parallel)
	progress(0, int64(len(places)))
	for _, p := range places {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			r := d.initialise(ctx, p.bench, p.slot)
			line, err := json.Marshal(r)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			s.Readers++
			s.Outcomes[r.Outcome]++
			if !r.good() {
				s.Failed = append(s.Failed, r)
			}
			progress(int64(s.Readers), int64(len(places)))
			if _, err := out.Write(append(line, '\n')); err != nil {
				return err
			}
			return out.Flush() // a line is there when its reader is done, whatever becomes of us
		})
	}
	err := group.Wait()
	slices.SortFunc(s.Failed, func(a, b *deskResult) int { return strings.Compare(a.Number+a.Slot, b.Number+b.Slot) })
	if err != nil {
		err = fmt.Errorf("writing the results: %w", err)
	}
	return s, errors.Join(err, ctx.Err())
}

// shownFailures bounds what a screen shows; the results file has them all.
const shownFailures = 50

func (g *globals) showSummary(cmd *cobra.Command, s *deskSummary) error {
	t := &table{heads: []string{"result", "readers"}}
	for _, o := range slices.Sorted(maps.Keys(s.Outcomes)) {
		t.add(o, num(s.Outcomes[o]))
	}
	if err := g.show(cmd, s, t); err != nil || g.output != "table" || len(s.Failed) == 0 {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout())
	named := &table{heads: []string{"reader", "slot", "result", "detail"}}
	for _, r := range s.Failed[:min(len(s.Failed), shownFailures)] {
		named.add(r.Number, r.Slot, r.Outcome, r.Detail)
	}
	named.write(cmd.OutOrStdout(), g)
	return nil
}

// fault is the error of a batch that did not finish with all its readers.
func (s *deskSummary) fault(ctx context.Context) error {
	if len(s.Failed) == 0 {
		return ctx.Err()
	}
	refused, remedies := 0, []string{}
	for _, r := range s.Failed {
		if deskCode(r) == exitRefused {
			refused++
		}
		if line := r.Outcome + ": " + r.Remedy; r.Remedy != "" && !slices.Contains(remedies, line) && len(remedies) < 8 {
			remedies = append(remedies, line)
		}
	}
	code := exitUnready
	if refused > 0 {
		code = exitRefused
	}
	return &hinted{err: fmt.Errorf("%d of %d readers are not active: %d refused, %d unfinished", len(s.Failed), s.Readers, refused, len(s.Failed)-refused),
		hint: strings.Join(remedies, "\n"), code: code}
}

func newStage2Receipts(g *globals) *cobra.Command {
	var city, ticket, out string
	c := &cobra.Command{
		Use:   "receipts",
		Short: "Write the receipts of a city's readers to a file, for the centre",
		Long: `Write the receipts of a city's readers to a file, a line in JSON for each reader,
with all that the centre needs to judge it: hufu ticket reconcile.`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&city, "city", "", "the city; absent means that of the ticket or the operator")
	f.StringVar(&ticket, "ticket", "", "of the readers of this ticket only: its `file or ID`")
	f.StringVar(&out, "out", "", "the `file` to write; it must not exist yet")
	c.MarkFlagRequired("out")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		d, err := g.desk(ctx, cl, city, ticket, false)
		if err != nil {
			return err
		}
		file, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return usagef("name a file that does not exist yet", "opening the receipts file: %v", err)
		}
		n, err := writeReceipts(file, cl.Receipts(ctx, d.city, d.ticket))
		if e := file.Close(); err == nil {
			err = e
		}
		if err != nil {
			os.Remove(out) // a part of a file looks like the whole of it
			return err
		}
		if g.output != "table" {
			return g.show(cmd, map[string]any{"file": out, "receipts": n}, nil)
		}
		g.tell(cmd.OutOrStdout(), "%d receipts in %s; take it to the centre: hufu ticket reconcile", n, out)
		return nil
	})
	return c
}

func writeReceipts(file *os.File, seq func(func(*client.Receipt, error) bool)) (n int, err error) {
	w := bufio.NewWriter(file)
	e := json.NewEncoder(w)
	for r, err := range seq {
		if err != nil {
			return n, err
		}
		if err := e.Encode(r); err != nil {
			return n, err
		}
		n++
	}
	if err := w.Flush(); err != nil {
		return n, err
	}
	return n, file.Sync()
}

func newStage1Command(g *globals) *cobra.Command {
	return group("stage1", "Prepare readers at the centre: give them their device certificates", newStage1Deliver(g))
}

func newStage1Deliver(g *globals) *cobra.Command {
	var benches []string
	var parallel int
	c := &cobra.Command{
		Use:   "deliver",
		Short: "Give attached readers their device certificates and the root",
		Long: `Give attached readers their device certificates and the root. The manifest that
names the readers was imported before, so that their device keys are certified. A
reader that has its certificate keeps it.`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.StringArrayVar(&benches, "bench", nil, benchHelp+"; may be given several times")
	f.IntVar(&parallel, "parallel", 32, "so many readers at once")
	c.MarkFlagRequired("bench")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		if parallel < 1 || parallel > 1024 {
			return usagef("give 1 to 1024", "--parallel %d", parallel)
		}
		places, err := slotsOf(ctx, benches)
		if err != nil {
			return err
		}
		d := &delivery{node: cl, cas: map[string]*client.CA{}}
		root, err := d.ca(ctx, "root")
		if err != nil {
			return err
		}
		d.root = root.Certificate
		b := newBar(cmd, "stage1")
		s, err := d.all(ctx, places, parallel, b.set)
		b.end()
		if e := g.showSummary(cmd, s); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		return s.fault(ctx)
	})
	return c
}

// delivery brings device certificates to readers.
type delivery struct {
	node *client.Client
	root []byte

	mu  sync.Mutex // guards cas
	cas map[string]*client.CA
}

const atDeskDelivered = "delivered"

func (d *delivery) ca(ctx context.Context, id string) (*client.CA, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.cas[id]; c != nil {
		return c, nil
	}
	c, err := d.node.CA(ctx, id)
	if err == nil {
		d.cas[id] = c
	}
	return c, err
}

func (d *delivery) all(ctx context.Context, places []place, parallel int, progress func(done, total int64)) (*deskSummary, error) {
	s := &deskSummary{Outcomes: map[string]int{}, Failed: []*deskResult{}}
	var mu sync.Mutex // guards s
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, p := range places {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, deskTime)
			defer cancel()
			r := &deskResult{Bench: p.bench, Slot: p.slot}
			if err := d.give(ctx, r); err != nil {
				r.Outcome = ""
				new(desk).settle(r, err)
			}
			mu.Lock()
			defer mu.Unlock()
			s.Readers++
			s.Outcomes[r.Outcome]++
			if r.Outcome != atDeskDelivered && r.Outcome != atDeskDone {
				s.Failed = append(s.Failed, r)
			}
			progress(int64(s.Readers), int64(len(places)))
			return nil
		})
	}
	err := group.Wait()
	slices.SortFunc(s.Failed, func(a, b *deskResult) int { return strings.Compare(a.Number+a.Slot, b.Number+b.Slot) })
	return s, errors.Join(err, ctx.Err())
}

// give gives one reader its certificate.
func (d *delivery) give(ctx context.Context, res *deskResult) error {
	r, _, err := plug(ctx, res.Bench, res.Slot)
	if err != nil {
		return err
	}
	defer r.Close()
	res.Number = r.number
	if r.state >= apdu.Prepared {
		res.Outcome = atDeskDone
		return nil
	}
	rd, err := d.node.Reader(ctx, r.number)
	if err != nil {
		return err
	}
	if rd.DeviceSerial == "" {
		return &client.Problem{Type: "/problems/" + atDeskUnprepared, Title: "The reader has no device certificate", Status: 409,
			Detail: fmt.Sprintf("reader %s is %s", r.number, rd.State), Remedy: "import the manifest that names it: hufu manifest import"}
	}
	cert, err := d.node.Certificate(ctx, rd.DeviceSerial)
	if err != nil {
		return err
	}
	ca, err := d.ca(ctx, cert.CA)
	if err != nil {
		return err
	}
	if _, err := r.do(apdu.PutDevice, 0, apdu.Elements{apdu.Certificate: cert.DER, apdu.Issuer: ca.Certificate, apdu.Root: d.root}); err != nil {
		return err
	}
	res.Outcome = atDeskDelivered
	return nil
}
