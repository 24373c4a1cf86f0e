package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/store"
	"isle/internal/store/etcd"
	"isle/internal/store/etcd/etcdtest"
	"isle/internal/store/storetest"
)

var n atomic.Int64

// prefix is one that no other test has.
func prefix() string { return "/test" + strconv.FormatInt(n.Add(1), 10) + "/" }

func TestConformance(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t).Client(t)
	storetest.Run(t, func(*testing.T) store.Store { return etcd.Store{Client: c, Prefix: prefix()} })
}

// TestIsolation: transactions that read what others write behave as if they ran one
// after another.
func TestIsolation(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t).Client(t)
	t.Run("a counter", func(t *testing.T) { testCounter(t, c) })
	t.Run("a scan and a new record", func(t *testing.T) { testScanSees(t, c, func(tx store.Tx) { tx.Put("thing/b", nil) }) })
	t.Run("a scan and a removed record", func(t *testing.T) { testScanSees(t, c, func(tx store.Tx) { tx.Delete("thing/a") }) })
	t.Run("a scan of less than a part", func(t *testing.T) { testPartScan(t, c) })
	t.Run("one snapshot", func(t *testing.T) { testSnapshot(t, c) })
	t.Run("own writes", func(t *testing.T) { testOwnWrites(t, c) })
}

func testCounter(t *testing.T, c *clientv3.Client) {
	s := etcd.Store{Client: c, Prefix: prefix(), Timeout: 20 * time.Second}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				must(t, s.Update(t.Context(), func(tx store.Tx) error {
					b, _ := tx.Get("n")
					i, _ := strconv.Atoi(string(b))
					tx.Put("n", strconv.AppendInt(nil, int64(i+1), 10))
					return nil
				}))
			}
		})
	}
	wg.Wait()
	if got := value(t, s, "n"); got != "80" {
		t.Errorf("80 increments made %s", got)
	}
}

// testScanSees: between a scan and its commit something changes: fn runs again.
func testScanSees(t *testing.T, c *clientv3.Client, change func(store.Tx)) {
	s := etcd.Store{Client: c, Prefix: prefix()}
	must(t, s.Update(t.Context(), func(tx store.Tx) error { tx.Put("thing/a", nil); return nil }))
	var seen []int
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		seen = append(seen, len(keys(tx, "thing/")))
		if len(seen) == 1 {
			must(t, s.Update(t.Context(), func(tx store.Tx) error { change(tx); return nil }))
		}
		tx.Put("count", nil)
		return nil
	}))
	if len(seen) != 2 || seen[0] == seen[1] {
		t.Errorf("seen %v, want two runs with different results", seen)
	}
}

func testPartScan(t *testing.T, c *clientv3.Client) {
	s := etcd.Store{Client: c, Prefix: prefix()}
	must(t, s.Update(t.Context(), func(tx store.Tx) error { tx.Put("thing/a", nil); return nil }))
	runs := 0
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		keys(tx, "th")
		if runs++; runs == 1 {
			must(t, s.Update(t.Context(), func(tx store.Tx) error { tx.Delete("thing/a"); return nil }))
		}
		tx.Put("x", nil)
		return nil
	}))
	if runs != 2 {
		t.Errorf("%d runs, want 2", runs)
	}
}

func testSnapshot(t *testing.T, c *clientv3.Client) {
	s := etcd.Store{Client: c, Prefix: prefix()}
	put(t, s, "a", "1")
	must(t, s.View(t.Context(), func(tx store.Tx) error {
		etcd.Prefetch(tx, "other")
		put(t, s, "a", "2")
		if b, _ := tx.Get("a"); string(b) != "1" {
			t.Errorf("a = %s after the snapshot, want 1", b)
		}
		return nil
	}))
}

func testOwnWrites(t *testing.T, c *clientv3.Client) {
	s := etcd.Store{Client: c, Prefix: prefix()}
	put(t, s, "p/a", "1")
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		tx.Put("p/b", []byte("2"))
		tx.Delete("p/a")
		if got := keys(tx, "p/"); !slices.Equal(got, []string{"p/b"}) {
			t.Errorf("scan %q", got)
		}
		if _, ok := tx.Get("p/a"); ok {
			t.Error("a deleted record is read")
		}
		return nil
	}))
}

// TestMany: what does not fit into one answer is read all the same.
func TestMany(t *testing.T) {
	t.Parallel()
	s := etcd.Store{Client: etcdtest.Start(t).Client(t), Prefix: prefix(), Timeout: 20 * time.Second}
	for i := range 110 {
		must(t, s.Update(t.Context(), func(tx store.Tx) error {
			for j := range 100 {
				tx.Put(fmt.Sprintf("k/%05d", i*100+j), nil)
			}
			return nil
		}))
	}
	must(t, s.View(t.Context(), func(tx store.Tx) error {
		if got := keys(tx, "k/"); len(got) != 11000 || !slices.IsSorted(got) {
			t.Errorf("%d keys, sorted %v", len(got), slices.IsSorted(got))
		}
		return nil
	}))
}

// TestTooMuch: what no etcd takes in one transaction is refused as such.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	s := etcd.Store{Client: etcdtest.Start(t).Client(t), Prefix: prefix()}
	err := s.Update(t.Context(), func(tx store.Tx) error {
		for i := range 200 {
			tx.Put(strconv.Itoa(i), nil)
		}
		return nil
	})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v, want class InvalidArgument", err)
	}
}

// TestUnavailable: without an etcd every call ends in bounded time, and what a
// transaction made of records that it could not read does not count.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	srv := etcdtest.Start(t)
	s := etcd.Store{Client: srv.Client(t), Prefix: prefix(), Timeout: 300 * time.Millisecond}
	put(t, s, "a", "1")
	srv.Close()
	missing := func(tx store.Tx) error {
		if _, ok := tx.Get("a"); !ok {
			return errdefs.ErrNotFound
		}
		return nil
	}
	if err := s.View(t.Context(), missing); !errdefs.IsUnavailable(err) {
		t.Errorf("view: %v, want class Unavailable", err)
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error { tx.Put("a", nil); return nil }); !errdefs.IsUnavailable(err) {
		t.Errorf("update: %v, want class Unavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.View(ctx, missing); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	srv.Resume(t)
	if got := value(t, etcd.Store{Client: srv.Client(t), Prefix: s.Prefix}, "a"); got != "1" {
		t.Errorf("a = %q after the restart", got)
	}
}

func keys(tx store.Tx, prefix string) (all []string) {
	for k := range tx.Scan(prefix) {
		all = append(all, k)
	}
	return all
}

func put(t *testing.T, s etcd.Store, k, v string) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx store.Tx) error { tx.Put(k, []byte(v)); return nil }))
}

func value(t *testing.T, s etcd.Store, k string) (v string) {
	t.Helper()
	must(t, s.View(t.Context(), func(tx store.Tx) error {
		b, _ := tx.Get(k)
		v = string(b)
		return nil
	}))
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
