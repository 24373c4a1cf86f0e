package publish

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Settlement is a change of the table that can still be taken back. Between
// Change and its end no other change may begin. Sockets whose port only changes
// hands stay open all the while.
type Settlement struct {
	Got  []Mapping            // what the owner got
	Lost map[string][]Mapping // what others lost to it

	t      *Table
	parked []*claim // taken out of the table
	made   []*claim // put into it
	moved  map[Held]struct{}
	closed []closedPort
}

// closedPort is a port of a parked claim whose socket was in the way.
type closedPort struct {
	*claim
	i uint16
}

// Change takes drop from owner and settles reqs for it: all or none. With take,
// a port that another owner has at the very same address or interface is taken
// over.
func (t *Table) Change(owner string, drop []Mapping, reqs []Request, take bool, nameOf func(owner string) string) (*Settlement, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Settlement{Lost: map[string][]Mapping{}, t: t, moved: map[Held]struct{}{}}
	for _, m := range drop {
		s.park(m, func(c *claim) bool { return c.owner == owner })
	}
	for _, r := range reqs {
		if err := s.settle(owner, r, take, nameOf); err != nil {
			s.undo()
			return nil, err
		}
	}
	s.Got = Join(s.Got)
	for o, ms := range s.Lost {
		s.Lost[o] = Join(ms)
	}
	return s, nil
}

// Commit makes the change final.
func (s *Settlement) Commit() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for _, c := range s.parked {
		closeAll(s.left(c.held))
	}
}

// Undo takes the change back.
func (s *Settlement) Undo() {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.undo()
}

func (s *Settlement) undo() {
	for _, c := range s.made {
		s.t.drop(c)
		closeAll(s.left(c.held))
	}
	for _, c := range s.closed { // one that another program was faster with is held by nothing
		c.held[c.i], c.refused = s.t.Holder.Hold(c.Proto, netip.AddrPortFrom(c.HostIP, c.HostPort+c.i))
	}
	for _, c := range s.parked {
		s.t.put(c)
	}
}

// left are those that did not change hands.
func (s *Settlement) left(held []Held) []Held {
	return slices.DeleteFunc(slices.Clone(held), func(h Held) bool { _, moved := s.moved[h]; return moved })
}

// letGo closes the sockets of a claim that came to nothing; those that had
// changed hands belong again to whom they came from.
func (s *Settlement) letGo(held []Held) {
	closeAll(s.left(held))
	for _, h := range held {
		delete(s.moved, h)
	}
}

// park takes m's ports out of claims that are of; what is left of these stays.
func (s *Settlement) park(m Mapping, of func(*claim) bool) (taken []*claim) {
	for _, c := range s.t.find(m) {
		if !c.sameSide(m) || !of(c) {
			continue
		}
		first, last, _ := c.overlap(m.HostPort, m.last())
		s.t.drop(c)
		if first > c.HostPort {
			s.t.put(c.part(c.HostPort, first-1))
		}
		if last < c.last() {
			s.t.put(c.part(last+1, c.last()))
		}
		p := c.part(first, last)
		s.parked, taken = append(s.parked, p), append(taken, p)
	}
	return taken
}

// settle finds ports that are free on all addresses of r.
func (s *Settlement) settle(owner string, r Request, take bool, nameOf func(string) string) error {
	r.Count = max(r.Count, 1)
	if r.fixed() {
		return s.claim(owner, r, r.First, take, nameOf)
	}
	first, last, start := r.First, r.Last, r.First
	if first == 0 {
		first, last = s.t.anyPort()
		start = max(s.t.next, first)
	}
	n := int(last) - int(first) + 1
	var refused error
	for i := range n {
		port := first + uint16((int(start-first)+i)%n)
		if refused = s.claim(owner, r, port, false, nameOf); refused == nil {
			if r.First == 0 {
				s.t.next = first + uint16((int(port-first)+1)%n)
			}
			return nil
		}
		if !errdefs.IsConflict(refused) {
			return refused
		}
	}
	return fmt.Errorf("no free host port from %d to %d: %w", first, last, refused)
}

// claim takes r's row at port on every address of r.
func (s *Settlement) claim(owner string, r Request, port uint16, take bool, nameOf func(string) string) error {
	done := len(s.made)
	for _, ip := range r.HostIPs {
		c := &claim{Mapping: r.mapping(ip, port), owner: owner, direct: r.direct(ip)}
		if err := s.claimOne(c, take, nameOf); err != nil {
			for _, c := range s.made[done:] {
				s.t.drop(c)
				s.letGo(c.held)
			}
			s.made = s.made[:done]
			return err
		}
	}
	for _, c := range s.made[done:] {
		s.Got = append(s.Got, c.Mapping)
	}
	return nil
}

func (s *Settlement) claimOne(want *claim, take bool, nameOf func(string) string) (err error) {
	m := want.Mapping
	for _, c := range s.t.find(m) {
		if !collide(c.Mapping, m) || !want.meets(c) {
			continue
		}
		if slices.Contains(s.made, c) { // nobody takes from himself what he just got
			return c.twice(m)
		}
		if !take || !c.sameSide(m) {
			return c.refusal(want.owner, m, nameOf)
		}
	}
	if take {
		for _, c := range s.park(m, want.meets) {
			if c.owner != want.owner {
				s.Lost[c.owner] = append(s.Lost[c.owner], c.Mapping)
			}
		}
	}
	if !want.direct {
		if want.held, err = s.hold(m); err != nil {
			return fmt.Errorf("Bind for %s failed: %w", m.where(), err)
		}
	}
	s.t.put(want)
	s.made = append(s.made, want)
	return nil
}

// meets: they cannot be had both if they collide. Different containers can have the
// same port open at their own addresses.
func (c *claim) meets(o *claim) bool { return c.owner == o.owner || !c.direct && !o.direct }

// hold holds m's ports, by the sockets that have been parked where there are.
func (s *Settlement) hold(m Mapping) (held []Held, err error) {
	switch {
	case s.t.Holder == nil:
		return nil, nil
	case !s.t.holds(m):
		return nil, s.clearing(m, func() error { return s.t.Holder.Check(m) })
	}
	parked := s.parkedSockets(m)
	for i := range m.Count {
		h, ok := parked[m.HostPort+i]
		if !ok {
			if h, err = s.open(m.part(m.HostPort+i, m.HostPort+i)); err != nil {
				s.letGo(held)
				return nil, err
			}
		}
		if held = append(held, h); ok {
			s.moved[h] = struct{}{}
		}
	}
	return held, nil
}

// open holds a single port.
func (s *Settlement) open(m Mapping) (h Held, err error) {
	err = s.clearing(m, func() (err error) {
		h, err = s.t.Holder.Hold(m.Proto, netip.AddrPortFrom(m.HostIP, m.HostPort))
		return err
	})
	return h, err
}

// clearing tries to get m and, when a socket is in the way that goes with this
// change, once more without it: a port that was published on one address may
// become one of all.
func (s *Settlement) clearing(m Mapping, get func() error) error {
	err := get()
	if errdefs.IsConflict(err) && s.clear(m) {
		err = get()
	}
	return err
}

// clear closes parked sockets that are in m's way; false: there is none.
func (s *Settlement) clear(m Mapping) bool {
	before := len(s.closed)
	for _, c := range s.parked {
		first, last, ok := c.overlap(m.HostPort, m.last())
		if !ok || c.held == nil || c.Proto != m.Proto || !collide(c.Mapping, m) {
			continue
		}
		for i := int(first - c.HostPort); i <= int(last-c.HostPort); i++ {
			if _, moved := s.moved[c.held[i]]; moved || c.held[i] == nil {
				continue
			}
			closeAll(c.held[i : i+1])
			c.held[i], s.closed = nil, append(s.closed, closedPort{c, uint16(i)})
		}
	}
	return len(s.closed) > before
}

// parkedSockets are those of the very ports of m.
func (s *Settlement) parkedSockets(m Mapping) map[uint16]Held {
	out := map[uint16]Held{}
	for _, c := range s.parked {
		first, last, ok := c.overlap(m.HostPort, m.last())
		if !ok || !c.sameSide(m) || c.held == nil {
			continue
		}
		for p := int(first); p <= int(last); p++ {
			if h := c.held[uint16(p)-c.HostPort]; h != nil {
				out[uint16(p)] = h
			}
		}
	}
	return out
}
