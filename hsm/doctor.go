package hsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// Finding is one line of Doctor's report.
type Finding struct {
	OK     bool
	What   string
	Remedy string // what to do about it; empty where all is well
}

// Doctor looks at everything that stands between this program and the keys of the token
// that cfg names, in the order in which it can go wrong, and stops where going on makes
// no sense. It sends the PIN once. It makes a key and destroys it again, and changes nothing.
func Doctor(ctx context.Context, cfg Config) []Finding {
	d := new(doctor)
	uri, err := ParseURI(cfg.URI)
	if err == nil {
		err = checkTokenURI(uri)
	}
	if d.failed(err, "write it like pkcs11:token=LABEL;serial=SERIAL") {
		return d.findings
	}
	if cfg.Module == "" {
		cfg.Module = uri.ModulePath
	}
	if !d.library(cfg.Module, uri) {
		return d.findings
	}
	t, err := Open(ctx, cfg)
	if d.failed(err, "look at the reason given; the HSM's own log may tell more") {
		return d.findings
	}
	defer t.Close()
	info := t.Info()
	d.well("the token %q (serial %s, %s %s, firmware %s) is there", info.Label, info.Serial, info.Manufacturer, info.Model, info.Firmware)
	if cfg.PIN == nil {
		d.note("no PIN source is given, so private keys are not seen", "set a PIN source: file, fd, credential or prompt")
	} else {
		d.well("the PIN is accepted")
	}
	d.sessions(t)
	d.mechanisms(info)
	d.keys(ctx, t, uri)
	if cfg.PIN != nil {
		d.work(ctx, t)
	}
	return d.findings
}

type doctor struct{ findings []Finding }

func (d *doctor) well(format string, args ...any) {
	d.findings = append(d.findings, Finding{OK: true, What: fmt.Sprintf(format, args...)})
}

func (d *doctor) note(what, remedy string) {
	d.findings = append(d.findings, Finding{What: what, Remedy: remedy})
}

// failed records err, if any, with the remedy that it carries or else the one given.
func (d *doctor) failed(err error, remedy string) bool {
	if err == nil {
		return false
	}
	what := err.Error()
	var p *problem
	if errors.As(err, &p) {
		remedy = p.remedy
		what = strings.Replace(what, "; "+p.remedy, "", 1)
	}
	d.note(what, remedy)
	return true
}

// library reports on the module and the tokens that it shows.
func (d *doctor) library(path string, uri *URI) bool {
	m, err := loadModule(path)
	if d.failed(err, "") {
		return false
	}
	defer m.release()
	d.well("the PKCS#11 module %s loads and initialises", m.path)
	if m.enter(context.Background()) != nil {
		return false
	}
	defer m.leave()
	tokens, err := m.tokens()
	if d.failed(err, "restart the HSM's client software") {
		return false
	}
	if len(tokens) == 0 {
		d.note("the module shows no initialised token", "plug the HSM in, or initialise a token with the HSM's own tool")
		return false
	}
	for _, p := range tokens {
		if !uri.describes(p.info.Label, p.info.SerialNumber, p.info.Model, p.info.ManufacturerID) {
			continue
		}
		switch flags := p.info.Flags; {
		case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
			d.note(fmt.Sprintf("the user PIN of %q is locked", p.info.Label), "let the security officer unlock it")
		case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
			d.note(fmt.Sprintf("one more wrong PIN locks %q", p.info.Label), "log in once by hand with the right PIN; no program will try before that")
		case flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
			d.note(fmt.Sprintf("a wrong PIN was sent to %q since its last login", p.info.Label), "find out who sent it")
		}
	}
	return true
}

func (d *doctor) sessions(t *Token) {
	c := t.conn.Load()
	if c == nil {
		return
	}
	if c.limit < int64(t.cfg.MaxSessions) {
		d.note(fmt.Sprintf("the token allows %d sessions at once, of %d wanted", c.limit, t.cfg.MaxSessions),
			"raise the token's session limit, or lower max_sessions")
		return
	}
	d.well("%d sessions at once are allowed", c.limit)
}

// mechanisms names what the token cannot do and what that costs.
func (d *doctor) mechanisms(info TokenInfo) {
	var missing []string
	for _, need := range []struct {
		mechanism uint
		what      string
	}{
		{pkcs11.CKM_EC_KEY_PAIR_GEN, "making elliptic keys"}, {pkcs11.CKM_ECDSA, "ECDSA signatures"},
		{pkcs11.CKM_ECDH1_DERIVE, "opening envelopes with elliptic keys"},
		{pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, "making RSA keys"}, {pkcs11.CKM_RSA_PKCS, "RSA signatures"},
		{pkcs11.CKM_RSA_PKCS_PSS, "RSA-PSS signatures"}, {pkcs11.CKM_RSA_PKCS_OAEP, "opening envelopes with RSA keys"},
		{pkcs11.CKM_AES_KEY_GEN, "making wrapping keys"}, {pkcs11.CKM_AES_KEY_WRAP_PAD, "wrapping keys"},
	} {
		if !slices.Contains(info.Mechanisms, need.mechanism) {
			missing = append(missing, need.what)
		}
	}
	if len(missing) > 0 {
		d.note("the token has no mechanism for "+strings.Join(missing, ", "), "do without these, or enable them in the HSM's configuration")
		return
	}
	d.well("the token has every mechanism that is used here")
}

func (d *doctor) keys(ctx context.Context, t *Token, uri *URI) {
	if uri.Object != "" {
		k, err := t.KeyByLabel(ctx, uri.Object)
		if !d.failed(err, "correct object= in the URI, or make the key") {
			d.well("the key %q (%v, SPKI %x…) is there", k.Label(), k.Kind(), k.spki[:8])
		}
		return
	}
	keys, err := t.Keys(ctx)
	if d.failed(err, "look at the rights of the login") {
		return
	}
	if len(keys) == 0 {
		d.note("the token holds no private key that this login sees", "make the keys, or log in as the user that owns them")
		return
	}
	for _, k := range keys {
		if k.Attributes.Extractable || !k.Attributes.Sensitive {
			d.note(fmt.Sprintf("the key %q can leave the token", k.Label), "use it for nothing that matters, or make a new one")
		}
		if k.Public == nil {
			d.note(fmt.Sprintf("the key %q has no public key object", k.Label), "add the public key to the token with the same CKA_ID")
		}
	}
	d.well("the token holds %d private keys", len(keys))
}

// work makes a key that lives in memory of the token only, and signs with it.
func (d *doctor) work(ctx context.Context, t *Token) {
	k, err := t.Generate(ctx, KeySpec{Label: "hufu doctor", Kind: P256, Use: Sign, Session: true})
	if d.failed(err, "give the login the right to make session keys") {
		return
	}
	err = k.prove(ctx)
	if gone := t.DestroyKey(ctx, k); err == nil {
		err = gone
	}
	if !d.failed(err, "look at the reason given; the HSM's own log may tell more") {
		d.well("a key was made in the token, signed, was verified and destroyed")
	}
}
