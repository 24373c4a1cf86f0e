package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

const (
	maxUpstreams = 8                      // of one client that are asked
	maxHealth    = 256                    // servers that are remembered
	headStart    = 150 * time.Millisecond // at most, of a server before the next one is asked too
	deadStart    = 30 * time.Millisecond  // of one that has not answered lately
	again        = 400 * time.Millisecond // until a server that is silent is asked again
	deadAfter    = 2                      // questions in a row without an answer
	probeEvery   = 5 * time.Second        // a server that is slow or dead is asked beside the others
	plainFor     = 10 * time.Minute       // a server that does not know EDNS is spared it
)

// upstreams are the servers that a question may go to, in the user's order.
type upstreams struct {
	all     []netip.AddrPort
	servers []netip.AddrPort      // of these
	id      unique.Handle[string] // equal for equal servers
}

func newUpstreams(servers []netip.AddrPort) *upstreams {
	var id strings.Builder
	for _, s := range servers {
		id.WriteString(s.String() + " ")
	}
	return &upstreams{servers, servers[:min(len(servers), maxUpstreams)], unique.Make(id.String())}
}

// state is what is known of one server.
type state struct {
	at    netip.AddrPort
	rtt   time.Duration // smoothed; 0: it has never answered
	mute  int           // datagrams in a row without an answer
	tcp   bool          // the last connection had an answer
	asked time.Time     // by a datagram, last
	lost  int           // datagrams with EDNS in a row that only their repetition had an answer to
	plain time.Time     // until then it is asked without EDNS
	total UpstreamStats
}

// class orders servers: quick ones, slow ones, dead ones.
func (s state) class() int {
	switch {
	case s.mute >= deadAfter && !s.tcp:
		return 2
	case s.rtt > headStart:
		return 1
	}
	return 0
}

// start is how long the server is waited for before the next one is asked.
func (s state) start() time.Duration {
	switch {
	case s.class() == 2:
		return deadStart
	case s.rtt == 0:
		return headStart
	}
	return min(max(3*s.rtt, deadStart), headStart)
}

// tcpFirst: it does not answer datagrams, but connections.
func (s state) tcpFirst() bool { return s.mute >= deadAfter && s.tcp }

// attempt is one question to one server.
type attempt struct {
	at    netip.AddrPort
	tcp   bool
	when  time.Duration // after the beginning
	again bool          // it is not the first one to the server
}

// plan says whom to ask when, as long as nobody answers. The user's order
// holds among servers that are equally well. A server that was bad is given a
// question beside the others now and then, so that it can come back.
func plan(servers []state, now time.Time) []attempt {
	order := slices.Clone(servers)
	slices.SortStableFunc(order, func(a, b state) int { return cmp.Compare(a.class(), b.class()) })
	var out []attempt
	var when time.Duration
	for _, s := range order {
		out = append(out, s.attempts(when, now.Sub(s.asked) >= probeEvery)...)
		when += s.start()
	}
	slices.SortStableFunc(out, func(a, b attempt) int { return cmp.Compare(a.when, b.when) })
	return out
}

// attempts are those of one server whose turn is at when; probe: it is time to
// see whether it is better than it was.
func (s state) attempts(when time.Duration, probe bool) []attempt {
	first, second := when, when+again
	if probe && s.class() > 0 {
		first = 0
	}
	if probe && s.tcpFirst() {
		second = when
	}
	return []attempt{{s.at, s.tcpFirst(), first, false}, {s.at, false, second, true}, {s.at, true, when + 2*again, true}}
}

// health remembers how servers have done. The zero value is ready.
type health struct {
	mu sync.Mutex
	of map[netip.AddrPort]*state
}

// states are copies, in the order of servers.
func (h *health) states(servers []netip.AddrPort) []state {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]state, 0, len(servers))
	for _, s := range servers {
		out = append(out, *h.get(s))
	}
	return out
}

func (h *health) get(at netip.AddrPort) *state {
	if s := h.of[at]; s != nil {
		return s
	}
	if h.of == nil {
		h.of = map[netip.AddrPort]*state{}
	}
	for other := range h.of {
		if len(h.of) < maxHealth {
			break
		}
		delete(h.of, other)
	}
	h.of[at] = &state{at: at}
	return h.of[at]
}

// change reports what fn made of a server that was alive or dead.
func (h *health) change(at netip.AddrPort, fn func(*state)) (turn turn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.get(at)
	before := s.class()
	fn(s)
	switch after := s.class(); {
	case before < 2 && after == 2:
		return died
	case before == 2 && after < 2:
		return cameBack
	}
	return same
}

type turn int

const (
	same turn = iota
	died
	cameBack
)

func (h *health) asking(at netip.AddrPort, tcp bool) {
	h.change(at, func(s *state) {
		s.total.Asked++
		if !tcp {
			s.asked = time.Now()
		}
	})
}

func (h *health) answered(at netip.AddrPort, tcp, plain bool, took time.Duration) turn {
	return h.change(at, func(s *state) {
		if !tcp && !plain {
			s.lost = 0
		}
		if tcp {
			s.tcp = true
		} else {
			s.mute = 0
		}
		if s.rtt == 0 {
			s.rtt = took
		}
		s.rtt = max(s.rtt+(took-s.rtt)/4, 1)
	})
}

// failed counts an attempt that had no answer; first: it was not judged before.
func (h *health) failed(at netip.AddrPort, tcp, first bool) turn {
	return h.change(at, func(s *state) {
		s.total.Failed++
		if first {
			s.missed(tcp)
		}
	})
}

// late notes that others were quicker by far.
func (h *health) late(at netip.AddrPort, tcp bool) turn {
	return h.change(at, func(s *state) { s.missed(tcp) })
}

func (s *state) missed(tcp bool) {
	if tcp {
		s.tcp = false
	} else {
		s.mute++
	}
}

// lost notes that a datagram was answered when it came again, without EDNS. That
// may be chance, but not again and again.
func (h *health) lost(at netip.AddrPort) {
	h.change(at, func(s *state) {
		if s.lost++; s.lost >= deadAfter {
			s.lost, s.plain = 0, time.Now().Add(plainFor)
		}
	})
}

func (h *health) spare(at netip.AddrPort) {
	h.change(at, func(s *state) { s.plain = time.Now().Add(plainFor) })
}

func (h *health) plain(at netip.AddrPort) (plain bool) {
	h.change(at, func(s *state) { plain = time.Now().Before(s.plain) })
	return plain
}

// hostUpstreams are those of the host, as they were seen last.
type hostUpstreams struct{ last atomic.Pointer[upstreams] }

// now is the set of servers; changed is called when it was another one.
func (h *hostUpstreams) now(servers []netip.AddrPort, changed func()) *upstreams {
	last := h.last.Load()
	if last != nil && slices.Equal(last.all, servers) {
		return last
	}
	next := newUpstreams(servers)
	if h.last.CompareAndSwap(last, next) && last != nil {
		changed()
	}
	return next
}
