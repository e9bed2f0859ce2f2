package crl

import (
	"fmt"
	"io"
	"os"
)

// spoolMemory is how much of a list is kept in memory. A list of ten thousand
// entries fits; a larger one goes to a temporary file.
const spoolMemory = 512 << 10

// spool keeps what is written to it until it is read, in order, as often as
// needed. What it keeps is about to be published, so a file need not be secret.
type spool struct {
	buf  []byte   // the end, not yet in the file
	file *os.File // what came before; nil = nothing
	size int64    // set by flushed
}

// room makes sure that n octets can be appended to buf.
func (s *spool) room(n int) error {
	if s.buf == nil {
		s.buf = make([]byte, 0, spoolMemory)
	}
	if len(s.buf)+n <= cap(s.buf) {
		return nil
	}
	if s.file == nil {
		file, err := os.CreateTemp("", "hufu-crl-")
		if err != nil {
			return fmt.Errorf("spooling entries: %w", err)
		}
		// The name goes at once, so that a killed process leaves nothing behind.
		if err := os.Remove(file.Name()); err != nil {
			file.Close()
			return fmt.Errorf("spooling entries: %w", err)
		}
		s.file = file
	}
	return s.flush()
}

func (s *spool) flush() error {
	n, err := s.file.Write(s.buf)
	if err != nil {
		return fmt.Errorf("spooling entries: %w", err)
	}
	s.size += int64(n)
	s.buf = s.buf[:0]
	return nil
}

// flushed ends the writing and settles the size.
func (s *spool) flushed() error {
	if s.file != nil {
		return s.flush()
	}
	s.size = int64(len(s.buf))
	return nil
}

// copyTo writes everything to w.
func (s *spool) copyTo(w io.Writer) error {
	if s.file == nil {
		_, err := w.Write(s.buf)
		return err
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, io.NewSectionReader(s.file, 0, s.size), s.buf[:cap(s.buf)])
	return err
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
}
