package script_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"hufu/examples/topup/script"
)

const load = `hufu-script 1
send 00A4040002A000 expect 9000   # select
send 8052{date}{mac2}04 expect 9000 capture tac
send 80AA{tac} expect 9000
`

func TestRun(t *testing.T) {
	steps, err := script.Parse([]byte(load))
	if err != nil {
		t.Fatal(err)
	}
	values, err := script.ParseData([]byte("date=20260315\nmac2=AABBCCDD\n"))
	if err != nil {
		t.Fatal(err)
	}
	var sent [][]byte
	got, err := script.Run(steps, values, func(a []byte) ([]byte, error) {
		sent = append(sent, bytes.Clone(a))
		return []byte{0x11, 0x22, 0x90, 0x00}, nil
	})
	if err != nil || !bytes.Equal(got["tac"], []byte{0x11, 0x22}) {
		t.Fatalf("captured %X, %v", got, err)
	}
	want := [][]byte{{0, 0xA4, 4, 0, 2, 0xA0, 0}, {0x80, 0x52, 0x20, 0x26, 0x03, 0x15, 0xAA, 0xBB, 0xCC, 0xDD, 4}, {0x80, 0xAA, 0x11, 0x22}}
	for i := range want {
		if !bytes.Equal(sent[i], want[i]) {
			t.Errorf("step %d sent %X, want %X", i+1, sent[i], want[i])
		}
	}
	for name, v := range values {
		if !bytes.Equal(v, make([]byte, len(v))) {
			t.Errorf("value %s was not wiped: %X", name, v)
		}
	}
}

func TestRunStopsAtTheWrongStatusWord(t *testing.T) {
	steps, _ := script.Parse([]byte(load))
	n := 0
	_, err := script.Run(steps, map[string][]byte{"date": {1}, "mac2": {2}}, func([]byte) ([]byte, error) {
		n++
		if n == 2 {
			return []byte{0x93, 0x02}, nil
		}
		return []byte{0x90, 0x00}, nil
	})
	var s *script.StatusError
	if !errors.As(err, &s) || s.Step != 2 || s.Got != "9302" || n != 2 {
		t.Fatalf("err %v after %d commands", err, n)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, src := range map[string]string{
		"no header":     "send 00A4 expect 9000\n",
		"empty":         "",
		"unknown verb":  "hufu-script 1\nloop 3\n",
		"not hex":       "hufu-script 1\nsend 0XA4 expect 9000\n",
		"open name":     "hufu-script 1\nsend 00{mac expect 9000\n",
		"status word":   "hufu-script 1\nsend 00A4 expect 90\n",
		"too many":      "hufu-script 1\n" + strings.Repeat("send 00A4 expect 9000\n", 65),
		"too large":     "hufu-script 1\n" + strings.Repeat("#", 9000),
		"capture alone": "hufu-script 1\nsend 00A4 expect 9000 capture\n",
	} {
		if _, err := script.Parse([]byte(src)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestMissingValueIsNamed(t *testing.T) {
	steps, _ := script.Parse([]byte(load))
	_, err := script.Run(steps, nil, func([]byte) ([]byte, error) { return []byte{0x90, 0}, nil })
	if err == nil || !strings.Contains(err.Error(), `"date"`) {
		t.Fatalf("err %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(load), []byte("a=00"))
	f.Fuzz(func(t *testing.T, src, data []byte) {
		steps, err := script.Parse(src)
		if err != nil {
			return
		}
		values, err := script.ParseData(data)
		if err != nil {
			return
		}
		script.Run(steps, values, func(a []byte) ([]byte, error) {
			if len(a) > 261 {
				t.Fatalf("sent %d octets", len(a))
			}
			return []byte{0x90, 0x00}, nil
		})
	})
}
