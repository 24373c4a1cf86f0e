package member

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// wire is what was sent.
type wire struct {
	grpc.ServerStream
	mu    sync.Mutex
	sent  []any
	fails error
}

func (w *wire) SendMsg(m any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, m)
	return w.fails
}

// revisions are those of the events, by message.
func (w *wire) revisions() (all [][]int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.sent {
		var one []int64
		if r, ok := m.(*pb.WatchResponse); ok {
			for _, e := range r.Events {
				one = append(one, e.Kv.ModRevision)
			}
		}
		all = append(all, one)
	}
	return all
}

func news(watch, rev int64) *pb.WatchResponse {
	return &pb.WatchResponse{WatchId: watch, Header: &pb.ResponseHeader{Revision: rev}, Events: []*mvccpb.Event{{Kv: &mvccpb.KeyValue{ModRevision: rev}}}}
}

// TestGather: the first change is sent at once, those close behind it together and in
// order, and nothing overtakes them.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		g := &gatherer{ServerStream: w}
		send := func(m any) {
			if err := g.SendMsg(m); err != nil {
				t.Error(err)
			}
		}
		is := func(when string, want ...[]int64) {
			t.Helper()
			if got := w.revisions(); !slices.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%s %v was sent, want %v", when, got, want)
			}
			w.sent = nil
		}
		send(news(1, 1))
		is("at once", []int64{1})
		send(news(1, 2))
		send(news(1, 3))
		is("within the time")
		time.Sleep(gatherFor)
		synctest.Wait()
		is("after the time", []int64{2, 3})
		send(news(1, 4))
		send(news(2, 5))
		is("another watch", []int64{4})
		send(&pb.WatchResponse{WatchId: -1})
		is("what is no change", []int64{5}, nil)
		time.Sleep(time.Minute)
		send(news(1, 6))
		is("after silence", []int64{6})
		for i := range int64(gatherMost + 1) {
			send(news(1, 7+i))
		}
		if got := w.revisions(); len(got) != 1 || len(got[0]) != gatherMost {
			t.Errorf("of very many %d messages were sent", len(got))
		}
	})
}

// TestGatherEnds: what cannot be sent is told with the next, and after its end a stream
// is left alone.
func TestGatherEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		g := &gatherer{ServerStream: w}
		_, _ = g.SendMsg(news(1, 1)), g.SendMsg(news(1, 2))
		w.fails = errors.New("it is gone")
		time.Sleep(gatherFor)
		synctest.Wait()
		if err := g.SendMsg(news(1, 3)); !errors.Is(err, w.fails) {
			t.Errorf("after a failure: %v", err)
		}
		w = &wire{}
		g = &gatherer{ServerStream: w}
		_, _ = g.SendMsg(news(1, 1)), g.SendMsg(news(1, 2))
		g.end()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := w.revisions(); len(got) != 1 {
			t.Errorf("after its end %v was sent", got)
		}
	})
}
