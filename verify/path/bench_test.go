package path_test

import (
	"bytes"

	"testing"

	"hufu/verify/path"
)

// BenchmarkValidate: a path of three below the anchor, with a list of each CA; and
// with 100,000 entries on the last one.
func BenchmarkValidate(b *testing.B) {
	for name, n := range map[string]int{"short lists": 10, "100,000 entries": 100_000} {
		b.Run(name, func(b *testing.B) {
			c := newChain(&testing.T{})
			for i := range n {
				c.list[sub].entries = append(c.list[sub].entries, entryForge{serial: int64(100_000 + i), reason: 1})
			}
			r := c.sign()
			lists := c.lists()
			b.ReportAllocs()
			for b.Loop() {
				r.CRLs = nil
				for _, der := range lists {
					r.CRLs = append(r.CRLs, bytes.NewReader(der))
				}
				if a := path.Validate(b.Context(), r); !a.Valid {
					b.Fatal(a.Reason)
				}
			}
		})
	}
}
