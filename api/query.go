package api

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hufu/api/client"
	"hufu/store"
)

// Bounds of a page and of a wait.
const (
	defaultLimit = 100
	maxLimit     = 1000
	maxWait      = 60 * time.Second
)

// param is a query parameter of a route.
type param struct {
	Name, Type, Doc string
}

// paging is what every list takes.
var paging = []param{
	{"limit", "integer", "items in a page, at most 1000"},
	{"after", "string", "the next of the page before"},
}

func (c *call) query(name string) string { return c.URL.Query().Get(name) }

// checkQuery refuses a parameter that nobody knows: a misspelt filter would
// otherwise select everything.
func (c *call) checkQuery() error {
	if c.URL.RawQuery == "" {
		return nil
	}
	q, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return problemf(kindMalformed, "the query cannot be read")
	}
	for name, given := range q {
		if !slices.ContainsFunc(c.route.Query, func(p param) bool { return p.Name == name }) {
			return problemf(kindMalformed, "this route has no parameter %q", name)
		}
		if len(given) > 1 {
			return problemf(kindMalformed, "parameter %q stands there twice", name)
		}
	}
	return nil
}

// number reads a parameter that is a number; def when absent.
func (c *call) number(name string, def uint64) (uint64, error) {
	v := c.query(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return 0, problemf(kindMalformed, "parameter %s is %q, not a whole number", name, v)
	}
	return n, nil
}

func (c *call) limit() (int, error) {
	n, err := c.number("limit", defaultLimit)
	if err == nil && (n < 1 || n > maxLimit) {
		err = problemf(kindMalformed, "parameter limit is %d; 1 to %d are allowed", n, maxLimit)
	}
	return int(n), err
}

// wait reads how long the caller would wait for something new.
func (c *call) wait() (time.Duration, error) {
	v := c.query("wait")
	if v == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > maxWait {
		return 0, problemf(kindMalformed, "parameter wait is %q; a duration up to %s is allowed, such as 30s", v, maxWait)
	}
	return d, nil
}

func (c *call) moment(name string) (time.Time, error) {
	v := c.query(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return time.Time{}, problemf(kindMalformed, "parameter %s is %q, not a time such as 2030-01-31T12:00:00Z", name, v)
	}
	return t, nil
}

func (c *call) hash(name, value string) (store.Hash, error) {
	h, err := store.ParseHash(value)
	if err != nil {
		return h, problemf(kindMalformed, "%s %q is not 64 hexadecimal digits", name, value)
	}
	return h, nil
}

// page returns the size of the page asked for and where it begins. A place that
// was given for another list, or another selection of it, is refused.
func (c *call) page() (limit int, after []byte, err error) {
	if limit, err = c.limit(); err != nil {
		return 0, nil, err
	}
	v := c.query("after")
	if v == "" {
		return limit, nil, nil
	}
	mark := c.mark()
	b, err := base64.RawURLEncoding.DecodeString(v)
	if err != nil || len(b) <= len(mark) || string(b[:len(mark)]) != string(mark) {
		return 0, nil, problemf(kindMalformed, "parameter after is not a next that this list gave for this selection")
	}
	return limit, b[len(mark):], nil
}

// next is the after of the next page; "" at the end.
func (c *call) next(place []byte) string {
	if len(place) == 0 {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append(c.mark(), place...))
}

// list answers with one page: find reads it, wire turns each row into what goes
// over the wire.
func list[R, W any](c *call, find func(after []byte, limit int) (rows []R, next []byte, err error), wire func(R) W) (*answer, error) {
	limit, after, err := c.page()
	if err != nil {
		return nil, err
	}
	rows, next, err := find(after, limit)
	if err != nil {
		return nil, err
	}
	page := client.Page[W]{Items: make([]W, len(rows)), Next: c.next(next)}
	for i, r := range rows {
		page.Items[i] = wire(r)
	}
	return reply(http.StatusOK, page)
}

// mark names the list and the selection.
func (c *call) mark() []byte {
	q := c.URL.Query()
	q.Del("after")
	q.Del("limit")
	var b strings.Builder
	b.WriteString(c.URL.Path + "?" + q.Encode() + "#" + c.city)
	sum := sha256.Sum256([]byte(b.String()))
	return sum[:4]
}
