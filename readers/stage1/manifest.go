package stage1

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"hufu/ca"
	"hufu/jobs"
	"hufu/policy"
	"hufu/readers"
	"hufu/store"
)

// Manifest is a maker's list that was taken in. Its ID is the batch of its readers.
type Manifest struct {
	ID       string
	Name     string // of the file
	Sum      store.Hash
	Encoding string
	Readers  int
	Prepared int // of them, whose device key is certified
	Actor    string
	Time     time.Time
	Job      string // the last that worked at it
	Seq      uint64
}

var (
	manifests = store.Table[Manifest]{
		Name:  "stage1.manifest",
		Key:   func(m *Manifest) []byte { return store.Key(m.ID) },
		Codec: store.JSON[Manifest](),
		Indexes: []store.Index[Manifest]{
			{Name: "time", Keys: func(m *Manifest) [][]byte { return [][]byte{store.Key(m.Time, m.ID)} }},
			{Name: "sum", Keys: func(m *Manifest) [][]byte { return [][]byte{store.Key(m.Sum)} }},
		},
	}
	// rows are the readers of manifests that have no device certificate yet. A row
	// claims its number; it goes with the transaction that prepares the reader.
	rows = store.Table[Row]{
		Name:  "stage1.row",
		Key:   func(r *Row) []byte { return store.Key(r.Number) },
		Codec: store.JSON[Row](),
		Indexes: []store.Index[Row]{
			{Name: "manifest", Keys: func(r *Row) [][]byte { return [][]byte{store.Key(r.Manifest, uint64(r.Line))} }},
		},
	}
)

// Manifest returns one manifest.
func (s *Stage) Manifest(ctx context.Context, id string) (m *Manifest, err error) {
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		m, err = manifests.Get(tx, store.Key(id))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking up manifest %q: %w", id, err)
	}
	return m, nil
}

// Manifests returns the manifests, the newest first, page by page.
func (s *Stage) Manifests(ctx context.Context, after []byte, limit int) (list []*Manifest, next []byte, err error) {
	err = s.Book.View(ctx, func(tx *store.Tx) error {
		list, next, err = manifests.Page(tx, store.Query{Index: "time", After: after, Limit: limit, Reverse: true})
		return err
	})
	return list, next, err
}

// CheckManifest reads a manifest and holds it against the models, the register and
// the certificates. The error is *Faults where something is wrong with it.
func (s *Stage) CheckManifest(ctx context.Context, file []byte, encoding string) (*Sheet, error) {
	faults := &Faults{}
	sheet := readSheet(file, encoding, faults)
	err := s.Book.View(ctx, func(tx *store.Tx) error {
		earlier, err := earlierManifest(tx, sheet.Sum)
		if err != nil {
			return err
		}
		return s.hold(tx, sheet, earlier, faults)
	})
	if err != nil {
		return nil, err
	}
	return sheet, faults.orNil()
}

// hold judges the rows by what the book knows. earlier is the same file as it was
// taken in before, nil where it was not.
func (s *Stage) hold(tx *store.Tx, sheet *Sheet, earlier *Manifest, faults *Faults) error {
	list, err := allModels(tx)
	if err != nil {
		return err
	}
	for i := range sheet.Rows {
		row := &sheet.Rows[i]
		s.holdModel(row, list[row.Model], faults)
		if !validNumber(row.Number) || row.SPKI == nil {
			continue // told already
		}
		if earlier == nil {
			if err := s.holdNew(tx, row, faults); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Stage) holdModel(row *Row, m *Model, faults *Faults) {
	if wordFault(row.Model) != "" {
		return
	}
	if m == nil {
		faults.add(row.Line, "model", row.Model, "have the model tested, and add it: hufu model add", "the model is not known")
		return
	}
	switch m.State(s.Now()) {
	case "withdrawn":
		faults.add(row.Line, "model", row.Model, "send the readers back, or add the model anew once it is approved again", "the model was withdrawn on %s", day(m.Withdrawn))
	case "lapsed":
		faults.add(row.Line, "approval", row.Approval, "have the approval renewed, and add the model with its new end", "the approval of model %s lapsed on %s", m.Name, day(m.Until))
	}
	if row.Approval != m.Approval && wordFault(row.Approval) == "" {
		faults.add(row.Line, "approval", row.Approval, "ask the maker which approval the readers have", "the approval of model %s is %s", m.Name, m.Approval)
	}
	if len(m.Firmware) > 0 && !slices.Contains(m.Firmware, row.Firmware) && wordFault(row.Firmware) == "" {
		faults.add(row.Line, "firmware", row.Firmware, "load a firmware that was tested, or have this one tested and add the model with it", "this firmware of model %s was not tested", m.Name)
	}
}

// holdNew judges number and key of a reader that should not be known.
func (s *Stage) holdNew(tx *store.Tx, row *Row, faults *Faults) error {
	rd, err := s.Register.Find(tx, row.Number)
	switch {
	case err == nil:
		faults.add(row.Line, "number", row.Number, "take the reader off the manifest, or ask the maker for its right number", "the reader is registered already, and %s", rd.State)
	case !isNotFound(err):
		return err
	}
	claimed, err := rows.Get(tx, store.Key(row.Number))
	switch {
	case err == nil && claimed.Failed == "":
		faults.add(row.Line, "number", row.Number, "wait for that manifest's job, or take the reader off this one", "it stands on manifest %s, which is being worked at", claimed.Manifest)
	case err != nil && !isNotFound(err):
		return err
	}
	for c, err := range store.Certificates.Scan(tx, "spki", store.Key(store.Sum(row.SPKI))) {
		if err != nil {
			return err
		}
		faults.add(row.Line, "key", "", "have the maker make another key", "certificate %s of CA %s certifies this key already", c.Serial, c.CA)
		break
	}
	return nil
}

func earlierManifest(tx *store.Tx, sum store.Hash) (*Manifest, error) {
	for m, err := range manifests.Scan(tx, "sum", store.Key(sum)) {
		return m, err
	}
	return nil, nil
}

// Import takes a manifest in, as a whole or not at all: it judges it once more in
// the caller's transaction, records it with its rows, and returns the arguments of a
// job of kind JobManifest, which the caller starts in the same transaction. The same
// file again goes on with what is missing of it.
func (s *Stage) Import(tx *store.Tx, sheet *Sheet, name, actor string) (*Manifest, error) {
	if s.DeviceCA == "" {
		return nil, &Refusal{"no-centre", "this node has no device CA", "import manifests at the centre's node"}
	}
	earlier, err := earlierManifest(tx, sheet.Sum)
	if err != nil {
		return nil, err
	}
	if earlier != nil && earlier.Prepared == earlier.Readers {
		return nil, &Refusal{"manifest-known", fmt.Sprintf("the same file was taken in as manifest %s on %s, and all its readers are prepared", earlier.ID, day(earlier.Time)), "nothing needs to be done"}
	}
	faults := &Faults{}
	if err := s.hold(tx, sheet, earlier, faults); err != nil {
		return nil, err
	}
	if err := faults.orNil(); err != nil {
		return nil, err
	}
	if earlier != nil {
		return earlier, nil
	}
	if len(name) > 4*maxWord {
		name = name[:4*maxWord]
	}
	m := &Manifest{ID: newID(), Name: name, Sum: sheet.Sum, Encoding: sheet.Encoding, Readers: len(sheet.Rows), Actor: actor, Time: tx.Now().UTC()}
	m.Seq = tx.Append(store.Event{Kind: KindManifest, Actor: actor, Detail: fmt.Sprintf(`{"manifest":%q,"readers":%d,"sha256":%q}`, m.ID, m.Readers, m.Sum)})
	for i := range sheet.Rows {
		row := sheet.Rows[i]
		row.Manifest = m.ID
		if err := rows.Put(tx, &row); err != nil {
			return nil, fmt.Errorf("recording reader %s of the manifest: %w", row.Number, err)
		}
	}
	return m, manifests.Insert(tx, m)
}

// StartedManifest notes the job that works at a manifest.
func (s *Stage) StartedManifest(tx *store.Tx, m *Manifest, job string) error {
	m.Job = job
	return manifests.Put(tx, m)
}

// newID is 16 octets of chance as 32 hexadecimal digits.
func newID() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// ManifestArgs are the arguments of a job of kind JobManifest.
type ManifestArgs struct{ Manifest string }

// certify is the job: it enters the readers of a manifest and certifies their
// device keys, a chunk at a time.
func (s *Stage) certify(ctx context.Context, r *jobs.Run) error {
	var args ManifestArgs
	if err := json.Unmarshal(r.Args, &args); err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	var cursor struct{ After []byte }
	if len(r.Cursor) > 0 {
		if err := json.Unmarshal(r.Cursor, &cursor); err != nil {
			return fmt.Errorf("reading where the manifest stopped: %w", err)
		}
	}
	m, err := s.Manifest(ctx, args.Manifest)
	if err != nil {
		return err
	}
	if err := r.Progress(ctx, int64(m.Prepared), int64(m.Readers)); err != nil {
		return err
	}
	for tries := 0; ; {
		var page []*Row
		var next []byte
		err := s.Book.View(ctx, func(tx *store.Tx) (err error) {
			page, next, err = rows.Page(tx, store.Query{Index: "manifest", Prefix: store.Key(m.ID), After: cursor.After, Limit: chunk})
			return err
		})
		if err != nil {
			return fmt.Errorf("reading the readers of manifest %s: %w", m.ID, err)
		}
		if len(page) == 0 {
			return nil
		}
		items, err := s.certifySome(ctx, page, r.Actor)
		if err != nil {
			return err
		}
		if trouble := tokenTrouble(items); trouble != nil {
			// A token that does not sign may only be restarting.
			if tries++; tries == maxTries {
				return fmt.Errorf("giving the manifest up, the token does not sign: %w", trouble)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
			}
			continue
		}
		tries, cursor.After = 0, next
		if err := s.saveCertified(ctx, r, cursor, items); err != nil {
			return err
		}
		if next == nil {
			return nil
		}
	}
}

const maxTries = 60

// outcome is what became of one reader of a chunk.
type outcome struct {
	row    *Row
	serial store.Serial
	err    error
}

func tokenTrouble(list []outcome) error {
	for i := range list {
		if signing := new(ca.SigningError); errors.As(list[i].err, &signing) {
			return signing
		}
	}
	return nil
}

func (s *Stage) certifySome(ctx context.Context, page []*Row, actor string) ([]outcome, error) {
	list := make([]outcome, len(page))
	orders := make([]ca.Order, len(page))
	for i, row := range page {
		list[i].row = row
		orders[i] = s.deviceOrder(row, actor)
	}
	err := s.Authority.IssueBatch(ctx, orders, func(i int, certs []*store.Certificate, err error) error {
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
				return err // not the reader's fault: it is tried again
			}
			list[i].err = err
			return nil
		}
		list[i].serial = certs[0].Serial
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("certifying the device keys of manifest %s: %w", page[0].Manifest, err)
	}
	return list, nil
}

// deviceOrder asks for a device certificate. The reader is entered when the serial
// number is reserved, and prepared, and its row removed, with the certificate.
func (s *Stage) deviceOrder(row *Row, actor string) ca.Order {
	q := ca.Request{CA: s.DeviceCA, Profile: "device", CSR: row.CSR, Name: policy.Name{Reader: row.Number}}
	if row.CSR == nil {
		q.SPKI, q.Vouched = row.SPKI, true
	}
	return ca.Order{
		Requests: []ca.Request{q}, Requester: actor, IdempotencyKey: "manifest " + row.Manifest + " reader " + row.Number,
		Reserve: func(tx *store.Tx, _ []*store.Certificate) error {
			rd, err := s.Register.Find(tx, row.Number)
			if err == nil && rd.Batch == row.Manifest && rd.State == readers.Manufactured {
				return nil // of an earlier try
			}
			if err != nil && !isNotFound(err) {
				return err
			}
			_, err = s.Register.Enter(tx, readers.Reader{Number: row.Number, Model: row.Model, Firmware: row.Firmware, Approval: row.Approval,
				Batch: row.Manifest, DeviceKey: store.Sum(row.SPKI)}, actor)
			return err
		},
		Commit: func(tx *store.Tx, certs []*store.Certificate) error {
			if _, err := s.Register.Prepare(tx, row.Number, certs[0], actor); err != nil {
				return err
			}
			if err := rows.Delete(tx, store.Key(row.Number)); err != nil {
				return fmt.Errorf("reader %s of the manifest: %w", row.Number, err)
			}
			m, err := manifests.Get(tx, store.Key(row.Manifest))
			if err != nil {
				return err
			}
			m.Prepared++
			return manifests.Put(tx, m)
		},
	}
}

// saveCertified records the results of a chunk, and with them why a row failed.
func (s *Stage) saveCertified(ctx context.Context, r *jobs.Run, cursor any, list []outcome) error {
	return r.SaveWith(ctx, cursor, func(tx *store.Tx) ([]jobs.Item, error) {
		items := make([]jobs.Item, len(list))
		for i := range list {
			o := &list[i]
			items[i] = jobs.Item{Name: o.row.Number, OK: o.err == nil}
			if o.err == nil {
				items[i].Result, _ = json.Marshal(map[string]string{"device": o.serial.String()})
				continue
			}
			items[i].Error = o.err.Error()
			row := *o.row
			row.Failed = items[i].Error
			if err := rows.Put(tx, &row); err != nil {
				return nil, err
			}
		}
		return items, nil
	})
}
