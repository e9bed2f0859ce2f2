package responder

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hufu/internal/ocsp"
	"hufu/store"
)

var (
	responseType = []string{"application/ocsp-response"}
	noStore      = []string{"no-store"}
)

// reasonHold is certificateHold (RFC 5280, Section 5.3.1).
const reasonHold = 6

// serveOCSP answers POST CA and GET CA/BASE64 (RFC 6960, Appendix A.1). Whatever OCSP
// has a word for is said in OCSP, with HTTP status 200, as clients expect it.
func (r *Responder) serveOCSP(w http.ResponseWriter, req *http.Request, rest string) {
	id, encoded, _ := strings.Cut(rest, "/")
	var der []byte
	var err error
	switch req.Method {
	case http.MethodPost:
		der, err = readBody(req)
	case http.MethodGet, http.MethodHead:
		der, err = decodePath(encoded)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "an OCSP request comes by GET or POST", http.StatusMethodNotAllowed)
		return
	}
	var question *ocsp.Request
	if err == nil {
		question, err = ocsp.ParseRequest(der)
	}
	if err != nil {
		writeOnce(w, ocsp.ErrorResponse(ocsp.MalformedRequest))
		return
	}
	a, err := r.authority(req.Context(), id)
	switch {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		r.broken(w, req, id, err)
	case err != nil || !a.served || !a.concerns(question):
		writeOnce(w, ocsp.ErrorResponse(ocsp.Unauthorized))
	default:
		r.answer(w, req, a, question)
	}
}

// concerns reports whether the request asks for a certificate of this CA at all.
func (a *authority) concerns(q *ocsp.Request) bool {
	for i := range q.IDs {
		if a.issuer.Issued(&q.IDs[i]) {
			return true
		}
	}
	return false
}

// answer says what the book says at this moment.
func (r *Responder) answer(w http.ResponseWriter, req *http.Request, a *authority, q *ocsp.Request) {
	asOf := r.cfg.Now() // thisUpdate: what changes while the answer is made came later
	seen := r.look()
	alone := len(q.IDs) == 1 && q.Nonce == nil && len(q.IDs[0].Serial) == len(store.Serial{})
	var k key
	if alone {
		k = key{ca: a.id, serial: store.Serial(q.IDs[0].Serial), form: formOf(&q.IDs[0])}
		if v := r.answers.get(&k); v != nil && v.seen.Load() == seen && v.fresh(asOf) {
			v.touch(asOf)
			r.write(w, req, v)
			return
		}
	}
	statuses, err := r.statuses(req.Context(), a, q.IDs)
	if err != nil {
		r.broken(w, req, a.id, err)
		return
	}
	// What is signed for one client, and what may exist a moment later, is not kept.
	if !alone || statuses[0] == nil {
		v, err := r.sign(req.Context(), a, q.IDs, statuses, asOf, q.Nonce)
		if err != nil {
			r.later(w, a, err)
			return
		}
		writeOnce(w, v.der)
		return
	}
	v := r.answers.get(&k)
	if v == nil || !v.holds(statuses[0].Seq, asOf) {
		if v, err = r.keep(req.Context(), a, &q.IDs[0], &k, statuses[0], asOf); err != nil {
			r.later(w, a, err)
			return
		}
	}
	v.seen.Store(seen)
	v.touch(asOf)
	r.write(w, req, v)
}

// look is a moment before which the book was not yet looked at. While its channel is
// open, nothing was committed since.
type look struct{ changed <-chan struct{} }

// look returns the present moment, or an earlier one if nothing was committed since.
// An answer that a view begun after it found true is true still: whoever asks after
// a commit gets another look, which no answer has seen.
func (r *Responder) look() *look {
	if l := r.last.Load(); l != nil {
		select {
		case <-l.changed:
		default:
			return l
		}
	}
	l := &look{r.cfg.Changed()}
	r.last.Store(l)
	return l
}

// statuses reads the records of all certificates in one view of the book; nil is
// for what was not issued by this CA. A view that begins now sees every change that
// was committed until now: this is why no answer is ever stale.
func (r *Responder) statuses(ctx context.Context, a *authority, ids []ocsp.CertID) ([]*store.Status, error) {
	statuses := make([]*store.Status, len(ids))
	err := r.cfg.Book.View(ctx, func(tx *store.Tx) error {
		for i := range ids {
			var serial store.Serial
			if !a.issuer.Issued(&ids[i]) || len(ids[i].Serial) != len(serial) {
				continue
			}
			copy(serial[:], ids[i].Serial)
			status, err := store.Statuses.Get(tx, store.SerialKey(a.id, serial))
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			statuses[i] = status
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading statuses: %w", err)
	}
	return statuses, nil
}

// keep signs an answer and keeps it. Those who ask for the same at the same time
// wait for one signature. The status is part of what is the same: whoever has read a
// later one must not be given the answer to an earlier.
func (r *Responder) keep(ctx context.Context, a *authority, id *ocsp.CertID, k *key, status *store.Status, asOf time.Time) (*answer, error) {
	name := fmt.Sprintf("%s %x %d %d", k.ca, k.serial, k.form, status.Seq)
	v, err, _ := r.flights.Do(name, func() (any, error) {
		if v := r.answers.get(k); v != nil && v.holds(status.Seq, asOf) && !v.due(asOf) {
			return v, nil // signed since the caller looked
		}
		// Others wait for the same, so it does not end with the client that came first.
		s, err := r.sign(context.WithoutCancel(ctx), a, []ocsp.CertID{*id}, []*store.Status{status}, asOf, nil)
		if err != nil {
			return nil, err
		}
		v := newAnswer(s, status.Seq, r.cfg.MaxAge)
		r.answers.put(k, v)
		return v, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*answer), nil
}

// sign makes a response to the questions ids with the statuses as they were at asOf.
// It comes back when the patience of clients ends, though the token may not.
func (r *Responder) sign(ctx context.Context, a *authority, ids []ocsp.CertID, statuses []*store.Status, asOf time.Time, nonce []byte) (*signed, error) {
	patience := time.NewTimer(r.cfg.Patience)
	defer patience.Stop()
	s, err := r.signer(ctx, a, patience.C)
	if err != nil {
		return nil, err
	}
	v := &signed{authority: a, signer: s, thisUpdate: asOf.UTC().Truncate(time.Second), done: make(chan error, 1)}
	v.nextUpdate = v.thisUpdate.Add(r.cfg.Validity)
	if end := s.NotAfter(); v.nextUpdate.After(end) {
		v.nextUpdate = end // no client believes the answer longer than its signer's certificate
	}
	v.data = ocsp.ResponseData{ProducedAt: asOf, Nonce: nonce, Responses: make([]ocsp.SingleResponse, len(ids))}
	for i := range ids {
		v.data.Responses[i] = single(ids[i], statuses[i], v.thisUpdate, v.nextUpdate)
	}
	if err := r.desk.put(v); err != nil {
		return nil, err
	}
	select {
	case err := <-v.done:
		return v, err
	case <-patience.C:
		v.abandoned.Store(true)
		return nil, errAway
	case <-ctx.Done():
		v.abandoned.Store(true)
		return nil, ctx.Err()
	}
}

// single is what is said of one certificate.
func single(id ocsp.CertID, status *store.Status, thisUpdate, nextUpdate time.Time) ocsp.SingleResponse {
	s := ocsp.SingleResponse{ID: id, Status: ocsp.Unknown, ThisUpdate: thisUpdate, NextUpdate: nextUpdate}
	if status == nil {
		return s
	}
	switch status.State {
	case store.Good:
		s.Status = ocsp.Good
	case store.Held:
		s.Status, s.RevokedAt, s.Reason = ocsp.Revoked, status.Time, reasonHold
	case store.Revoked:
		s.Status, s.RevokedAt, s.Reason = ocsp.Revoked, status.Time, status.Reason
	}
	return s
}

// write sends an answer that caches may keep for as long as the promise allows
// (RFC 9919, Section 6).
func (r *Responder) write(w http.ResponseWriter, req *http.Request, a *answer) {
	h := w.Header()
	h["Content-Type"] = responseType
	// No cache on the way keeps the answer to a POST (RFC 9110, Section 9.3.3),
	// so only one to a GET is told how long.
	if req.Method != http.MethodPost {
		at := time.Unix(a.thisUpdate, 0).UTC()
		h["Cache-Control"] = r.control
		h["Expires"] = r.expiresAt(r.cfg.Now())
		h["Etag"] = []string{a.etag()}
		h["Last-Modified"] = []string{at.Format(http.TimeFormat)}
		if req.Header["If-None-Match"] != nil || req.Header["If-Modified-Since"] != nil {
			http.ServeContent(w, req, "", at, bytes.NewReader(a.der()))
			return
		}
	}
	send(w, a.head, a.signer.Certificate())
}

// send writes the parts of a response. How long a short one is net/http tells by
// itself, once it has the whole.
func send(w http.ResponseWriter, head, tail []byte) {
	const short = 2000
	if n := len(head) + len(tail); n > short {
		w.Header()["Content-Length"] = []string{strconv.Itoa(n)}
	}
	_, _ = w.Write(head) // an error means that the client is gone
	_, _ = w.Write(tail)
}

// later answers where the token does not sign. That it is slow is logged once a
// minute; that it fails was logged when it was tried.
func (r *Responder) later(w http.ResponseWriter, a *authority, err error) {
	if errors.Is(err, errAway) || errors.Is(err, errBusy) {
		minute, last := r.cfg.Now().Unix()/60, r.slow.Load()
		if minute != last && r.slow.CompareAndSwap(last, minute) {
			r.cfg.Log.Warn("OCSP clients are told to try later", "ca", a.id, "error", err)
		}
	}
	writeOnce(w, ocsp.ErrorResponse(ocsp.TryLater))
}

// broken answers where the book cannot be read.
func (r *Responder) broken(w http.ResponseWriter, req *http.Request, id string, err error) {
	if req.Context().Err() == nil { // else the client is gone, and nothing is wrong
		r.cfg.Log.Error("an OCSP request cannot be answered", "ca", id, "error", err)
	}
	writeOnce(w, ocsp.ErrorResponse(ocsp.InternalError))
}

// writeOnce sends a response that nobody may keep.
func writeOnce(w http.ResponseWriter, der []byte) {
	h := w.Header()
	h["Content-Type"] = responseType
	h["Cache-Control"] = noStore
	send(w, der, nil)
}

var errTooLarge = errors.New("the request is too large")

// readBody reads a POSTed request: its size first.
func readBody(req *http.Request) ([]byte, error) {
	if req.ContentLength > ocsp.MaxRequest {
		return nil, errTooLarge
	}
	if req.ContentLength < 0 {
		return io.ReadAll(io.LimitReader(req.Body, ocsp.MaxRequest+1)) // ParseRequest refuses the octet too many
	}
	der := make([]byte, req.ContentLength)
	_, err := io.ReadFull(req.Body, der)
	return der, err
}

// decodePath reads the base64 of a GET (RFC 6960, Appendix A.1), of which net/http
// has undone the percent-encoding. Met in the wild: none of it done, done twice, + turned
// into a space, = left out, and an address that ends in a slash of its own.
func decodePath(encoded string) ([]byte, error) {
	if len(encoded) > base64.StdEncoding.EncodedLen(ocsp.MaxRequest)*3 {
		return nil, errTooLarge
	}
	if strings.Contains(encoded, "%") {
		twice, err := url.PathUnescape(encoded)
		if err != nil {
			return nil, fmt.Errorf("decoding path: %w", err)
		}
		encoded = twice
	}
	encoded = strings.TrimRight(strings.TrimLeft(encoded, "/"), "=")
	return base64.RawStdEncoding.DecodeString(strings.ReplaceAll(encoded, " ", "+"))
}
