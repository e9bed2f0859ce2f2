package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hufu/api/client"
	"hufu/store"
)

func newAuditCommand(g *globals) *cobra.Command {
	return group("audit", "The journal: read it, sign it, prove it", newAuditLog(g), newAuditCheckpoint(g), newAuditVerify(g), newAuditProve(g), newAuditKey(g))
}

func newAuditLog(g *globals) *cobra.Command {
	var after uint64
	var limit int
	var kind string
	c := &cobra.Command{Use: "log", Short: "Read the journal", Args: cobra.NoArgs,
		Long: "Read the journal. The kinds of events are:\n\n" + columned(eventKinds)}
	c.Flags().Uint64Var(&after, "after", 0, "begin after this event")
	c.Flags().StringVar(&kind, "kind", "", "only events of this `kind`")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many; 0 = all")
	c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(eventKinds, cobra.ShellCompDirectiveNoFileComp))
	read := g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.Event{}
		t := &table{heads: []string{"event", "time", "kind", "CA", "serial", "actor", "detail"}}
		for e, err := range cl.Journal(ctx, after) {
			if err != nil {
				return err
			}
			if kind != "" && e.Kind != kind {
				continue
			}
			rows = append(rows, e)
			t.add(num(e.Seq), when(e.Time), e.Kind, e.CA, short(e.Serial), e.Actor, e.Detail)
			if limit > 0 && len(rows) == limit {
				break
			}
		}
		return g.show(cmd, rows, t)
	})
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if kind != "" && !slices.Contains(eventKinds, kind) {
			return usagef("the kinds are: "+strings.Join(eventKinds, ", "), "there is no kind of event %s", kind)
		}
		return read(cmd, args)
	}
	return c
}

func newAuditCheckpoint(g *globals) *cobra.Command {
	var out string
	c := &cobra.Command{Use: "checkpoint", Short: "A signed checkpoint of the journal; keep it outside the CA's reach", Args: cobra.NoArgs}
	c.Flags().StringVar(&out, "out", "", "write it to this `file`")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		note, err := cl.Checkpoint(ctx)
		if err != nil {
			return err
		}
		if out == "" {
			_, err = cmd.OutOrStdout().Write(note)
			return err
		}
		return writeNew(out, note, 0o644)
	})
	return c
}

func newAuditKey(g *globals) *cobra.Command {
	return &cobra.Command{Use: "key", Short: "The public key that checkpoints and the statements in directories are checked with, in PEM", Args: cobra.NoArgs,
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
			key, err := cl.CheckpointKey(ctx)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(key)
			return err
		})}
}

func newAuditVerify(g *globals) *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "verify CHECKPOINT",
		Short: "Verify that the journal still contains what an earlier checkpoint pinned",
		Long: `Verify that the journal still contains the history that an earlier checkpoint
pinned: no event was edited, cut off or rolled back since. The node signs a new
checkpoint and proves that the old tree is its beginning (RFC 6962, Section
2.1.2); the proof is checked here, with nothing but the public key. Where no node
runs, the book itself is read.`,
		Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&keyFile, "key", "", "the checkpoint key (public key in PEM `file`)")
	c.MarkFlagRequired("key")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		key, old, err := readCheckpoint(keyFile, args[0])
		if err != nil {
			return err
		}
		return g.daemonOrBook(cmd, func(ctx context.Context, cl *client.Client) error {
			return g.verifyNode(ctx, cmd, cl, key, old)
		}, func(ctx context.Context, b *store.Book) error {
			if err := b.VerifyCheckpoint(ctx, old); err != nil {
				return damagedf("keep the book and the checkpoint as evidence", "%v", err)
			}
			tree, err := b.Tree(ctx)
			if err == nil {
				g.tell(cmd.OutOrStdout(), "ok: the first %d of %d events are what the checkpoint of %s pinned", old.Size, tree.Size, when(old.Time))
			}
			return err
		})
	}
	return c
}

// verifyNode has a running node prove that its journal continues a checkpoint.
func (g *globals) verifyNode(ctx context.Context, cmd *cobra.Command, cl *client.Client, key crypto.PublicKey, old *store.Checkpoint) error {
	note, err := cl.Checkpoint(ctx)
	if err != nil {
		return err
	}
	now, err := store.ParseCheckpoint(note, key)
	if err != nil {
		return damagedf("keep both checkpoints as evidence", "the node's new checkpoint does not verify: %v", err)
	}
	if now.Size < old.Size {
		return damagedf("the book was rolled back or restored; keep the checkpoint as evidence", "the node's journal has %d events, the checkpoint pinned %d", now.Size, old.Size)
	}
	p, err := cl.ConsistencyProof(ctx, old.Size, now.Size)
	if err != nil {
		return err
	}
	proof, err := storeProof(p)
	if err != nil {
		return err
	}
	if err := store.CheckConsistency(proof, old.Root, now.Root); err != nil {
		return damagedf("keep the checkpoint as evidence and stop the node", "the journal no longer contains what the checkpoint pinned: %v", err)
	}
	g.tell(cmd.OutOrStdout(), "ok: the first %d of %d events are what the checkpoint of %s pinned", old.Size, now.Size, when(old.Time))
	return nil
}

// inclusion is the file that `audit prove` writes: whoever has the checkpoint
// key can check it without asking anyone.
type inclusion struct {
	Event      client.Event `json:"event"`
	Proof      client.Proof `json:"proof"`
	Checkpoint string       `json:"checkpoint"`
}

func newAuditProve(g *globals) *cobra.Command {
	var keyFile, check string
	var seq uint64
	c := &cobra.Command{
		Use:   "prove",
		Short: "Prove that an event stands in the journal, or check such a proof with --check FILE",
		Example: `  hufu audit prove --event 42 --key checkpoint.pem > proof.json
  hufu audit prove --check proof.json --key checkpoint.pem`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	f.Uint64Var(&seq, "event", 0, "the event's number")
	f.StringVar(&check, "check", "", "check the proof in this `file`; works alone")
	f.StringVar(&keyFile, "key", "", "the checkpoint key (public key in PEM `file`)")
	c.MarkFlagRequired("key")
	c.MarkFlagsOneRequired("event", "check")
	c.MarkFlagsMutuallyExclusive("event", "check")
	prove := g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		key, err := readPublicKey(keyFile)
		if err != nil {
			return err
		}
		note, err := cl.Checkpoint(ctx)
		if err != nil {
			return err
		}
		cp, err := store.ParseCheckpoint(note, key)
		if err != nil {
			return damagedf("", "the node's checkpoint does not verify: %v", err)
		}
		events, err := cl.FollowJournal(ctx, seq-1, 0)
		if err != nil {
			return err
		}
		if len(events) == 0 || events[0].Seq != seq {
			return &hinted{err: fmt.Errorf("the journal has no event %d", seq), code: exitNotFound}
		}
		p, err := cl.InclusionProof(ctx, seq, cp.Size)
		if err != nil {
			return err
		}
		proof := inclusion{Event: events[0], Proof: *p, Checkpoint: string(note)}
		if err := checkInclusion(&proof, key); err != nil {
			return err
		}
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(proof)
	})
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if check == "" {
			return prove(cmd, args)
		}
		key, err := readPublicKey(keyFile)
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(check)
		if err != nil {
			return usagef("", "reading the proof: %v", err)
		}
		var p inclusion
		if err := json.Unmarshal(raw, &p); err != nil {
			return usagef("give the file that `hufu audit prove --event` wrote", "%s: %v", check, err)
		}
		if err := checkInclusion(&p, key); err != nil {
			return err
		}
		g.tell(cmd.OutOrStdout(), "ok: event %d (%s, %s) stands in the signed journal", p.Event.Seq, p.Event.Kind, when(p.Event.Time))
		return nil
	}
	return c
}

func checkInclusion(p *inclusion, key crypto.PublicKey) error {
	cp, err := store.ParseCheckpoint([]byte(p.Checkpoint), key)
	if err != nil {
		return damagedf("", "the proof's checkpoint does not verify: %v", err)
	}
	proof, err := storeProof(&p.Proof)
	if err != nil {
		return err
	}
	if proof.Size != cp.Size {
		return damagedf("", "the proof leads to a tree of %d events, the checkpoint signs one of %d", proof.Size, cp.Size)
	}
	e := store.Event{Seq: p.Event.Seq, Time: p.Event.Time, Kind: p.Event.Kind, CA: p.Event.CA, Actor: p.Event.Actor, Detail: p.Event.Detail}
	if p.Event.Serial != "" {
		if e.Serial, err = store.ParseSerial(p.Event.Serial); err != nil {
			return damagedf("", "the proof's event has no serial number: %v", err)
		}
	}
	if err := store.CheckInclusion(proof, &e, cp.Root); err != nil {
		return damagedf("", "the event does not stand in the signed journal: %v", err)
	}
	return nil
}

func storeProof(p *client.Proof) (store.Proof, error) {
	out := store.Proof{From: p.From, Size: p.Size}
	for _, h := range p.Hashes {
		hash, err := store.ParseHash(h)
		if err != nil {
			return out, damagedf("", "the proof holds what is no hash: %v", err)
		}
		out.Hashes = append(out.Hashes, hash)
	}
	return out, nil
}

func readPublicKey(path string) (crypto.PublicKey, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("`hufu init` writes checkpoint.pem; auditors keep a copy", "reading the checkpoint key: %v", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, usagef("it is a PEM file that begins with BEGIN PUBLIC KEY", "%s holds no public key", path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, usagef("", "%s: %v", path, err)
	}
	return key, nil
}

func readCheckpoint(keyFile, path string) (crypto.PublicKey, *store.Checkpoint, error) {
	key, err := readPublicKey(keyFile)
	if err != nil {
		return nil, nil, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, usagef("", "reading the checkpoint: %v", err)
	}
	cp, err := store.ParseCheckpoint(raw, key)
	if err != nil {
		return nil, nil, damagedf("the file or the key is the wrong one, or the file was changed", "%s: %v", path, err)
	}
	return key, cp, nil
}

// unreachable names the remedy when no node answers at all.
func unreachable(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &hinted{err: err, hint: "is the node running (hufu serve), and does the client configuration name its address?", code: exitUnready}
	}
	return err
}
