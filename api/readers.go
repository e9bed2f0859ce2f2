package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"hufu/api/client"
	"hufu/jobs"
	"hufu/readers"
	"hufu/store"
)

var (
	ofPair = city{words: "the one in the body", find: func(_ *Server, c *call) (string, error) {
		return in[client.PairRequest](c).City, nil
	}}
	ofBatch = city{words: "the one in the body, which every reader in it must share", find: func(_ *Server, c *call) (string, error) {
		b := in[client.BatchRequest](c)
		for i := range b.Readers {
			if b.Readers[i].City != b.City {
				return "", problemf(kindMalformed, "reader %q is of city %q, and the batch is of %q", b.Readers[i].Number, b.Readers[i].City, b.City)
			}
		}
		return b.City, nil
	}}
	ofReader = city{words: "that of the reader", find: func(s *Server, c *call) (string, error) {
		r, err := s.cfg.Readers.Reader(c.Context(), c.PathValue("number"))
		if err != nil {
			return "", err
		}
		return r.City, nil
	}}
)

func wireReader(r *readers.Reader) client.Reader {
	w := client.Reader{
		Number: r.Number, City: r.City, State: string(r.State), Model: r.Model, Firmware: r.Firmware, Approval: r.Approval, Batch: r.Batch,
		Customer: r.Customer, Ticket: r.Ticket, Device: hashWord(r.Device), DeviceSerial: serialWord(r.DeviceSerial),
		CA: r.CA, Sign: serialWord(r.Sign), Encrypt: serialWord(r.Encrypt), NotAfter: r.NotAfter, Escrowed: r.Escrowed, Elsewhere: r.Elsewhere,
		NextSign: serialWord(r.NextSign), NextEncrypt: serialWord(r.NextEncrypt),
		Successor: r.Successor, Predecessor: r.Predecessor, Receipt: hashWord(r.Receipt), Seq: r.Seq,
	}
	for _, h := range r.History {
		w.History = append(w.History, client.ReaderChange{Time: h.Time, Step: h.Step, From: string(h.From), To: string(h.To), Actor: h.Actor, Note: h.Note, Seq: h.Seq})
	}
	return w
}

// serialWord and hashWord are nothing where there is none.
func serialWord(s store.Serial) string {
	if s.IsZero() {
		return ""
	}
	return s.String()
}

func hashWord(h store.Hash) string {
	if h.IsZero() {
		return ""
	}
	return h.String()
}

// wholeReader joins a reader with its pair.
func wholeReader(tx *store.Tx, r *readers.Reader) (client.Reader, error) {
	w := wireReader(r)
	for _, ref := range r.Certificates() {
		cert, err := store.FindCertificate(tx, ref.CA, ref.Serial)
		if err != nil {
			return w, fmt.Errorf("reading certificate %s of reader %s: %v", ref.Serial, r.Number, err) // never "not found"
		}
		wc, err := wireCertificate(tx, cert)
		if err != nil {
			return w, err
		}
		w.Certificates = append(w.Certificates, *wc)
	}
	return w, nil
}

// issuePair makes a pair. The idempotency key is honoured by the spine.
func (s *Server) issuePair(c *call) (*answer, error) {
	r, _, err := s.cfg.Readers.IssuePair(c.Context(), pairOf(in[client.PairRequest](c)), c.caller.Name, c.ownKey())
	if err != nil {
		return nil, err
	}
	a, err := s.replyReader(c, http.StatusCreated, r)
	if err == nil {
		a.location = "/v1/readers/" + r.Number
	}
	return a, err
}

func pairOf(b *client.PairRequest) readers.Pair {
	return readers.Pair{Number: b.Number, City: b.City, Model: b.Model, CSR: b.CSR, NotAfter: b.NotAfter}
}

func (s *Server) replyReader(c *call, status int, r *readers.Reader) (a *answer, err error) {
	err = s.cfg.Book.View(c.Context(), func(tx *store.Tx) error {
		w, err := wholeReader(tx, r)
		if err != nil {
			return err
		}
		a, err = reply(status, w)
		return err
	})
	return a, err
}

func (s *Server) reader(c *call) (*answer, error) {
	r, err := s.cfg.Readers.Reader(c.Context(), c.PathValue("number"))
	if err != nil {
		return nil, err
	}
	return s.replyReader(c, http.StatusOK, r)
}

func (s *Server) readers(c *call) (*answer, error) {
	before, err := c.moment("expires-before")
	if err != nil {
		return nil, err
	}
	state := readers.State(c.query("state"))
	if state != "" && !slices.Contains(readers.States, state) {
		return nil, problemf(kindMalformed, "there is no state %q; there are %s", state, strings.Trim(fmt.Sprint(readers.States), "[]"))
	}
	q := readers.Query{
		City: c.city, State: state, Model: c.query("model"), Firmware: c.query("firmware"), Batch: c.query("batch"),
		Customer: c.query("customer"), Ticket: c.query("ticket"), Number: c.query("number"), ExpiresBefore: before,
	}
	return list(c, func(after []byte, limit int) ([]*readers.Reader, []byte, error) {
		q.After, q.Limit = after, limit
		return s.cfg.Readers.List(c.Context(), q)
	}, wireReader)
}

func (s *Server) suspendReader(c *call) (*answer, error) {
	return s.changeReader(c, func(tx *store.Tx, number string) (*readers.Reader, error) {
		return s.cfg.Readers.Suspend(tx, number, c.caller.Name, in[client.Note](c).Note)
	})
}

func (s *Server) resumeReader(c *call) (*answer, error) {
	return s.changeReader(c, func(tx *store.Tx, number string) (*readers.Reader, error) {
		return s.cfg.Readers.Resume(tx, number, c.caller.Name, in[client.Note](c).Note)
	})
}

func (s *Server) revokeReader(c *call) (*answer, error) {
	b := in[client.Revocation](c)
	return s.changeReader(c, func(tx *store.Tx, number string) (*readers.Reader, error) {
		return s.cfg.Readers.Revoke(tx, number, b.Reason, b.InvalidityDate, c.caller.Name, b.Note)
	})
}

func (s *Server) bindReader(c *call) (*answer, error) {
	return s.changeReader(c, func(tx *store.Tx, number string) (*readers.Reader, error) {
		return s.cfg.Readers.Bind(tx, number, in[client.Binding](c).Customer, c.caller.Name)
	})
}

func (s *Server) replaceReader(c *call) (*answer, error) {
	b := in[client.Replacement](c)
	return s.changeReader(c, func(tx *store.Tx, number string) (*readers.Reader, error) {
		return s.cfg.Readers.Replace(tx, number, b.By, b.Reason, c.caller.Name, b.Note)
	})
}

func (s *Server) retireReader(c *call) (*answer, error) {
	return s.changeReader(c, func(tx *store.Tx, number string) (*readers.Reader, error) {
		return s.cfg.Readers.Retire(tx, number, c.caller.Name, in[client.Note](c).Note)
	})
}

func (s *Server) changeReader(c *call, f func(tx *store.Tx, number string) (*readers.Reader, error)) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		r, err := f(tx, c.PathValue("number"))
		if err != nil {
			return nil, err
		}
		w, err := wholeReader(tx, r)
		if err != nil {
			return nil, err
		}
		return reply(http.StatusOK, w)
	})
}

// batch is the arguments of a job of kind JobBatch.
type batch struct {
	Pairs []readers.Pair `json:"pairs"`
}

func (s *Server) issueBatch(c *call) (*answer, error) {
	b := in[client.BatchRequest](c)
	if len(b.Readers) == 0 {
		return nil, problemf(kindMalformed, "the batch names no reader")
	}
	var args batch
	for i := range b.Readers {
		args.Pairs = append(args.Pairs, pairOf(&b.Readers[i]))
	}
	return s.startJob(c, JobBatch, args)
}

// batchJob issues the pairs of a batch, a chunk at a time, each reader once.
func batchJob(register *readers.Register) jobs.Func {
	return func(ctx context.Context, r *jobs.Run) error {
		var args batch
		if err := json.Unmarshal(r.Args, &args); err != nil {
			return fmt.Errorf("reading the batch: %w", err)
		}
		from := 0
		if len(r.Cursor) > 0 {
			if err := json.Unmarshal(r.Cursor, &from); err != nil {
				return fmt.Errorf("reading where the batch stopped: %w", err)
			}
		}
		if err := r.Progress(ctx, int64(from), int64(len(args.Pairs))); err != nil {
			return err
		}
		return register.Batch(ctx, r.ID, args.Pairs, from, r.Actor, func(next int, results []readers.Result) error {
			items := make([]jobs.Item, len(results))
			for i, res := range results {
				items[i] = jobs.Item{N: uint64(next - len(results) + i + 1), Name: res.Number, OK: res.Err == nil}
				if res.Err != nil {
					items[i].Error = res.Err.Error()
					continue
				}
				items[i].Result, _ = json.Marshal(map[string]string{"sign": res.Sign.String(), "encrypt": res.Encrypt.String()})
			}
			return r.Save(ctx, next, items...)
		})
	}
}
