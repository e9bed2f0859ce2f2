package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/policy"
)

// reasons are the CRL reason codes of RFC 5280, Section 5.3.1, that a person
// may give; a hold is a suspension and has a command of its own.
var reasons = map[string]int{
	"unspecified": 0, "key-compromise": 1, "ca-compromise": 2, "affiliation-changed": 3,
	"superseded": 4, "cessation-of-operation": 5, "privilege-withdrawn": 9, "aa-compromise": 10,
}

func reasonName(code int) string {
	for name, c := range reasons {
		if c == code && c != 0 {
			return name
		}
	}
	return ""
}

func newCertCommand(g *globals) *cobra.Command {
	return group("cert", "Certificates: issue, search, suspend, resume, revoke",
		newCertIssue(g), newCertList(g), newCertShow(g), newCertState(g, "suspend"), newCertState(g, "resume"), newCertRevoke(g))
}

func newCertIssue(g *globals) *cobra.Command {
	r := client.IssueRequest{}
	var out string
	c := &cobra.Command{
		Use:   "issue CSR",
		Short: "Issue a certificate for a PKCS#10 request (PEM or DER; - reads standard input)",
		Example: `  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout s.key -subj / -out s.csr
  hufu cert issue s.csr --ca services --profile server --dns bank.card.example --out s.pem`,
		Long: `Issue a certificate for a PKCS#10 request. Where the profile needs an approval, the
command asks for it; once it is granted, the same command with --approval issues.`,
		Args: cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&r.CA, "ca", "", "the CA that issues")
	f.StringVar(&r.Profile, "profile", "", "the certificate profile")
	f.StringSliceVar(&r.Name.DNS, "dns", nil, "DNS names of a server or client")
	f.StringVar(&r.Name.Person, "person", "", "name of a person")
	f.StringVar(&r.Name.Organisation, "organisation", "", "name of an organisation")
	f.StringVar(&r.Name.City, "city", "", "city code")
	f.StringVar(&r.Name.Reader, "reader", "", "reader number")
	f.StringVar(&r.Line, "renew", "", "the certificate line to renew")
	f.StringVar(&r.Approval, "approval", "", "the `ID` of the approval that was granted for exactly this request, where the profile needs one")
	f.StringVar(&out, "out", "", "write certificate and chain to this `file` instead of standard output")
	c.MarkFlagRequired("ca")
	c.MarkFlagRequired("profile")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		var err error
		if r.CSR, err = readDER(cmd, args[0], "CERTIFICATE REQUEST"); err != nil {
			return err
		}
		if p, err := policy.Find(r.Profile); err == nil && p.Approvals > 0 && r.Approval == "" {
			a, err := cl.RequestIssue(ctx, r)
			if err != nil {
				return err
			}
			if err := g.showApproval(cmd, a); err != nil {
				return err
			}
			g.tell(cmd.ErrOrStderr(), "then run the same command again with --approval %s", a.ID)
			return nil
		}
		cert, err := cl.Issue(ctx, r)
		if err != nil {
			return err
		}
		return g.deliver(ctx, cmd, cl, cert.CA, out, cert, cert.DER)
	})
	return c
}

// deliver writes certificates with their chain: PEM on standard output or in a
// file, or the API's own value with -o json.
func (g *globals) deliver(ctx context.Context, cmd *cobra.Command, c *client.Client, ca, out string, v any, ders ...[]byte) error {
	if g.output != "table" && out == "" {
		return g.show(cmd, v, nil)
	}
	authority, err := c.CA(ctx, ca)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, der := range append(append(ders, authority.Certificate), withoutRoot(authority.Chain)...) {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	if out == "" {
		fmt.Fprint(cmd.OutOrStdout(), b.String())
		return nil
	}
	if err := os.WriteFile(out, []byte(b.String()), 0o644); err != nil {
		return err
	}
	g.tell(cmd.OutOrStdout(), "written to %s", out)
	return nil
}

func withoutRoot(chain [][]byte) [][]byte {
	if len(chain) == 0 {
		return nil
	}
	return chain[:len(chain)-1]
}

// readDER reads PEM of the given type, or DER; "-" is standard input.
func readDER(cmd *cobra.Command, path, kind string) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, unread(path, err)
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReader(in)
	// What is neither DER nor text is not read to its end, which may be far.
	first, err := r.Peek(256)
	if err != nil && err != io.EOF {
		return nil, unread(path, err)
	}
	if len(first) == 0 || first[0] != derSequence && bytes.IndexByte(first, 0) >= 0 {
		return nil, neither(path)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, unread(path, err)
	}
	if block, _ := pem.Decode(raw); block != nil {
		if block.Type != kind && block.Type != "NEW "+kind {
			return nil, usagef("", "%s holds PEM of the type %s, and %s is wanted", path, block.Type, kind)
		}
		return block.Bytes, nil
	}
	if raw[0] != derSequence {
		return nil, neither(path)
	}
	return raw, nil
}

const derSequence = 0x30 // what every object here begins with in DER

func neither(path string) error {
	return usagef("give PEM or DER", "%s holds neither PEM nor DER", path)
}

// unread says why a file that was named cannot be read.
func unread(path string, err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err // without the path, which stands there already
	}
	return usagef("name a file that is there and that you may read, or - for standard input", "reading %s: %v", path, err)
}

var certHeads = []string{"serial", "CA", "profile", "state", "name", "expires"}

func certRow(c *client.Certificate) []string {
	name := c.Subject
	if len(c.Names) > 0 {
		name = c.Names[0]
	}
	return []string{c.Serial, c.CA, c.Profile, c.Status.State, name, when(c.NotAfter)}
}

func newCertList(g *globals) *cobra.Command {
	q := client.CertificateQuery{}
	var limit int
	var within time.Duration
	c := &cobra.Command{Use: "list", Short: "Search certificates", Args: cobra.NoArgs}
	f := c.Flags()
	f.StringVar(&q.CA, "ca", "", "of this CA")
	f.StringVar(&q.Reader, "reader", "", "of this reader")
	f.StringVar(&q.City, "city", "", "of this city")
	f.StringVar(&q.State, "state", "", "in this state: good, on-hold, revoked")
	f.StringVar(&q.SPKI, "spki", "", "for the key with this SHA-256")
	f.StringVar(&q.Subject, "subject", "", "with this subject")
	f.StringVar(&q.Line, "line", "", "of this line of renewals")
	f.DurationVar(&within, "expires-within", 0, "that end within this time")
	f.IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		if within > 0 {
			q.ExpiresBefore = time.Now().Add(within)
		}
		rows := []*client.Certificate{}
		t := &table{heads: certHeads}
		err := limited(cl.Certificates(ctx, q), limit, func(c *client.Certificate) { rows = append(rows, c); t.add(certRow(c)...) })
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func certFields(c *client.Certificate) []field {
	state := c.Status.State
	if r := reasonName(c.Status.Reason); r != "" {
		state += " (" + r + ")"
	}
	return []field{{"serial", c.Serial}, {"CA", c.CA}, {"profile", c.Profile}, {"state", state}, {"since", when(c.Status.Time)}, {"subject", c.Subject},
		{"names", strings.Join(c.Names, " ")}, {"reader", c.Reader}, {"city", c.City}, {"from", when(c.NotBefore)}, {"expires", when(c.NotAfter)},
		{"requester", c.Requester}, {"line", c.Line}, {"key", c.SPKI}, {"event", num(c.Seq)}}
}

func newCertShow(g *globals) *cobra.Command {
	var asPEM bool
	c := &cobra.Command{Use: "show SERIAL", Short: "One certificate and its status", Args: cobra.ExactArgs(1)}
	c.Flags().BoolVar(&asPEM, "pem", false, "the certificate itself, in PEM")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		cert, err := cl.Certificate(ctx, args[0])
		if err != nil {
			return err
		}
		if asPEM {
			return pem.Encode(cmd.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: cert.DER})
		}
		return g.showFields(cmd, cert, certFields(cert))
	})
	return c
}

func newCertState(g *globals, verb string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " SERIAL", Short: map[string]string{"suspend": "Put a certificate on hold", "resume": "Lift a hold"}[verb], Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			act := cl.Suspend
			if verb == "resume" {
				act = cl.Resume
			}
			cert, err := act(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showFields(cmd, cert, certFields(cert))
		}),
	}
}

// revocation adds the flags of a revocation to c.
func revocation(c *cobra.Command) func() (client.Revocation, error) {
	var reason, invalid, note string
	f := c.Flags()
	f.StringVar(&reason, "reason", "unspecified", "the `reason`: "+strings.Join(sortedKeys(reasons), ", "))
	f.StringVar(&invalid, "invalid-since", "", "when the key is known to have been lost (RFC 3339 `time`)")
	f.StringVar(&note, "note", "", "a few words for the history")
	c.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(sortedKeys(reasons), cobra.ShellCompDirectiveNoFileComp))
	return func() (client.Revocation, error) {
		code, ok := reasons[reason]
		if !ok {
			return client.Revocation{}, usagef("one of: "+strings.Join(sortedKeys(reasons), ", "), "there is no revocation reason %q", reason)
		}
		r := client.Revocation{Reason: code, Note: note}
		if invalid != "" {
			t, err := time.Parse(time.RFC3339, invalid)
			if err != nil {
				return r, usagef("write it as 2026-03-15T14:25:30Z", "--invalid-since %q is not a time", invalid)
			}
			r.InvalidityDate = t
		}
		return r, nil
	}
}

func newCertRevoke(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "revoke SERIAL", Short: "Revoke a certificate for ever", Args: cobra.ExactArgs(1)}
	read := revocation(c)
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		r, err := read()
		if err != nil {
			return err
		}
		if err := g.sure(cmd, fmt.Sprintf(g.say("revoking certificate %s for ever"), args[0]), "revoke"); err != nil {
			return err
		}
		cert, err := cl.Revoke(ctx, args[0], r)
		if err != nil {
			return err
		}
		return g.showFields(cmd, cert, certFields(cert))
	})
	return c
}
