package verify_test

import (
	"bytes"
	"crypto/sha256"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"hufu/verify"
)

const someID = "00112233445566778899aabbccddeeff"

var expiry = time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)

func someRequest() *verify.LoadRequest {
	return &verify.LoadRequest{
		Transaction: someID, CardCity: "330100", ReaderCity: "330200", Reader: "r1.330200.readers.card.example", Card: "9901000000012345",
		Counter: math.MaxUint32, Random: []byte{1, 2, 3, 4}, Amount: math.MaxUint32, Balance: 0, Type: 255, KeyIndex: 255, KeyVersion: 1, Algorithm: 0,
		MAC1: []byte{}, Terminal: []byte{1, 2, 3, 4, 5, 6}, Expiry: expiry, EncryptionHash: sha256.Sum256(nil),
	}
}

func somePermission() *verify.LoadPermission {
	return &verify.LoadPermission{
		Transaction: someID, City: "330100", Reader: "r1.330200.readers.card.example", Expiry: expiry,
		RequestHash: sha256.Sum256([]byte("r")), CommandHash: sha256.Sum256([]byte("c")), Sealed: []byte("sealed"),
	}
}

func someScript() *verify.SealedScript {
	return &verify.SealedScript{
		Transaction: someID, City: "330100", Reader: "r1.330200.readers.card.example", Expiry: expiry,
		RequestHash: sha256.Sum256([]byte("r")), CommandScript: []byte("c"), DataScript: []byte{},
	}
}

func someResult() *verify.LoadResult {
	return &verify.LoadResult{
		Transaction: someID, City: "330100", Reader: "r1.330200.readers.card.example", Card: "9901000000012345", Counter: 7,
		Outcome: verify.Credited, TAC: []byte{1, 2, 3, 4}, Balance: 15000, ScriptResult: []byte{0x90, 0}, PermissionHash: sha256.Sum256([]byte("p")),
	}
}

func TestContentsRoundTrip(t *testing.T) {
	roundTrip(t, someRequest(), verify.ParseLoadRequest)
	roundTrip(t, somePermission(), verify.ParseLoadPermission)
	roundTrip(t, someScript(), verify.ParseSealedScript)
	roundTrip(t, someResult(), verify.ParseLoadResult)
}

func roundTrip[T interface{ Marshal() ([]byte, error) }](t *testing.T, v T, parse func([]byte) (T, error)) {
	t.Helper()
	der, err := v.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parse(der)
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("read back %+v, %v", got, err)
	}
	for i := range der {
		if _, err := parse(der[:i]); err == nil {
			t.Errorf("cut after %d octets is accepted", i)
		}
	}
	if _, err := parse(append(bytes.Clone(der), 0)); err == nil {
		t.Error("a trailing octet is accepted")
	}
}

func TestContentsRefuse(t *testing.T) {
	for what, change := range map[string]func(*verify.LoadRequest){
		"no transaction":          func(r *verify.LoadRequest) { r.Transaction = "" },
		"transaction in capitals": func(r *verify.LoadRequest) { r.Transaction = strings.ToUpper(r.Transaction) },
		"short transaction":       func(r *verify.LoadRequest) { r.Transaction = r.Transaction[2:] },
		"no city":                 func(r *verify.LoadRequest) { r.CardCity = "" },
		"city of letters":         func(r *verify.LoadRequest) { r.ReaderCity = "33010a" },
		"no reader":               func(r *verify.LoadRequest) { r.Reader = "" },
		"reader with a space":     func(r *verify.LoadRequest) { r.Reader = "r 1" },
		"reader in capitals":      func(r *verify.LoadRequest) { r.Reader = "R1" },
		"short card":              func(r *verify.LoadRequest) { r.Card = "1234567" },
		"card of letters":         func(r *verify.LoadRequest) { r.Card = "123456789X" },
		"no random":               func(r *verify.LoadRequest) { r.Random = nil },
		"long random":             func(r *verify.LoadRequest) { r.Random = make([]byte, 17) },
		"long MAC1":               func(r *verify.LoadRequest) { r.MAC1 = make([]byte, 17) },
		"short terminal":          func(r *verify.LoadRequest) { r.Terminal = make([]byte, 5) },
		"nothing to load":         func(r *verify.LoadRequest) { r.Amount = 0 },
		"all the money":           func(r *verify.LoadRequest) { r.Amount = math.MaxUint32 + 1 },
		"more than that":          func(r *verify.LoadRequest) { r.Balance = math.MaxUint64 },
		"no expiry":               func(r *verify.LoadRequest) { r.Expiry = time.Time{} },
	} {
		r := someRequest()
		change(r)
		if _, err := r.Marshal(); err == nil {
			t.Errorf("%s: encoded", what)
		}
	}
	for what, change := range map[string]func(*verify.LoadResult){
		"no outcome":             func(r *verify.LoadResult) { r.Outcome = 0 },
		"another outcome":        func(r *verify.LoadResult) { r.Outcome = 4 },
		"credited without a TAC": func(r *verify.LoadResult) { r.TAC = nil },
		"a TAC without a credit": func(r *verify.LoadResult) { r.Outcome = verify.NotCredited },
		"a long report":          func(r *verify.LoadResult) { r.ScriptResult = make([]byte, 5000) },
	} {
		r := someResult()
		change(r)
		if _, err := r.Marshal(); err == nil {
			t.Errorf("%s: encoded", what)
		}
	}
}

// What parses has one spelling, and nothing of a script's data is in an error.
func FuzzContents(f *testing.F) {
	for _, v := range []interface{ Marshal() ([]byte, error) }{someRequest(), somePermission(), someScript(), someResult()} {
		der, err := v.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		same(t, b, verify.ParseLoadRequest)
		same(t, b, verify.ParseLoadPermission)
		same(t, b, verify.ParseSealedScript)
		same(t, b, verify.ParseLoadResult)
	})
}

func same[T interface{ Marshal() ([]byte, error) }](t *testing.T, b []byte, parse func([]byte) (T, error)) {
	v, err := parse(b)
	if err != nil {
		return
	}
	if again, err := v.Marshal(); err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%x is written as %x, %v", b, again, err)
	}
}
