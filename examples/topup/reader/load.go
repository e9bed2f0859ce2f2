package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hufu/examples/topup/purse"
	"hufu/examples/topup/script"
	"hufu/examples/topup/trust"
	"hufu/internal/cms"
	"hufu/internal/oid"
	"hufu/verify"
)

// requestLife is how long a request may be granted.
const requestLife = 5 * time.Minute

// load is one load that the reader is asked for.
type load struct {
	card, city, terminal string
	fen                  uint64
}

// load runs one load from the card's INITIALIZE FOR LOAD to the city's receipt.
func (r *reader) load(ctx context.Context, l *load) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	defer r.token.Close()
	if err := r.install(ctx); err != nil {
		return err
	}
	verifier, err := trust.Open(r.trust)
	if err != nil {
		return err
	}

	// 1. The card says who it is, and commits itself with MAC1.
	field, err := purse.Enter(l.card)
	if err != nil {
		return err
	}
	defer field.Close()
	request, err := r.ask(field, l)
	if err != nil {
		return err
	}
	fmt.Printf("reader: card %s of city %s, balance %s, counter %d; MAC1 %X\n", request.Card, request.CardCity, yuanOf(request.Balance), request.Counter, request.MAC1)

	// 2. The reader signs the request; the city verifies, decides and permits.
	content, err := request.Marshal()
	if err != nil {
		return err
	}
	signed, err := cms.Sign(oid.ContentLoadRequest, content, r.pair.sign.Raw, r.pair.travelling(), r.sign, time.Now())
	if err != nil {
		return fmt.Errorf("signing the request: %w", err)
	}
	client := r.client(verifier)
	answer, err := post(ctx, client, l.city+"/loads", signed)
	if err != nil {
		return err
	}

	// 3. The permission must be the city's answer to this very request, and
	// what is inside must be for this reader. Only here is it opened.
	command, values, err := r.unseal(ctx, verifier, answer, signed)
	if err != nil {
		return err
	}
	fmt.Printf("reader: the city's permission verified; data script opened inside the reader (%d values)\n", len(values))

	// 4. The script runs on the card.
	captured, runErr := script.Run(command, values, field.Transmit)

	// 5. The reader signs what came of it.
	result := r.result(request, answer, captured, runErr)
	if content, err = result.Marshal(); err != nil {
		return err
	}
	if signed, err = cms.Sign(oid.ContentLoadResult, content, r.pair.sign.Raw, r.pair.travelling(), r.sign, time.Now()); err != nil {
		return fmt.Errorf("signing the result: %w", err)
	}
	receipt, err := post(ctx, client, l.city+"/results", signed)
	if err != nil {
		return err
	}
	receipt = bytes.TrimSpace(receipt)
	switch result.Outcome {
	case verify.NotCredited:
		return fmt.Errorf("the card was not credited: %w; the city says: %s", runErr, receipt)
	case verify.Uncertain:
		return fmt.Errorf("whether the card was credited is not known: %w; the city says: %s", runErr, receipt)
	}
	fmt.Printf("reader: card credited, balance %s, TAC %X; the city says: %s\n", yuanOf(result.Balance), result.TAC, receipt)
	return nil
}

// ask selects the purse and initialises the load.
func (r *reader) ask(field *purse.Field, l *load) (*verify.LoadRequest, error) {
	terminal, err := hex.DecodeString(l.terminal)
	if err != nil || len(terminal) != 6 {
		return nil, fmt.Errorf("-terminal %q is not 12 digits", l.terminal)
	}
	public, err := field.Identify()
	if err != nil {
		return nil, err
	}
	init, err := field.Initialize(uint32(l.fen), purse.Terminal(terminal))
	if err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	rand.Read(id)
	return &verify.LoadRequest{
		Transaction: hex.EncodeToString(id), CardCity: hex.EncodeToString(public.City[:]), ReaderCity: r.pair.city(), Reader: r.pair.name(),
		Card: hex.EncodeToString(public.ASN[:]), Counter: uint32(init.Counter), Random: init.Random[:], Amount: l.fen, Balance: uint64(init.Balance),
		Type: purse.TypeEPLoad, KeyIndex: 1, KeyVersion: init.Version, Algorithm: init.Algorithm, MAC1: init.MAC1[:], Terminal: terminal,
		Expiry: time.Now().Add(requestLife), EncryptionHash: r.pair.encryptionHash(),
	}, nil
}

// unseal verifies the permission and opens the scripts.
func (r *reader) unseal(ctx context.Context, v *verify.Verifier, answer, request []byte) ([]script.Step, map[string][]byte, error) {
	permission, _, err := v.LoadPermission(ctx, answer, request)
	if err != nil {
		return nil, nil, fmt.Errorf("the city's permission is refused: %w", err)
	}
	key, err := r.encrypt.ECDHKey()
	if err != nil {
		return nil, nil, err
	}
	plain, err := (&cms.Opener{Certificate: r.pair.encrypt.Raw, ECDH: key}).Open(permission.Sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("opening what the city sealed: %w", err)
	}
	defer clear(plain)
	sealed, err := verify.ParseSealedScript(plain)
	if err != nil {
		return nil, nil, err
	}
	if err := sealed.Check(permission); err != nil {
		return nil, nil, fmt.Errorf("the seal is not this permission's: %w", err)
	}
	steps, err := script.Parse(sealed.CommandScript)
	if err != nil {
		return nil, nil, err
	}
	values, err := script.ParseData(sealed.DataScript)
	clear(sealed.DataScript)
	return steps, values, err
}

// result says how the load ended: a status word of the card is a refusal, a card
// that left the field has perhaps been credited.
func (r *reader) result(q *verify.LoadRequest, permission []byte, captured map[string][]byte, err error) *verify.LoadResult {
	res := &verify.LoadResult{Transaction: q.Transaction, City: q.CardCity, Reader: q.Reader, Card: q.Card, Counter: q.Counter,
		Balance: q.Balance, PermissionHash: sha256.Sum256(permission)}
	var status *script.StatusError
	switch {
	case err == nil && len(captured["tac"]) == 4:
		res.Outcome, res.TAC, res.Balance = verify.Credited, captured["tac"], q.Balance+q.Amount
	case errors.As(err, &status):
		res.Outcome, res.ScriptResult = verify.NotCredited, []byte(status.Error())
	default:
		res.Outcome = verify.Uncertain
	}
	return res
}

// client speaks to the city with the reader's signing certificate, whose key
// signs the handshake inside the token.
func (r *reader) client(v *verify.Verifier) *http.Client {
	cert := tls.Certificate{Certificate: append([][]byte{r.pair.sign.Raw}, r.pair.above...), PrivateKey: r.sign, Leaf: r.pair.sign}
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: trust.Pool(v),
		VerifyPeerCertificate: v.VerifyPeer(verify.Server),
	}}}
}

func post(ctx context.Context, c *http.Client, url string, body []byte) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/pkcs7-mime")
	a, err := c.Do(q)
	if err != nil {
		return nil, fmt.Errorf("asking the city: %w", err)
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if a.StatusCode != http.StatusOK {
		var refusal struct{ Reason string }
		if json.Unmarshal(raw, &refusal) == nil && refusal.Reason != "" {
			return nil, fmt.Errorf("the city refuses: %s", refusal.Reason)
		}
		return nil, fmt.Errorf("the city answered %s", a.Status)
	}
	return raw, nil
}

func parseYuan(s string) (uint64, error) {
	whole, part, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(whole+(part + "00")[:2], 10, 32)
	if err != nil || n == 0 || len(part) > 2 {
		return 0, fmt.Errorf("-yuan %q is not an amount such as 50.00", s)
	}
	return n, nil
}

func yuanOf(fen uint64) string { return fmt.Sprintf("%d.%02d yuan", fen/100, fen%100) }

func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}
