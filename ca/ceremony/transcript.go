package ceremony

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// TranscriptName is the transcript's file in the ceremony's folder.
const TranscriptName = "transcript.log"

// What the lines of a transcript tell.
const (
	actBegin      = "begin"      // the first line
	actFile       = "file"       // a file was written: facts file, sha256
	actToken      = "token"      // a token was opened
	actConfirmed  = "confirmed"  // facts phase, officer
	actMistyped   = "mistyped"   // an officer typed something else
	actUnattended = "unattended" // nobody was asked: fact phase
	actKey        = "key"        // the root's key: its attributes as the token tells them
	actPrepared   = "prepared"   // a certificate was built, judged and linted, and is about to be signed
	actClone      = "clone"      // the second token's proof
	actFailed     = "failed"     // the ceremony was given up
	actEnd        = "end"        // the last line
)

// line is one line of a transcript. In the file it stands as JSON behind its hash.
type line struct {
	Line  int               `json:"line"`
	Time  time.Time         `json:"time"`
	Act   string            `json:"act"`
	Text  string            `json:"text"`
	Facts map[string]string `json:"facts,omitempty"`
}

// facts are what a line tells to a program.
type facts = map[string]string

// chain returns the hash of a line: of the hash before it, a line feed, and the line's
// JSON. Whoever changes a line has to change every line behind it, and the last hash,
// which the officers have on paper.
func chain(previous string, content []byte) string {
	h := sha256.New()
	h.Write([]byte(previous))
	h.Write([]byte{'\n'})
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// transcript is written line by line, each line durable before what follows it is done.
type transcript struct {
	file *os.File
	out  io.Writer // the people in the room read along
	now  func() time.Time
	line int
	head string
}

// beginTranscript makes the transcript's file, which must be new.
func beginTranscript(dir string, out io.Writer, now func() time.Time) (*transcript, error) {
	f, err := os.OpenFile(filepath.Join(dir, TranscriptName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("beginning the transcript: %w", err)
	}
	return &transcript{file: f, out: out, now: now}, nil
}

func (t *transcript) write(act, text string, f facts) error {
	var content bytes.Buffer
	e := json.NewEncoder(&content)
	e.SetEscapeHTML(false)
	if err := e.Encode(line{Line: t.line + 1, Time: t.now().UTC().Truncate(time.Second), Act: act, Text: text, Facts: f}); err != nil {
		return fmt.Errorf("writing the transcript: %w", err)
	}
	raw := bytes.TrimSuffix(content.Bytes(), []byte("\n"))
	head := chain(t.head, raw)
	_, err := fmt.Fprintf(t.file, "%s %s\n", head, raw)
	if err == nil {
		err = t.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("writing the transcript: %w", err)
	}
	t.line, t.head = t.line+1, head
	fmt.Fprintf(t.out, "%3d  %s\n", t.line, text)
	return nil
}

// TamperError says at which line a transcript is not what was written.
type TamperError struct {
	Line   int
	Detail string
}

func (e *TamperError) Error() string {
	return fmt.Sprintf("line %d of the transcript: %s", e.Line, e.Detail)
}

// maxTranscript bounds what is read as a transcript.
const maxTranscript = 16 << 20

// readTranscript checks the chain from the first line to the last.
func readTranscript(raw []byte) (lines []line, head string, err error) {
	if len(raw) > maxTranscript {
		return nil, "", fmt.Errorf("the transcript has more than %d bytes", maxTranscript)
	}
	if len(raw) == 0 {
		return nil, "", errors.New("the transcript is empty")
	}
	for text := range strings.Lines(string(raw)) {
		n := len(lines) + 1
		body, ended := strings.CutSuffix(text, "\n")
		if !ended {
			return nil, "", &TamperError{n, "it breaks off in the middle"}
		}
		hash, content, _ := strings.Cut(body, " ")
		if hash != chain(head, []byte(content)) {
			return nil, "", &TamperError{n, "its hash does not fit: it, or what stands before it, was changed"}
		}
		var l line
		d := json.NewDecoder(strings.NewReader(content))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil || d.More() {
			return nil, "", &TamperError{n, "it is not a line of a transcript"}
		}
		switch {
		case l.Line != n:
			return nil, "", &TamperError{n, fmt.Sprintf("it calls itself line %d", l.Line)}
		case n > 1 && l.Time.Before(lines[n-2].Time):
			return nil, "", &TamperError{n, "it is older than the line before it; was the clock set back?"}
		}
		lines, head = append(lines, l), hash
	}
	return lines, head, nil
}
