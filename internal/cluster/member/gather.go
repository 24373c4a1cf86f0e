package member

import (
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

const (
	// gatherFor is how long news waits for more of it, on a watch that had some just before.
	gatherFor = 50 * time.Millisecond
	// gatherMost is how many events are gathered: then they are sent.
	gatherMost = 1000
)

// gatherer sends a watch's answers. etcd has one for each change, and to send one takes
// far more than what is in it: with 1,000 hosts that follow, 20 to 60 ms of a processor for
// each change. So the first is sent at once, and what comes within gatherFor is sent together,
// as etcd itself does for who is behind.
type gatherer struct {
	grpc.ServerStream

	mu    sync.Mutex
	last  time.Time         // something was sent
	held  *pb.WatchResponse // is to be sent; nil: nothing is
	timer *time.Timer       // does it
	err   error             // of the last time
	ended bool
}

// SendMsg implements grpc.ServerStream. After an error of what was held the next one fails.
func (g *gatherer) SendMsg(m any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := m.(*pb.WatchResponse)
	if !ok || !isNews(r) || g.held != nil && !together(g.held, r) {
		g.flushLocked()
	}
	switch wait := gatherFor - time.Since(g.last); {
	case g.err != nil:
		return g.err
	case g.held != nil:
		g.held.Header, g.held.Events = r.Header, append(g.held.Events, r.Events...)
	case ok && isNews(r) && wait > 0:
		g.held, g.timer = r, time.AfterFunc(wait, g.flush)
	default:
		g.last = time.Now()
		return g.ServerStream.SendMsg(m)
	}
	return nil
}

// isNews: it has events, and says nothing about the watch itself.
func isNews(r *pb.WatchResponse) bool {
	return len(r.Events) > 0 && !r.Created && !r.Canceled && r.CompactRevision == 0 && !r.Fragment
}

func together(a, b *pb.WatchResponse) bool {
	return a.WatchId == b.WatchId && len(a.Events)+len(b.Events) <= gatherMost
}

func (g *gatherer) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushLocked()
}

func (g *gatherer) flushLocked() {
	if g.held == nil || g.ended {
		return
	}
	g.timer.Stop()
	g.err, g.last = g.ServerStream.SendMsg(g.held), time.Now()
	g.held = nil
}

// end: nothing may be sent any more, for the stream's handler is about to return.
func (g *gatherer) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	if g.timer != nil {
		g.timer.Stop()
	}
}
