package dns

import (
	"bytes"
	"errors"
	"sync"
	"time"
)

// staleAfter is how long a client waits for servers when there is an old
// answer that could be given (RFC 8767).
const staleAfter = 1800 * time.Millisecond

var errBusy = errors.New("too many questions at a time")

// waiter is a client that waits for an answer from outside. send is called
// once, and must not block; nil: nobody waits.
type waiter struct {
	q    query
	send func([]byte)
}

// flight is a question on its way outside, for all who ask it meanwhile.
type flight struct {
	waiters []waiter
	stale   *entry // what those are told who come after staleAfter
}

// flights are the questions on their way. The zero value is ready.
type flights struct {
	mu sync.Mutex
	of map[key]*flight
}

// upstreams are the servers for a client. When those of the host have changed,
// what others said is forgotten.
func (s *Server) upstreams(c *client) *upstreams {
	if c.upstreams != nil {
		return c.upstreams
	}
	if s.Host == nil {
		return &upstreams{}
	}
	return s.host.now(s.Host.Servers(), s.cache.drop)
}

// remembered appends an answer that is kept; false: servers have to be asked,
// and to be waited for. After they have failed nobody waits for them any more,
// as long as there is an old answer.
func (s *Server) remembered(dst []byte, k key, ups *upstreams, q *query, now time.Time) ([]byte, bool) {
	e, retry := s.cache.get(k, now)
	switch {
	case e == nil:
		return dst, false
	case e.fresh(now):
		s.counts.hits.Add(1)
		return e.reply(dst, q, now), true
	case retry.IsZero():
		return dst, false
	case now.After(retry):
		s.cache.failed(k, now.Add(holdOff)) // one asks for all
		again := *q
		again.wire = bytes.Clone(q.wire)
		s.ask(k, ups, waiter{again, nil})
	}
	s.counts.stale.Add(1)
	return e.reply(dst, q, now), true
}

// ask answers w when the servers have answered, or have not.
func (s *Server) ask(k key, ups *upstreams, w waiter) {
	s.flights.mu.Lock()
	f := s.flights.of[k]
	if f == nil {
		if s.flights.of == nil {
			s.flights.of = map[key]*flight{}
		}
		s.flights.of[k] = &flight{waiters: []waiter{w}}
		s.flights.mu.Unlock()
		s.counts.forwarded.Add(1)
		s.wg.Go(func() { s.fly(k, ups, w.q) })
		return
	}
	s.counts.joined.Add(1)
	stale := f.stale
	if stale == nil {
		f.waiters = append(f.waiters, w)
	}
	s.flights.mu.Unlock()
	if stale != nil {
		s.tell([]waiter{w}, stale)
	}
}

// fly asks the servers. Whoever waits for long gets the old answer, if there
// is one; the new one is kept all the same.
func (s *Server) fly(k key, ups *upstreams, q query) {
	stale, _ := s.cache.get(k, time.Now())
	if stale == nil { // all there is to wait for is the answer
		s.land(k, s.race(s.life, ups.servers, &q), nil)
		return
	}
	answer := make(chan *entry, 1)
	s.wg.Go(func() { answer <- s.race(s.life, ups.servers, &q) })
	late := time.After(staleAfter)
	for {
		select {
		case <-late:
			s.tell(s.late(k, stale), stale)
		case e := <-answer:
			s.land(k, e, stale)
			return
		}
	}
}

// late takes those who have waited; who comes after them need not.
func (s *Server) late(k key, stale *entry) []waiter {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	f := s.flights.of[k]
	waiters := f.waiters
	f.waiters, f.stale = nil, stale
	return waiters
}

func (s *Server) land(k key, e, stale *entry) {
	switch {
	case e == nil:
		s.counts.failures.Add(1)
		if stale != nil {
			s.cache.failed(k, time.Now().Add(holdOff))
			e = stale
		}
	case e.ttl > 0:
		s.cache.put(k, e)
	case !e.truncated: // it is not to be kept, but what is kept is older
		s.cache.forget(k)
	}
	s.flights.mu.Lock()
	waiters := s.flights.of[k].waiters
	delete(s.flights.of, k)
	s.flights.mu.Unlock()
	s.tell(waiters, e)
}

func (s *Server) tell(waiters []waiter, e *entry) {
	now := time.Now()
	for _, w := range waiters {
		switch {
		case w.send == nil:
			continue
		case e == nil:
			w.send(w.q.fail(nil, servFail))
			continue
		case e.ttl > 0 && !e.fresh(now):
			s.counts.stale.Add(1)
		}
		w.send(e.reply(nil, &w.q, now))
	}
}
