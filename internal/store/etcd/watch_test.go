package etcd_test

import (
	"context"
	"errors"
	"testing"

	"isle/internal/store"
	"isle/internal/store/etcd"
	"isle/internal/store/etcd/etcdtest"
)

var errSeen = errors.New("seen")

// next is the first batch of a watch from a revision that ok takes.
func next(t *testing.T, s etcd.Store, from int64, ok func(etcd.Batch) bool) (got etcd.Batch) {
	t.Helper()
	err := s.Watch(t.Context(), "w/", from, func(b etcd.Batch) error {
		if !ok(b) {
			return nil
		}
		got = b
		return errSeen
	})
	if !errors.Is(err, errSeen) {
		t.Fatal(err)
	}
	return got
}

func first(etcd.Batch) bool { return true }

// TestWatch: a watch begins with all that there is, goes on with what changes, one
// transaction in one batch, and can be taken up again where it ended.
func TestWatch(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t).Client(t)
	s := etcd.Store{Client: c, Prefix: prefix()}
	put(t, s, "w/a", "1")
	put(t, s, "v/a", "not watched")
	b := next(t, s, 0, first)
	if !b.Reset || len(b.Events) != 1 || b.Events[0].Key != "w/a" || b.Events[0].Revision == 0 {
		t.Fatalf("%+v", b)
	}
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		tx.Put("w/b", []byte("2"))
		tx.Delete("w/a")
		return nil
	}))
	after := next(t, s, b.Revision, first)
	if after.Reset || len(after.Events) != 2 || after.Revision <= b.Revision {
		t.Errorf("%+v", after)
	}
	put(t, s, "w/c", "3")
	if last := next(t, s, after.Revision, first); len(last.Events) != 1 || last.Events[0].Key != "w/c" {
		t.Errorf("%+v", last)
	}
}

// TestWatchAfterCompaction: what is not kept any more makes the watch begin anew.
func TestWatchAfterCompaction(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t).Client(t)
	s := etcd.Store{Client: c, Prefix: prefix()}
	put(t, s, "w/a", "1")
	from := next(t, s, 0, first).Revision
	put(t, s, "w/a", "2")
	resp, err := c.Put(t.Context(), "unrelated", "")
	must(t, err)
	_, err = c.Compact(t.Context(), resp.Header.Revision)
	must(t, err)
	if b := next(t, s, from, first); !b.Reset || len(b.Events) != 1 || string(b.Events[0].Value) != "2" {
		t.Errorf("%+v", b)
	}
}

// TestWatchOfLease: what goes with its lease is told like what is deleted.
func TestWatchOfLease(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t).Client(t)
	l, err := c.Grant(t.Context(), 60)
	must(t, err)
	s := etcd.Store{Client: c, Prefix: prefix(), Lease: l.ID}
	put(t, s, "w/a", "1")
	from := next(t, s, 0, first).Revision
	_, err = c.Revoke(t.Context(), l.ID)
	must(t, err)
	if b := next(t, s, from, first); len(b.Events) != 1 || !b.Events[0].Gone {
		t.Errorf("%+v", b)
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error { tx.Put("w/b", nil); return nil }); !errors.Is(err, etcd.ErrLeaseGone) {
		t.Errorf("a write under a lease that is gone: %v", err)
	}
}

// TestWatchEnds: a watch ends with its context, and does not take long.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	s := etcd.Store{Client: etcdtest.Start(t).Client(t), Prefix: prefix()}
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Watch(ctx, "", 0, func(etcd.Batch) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
