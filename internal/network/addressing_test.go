package network_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/ipam"
)

func subnet(s string, more func(*api.IPAMConfig)) api.CreateRequest {
	c := api.IPAMConfig{Subnet: prefix(s)}
	if more != nil {
		more(&c)
	}
	yes := true
	return api.CreateRequest{Name: "x", EnableIPv6: &yes, IPAM: &api.IPAM{Config: []api.IPAMConfig{c}}}
}

func TestAddressesRefused(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	gateway := func(a string) func(*api.IPAMConfig) { return func(c *api.IPAMConfig) { c.Gateway = addr(a) } }
	for what, c := range map[string]struct {
		req  api.CreateRequest
		text string
	}{
		"IPv4 in IPv6":             {subnet("::ffff:10.0.0.0/112", nil), "written as IPv6"},
		"IPv4 in IPv6 as gateway":  {subnet("10.0.0.0/24", gateway("::ffff:10.0.0.1")), "written as IPv6"},
		"multicast":                {subnet("239.0.0.0/24", nil), "address of a group"},
		"multicast, IPv6":          {subnet("ff15::/64", nil), "address of a group"},
		"loopback":                 {subnet("127.1.0.0/16", nil), "loopback"},
		"link-local":               {subnet("169.254.3.0/24", nil), "link-local"},
		"link-local, IPv6":         {subnet("fe80::/64", nil), "link-local"},
		"gateway is the network":   {subnet("10.0.0.0/24", gateway("10.0.0.0")), "network's or the broadcast address"},
		"gateway is the broadcast": {subnet("10.0.0.0/24", gateway("10.0.0.255")), "network's or the broadcast address"},
		"gateway of a size":        {subnet("0.0.0.0/24", gateway("10.0.0.1")), "give --subnet too"},
		"no room":                  {subnet("fd00::/128", nil), "no room"},
		"twice the same aux": {subnet("10.0.0.0/24", func(c *api.IPAMConfig) {
			c.AuxAddress = map[string]netip.Addr{"a": addr("10.0.0.9"), "b": addr("10.0.0.9")}
		}), "given twice"},
		"no gateway is left": {subnet("10.0.0.0/30", func(c *api.IPAMConfig) {
			c.AuxAddress = map[string]netip.Addr{"a": addr("10.0.0.1"), "b": addr("10.0.0.2")}
		}), "none is left"},
		"aux is the gateway": {subnet("10.0.0.0/24", func(c *api.IPAMConfig) {
			c.Gateway, c.AuxAddress = addr("10.0.0.9"), map[string]netip.Addr{"a": addr("10.0.0.9")}
		}), "aux-address"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := m.Create(t.Context(), c.req)
			refused(t, err, errdefs.IsInvalidArgument, c.text)
		})
	}
}

// TestAuxGateway: an aux-address may be the containers' way out; the bridge keeps its own.
func TestAuxGateway(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	n := create(t, m, subnet("10.0.0.0/24", func(c *api.IPAMConfig) {
		c.AuxAddress = map[string]netip.Addr{"DefaultGatewayIPv4": addr("10.0.0.254"), "other": addr("10.0.0.9")}
	}))
	open(t, m, "c1", "x")
	way := netspec.Route{NS: "c1", Dst: prefix("0.0.0.0/0"), Via: addr("10.0.0.254"), Dev: "eth0"}
	if w.kernel.State[way.Key()] != netspec.Object(way) || n.Pools[0].Gateway != addr("10.0.0.1") {
		t.Errorf("%v, gateway %s", w.kernel.State[way.Key()], n.Pools[0].Gateway)
	}
}

// TestSmallestSubnets: a /31 has a gateway and one container (RFC 3021), a /127 too.
func TestSmallestSubnets(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	yes := true
	create(t, m, api.CreateRequest{Name: "x", EnableIPv6: &yes, IPAM: config("10.0.0.0/31", "fd00:1::/127")})
	if got := fmt.Sprint(open(t, m, "c1", "x").Endpoints[0].Addrs); got != "[10.0.0.1/31 fd00:1::1/127]" {
		t.Error(got)
	}
	_, err := m.Open(t.Context(), request("c2", nil, "x"))
	refused(t, err, errdefs.IsUnavailable, "no available IPv4 addresses")
}

// TestSubnetsOfOneFamily: a container gets one address of each family, in the
// first subnet with room or in the one that the address it asks for is in, and
// goes out by the gateway of that subnet.
func TestSubnetsOfOneFamily(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	yes := true
	create(t, m, api.CreateRequest{Name: "x", EnableIPv6: &yes, IPAM: config("10.0.0.0/30", "10.0.1.0/24", "fd00:1::/64", "fd00:2::/64")})
	via := func(ns netspec.NS, all string) string {
		r, _ := w.kernel.State[netspec.Route{NS: ns, Dst: prefix(all)}.Key()].(netspec.Route)
		return r.Via.String()
	}
	for _, c := range []struct{ id, v4, v6, want string }{
		{"c1", "", "", "[10.0.0.2/30 fd00:1::2/64] by 10.0.0.1 and fd00:1::1"},
		{"c2", "", "fd00:2::9", "[10.0.1.2/24 fd00:2::9/64] by 10.0.1.1 and fd00:2::1"},
		{"c3", "10.0.1.77", "", "[10.0.1.77/24 fd00:1::3/64] by 10.0.1.1 and fd00:1::1"},
	} {
		req := request(c.id, nil, "x")
		want := &api.EndpointIPAMConfig{}
		if c.v4 != "" {
			want.IPv4Address = addr(c.v4)
		}
		if c.v6 != "" {
			want.IPv6Address = addr(c.v6)
		}
		req.Networks[0].Settings.IPAMConfig = want
		out, err := m.Open(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		ns := netspec.NS(c.id)
		if got := fmt.Sprintf("%v by %s and %s", out.Endpoints[0].Addrs, via(ns, "0.0.0.0/0"), via(ns, "::/0")); got != c.want {
			t.Errorf("%s: %s, want %s", c.id, got, c.want)
		}
	}
}

// TestUsage: what network inspect shows, without looking at the endpoints.
func TestUsage(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	n := create(t, m, api.CreateRequest{Name: "x", IPAM: &api.IPAM{Config: []api.IPAMConfig{
		{Subnet: prefix("10.0.0.0/24"), IPRange: prefix("10.0.0.128/25"), AuxAddress: map[string]netip.Addr{"r": addr("10.0.0.200")}}, {Subnet: prefix("10.0.1.0/30")},
	}}})
	check := func(when string, first, second ipam.Usage) {
		t.Helper()
		got, err := m.Usage(t.Context(), n.ID)
		if err != nil || got[prefix("10.0.0.0/24")] != first || got[prefix("10.0.1.0/30")] != second {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
	}
	// network, broadcast, gateway and aux are in use; broadcast and aux are in the range
	check("at first", ipam.Usage{InUse: 4, Available: 126}, ipam.Usage{InUse: 3, Available: 1})
	open(t, m, "c1", "x")
	check("with a container", ipam.Usage{InUse: 5, Available: 125}, ipam.Usage{InUse: 3, Available: 1})
	m = w.start(t)
	check("after a restart", ipam.Usage{InUse: 5, Available: 125}, ipam.Usage{InUse: 3, Available: 1})
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	check("without it", ipam.Usage{InUse: 4, Available: 126}, ipam.Usage{InUse: 3, Available: 1})
	if _, err := m.Usage(t.Context(), "nope"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestDualStack: where the host has IPv6, networks have it, unless somebody says
// otherwise.
func TestDualStack(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		what         string
		config, host bool
		asked        *bool
		mtu          string
		want         bool
	}{
		{"by default", true, true, nil, "", true},
		{"switched off", false, true, nil, "", false},
		{"a host without IPv6", true, false, nil, "", false},
		{"not for this one", true, true, &no, "", false},
		{"for this one", false, true, &yes, "", true},
		{"too narrow for IPv6", true, true, nil, "1000", false},
		{"wide enough", true, true, nil, "1280", true},
	} {
		w := newWorld()
		w.machine.host.IPv6 = c.host
		m := w.manager()
		m.Config.IPv6 = c.config
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		n := create(t, m, api.CreateRequest{Name: "app", EnableIPv6: c.asked, Options: map[string]string{"com.docker.network.driver.mtu": c.mtu}})
		out := open(t, m, "c1", "app")
		if n.IPv6 != c.want || len(n.Pools) != len(out.Endpoints[0].Addrs) || (len(n.Pools) == 2) != c.want {
			t.Errorf("%s: IPv6 %t, subnets %v, addresses %v", c.what, n.IPv6, n.Pools, out.Endpoints[0].Addrs)
		}
		if b, _ := m.Find(t.Context(), network.NameBridge); b.IPv6 != (c.config && c.host) {
			t.Errorf("%s: the default network has IPv6: %t", c.what, b.IPv6)
		}
		if h, _ := m.Find(t.Context(), network.NameHost); h.IPv6 {
			t.Errorf("%s: a network without addresses has IPv6", c.what)
		}
	}
}

// TestContainerWithoutIPv6: a container that switches IPv6 off gets no such
// address, and its interface none of its own.
func TestContainerWithoutIPv6(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	yes := true
	create(t, m, api.CreateRequest{Name: "app", EnableIPv6: &yes})
	req := request("c1", nil, "app")
	req.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"}
	out, err := m.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if a := out.Endpoints[0].Addrs; len(a) != 1 || !a[0].Addr().Is4() {
		t.Errorf("addresses %v", a)
	}
	off := netspec.Sysctl{NS: "c1", Name: "ipv6/conf/eth0/disable_ipv6", Value: "1"}
	if w.kernel.State[off.Key()] != off {
		t.Errorf("%v", w.kernel.State[off.Key()])
	}
}

// TestUplinksKeepTheirAdvertisements: before the host forwards IPv6, its uplinks
// are told to go on with what their router says.
func TestUplinksKeepTheirAdvertisements(t *testing.T) {
	w := newWorld()
	w.machine.host.Advertised = "eth0/wlan0.5"
	m := w.start(t)
	sysctl := func(name string) string {
		o, _ := w.kernel.State[netspec.Sysctl{Name: name}.Key()].(netspec.Sysctl)
		return o.Value
	}
	if sysctl("ipv6/conf/eth0/accept_ra") != "" {
		t.Error("changed without need: nothing forwards IPv6")
	}
	yes := true
	create(t, m, api.CreateRequest{Name: "app", EnableIPv6: &yes})
	for _, name := range []string{"eth0", "wlan0.5"} {
		s := netspec.Sysctl{Name: "ipv6/conf/" + name + "/accept_ra"}
		forward := netspec.Sysctl{Name: "ipv6/conf/all/forwarding"}
		if sysctl(s.Name) != "2" || sysctl(forward.Name) != "1" || s.Key().Rank >= forward.Key().Rank {
			t.Errorf("%s: accept_ra %q, rank %d; forwarding %q, rank %d", name, sysctl(s.Name), s.Key().Rank, sysctl(forward.Name), forward.Key().Rank)
		}
	}
}
