package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// listed is how many certificates stand on the list of crl.1m.
const listed = 1_000_000

// listing measures crl.1m and crl.1m.mem.
func (b *bench) listing(ctx context.Context) ([]figure, error) {
	n := max(int(listed*b.pace), 10_000)
	dir := filepath.Join(b.dir, "million")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	b.say("  recording %d revoked certificates", n)
	if _, err := b.million(ctx, "make", dir, strconv.Itoa(n)); err != nil {
		return nil, err
	}
	var seconds, peaks [2][]float64
	for r := range 3 {
		for k, mode := range []string{"hufu", "x509"} {
			took, err := b.million(ctx, mode, dir)
			if err != nil {
				return nil, err
			}
			seconds[k], peaks[k] = append(seconds[k], took.Seconds), append(peaks[k], float64(took.Peak)/(1<<20))
		}
		b.say("  round %d of 3: hufu %.2f s and %.0f MiB, x509 %.2f s and %.0f MiB", r+1, seconds[0][r], peaks[0][r], seconds[1][r], peaks[1][r])
	}
	against := "x509.CreateRevocationList, fed from the same book"
	return []figure{
		newTime("crl.1m", median(seconds[0]), median(seconds[1]), against, 10, "s from the book to signed octets"),
		newTime("crl.1m.mem", median(peaks[0]), median(peaks[1]), against, 6.6, "MiB of anonymous memory at the peak"),
	}, nil
}

// taken is what one run of million says.
type taken struct {
	Seconds    float64
	Peak, Size int64
}

func (b *bench) million(ctx context.Context, args ...string) (*taken, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(b.programs, "million"), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("million %s: %w", args[0], err)
	}
	t := new(taken)
	if len(out) == 0 {
		return t, nil
	}
	return t, json.Unmarshal(out, t)
}
