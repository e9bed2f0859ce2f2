package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/hsm"
	"hufu/store"
)

// Exit codes, documented in the root command's help.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2 // the command line or a file is wrong; nothing was done
	exitRefused  = 3 // rights, a rule or a state refused it
	exitNotFound = 4
	exitConflict = 5 // another request, another state or another key stands in the way
	exitUnready  = 6 // a node, a token or a directory could not be reached
	exitDamaged  = 7 // a check or a verification found something wrong
)

// hinted is an error with the remedy that belongs to it.
type hinted struct {
	err  error
	hint string
	code int
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// usagef says that the command line or a file was wrong.
func usagef(hint, format string, args ...any) error {
	return &hinted{err: fmt.Errorf(format, args...), hint: hint, code: exitUsage}
}

// damagedf says that a check found something wrong.
func damagedf(hint, format string, args ...any) error {
	return &hinted{err: fmt.Errorf(format, args...), hint: hint, code: exitDamaged}
}

// globals are the flags of every command.
type globals struct {
	config string // node's YAML file
	client string // client's YAML file
	output string // table, json, yaml
	lang   string // en, zh
	yes    bool
}

func newRootCommand() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "hufu",
		Short: "A certificate authority for card readers, their cities and the top-up between them",
		Long: `Hufu is a certificate authority and PKI management suite: an offline root, working
CAs with their keys in PKCS#11 tokens, a journal that can be proved, directories
that follow it, OCSP and CRLs, and the top-up services that cities call.

A daemon (hufu serve) owns the book; nearly every other command is its client.
These work alone: init, ca request, ceremony, restore, hsm doctor, quickstart,
escrow open, verify, manifest check, ticket verify, and check and backup where no
daemon runs.

Exit codes:
  0 done            3 refused (rights, rule, state)   6 node, token or directory not reached
  1 other error     4 not found                       7 a check found something wrong
  2 wrong usage     5 conflict`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error { return g.check() },
	}
	f := root.PersistentFlags()
	f.StringVarP(&g.config, "config", "c", "hufu.yaml", "the node's configuration `file`")
	f.StringVar(&g.client, "client", defaultClientFile(), "the client's configuration `file` (or $HUFU_CLIENT)")
	f.StringVarP(&g.output, "output", "o", "table", "output `form`: table, json or yaml")
	f.StringVar(&g.lang, "lang", defaultLanguage(), "output `language`: en or zh; reasons of errors stay English")
	f.BoolVarP(&g.yes, "yes", "y", false, "do not ask before a dangerous act")
	root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	root.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions([]string{"en", "zh"}, cobra.ShellCompDirectiveNoFileComp))

	root.AddGroup(
		&cobra.Group{ID: "node", Title: "A node:"},
		&cobra.Group{ID: "work", Title: "Certificates and readers:"},
		&cobra.Group{ID: "proof", Title: "Publishing and proof:"},
		&cobra.Group{ID: "keys", Title: "Keys and people:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("node", newQuickstartCommand(g), newInitCommand(g), newServeCommand(g), newCheckCommand(g), newBackupCommand(g), newRestoreCommand(g))
	add("work", newCACommand(g), newCertCommand(g), newReaderCommand(g), newModelCommand(g), newManifestCommand(g), newTicketCommand(g), newTopUpCommand(g), newStage1Command(g), newStage2Command(g), newJobCommand(g))
	add("proof", newCRLCommand(g), newDirCommand(g), newAuditCommand(g), newVerifyCommand(g))
	add("keys", newCeremonyCommand(g), newHSMCommand(g), newOfficerCommand(g), newEscrowCommand(g))
	root.AddCommand(newManCommand(), newConfigHelp())
	return root
}

func (g *globals) check() error {
	switch g.output {
	case "table", "json", "yaml":
	default:
		return usagef("use -o table, -o json or -o yaml", "unknown output form %q", g.output)
	}
	switch g.lang {
	case "en", "zh":
	default:
		return usagef("use --lang en or --lang zh", "unknown language %q", g.lang)
	}
	return nil
}

func defaultLanguage() string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			if strings.HasPrefix(v, "zh") {
				return "zh"
			}
			return "en"
		}
	}
	return "en"
}

// report turns the error of cmd into text and an exit code. It is the one place that
// does: every other function returns what happened.
func report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	w, g := cmd.ErrOrStderr(), &globals{}
	if lang := cmd.Root().PersistentFlags().Lookup("lang"); lang != nil {
		g.lang = lang.Value.String()
	}
	g.tell(w, "hufu: error: %v", err)
	hint, code := remedy(cmd, err)
	for line := range strings.Lines(g.say(hint)) {
		g.tell(w, "hufu: hint: %s", strings.TrimRight(line, "\n"))
	}
	return code
}

func remedy(cmd *cobra.Command, err error) (hint string, code int) {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint, h.code
	}
	var p *client.Problem
	if errors.As(err, &p) {
		return problemRemedy(p)
	}
	switch {
	case errors.Is(err, hsm.ErrWrongPIN):
		return "the PIN was tried once and will not be tried again; check its source before the next start, or the token locks", exitUnready
	case errors.Is(err, hsm.ErrTokenGone):
		return "run `hufu hsm doctor`: it says what the module and the token answer", exitUnready
	case errors.Is(err, store.ErrNotFound):
		return "", exitNotFound
	case errors.Is(err, store.ErrCorrupt):
		return "stop the node, keep the file as evidence, and restore the last backup: hufu restore", exitDamaged
	case errors.Is(err, context.Canceled):
		return "stopped by a signal; nothing half done is left behind", exitError
	}
	if strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "unknown flag") ||
		strings.HasPrefix(err.Error(), "unknown shorthand") || strings.Contains(err.Error(), "arg(s)") || strings.Contains(err.Error(), "required flag") {
		return "see " + cmd.CommandPath() + " --help", exitUsage
	}
	return "", exitError
}

// problemRemedy gives the remedy of a node's refusal and the rule that it names.
func problemRemedy(p *client.Problem) (hint string, code int) {
	hint = p.Remedy
	if p.Rule != "" {
		hint += "\nthe rule is " + p.Rule + " (" + p.Citation + ")"
	}
	switch p.Status {
	case 401, 403:
		return hint, exitRefused
	case 404:
		return hint, exitNotFound
	case 409, 412, 422:
		return hint, exitConflict
	case 400, 413, 415:
		return hint, exitUsage
	case 429, 503:
		return hint, exitUnready
	}
	return hint, exitError
}
