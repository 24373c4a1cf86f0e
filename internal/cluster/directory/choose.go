package directory

import (
	"hash/fnv"
	"maps"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"isle/internal/fabric"
)

// chooser picks free addresses. Each host begins at a place of its own in a pool and goes
// on from the address that it gave last: hosts rarely want the same one, and an address
// that was given back rests for as long as it can. Two that come upon each other part
// again: who was slower goes on from anywhere else.
type chooser struct {
	mu   sync.Mutex
	last map[chosenFrom]uint64
}

type chosenFrom struct {
	network string
	pool    netip.Prefix
}

// maxOffset bounds how far into a pool is counted: a /64 has more than anybody uses.
const maxOffset = 1 << 40

// taken are the addresses that cannot be had: at most n of them.
type taken struct {
	is func(netip.Addr) bool
	n  int
}

// next is an address of pool that is not taken; false: there is none.
func (c *chooser) next(self, network string, bits int, pool netip.Prefix, t taken) (netip.Addr, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := sizeOf(pool)
	from := chosenFrom{network, pool}
	at, ok := c.last[from]
	if !ok {
		at = start(self, size)
	}
	for range min(size, uint64(t.n)+4) { // one of so many is free, if any is
		at = (at + 1) % size
		if a := offset(pool, at); usable(a, bits) && !t.is(a) {
			c.moveLocked(from, at)
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (c *chooser) moveLocked(from chosenFrom, at uint64) {
	if c.last == nil {
		c.last = map[chosenFrom]uint64{}
	}
	c.last[from] = at
}

// part goes on from anywhere else in the pools that have a.
func (c *chooser) part(network string, pools []netip.Prefix, a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range pools {
		if p.Contains(a) {
			c.moveLocked(chosenFrom{network, p}, rand.Uint64N(sizeOf(p)))
		}
	}
}

// forget drops what is only of use while a network is there.
func (c *chooser) forget(network string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.last, func(f chosenFrom, _ uint64) bool { return f.network == network })
}

func sizeOf(pool netip.Prefix) uint64 {
	if host := pool.Addr().BitLen() - pool.Bits(); host < 40 {
		return 1 << host
	}
	return maxOffset
}

// start is a place of the host's own in a pool.
func start(self string, size uint64) uint64 {
	h := fnv.New64a()
	h.Write([]byte(self))
	return h.Sum64() % size
}

func offset(pool netip.Prefix, n uint64) netip.Addr {
	i := new(big.Int).SetBytes(pool.Masked().Addr().AsSlice())
	i.Add(i, new(big.Int).SetUint64(n))
	b := i.FillBytes(make([]byte, pool.Addr().BitLen()/8))
	a, _ := netip.AddrFromSlice(b)
	return a
}

// usable: a is not the first of its subnet, and for IPv4 not the last.
func usable(a netip.Addr, bits int) bool {
	subnet := netip.PrefixFrom(a, bits).Masked()
	if a.BitLen()-bits < 2 {
		return true // RFC 3021: both are hosts
	}
	return a != subnet.Addr() && (a.Is6() || subnet.Contains(a.Next()))
}

// takenIn are the addresses of a network that other endpoints have, as far as known, and
// those in besides.
func (s *state) takenIn(network, but string, besides map[netip.Addr]bool) taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return taken{n: len(s.taken[network]) + len(besides), is: func(a netip.Addr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		owner, ok := s.taken[network][a]
		return ok && owner != but || besides[a]
	}}
}

// withResting are those of t, and those that rest.
func (s *state) withResting(network string, t taken) taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return taken{n: t.n + s.resting.len(), is: func(a netip.Addr) bool {
		s.mu.Lock()
		rests := s.resting.has(spot{network, a}, time.Now())
		s.mu.Unlock()
		return rests || t.is(a)
	}}
}

// fill gives e the addresses that it leaves open.
func (c *chooser) fill(e fabric.Endpoint, pools []netip.Prefix, t taken) (fabric.Endpoint, error) {
	given := make([]netip.Prefix, len(e.Addrs))
	for i, p := range e.Addrs {
		given[i] = netip.PrefixFrom(p.Addr().Unmap(), p.Bits())
		if !p.Addr().IsUnspecified() {
			continue
		}
		if i >= len(pools) || !pools[i].IsValid() || pools[i].Addr().Is4() != p.Addr().Is4() {
			return e, invalid("address %d is to be chosen and has no pool of its family", i+1)
		}
		a, ok := c.next(e.Host, e.Network, p.Bits(), pools[i], t)
		if !ok {
			return e, exhausted(pools[i])
		}
		given[i] = netip.PrefixFrom(a, p.Bits())
	}
	e.Addrs = given
	return e, nil
}
