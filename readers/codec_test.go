package readers_test

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"hufu/readers"
	"hufu/store"
)

// fill sets every field of a struct to something that is not nothing.
func fill(t *testing.T, v reflect.Value, seed *int) {
	t.Helper()
	for i := range v.NumField() {
		*seed++
		switch f := v.Field(i); f.Interface().(type) {
		case string, readers.State:
			f.SetString(string(rune('a' + *seed%26)))
		case bool:
			f.SetBool(true)
		case uint64:
			f.SetUint(uint64(*seed) * 1000)
		case time.Time:
			f.Set(reflect.ValueOf(time.Unix(int64(*seed)*1e6, 0).UTC()))
		case store.Serial:
			f.Set(reflect.ValueOf(store.Serial{1, byte(*seed)}))
		case store.Hash:
			f.Set(reflect.ValueOf(store.Hash{byte(*seed)}))
		case []readers.Change:
			list := make([]readers.Change, 3)
			for j := range list[:2] { // the third is nothing but zeros
				fill(t, reflect.ValueOf(&list[j]).Elem(), seed)
			}
			f.Set(reflect.ValueOf(list))
		default:
			t.Fatalf("the test does not know fields of type %s", f.Type())
		}
	}
}

// TestCodec: every field of a record comes back, each alone and all together, and
// nothing else is taken for a record.
func TestCodec(t *testing.T) {
	codec := readers.Tables[0].(*store.Table[readers.Reader]).Codec
	seed := 0
	full := new(readers.Reader)
	fill(t, reflect.ValueOf(full).Elem(), &seed)
	cases := []*readers.Reader{full, {}}
	for i := range reflect.TypeFor[readers.Reader]().NumField() {
		one := new(readers.Reader)
		reflect.ValueOf(one).Elem().Field(i).Set(reflect.ValueOf(full).Elem().Field(i))
		cases = append(cases, one)
	}
	for _, rd := range cases {
		raw := codec.Append(nil, rd)
		got := new(readers.Reader)
		if err := codec.Decode(raw, got); err != nil {
			t.Fatal(err)
		}
		if len(got.History) == 0 {
			got.History = nil
		}
		if !reflect.DeepEqual(got, rd) {
			t.Errorf("%+v came back as %+v", rd, got)
		}
		if again := codec.Append(nil, got); !bytes.Equal(again, raw) {
			t.Errorf("%+v is written in two ways", rd)
		}
	}
	raw := codec.Append(nil, full)
	for n := range raw {
		if err := codec.Decode(raw[:n], new(readers.Reader)); err == nil {
			t.Errorf("%d of %d octets were taken for a record", n, len(raw))
		}
	}
	for _, bad := range [][]byte{append(bytes.Clone(raw), 0), append([]byte{2}, raw[1:]...), []byte(`{"Number":"1"}`)} {
		if err := codec.Decode(bad, new(readers.Reader)); err == nil {
			t.Errorf("%.20q… was taken for a record", bad)
		}
	}
}

// FuzzReader: whatever octets are read, they are refused or come back.
func FuzzReader(f *testing.F) {
	codec := readers.Tables[0].(*store.Table[readers.Reader]).Codec
	f.Add(codec.Append(nil, &readers.Reader{Number: "42", City: "330100", State: readers.Active, History: []readers.Change{{Step: "issue"}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rd := new(readers.Reader)
		if codec.Decode(raw, rd) != nil {
			return
		}
		again := new(readers.Reader)
		if err := codec.Decode(codec.Append(nil, rd), again); err != nil || !reflect.DeepEqual(again, rd) {
			t.Errorf("%+v came back as %+v, %v", rd, again, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	codec := readers.Tables[0].(*store.Table[readers.Reader]).Codec
	rd := &readers.Reader{Number: "1000001", City: "330100", State: readers.Active, Model: "CR-1", CA: "330100", Sign: store.Serial{1, 2}, Encrypt: store.Serial{1, 3}, NotAfter: time.Unix(2e9, 0)}
	for _, step := range readers.Steps[:5] {
		rd.History = append(rd.History, readers.Change{Time: time.Unix(1.9e9, 0), Step: step.Name, To: step.To, Actor: "city operator", Seq: 1 << 30})
	}
	raw := codec.Append(nil, rd)
	b.ReportMetric(float64(len(raw)), "octets")
	for b.Loop() {
		if err := codec.Decode(raw, new(readers.Reader)); err != nil {
			b.Fatal(err)
		}
	}
}
