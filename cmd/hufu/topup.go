package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"hufu/api/client"
)

func newTopUpCommand(g *globals) *cobra.Command {
	return group("topup", "Loads: the ledger of authorisations", newTopUpList(g), newTopUpShow(g))
}

// yuan writes fen as yuan.
func yuan(fen uint64) string { return fmt.Sprintf("%d.%02d", fen/100, fen%100) }

func newTopUpList(g *globals) *cobra.Command {
	q := client.TransactionQuery{}
	var limit int
	c := &cobra.Command{Use: "list", Short: "Loads of a city", Args: cobra.NoArgs}
	f := c.Flags()
	f.StringVar(&q.City, "city", "", "of cards of this city")
	f.StringVar(&q.State, "state", "", "in this state: authorised, credited, failed, superseded, …")
	f.IntVar(&limit, "limit", 50, "at most so many; 0 = all")
	c.RunE = g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, _ []string) error {
		rows := []*client.Transaction{}
		t := &table{heads: []string{"transaction", "card", "counter", "yuan", "state", "reader", "authorised"}}
		err := limited(cl.Transactions(ctx, q), limit, func(x *client.Transaction) {
			rows = append(rows, x)
			t.add(x.ID, x.Card, num(uint64(x.Counter)), yuan(x.Amount), x.State, x.Reader, when(x.Authorised))
		})
		if err != nil {
			return err
		}
		return g.show(cmd, rows, t)
	})
	return c
}

func newTopUpShow(g *globals) *cobra.Command {
	return &cobra.Command{Use: "show TRANSACTION", Short: "One load", Args: cobra.ExactArgs(1),
		RunE: g.asClient(func(ctx context.Context, cmd *cobra.Command, cl *client.Client, args []string) error {
			x, err := cl.Transaction(ctx, args[0])
			if err != nil {
				return err
			}
			return g.showFields(cmd, x, []field{{"transaction", x.ID}, {"state", x.State}, {"card", x.Card}, {"counter", num(uint64(x.Counter))},
				{"yuan", yuan(x.Amount)}, {"balance", yuan(x.Balance)}, {"new balance", yuan(x.NewBalance)}, {"TAC", hex.EncodeToString(x.TAC)},
				{"reader", x.Reader}, {"city", x.City}, {"authorised", when(x.Authorised)}, {"closed", when(x.Closed)}, {"superseded by", x.SupersededBy},
				{"evidence", fmt.Sprintf("%s, epoch %d, event %d, %s", x.Evidence.Source, x.Evidence.Epoch, x.Evidence.Seq, when(x.Evidence.Time))}})
		})}
}
