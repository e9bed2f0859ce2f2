package responder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hufu/store"
)

// listInMemory is the largest CRL that is kept in memory; a larger one is copied to
// an unlinked temporary file.
const listInMemory = 512 << 10

// How long a client may take over a CRL.
const (
	listPatience = 30 * time.Second
	listRate     = 32 << 10 // octets in a second
)

// list is a CRL copied out of the book, so that a client that reads slowly, or a
// part at a time, holds no transaction of the book open.
type list struct {
	*store.CRL
	octets io.ReaderAt
}

// listName says which of a CA's lists is meant.
type listName struct {
	shard uint16 // 0 = the list of the whole CA
	delta bool
}

// copied is the newest copy of one list.
type copied struct {
	mu   sync.Mutex // held while the CRL is copied out of the book
	list atomic.Pointer[list]
}

// parseList reads what stands between "/crl/" and ".crl": the ID of a CA, "/" and
// a shard's number where it is of a shard, ".delta" where it is a delta.
func parseList(path string) (id string, name listName, ok bool) {
	path, name.delta = strings.CutSuffix(path, ".delta")
	id, shard, sharded := strings.Cut(path, "/")
	if sharded {
		n, err := strconv.ParseUint(shard, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != shard {
			return "", name, false
		}
		name.shard = uint16(n)
	}
	return id, name, true
}

// serveCRL serves the newest CRL of that name.
func (r *Responder) serveCRL(w http.ResponseWriter, req *http.Request, id string, name listName) {
	l, err := r.list(req.Context(), id, name)
	if err != nil {
		r.missing(w, req, err, "CA "+id+" has no such CRL here: it has not published one yet, or there is no such CA")
		return
	}
	now := r.cfg.Now()
	h := w.Header()
	h["Content-Type"] = []string{"application/pkix-crl"} // RFC 2585, Section 4.2
	h["Etag"] = []string{`"` + l.Sum.String()[:32] + `"`}
	if l.NextUpdate.Before(now.Add(r.cfg.MaxAge)) {
		h["Cache-Control"] = []string{"no-cache"}
	} else {
		h["Cache-Control"] = r.control
		h["Expires"] = r.expiresAt(now)
	}
	// The server's limit for small answers would cut a long list off; where there is
	// no deadline to move, there is none to fear.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(listPatience + time.Duration(l.Size)*time.Second/listRate))
	http.ServeContent(w, req, "", l.ThisUpdate, io.NewSectionReader(l.octets, 0, l.Size))
}

// list returns the newest CRL of that name. The record is read for every request, so a new
// CRL is served from the moment that it stands in the book.
func (r *Responder) list(ctx context.Context, id string, name listName) (*list, error) {
	a, err := r.authority(ctx, id)
	if err != nil {
		return nil, err
	}
	newest := func(tx *store.Tx) (*store.CRL, error) { return store.LastCRL(tx, a.id, name.shard, name.delta) }
	var c *store.CRL
	err = r.cfg.Book.View(ctx, func(tx *store.Tx) (err error) {
		c, err = newest(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the CRL of CA %q: %w", id, err)
	}
	held, ok := a.lists.Load(name)
	if !ok {
		held, _ = a.lists.LoadOrStore(name, new(copied))
	}
	kept := held.(*copied)
	if l := kept.list.Load(); l != nil && l.Number >= c.Number {
		return l, nil
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if l := kept.list.Load(); l != nil && l.Number >= c.Number {
		return l, nil
	}
	var l *list
	err = r.cfg.Book.View(ctx, func(tx *store.Tx) error {
		if c, err = newest(tx); err != nil {
			return err
		}
		l, err = copyList(tx, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the CRL of CA %q: %w", id, err)
	}
	kept.list.Store(l)
	return l, nil
}

// copyList copies a CRL out of the book; the book checks its hash on the way.
func copyList(tx *store.Tx, c *store.CRL) (*list, error) {
	octets := store.OpenCRL(tx, c)
	if c.Size <= listInMemory {
		der, err := io.ReadAll(octets)
		return &list{c, bytes.NewReader(der)}, err
	}
	file, err := os.CreateTemp("", "hufu-crl-")
	if err != nil {
		return nil, err
	}
	// Without a name nothing is left behind, and the file lives as long as a
	// download of it: the runtime closes it when it is no longer reachable.
	err = os.Remove(file.Name())
	if err == nil {
		_, err = io.Copy(file, octets)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &list{c, file}, nil
}

// issuerAge is how long a CA's certificate may be kept: the one of this ID never
// changes.
const issuerAge = 24 * time.Hour

// serveIssuer serves the certificate of a CA (RFC 5280, Section 4.2.2.1: one
// certificate in DER).
func (r *Responder) serveIssuer(w http.ResponseWriter, req *http.Request, id string) {
	a, err := r.authority(req.Context(), id)
	if err != nil {
		r.missing(w, req, err, "there is no CA "+id+" here")
		return
	}
	sum := store.Sum(a.certificate)
	h := w.Header()
	h["Content-Type"] = []string{"application/pkix-cert"} // RFC 2585, Section 4.1
	h["Cache-Control"] = []string{fmt.Sprintf("max-age=%d, public, no-transform", int(issuerAge/time.Second))}
	h["Etag"] = []string{`"` + sum.String()[:32] + `"`}
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(a.certificate))
}

// missing answers for what cannot be served.
func (r *Responder) missing(w http.ResponseWriter, req *http.Request, err error, text string) {
	w.Header()["Cache-Control"] = noStore
	if errors.Is(err, store.ErrNotFound) {
		http.Error(w, text, http.StatusNotFound)
		return
	}
	if req.Context().Err() == nil { // else the client is gone, and nothing is wrong
		r.cfg.Log.Error("a download failed", "path", req.URL.Path, "error", err)
	}
	http.Error(w, "the book cannot be read now: try again later", http.StatusServiceUnavailable)
}
