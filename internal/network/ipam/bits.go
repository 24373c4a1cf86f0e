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

// at is the address that is n behind base.
func at(base netip.Addr, n uint64) netip.Addr {
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

func high(a netip.Addr) uint64 {
	if a.Is4() {
		return 0
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}
