package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"hufu/api/client"
	"hufu/examples/topup/purse"
)

// resolve closes a load whose result never came, or left a doubt, by what the
// card shows when it is in a field again: its counter, its balance and, where it
// was credited, the TAC.
func (s *server) resolve(ctx context.Context, address, transaction string) error {
	d := s.ledger.find(transaction)
	if d == nil {
		return fmt.Errorf("transaction %s was never permitted here", transaction)
	}
	field, err := purse.Enter(address)
	if err != nil {
		return err
	}
	defer field.Close()
	public, err := field.Identify()
	if err != nil {
		return err
	}
	if public.ASN != [10]byte(d.ASN) {
		return fmt.Errorf("card %X is in the field, and the load was for card %X", public.ASN, d.ASN)
	}
	proof, err := field.Proof(d.Load.Counter)
	if err != nil {
		return err
	}
	now, err := field.Initialize(1, d.Load.Terminal) // dropped again
	if err != nil {
		return err
	}
	r := client.Resolution{Counter: uint32(now.Counter), Balance: uint64(now.Balance),
		Note: "card read again by the city's back end at " + time.Now().UTC().Format(time.RFC3339)}
	if proof != nil {
		_, key := s.masters.card(d.ASN)
		tac := d.Load.TAC(key)
		if subtle.ConstantTimeCompare(tac[:], proof.TAC[:]) != 1 {
			return errors.New("the card's TAC is wrong: it was not this load that the card credited")
		}
		r.TAC = tac[:]
	}
	t, err := s.api.ResolveTransaction(ctx, transaction, r)
	if err != nil {
		return err
	}
	fmt.Printf("city: transaction %s is %s: the card's counter is %d, its balance %d fen\n", t.ID, t.State, now.Counter, now.Balance)
	return nil
}
