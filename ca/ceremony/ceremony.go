// Package ceremony holds the ceremonies of the offline root: it makes the root's key in
// a token, signs the root, the working CAs' certificates and the root's CRL, and proves
// that a second token holds the key too. It follows a script and nothing else, needs no
// network, has each named officer confirm each act by typing the name, and writes a
// transcript in which every line hashes the one before it. Verify checks a transcript
// and what it tells of, years later, with nothing but the files.
//
// It refuses a request whose hash is not the script's, a key that could leave the token,
// a label or a folder that an earlier ceremony used, a certificate that the policy or
// the linter finds fault with, and to go on after anything failed: what was begun and
// not ended is told by the transcript, and people decide.
//
// Certificates and CRLs follow RFC 5280, requests RFC 2986.
package ceremony

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"hufu/hsm"
	"hufu/issuance"
)

// rootID is the root's ID among the CAs.
const rootID = "root"

// Env is where a ceremony takes place.
type Env struct {
	In  io.Reader        // where the officers type
	Out io.Writer        // what they read
	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil is silent

	// CredentialsDir is the value of $CREDENTIALS_DIRECTORY.
	CredentialsDir string
	// Unattended asks nobody. It is for worlds that are thrown away; the transcript
	// says so, and so does whoever verifies it.
	Unattended bool
	// CloneKey brings the root's key to the second token. Nil asks the officers to do
	// it with the HSM's own tool and to say so.
	CloneKey func(ctx context.Context) error
}

// Result is what a ceremony made.
type Result struct {
	Out  string   // the folder
	Root [32]byte // SHA-256 of the root's certificate
	Head string   // the transcript's last hash; the officers write it down
}

// Stage is the stand-in for the script's tokens and folder in a rehearsal.
type Stage struct {
	Token Token
	Clone *Token
	Out   string
}

// Run holds the ceremony that the script describes.
func Run(ctx context.Context, s *Script, env Env) (*Result, error) {
	return hold(ctx, &room{script: s, env: env})
}

// Rehearse does the same on throw-away tokens. A root that it makes is named REHEARSAL.
func Rehearse(ctx context.Context, s *Script, env Env, stage Stage) (*Result, error) {
	if (s.Clone == nil) != (stage.Clone == nil) {
		return nil, errors.New("rehearsing the ceremony: the script and the stage must both have a second token, or neither")
	}
	staged := *s
	staged.Token, staged.Clone, staged.Out = stage.Token, stage.Clone, stage.Out
	if s.Root.Certificate == "" {
		staged.Root.CommonName += " REHEARSAL"
	}
	return hold(ctx, &room{script: &staged, env: env, rehearsal: true})
}

// room is one ceremony under way.
type room struct {
	script    *Script
	env       Env
	rehearsal bool

	requests []*request
	token    *hsm.Token
	key      *hsm.Key
	old      []byte // the certificate of a root that exists
	root     []byte
	issuer   *issuance.Issuer
	log      *transcript
	written  []string // what the officers confirm at the end
}

// hold is the ceremony, told in order.
func hold(ctx context.Context, r *room) (*Result, error) {
	if r.env.Now == nil {
		r.env.Now = time.Now
	}
	if r.env.Out == nil {
		r.env.Out = io.Discard
	}
	if r.env.In == nil {
		r.env.In = strings.NewReader("")
	}

	// What can be refused is refused before anything is made or written.
	if len(r.script.source) == 0 {
		return nil, errors.New("preparing the ceremony: a script comes from Read or Parse, so that the transcript can name its hash")
	}
	if err := r.prepare(ctx); err != nil {
		return nil, fmt.Errorf("preparing the ceremony: %w", err)
	}
	defer r.token.Close()

	// From here on everything is written down before it is done, and what was done
	// before a failure stays told.
	if err := r.begin(); err != nil {
		return nil, fmt.Errorf("beginning the ceremony: %w", err)
	}
	defer r.log.file.Close()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"confirming the plan", r.confirmPlan},
		{"making the root's key", r.makeKey},
		{"certifying the root", r.certifyRoot},
		{"certifying the working CAs", r.certifyRequests},
		{"signing the root's CRL", r.signCRL},
		{"proving the clone of the root's key", r.proveClone},
		{"confirming the result", r.confirmResult},
	} {
		if err := step.do(ctx); err != nil {
			err = fmt.Errorf("%s: %w", step.name, err)
			return nil, errors.Join(err, r.log.write(actFailed, "given up while "+err.Error(), nil))
		}
	}
	if err := r.log.write(actEnd, "the ceremony has ended", nil); err != nil {
		return nil, err
	}
	fmt.Fprintf(r.env.Out, "The transcript's last hash, to be written down by everyone present:\n%s\n", r.log.head)
	return &Result{Out: r.script.Out, Root: sha256.Sum256(r.root), Head: r.log.head}, nil
}

// prepare reads the requests, tries the script out on a key that is thrown away, opens
// the token and looks for traces of an earlier ceremony. It changes nothing.
func (r *room) prepare(ctx context.Context) error {
	if err := r.readRequests(); err != nil {
		return err
	}
	if err := unusedFolder(r.script.Out); err != nil {
		return err
	}
	var err error
	if r.script.Root.Certificate != "" {
		r.old, err = readDER(r.script.Root.Certificate, "CERTIFICATE")
	} else {
		err = r.tryOut(ctx)
	}
	if err != nil {
		return err
	}
	if r.token, err = r.open(ctx, &r.script.Token); err != nil {
		return err
	}
	if r.old == nil {
		err = r.unusedLabel(ctx)
	} else {
		r.key, err = existingKey(ctx, r.token, r.old)
	}
	if err != nil {
		r.token.Close()
	}
	return err
}

func (r *room) open(ctx context.Context, t *Token) (*hsm.Token, error) {
	source := t.PIN
	source.CredentialsDir = r.env.CredentialsDir
	uri, err := hsm.ParseURI(t.URI)
	if err != nil {
		return nil, err
	}
	name := uri.Token
	if name == "" {
		name = uri.Serial
	}
	return hsm.Open(ctx, hsm.Config{Module: t.Module, URI: t.URI, PIN: source.Func("the token " + name), Log: r.env.Log})
}

// unusedLabel refuses to make a second root key beside one of an earlier ceremony.
func (r *room) unusedLabel(ctx context.Context) error {
	_, err := r.token.KeyByLabel(ctx, r.script.Root.Key)
	if errors.Is(err, hsm.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the token holds a key %q already, from an earlier ceremony that ended or was given up: "+
		"if its root was signed, go on with it (root: {certificate: …/root.cer}); "+
		"if its transcript shows that nothing was signed, destroy that key with the HSM's own tool, or choose another label", r.script.Root.Key)
}

// unusedFolder refuses a folder with something in it, and says how far an earlier
// ceremony came there.
func unusedFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return err
	}
	raw, err := os.ReadFile(dir + string(os.PathSeparator) + TranscriptName)
	if err != nil {
		return fmt.Errorf("the folder %s is not empty; name another one for what the ceremony makes", dir)
	}
	lines, _, err := readTranscript(raw)
	if err != nil || len(lines) == 0 {
		return fmt.Errorf("the folder %s holds a transcript that does not verify (%w); keep it as it is, and name another folder", dir, err)
	}
	last := lines[len(lines)-1]
	if last.Act == actEnd {
		return fmt.Errorf("the folder %s holds a ceremony that ended on %s; name another folder", dir, last.Time.Format(time.DateTime))
	}
	return fmt.Errorf("the folder %s holds a ceremony that was interrupted on %s after line %d (%s); it is never resumed: keep the folder, "+
		"name another, and go on with its root (root: {certificate: …/root.cer}) if that was written", dir, last.Time.Format(time.DateTime), last.Line, last.Text)
}

// begin makes the folder and the transcript.
func (r *room) begin() error {
	if err := os.MkdirAll(r.script.Out, 0o755); err != nil {
		return err
	}
	var err error
	if r.log, err = beginTranscript(r.script.Out, r.env.Out, r.env.Now); err != nil {
		return err
	}
	sum := sha256.Sum256(r.script.source)
	err = r.log.write(actBegin, r.script.Name, facts{
		"script": fmt.Sprintf("%x", sum), "officers": strings.Join(r.script.Officers, "\n"),
		"rehearsal": strconv.FormatBool(r.rehearsal), "new_root": strconv.FormatBool(r.old == nil),
	})
	if err != nil {
		return err
	}
	if err := r.keep("script.yaml", "the script", r.script.source); err != nil {
		return err
	}
	for _, q := range r.requests {
		if err := r.keep("requests/"+q.ID+".csr", "the request of CA "+q.ID+" as it was brought", q.csr); err != nil {
			return err
		}
	}
	return r.tellToken(r.token, "the root's token")
}

func (r *room) tellToken(t *hsm.Token, what string) error {
	info := t.Info()
	return r.log.write(actToken, fmt.Sprintf("%s: %q, serial %s, %s %s, firmware %s", what, info.Label, info.Serial, info.Manufacturer, info.Model, info.Firmware),
		facts{"label": info.Label, "serial": info.Serial, "model": info.Model, "manufacturer": info.Manufacturer, "firmware": info.Firmware})
}

func (r *room) confirmPlan(ctx context.Context) error {
	plan := new(bytes.Buffer)
	fmt.Fprintf(plan, "The clock of this machine says %s.\n", r.env.Now().UTC().Format(time.RFC1123))
	fmt.Fprintf(plan, "The script has the SHA-256 %x.\n", sha256.Sum256(r.script.source))
	if r.old == nil {
		fmt.Fprintf(plan, "A new root is made, %q, with a new key %q.\n", r.script.Root.CommonName, r.script.Root.Key)
	} else {
		fmt.Fprintf(plan, "The root that exists is used; its certificate has the SHA-256 %x.\n", sha256.Sum256(r.old))
	}
	fmt.Fprintf(plan, "%d working CAs are certified, and the root's CRL is signed with %d entries.\n", len(r.requests), len(r.script.CRL.Revoked))
	return r.confirm(ctx, "plan", plan.String())
}

func (r *room) confirmResult(ctx context.Context) error {
	return r.confirm(ctx, "result", "This was made (SHA-256):\n"+strings.Join(r.written, "\n")+"\n")
}
