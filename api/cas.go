package api

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"hufu/api/client"
	"hufu/ca"
	"hufu/store"
)

var ofCA = city{words: "that of the CA", find: func(s *Server, c *call) (city string, err error) {
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		r, err := c.authority(tx)
		if err == nil {
			city = r.City
		}
		return err
	})
	return city, err
}}

// authority finds the CA that the path names.
func (c *call) authority(tx *store.Tx) (*store.CA, error) {
	r, err := store.CAs.Get(tx, store.Key(c.PathValue("id")))
	if errors.Is(err, store.ErrNotFound) {
		return nil, problemf(kindNotFound, "there is no CA %q", c.PathValue("id"))
	}
	return r, err
}

func wireCA(r *store.CA) (*client.CA, error) {
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, err
	}
	return &client.CA{
		ID: r.ID, Line: r.Line, Generation: r.Generation, Kind: r.Kind, City: r.City, Suite: r.Suite, State: r.State,
		Subject: cert.Subject.String(), SPKI: r.SPKI.String(), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Certificate: r.Certificate, Chain: r.Chain, Seq: r.Seq,
	}, nil
}

func (s *Server) wireCRL(r *store.CRL) *client.CRL {
	return &client.CRL{
		CA: r.CA, Shard: int(r.Shard), Delta: r.Delta, Base: r.Base, Number: r.Number, ThisUpdate: r.ThisUpdate, NextUpdate: r.NextUpdate,
		Entries: r.Entries, Size: r.Size, Sum: r.Sum.String(), Seq: r.Seq, AsOf: r.AsOf,
		Ending: ca.Ending(r, time.Now()), Address: s.cfg.Authority.CRLAddress(r),
	}
}

func (s *Server) cas(c *call) (*answer, error) {
	limit, after, err := c.page()
	if err != nil {
		return nil, err
	}
	page := client.Page[client.CA]{Items: []client.CA{}}
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		rows, next, err := store.CAs.Page(tx, store.Query{After: after, Limit: limit})
		if err != nil {
			return err
		}
		for _, r := range rows {
			w, err := wireCA(r)
			if err != nil {
				return err
			}
			page.Items = append(page.Items, *w)
		}
		page.Next = c.next(next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, page)
}

func (s *Server) ca(c *call) (a *answer, err error) {
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		r, err := c.authority(tx)
		if err != nil {
			return err
		}
		w, err := wireCA(r)
		if err != nil {
			return err
		}
		newest, err := store.LastCRL(tx, r.ID, 0, false)
		switch {
		case err == nil:
			w.CRL = s.wireCRL(newest)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		a, err = reply(http.StatusOK, w)
		return err
	})
	return a, err
}

func (s *Server) publishCRL(c *call) (*answer, error) {
	return s.once(c, func(ctx context.Context) (*answer, error) {
		r, err := s.cfg.Authority.PublishLists(ctx, c.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return reply(http.StatusCreated, s.wireCRL(r))
	})
}

func (s *Server) importCRL(c *call) (*answer, error) {
	return s.once(c, func(ctx context.Context) (*answer, error) {
		r, err := s.cfg.Authority.ImportCRL(ctx, c.PathValue("id"), in[client.CRLImport](c).CRL, c.caller.Name)
		if err != nil {
			return nil, err
		}
		return reply(http.StatusCreated, s.wireCRL(r))
	})
}

func (s *Server) crls(c *call) (*answer, error) {
	page := client.Page[client.CRL]{Items: []client.CRL{}}
	err := s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		all, err := ca.Lists(tx)
		for _, r := range all {
			page.Items = append(page.Items, *s.wireCRL(r))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, page)
}

// standings streams what the lists of a CA have to say. A peer that breaks off, or
// is too slow, ends it.
func (s *Server) standings(c *call) (*answer, error) {
	id := c.PathValue("id")
	return &answer{status: http.StatusOK, media: client.MediaLines, stream: func(w io.Writer) error {
		b := bufio.NewWriterSize(&patient{w: w, deadline: http.NewResponseController(c.w)}, 64<<10)
		lines := json.NewEncoder(b)
		err := s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
			for _, index := range []string{"crl", "lifted"} {
				for r, err := range store.Statuses.Scan(tx, index, store.Key(id)) {
					if err != nil {
						return err
					}
					if err := lines.Encode(client.Standing{Serial: r.Serial.String(), State: r.State.String(), Reason: r.Reason, Time: r.Time, NotAfter: r.NotAfter, Shard: int(r.Shard), Seq: r.Seq}); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return b.Flush()
	}}, nil
}
