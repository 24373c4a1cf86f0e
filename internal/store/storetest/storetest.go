// Package storetest has a Store in memory for tests, and the suite that every
// Store passes.
package storetest

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/store"
)

// Mem is a Store in memory. The zero value is empty and ready.
type Mem struct {
	mu sync.Mutex
	m  map[string][]byte
}

// View implements store.Store.
func (s *Mem) View(_ context.Context, fn func(store.Tx) error) error {
	s.mu.Lock()
	snap := maps.Clone(s.m)
	s.mu.Unlock()
	return fn(memTx{snap})
}

// Update implements store.Store.
func (s *Mem) Update(_ context.Context, fn func(store.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := memTx{maps.Clone(s.m)}
	if tx.m == nil {
		tx.m = map[string][]byte{}
	}
	if err := fn(tx); err != nil {
		return err
	}
	s.m = tx.m
	return nil
}

type memTx struct{ m map[string][]byte }

func (t memTx) Get(k string) ([]byte, bool) { b, ok := t.m[k]; return b, ok }
func (t memTx) Put(k string, v []byte)      { t.m[k] = v }
func (t memTx) Delete(k string)             { delete(t.m, k) }
func (t memTx) Scan(p string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(t.m)) {
			if strings.HasPrefix(k, p) && !yield(k, t.m[k]) {
				return
			}
		}
	}
}

// Run checks that the stores which open returns behave as store.Store says.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Run("commit and read back", func(t *testing.T) { testCommit(t, open(t)) })
	t.Run("an error rolls back", func(t *testing.T) { testRollback(t, open(t)) })
	t.Run("scan is ordered and bounded", func(t *testing.T) { testScan(t, open(t)) })
	t.Run("missing record is NotFound", func(t *testing.T) { testMissing(t, open(t)) })
}

type thing struct{ N int }

var things = store.NewTable[thing]("thing")

func testCommit(t *testing.T, s store.Store) {
	must(t, s.Update(t.Context(), func(tx store.Tx) error { return things.Put(tx, "a", thing{1}) }))
	must(t, s.View(t.Context(), func(tx store.Tx) error {
		v, err := things.Get(tx, "a")
		if v.N != 1 {
			t.Errorf("got %+v, want N=1", v)
		}
		return err
	}))
}

func testRollback(t *testing.T, s store.Store) {
	must(t, s.Update(t.Context(), func(tx store.Tx) error { return things.Put(tx, "a", thing{1}) }))
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		things.Delete(tx, "a")
		return errors.Join(things.Put(tx, "b", thing{2}), boom)
	})
	if !errors.Is(err, boom) {
		t.Fatalf("err = %v, want boom", err)
	}
	must(t, s.View(t.Context(), func(tx store.Tx) error {
		if _, err := things.Get(tx, "b"); err == nil {
			t.Error("b was committed")
		}
		_, err := things.Get(tx, "a")
		return err
	}))
}

func testScan(t *testing.T, s store.Store) {
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		for _, k := range []string{"p/b", "p/a", "q/c", "o/z", "p"} {
			tx.Put(k, []byte("{}"))
		}
		return nil
	}))
	var got []string
	must(t, s.View(t.Context(), func(tx store.Tx) error {
		for k := range tx.Scan("p/") {
			got = append(got, k)
		}
		return nil
	}))
	if want := []string{"p/a", "p/b"}; !slices.Equal(got, want) {
		t.Errorf("scan %q, want %q", got, want)
	}
}

func testMissing(t *testing.T, s store.Store) {
	must(t, s.Update(t.Context(), func(store.Tx) error { return nil }))
	must(t, s.View(t.Context(), func(tx store.Tx) error {
		if _, err := things.Get(tx, "nope"); !errdefs.IsNotFound(err) {
			t.Errorf("err = %v, want class NotFound", err)
		}
		return nil
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
