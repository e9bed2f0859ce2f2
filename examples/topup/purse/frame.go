package purse

import (
	"encoding/binary"
	"errors"
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

// StatusError is a command that the card did not carry out.
type StatusError struct {
	Command [2]byte // class and instruction
	SW      uint16
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the card answered %04X to the command %X", e.SW, e.Command)
}

// Send sends a command that must succeed and gives the answer without its
// status word.
func (f *Field) Send(apdu []byte) ([]byte, error) {
	a, err := f.Transmit(apdu)
	if err != nil {
		return nil, err
	}
	if len(a) < 2 {
		return nil, ErrAnswer
	}
	body, sw := a[:len(a)-2], binary.BigEndian.Uint16(a[len(a)-2:])
	if sw != swOK {
		return nil, &StatusError{Command: [2]byte(apdu), SW: sw}
	}
	return body, nil
}

// Identify opens the purse of the card in the field and says whose it is.
func (f *Field) Identify() (*Public, error) {
	if _, err := f.Send(Select()); err != nil {
		return nil, err
	}
	raw, err := f.Send(ReadPublic())
	if err != nil {
		return nil, err
	}
	return ParsePublic(raw)
}

// Initialize begins a load and gives the card's answer. A load that is begun
// and dropped changes nothing.
func (f *Field) Initialize(fen uint32, terminal Terminal) (*Initialized, error) {
	raw, err := f.Send(InitializeForLoad(loadKeyIndex, fen, terminal))
	if err != nil {
		return nil, err
	}
	return ParseInitialized(raw)
}

// Proof asks for MAC and TAC of the last load; it is nil when the card's last
// load is another one.
func (f *Field) Proof(counter uint16) (*Proof, error) {
	raw, err := f.Send(GetTransactionProve(TypeEPLoad, counter))
	var status *StatusError
	if errors.As(err, &status) && status.SW == swNoProof {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(raw) != 8 {
		return nil, ErrAnswer
	}
	return &Proof{Type: TypeEPLoad, Counter: counter, MAC2: [4]byte(raw), TAC: [4]byte(raw[4:])}, nil
}

// Close takes the card out of the field.
func (f *Field) Close() { f.conn.Close() }
