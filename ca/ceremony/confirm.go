package ceremony

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// tries is how often an officer may mistype the name.
const tries = 3

// confirm shows what is about to be done and has each officer type the name.
func (r *room) confirm(ctx context.Context, phase, what string) error {
	fmt.Fprintf(r.env.Out, "\n%s", what)
	if r.env.Unattended {
		return r.log.write(actUnattended, "nobody was asked to confirm the "+phase, facts{"phase": phase})
	}
	for _, officer := range r.script.Officers {
		if err := r.ask(ctx, phase, officer); err != nil {
			return err
		}
	}
	return nil
}

func (r *room) ask(ctx context.Context, phase, officer string) error {
	for range tries {
		fmt.Fprintf(r.env.Out, "%s, type your name to confirm the %s: ", officer, phase)
		typed, err := r.readLine(ctx)
		if err != nil {
			return fmt.Errorf("waiting for %s to confirm the %s: %w", officer, phase, err)
		}
		if typed == officer {
			return r.log.write(actConfirmed, officer+" confirms the "+phase, facts{"phase": phase, "officer": officer})
		}
		// Not what was typed: it may have been a PIN.
		if err := r.log.write(actMistyped, officer+" was asked, and something else was typed", nil); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s did not confirm the %s in %d tries", officer, phase, tries)
}

// readLine reads to the end of the line and not an octet further: what is typed next may
// be a PIN, for another reader.
func (r *room) readLine(ctx context.Context) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	// A read from a terminal cannot be taken back; it is left to the process's end.
	go func() {
		var b strings.Builder
		one := make([]byte, 1)
		for b.Len() < 1024 {
			n, err := r.env.In.Read(one)
			if n == 1 && one[0] == '\n' {
				break
			}
			if n == 1 {
				b.WriteByte(one[0])
			}
			if errors.Is(err, io.EOF) && b.Len() > 0 {
				break
			}
			if err != nil {
				done <- result{err: err}
				return
			}
		}
		done <- result{text: strings.TrimSpace(b.String())}
	}()
	select {
	case got := <-done:
		if errors.Is(got.err, io.EOF) {
			return "", errors.New("nobody is there to type")
		}
		return got.text, got.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
