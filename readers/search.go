package readers

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hufu/store"
)

// Query selects readers; what is empty selects all.
type Query struct {
	City          string
	State         State
	Model         string
	Firmware      string
	Batch         string
	Customer      string
	Ticket        string
	Number        string    // how the number begins
	ExpiresBefore time.Time // of readers whose life is not over: the pair ends before
	After         []byte
	Limit         int
}

// Bounds of a page: how many readers it has when nobody says, and how many it
// looks at before it is given out as it is.
const (
	pageSize = 100
	maxLook  = 400
)

// List returns readers page by page. The narrowest index is gone through, and what
// else was asked for is held against each reader, so a page may be shorter than
// its limit, or empty, and have a next.
func (r *Register) List(ctx context.Context, q Query) (list []*Reader, next []byte, err error) {
	err = r.Book.View(ctx, func(tx *store.Tx) (err error) {
		list, next, err = r.list(tx, q)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing readers: %w", err)
	}
	return list, next, nil
}

func (r *Register) list(tx *store.Tx, q Query) (list []*Reader, next []byte, err error) {
	if q.Limit <= 0 {
		q.Limit = pageSize
	}
	page := q.lead()
	page.After = q.After
	for looked := 0; ; {
		page.Limit = q.Limit - len(list)
		rows, at, err := register.Page(tx, page)
		if err != nil {
			return nil, nil, err
		}
		for _, rd := range rows {
			if page.Index == "expiry" && !rd.NotAfter.Before(q.ExpiresBefore) {
				return list, nil, nil // the rest ends later still
			}
			if q.holds(rd) {
				list = append(list, rd)
			}
		}
		looked += len(rows)
		if at == nil || looked >= maxLook || 2*len(list) >= q.Limit {
			return list, at, nil
		}
		page.After = at
	}
}

// lead is the index that the query is looked up in, the narrowest first.
func (q *Query) lead() store.Query {
	switch {
	case q.Customer != "":
		return store.Query{Index: "customer", Prefix: store.Key(q.Customer)}
	case q.Number != "":
		return store.Query{Prefix: []byte(q.Number)}
	case q.Ticket != "":
		return store.Query{Index: "ticket", Prefix: store.Key(q.Ticket)}
	case q.Batch != "":
		return store.Query{Index: "batch", Prefix: store.Key(q.Batch)}
	case q.Model != "" && q.Firmware != "":
		return store.Query{Index: "model", Prefix: store.Key(q.Model, q.Firmware)}
	case q.City != "" && q.State != "":
		return store.Query{Index: "city", Prefix: store.Key(q.City, string(q.State))}
	case !q.ExpiresBefore.IsZero():
		return store.Query{Index: "expiry"}
	case q.City != "":
		return store.Query{Index: "city", Prefix: store.Key(q.City)}
	case q.Model != "":
		return store.Query{Index: "model", Prefix: store.Key(q.Model)}
	case q.State != "":
		return store.Query{Index: "state", Prefix: store.Key(string(q.State))}
	}
	return store.Query{}
}

// holds tells whether a reader is one of those asked for.
func (q *Query) holds(rd *Reader) bool {
	return (q.City == "" || rd.City == q.City) && (q.State == "" || rd.State == q.State) &&
		(q.Model == "" || rd.Model == q.Model) && (q.Firmware == "" || rd.Firmware == q.Firmware) &&
		(q.Batch == "" || rd.Batch == q.Batch) && (q.Customer == "" || rd.Customer == q.Customer) &&
		(q.Ticket == "" || rd.Ticket == q.Ticket) && strings.HasPrefix(rd.Number, q.Number) &&
		(q.ExpiresBefore.IsZero() || !rd.State.Ended() && !rd.NotAfter.IsZero() && rd.NotAfter.Before(q.ExpiresBefore))
}
