package ipam

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// bitmap is a sparse set of small numbers: one word for each 64, kept only
// while something is in it, so that a /64 costs what is used of it.
type bitmap map[uint64]uint64

func (b bitmap) has(n uint64) bool { return b[n/64]&(1<<(n%64)) != 0 }
func (b bitmap) set(n uint64)      { b[n/64] |= 1 << (n % 64) }

func (b bitmap) clear(n uint64) {
	if w := b[n/64] &^ (1 << (n % 64)); w != 0 {
		b[n/64] = w
	} else {
		delete(b, n/64)
	}
}

// next is the first number that is not in b, from first to last; full words
// are passed over whole.
func (b bitmap) next(first, last uint64) (uint64, bool) {
	for n := first; n <= last; {
		free := ^b[n/64] >> (n % 64)
		if free == 0 {
			up := (n/64 + 1) * 64
			if up <= n { // the end of the numbers
				return 0, false
			}
			n = up
			continue
		}
		n += uint64(bits.TrailingZeros64(free))
		return n, n <= last
	}
	return 0, false
}

// offset is how far a is into p; addresses of more than 64 host bits are
// counted by the last 64.
func offset(p netip.Prefix, a netip.Addr) uint64 {
	return low(a) - low(p.Masked().Addr())
}

// at is the address that is n into p.
func at(p netip.Prefix, n uint64) netip.Addr {
	base := p.Masked().Addr()
	if base.Is4() {
		b := base.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := base.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

func low(a netip.Addr) uint64 {
	b := a.As16()
	if a.Is4() {
		return uint64(binary.BigEndian.Uint32(b[12:]))
	}
	return binary.BigEndian.Uint64(b[8:])
}

// span is the first and the last offset of p in the pool that begins at base.
func span(base, p netip.Prefix) (first, last uint64) {
	first = offset(base, p.Masked().Addr())
	host := p.Addr().BitLen() - p.Bits()
	if host >= 64 {
		return first, ^uint64(0)
	}
	return first, first + (1<<host - 1)
}
