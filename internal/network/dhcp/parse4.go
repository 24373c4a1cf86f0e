package dhcp

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	v4 "github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// What is believed of a server, which may be anybody on the LAN.
const (
	shortest  = 10 * time.Second // of leases; shorter ones would be a flood
	firstT1   = 5 * time.Second  // the earliest time to ask again
	mostRoute = 64
	mostAddrs = 8 // of name servers, time servers, routers
	mostNames = 32
	leastMTU  = 576
	mostMTU   = 9216
	forever   = 0xffffffff // seconds
)

// parse4 makes a lease of an OFFER or ACK, or says why not. What is wrong but
// not needed is left out and noted.
func (c Config) parse4(m *v4.DHCPv4, now time.Time) (Lease, error) {
	p := parser4{Options: m.Options, l: Lease{Interface: c.Interface, Obtained: now}}
	a, err := p.address(m)
	if err != nil {
		return Lease{}, err
	}
	if p.l.Server, err = p.server(); err != nil {
		return Lease{}, err
	}
	if err := p.times(now); err != nil {
		return Lease{}, err
	}
	p.l.Addresses = []Address{{Prefix: a, Source: DHCP4, Valid: p.l.Expire, Preferred: p.l.Expire}}
	p.routes(a)
	p.names()
	p.mtu()
	p.raw()
	return p.l, nil
}

type parser4 struct {
	v4.Options
	l Lease
}

func (p *parser4) ignore(format string, args ...any) {
	if len(p.l.Ignored) < 16 {
		p.l.Ignored = append(p.l.Ignored, fmt.Sprintf(format, args...))
	}
}

// address is the address in its subnet.
func (p *parser4) address(m *v4.DHCPv4) (netip.Prefix, error) {
	a, _ := netip.AddrFromSlice(m.YourIPAddr)
	if !usable4(a) {
		return netip.Prefix{}, fmt.Errorf("address %s, which no host can have", a)
	}
	n, err := p.mask(a)
	if err != nil {
		return netip.Prefix{}, err
	}
	subnet := netip.PrefixFrom(a, n)
	if n < 31 && (a == subnet.Masked().Addr() || a == lastOf(subnet)) {
		return netip.Prefix{}, fmt.Errorf("address %s, which is not one of a host", subnet)
	}
	return subnet, nil
}

// mask without an option is that of the address's class.
func (p *parser4) mask(a netip.Addr) (int, error) {
	b := p.Get(v4.OptionSubnetMask)
	if len(b) == 0 {
		return classOf(a), nil
	}
	if len(b) != 4 {
		return 0, fmt.Errorf("subnet mask of %d bytes", len(b))
	}
	m := be.Uint32(b)
	n := bits.LeadingZeros32(^m)
	if n == 0 || m != ^uint32(0)<<(32-n) {
		return 0, fmt.Errorf("subnet mask %d.%d.%d.%d", b[0], b[1], b[2], b[3])
	}
	return n, nil
}

func classOf(a netip.Addr) int {
	switch b := a.As4()[0]; {
	case b < 128:
		return 8
	case b < 192:
		return 16
	default:
		return 24
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	be.PutUint32(a[:], be.Uint32(a[:])|uint32(1<<(32-p.Bits())-1))
	return netip.AddrFrom4(a)
}

// usable4 are addresses that a host of a LAN may have: not 0/8, 127/8,
// 169.254/16, multicast and what is reserved.
func usable4(a netip.Addr) bool { return unicast4(a) && !a.IsLinkLocalUnicast() }

func unicast4(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] != 0 && b[0] != 127 && b[0] < 224
}

func (p *parser4) server() (netip.Addr, error) {
	a, _ := netip.AddrFromSlice(p.Get(v4.OptionServerIdentifier))
	switch {
	case !a.IsValid():
		return a, errors.New("no server identifier")
	case !usable4(a):
		return a, fmt.Errorf("server identifier %s", a)
	}
	return a, nil
}

// times sets T1 < T2 < the end, whatever the server says.
func (p *parser4) times(now time.Time) error {
	s, ok := p.seconds(v4.OptionIPAddressLeaseTime)
	long := time.Duration(s) * time.Second
	switch {
	case !ok:
		return errors.New("no lease time")
	case s == forever:
		return nil
	case long < shortest:
		return fmt.Errorf("lease of %s, less than %s", long, shortest)
	}
	t1, t2 := p.between(long)
	p.l.Renew, p.l.Rebind, p.l.Expire = now.Add(t1), now.Add(t2), now.Add(long)
	return nil
}

func (p *parser4) between(long time.Duration) (t1, t2 time.Duration) {
	s1, _ := p.seconds(v4.OptionRenewTimeValue)
	s2, _ := p.seconds(v4.OptionRebindingTimeValue)
	return ordered(time.Duration(s1)*time.Second, time.Duration(s2)*time.Second, long, long/8*7)
}

// ordered are T1 and T2, or half of the lease and what is usual for T2 where
// they make no sense.
func ordered(t1, t2, long, usual2 time.Duration) (time.Duration, time.Duration) {
	if t2 <= firstT1 || t2 >= long {
		t2 = usual2
	}
	if t1 < firstT1 || t1 >= t2 {
		t1 = min(long/2, t2)
	}
	return t1, t2
}

func (p *parser4) seconds(code v4.OptionCode) (uint32, bool) {
	b := p.Get(code)
	if len(b) != 4 {
		return 0, false
	}
	return be.Uint32(b), true
}

// addresses are those of an option that a host can use.
func (p *parser4) addresses(code v4.OptionCode) (as []netip.Addr) {
	b := p.Get(code)
	if len(b)%4 != 0 {
		p.ignore("%s of %d bytes", code, len(b))
		return nil
	}
	for c := range slices.Chunk(b, 4) {
		a := netip.AddrFrom4([4]byte(c))
		switch {
		case !usable4(a):
			p.ignore("%s %s", code, a)
		case len(as) == mostAddrs:
			p.ignore("%s: more than %d", code, mostAddrs)
			return as
		case !slices.Contains(as, a):
			as = append(as, a)
		}
	}
	return as
}

func (p *parser4) names() {
	p.l.DNS = p.addresses(v4.OptionDomainNameServer)
	p.l.NTP = p.addresses(v4.OptionNTPServers)
	name := strings.TrimRight(string(p.Get(v4.OptionDomainName)), "\x00.")
	if name != "" && !isDomain(name) {
		p.ignore("domain name %q", shortened(name))
	} else {
		p.l.Domain = name
	}
	if b := p.Get(v4.OptionDNSDomainSearchList); len(b) > 0 {
		p.search(b)
	}
}

func (p *parser4) search(b []byte) {
	if len(b) > 1024 {
		p.ignore("domain search list of %d bytes", len(b))
		return
	}
	ls, err := rfc1035label.FromBytes(b)
	if err != nil {
		p.ignore("domain search list: %v", err)
		return
	}
	p.l.Search = domains(ls.Labels, p.ignore)
}

// domains are those of names that are ones.
func domains(names []string, ignore func(string, ...any)) (ds []string) {
	for _, n := range names {
		n = strings.TrimSuffix(n, ".")
		switch {
		case !isDomain(n):
			ignore("search domain %q", shortened(n))
		case len(ds) == mostNames:
			ignore("more than %d search domains", mostNames)
			return ds
		case !slices.Contains(ds, n):
			ds = append(ds, n)
		}
	}
	return ds
}

// isDomain is strict: names go into files that others parse.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for l := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		bad := strings.ContainsFunc(l, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		})
		if bad || l == "" || len(l) > 63 || l[0] == '-' {
			return false
		}
	}
	return true
}

func shortened(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func (p *parser4) mtu() {
	b := p.Get(v4.OptionInterfaceMTU)
	if len(b) == 0 {
		return
	}
	if len(b) != 2 || be.Uint16(b) < leastMTU || be.Uint16(b) > mostMTU {
		p.ignore("MTU %x", b[:min(len(b), 4)])
		return
	}
	p.l.MTU = int(be.Uint16(b))
}

func (p *parser4) raw() {
	for code, b := range p.Options {
		p.l.Options = append(p.l.Options, Option{uint16(code), b})
	}
	slices.SortFunc(p.l.Options, func(a, b Option) int { return int(a.Code) - int(b.Code) })
}
