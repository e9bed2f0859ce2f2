// Package script is the small language in which a city tells a reader what to
// do with its card. A command script holds the steps and no secret; a data
// script holds the values and keys of one load. Only a reader runs them, and
// only after the data script was opened inside it.
//
// A command script has a step a line; # begins a comment:
//
//	hufu-script 1
//	send 00A4040008A000000386980701 expect 9000
//	send 805200000B{date}{time}{mac2}04 expect 9000 capture tac
//
// {name} stands for a value of the data script or an earlier capture. A step
// whose status word is not the expected one ends the script with an error that
// names step and status word. There is no loop, and a script has at most 64
// steps, so it always ends.
//
// A data script has a line name=HEX for each value.
package script

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	maxBytes = 8 << 10
	maxSteps = 64
	header   = "hufu-script 1"
)

// Step is one command to the card.
type Step struct {
	Send    string // hex and {names}
	Expect  string // status word, four hex digits
	Capture string // name for the answer without the status word; empty: dropped
}

// Parse reads a command script and refuses what it does not know.
func Parse(src []byte) ([]Step, error) {
	if len(src) > maxBytes {
		return nil, fmt.Errorf("script: %d octets; at most %d", len(src), maxBytes)
	}
	var steps []Step
	first := true
	for i, line := range strings.Split(string(src), "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case first:
			if strings.Join(words, " ") != header {
				return nil, fmt.Errorf("script: line %d: must be %q", i+1, header)
			}
			first = false
			continue
		case len(steps) == maxSteps:
			return nil, fmt.Errorf("script: line %d: more than %d steps", i+1, maxSteps)
		}
		s, err := parseStep(words)
		if err != nil {
			return nil, fmt.Errorf("script: line %d: %w", i+1, err)
		}
		steps = append(steps, s)
	}
	if first {
		return nil, fmt.Errorf("script: the first line must be %q", header)
	}
	return steps, nil
}

func parseStep(w []string) (Step, error) {
	if len(w) != 4 && len(w) != 6 || w[0] != "send" || w[2] != "expect" || len(w) == 6 && w[4] != "capture" {
		return Step{}, errors.New("a step is: send APDU expect SW [capture NAME]")
	}
	s := Step{Send: w[1], Expect: strings.ToUpper(w[3])}
	if sw, err := hex.DecodeString(s.Expect); err != nil || len(sw) != 2 {
		return Step{}, fmt.Errorf("status word %q is not four hex digits", w[3])
	}
	if len(w) == 6 {
		s.Capture = w[5]
	}
	// Every name must close, and what is left must be hex.
	if _, err := expand(s.Send, nil, true); err != nil {
		return Step{}, err
	}
	return s, nil
}

// expand puts values into {names} and decodes the hex; dry checks the form
// only.
func expand(send string, values map[string][]byte, dry bool) ([]byte, error) {
	var out []byte
	for send != "" {
		head, rest, found := strings.Cut(send, "{")
		b, err := hex.DecodeString(head)
		if err != nil {
			return nil, fmt.Errorf("%q is not hex", head)
		}
		out = append(out, b...)
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name == "" {
			return nil, errors.New("a name's { has no }")
		}
		v, ok := values[name]
		if !ok && !dry {
			return nil, fmt.Errorf("no value is named %q", name)
		}
		out = append(out, v...)
		send = after
	}
	if len(out) > 261 {
		return nil, fmt.Errorf("a command of %d octets is longer than a card takes", len(out))
	}
	return out, nil
}

// ParseData reads a data script. Its errors never show a value.
func ParseData(src []byte) (map[string][]byte, error) {
	if len(src) > maxBytes {
		return nil, fmt.Errorf("script: data of %d octets; at most %d", len(src), maxBytes)
	}
	values := map[string][]byte{}
	for i, line := range bytes.Split(src, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		name, digits, ok := bytes.Cut(line, []byte("="))
		v := make([]byte, hex.DecodedLen(len(digits)))
		if _, err := hex.Decode(v, digits); !ok || err != nil || len(name) == 0 {
			return nil, fmt.Errorf("script: data line %d is not name=HEX", i+1)
		}
		values[string(name)] = v
	}
	return values, nil
}

// StatusError is a step that the card answered otherwise than expected.
type StatusError struct {
	Step      int
	Got, Want string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("script: step %d: the card answered %s, expected %s", e.Step, e.Got, e.Want)
}

// Run sends the steps to the card and gives what they captured; also what was
// captured before an error. It wipes values before it returns.
func Run(steps []Step, values map[string][]byte, transmit func([]byte) ([]byte, error)) (map[string][]byte, error) {
	defer func() {
		for _, v := range values {
			clear(v)
		}
	}()
	captured := map[string][]byte{}
	known := map[string][]byte{}
	for k, v := range values {
		known[k] = v
	}
	for i, s := range steps {
		apdu, err := expand(s.Send, known, false)
		if err != nil {
			return captured, fmt.Errorf("script: step %d: %w", i+1, err)
		}
		answer, err := transmit(apdu)
		clear(apdu)
		if err != nil {
			return captured, fmt.Errorf("script: step %d: %w", i+1, err)
		}
		if len(answer) < 2 {
			return captured, fmt.Errorf("script: step %d: the card's answer has no status word", i+1)
		}
		body, sw := answer[:len(answer)-2], strings.ToUpper(hex.EncodeToString(answer[len(answer)-2:]))
		if sw != s.Expect {
			return captured, &StatusError{Step: i + 1, Got: sw, Want: s.Expect}
		}
		if s.Capture != "" {
			captured[s.Capture] = bytes.Clone(body)
			known[s.Capture] = captured[s.Capture]
		}
	}
	return captured, nil
}
