package dns

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// inFlight is how many questions of one client may be on their way outside.
const inFlight = 128

// listener is one client's.
type listener struct {
	s      *Server
	udp    net.PacketConn
	tcp    net.Listener
	client atomic.Pointer[client]
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // one for each forwarded question

	mu    sync.Mutex
	conns map[*conn]struct{}
	done  bool
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	if l.cancel != nil {
		l.cancel()
	}
	_ = l.udp.Close()
	_ = l.tcp.Close()
	for c := range l.conns {
		_ = c.Close()
	}
}

// answer appends the answer to q, if it is known. If it is not, servers have to
// be asked for it (pend).
func (l *listener) answer(dst []byte, q *query) (out []byte, pend *pending) {
	s, c, now := l.s, l.client.Load(), time.Now()
	s.counts.queries.Add(1)
	out, forward := s.Records().reply(dst, c, q, now)
	if forward && s.multicast(q.name) {
		out, forward = q.answer(dst, Answer{}), false
	}
	if !forward {
		s.counts.local.Add(1)
		return out, nil
	}
	ups := s.upstreams(c)
	k := key{q.name, q.qtype, q.qclass, q.do, q.flags&bitCD != 0, ups.id}
	if out, ok := s.remembered(dst, k, ups, q, now); ok {
		return out, nil
	}
	if !l.admitQuestion() {
		s.counts.refused.Add(1)
		return q.fail(dst, servFail), nil
	}
	return dst, &pending{k, ups}
}

// pending is a question that has been admitted and not been asked yet.
type pending struct {
	key
	*upstreams
}

// ask asks servers outside. The answer comes by send. Until it is sent the
// question counts as one of the client's share.
func (l *listener) ask(p *pending, q query, send func([]byte)) {
	q.wire = bytes.Clone(q.wire)
	l.s.ask(p.key, p.upstreams, waiter{q, func(b []byte) {
		l.s.wg.Go(func() {
			defer func() { <-l.slots }()
			send(b)
		})
	}})
}

// admitQuestion: a client that asks more than its share is told so at once.
func (l *listener) admitQuestion() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// multicast: names below .local are for multicast DNS (RFC 6762), unless the
// host itself searches a domain of that kind, as some companies have it.
func (s *Server) multicast(name string) bool {
	return under(name, ".local") && (s.Host == nil || !s.Host.searches(name))
}

// pause is for errors of a socket that may pass; false: it is closed.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}
