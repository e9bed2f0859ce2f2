package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// sure asks before a dangerous act: the caller types the word. With --yes it
// does not ask; without a terminal and without --yes it refuses, since silence
// is not a yes.
func (g *globals) sure(cmd *cobra.Command, act, word string) error {
	if g.yes {
		return nil
	}
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
		return usagef("add --yes if it is meant", "%s: this needs a yes, and there is no terminal to ask at", act)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), g.say("%s. Type %q to go on: "), act, word)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(line) != word {
		return &hinted{err: fmt.Errorf("%s: not confirmed", act), hint: "nothing was done", code: exitRefused}
	}
	return nil
}

// bar is a progress bar on a terminal's standard error, and silent elsewhere.
type bar struct {
	all *mpb.Progress
	one *mpb.Bar
}

func newBar(cmd *cobra.Command, what string) *bar {
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &bar{}
	}
	p := mpb.New(mpb.WithOutput(f), mpb.WithWidth(48))
	return &bar{all: p, one: p.AddBar(0,
		mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(decor.CountersNoUnit("%d / %d"), decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO), " done")))}
}

func (b *bar) set(done, total int64) {
	if b.one == nil {
		return
	}
	b.one.SetTotal(total, false)
	b.one.SetCurrent(done)
}

func (b *bar) end() {
	if b.one == nil {
		return
	}
	b.one.SetTotal(-1, true)
	b.all.Wait()
}
