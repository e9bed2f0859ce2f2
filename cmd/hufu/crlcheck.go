package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/internal/crlcheck"
)

// fetchTime bounds the download of a list.
const fetchTime = 5 * time.Minute

type crlCheckOptions struct {
	ca, issuer string
	shard      int
}

func newCRLCheck(g *globals) *cobra.Command {
	var o crlCheckOptions
	c := &cobra.Command{Use: "check [LIST [LIST2]]", Short: "Judge CRLs from outside: signature, freshness, completeness, and what changed",
		Long: `Judge CRLs with code that has nothing in common with what made them. A LIST is a
file in DER or PEM, or an http address.

With --ca the lists are held against what the node's book says: everything that
is on hold or revoked stands on them, nothing else does, each with its reason and
time. Without a LIST, everything that the node publishes for that CA is fetched
from where it is published: the full lists, those of the shards, the deltas.

With LIST2, which is newer, what changed between the two is shown, and whether
an entry left before its certificate ended; where LIST2 is a delta, both together
are judged. Without --ca no node is asked.

  hufu crl check --ca 330100
  hufu crl check --ca 330100 http://pki.card.example:8080/crl/330100.crl
  hufu crl check --issuer root.pem old.crl new.crl`,
		Args: cobra.MaximumNArgs(2)}
	c.Flags().StringVar(&o.ca, "ca", "", "the `ID` of the CA, to be held against the node's book")
	c.Flags().StringVar(&o.issuer, "issuer", "", "a `file` with the CA's certificate, where there is no --ca")
	c.Flags().IntVar(&o.shard, "shard", 0, "the shard that LIST is of; 0 = the whole CA")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if o.ca == "" && len(args) == 0 {
			return usagef("name a CA with --ca, or a list", "there is nothing to check")
		}
		judged := &judgedCRLs{}
		if o.ca == "" {
			if err := judged.alone(cmd, &o, args); err != nil {
				return err
			}
			return g.showJudged(cmd, judged)
		}
		return g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			var err error
			if len(args) == 0 {
				err = judged.published(ctx, cl, &o)
			} else {
				err = judged.given(ctx, cmd, cl, &o, args)
			}
			if err != nil {
				return err
			}
			return g.showJudged(cmd, judged)
		})(cmd, args)
	}
	return c
}

// judgedCRLs is what was found.
type judgedCRLs struct {
	Lists   []judgedCRL       `json:"lists"`
	Changes []crlcheck.Change `json:"changes,omitempty"`
	Same    bool              `json:"same,omitempty"` // both lists that were named are one
	issuer  string            // the file that --issuer names
	step    bool              // the step between two lists has a fault
}

// judgedCRL is what was found of one list, or of one with its delta.
type judgedCRL struct {
	List string `json:"list"` // where it came from
	*crlcheck.Report
}

// readList reads a list from a file or an address.
func readList(cmd *cobra.Command, place string) (*crlcheck.List, error) {
	var raw []byte
	var err error
	if strings.HasPrefix(place, "http://") || strings.HasPrefix(place, "https://") {
		raw, err = fetchList(cmd.Context(), place)
	} else {
		raw, err = readDER(cmd, place, "X509 CRL")
	}
	if err != nil {
		return nil, err
	}
	l, err := crlcheck.Parse(raw)
	if err != nil {
		return nil, damagedf("a CRL in DER or PEM is wanted", "%s: %v", place, err)
	}
	return l, nil
}

func fetchList(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, usagef("name a file or an http address", "%v", err)
	}
	unreached := func(err error) error {
		return &hinted{err: fmt.Errorf("fetching %s: %w", address, err), hint: "it must be reachable from this machine, as relying parties reach it", code: exitUnready}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, unreached(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, unreached(fmt.Errorf("the answer is %s", resp.Status))
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, unreached(err)
	}
	return raw, nil
}

// alone judges lists without a book.
func (j *judgedCRLs) alone(cmd *cobra.Command, o *crlCheckOptions, args []string) error {
	check := crlcheck.Check{Now: time.Now()}
	if o.issuer != "" {
		raw, err := readDER(cmd, o.issuer, "CERTIFICATE")
		if err != nil {
			return err
		}
		if check.Issuer, err = x509.ParseCertificate(raw); err != nil {
			return usagef("give the CA's certificate in PEM or DER", "%s: %v", o.issuer, err)
		}
		j.issuer = o.issuer
	}
	lists, err := readLists(cmd, args)
	if err != nil {
		return err
	}
	return j.judge(args, lists, check, nil)
}

func readLists(cmd *cobra.Command, places []string) ([]*crlcheck.List, error) {
	var all []*crlcheck.List
	for _, place := range places {
		l, err := readList(cmd, place)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// judge judges the last list, and the step from the one before it.
func (j *judgedCRLs) judge(places []string, lists []*crlcheck.List, check crlcheck.Check, notAfter func(crlcheck.Serial) (time.Time, bool)) error {
	newest, name := lists[len(lists)-1], strings.Join(places, " + ")
	var faults []crlcheck.Fault
	if len(lists) == 2 && newest.Base != nil {
		sum, err := lists[0].Apply(newest)
		if err != nil {
			return damagedf("name a full list, and then a delta to it", "%s: %v", name, err)
		}
		changes, _ := lists[0].Compare(sum, nil)
		j.Changes, newest = changes, sum
	} else if len(lists) == 2 {
		name, j.Same = places[1], lists[0].Same(newest)
		j.Changes, faults = lists[0].Compare(newest, notAfter)
		j.step = len(faults) > 0
	}
	r, err := newest.Check(check)
	if err != nil {
		return err
	}
	r.Faults = append(r.Faults, faults...)
	j.Lists = append(j.Lists, judgedCRL{name, r})
	return nil
}

// given judges the lists that were named against the node's book.
func (j *judgedCRLs) given(ctx context.Context, cmd *cobra.Command, cl *client.Client, o *crlCheckOptions, args []string) error {
	lists, err := readLists(cmd, args)
	if err != nil {
		return err
	}
	b, err := readCRLBook(ctx, cl, o.ca)
	if err != nil {
		return err
	}
	newest := lists[len(lists)-1]
	return j.judge(args, lists, b.check(o.shard, newest), b.notAfter)
}

// published judges everything that the node publishes for a CA, as it is served.
func (j *judgedCRLs) published(ctx context.Context, cl *client.Client, o *crlCheckOptions) error {
	records, err := cl.CRLs(ctx)
	if err != nil {
		return err
	}
	type served struct {
		places []string
		lists  []*crlcheck.List
		least  []uint64
		shard  int
	}
	var all []served
	for _, r := range records {
		if r.CA != o.ca {
			continue
		}
		raw, err := fetchList(ctx, r.Address)
		if err != nil {
			return err
		}
		l, err := crlcheck.Parse(raw)
		if err != nil {
			return damagedf("publish it anew: hufu crl publish "+r.CA, "%s: %v", r.Address, err)
		}
		if !r.Delta {
			all = append(all, served{shard: r.Shard})
		}
		s := &all[len(all)-1]
		s.places, s.lists, s.least = append(s.places, r.Address), append(s.lists, l), append(s.least, r.Number)
	}
	if len(all) == 0 {
		return &hinted{err: fmt.Errorf("no CRL of CA %s is published", o.ca), hint: "`hufu crl list` shows what there is", code: exitNotFound}
	}
	// The book is read after the lists, so that it knows all that they know.
	b, err := readCRLBook(ctx, cl, o.ca)
	if err != nil {
		return err
	}
	for _, s := range all {
		for n := range s.lists {
			check := b.check(s.shard, s.lists[n])
			check.Least = new(big.Int).SetUint64(s.least[n])
			if full := s.lists[0].Number; n == 1 && full != nil && s.lists[1].Number != nil && full.Cmp(s.lists[1].Number) >= 0 {
				continue // a full list came meanwhile; the delta to it comes next
			}
			if err := j.judge(s.places[:n+1], s.lists[:n+1], check, b.notAfter); err != nil {
				return err
			}
		}
	}
	j.Changes = nil
	return nil
}

// crlBook is what a node says of a CA's certificates.
type crlBook struct {
	issuer    *x509.Certificate
	records   []client.CRL
	standings []crlcheck.Status
	shards    []int // of standings
	ends      map[crlcheck.Serial]time.Time
}

func readCRLBook(ctx context.Context, cl *client.Client, id string) (*crlBook, error) {
	ca, err := cl.CA(ctx, id)
	if err != nil {
		return nil, err
	}
	b := &crlBook{ends: map[crlcheck.Serial]time.Time{}}
	if b.issuer, err = x509.ParseCertificate(ca.Certificate); err != nil {
		return nil, fmt.Errorf("parsing the certificate of CA %s: %w", id, err)
	}
	if b.records, err = cl.CRLs(ctx); err != nil {
		return nil, err
	}
	err = cl.Standings(ctx, id, func(s *client.Standing) error {
		octets, err := hex.DecodeString(s.Serial)
		if err != nil {
			return fmt.Errorf("reading serial number %q: %w", s.Serial, err)
		}
		serial := crlcheck.SerialOf(octets)
		b.standings = append(b.standings, crlcheck.Status{Serial: serial, Listed: s.State != "good", Reason: s.Reason, Time: s.Time, NotAfter: s.NotAfter, Seq: s.Seq})
		b.shards = append(b.shards, s.Shard)
		b.ends[serial] = s.NotAfter
		return nil
	})
	return b, err
}

func (b *crlBook) notAfter(s crlcheck.Serial) (time.Time, bool) {
	end, ok := b.ends[s]
	return end, ok
}

// check is what a list of that shard is held against.
func (b *crlBook) check(shard int, l *crlcheck.List) crlcheck.Check {
	c := crlcheck.Check{Issuer: b.issuer, Now: time.Now(), Book: b.of(shard)}
	for _, r := range b.records {
		if r.Shard == shard && r.Delta == (l.Base != nil) && l.Number != nil && l.Number.Cmp(new(big.Int).SetUint64(r.Number)) == 0 {
			c.AsOf = r.AsOf
		}
	}
	return c
}

// of yields what a list of that shard has to speak of.
func (b *crlBook) of(shard int) iter.Seq2[crlcheck.Status, error] {
	return func(yield func(crlcheck.Status, error) bool) {
		for i, s := range b.standings {
			if (shard == 0 || b.shards[i] == shard) && !yield(s, nil) {
				return
			}
		}
	}
}

// showJudged writes what was found; faults make it an error.
func (g *globals) showJudged(cmd *cobra.Command, j *judgedCRLs) error {
	t := &table{heads: []string{"list", "number", "entries", "in the book", "changed since", "faults", "next"}}
	faults := 0
	for _, l := range j.Lists {
		book := ""
		if l.Book >= 0 {
			book = strconv.Itoa(l.Book)
		}
		t.add(l.List, l.Number, num(l.Entries), book, num(l.Pending), num(len(l.Faults)), when(l.Next))
		faults += len(l.Faults)
	}
	if err := g.show(cmd, j, t); err != nil {
		return err
	}
	if g.output == "table" {
		if j.Same {
			g.tell(cmd.OutOrStdout(), "both are the same list")
		}
		for _, c := range j.Changes {
			g.tell(cmd.OutOrStdout(), "%s %s: reason %s → %s", c.What, c.Serial, reasonText(c.From), reasonText(c.To))
		}
		for _, l := range j.Lists {
			for _, f := range l.Faults {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", l.List, f)
			}
		}
	}
	if faults > 0 {
		return damagedf(j.remedy(), "the lists have %d faults", faults)
	}
	return nil
}

// remedy fits what was found: only some faults are mended by publishing anew.
func (j *judgedCRLs) remedy() string {
	if j.issuer != "" {
		for _, l := range j.Lists {
			for _, f := range l.Faults {
				if f.Kind == crlcheck.KindSignature {
					return "the CA of " + j.issuer + " did not make this list: give --issuer the certificate of the CA that did"
				}
			}
		}
	}
	if j.step {
		return "name the older list first; if it is, keep both as evidence"
	}
	return "publish the lists anew with hufu crl publish, and keep what was found as evidence"
}

func reasonText(reason int) string {
	if reason < 0 {
		return "–"
	}
	return strconv.Itoa(reason)
}
