package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gaissmai/bart"
)

// Source is a prefix that is cut into subnets of Size bits.
type Source struct {
	Base netip.Prefix
	Size int
}

// Allocator finds free subnets and free addresses. Sources must be set before
// the first use; the rest is loaded by Open and Load. Safe for concurrent use.
type Allocator struct {
	Sources []Source // IPv4 and IPv6, tried in order

	mu      sync.Mutex
	pools   map[netip.Prefix]*pool
	taken   bart.Lite               // the subnets of all pools
	cursors map[netip.Prefix]uint64 // the subnet chosen last, by base and size
}

// ErrOverlap is Docker's.
var ErrOverlap = errdefs.ErrPermissionDenied.WithMessage("invalid pool request: Pool overlaps with other one on this address space")

// Foreign is a prefix that something else on this machine uses.
type Foreign struct {
	Prefix netip.Prefix
	What   string // "route", "address", NameServer
	Dev    string // the interface, if there is one
	Host   string // of the cluster, whose it is; "": this host's
}

// NameServer is the What of those that the host asks for names.
const NameServer = "name server"

func (f Foreign) String() string {
	if f.Dev == "" {
		return fmt.Sprintf("%s %s", f.What, f.Prefix)
	}
	return fmt.Sprintf("%s %s on %s", f.What, f.Prefix, f.Dev)
}

func (f Foreign) owner() string {
	if f.Host != "" {
		return "host " + f.Host + " of the cluster"
	}
	return "this host"
}

// matters is false for default routes, also those that are cut in two halves:
// everything overlaps with them.
func (f Foreign) matters() bool { return f.Prefix.Bits() > 1 }

// Check reports why subnet cannot be a new pool.
func (l *Allocator) Check(subnet netip.Prefix, foreign []Foreign) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken.OverlapsPrefix(subnet) {
		return ErrOverlap
	}
	for _, f := range foreign {
		if f.matters() && f.Prefix.Overlaps(subnet) {
			return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("subnet %s overlaps with %s of %s (hint: choose another --subnet, or none)", subnet, f, f.owner()))
		}
	}
	return nil
}

// Choose finds a subnet that overlaps nothing in use. size is the wanted
// prefix length; 0 is the source's own.
func (l *Allocator) Choose(v6 bool, size int, foreign []Foreign) (netip.Prefix, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var others bart.Lite
	for _, f := range foreign {
		if f.matters() {
			others.Insert(f.Prefix.Masked())
		}
	}
	for _, s := range l.Sources {
		if s.Base.Addr().Is6() != v6 || (size != 0 && size < s.Base.Bits()) {
			continue
		}
		if size != 0 {
			s.Size = size
		}
		if p, ok := l.find(s, &others); ok {
			return p, nil
		}
	}
	return netip.Prefix{}, errdefs.ErrNotFound.WithMessage("all predefined address pools have been fully subnetted (hint: remove networks that are not used, give --subnet, or add network.pools to the configuration)")
}

// find goes through the subnets of s from where it stopped the last time.
func (l *Allocator) find(s Source, others *bart.Lite) (netip.Prefix, bool) {
	key := netip.PrefixFrom(s.Base.Masked().Addr(), s.Size)
	n := uint64(1) << min(s.Size-s.Base.Bits(), 16) // 65,536 are enough to look at
	start := l.cursors[key]
	for i := range n {
		k := (start + i) % n
		p := netip.PrefixFrom(nth(s, k), s.Size)
		if l.taken.OverlapsPrefix(p) || others.OverlapsPrefix(p) {
			continue
		}
		if l.cursors == nil {
			l.cursors = map[netip.Prefix]uint64{}
		}
		l.cursors[key] = k
		return p, true
	}
	return netip.Prefix{}, false
}

// nth is the base address of the k-th subnet of s.
func nth(s Source, k uint64) netip.Addr {
	b := s.Base.Masked().Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	var carry uint64
	if shift := s.Base.Addr().BitLen() - s.Size; shift >= 64 {
		hi += k << (shift - 64)
	} else {
		lo, carry = bits.Add64(lo, k<<shift, 0)
		hi += k>>(64-shift) + carry
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	a := netip.AddrFrom16(b)
	if s.Base.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

// ULA is the /48 of unique local addresses (RFC 4193) that belongs to id,
// which is to be the same for the life of the machine and on no other.
func ULA(id string) netip.Prefix {
	h := sha256.Sum256([]byte("isle " + id))
	b := [16]byte{0xfd}
	copy(b[1:6], h[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}
