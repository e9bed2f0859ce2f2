package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"hufu/api/client"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/internal/testpki"
	"hufu/policy"
	"hufu/verify"
)

// device is a reader that holds its two keys and speaks CMS.
type device struct {
	*client.Reader
	w             *world
	sign, encrypt *ecdsa.PrivateKey
}

// device issues the pair of a reader.
func (w *world) device(op *person, city, number string) *device {
	w.t.Helper()
	d := &device{w: w, sign: testpki.Must(testpki.Key()).(*ecdsa.PrivateKey), encrypt: testpki.Must(testpki.Key()).(*ecdsa.PrivateKey)}
	var err error
	d.Reader, err = op.client.IssuePair(w.t.Context(), client.PairRequest{
		Number: number, City: city, CSR: testpki.Must(testpki.PairCSR(d.sign, d.encrypt.Public())),
	})
	w.must(err)
	return d
}

func (d *device) say(kind []int, content interface{ Marshal() ([]byte, error) }) []byte {
	issuer := d.w.pki.CA(d.CA).Record.Certificate
	return testpki.Must(cms.Sign(kind, testpki.Must(content.Marshal()), d.Certificates[0].DER, [][]byte{issuer, d.Certificates[1].DER}, d.sign, time.Now()))
}

// load is a request to load a card of a city.
func (d *device) load(cardCity, card string, counter uint32) *verify.LoadRequest {
	random := make([]byte, 16)
	rand.Read(random)
	return &verify.LoadRequest{
		Transaction: hex.EncodeToString(random), CardCity: cardCity, ReaderCity: d.City, Reader: d.Certificates[0].Names[0], Card: card, Counter: counter,
		Random: random[:4], Amount: 5000, Balance: 100, Type: 2, KeyIndex: 1, KeyVersion: 1, MAC1: random[4:8], Terminal: random[:6],
		Expiry: time.Now().Add(5 * time.Minute), EncryptionHash: sha256.Sum256(d.Certificates[1].DER),
	}
}

func TestLoad(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	op, gateway := w.hire("Zhao Liu", "330100", policy.CityOperator), w.hire("gateway 330100", "330100", policy.TopUp)
	elsewhere := w.hire("gateway 330200", "330200", policy.TopUp)
	d := w.device(op, "330100", "1001")
	request := d.load("330100", "8600000000000001", 7)
	message := d.say(oid.ContentLoadRequest, request)

	load, err := gateway.client.VerifyLoad(ctx, message)
	w.must(err)
	if load.Transaction != request.Transaction || load.Amount != 5000 || !bytes.Equal(load.MAC1, request.MAC1) || load.Evidence.State != "good" || load.Evidence.Seq == 0 || load.Agreement {
		t.Errorf("the load is %+v", load)
	}
	_, err = elsewhere.client.VerifyLoad(ctx, message)
	refusedAs(t, err, "forbidden")
	_, err = op.client.VerifyLoad(ctx, message)
	refusedAs(t, err, "forbidden")
	status, _, body := gateway.ask(w, "POST", "/v1/topup/verify", client.MediaCMS, string(message))
	if status != 200 || !strings.Contains(string(body), request.Transaction) {
		t.Errorf("a bare message gets %d %s", status, body)
	}
	broken := bytes.Clone(message)
	broken[len(broken)-1] ^= 1
	_, err = gateway.client.VerifyLoad(ctx, broken)
	if p := refusedAs(t, err, "misfit"); p.Half != "presented" {
		t.Errorf("the problem does not say which half did not fit: %+v", p)
	}
	_, err = gateway.client.VerifyLoad(ctx, []byte("rubbish"))
	refusedAs(t, err, "message-malformed")

	a := client.Authorisation{Message: message, CommandScript: []byte("credit"), DataScript: []byte("a secret that nobody logs"), MAC1Accepted: true}
	permission, err := gateway.client.AuthoriseLoad(ctx, a)
	w.must(err)
	again, err := gateway.client.AuthoriseLoad(ctx, a)
	w.must(err)
	if !bytes.Equal(permission.Message, again.Message) || permission.Evidence.Epoch != 1 {
		t.Error("the same request gets another permission")
	}
	second := d.load("330100", "8600000000000001", 7)
	_, err = gateway.client.AuthoriseLoad(ctx, client.Authorisation{Message: d.say(oid.ContentLoadRequest, second), CommandScript: []byte("c"), DataScript: []byte("d")})
	refusedAs(t, err, "load-conflict")

	result := &verify.LoadResult{
		Transaction: request.Transaction, City: "330100", Reader: request.Reader, Card: request.Card, Counter: 7, Outcome: verify.Credited,
		TAC: []byte{1, 2, 3, 4}, Balance: 5100, ScriptResult: []byte{0x90, 0}, PermissionHash: sha256.Sum256(permission.Message),
	}
	done := d.say(oid.ContentLoadResult, result)
	tx, err := gateway.client.ConfirmLoad(ctx, client.Confirmation{Message: done, TACAccepted: true})
	w.must(err)
	if tx.State != "credited" || tx.NewBalance != 5100 || tx.Caller != "gateway 330100" {
		t.Errorf("the transaction is %+v", tx)
	}
	status, _, body = gateway.ask(w, "POST", "/v1/topup/confirm?tac-accepted=true", client.MediaCMS, string(done), client.HeaderIdempotencyKey, "again")
	if status != 200 || !strings.Contains(string(body), `"credited"`) {
		t.Errorf("the same result again gets %d %s", status, body)
	}
	read, err := op.client.Transaction(ctx, request.Transaction)
	w.must(err)
	if read.State != "credited" || read.Seq != tx.Seq {
		t.Errorf("read %+v", read)
	}
	_, err = elsewhere.client.Transaction(ctx, request.Transaction)
	refusedAs(t, err, "forbidden")
	n := 0
	for l, err := range gateway.client.Transactions(ctx, client.TransactionQuery{Limit: 1}) {
		w.must(err)
		if n++; l.ID != request.Transaction {
			t.Errorf("listed %+v", l)
		}
	}
	if n != 1 {
		t.Errorf("%d transactions are listed", n)
	}

	late := d.load("330100", "8600000000000001", 8)
	late.Expiry = time.Now().Add(-time.Minute)
	_, err = gateway.client.VerifyLoad(ctx, d.say(oid.ContentLoadRequest, late))
	refusedAs(t, err, "message-expired")
	open := d.load("330100", "8600000000000002", 1)
	_, err = gateway.client.AuthoriseLoad(ctx, client.Authorisation{Message: d.say(oid.ContentLoadRequest, open), CommandScript: []byte("c"), DataScript: []byte("d")})
	w.must(err)
	_, err = gateway.client.ResolveTransaction(ctx, open.Transaction, client.Resolution{Counter: 1, Balance: 100, Note: "read again"})
	refusedAs(t, err, "load-conflict") // the permission still holds
	resolution := client.Resolution{Counter: 2, Balance: 5100, TAC: []byte{1, 2, 3, 4}, Note: "read again"}
	closed, err := gateway.client.Keyed("r").ResolveTransaction(ctx, open.Transaction, resolution)
	w.must(err)
	repeated, err := gateway.client.Keyed("r").ResolveTransaction(ctx, open.Transaction, resolution)
	w.must(err)
	if closed.State != "credited" || repeated.Seq != closed.Seq {
		t.Errorf("resolved: %+v, then %+v", closed, repeated)
	}
	_, err = op.client.SuspendReader(ctx, "1001", client.Note{})
	w.must(err)
	_, err = gateway.client.VerifyLoad(ctx, d.say(oid.ContentLoadRequest, d.load("330100", "8600000000000001", 8)))
	refusedAs(t, err, "certificate-on-hold")
	_, err = op.client.RevokeReader(ctx, "1001", client.Revocation{Reason: 1})
	w.must(err)
	_, err = gateway.client.VerifyLoad(ctx, d.say(oid.ContentLoadRequest, d.load("330100", "8600000000000001", 8)))
	if p := refusedAs(t, err, "certificate-revoked"); p.Half != "kept" {
		t.Errorf("the problem is %+v", p)
	}
	if text := w.log.String(); strings.Contains(text, "secret") || strings.Contains(text, "YSBzZWNyZXQ") {
		t.Errorf("the log holds a data script:\n%s", text)
	}
}

func TestAgreement(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	here, there := w.hire("Zhao Liu", "330100", policy.CityOperator), w.hire("He Shi", "330200", policy.CityOperator)
	gateway := w.hire("gateway 330100", "330100", policy.TopUp)
	d := w.device(there, "330200", "2001")
	message := d.say(oid.ContentLoadRequest, d.load("330100", "8600000000000009", 1))
	_, err := gateway.client.VerifyLoad(ctx, message)
	refusedAs(t, err, "misfit")

	until := time.Now().Add(24 * time.Hour)
	_, err = here.client.PutAgreement(ctx, client.AgreementRequest{City: "330200", Other: "330100", Until: until})
	refusedAs(t, err, "forbidden")
	first, err := here.client.Keyed("a").PutAgreement(ctx, client.AgreementRequest{City: "330100", Other: "330200", Until: until})
	w.must(err)
	_, err = gateway.client.VerifyLoad(ctx, message)
	refusedAs(t, err, "misfit") // one city alone does not decide
	both, err := there.client.PutAgreement(ctx, client.AgreementRequest{City: "330200", Other: "330100", Until: until})
	w.must(err)
	if len(first.Approved) != 1 || len(both.Approved) != 2 || both.Approved["330100"] != "Zhao Liu" {
		t.Errorf("the agreement is %+v, then %+v", first, both)
	}
	load, err := gateway.client.VerifyLoad(ctx, message)
	w.must(err)
	if !load.Agreement {
		t.Errorf("nothing says that the load rests on an agreement: %+v", load)
	}
	var listed []*client.Agreement
	for a, err := range gateway.client.Agreements(ctx, "") {
		w.must(err)
		listed = append(listed, a)
	}
	if len(listed) != 1 || listed[0].A != "330100" || listed[0].B != "330200" {
		b, _ := json.Marshal(listed)
		t.Errorf("listed %s", b)
	}
	ended, err := there.client.PutAgreement(ctx, client.AgreementRequest{City: "330200", Other: "330100", End: true})
	w.must(err)
	_, err = gateway.client.VerifyLoad(ctx, message)
	if refusedAs(t, err, "misfit"); !ended.Ended {
		t.Errorf("the agreement is %+v", ended)
	}
	_, err = here.client.PutAgreement(ctx, client.AgreementRequest{City: "330100", Other: "330100", Until: until})
	refusedAs(t, err, "malformed")
}
