package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/readers/stage1"
	"hufu/verify"
)

func newTicketCommand(g *globals) *cobra.Command {
	return group("ticket", "Tickets: lists of readers that a city may initialise",
		newTicketCreate(g), newTicketShow(g), newTicketList(g), newTicketVerify(g), newTicketRevoke(g), newTicketImport(g), newTicketReconcile(g))
}

func newTicketCreate(g *globals) *cobra.Command {
	r := client.TicketRequest{}
	var expires, out, list string
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a ticket for prepared readers, signed by the centre",
		Long: `Make a ticket: allot prepared readers to a city and sign their list. The readers are
those of --readers, a file with one number to a line, or those that --batch, --model,
--firmware and --prefix select, --count of them. The city gets the file; a city of
this node's own book needs no more than the ticket's ID.`,
		Example: "  hufu ticket create --city 330100 --expires 2027-03-31 --batch 5f0c… --quota 950 --out 330100.ticket",
		Args:    cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&r.City, "city", "", "the city that it is for")
	f.StringVar(&expires, "expires", "", "the `day` after which no reader is initialised")
	f.Uint32Var(&r.Quota, "quota", 0, "so many of the readers may be initialised; 0 = all")
	f.StringVar(&list, "readers", "", "a `file` with the readers' numbers; - is standard input")
	f.StringVar(&r.Batch, "batch", "", "readers of this `manifest`")
	f.StringVar(&r.Model, "model", "", "readers of this model")
	f.StringVar(&r.Firmware, "firmware", "", "readers with this firmware")
	f.StringVar(&r.Prefix, "prefix", "", "readers whose number begins so")
	f.IntVar(&r.Count, "count", 0, "so many of them; 0 = all")
	f.StringVar(&out, "out", "", "write the ticket to this `file`")
	c.MarkFlagRequired("city")
	c.MarkFlagRequired("expires")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		day, err := onDay("expires", expires)
		if err != nil {
			return err
		}
		r.Expires = day.Add(24*time.Hour - time.Second) // the day counts
		if list != "" {
			if r.Readers, err = readNumbers(cmd, list); err != nil {
				return err
			}
		}
		t, err := cl.CreateTicket(ctx, r)
		if err != nil {
			return err
		}
		if err := g.finishJob(ctx, cmd, cl, t.Job); err != nil {
			return err
		}
		if out != "" {
			if err := saveTicket(ctx, cl, t.ID, out); err != nil {
				return err
			}
		}
		if t, err = cl.Ticket(ctx, t.ID); err != nil {
			return err
		}
		return g.showTicket(cmd, t)
	})
	return c
}

// readNumbers reads readers' numbers, one to a line.
func readNumbers(cmd *cobra.Command, path string) (list []string, err error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("name a file with a number to a line", "reading the numbers: %v", err)
		}
		defer f.Close()
		in = f
	}
	for lines := bufio.NewScanner(in); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return nil, fmt.Errorf("reading the numbers: %w", err)
			}
			if len(list) == 0 {
				return nil, usagef("name a file with a number to a line", "%s has no numbers", path)
			}
			return list, nil
		}
		if n := strings.TrimSpace(lines.Text()); n != "" {
			list = append(list, n)
		}
	}
}

// saveTicket writes a ticket's file in one step.
func saveTicket(ctx context.Context, cl *client.Client, id, path string) error {
	var b bytes.Buffer
	if err := cl.TicketFile(ctx, id, &b); err != nil {
		return err
	}
	if err := replaceFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the ticket: %w", err)
	}
	return nil
}

func (g *globals) showTicket(cmd *cobra.Command, t *client.Ticket) error {
	return g.showFields(cmd, t, []field{{"ticket", t.ID}, {"city", t.City}, {"state", t.State}, {"readers", num(int64(t.Readers))}, {"quota", num(int64(t.Quota))}, {"used", num(int64(t.Used))},
		{"issued", when(t.Issued)}, {"expires", when(t.Expires)}, {"SHA-256", t.SHA256}, {"revoked", when(t.Revoked)}, {"note", t.Note}, {"actor", t.Actor}, {"job", t.Job}, {"event", num(t.Seq)}})
}

func newTicketShow(g *globals) *cobra.Command {
	var out string
	c := &cobra.Command{Use: "show TICKET", Short: "One ticket; with --out its file", Args: cobra.ExactArgs(1)}
	c.Flags().StringVar(&out, "out", "", "write the ticket to this `file`")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		t, err := cl.Ticket(ctx, args[0])
		if err != nil {
			return err
		}
		if out != "" {
			if err := saveTicket(ctx, cl, t.ID, out); err != nil {
				return err
			}
		}
		return g.showTicket(cmd, t)
	})
	return c
}

func newTicketList(g *globals) *cobra.Command {
	var city string
	var limit int
	c := &cobra.Command{Use: "list", Short: "Tickets, newest first", Args: cobra.NoArgs}
	c.Flags().StringVar(&city, "city", "", "of this city")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.Ticket{}
		t := &table{heads: []string{"ticket", "city", "state", "readers", "quota", "used", "expires"}}
		err := limited(cl.Tickets(ctx, city), limit, func(x *client.Ticket) {
			rows = append(rows, x)
			t.add(x.ID, x.City, x.State, num(int64(x.Readers)), num(int64(x.Quota)), num(int64(x.Used)), when(x.Expires))
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

// checkedTicket is what hufu ticket verify tells.
type checkedTicket struct {
	ID      string    `json:"id"`
	City    string    `json:"city"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Quota   uint32    `json:"quota"`
	Readers int       `json:"readers"`
	Signer  string    `json:"signer"`
	SHA256  string    `json:"sha256"`
	Status  string    `json:"status"` // always "not asked"
}

func newTicketVerify(g *globals) *cobra.Command {
	var roots, domain string
	var at string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Judge a ticket's file from the root; works alone",
		Long: `Judge a ticket's file from the root alone: form, chain, names, purpose, signature and
expiry. It asks nobody, so it does not know whether the centre's certificate was
revoked meanwhile, nor whether the ticket was: a node's own book does.

Exit codes: 0 it holds, 7 it does not.`,
		Example: "  hufu ticket verify 330100.ticket --root root.pem --domain card.example",
		Args:    cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&roots, "root", "", "a `file` with the root's certificate")
	f.StringVar(&domain, "domain", "", "the hierarchy's domain, such as card.example")
	f.StringVar(&at, "time", "", "as of this RFC 3339 `time`; absent means now")
	c.MarkFlagRequired("root")
	c.MarkFlagRequired("domain")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		root, err := readDER(cmd, roots, "CERTIFICATE")
		if err != nil {
			return err
		}
		v := &verify.Verifier{Anchors: [][]byte{root}, Domain: domain}
		if at != "" {
			t, err := time.Parse(time.RFC3339, at)
			if err != nil {
				return usagef("write it as 2027-01-31T12:00:00Z", "--time %q is not a time", at)
			}
			v.Now = func() time.Time { return t }
		}
		der, err := readTicket(args[0])
		if err != nil {
			return err
		}
		t, m, err := v.TicketFile(der)
		if err != nil {
			return damagedf("do not use it; ask the centre for the ticket again", "%s does not hold: %v", args[0], err)
		}
		w := checkedTicket{t.ID, t.City, t.Issued, t.Expires, t.Quota, len(t.Readers), m.Signer.Name, fmt.Sprintf("%x", sha256.Sum256(der)), "not asked"}
		return g.showFields(cmd, w, []field{{"ticket", w.ID}, {"result", g.say("valid")}, {"city", w.City}, {"readers", num(w.Readers)}, {"quota", num(int64(w.Quota))}, {"issued", when(w.Issued)},
			{"expires", when(w.Expires)}, {"signer", w.Signer}, {"SHA-256", w.SHA256}, {"status", g.say("not asked")}})
	}
	return c
}

func readTicket(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("name the centre's file", "reading a ticket: %v", err)
	}
	defer f.Close()
	der, err := io.ReadAll(io.LimitReader(f, verify.MaxTicket+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return der, nil
}

func newTicketRevoke(g *globals) *cobra.Command {
	n := client.Note{}
	c := &cobra.Command{Use: "revoke TICKET", Short: "End a ticket, and take the readers off it that are not initialised", Args: cobra.ExactArgs(1),
		Long: `End a ticket: no reader of it is initialised in this book any more, and those that are
not go back to prepared. A city that works offline with the file does not learn of
it: tell it, and it revokes the ticket in its own book.`}
	c.Flags().StringVar(&n.Note, "note", "", "a few words for the history")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		if err := g.sure(cmd, fmt.Sprintf(g.say("revoking ticket %s"), args[0]), "revoke"); err != nil {
			return err
		}
		t, err := cl.RevokeTicket(ctx, args[0], n)
		if err != nil {
			return err
		}
		if err := g.finishJob(ctx, cmd, cl, t.Job); err != nil {
			return err
		}
		return g.showTicket(cmd, t)
	})
	return c
}

func newTicketImport(g *globals) *cobra.Command {
	r := client.TicketImport{}
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take a ticket of the centre into a city's own book",
		Long: `Take a ticket of the centre into a city's own book: its readers are registered as
allotted. A city of the centre's book needs no import. With --offline nobody is asked
for the status of the centre's certificate; the book remembers that.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().BoolVar(&r.Offline, "offline", false, "do not ask for the status of the centre's certificate")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) (err error) {
		if r.Ticket, err = readTicket(args[0]); err != nil {
			return err
		}
		t, err := cl.ImportTicket(ctx, r)
		if err != nil {
			return err
		}
		if err := g.finishJob(ctx, cmd, cl, t.Job); err != nil {
			return err
		}
		if t, err = cl.Ticket(ctx, t.ID); err != nil {
			return err
		}
		return g.showTicket(cmd, t)
	})
	return c
}

// reconciliation is what hufu ticket reconcile tells.
type reconciliation struct {
	Ticket  string         `json:"ticket"`
	City    string         `json:"city"`
	Readers uint32         `json:"readers"`
	Quota   uint32         `json:"quota"`
	Used    uint32         `json:"used"`
	Matched int            `json:"matched"`
	Double  []client.Match `json:"double"`
	Foreign []client.Match `json:"foreign"`
	Missing []string       `json:"missing"`
}

func newTicketReconcile(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "reconcile TICKET RECEIPTS",
		Short: "Hold an offline city's receipts against its ticket",
		Long: `Hold the receipts file of an offline city against its ticket and the register: what is
matched, double, foreign or missing, each by name and reason. Matched readers become
active here. It may be repeated, and goes on where it was interrupted.

Exit codes: 0 nothing is double or foreign, 7 something is. Missing readers are no
fault: the city may still have work to do.`,
		Args: cobra.ExactArgs(2),
	}
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		in := cmd.InOrStdin()
		if args[1] != "-" {
			f, err := os.Open(args[1])
			if err != nil {
				return usagef("name the city's receipts file", "reading receipts: %v", err)
			}
			defer f.Close()
			in = f
		}
		t, err := cl.Ticket(ctx, args[0])
		if err != nil {
			return err
		}
		r := &reconciliation{Ticket: t.ID, City: t.City, Readers: t.Readers, Double: []client.Match{}, Foreign: []client.Match{}, Missing: []string{}}
		if err := r.read(ctx, cmd, cl, in); err != nil {
			return err
		}
		if t, err = cl.Ticket(ctx, t.ID); err != nil {
			return err
		}
		r.Quota, r.Used = t.Quota, t.Used
		for _, state := range []string{"allotted", "initialised"} {
			err := limited(cl.Readers(ctx, client.ReaderQuery{City: t.City, Ticket: t.ID, State: state}), 0, func(x *client.Reader) { r.Missing = append(r.Missing, x.Number) })
			if err != nil {
				return err
			}
		}
		return g.showReconciliation(cmd, r)
	})
	return c
}

// read sends a receipts file in portions. A number that matched in an earlier
// portion is double in a later one.
func (r *reconciliation) read(ctx context.Context, cmd *cobra.Command, cl *client.Client, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 2*stage1.MaxLine)
	bar := newBar(cmd, "reconcile")
	defer bar.end()
	matched := map[string]bool{}
	line, done := 0, int64(0)
	var portion client.Receipts
	var places []int
	send := func() error {
		if len(portion.Lines) == 0 {
			return nil
		}
		m, err := cl.Reconcile(ctx, r.Ticket, portion)
		if err != nil {
			return err
		}
		for _, x := range m.Matches {
			x.Line = places[x.Line-1]
			if x.Outcome == stage1.Matched && matched[x.Number] {
				x.Outcome, x.Reason = stage1.Double, "the reader has a receipt above already"
			}
			switch x.Outcome {
			case stage1.Matched:
				matched[x.Number] = true
				r.Matched++
			case stage1.Double:
				r.Double = append(r.Double, x)
			default:
				r.Foreign = append(r.Foreign, x)
			}
		}
		done += int64(len(portion.Lines))
		bar.set(done, int64(r.Readers))
		portion.Lines, places = nil, nil
		return nil
	}
	for lines.Scan() {
		line++
		if text := strings.TrimSpace(lines.Text()); text != "" {
			portion.Lines, places = append(portion.Lines, text), append(places, line)
		}
		if len(portion.Lines) == stage1.MaxLines {
			if err := send(); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return usagef("each line is one receipt as hufu stage2 receipts wrote it", "line %d of the receipts is too long", line+1)
		}
		return fmt.Errorf("reading the receipts: %w", err)
	}
	return send()
}

func (g *globals) showReconciliation(cmd *cobra.Command, r *reconciliation) error {
	if g.output != "table" {
		if err := g.show(cmd, r, nil); err != nil {
			return err
		}
	} else {
		err := g.showFields(cmd, r, []field{{"ticket", r.Ticket}, {"city", r.City}, {"readers", num(int64(r.Readers))}, {"quota", num(int64(r.Quota))}, {"used", num(int64(r.Used))},
			{"matched", num(r.Matched)}, {"double", num(len(r.Double))}, {"foreign", num(len(r.Foreign))}, {"missing", num(len(r.Missing))}})
		if err != nil {
			return err
		}
		t := &table{heads: []string{"line", "number", "outcome", "reason"}}
		for _, list := range [][]client.Match{r.Double, r.Foreign} {
			for _, m := range list {
				t.add(num(m.Line), m.Number, m.Outcome, m.Reason)
			}
		}
		for _, n := range r.Missing {
			t.add("", n, "missing", "")
		}
		if len(t.rows) > 0 {
			fmt.Fprintln(cmd.OutOrStdout())
			if err := g.show(cmd, nil, t); err != nil {
				return err
			}
		}
	}
	if bad := len(r.Double) + len(r.Foreign); bad > 0 {
		return damagedf("ask the city about each of them; what matched is recorded", "%d receipts are double or foreign", bad)
	}
	return nil
}
