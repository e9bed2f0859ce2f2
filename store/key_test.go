package store_test

import (
	"bytes"
	"cmp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hufu/store"
)

// tuple is what the keys of the property tests are made of.
type tuple struct {
	s1, s2 string
	n      uint64
	i      int64
	b      bool
	t      time.Time
	serial store.Serial
}

func (x tuple) key() []byte { return store.Key(x.s1, x.s2, x.n, x.i, x.b, x.t, x.serial) }

func (x tuple) compare(y tuple) int {
	boolean := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(x.s1, y.s1), strings.Compare(x.s2, y.s2), cmp.Compare(x.n, y.n), cmp.Compare(x.i, y.i),
		cmp.Compare(boolean(x.b), boolean(y.b)), x.t.Compare(y.t), bytes.Compare(x.serial[:], y.serial[:]))
}

func drawTuple(r *rapid.T) tuple {
	// Few letters, the awkward ones among them, so that prefixes and twins are common.
	text := rapid.StringOfN(rapid.RuneFrom([]rune{0, 1, 2, 'a', 'b', 0xff}), 0, 4, -1)
	return tuple{
		s1: text.Draw(r, "s1"), s2: text.Draw(r, "s2"), n: rapid.Uint64Range(0, 3).Draw(r, "n"), i: rapid.Int64Range(-2, 2).Draw(r, "i"),
		b: rapid.Bool().Draw(r, "b"), t: time.Unix(rapid.Int64Range(-2, 2).Draw(r, "seconds"), rapid.Int64Range(0, 1).Draw(r, "nanos")),
		serial: store.Serial{1, rapid.Byte().Draw(r, "serial")},
	}
}

func TestKeysCompareAsTheirParts(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		x, y := drawTuple(r), drawTuple(r)
		if got, want := bytes.Compare(x.key(), y.key()), x.compare(y); got != want {
			r.Fatalf("keys of %v and %v compare as %d, the parts as %d", x, y, got, want)
		}
		if !bytes.HasPrefix(x.key(), store.Key(x.s1, x.s2)) {
			r.Fatalf("the key of the leading parts of %v is no prefix", x)
		}
		if x.s1 != y.s1 && bytes.HasPrefix(x.key(), store.Key(y.s1)) {
			r.Fatalf("the key of %q is a prefix of that of %q", y.s1, x.s1)
		}
	})
}

func TestKeyOfOtherTypesPanics(t *testing.T) {
	defer func() {
		if said, ok := recover().(string); !ok || !strings.Contains(said, "float64") {
			t.Errorf("Key(1.5) says %q", said)
		}
	}()
	store.Key(1.5)
}

func TestKeyForms(t *testing.T) {
	h := store.Sum([]byte("x"))
	for _, c := range []struct {
		parts []any
		want  string
	}{
		{[]any{"ab", uint8(7), uint16(1), uint32(2)}, "ab\x00\x07\x00\x01\x00\x00\x00\x02"},
		{[]any{h, []byte("raw")}, string(h[:]) + "raw"},
		{[]any{int(-1)}, "\x7f\xff\xff\xff\xff\xff\xff\xff"},
		{[]any{time.Unix(1, 2)}, "\x80\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02"},
		{nil, ""},
	} {
		if got := store.Key(c.parts...); string(got) != c.want {
			t.Errorf("Key(%v) = %q, want %q", c.parts, got, c.want)
		}
	}
}
