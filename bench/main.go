// Command bench measures Hufu beside its limits and its peers, on this machine,
// in one run, and prints one table. It asserts nothing: a figure below its goal
// is shown as such.
//
// How to read the table. A row is one figure. "Hufu" and "limit or peer" are
// medians of several rounds in which the two (or three) took turns, so that a
// machine whose speed drifts slows all of them; "ratio" is the first divided by
// the second, for times and sizes the second by the first, and higher is better. A limit is the least code that does the same
// work and keeps nothing of what Hufu is for: a ratio of 0.4 says that all that
// Hufu adds (the network, mutual TLS, the gate, policy, two commits, a journal)
// costs 1.5 times the bare work. A peer is another program that does what Hufu
// does. Clients, limits, peers and Hufu share the same CPUs, so a second program
// on the machine changes every figure, and the ratios less.
//
//   - hsm.sign: P-256 signatures through Hufu's session pool, against bare
//     C_SignInit and C_Sign in a loop, on the same key in SoftHSM, with as many
//     sessions.
//   - escrow.pool: P-256 key pairs that the key management centre makes in SoftHSM,
//     wraps and records in its book, every commit on disk, against bare calls that
//     make a pair of the same attributes, wrap it and destroy it, with as many
//     sessions, and keep nothing.
//   - issue.single: server certificates asked for one by one, by 64 clients over
//     keep-alive connections with mutual TLS, of a node that hufu quickstart
//     made, its CA key in SoftHSM, every commit on disk. Against 64 goroutines
//     that parse a request and check it, encode a certificate of the same
//     content, sign it in SoftHSM, check the signature and commit in groups to
//     bbolt: no network, no policy, no index, no journal, one commit instead of
//     two.
//   - issue.single.vs-stepca: the same against step-ca with a token of the same
//     kind, its bbolt database and a one-time token for each request (JWK
//     provisioner).
//   - issue.batch: the pairs of readers, asked for in one job over the API, from the
//     request until the job is done, each reader in the register and its result
//     recorded. Against 64 goroutines that parse the request of a pair and check it,
//     encode two certificates of the same content, sign both in SoftHSM, check both
//     signatures and commit in groups to bbolt.
//   - issue.batch.vs-stepca: the same against step-ca's figure of issue.single in the
//     same run; it has no batch.
//   - ocsp.presigned: answers that were signed before, asked of the node over 64
//     keep-alive connections, against a handler of a few lines in a process of
//     its own that reads the same requests and returns the same answers.
//   - ocsp.nonce: answers that are signed while the client waits, since its nonce
//     stands in them, against 64 goroutines that sign in SoftHSM and check.
//   - revoke.single: certificates revoked one by one over the API by 64 clients,
//     every change on disk, against 64 writers of a book that read a status and
//     write it with one event.
//   - revoke.growth: the same of a CA that has revoked 1,000,000 certificates
//     before, against one that has revoked 10,000.
//   - dir.reach4, dir.reach4.p99: the time from the request to revoke until the
//     entry says so in four slapds that fsync, read back, against writing the same
//     change into the four directly and in parallel; dir.reach4.syncrepl: against
//     one write into a slapd with three replicas; dir.reach4.busy: while the node
//     makes 200 other changes a second, against none. On every side one reader for
//     each slapd looks from the beginning of the change, every 250 µs. The sides
//     take turns in blocks of 50, with the node at rest in between, so that its
//     lists and watermarks fall on nobody but itself; each of its revocations
//     begins with the directories in step, but for dir.reach4.busy.
//   - dir.load: an empty slapd that fsyncs, filled by the node's publisher, until
//     the signed watermark says so, against a loop that adds the same entries with
//     as many in flight.
//   - crl.1m, crl.1m.mem: a CRL of 1,000,000 entries, from the book to the octets in
//     the book, and its memory, against x509.CreateRevocationList in memory.
//   - readers.start: from the exec of a node whose book holds 1,000,000 readers and
//     their 2,000,000 certificates until it answers; readers.search: the p99 of each
//     way to look for readers in it, a page of 50 over one kept connection with
//     mutual TLS, each of 1,000 questions about
//     other readers, the file in the machine's cache. Against the goals.
//
// Requests, keys and one-time tokens are made before the clock starts. All
// databases lie side by side below build/, on one file system, and fsync.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"hufu/bench/world"
)

func main() {
	pace := flag.Float64("pace", 1, "multiplies the time of every round")
	hufu := flag.String("hufu", "", "the `program` to measure (default: the one beside this program's folder)")
	full := flag.String("full", "", "a `folder` that hufu quickstart made and million filled with 1,000,000 readers, for readers.search; its node must not run")
	only := flag.String("only", "", "measure only the figures whose names begin with this, and write no bench.json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *hufu, *pace, *only, *full); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// run works in a folder of its own beside this program and leaves only the table.
func run(ctx context.Context, hufu string, pace float64, only, full string) (err error) {
	b := &bench{began: time.Now(), pace: pace, full: full}
	if b.programs, b.hufu, err = world.Beside(hufu); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(b.programs, "work-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer func() { err = errors.Join(err, b.stop()) }()

	b.say("%d CPUs, %s, load average %s", runtime.NumCPU(), runtime.Version(), load())
	if err := b.openToken(ctx); err != nil {
		return fmt.Errorf("making a token: %w", err)
	}
	var figures []figure
	for _, m := range []struct {
		name    string
		measure func(context.Context) ([]figure, error)
	}{{"hsm.sign", b.signing}, {"escrow.pool", b.keeping}, {"issue.single", b.issuing}, {"issue.batch", b.batching}, {"ocsp.presigned", b.presigned}, {"ocsp.nonce", b.live}, {"revoke.single", b.revoking}, {"revoke.growth", b.growing}, {"dir.reach4", b.reaching}, {"dir.load", b.filling}, {"crl.1m", b.listing}, {"readers.search", b.searching}} {
		if !strings.HasPrefix(m.name, only) {
			continue
		}
		b.say("%s", m.name)
		f, err := m.measure(ctx)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", m.name, err)
		}
		figures = append(figures, f...)
	}
	printTable(os.Stdout, figures)
	b.say("done; load average %s", load())
	if only != "" {
		return nil
	}
	return writeJSON(filepath.Join(b.programs, "..", "bench.json"), figures)
}

// bench is one run.
type bench struct {
	began    time.Time
	pace     float64
	programs string // folder of this program and its helpers
	hufu     string // the program
	dir      string // of this run
	full     string // a world full of readers, where one was made before
	token    *token
	node     *node
	peer     float64        // certificates a second of step-ca; 0 while that is not measured
	ends     []func() error // in the order of beginning
}

// stop ends everything that was started, the last first.
func (b *bench) stop() (err error) {
	for i := len(b.ends) - 1; i >= 0; i-- {
		err = errors.Join(err, b.ends[i]())
	}
	return err
}

func (b *bench) atEnd(f func() error) { b.ends = append(b.ends, f) }

// say shows progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench %4.0fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// load is the machine's load average over one minute, where it is known.
func load() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(raw), " ")
	return one
}
