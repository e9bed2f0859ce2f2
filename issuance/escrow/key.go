package escrow

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"hufu/store"
)

// State says where a kept key is in its life. It only ever goes on.
type State uint8

// The states.
const (
	Spare   State = iota + 1 // made, nobody's
	Claimed                  // one reader's, its certificate not there yet
	InUse                    // of a certificate
	History                  // its certificate has ended, or its reader never got one
	states
)

var stateNames = [states]string{Spare: "spare", Claimed: "claimed", InUse: "in-use", History: "history"}

func (s State) String() string {
	if s > 0 && s < states {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Key is a key that the centre keeps. Its private half stands in Blob, wrapped.
type Key struct {
	Hash     store.Hash // SHA-256 of SPKI
	State    State
	Epoch    uint64 // of the book, when it was made
	Kind     string // of hsm.KeyKind
	SPKI     []byte
	Blob     []byte // PKCS #8, wrapped by RFC 5649
	Wrapping string // label of the token's key that wrapped it
	Reader   string // from Claimed on
	City     string
	CA       string // of its certificate, from InUse on
	Serial   store.Serial
	NotAfter time.Time // of its certificate
	Made     time.Time
	Changed  time.Time // when State was reached
	Seq      uint64    // the event of the last change
}

// kept has the primary key Key(Hash) and the indexes "state" Key(State, Epoch, Made), "reader" Key(Reader, State),
// "certificate" SerialKey(CA, Serial), and "expiry" Key(NotAfter) of those in use.
var kept = store.Table[Key]{
	Name:  "escrow.key",
	Key:   func(k *Key) []byte { return store.Key(k.Hash) },
	Codec: store.Codec[Key]{Append: appendKey, Decode: decodeKey},
	Indexes: []store.Index[Key]{
		{Name: "state", Keys: func(k *Key) [][]byte { return [][]byte{store.Key(uint8(k.State), k.Epoch, k.Made)} }},
		{Name: "reader", Keys: func(k *Key) [][]byte {
			if k.Reader == "" {
				return nil
			}
			return [][]byte{store.Key(k.Reader, uint8(k.State))}
		}},
		{Name: "certificate", Keys: func(k *Key) [][]byte {
			if k.CA == "" {
				return nil
			}
			return [][]byte{store.SerialKey(k.CA, k.Serial)}
		}},
		{Name: "expiry", Keys: func(k *Key) [][]byte {
			if k.State != InUse {
				return nil
			}
			return [][]byte{store.Key(k.NotAfter)}
		}},
	},
}

// pool is the one row that counts the keys, so that nobody counts them by reading all.
type pool struct {
	N      [states]uint64        // by state
	Made   uint64                // ever; none is deleted, so it is the sum of N
	Cursor uint64                // how far the journal was followed
	Under  map[string]store.Hash // for each wrapping key that was ever used, the first key under it
}

const poolKey = "pool"

var pools = store.Table[pool]{
	Name:  "escrow.pool",
	Key:   func(*pool) []byte { return store.Key(poolKey) },
	Codec: store.JSON[pool](),
}

// Tables are the tables of this package, for store.Config.
var Tables = []store.Checked{&kept, &pools}

func poolOf(tx *store.Tx) (*pool, error) {
	p, err := pools.Get(tx, store.Key(poolKey))
	if errors.Is(err, store.ErrNotFound) {
		return &pool{}, nil
	}
	return p, err
}

// Kinds of events.
const (
	KindMade      = "escrow.made"      // a chunk of keys
	KindClaimed   = "escrow.claimed"   // for a reader
	KindInUse     = "escrow.in-use"    // with a certificate
	KindHistory   = "escrow.history"   // it has ended
	KindDelivered = "escrow.delivered" // sealed for a one-time key
	KindRecovered = "escrow.recovered" // sealed for a recipient, with an approval
	KindRefused   = "escrow.refused"   // a recovery that was not granted
)

var kindOf = [states]string{Claimed: KindClaimed, InUse: KindInUse, History: KindHistory}

// detail is what the journal says of a key.
type detail struct {
	SPKI      store.Hash `json:"spki,omitzero"`
	Reader    string     `json:"reader,omitempty"`
	City      string     `json:"city,omitempty"`
	From      string     `json:"from,omitempty"`
	Why       string     `json:"why,omitempty"`
	Keys      int        `json:"keys,omitempty"`
	Kind      string     `json:"kind,omitempty"`
	SHA256    store.Hash `json:"sha256,omitzero"` // of the hashes of a chunk's keys, or of an envelope
	Transport store.Hash `json:"transport,omitzero"`
	Recipient store.Hash `json:"recipient,omitzero"`
	Approval  string     `json:"approval,omitempty"`
	Reason    string     `json:"reason,omitempty"`
}

func (d detail) String() string {
	b, _ := json.Marshal(d) // strings, hashes and a number: it cannot fail
	return string(b)
}

// move takes a key on to a state, counts it there and writes it into the journal.
func move(tx *store.Tx, k *Key, to State, actor, why string) error {
	p, err := poolOf(tx)
	if err != nil {
		return err
	}
	from := k.State
	if from >= to || p.N[from] == 0 {
		return &StateError{SPKI: k.Hash, State: from, Step: to.String(), Remedy: "a kept key only ever goes on: look at the journal"}
	}
	p.N[from]--
	p.N[to]++
	k.State, k.Changed = to, tx.Now().UTC()
	k.Seq = tx.Append(store.Event{Kind: kindOf[to], CA: k.CA, Serial: k.Serial, Actor: actor,
		Detail: detail{SPKI: k.Hash, Reader: k.Reader, City: k.City, From: from.String(), Why: why}.String()})
	if err := kept.Put(tx, k); err != nil {
		return fmt.Errorf("recording the kept key %s: %w", k.Hash, err)
	}
	return pools.Put(tx, p)
}

// StateError says that a key is not in the state that a step needs.
type StateError struct {
	SPKI   store.Hash
	State  State
	Step   string
	Remedy string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("the kept key %s is %v, which does not allow %q: %s", e.SPKI, e.State, e.Step, e.Remedy)
}

// The layout of a key: 01, state, hash, epoch, serial, times in Unix nanoseconds (made,
// changed, notAfter), Seq, then strings and octets with their length in front: kind,
// wrapping, reader, city, CA, SPKI, blob.
func appendKey(dst []byte, k *Key) []byte {
	b := cryptobyte.NewBuilder(dst)
	b.AddUint8(1)
	b.AddUint8(uint8(k.State))
	b.AddBytes(k.Hash[:])
	b.AddUint64(k.Epoch)
	b.AddBytes(k.Serial[:])
	for _, t := range []time.Time{k.Made, k.Changed, k.NotAfter} {
		b.AddUint64(uint64(nanoseconds(t)))
	}
	b.AddUint64(k.Seq)
	for _, s := range []string{k.Kind, k.Wrapping, k.Reader, k.City, k.CA, string(k.SPKI), string(k.Blob)} {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
	}
	return b.BytesOrPanic() // the longest is the blob of an RSA key, 2.4 KB
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func decodeKey(src []byte, k *Key) error {
	in := cryptobyte.String(src)
	*k = Key{}
	var layout, state uint8
	ok := in.ReadUint8(&layout) && layout == 1 && in.ReadUint8(&state) && state > 0 && state < uint8(states) &&
		in.CopyBytes(k.Hash[:]) && in.ReadUint64(&k.Epoch) && in.CopyBytes(k.Serial[:])
	k.State = State(state)
	for _, t := range []*time.Time{&k.Made, &k.Changed, &k.NotAfter} {
		var n uint64
		if ok = ok && in.ReadUint64(&n); ok && n != 0 {
			*t = time.Unix(0, int64(n)).UTC()
		}
	}
	ok = ok && in.ReadUint64(&k.Seq)
	var spki, blob string
	for _, to := range []*string{&k.Kind, &k.Wrapping, &k.Reader, &k.City, &k.CA, &spki, &blob} {
		var s cryptobyte.String
		ok = ok && in.ReadUint16LengthPrefixed(&s)
		*to = string(s)
	}
	k.SPKI, k.Blob = []byte(spki), []byte(blob)
	if !ok || !in.Empty() {
		return errors.New("it is not the record of a kept key")
	}
	return nil
}
