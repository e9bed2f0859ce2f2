package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/verify/path"
)

// maxVerifyFile bounds what is read into memory at once. A list in DER is not: it
// is read as a stream.
const maxVerifyFile = 64 << 20

// verifyOptions are the flags of hufu verify.
type verifyOptions struct {
	chain, anchors, lists, answers []string // files
	at                             string
	req                            path.Request
}

func newVerifyCommand(g *globals) *cobra.Command {
	o := &verifyOptions{}
	c := &cobra.Command{
		Use:   "verify CERT...",
		Short: "Say whether certificates may be relied on, and if not, why",
		Long: `Say whether certificates may be relied on: path validation and revocation by RFC
5280, Sections 6.1 and 6.3. It works alone, asks no network, and trusts only the
anchors that it is given. Every file is PEM or DER, and may hold several; what
follows the first certificate in CERT helps to build the path. - is standard input.

Each certificate but the anchor needs a fresh status, from --crl or --ocsp, unless
--no-status says that nobody asks. What cannot be told is not valid. With --policy
one of the policies must hold for the whole path.

Exit codes: 0 every certificate is valid, 7 one is not, 2 the question was wrong.`,
		Example: `  hufu verify leaf.pem --anchor root.pem --chain ca.pem --crl root.crl --crl ca.crl
  hufu verify server.pem --anchor root.pem --ocsp answer.der --crl root.crl --purpose server --name www.card.example
  hufu verify old.pem --anchor root.pem --time 2026-01-31T12:00:00Z --no-status -o json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return g.verify(cmd, o, args) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.anchors, "anchor", nil, "a `file` with certificates that are trusted")
	f.StringArrayVar(&o.chain, "chain", nil, "a `file` with certificates that may stand between; nobody trusts them")
	f.StringArrayVar(&o.lists, "crl", nil, "a `file` with revocation lists, full, delta or indirect")
	f.StringArrayVar(&o.answers, "ocsp", nil, "a `file` with an OCSP answer in DER")
	f.StringVar(&o.at, "time", "", "as of this RFC 3339 `time`; absent means now")
	f.StringVar(&o.req.Purpose, "purpose", "", "what it is for: "+strings.Join(path.Purposes, ", ")+", or a dotted extended key usage")
	f.StringVar(&o.req.Name, "name", "", "the DNS name, IP address or mailbox that it must bear")
	f.StringArrayVar(&o.req.Policies, "policy", nil, "a dotted certificate `policy` that is acceptable; one of them is demanded")
	f.BoolVar(&o.req.ExplicitPolicy, "explicit-policy", false, "demand a policy, whichever")
	f.BoolVar(&o.req.InhibitMapping, "inhibit-mapping", false, "let no CA map policies")
	f.BoolVar(&o.req.InhibitAny, "inhibit-any-policy", false, "let anyPolicy stand for none")
	f.DurationVar(&o.req.MaxAge, "max-age", 0, "refuse a status that is older; 0 means until its nextUpdate")
	f.BoolVar(&o.req.NoStatus, "no-status", false, "do not ask whether anything is revoked")
	f.BoolVar(&o.req.SHA1, "sha1", false, "accept certificates that were signed with SHA-1")
	c.MarkFlagRequired("anchor")
	c.RegisterFlagCompletionFunc("purpose", cobra.FixedCompletions(path.Purposes, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// verdict is the answer about one file.
type verdict struct {
	File string `json:"file"`
	path.Answer
}

func (g *globals) verify(cmd *cobra.Command, o *verifyOptions, files []string) error {
	if err := o.read(cmd); err != nil {
		return err
	}
	var all []verdict
	var first error
	for _, file := range files {
		v, err := o.judge(cmd, file)
		if err != nil {
			return err
		}
		all = append(all, *v)
		if r := v.Reason; r != nil && first == nil {
			first = damagedf(r.RFC, "%s is not valid: %v", file, r)
			if r.ID == path.BadRequest {
				return usagef("see hufu verify --help", "%s", r.Detail)
			}
		}
	}
	if g.output != "table" {
		var shown any = all
		if len(all) == 1 {
			shown = all[0]
		}
		if err := g.show(cmd, shown, nil); err != nil {
			return err
		}
		return first
	}
	for i := range all {
		if i > 0 {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		if err := g.showVerdict(cmd, &all[i]); err != nil {
			return err
		}
	}
	return first
}

func (g *globals) showVerdict(cmd *cobra.Command, v *verdict) error {
	result := g.say("valid")
	var reason, certificate, detail, clause string
	if r := v.Reason; r != nil {
		result, reason = g.say("not valid"), r.ID
		for _, known := range path.Reasons {
			if known.ID == r.ID {
				reason += ": " + g.say(known.Words)
			}
		}
		certificate, detail, clause = r.Certificate, r.Detail, r.RFC
	}
	var links []string
	for _, l := range v.Path {
		s := l.Subject
		if l.Source != "" && l.Source != "anchor" {
			s += fmt.Sprintf(" (%s, %s)", l.Source, when(l.AsOf))
		}
		links = append(links, s)
	}
	return g.showFields(cmd, v, []field{
		{"file", v.File}, {"result", result}, {"reason", reason}, {"certificate", certificate}, {"detail", detail}, {"clause", clause},
		{"path", strings.Join(links, " < ")}, {"policies", strings.Join(v.Policies, ", ")}, {"time", when(v.Time)},
	})
}

// read reads the files of the flags, but for the lists.
func (o *verifyOptions) read(cmd *cobra.Command) (err error) {
	for _, name := range []string{"name", "purpose", "policy", "time"} {
		// An empty variable of a shell must not take a demand away.
		if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), `[]"`) == "" {
			return usagef("leave the flag out, or give it a value", "--%s is empty", name)
		}
	}
	o.req.ExplicitPolicy = o.req.ExplicitPolicy || len(o.req.Policies) > 0
	if o.at != "" {
		if o.req.Time, err = time.Parse(time.RFC3339, o.at); err != nil {
			return usagef("write it like 2026-01-31T12:00:00Z", "--time %q is not an RFC 3339 time", o.at)
		}
	}
	for _, set := range []struct {
		files []string
		to    *[][]byte
	}{{o.anchors, &o.req.Anchors}, {o.chain, &o.req.Intermediates}} {
		for _, file := range set.files {
			ders, err := certificatesOf(cmd, file)
			if err != nil {
				return err
			}
			*set.to = append(*set.to, ders...)
		}
	}
	for _, file := range o.answers {
		raw, err := readBounded(cmd, file)
		if err != nil {
			return err
		}
		o.req.OCSP = append(o.req.OCSP, raw)
	}
	return nil
}

// judge asks about the first certificate of a file. The lists are opened anew for
// each, since they are streams.
func (o *verifyOptions) judge(cmd *cobra.Command, file string) (*verdict, error) {
	ders, err := certificatesOf(cmd, file)
	if err != nil {
		return nil, err
	}
	r := o.req
	r.Certificate, r.Intermediates = ders[0], slices.Concat(ders[1:], o.req.Intermediates)
	for _, name := range o.lists {
		lists, closeAll, err := listsOf(cmd, name)
		if err != nil {
			return nil, err
		}
		defer closeAll()
		r.CRLs = append(r.CRLs, lists...)
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	answer := path.Validate(ctx, &r)
	if answer.Reason != nil && answer.Reason.ID == path.Interrupted {
		return nil, ctx.Err()
	}
	return &verdict{file, answer}, nil
}

// readBounded reads a whole file, or standard input.
func readBounded(cmd *cobra.Command, file string) ([]byte, error) {
	r := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usagef("give the name of a file that can be read", "%v", err)
		}
		defer f.Close()
		r = f
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxVerifyFile+1))
	switch {
	case err != nil:
		return nil, usagef("give the name of a file that can be read", "reading %s: %v", file, err)
	case len(raw) > maxVerifyFile:
		return nil, usagef("a larger list is read in DER", "%s has more than %d octets", file, maxVerifyFile)
	}
	return raw, nil
}

// certificatesOf reads the certificates of a file, at least one.
func certificatesOf(cmd *cobra.Command, file string) ([][]byte, error) {
	raw, err := readBounded(cmd, file)
	if err != nil {
		return nil, err
	}
	if ders := blocks(raw, "CERTIFICATE"); ders != nil {
		return ders, nil
	}
	if len(raw) == 0 || raw[0] != 0x30 { // neither PEM nor a SEQUENCE
		return nil, usagef("a certificate in PEM or DER is wanted", "%s holds no certificate", file)
	}
	return [][]byte{raw}, nil
}

// listsOf opens the lists of a file: one in DER as a stream, or those in PEM.
func listsOf(cmd *cobra.Command, file string) ([]io.Reader, func(), error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, usagef("give the name of a file that can be read", "%v", err)
	}
	var head [1]byte
	if n, err := f.ReadAt(head[:], 0); err == nil && n == 1 && head[0] == 0x30 {
		return []io.Reader{f}, func() { f.Close() }, nil
	}
	f.Close()
	raw, err := readBounded(cmd, file)
	if err != nil {
		return nil, nil, err
	}
	var lists []io.Reader
	for _, der := range blocks(raw, "X509 CRL") {
		lists = append(lists, bytes.NewReader(der))
	}
	if lists == nil {
		return nil, nil, usagef("a revocation list in PEM or DER is wanted", "%s holds no revocation list", file)
	}
	return lists, func() {}, nil
}

// blocks returns the PEM blocks of one type; nil is none.
func blocks(raw []byte, kind string) (ders [][]byte) {
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			ders = append(ders, block.Bytes)
		}
	}
	return ders
}
