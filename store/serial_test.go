package store_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"hufu/store"
)

func TestSerial(t *testing.T) {
	s := serial()
	if got, err := store.ParseSerial(s.String()); err != nil || got != s {
		t.Errorf("ParseSerial(%s) = %s, %v", s, got, err)
	}
	if got, err := store.ParseSerial(strings.ToUpper(s.String())); err != nil || got != s {
		t.Errorf("ParseSerial of upper-case digits = %s, %v", got, err)
	}
	if got, err := store.SerialFrom(s.BigInt()); err != nil || got != s {
		t.Errorf("SerialFrom(%v) = %s, %v", s.BigInt(), got, err)
	}
	for _, bad := range []string{"", "01", s.String() + "00", "02" + s.String()[2:], "0x" + s.String()[2:]} {
		if got, err := store.ParseSerial(bad); err == nil {
			t.Errorf("ParseSerial(%q) = %s", bad, got)
		}
	}
	long := new(big.Int).Lsh(big.NewInt(1), 136)
	for _, bad := range []*big.Int{nil, {}, big.NewInt(7), new(big.Int).Neg(s.BigInt()), long, new(big.Int).Sub(long, big.NewInt(1))} {
		if got, err := store.SerialFrom(bad); err == nil {
			t.Errorf("SerialFrom(%v) = %s", bad, got)
		}
	}
}

func TestSerialAndHashInJSON(t *testing.T) {
	type record struct {
		Serial store.Serial
		Hash   store.Hash
	}
	for _, r := range []record{{}, {Serial: serial(), Hash: store.Sum([]byte("x"))}} {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back record
		if err := json.Unmarshal(text, &back); err != nil || back != r {
			t.Errorf("%s becomes %v, %v", text, back, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"Serial":"0102"}`), new(record)); err == nil {
		t.Error("a short serial number is accepted")
	}
	if err := json.Unmarshal([]byte(`{"Hash":"zz"}`), new(record)); err == nil {
		t.Error("a hash that is none is accepted")
	}
}

func TestParseHash(t *testing.T) {
	h := store.Sum(nil)
	if h.String() != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("Sum of nothing is %s", h)
	}
	if got, err := store.ParseHash(h.String()); err != nil || got != h {
		t.Errorf("ParseHash(%s) = %s, %v", h, got, err)
	}
	for _, bad := range []string{"", "e3", strings.Repeat("g", 64)} {
		if _, err := store.ParseHash(bad); err == nil {
			t.Errorf("ParseHash(%q) finds a hash", bad)
		}
	}
}
