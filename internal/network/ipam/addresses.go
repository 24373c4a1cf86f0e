package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"

	"isle/internal/store"
)

// Pool is a subnet that addresses are taken from.
type Pool struct {
	Subnet  netip.Prefix
	Range   netip.Prefix // addresses nobody asked for by name come from here; invalid: Subnet
	Exclude []netip.Addr // never handed out: the gateway, addresses of others
}

// pool is what is remembered of a Pool. Its addresses are numbered from base on,
// by their last 64 bits: of a larger subnet that is where the range begins.
type pool struct {
	Pool
	base   netip.Addr
	used   bitmap
	far    map[netip.Addr]struct{} // used ones without a number
	inUse  uint64                  // how many are used
	ranged uint64                  // those of them that are in Range
	cursor uint64                  // where the search for a free address goes on
	picked uint64                  // the last one that was found so: the cursor passes it when it is taken
}

// Docker's words, which clients match.
var (
	ErrInUse      = errdefs.ErrPermissionDenied.WithMessage("Address already in use")
	ErrOutOfRange = errdefs.ErrInvalidArgument.WithMessage("requested address is out of range")
)

func newPool(p Pool) *pool {
	q := &pool{Pool: p, used: bitmap{}, far: map[netip.Addr]struct{}{}}
	if !q.Range.IsValid() {
		q.Range = q.Subnet
	}
	q.base = q.Subnet.Masked().Addr()
	if q.Subnet.Addr().BitLen()-q.Subnet.Bits() > 64 {
		q.base = netip.PrefixFrom(q.Range.Addr(), min(q.Range.Bits(), 64)).Masked().Addr()
	}
	for _, a := range q.edges() {
		q.count(a, true)
	}
	for _, a := range q.Exclude {
		if q.Subnet.Contains(a) {
			q.count(a, true)
		}
	}
	q.cursor, _ = q.span()
	return q
}

// edges are the subnet's own address and its broadcast address.
func (p *pool) edges() (out []netip.Addr) {
	host := p.Subnet.Addr().BitLen() - p.Subnet.Bits()
	if host <= 1 { // RFC 3021: a /31 has neither
		return nil
	}
	out = append(out, p.Subnet.Masked().Addr())
	if p.Subnet.Addr().Is4() {
		out = append(out, at(out[0], 1<<host-1))
	}
	return out
}

// number is a's, if it has one.
func (p *pool) number(a netip.Addr) (n uint64, ok bool) {
	return low(a) - low(p.base), high(a) == high(p.base)
}

func (p *pool) has(a netip.Addr) bool {
	if n, ok := p.number(a); ok {
		return p.used.has(n)
	}
	_, ok := p.far[a]
	return ok
}

// mark puts an address down as used, or as free.
func (p *pool) mark(a netip.Addr, used bool) {
	n, numbered := p.number(a)
	switch {
	case numbered && used:
		p.used.set(n)
	case numbered:
		p.used.clear(n)
	case used:
		p.far[a] = struct{}{}
	default:
		delete(p.far, a)
	}
}

// count is mark, and keeps the numbers of used addresses in step.
func (p *pool) count(a netip.Addr, used bool) {
	if p.has(a) == used {
		return
	}
	p.mark(a, used)
	by := uint64(1)
	if !used {
		by = ^uint64(0)
	}
	p.inUse += by
	if p.Range.Contains(a) {
		p.ranged += by
	}
}

// Usage is how full a pool is.
type Usage struct {
	InUse     uint64 // with those that nobody can have: network, broadcast, gateway, aux
	Available uint64 // free ones that are handed out without being asked for by name
}

// Usage tells it of an open pool.
func (l *Allocator) Usage(subnet netip.Prefix) Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.pools[subnet]
	if !ok {
		return Usage{}
	}
	first, last := p.span()
	size := last - first + 1
	if size == 0 { // all 2^64: one is missed
		size--
	}
	return Usage{p.inUse, size - p.ranged}
}

func tables(subnet netip.Prefix) (byAddr store.Table[string], byOwner store.Table[netip.Addr]) {
	p := "ipam/" + subnet.String()
	return store.NewTable[string](p + "/addr"), store.NewTable[netip.Addr](p + "/owner")
}

// Open makes the addresses of p available. The caller has committed the
// network that p belongs to.
func (l *Allocator) Open(p Pool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pools == nil {
		l.pools = map[netip.Prefix]*pool{}
	}
	l.pools[p.Subnet] = newPool(p)
	l.taken.Insert(p.Subnet)
}

// Load is Open for a pool that has reservations already.
func (l *Allocator) Load(tx store.Tx, p Pool) error {
	l.Open(p)
	_, byOwner := tables(p.Subnet)
	for a, err := range byOwner.All(tx) {
		if err != nil {
			return err
		}
		l.Taken(p.Subnet, a)
		l.pass(p.Subnet, a)
	}
	return nil
}

// pass puts the cursor behind a: addresses that were freed lately are below
// those that are in use, most of the time.
func (l *Allocator) pass(subnet netip.Prefix, a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pools[subnet]
	if n, ok := p.number(a); ok && p.Range.Contains(a) {
		p.cursor = max(p.cursor, n+1)
	}
}

// Drop forgets a pool whose network is gone.
func (l *Allocator) Drop(subnet netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pools, subnet)
	l.taken.Delete(subnet)
}

// Reserve gives owner an address of the open pool subnet: want, or when that
// is invalid the next free one. The same owner gets the same address. When
// none is left the error is of class ResourceExhausted.
func (l *Allocator) Reserve(tx store.Tx, subnet netip.Prefix, owner string, want netip.Addr) (netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.pools[subnet]
	if !ok {
		return netip.Addr{}, fmt.Errorf("address pool %s: %w", subnet, errdefs.ErrNotFound)
	}
	byAddr, byOwner := tables(subnet)
	if a, err := byOwner.Get(tx, owner); err == nil {
		if want.IsValid() && a != want {
			return a, fmt.Errorf("%s has address %s already: %w", owner, a, errdefs.ErrConflict)
		}
		return a, nil
	}
	a, err := p.pick(tx, want)
	if err != nil {
		return a, err
	}
	return a, errors.Join(byAddr.Put(tx, a.String(), owner), byOwner.Put(tx, owner, a))
}

// Release gives back what owner has in subnet, if anything, and returns it.
func (l *Allocator) Release(tx store.Tx, subnet netip.Prefix, owner string) (netip.Addr, error) {
	byAddr, byOwner := tables(subnet)
	a, err := byOwner.Get(tx, owner)
	if errdefs.IsNotFound(err) {
		return netip.Addr{}, nil
	}
	if err != nil {
		return a, err
	}
	byAddr.Delete(tx, a.String())
	byOwner.Delete(tx, owner)
	return a, nil
}

// Taken is to be called when a reservation was committed.
func (l *Allocator) Taken(subnet netip.Prefix, a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.pools[subnet]; ok {
		p.count(a, true)
		if n, ok := p.number(a); ok && n == p.picked {
			p.cursor = n + 1
		}
	}
}

// Freed is to be called when a release was committed.
func (l *Allocator) Freed(subnet netip.Prefix, a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.pools[subnet]; ok && a.IsValid() {
		p.count(a, false)
	}
}

// pick chooses. The records have the last word: an address may have been
// reserved earlier in the same transaction.
func (p *pool) pick(tx store.Tx, want netip.Addr) (netip.Addr, error) {
	byAddr, _ := tables(p.Subnet)
	free := func(a netip.Addr) bool {
		_, err := byAddr.Get(tx, a.String())
		return err != nil
	}
	if want.IsValid() {
		return want, p.check(want, free)
	}
	first, last := p.span()
	cursor := p.cursor
	for range 2 { // from the cursor to the end, then once more from the beginning
		for n := cursor; ; n++ {
			var ok bool
			if n, ok = p.used.next(n, last); !ok {
				break
			}
			if a := at(p.base, n); free(a) {
				p.picked = n
				return a, nil
			}
		}
		cursor, p.cursor = first, first
	}
	return netip.Addr{}, fmt.Errorf("%s: %w", p.Range, errdefs.ErrResourceExhausted)
}

func (p *pool) check(want netip.Addr, free func(netip.Addr) bool) error {
	switch {
	case !p.Subnet.Contains(want):
		return fmt.Errorf("%w: %s is not in %s", ErrOutOfRange, want, p.Subnet)
	case slices.Contains(p.edges(), want):
		return fmt.Errorf("%w: %s is the network's own or the broadcast address of %s", ErrOutOfRange, want, p.Subnet)
	case p.has(want), !free(want):
		return ErrInUse
	}
	return nil
}

// span is the first and the last number in the range.
func (p *pool) span() (first, last uint64) {
	first, _ = p.number(p.Range.Masked().Addr())
	host := p.Range.Addr().BitLen() - p.Range.Bits()
	if host >= 64 {
		return first, ^uint64(0)
	}
	return first, first + (1<<host - 1)
}
