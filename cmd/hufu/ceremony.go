package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"hufu/ca/ceremony"
	"hufu/hsm"
	"hufu/internal/softhsm"
)

func newCeremonyCommand(g *globals) *cobra.Command {
	return group("ceremony", "The offline root: run, rehearse and verify ceremonies; works alone, without a network",
		newCeremonyRun(g), newCeremonyRehearse(g), newCeremonyVerify(g), newCeremonyExample())
}

func newCeremonyRun(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "run FILE",
		Short: "Hold the ceremony that a script describes",
		Long: `Hold the ceremony that a script describes: make the root's key in the token,
certify the working CAs whose requests were brought, sign the root's CRL, prove the
key's clone. Each officer confirms each act by typing his name. Everything is
written into a transcript in which each line hashes the one before.

--yes asks nobody: for worlds that are thrown away; the transcript says so.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := ceremony.Read(args[0])
			if err != nil {
				return usagef("`hufu ceremony example` prints a script with every field and its meaning", "%v", err)
			}
			r, err := ceremony.Run(cmd.Context(), s, g.ceremonyEnv(cmd))
			if err != nil {
				return err
			}
			g.showCeremony(cmd, r)
			g.tell(cmd.OutOrStdout(), "check it: hufu ceremony verify %s", r.Out)
			return nil
		},
	}
}

func (g *globals) ceremonyEnv(cmd *cobra.Command) ceremony.Env {
	return ceremony.Env{In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), Unattended: g.yes, CredentialsDir: os.Getenv("CREDENTIALS_DIRECTORY")}
}

func (g *globals) showCeremony(cmd *cobra.Command, r *ceremony.Result) {
	g.tell(cmd.OutOrStdout(), "root certificate, SHA-256: %x", r.Root)
	g.tell(cmd.OutOrStdout(), "transcript's last hash: %s", r.Head)
}

func newCeremonyRehearse(g *globals) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "rehearse FILE",
		Short: "Do the same on throw-away SoftHSM tokens",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := ceremony.Read(args[0])
			if err != nil {
				return usagef("`hufu ceremony example` prints a script with every field and its meaning", "%v", err)
			}
			dir, err := os.MkdirTemp("", "hufu-rehearsal-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			env := g.ceremonyEnv(cmd)
			stage, err := rehearsalStage(dir, s, &env)
			if err != nil {
				return err
			}
			stage.Out = out
			r, err := ceremony.Rehearse(cmd.Context(), s, env, *stage)
			if err != nil {
				return err
			}
			g.showCeremony(cmd, r)
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "rehearsal", "the `folder` for what the rehearsal makes")
	return c
}

// rehearsalStage makes a throw-away token, and says in env how it is cloned
// where the script wants a clone.
func rehearsalStage(dir string, s *ceremony.Script, env *ceremony.Env) (*ceremony.Stage, error) {
	home, err := softhsm.New(filepath.Join(dir, "hsm"))
	if err != nil {
		return nil, err
	}
	if err := home.Activate(); err != nil {
		return nil, err
	}
	pin, file := []byte(rand.Text()), filepath.Join(dir, "pin")
	serial, err := home.Init("rehearsal", []byte(rand.Text()), pin)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, pin, 0o600); err != nil {
		return nil, err
	}
	token := ceremony.Token{Module: home.Module(), URI: "pkcs11:token=rehearsal", PIN: hsm.PINSource{File: file}}
	stage := &ceremony.Stage{Token: token}
	if s.Clone != nil {
		clone := token
		clone.URI = "pkcs11:token=rehearsal-clone"
		stage.Clone = &clone
		env.CloneKey = func(context.Context) error {
			_, err := home.Clone(serial, "rehearsal-clone")
			return err
		}
	}
	return stage, nil
}

func newCeremonyVerify(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Verify a ceremony's transcript and the files that it tells of",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			transcript, err := os.ReadFile(filepath.Join(args[0], ceremony.TranscriptName))
			if err != nil {
				return usagef("name the folder that the ceremony made", "reading the transcript: %v", err)
			}
			r, err := ceremony.Verify(transcript, os.DirFS(args[0]))
			if err != nil {
				return damagedf("compare with the copies that the officers keep", "%v", err)
			}
			kind := g.say("ceremony")
			if r.Rehearsal {
				kind = g.say("rehearsal")
			}
			return g.showFields(cmd, r, []field{{"kind", kind}, {"name", r.Name}, {"officers", strings.Join(r.Officers, ", ")}, {"asked nobody", yesOnly(r.Unattended)},
				{"from", when(r.Began)}, {"to", when(r.Ended)}, {"lines", num(r.Lines)}, {"root", fmt.Sprintf("%x", r.Root)}, {"last hash", r.Head}, {"files", strings.Join(r.Files, " ")}})
		},
	}
}

func yesOnly(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func newCeremonyExample() *cobra.Command {
	return &cobra.Command{Use: "example", Short: "Print a script with every field and its meaning", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), ceremony.Example)
			return err
		}}
}
