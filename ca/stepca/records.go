package stepca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"time"

	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"hufu/store"
)

var noTime time.Time

// The records below have smallstep's fields without their JSON tags, which
// leave IDs out. The conversions in this file stop compiling when smallstep
// adds a field.
type account struct {
	ID                     string
	Key                    *jose.JSONWebKey
	Contact                []string
	Status                 acme.Status
	OrdersURL              string
	ExternalAccountBinding any
	LocationPrefix         string
	ProvisionerID          string
	ProvisionerName        string
}

type accountRow struct {
	KeyID string // of the account's key: one key, one account
	account
}

type authorization struct {
	ID          string
	AccountID   string
	Token       string
	Fingerprint string
	Identifier  acme.Identifier
	Status      acme.Status
	Challenges  []*acme.Challenge
	Wildcard    bool
	ExpiresAt   time.Time
	Error       *acme.Error
}

type authorizationRow struct {
	ChallengeIDs []string
	authorization
}

type challenge struct {
	ID              string
	AccountID       string
	AuthorizationID string
	Value           string
	Type            acme.ChallengeType
	Status          acme.Status
	Token           string
	ValidatedAt     string
	URL             string
	Target          string
	Error           *acme.Error
	Payload         []byte
	PayloadFormat   string
}

type order struct {
	ID                string
	AccountID         string
	ProvisionerID     string
	Status            acme.Status
	ExpiresAt         time.Time
	Identifiers       []acme.Identifier
	NotBefore         time.Time
	NotAfter          time.Time
	Error             *acme.Error
	AuthorizationIDs  []string
	AuthorizationURLs []string
	FinalizeURL       string
	CertificateID     string
	CertificateURL    string
}

type certificate struct {
	ID, AccountID, OrderID string
	Leaf                   []byte
	Intermediates          [][]byte
	Serial                 string // decimal, as smallstep asks for it
	SPKI                   store.Hash
	Line                   string
}

// ACME's tables of the book.
var (
	accounts = store.Table[accountRow]{Name: "acme.account", Codec: store.JSON[accountRow](), Key: func(a *accountRow) []byte { return store.Key(a.ID) },
		Indexes: []store.Index[accountRow]{{Name: "key", Keys: func(a *accountRow) [][]byte { return [][]byte{store.Key(a.KeyID)} }}}}
	authorizations = store.Table[authorizationRow]{Name: "acme.authz", Codec: store.JSON[authorizationRow](), Key: func(a *authorizationRow) []byte { return store.Key(a.ID) },
		Indexes: []store.Index[authorizationRow]{{Name: "account", Keys: func(a *authorizationRow) [][]byte { return [][]byte{store.Key(a.AccountID)} }}}}
	challenges = store.Table[challenge]{Name: "acme.challenge", Codec: store.JSON[challenge](), Key: func(c *challenge) []byte { return store.Key(c.ID) }}
	orders     = store.Table[order]{Name: "acme.order", Codec: store.JSON[order](), Key: func(o *order) []byte { return store.Key(o.ID) },
		Indexes: []store.Index[order]{
			{Name: "account", Keys: func(o *order) [][]byte { return [][]byte{store.Key(o.AccountID)} }},
			{Name: "expiry", Keys: func(o *order) [][]byte { return [][]byte{store.Key(o.ExpiresAt)} }},
		}}
	certificates = store.Table[certificate]{Name: "acme.cert", Codec: store.JSON[certificate](), Key: func(c *certificate) []byte { return store.Key(c.ID) },
		Indexes: []store.Index[certificate]{
			{Name: "serial", Keys: func(c *certificate) [][]byte { return [][]byte{store.Key(c.Serial)} }},
			{Name: "spki", Keys: func(c *certificate) [][]byte { return [][]byte{store.Key(c.SPKI)} }},
		}}
)

// Tables are the tables that this package keeps in the book, for store.Config.
var Tables = []store.Checked{&accounts, &authorizations, &challenges, &orders, &certificates}

// records is smallstep's ACME database over the book.
type records struct {
	book   *store.Book
	now    func() time.Time
	nonces *nonces
}

var _ acme.DB = (*records)(nil)

var errNoEAB = errors.New("external account binding is not offered")

func newID() string { return rand.Text() }

// get reads one row and says "not found" in smallstep's words.
func get[T any](ctx context.Context, r *records, t *store.Table[T], id string) (row *T, err error) {
	err = r.book.View(ctx, func(tx *store.Tx) error {
		row, err = t.Get(tx, store.Key(id))
		return err
	})
	return row, notFound(err)
}

func notFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return acme.ErrNotFound
	}
	return err
}

func insert[T any](ctx context.Context, r *records, t *store.Table[T], row *T) error {
	return r.book.Update(ctx, func(tx *store.Tx) error { return t.Insert(tx, row) })
}

func put[T any](ctx context.Context, r *records, t *store.Table[T], row *T) error {
	return notFound(r.book.Update(ctx, func(tx *store.Tx) error {
		if _, err := t.Get(tx, t.Key(row)); err != nil {
			return err
		}
		return t.Put(tx, row)
	}))
}

// CreateAccount records an account; a key that has one already is refused.
func (r *records) CreateAccount(ctx context.Context, a *acme.Account) error {
	a.ID = newID()
	kid, err := acme.KeyToID(a.Key)
	if err != nil {
		return err
	}
	row := &accountRow{KeyID: kid, account: account(*a)}
	return r.book.Update(ctx, func(tx *store.Tx) error {
		same, _, err := accounts.Page(tx, store.Query{Index: "key", Prefix: store.Key(kid), Limit: 1})
		if err != nil {
			return err
		}
		if len(same) > 0 {
			return store.ErrExists
		}
		return accounts.Insert(tx, row)
	})
}

func (r *records) GetAccount(ctx context.Context, id string) (*acme.Account, error) {
	row, err := get(ctx, r, &accounts, id)
	if err != nil {
		return nil, err
	}
	a := acme.Account(row.account)
	return &a, nil
}

func (r *records) GetAccountByKeyID(ctx context.Context, kid string) (*acme.Account, error) {
	var a *acme.Account
	err := r.book.View(ctx, func(tx *store.Tx) error {
		rows, _, err := accounts.Page(tx, store.Query{Index: "key", Prefix: store.Key(kid), Limit: 1})
		if err == nil && len(rows) == 0 {
			err = store.ErrNotFound
		}
		if err != nil {
			return err
		}
		found := acme.Account(rows[0].account)
		a = &found
		return nil
	})
	return a, notFound(err)
}

func (r *records) UpdateAccount(ctx context.Context, a *acme.Account) error {
	kid, err := acme.KeyToID(a.Key)
	if err != nil {
		return err
	}
	return put(ctx, r, &accounts, &accountRow{KeyID: kid, account: account(*a)})
}

func (r *records) CreateNonce(context.Context) (acme.Nonce, error) { return r.nonces.create(), nil }

func (r *records) DeleteNonce(_ context.Context, n acme.Nonce) error { return r.nonces.use(n) }

func (r *records) CreateAuthorization(ctx context.Context, az *acme.Authorization) error {
	az.ID = newID()
	return insert(ctx, r, &authorizations, rowOfAuthorization(az))
}

func rowOfAuthorization(az *acme.Authorization) *authorizationRow {
	row := &authorizationRow{authorization: authorization(*az)}
	row.Challenges = nil
	for _, c := range az.Challenges {
		row.ChallengeIDs = append(row.ChallengeIDs, c.ID)
	}
	return row
}

func (r *records) GetAuthorization(ctx context.Context, id string) (az *acme.Authorization, err error) {
	err = r.book.View(ctx, func(tx *store.Tx) error {
		row, err := authorizations.Get(tx, store.Key(id))
		if err != nil {
			return err
		}
		az, err = whole(tx, row)
		return err
	})
	return az, notFound(err)
}

// whole gives an authorisation its challenges back.
func whole(tx *store.Tx, row *authorizationRow) (*acme.Authorization, error) {
	az := acme.Authorization(row.authorization)
	for _, id := range row.ChallengeIDs {
		c, err := challenges.Get(tx, store.Key(id))
		if err != nil {
			return nil, err
		}
		ch := acme.Challenge(*c)
		az.Challenges = append(az.Challenges, &ch)
	}
	return &az, nil
}

func (r *records) UpdateAuthorization(ctx context.Context, az *acme.Authorization) error {
	return put(ctx, r, &authorizations, rowOfAuthorization(az))
}

func (r *records) GetAuthorizationsByAccountID(ctx context.Context, id string) (list []*acme.Authorization, err error) {
	err = r.book.View(ctx, func(tx *store.Tx) error {
		list = nil
		for row, err := range authorizations.Scan(tx, "account", store.Key(id)) {
			if err != nil {
				return err
			}
			az, err := whole(tx, row)
			if err != nil {
				return err
			}
			list = append(list, az)
		}
		return nil
	})
	return list, err
}

func (r *records) CreateChallenge(ctx context.Context, ch *acme.Challenge) error {
	ch.ID = newID()
	row := challenge(*ch)
	return insert(ctx, r, &challenges, &row)
}

func (r *records) GetChallenge(ctx context.Context, id, _ string) (*acme.Challenge, error) {
	row, err := get(ctx, r, &challenges, id)
	if err != nil {
		return nil, err
	}
	ch := acme.Challenge(*row)
	return &ch, nil
}

func (r *records) UpdateChallenge(ctx context.Context, ch *acme.Challenge) error {
	row := challenge(*ch)
	return put(ctx, r, &challenges, &row)
}

func (r *records) CreateOrder(ctx context.Context, o *acme.Order) error {
	o.ID = newID()
	row := order(*o)
	return r.book.Update(ctx, func(tx *store.Tx) error {
		if err := r.forget(tx); err != nil {
			return err
		}
		return orders.Insert(tx, &row)
	})
}

// Orders are forgotten a while after their end, two for each new one, so that
// what strangers began does not stay for ever. Certificates and accounts stay.
const (
	orderKept = 7 * 24 * time.Hour
	forgotten = 2
)

func (r *records) forget(tx *store.Tx) error {
	old, _, err := orders.Page(tx, store.Query{Index: "expiry", Limit: forgotten})
	if err != nil {
		return err
	}
	for _, o := range old {
		if r.now().Sub(o.ExpiresAt) < orderKept {
			return nil
		}
		for _, id := range o.AuthorizationIDs {
			if err := forgetAuthorization(tx, id); err != nil {
				return err
			}
		}
		if err := orders.Delete(tx, store.Key(o.ID)); err != nil {
			return err
		}
	}
	return nil
}

func forgetAuthorization(tx *store.Tx, id string) error {
	row, err := authorizations.Get(tx, store.Key(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range row.ChallengeIDs {
		if err := challenges.Delete(tx, store.Key(c)); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return authorizations.Delete(tx, store.Key(id))
}

func (r *records) GetOrder(ctx context.Context, id string) (*acme.Order, error) {
	row, err := get(ctx, r, &orders, id)
	if err != nil {
		return nil, err
	}
	o := acme.Order(*row)
	return &o, nil
}

func (r *records) UpdateOrder(ctx context.Context, o *acme.Order) error {
	row := order(*o)
	return put(ctx, r, &orders, &row)
}

// GetOrdersByAccountID lists the orders that can still be worked on, as
// RFC 8555, Section 7.1.2.1 has it.
func (r *records) GetOrdersByAccountID(ctx context.Context, id string) (ids []string, err error) {
	err = r.book.View(ctx, func(tx *store.Tx) error {
		ids = nil
		for o, err := range orders.Scan(tx, "account", store.Key(id)) {
			if err != nil {
				return err
			}
			if o.Status != acme.StatusInvalid {
				ids = append(ids, o.ID)
			}
		}
		return nil
	})
	return ids, err
}

// CreateCertificate records that an order's certificate is delivered; from now
// on its key's next order is a renewal.
func (r *records) CreateCertificate(ctx context.Context, c *acme.Certificate) error {
	c.ID = newID()
	serial, err := store.SerialFrom(c.Leaf.SerialNumber)
	if err != nil {
		return err
	}
	row := &certificate{ID: c.ID, AccountID: c.AccountID, OrderID: c.OrderID, Leaf: c.Leaf.Raw, Serial: c.Leaf.SerialNumber.String(),
		SPKI: store.Sum(c.Leaf.RawSubjectPublicKeyInfo)}
	for _, i := range c.Intermediates {
		row.Intermediates = append(row.Intermediates, i.Raw)
	}
	return r.book.Update(ctx, func(tx *store.Tx) error {
		rows, _, err := store.Certificates.Page(tx, store.Query{Index: "serial", Prefix: store.Key(serial), Limit: 1})
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return store.ErrNotFound
		}
		row.Line = rows[0].Line
		return certificates.Insert(tx, row)
	})
}

func (r *records) GetCertificate(ctx context.Context, id string) (*acme.Certificate, error) {
	row, err := get(ctx, r, &certificates, id)
	if err != nil {
		return nil, err
	}
	return parsed(row)
}

func (r *records) GetCertificateBySerial(ctx context.Context, decimal string) (c *acme.Certificate, err error) {
	err = r.book.View(ctx, func(tx *store.Tx) error {
		rows, _, err := certificates.Page(tx, store.Query{Index: "serial", Prefix: store.Key(decimal), Limit: 1})
		if err == nil && len(rows) == 0 {
			err = store.ErrNotFound
		}
		if err == nil {
			c, err = parsed(rows[0])
		}
		return err
	})
	return c, notFound(err)
}

func parsed(row *certificate) (*acme.Certificate, error) {
	leaf, err := x509.ParseCertificate(row.Leaf)
	if err != nil {
		return nil, err
	}
	c := &acme.Certificate{ID: row.ID, AccountID: row.AccountID, OrderID: row.OrderID, Leaf: leaf}
	for _, der := range row.Intermediates {
		i, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		c.Intermediates = append(c.Intermediates, i)
	}
	return c, nil
}

// External account binding is not offered: the provisioner does not ask for it.

func (r *records) CreateExternalAccountKey(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, errNoEAB
}

func (r *records) GetExternalAccountKey(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, acme.ErrNotFound
}

func (r *records) GetExternalAccountKeys(context.Context, string, string, int) ([]*acme.ExternalAccountKey, string, error) {
	return nil, "", nil
}

func (r *records) GetExternalAccountKeyByReference(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, acme.ErrNotFound
}

func (r *records) GetExternalAccountKeyByAccountID(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, acme.ErrNotFound
}

func (r *records) DeleteExternalAccountKey(context.Context, string, string) error { return errNoEAB }

func (r *records) UpdateExternalAccountKey(context.Context, string, *acme.ExternalAccountKey) error {
	return errNoEAB
}
