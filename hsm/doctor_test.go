package hsm_test

import (
	"context"
	"strings"
	"testing"

	"hufu/hsm"
)

func TestDoctor(t *testing.T) {
	h := newHome(t)
	good := newToken(t, h, "hufu")
	newToken(t, h, "twin")
	newToken(t, h, "twin")
	for _, test := range []struct {
		name   string
		change func(*hsm.Config)
		what   string // of the one finding that is not well; "" means that all are
		remedy string
	}{
		{"no key yet", func(*hsm.Config) {}, "no private key", "make the keys"},
		{"bad URI", func(c *hsm.Config) { c.URI = "token" }, "pkcs11:", "token=LABEL"},
		{"missing module", func(c *hsm.Config) { c.Module = "/nowhere.so" }, "/nowhere.so", "install"},
		{"no such token", func(c *hsm.Config) { c.URI = "pkcs11:token=other" }, "not there", "log"},
		{"two tokens", func(c *hsm.Config) { c.URI = "pkcs11:token=twin" }, "more than one", "serial="},
		{"no PIN file", func(c *hsm.Config) { c.PIN = hsm.PINSource{File: "/nowhere"}.Func("hufu") }, "/nowhere", "readable"},
		{"no such key", func(c *hsm.Config) { c.URI += ";object=ca" }, `"ca"`, "object="},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := good
			test.change(&cfg)
			ill := illOf(hsm.Doctor(context.Background(), cfg))
			if len(ill) != 1 || !strings.Contains(ill[0].What, test.what) || !strings.Contains(ill[0].Remedy, test.remedy) {
				t.Fatalf("findings are %+v", ill)
			}
		})
	}
	token := open(t, good)
	generate(t, token, hsm.KeySpec{Label: "ca", Kind: hsm.P256, Use: hsm.Sign})
	token.Close()
	bad := good
	bad.PIN = pin("wrong three")
	ill := illOf(hsm.Doctor(context.Background(), bad))
	if len(ill) != 1 || !strings.Contains(ill[0].What, "refuses the PIN") || !strings.Contains(ill[0].Remedy, "PIN source") {
		t.Fatalf("findings are %+v", ill)
	}
	ill = illOf(hsm.Doctor(context.Background(), good))
	if len(ill) != 1 || !strings.Contains(ill[0].What, "a wrong PIN was sent") {
		t.Fatalf("findings are %+v", ill)
	}
	good.URI += ";object=ca"
	findings := hsm.Doctor(context.Background(), good)
	if ill = illOf(findings); len(ill) != 0 || len(findings) < 6 {
		t.Fatalf("findings are %+v", findings)
	}
}

func illOf(findings []hsm.Finding) (ill []hsm.Finding) {
	for _, f := range findings {
		if !f.OK {
			ill = append(ill, f)
		}
	}
	return ill
}
