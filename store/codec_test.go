package store_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hufu/store"
)

func goldenEvents() []store.Event {
	return []store.Event{
		{Seq: 1, Time: time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC), Kind: store.KindBookCreated, Detail: `{"book":"0f"}`},
		{Seq: 1<<64 - 1, Time: time.Date(1969, 12, 31, 23, 59, 59, 1, time.UTC), Kind: store.KindIssued, CA: "330100",
			Serial: store.Serial{1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, Actor: "张三", Detail: strings.Repeat("x", 200)},
		{},
	}
}

// TestEventGolden holds the octets of the journal to those of a file, since every leaf of every tree ever signed depends on them.
func TestEventGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/events.hex")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(golden))
	for i, e := range goldenEvents() {
		got := hex.EncodeToString(store.AppendEvent(nil, &e))
		if i >= len(lines) || got != lines[i] {
			t.Errorf("event %d is encoded as\n%s", i, got)
			continue
		}
		var back store.Event
		if err := store.DecodeEvent(store.AppendEvent(nil, &e), &back); err != nil || back != e {
			t.Errorf("event %d comes back as %v, %v", i, back, err)
		}
	}
}

func TestEventHasOneEncoding(t *testing.T) {
	for _, e := range goldenEvents() {
		good := store.AppendEvent(nil, &e)
		for n := range good {
			if store.DecodeEvent(good[:n], new(store.Event)) == nil {
				t.Errorf("an event cut to %d of %d octets is decoded", n, len(good))
			}
		}
		if store.DecodeEvent(append(bytes.Clone(good), 0), new(store.Event)) == nil {
			t.Error("an event with an octet behind it is decoded")
		}
	}
	kind := 1 + 8 + 12 // where the length of Kind lies
	short := store.AppendEvent(nil, &store.Event{Seq: 1, Kind: "k"})
	for what, bad := range map[string][]byte{
		"nothing":            {},
		"another layout":     append([]byte{2}, short[1:]...),
		"a length too long":  append(append(bytes.Clone(short[:kind]), 0x81, 0x00), short[kind+1:]...),
		"a huge length":      append(append(bytes.Clone(short[:kind]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), short[kind+1:]...),
		"nanoseconds over":   append(append(bytes.Clone(short[:9+8]), 0xff, 0xff, 0xff, 0xff), short[kind:]...),
		"a zero serial":      append(append(bytes.Clone(short[:kind+3]), append([]byte{17}, make([]byte, 17)...)...), short[kind+4:]...),
		"a serial of 5":      append(append(bytes.Clone(short[:kind+3]), 5, 1, 2, 3, 4, 5), short[kind+4:]...),
		"more than MaxEvent": store.AppendEvent(nil, &store.Event{Kind: "k", Detail: strings.Repeat("x", store.MaxEvent)}),
	} {
		if store.DecodeEvent(bad, new(store.Event)) == nil {
			t.Errorf("an event with %s is decoded", what)
		}
	}
}

func FuzzDecodeEvent(f *testing.F) {
	for _, e := range goldenEvents() {
		f.Add(store.AppendEvent(nil, &e))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var e store.Event
		if store.DecodeEvent(data, &e) == nil && !bytes.Equal(store.AppendEvent(nil, &e), data) {
			t.Errorf("%x is decoded and written as %x", data, store.AppendEvent(nil, &e))
		}
	})
}

// roundTrip holds a codec to giving back what it was given, and to refusing anything shorter or longer.
func roundTrip[T any](r *rapid.T, c store.Codec[T], v T) {
	data := c.Append([]byte("before"), &v)
	if !bytes.HasPrefix(data, []byte("before")) {
		r.Fatal("Append does not append")
	}
	data = data[6:]
	back := new(T)
	if err := c.Decode(data, back); err != nil || !reflect.DeepEqual(*back, v) {
		r.Fatalf("%+v comes back as %+v, %v", v, *back, err)
	}
	for i := range data {
		data[i] ^= 0xff // what was decoded must not hold on to it
	}
	if !reflect.DeepEqual(*back, v) {
		r.Fatalf("what was decoded changed with the octets it came from")
	}
	for i := range data {
		data[i] ^= 0xff
	}
	cut := rapid.IntRange(0, len(data)-1).Draw(r, "cut")
	if c.Decode(data[:cut], new(T)) == nil {
		r.Fatalf("%d of %d octets are decoded", cut, len(data))
	}
	if c.Decode(append(data, 0), new(T)) == nil {
		r.Fatal("an octet too many is decoded")
	}
}

func TestRecordCodecs(t *testing.T) {
	text := rapid.String()
	instant := rapid.Custom(func(r *rapid.T) time.Time {
		if rapid.Bool().Draw(r, "zero") {
			return time.Time{}
		}
		return time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(r, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(r, "nanos")).UTC()
	})
	number := rapid.Custom(func(r *rapid.T) (s store.Serial) {
		copy(s[:], rapid.SliceOfN(rapid.Byte(), len(s), len(s)).Draw(r, "serial"))
		return s
	})
	hash := rapid.Map(rapid.SliceOf(rapid.Byte()), store.Sum)
	rapid.Check(t, func(r *rapid.T) {
		a := store.CA{ID: text.Draw(r, "ID"), Line: text.Draw(r, "Line"), Generation: rapid.Int().Draw(r, "Generation"), Kind: text.Draw(r, "Kind"),
			City: text.Draw(r, "City"), Suite: text.Draw(r, "Suite"), State: text.Draw(r, "State"), KeyURI: text.Draw(r, "KeyURI"),
			SPKI: hash.Draw(r, "SPKI"), Seq: rapid.Uint64().Draw(r, "Seq")}
		a.Certificate = append(a.Certificate, rapid.SliceOf(rapid.Byte()).Draw(r, "Certificate")...)
		for _, der := range rapid.SliceOf(rapid.SliceOf(rapid.Byte())).Draw(r, "Chain") {
			a.Chain = append(a.Chain, append([]byte(nil), der...))
		}
		roundTrip(r, store.CAs.Codec, a)

		c := store.Certificate{CA: text.Draw(r, "CA"), Serial: number.Draw(r, "Serial"), Profile: text.Draw(r, "Profile"), Subject: text.Draw(r, "Subject"),
			Line: text.Draw(r, "Line"), Reader: text.Draw(r, "Reader"), City: text.Draw(r, "City"), Requester: text.Draw(r, "Requester"),
			SPKI: hash.Draw(r, "SPKI"), NotBefore: instant.Draw(r, "NotBefore"), NotAfter: instant.Draw(r, "NotAfter"),
			Shard: rapid.Uint16().Draw(r, "Shard"), Seq: rapid.Uint64().Draw(r, "Seq")}
		c.DER = append(c.DER, rapid.SliceOf(rapid.Byte()).Draw(r, "DER")...)
		c.Names = append(c.Names, rapid.SliceOf(text).Draw(r, "Names")...)
		roundTrip(r, store.Certificates.Codec, c)

		s := store.Status{CA: text.Draw(r, "CA"), Serial: number.Draw(r, "Serial"), State: store.State(rapid.Byte().Draw(r, "State")),
			Reason: rapid.Int().Draw(r, "Reason"), Time: instant.Draw(r, "Time"), InvalidityDate: instant.Draw(r, "InvalidityDate"),
			NotAfter: instant.Draw(r, "NotAfter"), Unissued: rapid.Bool().Draw(r, "Unissued"), Shard: rapid.Uint16().Draw(r, "Shard"), Lifted: rapid.Bool().Draw(r, "Lifted"), Seq: rapid.Uint64().Draw(r, "Seq")}
		roundTrip(r, store.Statuses.Codec, s)

		i := store.Intent{CA: text.Draw(r, "CA"), Serial: number.Draw(r, "Serial"), TBSHash: hash.Draw(r, "TBSHash"), SPKI: hash.Draw(r, "SPKI"),
			RequestHash: hash.Draw(r, "RequestHash"), Requester: text.Draw(r, "Requester"), Profile: text.Draw(r, "Profile"),
			IdempotencyKey: text.Draw(r, "IdempotencyKey"), Line: text.Draw(r, "Line"), Node: text.Draw(r, "Node"), Shard: rapid.Uint16().Draw(r, "Shard"), Time: instant.Draw(r, "Time"),
			Seq: rapid.Uint64().Draw(r, "Seq")}
		roundTrip(r, store.Intents.Codec, i)
	})
}

func TestEventLimits(t *testing.T) {
	b := create(t)
	for what, e := range map[string]store.Event{"without a kind": {}, "too long": {Kind: "k", Detail: strings.Repeat("x", store.MaxEvent)}} {
		err := b.Update(ctx, func(tx *store.Tx) error {
			tx.Append(e)
			return nil
		})
		if err == nil {
			t.Errorf("an event %s is taken", what)
		}
	}
	err := b.View(ctx, append1("k"))
	if !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("an event in a View: %v", err)
	}
}
