package topup

import (
	"context"
	"time"

	"hufu/store"
)

// Agreement lets readers of either city load cards of the other. It stands where
// both have approved the same end.
type Agreement struct {
	A, B     string // city codes, A < B
	Until    time.Time
	Approved map[string]string // city → who approved for it
	Ended    bool
	Seq      uint64
}

// ApproveAgreement records city's approval of an agreement with other.
func ApproveAgreement(tx *store.Tx, city, other string, until time.Time, actor string) (*Agreement, error) {
	return nil, errNotBuilt
}

// EndAgreement ends an agreement; either city may.
func EndAgreement(tx *store.Tx, city, other string, actor string) (*Agreement, error) {
	return nil, errNotBuilt
}

// Agreements lists agreements, those of one city or all.
func (s *Service) Agreements(ctx context.Context, city string, after []byte, limit int) (list []*Agreement, next []byte, err error) {
	return nil, nil, errNotBuilt
}
