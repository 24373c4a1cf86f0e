package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	v6 "github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// grant is what a DHCPv6 server gave.
type grant struct {
	server  []byte // its DUID
	addrs   []Address
	t1, t2  time.Time
	end     time.Time // of the last address
	dns     []netip.Addr
	search  []string
	ntp     []netip.Addr
	raw     []Option
	ignored []string
	refresh time.Time // when to ask again for what is not addresses
}

func (g *grant) ignore(format string, args ...any) {
	if len(g.ignored) < 16 {
		g.ignored = append(g.ignored, fmt.Sprintf(format, args...))
	}
}

// others takes all but addresses.
func (r *reply6) others() *grant {
	g := &grant{server: r.server, raw: r.raw}
	g.dns = g.addresses("name server", r.get(v6.OptionDNSRecursiveNameServer))
	g.ntp = g.timeServers(r.get(v6.OptionNTPServer))
	if b := r.get(v6.OptionDomainSearchList); len(b) > 1024 {
		g.ignore("domain search list of %d bytes", len(b))
	} else if ls, err := rfc1035label.FromBytes(b); err != nil {
		g.ignore("domain search list: %v", err)
	} else {
		g.search = domains(ls.Labels, g.ignore)
	}
	return g
}

func (g *grant) addresses(what string, b []byte) (as []netip.Addr) {
	for ; len(b) >= 16; b = b[16:] {
		a := netip.AddrFrom16([16]byte(b))
		switch {
		case !usableServer6(a):
			g.ignore("%s %s", what, a)
		case len(as) < mostAddrs && !slices.Contains(as, a):
			as = append(as, a)
		}
	}
	return as
}

// timeServers takes addresses, suboption 1 (RFC 5908); names are left out.
func (g *grant) timeServers(b []byte) (as []netip.Addr) {
	for len(b) >= 4 {
		kind, n := be.Uint16(b), int(be.Uint16(b[2:]))
		if n > len(b)-4 {
			g.ignore("time servers: malformed")
			return as
		}
		if kind == 1 && n == 16 && len(as) < mostAddrs {
			as = append(as, g.addresses("time server", b[4:20])...)
		}
		b = b[4+n:]
	}
	return as
}

// grant takes the addresses of the client's IA as well, or says why not.
func (r *reply6) grant(iaid [4]byte, now time.Time) (*grant, error) {
	if err := status(r.opts); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(r.opts, func(o v6.Option) bool {
		ia, ok := o.(*v6.OptIANA)
		return ok && ia.IaId == iaid
	})
	if i < 0 {
		return nil, errors.New("an answer without addresses for us")
	}
	ia := r.opts[i].(*v6.OptIANA)
	if err := status(ia.Options.Options); err != nil {
		return nil, err
	}
	g := r.others()
	if err := g.take(ia, now); err != nil {
		return nil, err
	}
	return g, nil
}

// take takes the addresses that can be used, and the times for all of them.
func (g *grant) take(ia *v6.OptIANA, now time.Time) error {
	shortestP, why := endless, errors.New("no address")
	for _, o := range ia.Options.Get(v6.OptionIAAddr) {
		a, ok := o.(*v6.OptIAAddress)
		if !ok || len(g.addrs) == mostAddrs {
			continue
		}
		if err := g.address(a, now); err != nil {
			why = err
			g.ignore("%v", err)
			continue
		}
		shortestP = min(shortestP, a.PreferredLifetime)
	}
	if len(g.addrs) == 0 {
		return why
	}
	return g.times(ia, shortestP, now)
}

func (g *grant) address(o *v6.OptIAAddress, now time.Time) error {
	a, _ := netip.AddrFromSlice(o.IPv6Addr)
	switch {
	case !usable6(a):
		return fmt.Errorf("address %s, which no host can have", a)
	case o.ValidLifetime < shortest:
		return fmt.Errorf("address %s for %s, less than %s", a, o.ValidLifetime, shortest)
	case o.PreferredLifetime > o.ValidLifetime:
		return fmt.Errorf("address %s preferred for longer than valid", a)
	case slices.ContainsFunc(g.addrs, func(b Address) bool { return b.Prefix.Addr() == a }):
		return fmt.Errorf("address %s a second time", a)
	}
	end := ending(now, o.ValidLifetime)
	g.addrs = append(g.addrs, Address{netip.PrefixFrom(a, 128), DHCP6, ending(now, o.PreferredLifetime), end})
	if len(g.addrs) == 1 || later(end, g.end) {
		g.end = end
	}
	return nil
}

// times sets T1 and T2: the server's, or half and four fifths of the shortest
// preferred lifetime (RFC 8415 14.2).
func (g *grant) times(ia *v6.OptIANA, shortestP time.Duration, now time.Time) error {
	if ia.T1 > ia.T2 && ia.T2 > 0 {
		return fmt.Errorf("its T1 of %s is after its T2 of %s", ia.T1, ia.T2)
	}
	long := max(shortestP, shortest)
	if long >= endless {
		return nil
	}
	t1, t2 := ordered(ia.T1, ia.T2, long, long/5*4)
	g.t1, g.t2 = now.Add(t1), now.Add(t2)
	return nil
}

// hosts are the addresses alone.
func (g *grant) hosts() (as []netip.Addr) {
	for _, a := range g.addrs {
		as = append(as, a.Prefix.Addr())
	}
	return as
}

// fill puts it into a lease, before what routers say.
func (g *grant) fill(l *Lease, now time.Time) {
	for _, a := range g.addrs {
		if !over(a.Valid, now) {
			l.Addresses = append(l.Addresses, a)
		}
	}
	l.Renew, l.Rebind, l.ServerDUID = g.t1, g.t2, g.server
	l.DNS, l.Search, l.NTP = slices.Clone(g.dns), slices.Clone(g.search), g.ntp
	l.Options, l.Ignored = g.raw, g.ignored
}

// grantOf is what a lease of before says of DHCPv6; nil if that is nothing.
func grantOf(l Lease, now time.Time) *grant {
	g := &grant{
		server: l.ServerDUID, t1: l.Renew, t2: l.Rebind, dns: l.DNS, search: l.Search, ntp: l.NTP, raw: l.Options, ignored: l.Ignored,
	}
	for _, a := range l.Addresses {
		if a.Source == DHCP6 && !over(a.Valid, now) {
			g.addrs = append(g.addrs, a)
			if len(g.addrs) == 1 || later(a.Valid, g.end) {
				g.end = a.Valid
			}
		}
	}
	if len(g.addrs) == 0 || len(g.server) == 0 {
		return nil
	}
	return g
}
