package ceremony

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"hufu/internal/crl"
	"hufu/issuance"
)

// Report is what Verify found.
type Report struct {
	Name         string
	Officers     []string
	Began, Ended time.Time
	Lines        int
	Head         string   // to be compared with what the officers wrote down
	Root         [32]byte // SHA-256 of the root's certificate
	Files        []string
	Unattended   bool // nobody confirmed anything
	Rehearsal    bool
}

// Verify checks a transcript line by line, and then every file that it tells of: that it
// is there with its hash, that every officer confirmed what had to be confirmed, that
// the certificates are signed by the root over the keys of the requests that the script
// names, that the CRL and the proof of the clone verify. A transcript that someone wrote
// anew from the first line to the last verifies too, but has another Head.
func Verify(transcript []byte, artefacts fs.FS) (*Report, error) {
	lines, head, err := readTranscript(transcript)
	if err != nil {
		return nil, err
	}
	v := &verification{lines: lines, files: make(map[string][]byte), report: &Report{Lines: len(lines), Head: head}}
	for _, check := range []func() error{
		v.frame, func() error { return v.readFiles(artefacts) }, func() error { return strangers(artefacts, v.files) },
		v.confirmations, v.key, v.certificates, v.list, v.clone,
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return v.report, nil
}

type verification struct {
	lines  []line
	files  map[string][]byte
	script *Script
	report *Report
}

// all returns the lines of one act.
func (v *verification) all(act string) (found []line) {
	for _, l := range v.lines {
		if l.Act == act {
			found = append(found, l)
		}
	}
	return found
}

// frame checks the first line and the last.
func (v *verification) frame() error {
	first, last := v.lines[0], v.lines[len(v.lines)-1]
	if first.Act != actBegin {
		return &TamperError{1, "a ceremony does not begin with it"}
	}
	if last.Act != actEnd {
		return fmt.Errorf("the ceremony did not end: the last line, %d, says %q", last.Line, last.Text)
	}
	r := v.report
	r.Name, r.Began, r.Ended = first.Text, first.Time, last.Time
	r.Officers = strings.Split(first.Facts["officers"], "\n")
	r.Rehearsal = first.Facts["rehearsal"] == "true"
	r.Unattended = len(v.all(actUnattended)) > 0
	return nil
}

// readFiles reads every file that the transcript tells of, and the script among them.
func (v *verification) readFiles(artefacts fs.FS) error {
	for _, l := range v.all(actFile) {
		name := l.Facts["file"]
		content, err := fs.ReadFile(artefacts, name)
		if err != nil {
			return fmt.Errorf("line %d tells of %s: %w", l.Line, name, err)
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(content)); sum != l.Facts["sha256"] {
			return fmt.Errorf("the file %s is not the one of line %d: its SHA-256 is %s, not %s", name, l.Line, sum, l.Facts["sha256"])
		}
		v.files[name] = content
		v.report.Files = append(v.report.Files, name)
	}
	script := v.files["script.yaml"]
	if sum := fmt.Sprintf("%x", sha256.Sum256(script)); sum != v.lines[0].Facts["script"] {
		return errors.New("the script is not the one of line 1")
	}
	var err error
	if v.script, err = Parse(script); err != nil {
		return err
	}
	if strings.Join(v.script.Officers, "\n") != v.lines[0].Facts["officers"] {
		return &TamperError{1, "its officers are not those of the script"}
	}
	return nil
}

// strangers refuses certificates, CRLs and requests that the transcript does not know.
func strangers(artefacts fs.FS, known map[string][]byte) error {
	return fs.WalkDir(artefacts, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch path.Ext(name) {
		case ".cer", ".crl", ".csr":
			if _, ok := known[name]; !ok {
				return fmt.Errorf("the file %s lies among the ceremony's, but the transcript does not tell of it", name)
			}
		}
		return nil
	})
}

// confirmations checks that every officer confirmed every phase that this ceremony had,
// or that the transcript says that nobody was asked.
func (v *verification) confirmations() error {
	had := make(map[[2]string]bool)
	for _, l := range v.all(actConfirmed) {
		had[[2]string{l.Facts["phase"], l.Facts["officer"]}] = true
	}
	for _, l := range v.all(actUnattended) {
		for _, officer := range v.script.Officers {
			had[[2]string{l.Facts["phase"], officer}] = true
		}
	}
	phases := []string{"plan", "result"}
	if v.newRoot() {
		phases = append(phases, rootID)
	}
	if len(v.script.Requests) > 0 {
		phases = append(phases, "requests")
	}
	if v.script.Clone != nil {
		phases = append(phases, "clone")
	}
	for _, phase := range phases {
		for _, officer := range v.script.Officers {
			if !had[[2]string{phase, officer}] {
				return fmt.Errorf("%s did not confirm the %s", officer, phase)
			}
		}
	}
	return nil
}

func (v *verification) newRoot() bool { return v.script.Root.Certificate == "" }

// key checks that the key that was told of is the root's and cannot leave the token.
func (v *verification) key() error {
	root, err := x509.ParseCertificate(v.files[rootID+".cer"])
	if err != nil {
		return fmt.Errorf("reading the root's certificate: %w", err)
	}
	v.report.Root = sha256.Sum256(root.Raw)
	keys := v.all(actKey)
	if len(keys) != 1 {
		return fmt.Errorf("the transcript tells of %d root keys, not one", len(keys))
	}
	f := keys[0].Facts
	if f["spki"] != fmt.Sprintf("%x", sha256.Sum256(root.RawSubjectPublicKeyInfo)) {
		return fmt.Errorf("the key of line %d is not the root's", keys[0].Line)
	}
	wanted := facts{"sensitive": "true", "extractable": "false", "sign": "true", "decrypt": "false", "derive": "false", "unwrap": "false"}
	if v.newRoot() {
		wanted["local"], wanted["always_sensitive"], wanted["never_extractable"] = "true", "true", "true"
	}
	for name, value := range wanted {
		if f[name] != value {
			return fmt.Errorf("the root's key in line %d is %s=%s, not %s", keys[0].Line, name, f[name], value)
		}
	}
	return nil
}

// certificates checks the root's certificate and each working CA's, each against what
// was prepared.
func (v *verification) certificates() error {
	root, at := v.files[rootID+".cer"], v.report.Ended
	if err := checkRoot(root, at); err != nil {
		return err
	}
	made := make(map[string][]byte)
	if v.newRoot() {
		made[rootID] = root
	}
	for _, q := range v.script.Requests {
		csr, der := v.files["requests/"+q.ID+".csr"], v.files[q.ID+".cer"]
		if fmt.Sprintf("%x", sha256.Sum256(csr)) != strings.ToLower(q.SHA256) {
			return fmt.Errorf("the request of CA %s is not the one that the script names", q.ID)
		}
		if err := checkCA(der, csr, root, at); err != nil {
			return fmt.Errorf("CA %s: %w", q.ID, err)
		}
		made[q.ID] = der
	}
	prepared := v.all(actPrepared)
	if len(prepared) != len(made) {
		return fmt.Errorf("%d certificates were prepared and %d were made", len(prepared), len(made))
	}
	for _, l := range prepared {
		certificate, err := x509.ParseCertificate(made[l.Facts["ca"]])
		if err != nil {
			return fmt.Errorf("the certificate of line %d: %w", l.Line, err)
		}
		if fmt.Sprintf("%x", sha256.Sum256(certificate.RawTBSCertificate)) != l.Facts["tbs"] {
			return fmt.Errorf("the certificate of CA %s is not the one that line %d prepared", l.Facts["ca"], l.Line)
		}
	}
	return nil
}

// list checks the CRL, and that it revokes what the script says and nothing else.
func (v *verification) list() error {
	list := v.files[rootID+".crl"]
	if err := checkCRL(list, v.files[rootID+".cer"]); err != nil {
		return err
	}
	wanted := make(map[string]bool)
	for _, e := range v.script.CRL.Revoked {
		wanted[strings.ToLower(e.Serial)] = true
	}
	_, err := crl.Parse(bytes.NewReader(list), func(e crl.Entry) error {
		serial := hex.EncodeToString(e.Serial)
		if !wanted[serial] {
			return fmt.Errorf("the root's CRL revokes %s, which the script does not name", serial)
		}
		delete(wanted, serial)
		return nil
	})
	if err == nil && len(wanted) > 0 {
		err = fmt.Errorf("the root's CRL leaves out %d certificates that the script revokes", len(wanted))
	}
	return err
}

func (v *verification) clone() error {
	proofs := v.all(actClone)
	if v.script.Clone == nil && len(proofs) == 0 {
		return nil
	}
	if v.script.Clone == nil || len(proofs) != 1 {
		return fmt.Errorf("the transcript tells of %d clones", len(proofs))
	}
	challenge, err := hex.DecodeString(proofs[0].Facts["challenge"])
	if err != nil {
		return err
	}
	sig, err := hex.DecodeString(proofs[0].Facts["signature"])
	if err != nil {
		return err
	}
	return checkClone(v.files[rootID+".cer"], challenge, sig)
}

// checkRoot judges a root's certificate as a stranger would.
func checkRoot(der []byte, at time.Time) error {
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("reading the root's certificate: %w", err)
	}
	if !bytes.Equal(root.RawSubject, root.RawIssuer) || !root.IsCA {
		return errors.New("the root's certificate is not that of a root")
	}
	return checkChain(root, root, at)
}

// checkCA judges a working CA's certificate as a stranger would, and holds it against
// its request.
func checkCA(der, csr, root []byte, at time.Time) error {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	anchor, err := x509.ParseCertificate(root)
	if err != nil {
		return err
	}
	request, err := issuance.ParseCSR(csr)
	if err != nil {
		return err
	}
	if !bytes.Equal(request.SPKI, certificate.RawSubjectPublicKeyInfo) {
		return errors.New("the certificate has another key than the request")
	}
	if !certificate.IsCA || !certificate.MaxPathLenZero {
		return errors.New("the certificate is not that of a working CA")
	}
	if err := checkChain(certificate, anchor, at); err != nil {
		return err
	}
	return issuance.Lint(der)
}

func checkChain(certificate, root *x509.Certificate, at time.Time) error {
	// RFC 5280, Section 6.1.1 leaves the anchor's own signature out; here it counts.
	if err := certificate.CheckSignatureFrom(root); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	_, err := certificate.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func checkCRL(list, root []byte) error {
	l, err := crl.Parse(bytes.NewReader(list), nil)
	if err != nil {
		return fmt.Errorf("reading the root's CRL: %w", err)
	}
	if err := l.CheckSignature(root); err != nil {
		return fmt.Errorf("checking the root's CRL: %w", err)
	}
	return nil
}
