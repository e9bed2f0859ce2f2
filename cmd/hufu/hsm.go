package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"hufu/hsm"
)

// tokenFlags name a token on the command line, for the commands that work
// before or without a node.
type tokenFlags struct{ module, uri, pinFile string }

func (t *tokenFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&t.module, "module", "", "the PKCS#11 library; default: the configuration's")
	f.StringVar(&t.uri, "token", "", "the token, as pkcs11: `URI`; default: the configuration's")
	f.StringVar(&t.pinFile, "pin-file", "", "the file that holds the PIN; default: the configuration's source, or a prompt")
}

// config gives the token's configuration: the flags where they are set, else
// the node's configuration file.
func (t *tokenFlags) config(g *globals) (hsm.Config, error) {
	cfg := hsm.Config{Module: t.module, URI: t.uri, Log: slog.New(slog.DiscardHandler)}
	pin := hsm.PINSource{Prompt: true}
	if t.module == "" || t.uri == "" {
		c, err := loadConfig(g.config)
		if err != nil {
			return cfg, err
		}
		cfg = c.hsm()
		pin = c.Token.PIN
		if t.module != "" {
			cfg.Module = t.module
		}
		if t.uri != "" {
			cfg.URI = t.uri
		}
	}
	if t.pinFile != "" {
		pin = hsm.PINSource{File: t.pinFile}
	}
	pin.CredentialsDir = os.Getenv("CREDENTIALS_DIRECTORY")
	cfg.PIN = pin.Func(cfg.URI)
	return cfg, nil
}

// hsm is the node's token configuration.
func (c *Config) hsm() hsm.Config {
	pin := c.Token.PIN
	pin.CredentialsDir = os.Getenv("CREDENTIALS_DIRECTORY")
	return hsm.Config{Module: c.Token.Module, URI: c.Token.URI, PIN: pin.Func(c.Token.URI), MaxSessions: c.Token.Sessions}
}

func newHSMCommand(g *globals) *cobra.Command {
	return group("hsm", "PKCS#11 tokens: examine, list keys", newHSMDoctor(g), newHSMKeys(g))
}

func newHSMDoctor(g *globals) *cobra.Command {
	t := &tokenFlags{}
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the module, the token, the PIN and the keys, and say what to do; works alone",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := t.config(g)
			if err != nil {
				return err
			}
			bad := 0
			findings := hsm.Doctor(cmd.Context(), cfg)
			if g.output != "table" {
				if err := g.show(cmd, findings, nil); err != nil {
					return err
				}
			}
			for _, f := range findings {
				mark := "ok  "
				if !f.OK {
					mark = "BAD "
					bad++
				}
				if g.output == "table" {
					fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", mark, f.What)
					if f.Remedy != "" {
						fmt.Fprintf(cmd.OutOrStdout(), "     → %s\n", f.Remedy)
					}
				}
			}
			if bad > 0 {
				return &hinted{err: fmt.Errorf("%d of %d findings are bad", bad, len(findings)), code: exitUnready}
			}
			return nil
		},
	}
	t.add(c)
	return c
}

func newHSMKeys(g *globals) *cobra.Command {
	t := &tokenFlags{}
	c := &cobra.Command{
		Use:   "keys",
		Short: "List the token's keys with their attributes; works alone",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.with(cmd.Context(), g, func(ctx context.Context, token *hsm.Token) error {
				keys, err := token.Keys(ctx)
				if err != nil {
					return err
				}
				tab := &table{heads: []string{"label", "kind", "key", "sensitive", "extractable", "made here", "may"}}
				for _, k := range keys {
					a := k.Attributes
					may := ""
					for _, u := range []struct {
						on   bool
						name string
					}{{a.Sign, "sign "}, {a.Decrypt, "decrypt "}, {a.Derive, "derive "}, {a.Wrap, "wrap "}, {a.Unwrap, "unwrap "}} {
						if u.on {
							may += u.name
						}
					}
					tab.add(k.Label, k.Kind.String(), fmt.Sprintf("%x…", k.SPKI[:8]), yes(a.Sensitive && a.AlwaysSensitive), yes(a.Extractable || !a.NeverExtractable), yes(a.Local), may)
				}
				return g.show(cmd, keys, tab)
			})
		},
	}
	t.add(c)
	return c
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// with opens the token for one function.
func (t *tokenFlags) with(ctx context.Context, g *globals, f func(context.Context, *hsm.Token) error) error {
	cfg, err := t.config(g)
	if err != nil {
		return err
	}
	token, err := openToken(ctx, cfg)
	if err != nil {
		return err
	}
	defer token.Close()
	return f(ctx, token)
}

// openToken opens a token and names the module when it is not there.
func openToken(ctx context.Context, cfg hsm.Config) (*hsm.Token, error) {
	if _, err := os.Stat(cfg.Module); errors.Is(err, fs.ErrNotExist) {
		return nil, &hinted{err: fmt.Errorf("there is no PKCS#11 module %s", cfg.Module), hint: "install the HSM's library, or correct token.module; Debian's SoftHSM is the package softhsm2", code: exitUnready}
	}
	return hsm.Open(ctx, cfg)
}
