package storetest_test

import (
	"testing"

	"isle/internal/store"
	"isle/internal/store/storetest"
)

func TestMem(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return &storetest.Mem{} })
}
