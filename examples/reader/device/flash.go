package device

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"hufu/readers/apdu"
)

// image is what a reader keeps without power.
type image struct {
	Number, Model, Firmware, Approval string

	PIN    []byte `json:",omitempty"` // of the token with its keys; nil: its keys lie here
	Device *key   `json:",omitempty"`

	// From stage 1: the device certificate, the CA above it, and the root that the
	// reader trusts from then on.
	Certificate, Issuer, Root []byte `json:",omitempty"`

	Pair *pair `json:",omitempty"` // whose receipt was taken
	Next *pair `json:",omitempty"` // that is under way
}

// pair is the reader's pair of certificates, from the keys on.
type pair struct {
	City      string
	ByReader  bool
	Sign      *key
	Encrypt   *key `json:",omitempty"` // made here, or opened
	Transport *key `json:",omitempty"` // for one delivery of the encryption key

	// The session under way.
	Session, Challenge []byte
	Enrolment          []byte

	// Once it is installed.
	Certificate, Certificate2, Issuer []byte `json:",omitempty"`
	Receipt                           []byte `json:",omitempty"`
	Session2                          []byte `json:",omitempty"` // that the receipt names
	Ticket                            []byte `json:",omitempty"`
}

// state is how far the reader is. A renewal begins at Enrolled again.
func (m *image) state() byte {
	switch {
	case m.Next != nil && m.Next.Receipt != nil:
		return apdu.Installed
	case m.Next != nil:
		return apdu.Enrolled
	case m.Pair != nil:
		return apdu.Finished
	case m.Certificate != nil:
		return apdu.Prepared
	case m.Device != nil:
		return apdu.Keyed
	}
	return apdu.Blank
}

// installed is the pair of the last receipt, nil where there is none.
func (m *image) installed() *pair {
	if m.Next != nil && m.Next.Receipt != nil {
		return m.Next
	}
	return m.Pair
}

// city is where the reader belongs. One that only asked for certificates has none:
// anybody can tell it to ask.
func (m *image) city() string {
	if p := m.installed(); p != nil {
		return p.City
	}
	return ""
}

// keys are all the keys that are not forgotten.
func (m *image) keys() (list []*key) {
	list = append(list, m.Device)
	for _, p := range []*pair{m.Pair, m.Next} {
		if p != nil {
			list = append(list, p.Sign, p.Encrypt, p.Transport)
		}
	}
	return list
}

func (k *Rack) path(number string) string { return filepath.Join(k.dir, number+suffix) }

// suffix ends the name of a flash image, temporary that of one half written.
const (
	suffix    = ".flash"
	temporary = ".new"
)

// load reads an image. It is sealed by the rack's key, as flash is by the key that is
// burnt into a chip, and is good for this number only.
func (k *Rack) load(number string) (*image, error) {
	if err := checkNumber(number); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(k.path(number))
	if isMissing(err) {
		return nil, fmt.Errorf("there is no reader %s: %w", number, err)
	}
	if err != nil {
		return nil, err
	}
	n := k.chip.NonceSize()
	if len(raw) < n {
		return nil, fmt.Errorf("the flash of reader %s has %d octets", number, len(raw))
	}
	plain, err := k.chip.Open(nil, raw[:n], raw[n:], []byte(number))
	if err != nil {
		return nil, fmt.Errorf("the flash of reader %s is damaged, another reader's or of another folder", number)
	}
	defer clear(plain)
	m := &image{}
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil || m.Number != number {
		return nil, fmt.Errorf("the flash of reader %s cannot be read: %w", number, err)
	}
	return m, nil
}

// save replaces the flash in one step, and what the reader works with. A process
// that is killed leaves the old image or the new one; the machine's own power is not
// guarded against.
func (r *Reader) save(next *image) error {
	if r.point == Before {
		return ErrCut
	}
	plain, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("writing the flash: %w", err)
	}
	defer clear(plain)
	nonce := make([]byte, r.rack.chip.NonceSize())
	rand.Read(nonce)
	sealed := r.rack.chip.Seal(nonce, nonce, plain, []byte(next.Number))
	path := r.rack.path(next.Number)
	if r.point == During {
		sealed = sealed[:len(sealed)/2]
	}
	if err := os.WriteFile(path+temporary, sealed, 0o600); err != nil {
		return fmt.Errorf("writing the flash: %w", err)
	}
	if r.point == During {
		return ErrCut
	}
	if err := os.Rename(path+temporary, path); err != nil {
		return fmt.Errorf("writing the flash: %w", err)
	}
	r.flash = next
	return nil
}
