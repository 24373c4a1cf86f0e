package overlay_test

import (
	"flag"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/bridged"
	"isle/internal/network/driver/drivertest"
	"isle/internal/network/driver/overlay"
)

var update = flag.Bool("update", false, "write the plans into testdata")

const vni = "com.docker.network.driver.overlay.vxlanid_list"

func TestConformance(t *testing.T) {
	drivertest.Run(t, overlay.Driver{},
		map[string]string{vni: "4711"},
		map[string]string{vni: "4711", "com.docker.network.driver.mtu": "1300", "isle.overlay.port": "8472"},
		map[string]string{vni: "4711", "encrypted": ""},
		map[string]string{vni: "5,6,7", "encrypted": "true"},
	)
}

func TestPlan(t *testing.T) { drivertest.Plans(t, overlay.Driver{}, *update) }

func TestOptionsRefused(t *testing.T) {
	for k, v := range map[string]string{
		vni: "0", "com.docker.network.driver.mtu": "12", "encrypted": "maybe", "isle.overlay.port": "65536", "isle.direct": "perhaps",
		"com.docker.network.bridge.host_binding_ipv4": "localhost", "com.docker.network.container_iface_prefix": "a/b", "isle.overlay.prot": "1",
	} {
		err := overlay.Driver{}.Validate(drivertest.Network(overlay.Driver{}, map[string]string{k: v}, false, false))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), k) {
			t.Errorf("%s=%s: err = %v, want InvalidArgument that names the option", k, v, err)
		}
	}
	for _, v := range []string{"16777216", "1,x", "-1"} {
		if err := (overlay.Driver{}).Validate(drivertest.Network(overlay.Driver{}, map[string]string{vni: v}, false, false)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", v, err)
		}
	}
	if err := (overlay.Driver{}).Validate(drivertest.Network(overlay.Driver{}, map[string]string{"com.docker.network.driver.mtu": "1279"}, true, false)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("too narrow for IPv6: %v", err)
	}
}

func TestVNIs(t *testing.T) {
	for v, want := range map[string][]fabric.Range{
		"": {{First: 4096, Last: 1<<24 - 1}}, "7": {{First: 7, Last: 7}}, "7, 9,": {{First: 7, Last: 7}, {First: 9, Last: 9}},
	} {
		n := network.Network{Options: map[string]string{vni: v}}
		got, err := overlay.Driver{}.VNIs(n)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", v, got, err)
		}
		numbered := overlay.Driver{}.Numbered(n, 9)
		if got, err := (overlay.Driver{}).VNIs(numbered); err != nil || !slices.Equal(got, []fabric.Range{{First: 9, Last: 9}}) || n.Options[vni] != v {
			t.Errorf("%q: numbered %v, %v; as asked for %q", v, got, err, n.Options[vni])
		}
	}
}

func numbered(opts map[string]string, v6 bool) network.Network {
	all := maps.Clone(opts)
	if all == nil {
		all = map[string]string{}
	}
	all[vni] = "4711"
	return drivertest.Network(overlay.Driver{}, all, v6, false)
}

func tunnelOf(t *testing.T, n network.Network, h network.Host) (v netspec.VXLAN, br netspec.Link, s netspec.State) {
	t.Helper()
	s = netspec.State{}
	if err := (overlay.Driver{}).Plan(s, n, nil, h); err != nil {
		t.Fatal(err)
	}
	for _, o := range s {
		switch o := o.(type) {
		case netspec.VXLAN:
			v = o
		case netspec.Link:
			if o.Name == bridged.Name(h.LinkPrefix, n.ID) {
				br = o
			}
		}
	}
	return v, br, s
}

// TestMTU: what is put around frames is taken off what the underlay takes.
func TestMTU(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		under netip.Addr
		mtu   int
		opts  map[string]string
		ipv6  bool
		want  int
	}{
		{v4, 1500, nil, false, 1450}, {v6, 1500, nil, false, 1430}, {v4, 9000, nil, true, 8950}, {v4, 0, nil, false, 0},
		{v4, 1500, map[string]string{"encrypted": ""}, false, 1370}, {v6, 1500, map[string]string{"encrypted": ""}, false, 1350},
		{v4, 1300, nil, true, 1280}, {v4, 100, nil, false, 68}, {v4, 1500, map[string]string{"com.docker.network.driver.mtu": "1400"}, false, 1400},
	} {
		h := drivertest.Host
		h.Tunnel.Addr, h.Tunnel.MTU = c.under, c.mtu
		v, br, _ := tunnelOf(t, numbered(c.opts, c.ipv6), h)
		if v.MTU != c.want || br.MTU != c.want {
			t.Errorf("%+v: tunnel %d, bridge %d", c, v.MTU, br.MTU)
		}
	}
}

// TestPorts: with all that it may have, the first bridge has no more ports than the
// kernel's 1,023 (BR_MAX_PORTS).
func TestPorts(t *testing.T) {
	n := numbered(nil, true)
	n.Leaves = overlay.Driver{}.Caps().Leaves
	tunnel, _, s := tunnelOf(t, n, drivertest.Host)
	ports := 1 + overlay.Driver{}.Caps().Room // the tunnel, and the containers
	for _, o := range s {
		if l, ok := o.(netspec.Link); ok && l.Master == tunnel.Master {
			ports++
		}
	}
	if n.Leaves == 0 || ports > 1023 {
		t.Errorf("%d leaves, %d ports", n.Leaves, ports)
	}
}

// TestSameEverywhere: hosts differ in where their tunnels begin, and in nothing else.
func TestSameEverywhere(t *testing.T) {
	n := numbered(nil, true)
	other := drivertest.Host
	other.Tunnel.Addr = netip.MustParseAddr("192.0.2.2")
	v1, _, s1 := tunnelOf(t, n, drivertest.Host)
	v2, _, s2 := tunnelOf(t, n, other)
	delete(s1, v1.Key())
	delete(s2, v2.Key())
	v1.Local = v2.Local
	if v1 != v2 || !s1.Equal(s2) {
		t.Errorf("%v and %v", v1, v2)
	}
}

func remote() network.Remote {
	return network.Remote{
		Host:   fabric.Host{ID: "h2", Addr: netip.MustParseAddr("192.0.2.2"), Key: "k"},
		Sealed: network.Passage{Link: "islew1", Addr: network.SealedAddr("h2", "k")},
		Endpoint: fabric.Endpoint{MAC: [6]byte{2, 7}, Addrs: []netip.Prefix{
			netip.MustParsePrefix("10.9.0.7/24"), netip.MustParsePrefix("fd00:9::7/64"),
		}},
	}
}

func TestRemote(t *testing.T) {
	n, r, s := numbered(nil, true), remote(), netspec.State{}
	if err := (overlay.Driver{}).PlanRemote(s, n, r, drivertest.Host); err != nil {
		t.Fatal(err)
	}
	if err := (overlay.Driver{}).PlanPeer(s, n, r, drivertest.Host); err != nil {
		t.Fatal(err)
	}
	tunnel, br, _ := tunnelOf(t, n, drivertest.Host)
	want := netspec.State{}
	want.Add(netspec.FDB{Link: tunnel.Name, MAC: netspec.MAC{2, 7}, Dst: r.Host.Addr}, netspec.Flood{Link: tunnel.Name, Dst: r.Host.Addr},
		netspec.Neigh{Link: br.Name, Addr: netip.MustParseAddr("10.9.0.7"), MAC: netspec.MAC{2, 7}},
		netspec.Neigh{Link: br.Name, Addr: netip.MustParseAddr("fd00:9::7"), MAC: netspec.MAC{2, 7}})
	if !s.Equal(want) {
		t.Errorf("missing %v, too much %v", want.Without(s), s.Without(want))
	}
}

// TestDirect: what comes past the tunnel is let in whatever is known; the way there is
// known when the host is near, and taken when it is proven. The tunnel is always there.
func TestDirect(t *testing.T) {
	n, r := numbered(map[string]string{"isle.direct": "true"}, true), remote()
	h := drivertest.Host
	h.Tunnel.Link = "eth0"
	planned := func(n network.Network, r network.Remote, h network.Host) netspec.State {
		s := netspec.State{}
		if err := (overlay.Driver{}).PlanRemote(s, n, r, h); err != nil {
			t.Fatal(err)
		}
		return s
	}
	without := planned(numbered(nil, true), r, h)
	a, br := netip.MustParseAddr("10.9.0.7"), "isle-abcdef0123"
	across := netspec.Across{Link: br, Addr: a, Way: "eth0"}
	hop := netspec.Hop{To: a, Via: r.Host.Addr, Dev: "eth0"}
	short := netspec.Shortcut{Link: br, Addr: a, MAC: netspec.MAC{2, 7}, Gateway: network.GatewayMAC(n.ID)}
	near := network.Near([]netip.Addr{netip.MustParseAddr("192.0.2.9"), r.Host.Addr})
	proven := r
	proven.Proven = true
	for what, c := range map[string]struct {
		change func(h *network.Host)
		r      network.Remote
		want   []netspec.Object
	}{
		"far":                 {func(h *network.Host) { h.Tunnel.Near = network.Near([]netip.Addr{netip.MustParseAddr("192.0.2.22")}) }, proven, []netspec.Object{across}},
		"near":                {func(h *network.Host) { h.Tunnel.Near = near }, r, []netspec.Object{across, hop}},
		"proven":              {func(h *network.Host) { h.Tunnel.Near = near }, proven, []netspec.Object{across, hop, short}},
		"no interface":        {func(h *network.Host) { h.Tunnel.Near, h.Tunnel.Link = near, "" }, proven, nil},
		"no rules on bridges": {func(h *network.Host) { h.Tunnel.Near, h.Sources = near, false }, proven, nil},
	} {
		h := h
		c.change(&h)
		s := planned(n, c.r, h)
		want := maps.Clone(without)
		want.Add(c.want...)
		if !s.Equal(want) {
			t.Errorf("%s: missing %v, too much %v", what, want.Without(s), s.Without(want))
		}
	}
	h.Tunnel.Near = near
	if s := planned(numbered(map[string]string{"isle.direct": "false"}, true), proven, h); !s.Equal(without) {
		t.Errorf("not asked for: %v", s.Without(without))
	}
}

func TestDirectRefused(t *testing.T) {
	for what, n := range map[string]network.Network{
		"encrypted": drivertest.Network(overlay.Driver{}, map[string]string{"isle.direct": "true", "encrypted": ""}, false, false),
		"internal":  drivertest.Network(overlay.Driver{}, map[string]string{"isle.direct": "true"}, false, true),
	} {
		if err := (overlay.Driver{}).Validate(n); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "hint: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNotReached: where there is no tunnel to a host nothing is planned for it; above
// all nothing in the clear where it must be encrypted.
func TestNotReached(t *testing.T) {
	sealed := map[string]string{"encrypted": "1"}
	for what, change := range map[string]func(n *network.Network, r *network.Remote, h *network.Host){
		"no number":  func(n *network.Network, _ *network.Remote, _ *network.Host) { n.Options = nil },
		"no cluster": func(_ *network.Network, _ *network.Remote, h *network.Host) { h.Tunnel = network.Tunnel{} },
		"no address": func(_ *network.Network, r *network.Remote, _ *network.Host) { r.Host.Addr = netip.Addr{} },
		"another family": func(_ *network.Network, r *network.Remote, _ *network.Host) {
			r.Host.Addr = netip.MustParseAddr("2001:db8::2")
		},
		"the other has no key": func(n *network.Network, r *network.Remote, _ *network.Host) {
			n.Options = numbered(sealed, true).Options
			r.Sealed = network.Passage{}
		},
		"this one cannot encrypt": func(n *network.Network, _ *network.Remote, h *network.Host) {
			n.Options = numbered(sealed, true).Options
			h.Tunnel.Seal = network.Seal{}
		},
	} {
		n, r, h, s := numbered(nil, true), remote(), drivertest.Host, netspec.State{}
		change(&n, &r, &h)
		err := overlay.Driver{}.PlanRemote(s, n, r, h)
		if err == nil {
			err = overlay.Driver{}.PlanPeer(s, n, r, h)
		}
		if err != nil || len(s) > 0 {
			t.Errorf("%s: %v, %v", what, s, err)
		}
	}
}

// TestSealed: an encrypted tunnel is bound to what encrypts, and its other end is an
// address that exists there only.
func TestSealed(t *testing.T) {
	n, s := numbered(map[string]string{"encrypted": ""}, false), netspec.State{}
	if err := (overlay.Driver{}).PlanRemote(s, n, remote(), drivertest.Host); err != nil {
		t.Fatal(err)
	}
	v, _, all := tunnelOf(t, n, drivertest.Host)
	if v.Via != "islew0" || v.Local.IsValid() {
		t.Errorf("%+v", v)
	}
	guard := netspec.Tunnel{Port: v.Port, Via: "islew0"}
	if all[guard.Key()] != guard {
		t.Errorf("%v lets in what was not encrypted", all[guard.Key()])
	}
	for _, o := range s {
		if f, ok := o.(netspec.FDB); ok && (f.Dst != remote().Sealed.Addr || f.Via != "islew1") {
			t.Errorf("%+v", f)
		}
	}
	h := drivertest.Host
	h.Tunnel.Seal = network.Seal{Link: "islew1", Old: "islew0"}
	v, _, all = tunnelOf(t, n, h)
	for _, link := range []string{"islew0", "islew1"} {
		if guard := (netspec.Tunnel{Port: v.Port, Via: link}); all[guard.Key()] != guard || v.Via != "islew1" {
			t.Errorf("while a key is changed there is no %v, and %+v", guard, v)
		}
	}
	h.Tunnel.Seal = network.Seal{}
	if err := (overlay.Driver{}).Ready(n, 0, h); !errdefs.IsUnavailable(err) {
		t.Errorf("a host that cannot encrypt: %v", err)
	}
	if v, _, s := tunnelOf(t, n, h); v.Name != "" {
		t.Errorf("a host that cannot encrypt has %v", s)
	}
	h.Tunnel = network.Tunnel{}
	if err := (overlay.Driver{}).Ready(numbered(nil, false), 0, h); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "isle cluster init") {
		t.Errorf("a host in no cluster: %v", err)
	}
}
