package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"hufu/readers"
	"hufu/store"
)

// How the readers of a full book are spread: what a country has.
const (
	cities    = 100
	models    = 5
	firmwares = 4
	lot       = 1000 // readers of one manifest, and on one ticket
	together  = 5000 // readers in one commit
)

// enrol records n readers with their certificates, as a node would have left
// them: nine of ten active and bound to a customer, the others in other states.
func enrol(ctx context.Context, book *store.Book, n int) error {
	now := time.Now().UTC().Truncate(time.Second)
	register := readers.Tables[0].(*store.Table[readers.Reader])
	for from := 0; from < n; from += together {
		err := book.Update(ctx, func(tx *store.Tx) error {
			for i := from; i < min(from+together, n); i++ {
				rd := reader(i, now)
				if err := certificates(tx, rd, now); err != nil {
					return err
				}
				rd.Seq = tx.Append(store.Event{Kind: store.KindReaderActivated, CA: rd.CA, Serial: rd.Sign, Actor: "bench"})
				if err := register.Insert(tx, rd); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reader is the i-th reader.
func reader(i int, now time.Time) *readers.Reader {
	rd := &readers.Reader{
		Number: fmt.Sprintf("%010d", i*7), City: fmt.Sprintf("%06d", 110000+i/lot%cities*100), State: readers.Active,
		Model: fmt.Sprintf("CR-%d", i%models), Firmware: fmt.Sprintf("2.%d", i/models%firmwares), Approval: "GB-2026-0117",
		Batch: fmt.Sprintf("m%06d", i/lot), Ticket: fmt.Sprintf("%032x", i/lot), Customer: fmt.Sprintf("c%012d", i),
		NotAfter: now.Add(time.Duration(1+i*31%1800) * 24 * time.Hour),
	}
	rd.CA = rd.City
	if i%10 == 0 {
		rd.State = []readers.State{readers.Initialised, readers.Suspended, readers.Revoked, readers.Retired}[i/10%4]
		rd.Customer = ""
	}
	for _, h := range []readers.Change{
		{Step: "enter", To: readers.Manufactured, Actor: "centre operator"},
		{Step: "prepare", From: readers.Manufactured, To: readers.Prepared, Actor: "centre operator"},
		{Step: "allot", From: readers.Prepared, To: readers.Allotted, Actor: "centre operator"},
		{Step: "initialise", From: readers.Allotted, To: readers.Initialised, Actor: "city operator"},
		{Step: "activate", From: readers.Initialised, To: rd.State, Actor: "city operator"},
	} {
		h.Time = now
		rd.History = append(rd.History, h)
	}
	return rd
}

// certificates records a pair of octets of the usual length: nobody parses them
// here.
func certificates(tx *store.Tx, rd *readers.Reader, now time.Time) error {
	state := map[readers.State]store.State{readers.Active: store.Good, readers.Initialised: store.Held, readers.Suspended: store.Held}[rd.State]
	if state == 0 {
		state = store.Revoked
	}
	der := make([]byte, 700)
	for i, to := range []*store.Serial{&rd.Sign, &rd.Encrypt} {
		rand.Read(der[:64])
		to[0] = 1
		copy(to[1:], der[:16])
		c := store.Certificate{CA: rd.CA, Serial: *to, DER: der, Profile: []string{"reader-sign", "reader-encrypt"}[i], Subject: "CN=r" + rd.Number, Line: to.String(),
			Reader: rd.Number, City: rd.City, Requester: "bench", SPKI: store.Sum(der), NotBefore: now, NotAfter: rd.NotAfter}
		c.Seq = tx.Append(store.Event{Kind: store.KindIssued, CA: c.CA, Serial: c.Serial, Actor: "bench"})
		s := store.Status{CA: c.CA, Serial: c.Serial, State: state, Time: now, NotAfter: c.NotAfter, Seq: c.Seq}
		if err := store.Certificates.Insert(tx, &c); err != nil {
			return err
		}
		if err := store.Statuses.Insert(tx, &s); err != nil {
			return err
		}
	}
	return nil
}
