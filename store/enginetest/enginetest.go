// Package enginetest holds every store.Engine to one contract.
package enginetest

import (
	"testing"

	"hufu/store"
)

// Run holds the engines that open returns to the contract of store.Engine. open returns a fresh, empty engine each time.
func Run(t *testing.T, open func(t *testing.T) store.Engine) { t.Fatal("not built yet") }
