package purse

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// A frame between reader and card is a length of two octets, big-endian, and
// that many octets: the form that virtual smart-card readers use.

// WriteFrame sends one command or answer.
func WriteFrame(w io.Writer, b []byte) error {
	if len(b) > 0xFFFF {
		return fmt.Errorf("purse: a frame of %d octets is too long", len(b))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// ReadFrame receives one.
func ReadFrame(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(n[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// Field is a reader's connection to the card in its field.
type Field struct{ conn net.Conn }

// Enter connects to the card that listens at addr; each connection is the card
// entering the field.
func Enter(addr string) (*Field, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("no card in the field: %w", err)
	}
	return &Field{c}, nil
}

// Transmit sends one C-APDU and gives the R-APDU.
func (f *Field) Transmit(apdu []byte) ([]byte, error) {
	f.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err := WriteFrame(f.conn, apdu); err != nil {
		return nil, fmt.Errorf("the card left the field: %w", err)
	}
	b, err := ReadFrame(f.conn)
	if err != nil {
		return nil, fmt.Errorf("the card left the field: %w", err)
	}
	return b, nil
}

// Close takes the card out of the field.
func (f *Field) Close() error { return f.conn.Close() }
