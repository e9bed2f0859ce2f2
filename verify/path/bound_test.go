package path_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"hufu/verify/path"
)

func integerOf(n int64) *big.Int { return big.NewInt(n) }

// TestMesh: CAs that all certify one another make more paths than anybody can try.
func TestMesh(t *testing.T) {
	const n = 8
	now := time.Now()
	var certs [][]byte
	template := func(i int, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(int64(i)), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}
	}
	for i := range n {
		for k := range n {
			if i == k {
				continue
			}
			parent := parentOf(template(0, fmt.Sprint("CA ", k)), meshKey(t, k))
			der, err := x509.CreateCertificate(rand.Reader, template(i*n+k+1, fmt.Sprint("CA ", i)), parent, meshKey(t, i).Public(), meshKey(t, k))
			if err != nil {
				t.Fatal(err)
			}
			certs = append(certs, der)
		}
	}
	c := newChain(t)
	c.sign()
	began := time.Now()
	a := path.Validate(t.Context(), &path.Request{Certificate: certs[0], Intermediates: certs, Anchors: c.req.Anchors, NoStatus: true})
	if a.Valid || a.Reason.ID != path.TooComplex {
		t.Errorf("%+v", a.Reason)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

var meshKeys = map[int]*ecdsa.PrivateKey{}

func meshKey(t *testing.T, i int) *ecdsa.PrivateKey {
	if meshKeys[i] == nil {
		meshKeys[i] = newKey(t)
	}
	return meshKeys[i]
}

// TestLimits: what is too large is refused before it is read.
func TestLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*path.Request)
		want   string
	}{
		"no certificate":           {func(r *path.Request) { r.Certificate = nil }, path.BadRequest},
		"no anchor":                {func(r *path.Request) { r.Anchors = nil }, path.NoAnchor},
		"a large certificate":      {func(r *path.Request) { r.Certificate = make([]byte, path.MaxCertificate+1) }, path.TooLarge},
		"many intermediates":       {func(r *path.Request) { r.Intermediates = make([][]byte, path.MaxIntermediates+1) }, path.TooLarge},
		"many anchors":             {func(r *path.Request) { r.Anchors = make([][]byte, path.MaxAnchors+1) }, path.TooLarge},
		"many lists":               {func(r *path.Request) { r.CRLs = make([]io.Reader, path.MaxLists+1) }, path.TooLarge},
		"an anchor of rubbish":     {func(r *path.Request) { r.Anchors = [][]byte{{1}} }, path.BadRequest},
		"rubbish":                  {func(r *path.Request) { r.Certificate = []byte("rubbish") }, path.Unreadable},
		"an unknown purpose":       {func(r *path.Request) { r.Purpose = "everything" }, path.BadRequest},
		"a policy of words":        {func(r *path.Request) { r.Policies = []string{"medium"} }, path.BadRequest},
		"a negative age":           {func(r *path.Request) { r.MaxAge = -1 }, path.BadRequest},
		"a year of five digits":    {func(r *path.Request) { r.Time = time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600)) }, path.BadRequest},
		"a list that is nil":       {func(r *path.Request) { r.CRLs = []io.Reader{nil} }, path.BadRequest},
		"a list of rubbish":        {func(r *path.Request) { r.CRLs = []io.Reader{strings.NewReader("rubbish")} }, path.StatusUnreadable},
		"no status at all":         {func(r *path.Request) { r.CRLs = nil }, path.StatusUnknown},
		"an OCSP answer, tryLater": {func(r *path.Request) { r.CRLs, r.OCSP = nil, [][]byte{{0x30, 3, 10, 1, 3}} }, path.StatusUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			r := newChain(t).sign()
			tc.change(r)
			if a := path.Validate(t.Context(), r); a.Valid || a.Reason.ID != tc.want {
				t.Errorf("%+v, want %s", a.Reason, tc.want)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a := path.Validate(ctx, newChain(t).sign()); a.Valid || a.Reason.ID != path.Interrupted {
		t.Errorf("%+v", a)
	}
}

// TestLargeList: a list is read as a stream, so its length is no memory.
func TestLargeList(t *testing.T) {
	c := newChain(t)
	for i := range 200_000 {
		c.list[sub].entries = append(c.list[sub].entries, entryForge{serial: int64(100_000 + i), reason: 1})
	}
	c.list[sub].entries = append(c.list[sub].entries, entryForge{serial: 1003, reason: 1})
	if a := path.Validate(t.Context(), c.sign()); a.Valid || a.Reason.ID != path.Revoked {
		t.Errorf("%+v", a.Reason)
	}
}

// TestReasons: every reason has words, and a clause where there is one.
func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range path.Reasons {
		if r.Words == "" || seen[r.ID] || r.RFC != "" && !strings.HasPrefix(r.RFC, "RFC ") {
			t.Errorf("%+v", r)
		}
		seen[r.ID] = true
	}
}

// TestManual: docs/verify.md lists every reason as it is.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range path.Reasons {
		if row := fmt.Sprintf("| `%s` | %s | %s |", r.ID, r.RFC, r.Words); !strings.Contains(string(page), row) {
			t.Errorf("docs/verify.md lacks %s", row)
		}
	}
}
