package ceremony_test

import (
	"strings"
	"testing"

	"hufu/ca/ceremony"
)

func TestExample(t *testing.T) {
	s, err := ceremony.Parse([]byte(ceremony.Example))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Requests) != 2 || s.Clone == nil || s.Root.Algorithm != "p384" || s.CRL.Days != 180 || s.Out != "out" {
		t.Errorf("%+v", s)
	}
}

func TestScriptRefused(t *testing.T) {
	for _, test := range []struct{ name, from, to, words string }{
		{"unknown field", "days: 7300", "dais: 7300", "line 36|dais"},
		{"two documents", "out: out", "out: out\n---\nname: x", "more than one"},
		{"no name", "name: Root ceremony of Example City Cards, 2026", "name: ''", "name"},
		{"one officer", "[Li Wei, Wang Fang]", "[Li Wei]", "two at least"},
		{"one officer twice", "[Li Wei, Wang Fang]", "[Li Wei, Li Wei]", "Li Wei is named twice"},
		{"no officer's name", "[Li Wei, Wang Fang]", "[Li Wei, ' ']", "no officer"},
		{"no organisation", "organisation: Example City Cards", "organisation: ''", "organisation"},
		{"bad domain", "domain: card.example", "domain: Card Example", "domain"},
		{"bad URI", "uri: pkcs11:token=hufu-root\n", "uri: token=hufu-root\n", "pkcs11:"},
		{"PIN in the URI", "uri: pkcs11:token=hufu-root\n", "uri: pkcs11:token=hufu-root?pin-value=1\n", "pin-value"},
		{"weak root", "  algorithm: p384\n", "  algorithm: rsa1024\n", "rsa1024"},
		{"no key", "  key: root-1\n", "", "label"},
		{"a root that is new and exists", "  key: root-1\n", "  key: root-1\n  certificate: x\n", "nothing else"},
		{"hash of a request", "sha256: 0000000000000000000000000000000000000000000000000000000000000000\n    days", "sha256: '00'\n    days", "330100|sha256"},
		{"two of one ID", `id: "330100"`, "id: device", "twice"},
		{"ID with a path", `id: "330100"`, "id: ../x", "no ID"},
		{"the root's ID", `id: "330100"`, "id: root", "no ID"},
		{"kind", "    kind: device\n", "    kind: village\n", "village"},
		{"CRL of two years", "days: 180", "days: 730", "366"},
		{"serial", "revoked: []", "revoked: [{serial: x, time: 2026-01-01T00:00:00Z}]", "crl"},
	} {
		source := strings.Replace(ceremony.Example, test.from, test.to, 1)
		if source == ceremony.Example {
			t.Fatalf("%s changes nothing", test.name)
		}
		_, err := ceremony.Parse([]byte(source))
		if err == nil {
			t.Errorf("%s: accepted", test.name)
			continue
		}
		wantError(t, err, strings.Split(test.words, "|")...)
	}
}
