package ca

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hufu/policy"
	"hufu/store"
)

// enter writes the node into the book with a new incarnation, once in the life
// of the Authority, and returns the name that its intents carry. The intents of
// earlier incarnations are those of the dead from then on.
func (a *Authority) enter(ctx context.Context) (string, error) {
	a.entry.Lock()
	defer a.entry.Unlock()
	if a.incarnation == 0 {
		var n *store.Node
		err := a.Book.Update(ctx, func(tx *store.Tx) (err error) {
			n, err = store.Nodes.Get(tx, store.Key(a.Node))
			if errors.Is(err, store.ErrNotFound) {
				n = &store.Node{ID: a.Node}
			} else if err != nil {
				return err
			}
			n.Incarnation++
			n.Lease = a.Now().Add(a.Lease).UTC()
			return store.Nodes.Put(tx, n)
		})
		if err != nil {
			return "", fmt.Errorf("entering node %q into the book: %w", a.Node, err)
		}
		a.incarnation = n.Incarnation
	}
	return incarnationName(a.Node, a.incarnation), nil
}

func incarnationName(node string, n uint64) string { return node + "#" + strconv.FormatUint(n, 10) }

// stay renews the node's lease.
func (a *Authority) stay(ctx context.Context) error {
	if _, err := a.enter(ctx); err != nil {
		return err
	}
	return a.Book.Update(ctx, func(tx *store.Tx) error {
		n, err := store.Nodes.Get(tx, store.Key(a.Node))
		if err != nil {
			return err
		}
		if n.Incarnation != a.incarnation {
			return fmt.Errorf("another process runs as node %q: give every node a name of its own", a.Node)
		}
		n.Lease = a.Now().Add(a.Lease).UTC()
		return store.Nodes.Put(tx, n)
	})
}

// ended tells whether the incarnation that an intent names is dead.
func (a *Authority) ended(tx *store.Tx, name string) (bool, error) {
	at := strings.LastIndexByte(name, '#')
	if at < 0 {
		return true, nil // a name that enter did not make has no lease
	}
	n, err := store.Nodes.Get(tx, store.Key(name[:at]))
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking up node %q: %w", name, err)
	}
	if incarnationName(n.ID, n.Incarnation) != name {
		return true, nil
	}
	// This process knows that it lives, whatever its lease says.
	return n.ID != a.Node && n.Lease.Before(a.Now()), nil
}

// Recover closes the intents that were left open by nodes whose lease has
// ended: their serials are revoked, their keys are free again.
func (a *Authority) Recover(ctx context.Context) (closed int, err error) {
	if _, err := a.enter(ctx); err != nil {
		return 0, err
	}
	var refs []Ref
	err = a.Book.View(ctx, func(tx *store.Tx) error {
		refs = nil
		dead := map[string]bool{}
		for i, err := range store.Intents.Scan(tx, "node", nil) {
			if err != nil {
				return err
			}
			over, known := dead[i.Node]
			if !known {
				if over, err = a.ended(tx, i.Node); err != nil {
					return err
				}
				dead[i.Node] = over
			}
			if over {
				refs = append(refs, Ref{i.CA, i.Serial})
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("looking for open intents: %w", err)
	}
	for len(refs) > 0 {
		n := min(len(refs), chunk)
		if err := a.closeIntents(ctx, refs[:n]); err != nil {
			return closed, err
		}
		closed += n
		refs = refs[n:]
	}
	return closed, nil
}

// closeIntents closes what is still open of the intents named, in one
// transaction. A crash before it is on disk leaves them to the next Recover.
func (a *Authority) closeIntents(ctx context.Context, refs []Ref) error {
	err := a.Book.Update(ctx, func(tx *store.Tx) error {
		for _, ref := range refs {
			if err := a.closeIntent(tx, ref); err != nil {
				return fmt.Errorf("intent %s of CA %s: %w", ref.Serial, ref.CA, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("closing intents: %w", err)
	}
	return nil
}

// closeIntent gives a serial up that was reserved. A signature over it may
// exist, unseen; so the serial is revoked.
func (a *Authority) closeIntent(tx *store.Tx, ref Ref) error {
	i, err := store.Intents.Get(tx, ref.key())
	if errors.Is(err, store.ErrNotFound) {
		return nil // committed or closed meanwhile
	}
	if err != nil {
		return err
	}
	if err := store.Intents.Delete(tx, ref.key()); err != nil {
		return err
	}
	seq := tx.Append(store.Event{Kind: store.KindIntentClosed, CA: i.CA, Serial: i.Serial, Actor: "node " + a.Node})
	err = store.Statuses.Insert(tx, &store.Status{CA: i.CA, Serial: i.Serial, State: store.Revoked, Time: tx.Now().UTC(),
		NotAfter: latestEnd(i), Unissued: true, Shard: i.Shard, Seq: seq})
	if err != nil {
		return err
	}
	if i.IdempotencyKey != "" {
		// The order's first intent to be closed takes the answer away: a
		// repeated order begins anew.
		if err := answers.Delete(tx, answerKey(i.Requester, i.IdempotencyKey)); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// latestEnd is the latest that the certificate of an intent could have been
// valid until: how long its serial stays on CRLs.
func latestEnd(i *store.Intent) time.Time {
	validity := 10 * 365 * 24 * time.Hour
	if p, err := policy.Find(i.Profile); err == nil {
		validity = p.Validity
	}
	return i.Time.Add(validity).UTC().Truncate(time.Second)
}
