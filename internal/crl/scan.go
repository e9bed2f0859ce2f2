package crl

import (
	"bufio"
	"fmt"
	"io"
)

// Scan is Parse for a reader who judges the scope of a list himself (RFC 5280,
// Section 6.3.3): it also reads indirect lists and lists for some reasons only.
// It leaves Point nil and gives Scope instead, and an entry's Issuer, which holds
// for the entries after it too (RFC 5280, Section 5.3.3) and is valid only during
// the call.
func Scan(r io.Reader, each func(Entry) error) (*List, error) {
	s := &scanner{r: bufio.NewReaderSize(r, 64<<10)}
	l := List{open: true}
	if err := l.read(s, each); err != nil {
		return nil, fmt.Errorf("parsing CRL: %w", err)
	}
	return &l, nil
}
