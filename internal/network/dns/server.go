package dns

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Server holds the records and answers on the listeners that it is given.
// Its methods may be called concurrently.
type Server struct {
	Log  *slog.Logger // required
	Host *HostConfig  // name servers of the host; nil: none

	cur        atomic.Pointer[Records]
	host       hostUpstreams
	health     health
	cache      cache
	flights    flights
	exchanging atomic.Int32
	dial       dialer // of servers outside
	counts     counts

	mu        sync.Mutex // one change of cur at a time; guards what is below
	listeners map[string]*listener
	was       map[string]*client // of listeners that are gone, while it matters
	swept     time.Time          // when those of whom it does not were forgotten
	closed    bool
	life      context.Context // of everything that was begun; set by the first Attach
	end       context.CancelFunc
	wg        sync.WaitGroup
}

// SetZone makes a network known.
func (s *Server) SetZone(id string, z Zone) {
	s.change(func(r *Records) *Records { return r.withZone(id, z) })
}

// DropZone forgets a network and its hosts.
func (s *Server) DropZone(id string) {
	s.change(func(r *Records) *Records { return r.withoutZone(id, time.Now()) })
}

// Change takes hosts away and adds others, all at once.
func (s *Server) Change(drop, add []Host) {
	s.change(func(r *Records) *Records {
		for _, h := range drop {
			r = r.withoutHost(h)
		}
		for _, h := range add {
			r = r.withHost(h)
		}
		return r
	})
}

func (s *Server) change(fn func(*Records) *Records) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.Store(fn(s.Records()))
}

// Records is what is known now.
func (s *Server) Records() *Records {
	if r := s.cur.Load(); r != nil {
		return r
	}
	return newRecords()
}

// List is what a network's names resolve to, by name and address.
func (s *Server) List(zone string) []Record { return s.Records().list(zone) }

// Attach answers a client on its listeners until Detach or Close.
func (s *Server) Attach(id string, udp net.PacketConn, tcp net.Listener, c Client) {
	l := &listener{s: s, udp: udp, tcp: tcp, conns: map[*conn]struct{}{}, slots: make(chan struct{}, inFlight)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.close()
		return
	}
	if s.listeners == nil {
		s.listeners, s.was = map[string]*listener{}, map[string]*client{}
		s.life, s.end = context.WithCancel(context.Background())
	}
	before := s.was[id]
	delete(s.was, id)
	if old := s.listeners[id]; old != nil {
		before = old.client.Load()
		old.close()
	}
	l.client.Store(s.Records().next(before, c, time.Now()))
	s.listeners[id] = l
	l.ctx, l.cancel = context.WithCancel(s.life)
	s.wg.Go(l.serveUDP)
	s.wg.Go(l.serveTCP)
}

// SetClient changes who a listener's client is; false: there is no listener.
func (s *Server) SetClient(id string, c Client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.listeners[id]
	if ok {
		l.client.Store(s.Records().next(l.client.Load(), c, time.Now()))
	}
	return ok
}

// Detach stops answering a client.
func (s *Server) Detach(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.listeners[id]; ok {
		delete(s.listeners, id)
		l.close()
		s.remember(id, l.client.Load(), time.Now())
	}
}

// remember keeps what a client has left for when it comes back: one that goes
// from one network to another has none, and no listener, in between.
func (s *Server) remember(id string, c *client, now time.Time) {
	if now.Sub(s.swept) > memory {
		s.swept = now
		maps.DeleteFunc(s.was, func(_ string, c *client) bool {
			return !slices.ContainsFunc(c.left, func(d departed) bool { return now.Before(d.until) })
		})
	}
	if c = s.Records().next(c, Client{}, now); len(c.left) > 0 {
		s.was[id] = c
	}
}

// Close stops answering and waits until all that was begun has ended.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for id, l := range s.listeners {
		delete(s.listeners, id)
		l.close()
	}
	if s.end != nil {
		s.end()
	}
	s.mu.Unlock()
	s.wg.Wait()
}
