package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/internal/cms"
	"hufu/internal/oid"
)

func newOfficerCommand(g *globals) *cobra.Command {
	return group("officer", "People and machines: keys, rights, approvals",
		newOfficerRequest(g), newOfficerList(g), newOfficerAdd(g), newOfficerRemove(g), newOfficerWhoAmI(g), newOfficerApprovals(g), newOfficerApprove(g))
}

func newOfficerRequest(g *globals) *cobra.Command {
	var name, out string
	c := &cobra.Command{
		Use:   "request",
		Short: "Make a key and a certificate request for a person; works alone",
		Long: `Make a P-256 key (OUT.key, mode 0600) and a certificate request (OUT.csr).

For a key in a token, make the request with the token's own tools and give the
request to the CA admins.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := newKeyAndRequest(out, name); err != nil {
				return err
			}
			g.tell(cmd.OutOrStdout(), "key: %s.key; request: %s.csr (give this file to the CA admins)", out, out)
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "the person's name")
	c.Flags().StringVar(&out, "out", "", "the `path` that .key and .csr are added to")
	c.MarkFlagRequired("name")
	c.MarkFlagRequired("out")
	return c
}

// newKeyAndRequest writes base.key and base.csr; it never overwrites a key.
func newKeyAndRequest(base, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeNew(base+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return usagef("choose another --out, or move the old key away", "writing the key: %v", err)
	}
	return writeNew(base+".csr", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 0o644)
}

func newOfficerList(g *globals) *cobra.Command {
	var limit int
	c := &cobra.Command{Use: "list", Short: "People and machines that may act", Args: cobra.NoArgs}
	c.Flags().IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.Officer{}
		t := &table{heads: []string{"name", "roles", "city", "state", "fingerprint"}}
		err := limited(cl.Officers(ctx), limit, func(o *client.Officer) {
			rows = append(rows, o)
			t.add(o.Name, strings.Join(o.Roles, ","), o.City, o.State, o.Fingerprint)
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func (g *globals) showApproval(cmd *cobra.Command, a *client.Approval) error {
	given := make([]string, len(a.Given))
	for i, s := range a.Given {
		given[i] = s.Name
	}
	err := g.showFields(cmd, a, []field{{"approval", a.ID}, {"operation", a.Operation}, {"city", a.City}, {"requester", a.Requester}, {"state", a.State},
		{"given", fmt.Sprintf("%d/%d %s", len(a.Given), a.Needed, strings.Join(given, ", "))}, {"expires", when(a.Expires)}, {"what", string(a.Canonical)}})
	if err == nil && a.State == "open" && g.output == "table" {
		g.tell(cmd.ErrOrStderr(), "nothing is done yet: another officer looks at it and runs: hufu officer approve %s", a.ID)
	}
	return err
}

func newOfficerAdd(g *globals) *cobra.Command {
	r := client.OfficerRequest{}
	c := &cobra.Command{Use: "add CERTIFICATE", Short: "Ask that a person or a machine be given rights; another admin approves", Args: cobra.ExactArgs(1)}
	f := c.Flags()
	f.StringVar(&r.Name, "name", "", "name")
	f.StringSliceVar(&r.Roles, "role", nil, "`roles`: ca-admin, ca-operator, city-operator, counter, key-officer, auditor, topup")
	f.StringVar(&r.City, "city", "", "the city; empty means the centre and all cities")
	c.MarkFlagRequired("name")
	c.MarkFlagRequired("role")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		var err error
		if r.Certificate, err = readDER(cmd, args[0], "CERTIFICATE"); err != nil {
			return err
		}
		a, err := cl.AddOfficer(ctx, r)
		if err != nil {
			return err
		}
		return g.showApproval(cmd, a)
	})
	return c
}

func newOfficerRemove(g *globals) *cobra.Command {
	return &cobra.Command{Use: "remove FINGERPRINT", Short: "Ask that a person's rights be taken away; another admin approves", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			a, err := cl.RemoveOfficer(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showApproval(cmd, a)
		})}
}

func newOfficerWhoAmI(g *globals) *cobra.Command {
	return &cobra.Command{Use: "whoami", Short: "Who the node takes you for", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			p, err := cl.WhoAmI(ctx)
			if err != nil {
				return err
			}
			return g.showFields(cmd, p, []field{{"name", p.Name}, {"roles", strings.Join(p.Roles, ",")}, {"city", p.City}, {"fingerprint", p.Fingerprint}})
		})}
}

func newOfficerApprovals(g *globals) *cobra.Command {
	var state string
	var limit int
	c := &cobra.Command{Use: "approvals", Short: "What waits for an approval", Args: cobra.NoArgs}
	c.Flags().StringVar(&state, "state", "open", "in this state: open, granted, used, expired; empty = all")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.Approval{}
		t := &table{heads: []string{"approval", "operation", "requester", "given", "state", "expires"}}
		err := limited(cl.Approvals(ctx, state), limit, func(a *client.Approval) {
			rows = append(rows, a)
			t.add(a.ID, a.Operation, a.Requester, fmt.Sprintf("%d/%d", len(a.Given), a.Needed), a.State, when(a.Expires))
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func newOfficerApprove(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "approve ID",
		Short: "Sign an approval with your own key, after reading what it says",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			cl, id, err := g.dial(ctx)
			if err != nil {
				return err
			}
			defer id.close()
			a, err := cl.Approval(ctx, args[0])
			if err != nil {
				return unreachable(err)
			}
			// What is shown is what is signed: the node's hash is not believed.
			if sum := sha256.Sum256(a.Canonical); hex.EncodeToString(sum[:]) != a.Hash {
				return damagedf("do not sign; tell the auditors", "the node's hash of approval %s is not that of the bytes it shows", a.ID)
			}
			g.tell(cmd.ErrOrStderr(), "approval %s, asked by %s:", a.ID, a.Requester)
			fmt.Fprintf(cmd.ErrOrStderr(), "  %s\n", a.Canonical)
			if err := g.sure(cmd, g.say("signing this approval"), "approve"); err != nil {
				return err
			}
			chain := id.cert.Certificate
			der, err := cms.Sign(oid.ContentApproval, a.Canonical, chain[0], chain[1:], id.key, time.Now())
			if err != nil {
				return fmt.Errorf("signing the approval: %w", err)
			}
			if a, err = cl.Approve(ctx, a.ID, der); err != nil {
				return unreachable(err)
			}
			return g.showApproval(cmd, a)
		},
	}
}
