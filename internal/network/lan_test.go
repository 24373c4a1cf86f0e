package network_test

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/reconcile"
)

// wired is a machine with a wire, which the default route leads over, and a radio.
func wired() *world {
	w := newWorld()
	w.kernel.Parents = []string{"eth0", "wlan0"}
	w.machine.host.Parents = network.Parents([]network.Parent{
		{Name: "eth0", MTU: 1500, MAC: netspec.MAC{2, 1}, Up: true, Carrier: true, Way: true, Addr4: addr("192.168.1.2")},
		{Name: "wlan0", MTU: 1500, MAC: netspec.MAC{2, 2}, Up: true, Carrier: true, Wireless: true},
	})
	return w
}

// TestFront: what "a network of the LAN" becomes.
func TestFront(t *testing.T) {
	no := false
	for name, c := range map[string]struct {
		network string
		opts    map[string]string
		intern  bool
		want    string
	}{
		"the default route's": {"home", nil, false, "macvlan parent=eth0 access=true"},
		"a radio":             {"home", map[string]string{"parent": "wlan0"}, false, "ipvlan parent=wlan0 access=true"},
		"a VLAN":              {"home", map[string]string{"parent": "eth0.50"}, false, "macvlan parent=eth0.50 access=true"},
		"by its name":         {"eth0.50", nil, false, "macvlan parent=eth0.50 access=true"},
		"without access":      {"home", map[string]string{"isle.host_access": "false"}, false, "macvlan parent=eth0 access=false"},
		"internal":            {"home", nil, true, "macvlan parent=eth0 access=false"},
	} {
		m := wired().start(t)
		n := create(t, m, api.CreateRequest{Name: c.network, Driver: "lan", Options: c.opts, Internal: c.intern, IPAM: config("192.168.1.0/24"), EnableIPv6: &no})
		if got := n.Driver + " parent=" + n.Options["parent"] + " access=" + n.Options["isle.host_access"]; got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	m := wired().start(t)
	create(t, m, api.CreateRequest{Name: "first", Driver: "ipvlan", Options: map[string]string{"parent": "eth0"}, IPAM: config("192.168.1.0/25"), EnableIPv6: &no})
	if n := create(t, m, api.CreateRequest{Name: "second", Driver: "lan", IPAM: config("192.168.1.128/25"), EnableIPv6: &no}); n.Driver != "ipvlan" {
		t.Errorf("beside ipvlan: %s", n.Driver)
	}
	if n := create(t, wired().start(t), api.CreateRequest{Name: "home", Driver: "lan"}); n.IPAMDriver != "dhcp" || len(n.Pools) != 0 || n.IPv6 {
		t.Errorf("without a subnet: IPAM driver %s, pools %v, IPv6 %v", n.IPAMDriver, n.Pools, n.IPv6)
	}
	_, err := m.Create(t.Context(), api.CreateRequest{Name: "x", Driver: "lan", IPAM: config("10.1.0.0/24"), Options: map[string]string{"parent": "eth7.5"}})
	refused(t, err, errdefs.IsUnavailable, "parent interface eth7.5 is not there")
	_, err = newWorld().start(t).Create(t.Context(), api.CreateRequest{Name: "x", Driver: "lan", IPAM: config("10.1.0.0/24")})
	refused(t, err, errdefs.IsInvalidArgument, "no default route")
}

// TestOnLAN: what the Manager does otherwise on networks of the LAN.
func TestOnLAN(t *testing.T) {
	w := wired()
	m := w.start(t)
	no := false
	ipvlan := map[string]string{"parent": "eth0", "ipvlan_mode": "l3"}
	n := create(t, m, api.CreateRequest{Name: "lan", Driver: "ipvlan", Options: ipvlan, IPAM: config("192.168.1.0/24"), EnableIPv6: &no})
	out, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":8000"), "lan"))
	if err != nil || len(out.Warnings) != 1 || out.Warnings[0] != network.IgnoredPorts("lan") || len(w.keys("publish/")) != 0 {
		t.Errorf("published: %q, %v, held %q", out.Warnings, err, w.keys("publish/"))
	}
	if got := out.Endpoints[0].Addr(true); got != addr("192.168.1.3") {
		t.Errorf("the container has %s; the gateway is .1 and the host .2", got)
	}
	if r := w.kernel.State[netspec.Route{NS: "c1", Dst: netip.MustParsePrefix("0.0.0.0/0")}.Key()]; r != (netspec.Route{NS: "c1", Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth0"}) {
		t.Errorf("its way out is %+v", r)
	}
	req := request("c2", nil, "lan")
	req.Networks[0].Settings.MacAddress = api.HardwareAddr{2, 0, 0, 0, 0, 1}
	_, err = m.Open(t.Context(), req)
	refused(t, err, errdefs.IsInvalidArgument, "do not support custom mac address assignment")
	if up, err := m.Uplink(t.Context(), n.ID); err != nil || up != "eth0: up" {
		t.Errorf("it is on %q, %v", up, err)
	}
	_, err = m.Create(t.Context(), api.CreateRequest{Name: "x", Driver: "ipvlan", Options: ipvlan, IPAM: &api.IPAM{Driver: "null"}})
	refused(t, err, errdefs.IsInvalidArgument, "ipv4 pool is empty")
}

// TestParentAway: what has become of it is logged once, and the way out is another one
// meanwhile.
func TestParentAway(t *testing.T) {
	w := wired()
	var log strings.Builder
	m := w.manager()
	m.Log = slog.New(slog.NewTextHandler(&log, nil))
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	no := false
	create(t, m, api.CreateRequest{Name: "a", Driver: "macvlan", Options: map[string]string{"parent": "eth0"}, IPAM: config("192.168.1.0/24"), EnableIPv6: &no})
	open(t, m, "c1", "a", "bridge")
	here := w.machine.host.Parents
	way := func() string {
		return w.kernel.State[netspec.Route{NS: "c1", Dst: netip.MustParsePrefix("0.0.0.0/0")}.Key()].(netspec.Route).Dev
	}
	first := way()
	w.machine.host.Parents = ""
	w.kernel.Unplug()
	facts := reconcile.Alarm{Scope: reconcile.Scope{Facts: true}}
	for range 2 {
		if err := m.Repair(context.Background(), facts); err != nil {
			t.Fatal(err)
		}
	}
	if got := way(); first != "eth0" || got != "eth1" {
		t.Errorf("the way out was %s, and is %s", first, got)
	}
	if n := strings.Count(log.String(), "network=a now=\"eth0: missing"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	w.machine.host.Parents, w.kernel.Parents = here, []string{"eth0"}
	if err := m.Repair(context.Background(), facts); err != nil {
		t.Fatal(err)
	}
	if got := way(); got != "eth0" || !w.kernel.State.Equal(w.want(t)) {
		t.Errorf("the way out is %s", got)
	}
}
