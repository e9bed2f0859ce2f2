package main

import (
	"fmt"
	"io"
)

// say gives the phrase in the chosen language. English is the key: a phrase
// that the dictionary does not know is shown in English.
func (g *globals) say(phrase string) string {
	if g.lang == "zh" {
		if z, ok := chinese[phrase]; ok {
			return z
		}
	}
	return phrase
}

// tell writes one line, format and arguments, in the chosen language.
func (g *globals) tell(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, g.say(format)+"\n", args...)
}
