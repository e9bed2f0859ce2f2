package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// until asks again and again until the answer is yes. Its error says that
// time ran out, or what the last question failed with.
func until(ctx context.Context, d, every time.Duration, yes func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := yes()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New("not shown in time")
			}
			return err
		case <-tick.C:
		}
	}
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, a.Status)
	}
	return io.ReadAll(io.LimitReader(a.Body, 64<<20))
}

func sorted(entries []string) string {
	return strings.Join(slices.Sorted(slices.Values(entries)), "\n\n")
}

// said adds what a program wrote before it failed.
func said(err error) error {
	var e *exec.ExitError
	if errors.As(err, &e) && len(e.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(e.Stderr)))
	}
	return err
}
