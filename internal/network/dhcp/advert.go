package dhcp

import (
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/rfc1035label"
)

// advert is a router advertisement (RFC 4861 4.2).
type advert struct {
	router         netip.Addr
	managed, other bool // addresses, or only other things, are DHCPv6's
	preference     int  // RFC 4191: -1, 0, 1
	lifetime       time.Duration
	mtu            int
	prefixes       []prefix
	dns            []timed[netip.Addr]
	search         []timed[string]
}

// prefix is one that a router advertises.
type prefix struct {
	netip.Prefix
	onLink, auto     bool // on the link; for addresses of one's own
	preferred, valid time.Duration
}

// timed is something with a lifetime.
type timed[T any] struct {
	v    T
	long time.Duration
}

// endless is the duration that stands for no end.
const endless = forever * time.Second

// Options of advertisements.
const (
	ndPrefix = 3
	ndMTU    = 5
	ndDNS    = 25 // RFC 8106
	ndSearch = 31
)

// readAdvert is the advertisement in a frame. One that is malformed anywhere is
// none (RFC 4861 6.1.2).
func readAdvert(f frame) (a advert, ok bool) {
	src, kind, b, ok := readICMP6(f)
	if !ok || kind != routerAdvertisement || len(b) < 12 || !src.IsLinkLocalUnicast() {
		return a, false
	}
	a = advert{
		router: src, managed: b[1]&0x80 != 0, other: b[1]&0x40 != 0, preference: preferences[b[1]>>3&3],
		lifetime: time.Duration(be.Uint16(b[2:])) * time.Second,
	}
	for b = b[12:]; len(b) > 0; {
		if len(b) < 8 || b[1] == 0 || int(b[1])*8 > len(b) {
			return a, false
		}
		n := int(b[1]) * 8
		a.option(b[0], b[2:n])
		b = b[n:]
	}
	return a, true
}

// preferences are by their two bits; what is reserved is none.
var preferences = [4]int{0, 1, 0, -1}

// option takes one option; b is what follows its length.
func (a *advert) option(kind byte, b []byte) {
	switch {
	case kind == ndPrefix && len(b) == 30:
		a.prefix(b)
	case kind == ndMTU && len(b) == 6:
		if m := be.Uint32(b[2:]); m >= 1280 && m <= mostMTU {
			a.mtu = int(m)
		}
	case kind == ndDNS && len(b) >= 22 && len(b)%16 == 6:
		long := seconds(b[2:])
		for b = b[6:]; len(b) > 0 && len(a.dns) < mostAddrs; b = b[16:] {
			if d := netip.AddrFrom16([16]byte(b)); usableServer6(d) {
				a.dns = append(a.dns, timed[netip.Addr]{d, long})
			}
		}
	case kind == ndSearch && len(b) >= 14:
		a.domains(b)
	}
}

func (a *advert) prefix(b []byte) {
	bits := int(b[0])
	if bits > 128 {
		return
	}
	p := prefix{
		netip.PrefixFrom(netip.AddrFrom16([16]byte(b[14:])), bits).Masked(), b[1]&0x80 != 0, b[1]&0x40 != 0, seconds(b[6:]), seconds(b[2:]),
	}
	if bits < 3 || !usable6(p.Addr()) || p.preferred > p.valid || len(a.prefixes) == mostPrefixes {
		return
	}
	p.auto = p.auto && bits == 64
	a.prefixes = append(a.prefixes, p)
}

// domains reads a search list, which is padded with zeros.
func (a *advert) domains(b []byte) {
	ls, err := rfc1035label.FromBytes(b[6:min(len(b), 1024)])
	if err != nil {
		return
	}
	for _, d := range domains(ls.Labels, func(string, ...any) {}) {
		if len(a.search) < mostNames {
			a.search = append(a.search, timed[string]{d, seconds(b[2:])})
		}
	}
}

func seconds(b []byte) time.Duration { return time.Duration(be.Uint32(b)) * time.Second }

// usable6 are addresses that a host of a LAN may have: global and local ones.
func usable6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && a.IsGlobalUnicast()
}

// usableServer6 may also be on the link only, as home routers are.
func usableServer6(a netip.Addr) bool {
	return usable6(a) || a.Is6() && a.IsLinkLocalUnicast()
}
