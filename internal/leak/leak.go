// Package leak looks for secrets where they must not be: in files, logs and answers.
//
// A secret gets out in many forms, so it is looked for in all that a program could write
// by mistake: its octets forwards and backwards, hexadecimal digits of either case, with
// and without what tools put between them, base64 of both alphabets at every alignment,
// Go's way to print octets, and what stands escaped in strings. Half of a secret is enough to be found. The package tells
// what it found and where, never the secret itself.
package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// needle is one form of one half of a secret.
type needle struct {
	name, form string
	octets     []byte
}

// Scanner knows the secrets.
type Scanner struct{ needles []needle }

// shortest is how long a secret must be: half of it is looked for, and must not stand
// anywhere by chance.
const shortest = 24

// Add makes the scanner look for a secret; name is what it is called in findings.
func (s *Scanner) Add(name string, secret []byte) {
	if len(secret) < shortest {
		panic(fmt.Sprintf("leak: a secret of %d octets would be found by chance", len(secret)))
	}
	for _, half := range [][]byte{secret[:len(secret)/2], secret[len(secret)/2:]} {
		s.add(name, half)
	}
}

func (s *Scanner) add(name string, b []byte) {
	add := func(form string, octets []byte) { s.needles = append(s.needles, needle{name, form, octets}) }
	add("octets", slices.Clone(b))
	reversed := slices.Clone(b)
	slices.Reverse(reversed)
	add("octets backwards", reversed)
	lower := hex.EncodeToString(b)
	for form, digits := range map[string]string{"hexadecimal": lower, "upper-case hexadecimal": strings.ToUpper(lower)} {
		add(form, []byte(digits))
		var pairs []string
		for i := 0; i < len(digits); i += 2 {
			pairs = append(pairs, digits[i:i+2])
		}
		for _, between := range []string{" ", ":", ", 0x"} {
			add(form+" in pairs", []byte(strings.Join(pairs, between)))
		}
	}
	printed := fmt.Sprint(b)
	add("printed octets", []byte(printed[1:len(printed)-1]))
	add("octets in JSON numbers", []byte(strings.ReplaceAll(printed[1:len(printed)-1], " ", ",")))
	for form, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		// What stands in front decides where the octets begin within a group of four
		// characters; those that its neighbours have a part in are left out.
		for ahead := range 3 {
			text := encoding.EncodeToString(append(make([]byte, ahead), b...))
			from, to := (ahead*8+5)/6, (ahead+len(b))*8/6
			add(form, []byte(text[from:to]))
		}
	}
}

// Find names the secrets that stand in data, and in which form.
func (s *Scanner) Find(data []byte) (found []string) {
	// Base64 is broken into lines by some writers, so it is looked for without them too.
	joined := bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\n"), nil), []byte("\r"), nil)
	plain := unescaped(data)
	for _, n := range s.needles {
		if bytes.Contains(data, n.octets) || bytes.Contains(joined, n.octets) || bytes.Contains(plain, n.octets) {
			if f := n.name + " as " + n.form; !slices.Contains(found, f) {
				found = append(found, f)
			}
		}
	}
	return found
}

// unescaped undoes the escapes that Go and JSON write in strings.
func unescaped(data []byte) []byte {
	if !bytes.ContainsRune(data, '\\') {
		return nil
	}
	out := make([]byte, 0, len(data))
	for rest := string(data); rest != ""; {
		at := strings.IndexByte(rest, '\\')
		if at < 0 {
			return append(out, rest...)
		}
		out, rest = append(out, rest[:at]...), rest[at:]
		quote := byte('"')
		if strings.HasPrefix(rest, `\'`) {
			quote = '\''
		}
		r, wide, tail, err := strconv.UnquoteChar(rest, quote)
		switch {
		case err != nil:
			out, rest = append(out, rest[0]), rest[1:]
			continue
		case wide:
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, byte(r))
		}
		rest = tail
	}
	return out
}

// Files looks through every file below a folder and says how many there were.
func (s *Scanner) Files(folder string) (found []string, files int, err error) {
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, f := range s.Find(data) {
			found = append(found, path+": "+f)
		}
		return nil
	})
	return found, files, err
}
