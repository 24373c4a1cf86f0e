package member

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestHerd: of all that read everything at the same time a few are served at a time, and
// meanwhile small calls are not held up; who gives up waiting is not served.
func TestHerd(t *testing.T) {
	c := newCalls(nil)
	page := &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), Limit: 10000}
	var now, most atomic.Int64
	hold := make(chan struct{})
	next := func(context.Context, any) (any, error) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-hold
		now.Add(-1)
		return nil, nil
	}
	var herd sync.WaitGroup
	for range 10 * pagesAtOnce {
		herd.Go(func() { _, _ = c.unary(t.Context(), page, nil, next) })
	}
	for now.Load() < pagesAtOnce {
		time.Sleep(time.Millisecond)
	}
	for _, small := range []any{&pb.LeaseKeepAliveRequest{}, &pb.RangeRequest{Key: []byte("a")}, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), Limit: 10}} {
		if _, err := c.unary(t.Context(), small, nil, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
			t.Errorf("%T: %v", small, err)
		}
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.unary(impatient, page, nil, next); err == nil {
		t.Error("a call that was given up is served")
	}
	close(hold)
	herd.Wait()
	if most.Load() != pagesAtOnce {
		t.Errorf("%d at a time, want %d", most.Load(), pagesAtOnce)
	}
}
