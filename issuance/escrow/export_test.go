package escrow

import (
	"context"

	"hufu/store"
)

// All returns every kept key.
func All(ctx context.Context, book *store.Book) (all []*Key, err error) {
	err = book.View(ctx, func(tx *store.Tx) error {
		all = nil
		for k, err := range kept.Scan(tx, "", nil) {
			if err != nil {
				return err
			}
			all = append(all, k)
		}
		return nil
	})
	return all, err
}

// Spoil changes the row of a kept key past all rules.
func Spoil(tx *store.Tx, k *Key) error { return kept.Put(tx, k) }

// Lose deletes one.
func Lose(tx *store.Tx, k *Key) error { return kept.Delete(tx, store.Key(k.Hash)) }
