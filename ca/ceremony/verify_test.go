package ceremony_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"hufu/ca/ceremony"
)

// Every octet of a transcript counts, and the line that was touched is named.
func TestTamperedTranscript(t *testing.T) {
	w := newWorld(t)
	w.mustRun(t, w.script(t))
	good := w.transcript(t)
	lines := bytes.SplitAfter(good, []byte("\n"))
	lines = lines[:len(lines)-1]
	check := func(what string, want int, changed [][]byte) {
		t.Helper()
		_, err := ceremony.Verify(bytes.Join(changed, nil), os.DirFS(w.path("out")))
		var tampered *ceremony.TamperError
		if !errors.As(err, &tampered) || tampered.Line != want {
			t.Errorf("%s, line %d: %v", what, want, err)
		}
	}
	copyOf := func() [][]byte {
		var c [][]byte
		for _, l := range lines {
			c = append(c, bytes.Clone(l))
		}
		return c
	}
	for i := range lines {
		n := i + 1
		for _, at := range []int{0, 40, 70, len(lines[i]) / 2, len(lines[i]) - 3} {
			c := copyOf()
			c[i][at] ^= 1
			check("changed", n, c)
		}
		if n < len(lines) {
			c := copyOf()
			check("left out", n, append(c[:i:i], c[i+1:]...))
			c = copyOf()
			c[i], c[i+1] = c[i+1], c[i]
			check("exchanged", n, c)
			c = copyOf()
			check("doubled", n+1, append(c[:n:n], append([][]byte{c[i]}, c[n:]...)...))
		}
		c := copyOf()
		c[i] = c[i][:len(c[i])-1]
		check("broken off", n, c[:n])

		// A line whose hash was made to fit breaks the chain at the next one.
		if n < len(lines) {
			c = copyOf()
			body := bytes.Replace(c[i][65:len(c[i])-1], []byte(`"text":"`), []byte(`"text":"not `), 1)
			previous := ""
			if i > 0 {
				previous = string(c[i-1][:64])
			}
			c[i] = fmt.Appendf(nil, "%x %s\n", sha256.Sum256(append([]byte(previous+"\n"), body...)), body)
			check("forged", n+1, c)
		}
	}
	_, err := ceremony.Verify(bytes.Join(lines[:len(lines)-1], nil), os.DirFS(w.path("out")))
	wantError(t, err, "did not end")
	_, err = ceremony.Verify(nil, os.DirFS(w.path("out")))
	wantError(t, err, "empty")
}

func TestTamperedFiles(t *testing.T) {
	w := newWorld(t)
	w.mustRun(t, w.script(t))
	report, err := w.verify(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range report.Files {
		path := w.path("out/" + name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = w.verify(t)
		wantError(t, err, name, "is not the one of line")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		_, err = w.verify(t)
		wantError(t, err, name, "line")
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.write(t, "out/stranger.cer", nil, 0o644)
	_, err = w.verify(t)
	wantError(t, err, "stranger.cer", "does not tell of it")
}

// rewrite makes a transcript anew with the lines changed and every hash made to fit,
// as one could who has no respect for paper.
func rewrite(good []byte, change func(body string) string) []byte {
	var out bytes.Buffer
	head := ""
	for text := range strings.Lines(string(good)) {
		body := change(strings.TrimSuffix(text[65:], "\n"))
		head = fmt.Sprintf("%x", sha256.Sum256([]byte(head+"\n"+body)))
		fmt.Fprintf(&out, "%s %s\n", head, body)
	}
	return out.Bytes()
}

// Even a whole chain made anew must agree with the script and the signatures.
func TestRewrittenTranscript(t *testing.T) {
	w := newWorld(t)
	result := w.mustRun(t, w.script(t))
	good := w.transcript(t)
	for _, test := range []struct{ name, from, to, word string }{
		{"an officer's consent", `"phase":"requests"`, `"phase":"lunch"`, "did not confirm the requests"},
		{"extractable key", `"extractable":"false"`, `"extractable":"true"`, "extractable"},
		{"another key", `"algorithm":"p384"`, `"algorithm":"p384","spki":"00"`, "not the root's"},
		{"another certificate", `"tbs":"`, `"tbs":"00`, "prepared"},
		{"another proof", `"challenge":"`, `"challenge":"00`, "does not verify"},
		{"other officers", `"officers":"Li Wei`, `"officers":"Li Si`, "officers"},
		{"another script", `"script":"`, `"script":"00`, "script"},
	} {
		changed := rewrite(good, func(body string) string {
			if test.name == "another key" {
				return strings.Replace(body, `"spki":"`, `"spki":"00`, 1)
			}
			return strings.Replace(body, test.from, test.to, 1)
		})
		_, err := ceremony.Verify(changed, os.DirFS(w.path("out")))
		if err == nil {
			t.Errorf("%s: accepted", test.name)
			continue
		}
		wantError(t, err, test.word)
	}
	// What nobody can tell from the files alone shows in the last hash.
	changed := rewrite(good, func(body string) string { return strings.Replace(body, "firmware 2.6", "firmware 2.7", 1) })
	report, err := ceremony.Verify(changed, os.DirFS(w.path("out")))
	if err != nil || report.Head == result.Head {
		t.Errorf("%+v, %v", report, err)
	}
}
