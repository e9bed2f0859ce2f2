package main

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"hufu/api/client"
	"hufu/examples/topup/purse"
	"hufu/examples/topup/trust"
	"hufu/verify"
)

// commandScript is what the reader does with a CPU card of this city; the
// values come in the data script.
const commandScript = `hufu-script 1
send 805200000B{date}{time}{mac2}04 expect 9000 capture tac
`

const (
	maxMessage = 64 << 10
	maxLoadFen = 1000_00 // the city's limit for one load
)

// files are a certificate and its key.
type files struct{ url, certificate, key string }

func (f *files) load() (tls.Certificate, error) { return tls.LoadX509KeyPair(f.certificate, f.key) }

// server is the city's back end.
type server struct {
	code  string
	door  files
	hufu  files
	trust trust.Config

	api      *client.Client
	verifier *verify.Verifier
	masters  *masters
	ledger   *ledger
}

// open reads the city's keys and reaches Hufu.
func (s *server) open(keys string) error {
	var err error
	if s.masters, err = readMasters(keys); err != nil {
		return fmt.Errorf("reading the city's keys (city personalise makes them): %w", err)
	}
	if s.verifier, err = trust.Open(s.trust); err != nil {
		return err
	}
	cert, err := s.hufu.load()
	if err != nil {
		return fmt.Errorf("reading the city's client certificate: %w", err)
	}
	s.api, err = client.New(client.Config{URL: s.hufu.url, TLS: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: trust.Pool(s.verifier)}})
	return err
}

func (s *server) serve(ctx context.Context, listen string) error {
	cert, err := s.door.load()
	if err != nil {
		return fmt.Errorf("reading the city's server certificate: %w", err)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /loads", s.handle(s.authorise))
	mux.HandleFunc("POST /results", s.handle(s.confirm))
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true,
			ClientAuth: tls.RequireAnyClientCert, VerifyPeerCertificate: s.chain,
		}}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = web.Shutdown(end) // who is not done by then is cut off
	}()
	fmt.Printf("city %s at https://%s\n", s.code, l.Addr())
	if err := web.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// chain lets only readers' certificates of this hierarchy through the
// handshake. Their status is asked for in the handler, where the reason of a
// refusal can be told: a TLS alert has no words.
func (s *server) chain(raw [][]byte, _ [][]*x509.Certificate) error {
	_, err := s.verifier.Chain(raw[0], raw[1:], verify.ReaderClient)
	return err
}

// handle reads a reader's message and writes the answer, or the reason of the
// refusal.
func (s *server) handle(f func(context.Context, []byte) ([]byte, string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		message, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
		if err == nil {
			err = s.peer(r)
		}
		var answer []byte
		var media string
		if err == nil {
			answer, media, err = f(r.Context(), message)
		}
		if err != nil {
			fmt.Println("city: refused:", err)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(struct{ Reason string }{err.Error()})
			return
		}
		w.Header().Set("Content-Type", media)
		w.Write(answer)
	}
}

func (s *server) peer(r *http.Request) error {
	var raw [][]byte
	for _, c := range r.TLS.PeerCertificates {
		raw = append(raw, c.Raw)
	}
	_, err := s.verifier.Peer(r.Context(), raw, verify.ReaderClient)
	return err
}

// authorise is the city's half of a load.
func (s *server) authorise(ctx context.Context, message []byte) ([]byte, string, error) {
	// 1. Hufu says whether the message is what a good reader signed.
	q, err := s.api.VerifyLoad(ctx, message)
	if err != nil {
		return nil, "", err
	}
	// 2. The card is ours to judge, with the card's keys.
	asn, err := hex.DecodeString(q.Card)
	switch {
	case err != nil || len(asn) != 10 || len(q.Random) != 4 || len(q.MAC1) != 4 || len(q.Terminal) != 6:
		return nil, "", errors.New("the request is not of a CPU card of this city")
	case q.CardCity != s.code:
		return nil, "", fmt.Errorf("the card is of city %s, not of %s", q.CardCity, s.code)
	case q.Amount == 0 || q.Amount > maxLoadFen:
		return nil, "", fmt.Errorf("%d fen is not between 1 and %d, the city's limit for one load", q.Amount, maxLoadFen)
	case q.Type != purse.TypeEPLoad || q.Algorithm != 0 || q.Counter > 0xFFFF || q.Balance > 0xFFFFFFFF:
		return nil, "", errors.New("the city's cards load an electronic purse with 3DES only")
	}
	l := purse.Load{OldBalance: uint32(q.Balance), Counter: uint16(q.Counter), Random: [4]byte(q.Random), Amount: uint32(q.Amount), Type: q.Type, Terminal: purse.Terminal(q.Terminal)}
	key, _ := s.masters.card(asn)
	if mac1 := l.MAC1(key); subtle.ConstantTimeCompare(mac1[:], q.MAC1) != 1 {
		return nil, "", errors.New("MAC1 is wrong: this card does not hold the city's keys")
	}
	// 3. The decision is durable before anything leaves the city.
	l.HostDate, l.HostTime = bcd(time.Now())
	d, err := s.ledger.decide(&decided{Transaction: q.Transaction, ASN: asn, Load: l})
	if err != nil {
		return nil, "", err
	}
	// 4. Hufu seals the scripts to this reader and signs with the city's key.
	mac2 := d.Load.MAC2(key)
	data := fmt.Appendf(nil, "date=%X\ntime=%X\nmac2=%X\n", d.Load.HostDate, d.Load.HostTime, mac2)
	p, err := s.api.AuthoriseLoad(ctx, client.Authorisation{Message: message, CommandScript: []byte(commandScript), DataScript: data, MAC1Accepted: true})
	clear(data)
	if err != nil {
		return nil, "", err
	}
	fmt.Printf("city: card %s: MAC1 right, %d fen permitted\n", q.Card, q.Amount)
	return p.Message, "application/pkcs7-mime", nil
}

// confirm checks the TAC with the card's keys and closes the transaction.
func (s *server) confirm(ctx context.Context, message []byte) ([]byte, string, error) {
	res, _, err := s.verifier.LoadResult(ctx, message)
	if err != nil {
		return nil, "", err
	}
	d := s.ledger.find(res.Transaction)
	if d == nil {
		return nil, "", fmt.Errorf("transaction %s was never permitted here", res.Transaction)
	}
	_, key := s.masters.card(d.ASN)
	tac := d.Load.TAC(key)
	right := subtle.ConstantTimeCompare(tac[:], res.TAC) == 1
	t, err := s.api.ConfirmLoad(ctx, client.Confirmation{Message: message, TACAccepted: right})
	if err != nil {
		return nil, "", err
	}
	fmt.Printf("city: card %s: TAC right: %t, transaction %s\n", res.Card, right, t.State)
	return fmt.Appendf(nil, "transaction %s is %s\n", t.ID, t.State), "text/plain; charset=utf-8", nil
}

// bcd writes a time as the card wants it: YYYYMMDD and hhmmss in packed BCD.
func bcd(t time.Time) (date [4]byte, clock [3]byte) {
	d, _ := hex.DecodeString(t.Format("20060102"))
	c, _ := hex.DecodeString(t.Format("150405"))
	return [4]byte(d), [3]byte(c)
}
