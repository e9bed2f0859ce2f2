package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/csv"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/text/encoding/simplifiedchinese"

	"hufu/examples/reader/device"
	"hufu/readers/apdu"
)

// makeReaders is the maker's line. The same command again goes on with what was
// begun: a reader that has its device key keeps it.
func makeReaders(ctx context.Context, f *flag.FlagSet, args []string, out io.Writer) error {
	dir := folder(f)
	count := f.Int("count", 1, "how many `readers`")
	first := f.String("first", "", "the `number` of the first; those that follow count up its last digits")
	var s device.Spec
	f.StringVar(&s.Model, "model", "", "the model's `name`")
	f.StringVar(&s.Firmware, "firmware", "", "the firmware's `version`")
	f.StringVar(&s.Approval, "approval", "", "the approval's `number`")
	f.BoolVar(&s.Token, "token", false, "keep the keys in a SoftHSM token, one for each reader")
	path := f.String("manifest", "", "the `file` to write: CSV, as the centre takes it in")
	encoding := f.String("encoding", "utf-8", "of the manifest: utf-8, or gb18030 with Chinese headers")
	requests := f.Bool("csr", false, "put certificate requests in the manifest in place of public keys")
	if err := parse(f, args, "dir", "first", "model", "firmware", "approval", "manifest"); err != nil {
		return err
	}
	rack, err := device.OpenRack(*dir)
	if err != nil {
		return err
	}
	defer rack.Close()
	return replaced(*path, func(file io.Writer) error {
		w, err := newManifest(file, *encoding, *requests)
		if err != nil {
			return err
		}
		for i := range *count {
			if err := ctx.Err(); err != nil {
				return err
			}
			if s.Number, err = countUp(*first, uint64(i)); err != nil {
				return err
			}
			csr, err := makeOne(rack, s)
			if err != nil {
				return err
			}
			if err := w.add(s, csr); err != nil {
				return err
			}
		}
		if err := w.close(); err != nil {
			return err
		}
		fmt.Fprintf(out, "%d readers made; manifest: %s\n", *count, *path)
		return nil
	})
}

// replaced writes a file in one step.
func replaced(path string, write func(io.Writer) error) error {
	file, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	err = write(file)
	if err = errors.Join(err, file.Close()); err != nil {
		os.Remove(path + ".new")
		return err
	}
	return os.Rename(path+".new", path)
}

func makeOne(rack *device.Rack, s device.Spec) (csr []byte, err error) {
	r, err := rack.New(s)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return ask(r, apdu.MakeDevice, nil)
}

// ask has a reader run a command, without a host between.
func ask(r *device.Reader, ins byte, e apdu.Elements) ([]byte, error) {
	command, err := (&apdu.Command{INS: ins, Data: e.Encode()}).Encode()
	if err != nil {
		return nil, err
	}
	raw, err := r.Answer(command)
	if err != nil {
		return nil, err
	}
	a, err := apdu.ParseAnswer(raw)
	if err != nil || a.Status == apdu.OK {
		return a.Data, err
	}
	refused := &apdu.StatusError{INS: ins, Status: a.Status}
	if ins != apdu.GetReason {
		if words, err := ask(r, apdu.GetReason, nil); err == nil {
			refused.Reason = string(words)
		}
	}
	return nil, fmt.Errorf("reader %s: %w", r.Facts().Number, refused)
}

// countUp adds n to the digits at the end of a number, which keeps its length.
func countUp(first string, n uint64) (string, error) {
	head := strings.TrimRight(first, "0123456789")
	digits := first[len(head):]
	if len(digits) > 18 {
		head, digits = first[:len(first)-18], first[len(first)-18:]
	}
	at, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return "", fmt.Errorf("-first %q does not end with digits", first)
	}
	next := fmt.Sprintf("%0*d", len(digits), at+n)
	if len(next) > len(digits) {
		return "", fmt.Errorf("-first %q has too few digits to count up by %d", first, n)
	}
	return head + next, nil
}

// manifest writes rows.
type manifest struct {
	csv      *csv.Writer
	flush    func() error
	requests bool
}

func newManifest(file io.Writer, encoding string, requests bool) (*manifest, error) {
	m := &manifest{flush: func() error { return nil }, requests: requests}
	head, last := []string{"number", "model", "firmware", "approval"}, "key"
	if requests {
		last = "csr"
	}
	switch encoding {
	case "utf-8":
	case "gb18030":
		head, last = []string{"编号", "型号", "固件", "批准号"}, "公钥"
		if requests {
			last = "证书请求"
		}
		w := simplifiedchinese.GB18030.NewEncoder().Writer(file)
		if c, ok := w.(io.Closer); ok {
			m.flush = c.Close
		}
		file = w
	default:
		return nil, fmt.Errorf("-encoding %q: use utf-8 or gb18030", encoding)
	}
	m.csv = csv.NewWriter(file)
	return m, m.csv.Write(append(head, last))
}

func (m *manifest) add(s device.Spec, csr []byte) error {
	last := csr
	if !m.requests {
		request, err := x509.ParseCertificateRequest(csr)
		if err != nil {
			return fmt.Errorf("reader %s: %w", s.Number, err)
		}
		last = request.RawSubjectPublicKeyInfo
	}
	return m.csv.Write([]string{s.Number, s.Model, s.Firmware, s.Approval, base64.StdEncoding.EncodeToString(last)})
}

func (m *manifest) close() error {
	m.csv.Flush()
	return errors.Join(m.csv.Error(), m.flush())
}

// maxFailed is how many refusals are told.
const maxFailed = 20

// prepare ends stage 1: readers are given what the centre certified.
func prepare(ctx context.Context, f *flag.FlagSet, args []string, out io.Writer) error {
	dir := folder(f)
	certificates := f.String("certificates", "", "PEM `file` with the device certificates and the CA above them")
	root := f.String("root", "", "PEM `file` with the root that the readers are to trust")
	if err := parse(f, args, "dir", "certificates", "root"); err != nil {
		return err
	}
	roots, err := readPEM(*root)
	if err != nil {
		return err
	}
	if len(roots) != 1 {
		return fmt.Errorf("%s holds %d certificates, not one", *root, len(roots))
	}
	list, err := readPEM(*certificates)
	if err != nil {
		return err
	}
	above := map[string]*x509.Certificate{}
	for _, c := range list {
		if c.IsCA {
			above[string(c.RawSubject)] = c
		}
	}
	rack, err := device.OpenRack(*dir)
	if err != nil {
		return err
	}
	defer rack.Close()
	done := 0
	var failed []error
	for _, c := range list {
		if c.IsCA {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := put(rack, c, above[string(c.RawIssuer)], roots[0]); err != nil {
			failed = append(failed, err)
			continue
		}
		done++
	}
	fmt.Fprintf(out, "%d readers prepared\n", done)
	if more := len(failed) - maxFailed; more > 0 {
		failed = append(failed[:maxFailed], fmt.Errorf("and %d more", more))
	}
	return errors.Join(failed...)
}

func put(rack *device.Rack, c, issuer, root *x509.Certificate) error {
	if len(c.DNSNames) != 1 {
		return fmt.Errorf("the certificate of %s is not a device's", c.Subject)
	}
	if issuer == nil {
		return fmt.Errorf("the CA %s above the certificate of %s is missing in the file", c.Issuer, c.Subject)
	}
	label, _, _ := strings.Cut(c.DNSNames[0], ".")
	r, err := rack.Reader(strings.TrimPrefix(label, "r"))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = ask(r, apdu.PutDevice, apdu.Elements{apdu.Certificate: c.Raw, apdu.Issuer: issuer.Raw, apdu.Root: root.Raw})
	return err
}

func readPEM(path string) (list []*x509.Certificate, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return list, nil
}
