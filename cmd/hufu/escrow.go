package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/hsm"
	"hufu/internal/cms"
)

func newEscrowCommand(g *globals) *cobra.Command {
	return group("escrow", "The key management centre: kept encryption keys and their recovery",
		newEscrowStatus(g), newEscrowList(g), newEscrowRequest(g), newEscrowRecover(g), newEscrowOpen(g))
}

func newEscrowStatus(g *globals) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "How many keys are kept, by state", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			e, err := cl.Escrow(ctx)
			if err != nil {
				return err
			}
			return g.showFields(cmd, e, []field{{"spare", fmt.Sprintf("%d/%d", e.Spare, e.Wanted)}, {"claimed", num(e.Claimed)}, {"in use", num(e.InUse)},
				{"history", num(e.History)}, {"officers needed", num(e.Officers)}})
		})}
}

func newEscrowList(g *globals) *cobra.Command {
	var reader string
	var limit int
	c := &cobra.Command{Use: "list", Short: "Kept keys of readers, and whose they are; never the keys themselves", Args: cobra.NoArgs}
	c.Flags().StringVar(&reader, "reader", "", "of this reader `number`")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.EscrowKey{}
		t := &table{heads: []string{"reader", "city", "state", "serial", "made", "changed since"}}
		err := limited(cl.EscrowKeys(ctx, reader), limit, func(k *client.EscrowKey) {
			rows = append(rows, k)
			t.add(k.Reader, k.City, k.State, k.Serial, when(k.Made), when(k.Changed))
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func newEscrowRequest(g *globals) *cobra.Command {
	r := client.RecoveryRequest{}
	var recipient string
	c := &cobra.Command{
		Use:   "request SERIAL",
		Short: "Ask that a kept key be recovered; key officers approve",
		Long: `Ask that the key of a reader's encryption certificate be sealed for the holder of
another certificate, which is a good one of profile recipient.

Nothing is done before enough key officers have signed the request, each with
hufu officer approve; whoever asks is none of them.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&recipient, "recipient", "", "certificate `file` of whom the key is for")
	c.Flags().StringVar(&r.Reason, "reason", "", "why; officers read it before they sign")
	c.MarkFlagRequired("recipient")
	c.MarkFlagRequired("reason")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		var err error
		if r.Recipient, err = readDER(cmd, recipient, "CERTIFICATE"); err != nil {
			return err
		}
		r.Serial = args[0]
		a, err := cl.RequestRecovery(ctx, r)
		if err != nil {
			return err
		}
		return g.showApproval(cmd, a)
	})
	return c
}

func newEscrowRecover(g *globals) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "recover APPROVAL",
		Short: "Use a granted approval up: write the sealed key and its certificate",
		Long: `Use a granted approval up and write OUT.p7m, the key sealed for its recipient, and
OUT.crt, the certificate whose key it is. The recipient opens it with hufu escrow open.

An approval is good for one recovery. Where the answer got lost, or the file could
not be written, the same command gives it again for a day.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&out, "out", "", "the `path` that .p7m and .crt are added to")
	c.MarkFlagRequired("out")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
		for _, end := range []string{".p7m", ".crt"} {
			if _, err := os.Stat(out + end); err == nil {
				return usagef("choose another --out", "%s is there already", out+end)
			}
		}
		// The key of this write is the approval's own, so that a second try gets the same.
		r, err := cl.Keyed("recover-"+args[0]).Recover(ctx, args[0])
		if err != nil {
			return err
		}
		if err := writeNew(out+".p7m", r.Envelope, 0o600); err != nil {
			return usagef("choose another --out and run the command again", "writing the sealed key: %v", err)
		}
		if err := writeNew(out+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}), 0o644); err != nil {
			return usagef("choose another --out and run the command again", "writing the certificate: %v", err)
		}
		return g.showFields(cmd, r, []field{{"approval", r.Approval}, {"reader", r.Reader}, {"serial", r.Serial}, {"file", out + ".p7m"}, {"certificate", out + ".crt"}})
	})
	return c
}

// opening is how a recipient's key is reached.
type opening struct {
	certificate, recipient, out string
	key, keyURI, module         string
	pin                         hsm.PINSource
}

func newEscrowOpen(g *globals) *cobra.Command {
	o := &opening{}
	c := &cobra.Command{
		Use:   "open ENVELOPE",
		Short: "Open a recovered key with the recipient's own key; works alone",
		Long: `Open what hufu escrow recover wrote, with the recipient's key from a file or from a
token, and write the reader's private key (PKCS#8 in PEM, mode 0600). It must be the
key of the certificate that is named. Nothing goes over the network.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (o.key == "") == (o.keyURI == "") {
				return usagef("see hufu escrow open --help", "either --key or --key-uri must say where the recipient's key is")
			}
			envelope, err := readDER(cmd, args[0], "CMS")
			if err != nil {
				return err
			}
			pkcs8, err := o.open(cmd, envelope)
			if err != nil {
				return err
			}
			defer clear(pkcs8)
			block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
			defer clear(block)
			if err := writeNew(o.out, block, 0o600); err != nil {
				return usagef("choose another --out", "writing the key: %v", err)
			}
			g.tell(cmd.OutOrStdout(), "the key of %s lies in %s; guard it, and remove it when it is not needed any more", o.certificate, o.out)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.certificate, "certificate", "", "certificate `file` of the key that was recovered")
	f.StringVar(&o.recipient, "recipient", "", "certificate `file` of the recipient")
	f.StringVar(&o.key, "key", "", "the recipient's key `file`")
	f.StringVar(&o.keyURI, "key-uri", "", "the token that holds the recipient's key, as `URI` (RFC 7512)")
	f.StringVar(&o.module, "module", "", "the token's PKCS#11 `library`")
	f.StringVar(&o.pin.File, "pin-file", "", "a `file` with the token's PIN; without it the PIN is asked for")
	f.StringVar(&o.out, "out", "", "the `file` that the private key is written to; it must be new")
	for _, name := range []string{"certificate", "recipient", "out"} {
		c.MarkFlagRequired(name)
	}
	return c
}

func (o *opening) open(cmd *cobra.Command, envelope []byte) ([]byte, error) {
	target, err := readCertificate(cmd, o.certificate)
	if err != nil {
		return nil, err
	}
	recipient, err := readCertificate(cmd, o.recipient)
	if err != nil {
		return nil, err
	}
	opener := &cms.Opener{Certificate: recipient.Raw}
	done, err := o.take(cmd.Context(), opener, recipient)
	if err != nil {
		return nil, err
	}
	defer done()
	pkcs8, err := opener.OpenKey(envelope, target.RawSubjectPublicKeyInfo)
	switch {
	case errors.Is(err, cms.ErrRecipient):
		return nil, &hinted{err: err, hint: "it is for another certificate than " + o.recipient, code: exitRefused}
	case errors.Is(err, cms.ErrOpen):
		return nil, &hinted{err: err, hint: "is the key that of " + o.recipient + "?", code: exitRefused}
	case errors.Is(err, cms.ErrOtherKey):
		return nil, damagedf("name the certificate that was written beside the envelope", "%v than that of %s", err, o.certificate)
	case err != nil:
		return nil, fmt.Errorf("opening the recovered key: %w", err)
	}
	return pkcs8, nil
}

func readCertificate(cmd *cobra.Command, path string) (*x509.Certificate, error) {
	der, err := readDER(cmd, path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, usagef("", "%s holds no certificate that can be read: %v", path, err)
	}
	return cert, nil
}

// take gives the opener the recipient's key.
func (o *opening) take(ctx context.Context, opener *cms.Opener, recipient *x509.Certificate) (done func(), err error) {
	done = func() {}
	if o.key != "" {
		key, err := readKey(o.key)
		if err != nil {
			return nil, err
		}
		if have, err := x509.MarshalPKIXPublicKey(key.Public()); err != nil || !bytes.Equal(have, recipient.RawSubjectPublicKeyInfo) {
			return nil, usagef("name the key that belongs to the recipient's certificate", "%s is not the key of %s", o.key, o.recipient)
		}
		switch k := key.(type) {
		case *ecdsa.PrivateKey:
			opener.ECDH, err = k.ECDH()
		case *rsa.PrivateKey:
			opener.RSA = k
		}
		return done, err
	}
	token, err := hsm.Open(ctx, hsm.Config{Module: o.module, URI: o.keyURI, PIN: o.source().Func("the recipient's token"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("opening the recipient's token: %w", err)
	}
	done = func() { token.Close() }
	key, err := token.Key(ctx, recipient.PublicKey)
	if err == nil {
		if _, isRSA := recipient.PublicKey.(*rsa.PublicKey); isRSA {
			opener.RSA = key.Within(ctx)
		} else {
			opener.ECDH, err = key.Within(ctx).ECDHKey()
		}
	}
	if err != nil {
		done()
		return nil, fmt.Errorf("finding the recipient's key: %w", err)
	}
	return done, nil
}

// source is where the PIN comes from: a file, or the terminal.
func (o *opening) source() hsm.PINSource {
	p := o.pin
	p.Prompt = p.File == ""
	return p
}
