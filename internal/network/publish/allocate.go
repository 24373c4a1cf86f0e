package publish

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/containerd/errdefs"
)

// Holder holds a host port against other programs until it is released.
type Holder interface {
	// Hold fails with class Conflict when another program has the port.
	Hold(proto string, addr netip.AddrPort) (Held, error)
	// Close waits until nothing is forwarded any more. All Held are closed.
	Close()
}

// Held is a port that is held. Forward sends what arrives at its socket to a
// container; an invalid address refuses it. Both may be called at any time.
type Held interface {
	Forward(to netip.AddrPort)
	Close() error
}

// Ephemeral is where ports are chosen from when none is asked for.
const (
	ephemeralFirst = 32768
	ephemeralLast  = 60999
)

// holdLimit is the longest row of ports of one mapping that are held by a
// socket each. Longer ones (a file descriptor for each port would run out) are
// only checked against our own.
const holdLimit = 1024

// Table keeps who has which host port. Safe for concurrent use.
type Table struct {
	Holder Holder // nil: ports are not held

	mu   sync.Mutex
	used map[slot][]claim
	next uint16
}

// slot is a port number of a protocol; what address it is on is in the claim.
type slot struct {
	proto string
	port  uint16
}

type claim struct {
	ip    netip.Addr
	owner string
	held  Held
}

// Claim settles requests for owner: all or none. name is for the error of
// whoever wants the same port later; it is looked up when that happens.
func (t *Table) Claim(owner string, reqs []Request, nameOf func(owner string) string) ([]Mapping, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var got []Mapping
	for _, r := range reqs {
		port, err := t.settle(owner, r, nameOf)
		if err != nil {
			t.releaseLocked(owner, got)
			return nil, err
		}
		for _, ip := range r.HostIPs {
			got = append(got, Mapping{r.Proto, ip, port, 1, r.ContainerPort})
		}
	}
	return t.unholdRows(owner, Join(got)), nil
}

// Restore claims again what the records say owner has. A port that cannot be
// held is claimed all the same: the container is running.
func (t *Table) Restore(owner string, ms []Mapping) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, m := range ms {
		for i := range m.Count {
			var held Held
			var err error
			if m.Count <= holdLimit {
				held, err = t.hold(m.Proto, netip.AddrPortFrom(m.HostIP, m.HostPort+i))
				errs = append(errs, err)
			}
			t.put(slot{m.Proto, m.HostPort + i}, claim{m.HostIP, owner, held})
		}
	}
	return errors.Join(errs...)
}

// Release gives ports back.
func (t *Table) Release(owner string, ms []Mapping) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.releaseLocked(owner, ms)
}

// Forward says where what arrives at m's sockets is to go: to for the first
// port, and so on. An invalid address refuses it.
func (t *Table) Forward(owner string, m Mapping, to netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range m.Count {
		for _, c := range t.used[slot{m.Proto, m.HostPort + i}] {
			if c.owner == owner && c.ip == m.HostIP && c.held != nil {
				c.held.Forward(netip.AddrPortFrom(to, m.ContainerPort+i))
			}
		}
	}
}

// Close lets all sockets go and waits until nothing is forwarded any more.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, cs := range t.used {
		for _, c := range cs {
			closeHeld(c.held)
		}
	}
	if t.used = nil; t.Holder != nil {
		t.Holder.Close()
	}
}

// settle finds a port that is free on all addresses of r.
func (t *Table) settle(owner string, r Request, nameOf func(string) string) (uint16, error) {
	first, last, start := r.First, r.Last, r.First
	if first == 0 {
		first, last = ephemeralFirst, ephemeralLast
		start = max(t.next, first)
	}
	n := int(last) - int(first) + 1
	var refused error
	for i := range n {
		port := first + uint16((int(start-first)+i)%n)
		if refused = t.take(owner, r, port, nameOf); refused == nil {
			if r.First == 0 {
				t.next = first + uint16((int(port-first)+1)%n)
			}
			return port, nil
		}
		if !errdefs.IsConflict(refused) {
			return 0, refused
		}
	}
	if n > 1 {
		return 0, fmt.Errorf("no free host port from %d to %d: %w", first, last, refused)
	}
	return 0, refused
}

func (t *Table) take(owner string, r Request, port uint16, nameOf func(string) string) error {
	for i, ip := range r.HostIPs {
		held, err := t.try(r.Proto, ip, port, nameOf)
		if err != nil {
			for _, ip := range r.HostIPs[:i] {
				t.drop(slot{r.Proto, port}, ip, owner)
			}
			return err
		}
		t.put(slot{r.Proto, port}, claim{ip, owner, held})
	}
	return nil
}

func (t *Table) try(proto string, ip netip.Addr, port uint16, nameOf func(string) string) (Held, error) {
	ap := netip.AddrPortFrom(ip, port)
	for _, c := range t.used[slot{proto, port}] {
		if collide(c.ip, ip) {
			return nil, fmt.Errorf("Bind for %s failed: port is already allocated: container %s has %s/%s: %w",
				ap, nameOf(c.owner), netip.AddrPortFrom(c.ip, port), proto, errdefs.ErrConflict)
		}
	}
	held, err := t.hold(proto, ap)
	if err != nil {
		return nil, fmt.Errorf("Bind for %s failed: %w", ap, err)
	}
	return held, nil
}

func (t *Table) hold(proto string, ap netip.AddrPort) (Held, error) {
	if t.Holder == nil {
		return nil, nil
	}
	return t.Holder.Hold(proto, ap)
}

// unholdRows lets the sockets of very long rows go.
func (t *Table) unholdRows(owner string, ms []Mapping) []Mapping {
	for _, m := range ms {
		if m.Count <= holdLimit {
			continue
		}
		for i := range m.Count {
			cs := t.used[slot{m.Proto, m.HostPort + i}]
			for k, c := range cs {
				if c.owner == owner && c.ip == m.HostIP {
					closeHeld(c.held)
					cs[k].held = nil
				}
			}
		}
	}
	return ms
}

func (t *Table) releaseLocked(owner string, ms []Mapping) {
	for _, m := range ms {
		for i := range m.Count {
			t.drop(slot{m.Proto, m.HostPort + i}, m.HostIP, owner)
		}
	}
}

func (t *Table) put(s slot, c claim) {
	if t.used == nil {
		t.used = map[slot][]claim{}
	}
	t.used[s] = append(t.used[s], c)
}

func (t *Table) drop(s slot, ip netip.Addr, owner string) {
	var keep []claim
	for _, c := range t.used[s] {
		if c.ip == ip && c.owner == owner {
			closeHeld(c.held)
			continue
		}
		keep = append(keep, c)
	}
	if len(keep) == 0 {
		delete(t.used, s)
	} else {
		t.used[s] = keep
	}
}

func closeHeld(h Held) {
	if h != nil {
		_ = h.Close() // nothing depends on it
	}
}

// collide reports whether one port cannot be had on both a and b.
func collide(a, b netip.Addr) bool {
	return a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}
