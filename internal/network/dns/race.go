package dns

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

const (
	patience  = 4 * time.Second // for all servers; the C library musl waits for 5
	exchanges = 4096            // at a time, of all clients
	repeats   = 512             // of these, until nobody is asked twice
	doubt     = time.Second     // that "no such name" waits for servers that come before
)

// race is one question on its way to several servers. What was begun is not
// ended when another server has won: how it ends says how the server is.
type race struct {
	s       *Server
	q       *query
	servers []state          // as they were at the beginning, in the user's order
	told    []netip.AddrPort // those that have answered, which will not say anything else
	ahead   []attempt
	running []*running
	ended   chan result
	partial *entry           // an answer that is cut, if there is no better
	held    result           // "no such name", if no server that comes before knows it
	doubted <-chan time.Time // held has waited
}

// running is an attempt that was begun.
type running struct {
	attempt
	began  time.Time
	judged atomic.Bool // what it says of the server is noted
}

type result struct {
	*running
	e   *entry
	err error
}

// race asks the servers as plan says, the next one at once when one fails. The
// first answer that helps ends it; nil: there was none. How servers fail is not
// the client's business: to be refused, or told nothing by one that does not
// ask others, says nothing of the name.
func (s *Server) race(ctx context.Context, servers []netip.AddrPort, q *query) *entry {
	states := s.health.states(servers)
	ahead := plan(states, time.Now())
	r := &race{s: s, q: q, servers: states, ahead: ahead, ended: make(chan result, len(ahead))}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	for len(r.ahead)+len(r.running) > 0 {
		var due <-chan time.Time
		if len(r.ahead) > 0 {
			wait := r.ahead[0].when - time.Since(begin)
			if wait <= 0 || len(r.running) == 0 {
				r.start()
				continue
			}
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return cmp.Or(r.partial, r.held.e)
		case <-due:
		case <-r.doubted:
			return r.won(r.held)
		case res := <-r.ended:
			if e := r.end(res); e != nil {
				return e
			}
		}
	}
	return cmp.Or(r.partial, r.held.e)
}

func (r *race) start() {
	a := r.ahead[0]
	r.ahead = r.ahead[1:]
	begun := &running{attempt: a, began: time.Now()}
	r.running = append(r.running, begun)
	s, q, ended := r.s, r.q, r.ended
	if n := s.exchanging.Add(1); n > exchanges || a.again && n > repeats {
		s.exchanging.Add(-1)
		ended <- result{begun, nil, errBusy}
		return
	}
	s.wg.Go(func() {
		defer s.exchanging.Add(-1)
		e, err := s.try(begun, q)
		ended <- result{begun, e, err}
	})
}

// try makes one attempt and remembers how the server did.
func (s *Server) try(a *running, q *query) (*entry, error) {
	s.health.asking(a.at, a.tcp)
	plain := s.health.plain(a.at) || a.again && !a.tcp && !q.do // it may be EDNS that is dropped on the way
	e, spare, err := s.dial.exchange(s.life, a.at, a.tcp, q, plain)
	switch {
	case s.life.Err() != nil:
	case err != nil:
		s.note(a.at, s.health.failed(a.at, a.tcp, a.judged.CompareAndSwap(false, true)))
	default:
		s.note(a.at, s.health.answered(a.at, a.tcp, plain, time.Since(a.began)))
	}
	if spare {
		s.health.spare(a.at)
	}
	return e, err
}

// note logs what an administrator may want to know.
func (s *Server) note(at netip.AddrPort, t turn) {
	switch t {
	case died:
		s.Log.Warn("a name server does not answer; others are asked first from now on", "server", at)
	case cameBack:
		s.Log.Info("a name server answers again", "server", at)
	}
}

// end takes the result of an attempt; what it returns is what was wanted.
func (r *race) end(res result) *entry {
	r.running = slices.DeleteFunc(r.running, func(b *running) bool { return b == res.running })
	good := res.err == nil && res.e.usable()
	switch {
	case good && res.e.truncated:
		r.partial = res.e
	case good && res.e.rcode == nxDomain && r.awaits(res.at):
		r.hold(res)
	case good:
		return r.won(res)
	}
	r.goOn(res)
	if r.held.e != nil && !r.awaits(r.held.at) {
		return r.won(r.held)
	}
	return nil
}

// goOn makes the next attempt due, which is not to the server of res if that
// has answered. One that refuses datagrams may still take a connection.
func (r *race) goOn(res result) {
	if res.err == nil {
		r.told = append(r.told, res.at)
	}
	r.ahead = slices.DeleteFunc(r.ahead, func(a attempt) bool { return a.at == res.at && (res.err == nil || a.tcp == res.tcp) })
	if len(r.ahead) > 0 {
		r.ahead[0].when = 0
	}
}

// hold keeps "no such name" back for a while: a company's server that is slow
// knows names that a public one, asked beside it, has never heard of.
func (r *race) hold(res result) {
	if r.held.e == nil {
		r.held, r.doubted = res, time.After(doubt)
	}
}

// awaits reports whether a server may still answer that comes before at.
func (r *race) awaits(at netip.AddrPort) bool {
	for _, s := range r.servers {
		if s.at == at {
			break
		}
		if s.class() < 2 && !slices.Contains(r.told, s.at) && r.asks(s.at) {
			return true
		}
	}
	return false
}

// asks reports whether at is being asked, or will be.
func (r *race) asks(at netip.AddrPort) bool {
	return slices.ContainsFunc(r.running, func(b *running) bool { return b.at == at }) ||
		slices.ContainsFunc(r.ahead, func(a attempt) bool { return a.at == at })
}

func (r *race) won(res result) *entry {
	r.judge(res.running)
	return res.e
}

// judge notes which servers were slower than the winner, though they were asked
// before it. One that has answered the second datagram has only lost the first,
// which had EDNS.
func (r *race) judge(winner *running) {
	for _, b := range r.running {
		if winner.began.Sub(b.began) < deadStart || !b.judged.CompareAndSwap(false, true) {
			continue
		}
		if b.at == winner.at && b.tcp == winner.tcp {
			r.s.health.lost(b.at)
		} else {
			r.s.note(b.at, r.s.health.late(b.at, b.tcp))
		}
	}
}
