package dhcp

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
)

// newWire6 is a wire with IPv6, whose kernel leaves routers to us.
func newWire6(t *testing.T) *wire {
	t.Helper()
	if !probe.IPv6() {
		t.Skip(&probe.NotSupportedError{Feature: "IPv6"})
	}
	w := newWire(t)
	w.box.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_ra", []byte("0"), 0) })
	w.lan.IP("addr add 2001:db8::1/64 dev lan0 nodad")
	settled(t, w.box, "eth0")
	settled(t, w.lan, "lan0")
	return w
}

// settled waits until the kernel uses its link-local address.
func settled(t *testing.T, ns kerneltest.NS, link string) {
	t.Helper()
	for range 100 {
		if ns.Run("ip", "-6", "addr", "show", "dev", link, "tentative") == "" && ns.Run("ip", "-6", "addr", "show", "dev", link, "scope", "link") != "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s has no link-local address", link)
}

// eventually waits until the client said that.
func (w *wire) eventually(t *testing.T, k Kind) {
	t.Helper()
	for range 200 {
		if slices.Contains(kinds(w.cs.take()), k) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("nothing was %s", k)
}

// TestDnsmasq6: the life of an address with a server that others wrote.
func TestDnsmasq6(t *testing.T) {
	t.Parallel()
	w := newWire6(t)
	w.dnsmasq(t, "--enable-ra", "--dhcp-range=2001:db8::50,2001:db8::5f,64,2m", "--dhcp-option=option6:dns-server,[2001:db8::53]",
		"--dhcp-option=option6:domain-search,corp.example", "--dhcp-option=option6:ntp-server,[2001:db8::123]")
	cfg := w.config()
	cfg.Limit = 30 * time.Second
	c, l := acquired6(t, cfg)
	own := l.Address().Addr()
	if len(l.Addresses) != 1 || l.Addresses[0].Source != DHCP6 || !mustPrefix("2001:db8::50/124").Contains(own) {
		t.Errorf("addresses: %s", showAddrs(l))
	}
	expect(t, "names", fmt.Sprint(l.DNS, l.Search, l.NTP), "[2001:db8::53] [corp.example] [2001:db8::123]")
	if len(l.Routes) != 2 || l.Routes[0].Dest != mustPrefix("2001:db8::/64") || l.Routes[1].Via != l.Server || !l.Server.IsLinkLocalUnicast() {
		t.Errorf("routes: %s", routesOf(l))
	}
	w.box.IP("addr add " + l.Address().String() + " dev eth0 nodad")
	a := " for " + own.String()
	w.w.saw(t, "RS", "RA", "SOLICIT", "REPLY"+a, "NS"+a) // it agrees to a rapid commit
	c.Close()

	cfg.Previous = kept(t, l)
	cfg.Previous.Renew = time.Now().Add(4 * time.Second) // its T1 is a minute
	c, again := acquired6(t, cfg)
	expect(t, "after a restart", again.Address(), l.Address())
	w.w.saw(t, "REPLY"+a, "RS", "CONFIRM"+a, "REPLY")
	w.eventually(t, Renewed)
	w.w.saw(t, "CONFIRM"+a, "RENEW"+a, "REPLY"+a)
	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.w.saw(t, "RELEASE"+a, "REPLY")
}

// TestDnsmasq6Stateless: an address of the router's prefix, names of DHCPv6.
func TestDnsmasq6Stateless(t *testing.T) {
	t.Parallel()
	w := newWire6(t)
	w.dnsmasq(t, "--enable-ra", "--dhcp-range=2001:db8::,ra-stateless,64,10m", "--dhcp-option=option6:dns-server,[2001:db8::53]",
		"--dhcp-option=option6:ntp-server,[2001:db8::123]", "--ra-param=lan0,mtu:1400,60,1800")
	cfg := w.config()
	cfg.Limit = 30 * time.Second
	_, l := acquired6(t, cfg)
	expect(t, "address", showAddrs(l), "[slaac 2001:db8::ff:fe00:7/64]")
	expect(t, "names", fmt.Sprint(l.DNS, l.NTP, l.MTU), "[2001:db8::53] [2001:db8::123] 1400")
	w.w.saw(t, "RS", "RA", "INFORMATION-REQUEST", "REPLY")
}

// TestDnsmasq6InUse: what another host has is declined.
func TestDnsmasq6InUse(t *testing.T) {
	t.Parallel()
	w := newWire6(t)
	w.dnsmasq(t, "--enable-ra", "--dhcp-range=2001:db8::50,2001:db8::51,64,2m")
	cfg := w.config()
	cfg.Limit = 30 * time.Second
	first, l := acquired6(t, cfg)
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.serve(t, owner6(otherMAC, l.Address().Addr()))
	_, next := acquired6(t, cfg)
	if next.Address() == l.Address() {
		t.Errorf("the address of another host was taken: %s", next.Address())
	}
	a := " for " + l.Address().Addr().String()
	w.w.saw(t, "RELEASE"+a, "NS"+a, "DECLINE"+a, "REPLY", "NS for "+next.Address().Addr().String())
}

// TestWire6Down: an interface that goes down is noticed without anybody asking,
// and healed.
func TestWire6Down(t *testing.T) {
	t.Parallel()
	w := newWire6(t)
	w.serve(t, routerOf(plain()))
	_, l := acquired6(t, w.config())
	expect(t, "address", showAddrs(l), "[slaac 2001:db8:1::ff:fe00:7/64]")
	w.box.IP("link set eth0 down")
	w.eventually(t, Trouble)
	w.box.IP("link set eth0 up")
	w.eventually(t, Healed)
}
