package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/hsm"
)

func newCACommand(g *globals) *cobra.Command {
	return group("ca", "Certificate authorities: list, show, make keys and requests", newCAList(g), newCAShow(g), newCARequest(g))
}

func newCAList(g *globals) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "The root and the working CAs", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			cas, err := cl.CAs(ctx)
			if err != nil {
				return err
			}
			t := &table{heads: []string{"CA", "kind", "city", "state", "expires", "subject"}}
			for _, c := range cas {
				t.add(c.ID, c.Kind, c.City, c.State, when(c.NotAfter), c.Subject)
			}
			return g.show(cmd, cas, t)
		})}
}

func newCAShow(g *globals) *cobra.Command {
	var asPEM bool
	c := &cobra.Command{Use: "show CA", Short: "One CA and its newest CRL", Args: cobra.ExactArgs(1)}
	c.Flags().BoolVar(&asPEM, "pem", false, "the certificate itself and its chain, in PEM")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		a, err := cl.CA(ctx, args[0])
		if err != nil {
			return err
		}
		if asPEM {
			for _, der := range append([][]byte{a.Certificate}, a.Chain...) {
				if err := pem.Encode(cmd.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
					return err
				}
			}
			return nil
		}
		fields := []field{{"CA", a.ID}, {"kind", a.Kind}, {"city", a.City}, {"state", a.State}, {"subject", a.Subject}, {"from", when(a.NotBefore)}, {"expires", when(a.NotAfter)}, {"key", a.SPKI}}
		if l := a.CRL; l != nil {
			fields = append(fields, field{"CRL", fmt.Sprintf("%d, %d entries, next %s", l.Number, l.Entries, when(l.NextUpdate))})
		}
		return g.showFields(cmd, a, fields)
	})
	return c
}

func newCARequest(g *globals) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "request",
		Short: "Make the working CAs' keys in the token and write their requests for the root; works alone",
		Long: `Make a key in the token for every CA of the configuration that has none there
yet, and write a request for each: OUT/<id>.csr. Carry the files to the root's
machine on media that can be written once; read the hashes that are printed here
to the officers there, by another way than the files.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			return g.requestCAs(cmd.Context(), cmd, conf, out)
		},
	}
	c.Flags().StringVar(&out, "out", "requests", "the `folder` for the requests")
	return c
}

// caRequest is one line of what `ca request` shows.
type caRequest struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
	City string `json:"city,omitempty"`
	File string `json:"file"`
	Sum  string `json:"sha256"`
}

func (g *globals) requestCAs(ctx context.Context, cmd *cobra.Command, conf *Config, out string) error {
	token, err := openToken(ctx, conf.hsm())
	if err != nil {
		return fmt.Errorf("opening the token: %w", err)
	}
	defer token.Close()
	rows, err := makeRequests(ctx, token, conf, out)
	if err != nil {
		return err
	}
	t := &table{heads: []string{"CA", "kind", "city", "file", "SHA-256"}}
	for _, r := range rows {
		t.add(r.ID, r.Kind, r.City, r.File, r.Sum)
	}
	return g.show(cmd, rows, t)
}

func makeRequests(ctx context.Context, token *hsm.Token, conf *Config, out string) ([]caRequest, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	var rows []caRequest
	for _, a := range conf.CAs {
		key, err := keyLabelled(ctx, token, a.Key, hsm.P256)
		if err != nil {
			return nil, err
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "CA " + a.ID}}, key)
		if err != nil {
			return nil, fmt.Errorf("making the request of CA %s: %w", a.ID, err)
		}
		file := filepath.Join(out, a.ID+".csr")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 0o644); err != nil {
			return nil, err
		}
		rows = append(rows, caRequest{ID: a.ID, Kind: a.Kind, City: a.City, File: file, Sum: fmt.Sprintf("%x", sha256.Sum256(csr))})
	}
	return rows, nil
}

// sortedKeys lists a map's keys for people.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
