package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"hufu/examples/topup/purse"
)

// masters are the city's master keys, one level above the cards'.
type masters struct{ Load, TAC purse.Key }

// readMasters reads the city's keys; a file that others can read is refused.
func readMasters(path string) (*masters, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o); chmod 600 it", path, info.Mode().Perm())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &masters{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%s does not hold the city's keys: %w", path, err)
	}
	return m, nil
}

// card derives a card's keys from its application serial number.
func (m *masters) card(asn []byte) (load, tac purse.Key) {
	factor := [8]byte(asn[len(asn)-8:])
	return m.Load.Diversify(factor), m.TAC.Diversify(factor)
}

func personalise(keys, code, asn string, fen uint64, out string) error {
	m, err := readMasters(keys)
	if errors.Is(err, fs.ErrNotExist) {
		m = &masters{}
		rand.Read(m.Load[:])
		rand.Read(m.TAC[:])
		raw, _ := json.Marshal(m)
		err = os.WriteFile(keys, raw, 0o600)
	}
	if err != nil {
		return err
	}
	serial, err := hex.DecodeString(asn)
	if err != nil || len(serial) != 10 {
		return fmt.Errorf("-asn %q is not 20 digits", asn)
	}
	city, err := hex.DecodeString(code)
	if err != nil || len(city) != 3 {
		return fmt.Errorf("-city %q is not six digits", code)
	}
	card := purse.Memory{ASN: [10]byte(serial), City: [3]byte(city), Balance: uint32(fen), Online: 1, Offline: 1}
	card.LoadKey, card.TACKey = m.card(serial)
	raw, err := json.Marshal(card)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, raw, 0o600); err != nil {
		return err
	}
	fmt.Printf("city %s: card %s personalised with %d.%02d yuan\n", code, asn, fen/100, fen%100)
	return nil
}
