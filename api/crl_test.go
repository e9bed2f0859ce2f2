package api_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"hufu/api/client"
	"hufu/internal/crl"
	"hufu/policy"
)

// TestLists: every list is shown with its place and end, the root's is taken up as
// it was signed, and whoever asks is told what the lists have to say.
func TestLists(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	op := w.hire("Wang Wu", "", policy.CAOperator)
	var der bytes.Buffer
	at := time.Now().UTC().Truncate(time.Second)
	template := crl.Template{Number: 3, ThisUpdate: at.Add(-90 * 24 * time.Hour), NextUpdate: at.Add(29 * 24 * time.Hour)}
	w.must(w.pki.Root.SignCRL(ctx, template, func(func(crl.Entry, error) bool) {}, &der))
	root, err := op.client.ImportCRL(ctx, "root", der.Bytes())
	w.must(err)
	if root.Number != 3 || !root.Ending || !strings.HasSuffix(root.Address, "/crl/root.crl") {
		t.Errorf("the root's list is %+v", root)
	}
	_, err = op.client.ImportCRL(ctx, "services", der.Bytes())
	refusedAs(t, err, "ca-unavailable")
	template.Number = 2
	var older bytes.Buffer
	w.must(w.pki.Root.SignCRL(ctx, template, func(func(crl.Entry, error) bool) {}, &older))
	_, err = op.client.ImportCRL(ctx, "root", older.Bytes())
	if p := refusedAs(t, err, "list-refused"); !strings.Contains(p.Detail, "its number is 2") {
		t.Errorf("the problem is %+v", p)
	}

	who := w.certify("operator", policy.Name{Person: "Somebody"})
	w.revoke(who)
	_, err = op.client.PublishCRL(ctx, "staff")
	w.must(err)
	lists, err := op.client.CRLs(ctx)
	w.must(err)
	for _, l := range lists {
		if l.CA == "root" && l.Seq != root.Seq || l.CA == "staff" && (l.Entries != 1 || l.AsOf == 0) || l.Ending != (l.CA == "root") {
			t.Errorf("the list is %+v", l)
		}
	}
	if len(lists) != len(w.pki.CAs()) {
		t.Errorf("there are %d lists", len(lists))
	}
	var all []client.Standing
	w.must(op.client.Standings(ctx, "staff", func(s *client.Standing) error { all = append(all, *s); return nil }))
	if len(all) != 1 || all[0].State != "revoked" || all[0].Reason != 1 || all[0].Serial != refOf(who).Serial.String() {
		t.Errorf("the standings are %+v", all)
	}
	_, _, body := op.ask(w, "GET", "/metrics", "", "")
	for _, line := range []string{`hufu_crl_next_update_seconds{ca="root",kind="full",shard="0"} 2.5`, "hufu_crls_ending 1"} {
		if !strings.Contains(string(body), line) {
			t.Errorf("the metrics lack %q", line)
		}
	}
}
