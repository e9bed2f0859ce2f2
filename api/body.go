package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"hufu/api/client"
)

// defaultMax bounds a body where its route does not say otherwise.
const defaultMax = 64 << 10

// readBody reads the body, bounded before the first octet, and decodes it.
func (c *call) readBody() error {
	limit := c.route.MaxBody
	if limit == 0 {
		limit = defaultMax
	}
	if c.ContentLength > limit {
		return tooLarge(limit)
	}
	var err error
	c.raw, err = io.ReadAll(http.MaxBytesReader(c.w, c.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge(limit)
	case err != nil:
		return problemf(kindMalformed, "the body could not be read to its end")
	}
	if c.route.Body == nil {
		if len(c.raw) > 0 {
			return problemf(kindMalformed, "this route takes no body")
		}
		return nil
	}
	return c.decodeBody()
}

func tooLarge(limit int64) error {
	return problemf(kindTooLarge, "the body has more than the %d octets that this route takes", limit)
}

// decodeBody turns the body into the route's type.
func (c *call) decodeBody() error {
	c.in = reflect.New(reflect.TypeOf(c.route.Body)).Interface()
	if len(c.raw) == 0 && c.route.Optional {
		return nil
	}
	media, _, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	takes := append([]string{client.MediaJSON}, c.route.CMS.media()...)
	if err != nil || !slices.Contains(takes, media) {
		return problemf(kindMediaType, "the body has content type %q; this route takes %s", c.Header.Get("Content-Type"), strings.Join(takes, " or "))
	}
	if media == client.MediaCMS {
		c.route.CMS(c, c.in)
		return nil
	}
	return decode(c.raw, c.in)
}

// cmsBody fills the route's type from a body that is a bare CMS message.
type cmsBody func(c *call, in any)

func (f cmsBody) media() []string {
	if f == nil {
		return nil
	}
	return []string{client.MediaCMS}
}

// decode reads JSON: one value, no field that nobody knows, nothing after it.
func decode(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return problemf(kindMalformed, "%s", jsonFault(err, d.InputOffset()))
	}
	if _, err := d.Token(); err != io.EOF {
		return problemf(kindMalformed, "something follows the JSON value at octet %d", d.InputOffset())
	}
	return nil
}

// jsonFault says what is wrong without Go's names for things.
func jsonFault(err error, offset int64) string {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind):
		return fmt.Sprintf("field %q holds a JSON %s, which does not fit there", kind.Field, kind.Value)
	case errors.As(err, &syntax):
		return fmt.Sprintf("the body is not JSON at octet %d", syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the body ends before the JSON value does"
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return "no field is named " + field
	}
	return fmt.Sprintf("the body does not fit at octet %d: a value is not of the form that its field wants", offset)
}
