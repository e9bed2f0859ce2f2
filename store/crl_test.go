package store_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"hufu/store"
)

func octets(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// publish records a CRL the way that ca does.
func publish(tx *store.Tx, c *store.CRL, der io.Reader) error {
	c.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: c.CA})
	return store.PutCRL(tx, c, der)
}

func readCRL(t *testing.T, b *store.Book, c *store.CRL) (der []byte) {
	t.Helper()
	view(t, b, func(tx *store.Tx) (err error) {
		if c, err = store.CRLs.Get(tx, store.CRLs.Key(c)); err == nil {
			der, err = io.ReadAll(store.OpenCRL(tx, c))
		}
		return err
	})
	return der
}

func TestCRL(t *testing.T) {
	b := create(t)
	for i, size := range []int{1, 1000, 64 << 10, 64<<10 + 1, 1_000_000} {
		c, der := &store.CRL{CA: "330100", Number: uint64(i + 1), Delta: i%2 == 1}, octets(size)
		update(t, b, func(tx *store.Tx) error { return publish(tx, c, iotest.HalfReader(bytes.NewReader(der))) })
		if c.Size != int64(size) || c.Sum != store.Sum(der) {
			t.Errorf("a CRL of %d octets is recorded with %d, %s", size, c.Size, c.Sum)
		}
		if !bytes.Equal(readCRL(t, b, c), der) {
			t.Errorf("a CRL of %d octets comes back otherwise", size)
		}
	}
	view(t, b, func(tx *store.Tx) error {
		if c, err := store.LastCRL(tx, "330100", 0, false); err != nil || c.Number != 5 {
			t.Errorf("the newest full CRL is %v, %v", c, err)
		}
		return nil
	})
	update(t, b, func(tx *store.Tx) error { return store.DeleteCRL(tx, &store.CRL{CA: "330100", Number: 5}) })
	view(t, b, func(tx *store.Tx) error {
		if der, err := io.ReadAll(store.OpenCRL(tx, &store.CRL{CA: "330100", Number: 5, Size: 1})); len(der) != 0 || !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%d octets are left of a CRL that was deleted, %v", len(der), err)
		}
		return nil
	})
}

func TestCRLRefuses(t *testing.T) {
	b := create(t)
	update(t, b, func(tx *store.Tx) error { return publish(tx, &store.CRL{CA: "a", Number: 1}, strings.NewReader("der")) })
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		crl store.CRL
		der io.Reader
		is  error
	}{
		"a number used before":    {store.CRL{CA: "a", Number: 1}, strings.NewReader("other"), store.ErrExists},
		"another size":            {store.CRL{CA: "a", Number: 2, Size: 4}, strings.NewReader("der"), nil},
		"another sum":             {store.CRL{CA: "a", Number: 2, Sum: store.Sum(nil)}, strings.NewReader("der"), nil},
		"nothing":                 {store.CRL{CA: "a", Number: 2}, strings.NewReader(""), nil},
		"nothing staged":          {store.CRL{CA: "a", Number: 2}, nil, nil},
		"a reader that breaks":    {store.CRL{CA: "a", Number: 2}, iotest.ErrReader(broken), broken},
		"a reader used up before": {store.CRL{CA: "a", Number: 2, Size: 3}, strings.NewReader(""), nil},
	} {
		err := b.Update(ctx, func(tx *store.Tx) error { return publish(tx, &c.crl, c.der) })
		if err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestStagedCRL brings octets in before the record, and cleans up after those that were cut short.
func TestStagedCRL(t *testing.T) {
	b := create(t)
	der := octets(5_000_000)
	for _, size := range []int{100, 200_000} { // left behind
		if err := b.StageCRL(ctx, &store.CRL{CA: "a", Number: uint64(size)}, bytes.NewReader(der[:size])); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	if err := b.StageCRL(ctx, &store.CRL{CA: "a", Number: 6}, io.MultiReader(bytes.NewReader(der), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("staging from a reader that breaks: %v", err)
	}
	update(t, b, func(tx *store.Tx) error { return publish(tx, &store.CRL{CA: "a", Number: 3}, strings.NewReader("der")) })
	c := &store.CRL{CA: "a", Number: 7}
	if err := b.StageCRL(ctx, c, bytes.NewReader(der)); err != nil || c.Size != int64(len(der)) || c.Sum != store.Sum(der) {
		t.Fatalf("staged %v, %v", c, err)
	}
	update(t, b, func(tx *store.Tx) error { return publish(tx, c, nil) })
	if !bytes.Equal(readCRL(t, b, c), der) {
		t.Error("a staged CRL comes back otherwise")
	}
	if got := readCRL(t, b, &store.CRL{CA: "a", Number: 3}); string(got) != "der" {
		t.Errorf("an older CRL became %q", got)
	}
	if err := b.StageCRL(ctx, c, bytes.NewReader(der)); !errors.Is(err, store.ErrExists) {
		t.Errorf("staging a CRL that is there: %v", err)
	}
	view(t, b, func(tx *store.Tx) error {
		for _, number := range []uint64{100, 200_000, 6} {
			if left, _ := io.ReadAll(store.OpenCRL(tx, &store.CRL{CA: "a", Number: number})); len(left) > 0 {
				t.Errorf("%d octets of CRL %d were left behind", len(left), number)
			}
		}
		return nil
	})
}
