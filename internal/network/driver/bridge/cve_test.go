package bridge_test

import (
	"net/netip"
	"testing"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/driver/bridge"
	"isle/internal/network/driver/drivertest"
)

// CVE-2020-13401: nobody believes router advertisements, neither the host on
// its bridge nor a container; without IPv6 there is none to begin with.
func TestCVE_2020_13401(t *testing.T) {
	for ipv6, want := range map[bool]string{true: "accept_ra=0", false: "disable_ipv6=1"} {
		n := network.Network{ID: "3f2a9c0d1b00", Name: "app", IPv6: ipv6, Pools: []network.Pool{{Subnet: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}}}
		ep := network.Endpoint{Sandbox: "web", Interface: "eth0", HostInterface: "islev1", Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}}
		if ipv6 {
			ep.Addrs = append(ep.Addrs, netip.MustParsePrefix("fd00:9::2/64"))
		}
		host := drivertest.Host
		host.IPv6 = true
		s := netspec.State{}
		if err := (bridge.Driver{}).Plan(s, n, []network.Endpoint{ep}, host); err != nil {
			t.Fatal(err)
		}
		links := map[string]bool{}
		for _, o := range s {
			if c, ok := o.(netspec.Sysctl); ok {
				for _, link := range []string{"isle-3f2a9c0d1b", "eth0"} {
					for _, key := range []string{"accept_ra", "disable_ipv6"} {
						if c.Name == "ipv6/conf/"+link+"/"+key && key+"="+c.Value == want {
							links[link] = true
						}
					}
				}
			}
		}
		if len(links) != 2 {
			t.Errorf("IPv6 %v: %s only on %v", ipv6, want, links)
		}
	}
}
