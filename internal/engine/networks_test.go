package engine

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/api"
	"isle/internal/container"
	"isle/internal/network"
	"isle/internal/network/ipam"
)

func (w *world) connect(network, ref string) {
	w.t.Helper()
	if err := w.NetworkConnect(w.t.Context(), network, networktypes.ConnectRequest{Container: ref}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) disconnect(network, ref string) {
	w.t.Helper()
	if err := w.NetworkDisconnect(w.t.Context(), network, ref, false); err != nil {
		w.t.Fatal(err)
	}
}

// shown is what "port" and "ps" are told: null for what is exposed only.
func (w *world) shown(ref string) networktypes.PortMap {
	w.t.Helper()
	in, err := w.ContainerInspect(w.t.Context(), ref, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return in.NetworkSettings.Ports
}

// TestPruneCluster: a network of the cluster is never taken for unused: its containers on
// other hosts may be stopped, or their host may be away just now.
func TestPruneCluster(t *testing.T) {
	w := newWorld(t)
	w.networks.nets = append(w.networks.nets,
		network.Network{ID: "here", Name: "here", Driver: "bridge", Scope: "local"}, network.Network{ID: "all", Name: "all", Driver: "overlay", Scope: network.ScopeGlobal})
	report, err := w.NetworksPrune(t.Context(), nil)
	if err != nil || !slices.Contains(report.NetworksDeleted, "here") || slices.Contains(report.NetworksDeleted, "all") {
		t.Errorf("%v, %v", report.NetworksDeleted, err)
	}
}

// TestRemovedShown: what is left here of a network that its cluster has removed is this
// host's.
func TestRemovedShown(t *testing.T) {
	w := newWorld(t)
	w.networks.nets = append(w.networks.nets, network.Network{ID: "all", Name: "all", Driver: "overlay", Scope: network.ScopeGlobal, Removed: true})
	w.networks.span = network.Span{Removed: true, Here: true}
	in, err := w.NetworkInspect(t.Context(), "all", false)
	span, serr := w.NetworkSpan(t.Context(), "all")
	if err != nil || serr != nil || in.Scope != "local" || span == nil || !span.Removed {
		t.Errorf("%+v, %v; %+v, %v", in, err, span, serr)
	}
}

// TestPortsFollowNetworks: off its last network a container that runs shows no
// port, published or exposed; back on one, it shows them again.
func TestPortsFollowNetworks(t *testing.T) {
	w := newWorld(t)
	web, dns := networktypes.MustParsePort("80/tcp"), networktypes.MustParsePort("53/udp")
	w.create("web", publishing("8080:80"), func(o *container.CreateOptions) { o.Config.ExposedPorts = networktypes.PortSet{dns: {}} })
	w.start("web")
	check := func(when string, want ...networktypes.Port) {
		t.Helper()
		got := w.shown("web")
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
		for _, p := range want {
			if bs, ok := got[p]; !ok || (len(bs) > 0) != (p == web) {
				t.Errorf("%s: %s is %v", when, p, bs)
			}
		}
	}
	check("it runs", web, dns)
	w.connect("app", "web")
	w.disconnect("bridge", "web")
	check("moved", web, dns)
	w.disconnect("app", "web")
	check("on no network")
	w.stop()
	w.boot()
	check("on no network, after a restart of isled")
	w.connect("app", "web")
	check("back", web, dns)
}

// TestFromNone: a container without a network is given one while it runs, and
// may leave "none", of which the Manager has no endpoint.
func TestFromNone(t *testing.T) {
	w := newWorld(t)
	w.create("one", in("none"))
	w.start("one")
	w.disconnect("none", "one")
	w.connect("app", "one")
	in, err := w.ContainerInspect(t.Context(), "one", false)
	if err != nil || len(in.NetworkSettings.Networks) != 1 || !in.NetworkSettings.Networks["app"].IPAddress.IsValid() {
		t.Errorf("%v, %v", slices.Collect(maps.Keys(in.NetworkSettings.Networks)), err)
	}
	w.stopNow("one")
	w.start("one")
	if got := w.state("one").Status; got != apitypes.StateRunning {
		t.Errorf("it is %s", got)
	}
}

// TestNetworkCreateRefuses: what the Manager would take, or has no words for.
func TestNetworkCreateRefuses(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		req  networktypes.CreateRequest
		text string
	}{
		{networktypes.CreateRequest{Name: strings.Repeat("n", 256)}, "invalid network name: it has 256 characters, at most 255 are allowed"},
		{networktypes.CreateRequest{Name: "x", Driver: "weave"}, "could not find plugin weave in v1 plugin registry: plugin not found (hint: the drivers of this isled are bridge, host)"},
	} {
		if _, err := w.NetworkCreate(t.Context(), tt.req); err == nil || err.Error() != tt.text {
			t.Errorf("%v, want %q", err, tt.text)
		}
	}
	for _, req := range []networktypes.CreateRequest{{Name: strings.Repeat("n", 255)}, {Name: "x", Driver: "macvlan", ConfigOnly: true}, {Name: "x", Driver: "default"}} {
		if _, err := w.NetworkCreate(t.Context(), req); !errdefs.IsNotImplemented(err) { // the fake's own answer
			t.Errorf("%.9s: %v", req.Name, err)
		}
	}
	w.create("one")
	if err := w.NetworkDisconnect(t.Context(), "app", "one", false); err == nil || err.Error() != "container one is not connected to network app" {
		t.Error(err)
	}
}

// TestConnectOutsideSubnet: also of a container that does not run, which could not
// start any more.
func TestConnectOutsideSubnet(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	app, _ := w.networks.Find(t.Context(), "app")
	in, out := app.Pools[0].Subnet.Addr().Next().Next(), netip.MustParseAddr("9.9.9.9")
	for a, want := range map[netip.Addr]bool{out: false, in: true} {
		err := w.NetworkConnect(t.Context(), "app", networktypes.ConnectRequest{Container: "one",
			EndpointConfig: &networktypes.EndpointSettings{IPAMConfig: &networktypes.EndpointIPAMConfig{IPv4Address: a}}})
		if (err == nil) != want || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", a, err)
		}
		if want {
			w.disconnect("app", "one")
		}
	}
}

// TestNetworkIsGone: a container is taken off a network that was removed, by its
// name or id, and starts then.
func TestNetworkIsGone(t *testing.T) {
	w := newWorld(t)
	app, _ := w.networks.Find(t.Context(), "app")
	all := w.networks.nets
	for _, ref := range []string{"app", app.ID, app.ID[:12]} {
		w.create("one", in("app"))
		w.networks.nets = slices.DeleteFunc(slices.Clone(all), func(n network.Network) bool { return n.ID == app.ID })
		if err := w.ContainerStart(t.Context(), "one"); !errdefs.IsNotFound(err) {
			t.Errorf("start without its network: %v", err)
		}
		for _, c := range []string{"one", "nosuch"} {
			if err := w.NetworkDisconnect(t.Context(), "nosuch", c, true); !errdefs.IsNotFound(err) {
				t.Errorf("%s off nosuch: %v", c, err)
			}
		}
		if err := w.NetworkDisconnect(t.Context(), ref, "one", true); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		w.connect("bridge", "one")
		w.start("one")
		if err := w.ContainerRemove(t.Context(), "one", container.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		w.networks.nets = all
	}
}

// TestUpdateGoesThrough: a client that goes leaves no half of a change.
func TestUpdateGoesThrough(t *testing.T) {
	w := newWorld(t)
	w.create("web", publishing("8080:80"))
	w.start("web")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.ContainerUpdate(gone, "web", container.UpdateOptions{PortBindings: networktypes.PortMap{networktypes.MustParsePort("81/tcp"): {{HostPort: "8081"}}}})
	if got := w.kept("web"); err != nil || got != "8081:81||1" {
		t.Errorf("%s, %v", got, err)
	}
}

// TestNetworkUsage: what inspect says of addresses; nothing where there are none.
func TestNetworkUsage(t *testing.T) {
	w := newWorld(t)
	subnet := netip.MustParsePrefix("10.1.0.0/24")
	app, err := w.networks.Find(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	for i := range w.networks.nets {
		if n := &w.networks.nets[i]; n.ID == app.ID {
			n.Pools = []network.Pool{{Subnet: subnet}}
		}
	}
	w.networks.usage = map[netip.Prefix]ipam.Usage{subnet: {InUse: 4, Available: 252}}
	w.networks.overlaps = map[string][]ipam.Foreign{app.ID: {{Prefix: netip.MustParsePrefix("10.0.0.0/8"), What: "route", Dev: "vpn0"}}}
	in, err := w.NetworkInspect(t.Context(), "app", false)
	if err != nil || in.Status == nil || in.Status.IPAM.Subnets[subnet] != (networktypes.SubnetStatus{IPsInUse: 4, DynamicIPsAvailable: 252}) {
		t.Errorf("%+v, %v", in.Status, err)
	}
	if in, err := w.NetworkInspect(t.Context(), "none", false); err != nil || in.Status != nil {
		t.Errorf("none: %+v, %v", in.Status, err)
	}
	if got, err := w.NetworkOverlaps(t.Context(), app.ID); err != nil || !slices.Equal(got, []string{"route 10.0.0.0/8 on vpn0"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNetworkPeers: the hosts of a cluster that a network is on are told.
func TestNetworkPeers(t *testing.T) {
	w := newWorld(t)
	w.networks.span = network.Span{Hosts: []network.SpanHost{{Name: "h2", Addr: netip.MustParseAddr("192.0.2.2")}}}
	in, err := w.NetworkInspect(t.Context(), "app", false)
	if err != nil || !slices.Equal(in.Peers, []networktypes.PeerInfo{{Name: "h2", IP: netip.MustParseAddr("192.0.2.2")}}) {
		t.Errorf("%v, %v", in.Peers, err)
	}
}

// TestUplink: what a network of the LAN is on is told, and its published ports are
// said to be ignored when a container is made.
func TestUplink(t *testing.T) {
	w := newWorld(t)
	app, err := w.networks.Find(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	w.networks.uplinks = map[string]string{app.ID: "eth0: up"}
	if got, err := w.NetworkUplink(t.Context(), app.ID); err != nil || got != "eth0: up" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestResults: what plug-ins said of the containers of a network, and of no other.
func TestResults(t *testing.T) {
	w := newWorld(t)
	said := &network.Result{Raw: json.RawMessage(`{"ips":[]}`)}
	w.networks.endpoints = []network.Endpoint{
		{ID: "e1", Network: "far", Sandbox: "c1", Result: said}, {ID: "e2", Network: "app", Sandbox: "c2", Result: said}, {ID: "e3", Network: "far", Sandbox: "c3"},
	}
	if got, err := w.NetworkResults(t.Context(), "far"); err != nil || len(got) != 1 || string(got["c1"]) != `{"ips":[]}` {
		t.Errorf("%s, %v", got, err)
	}
}

// TestReports: what nobody can tell is said to be so; a network that is not there
// is asked for in vain before that.
func TestReports(t *testing.T) {
	w := newWorld(t)
	_, exposure := w.NetworkExposure(t.Context())
	_, doctor := w.NetworkDoctor(t.Context())
	_, names := w.NetworkNames(t.Context(), "app")
	for what, err := range map[string]error{"exposure": exposure, "doctor": doctor, "names": names} {
		if !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := w.NetworkNames(t.Context(), "nosuch"); !errdefs.IsNotFound(err) {
		t.Errorf("nosuch: %v", err)
	}
	app, _ := w.networks.Find(t.Context(), "app")
	w.Reports.Names = func(_ context.Context, id string) ([]api.DNSRecord, error) { return []api.DNSRecord{{Name: id}}, nil }
	if got, err := w.NetworkNames(t.Context(), "app"); err != nil || len(got) != 1 || got[0].Name != app.ID {
		t.Errorf("asked for %v, %v", got, err)
	}
}

// TestAddressOutsideIsRefusedAtOnce: that a network cannot have an address is said
// when it is asked for, and not when the container starts.
func TestAddressOutsideIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	n, err := w.NetworkInspect(t.Context(), "app", false)
	if err != nil {
		t.Fatal(err)
	}
	in, outside := n.IPAM.Config[0].Subnet.Addr().Next().Next(), netip.MustParseAddr("203.0.113.9")
	for a, refused := range map[netip.Addr]bool{in: false, outside: true} {
		err := w.NetworkConnect(t.Context(), "app", networktypes.ConnectRequest{
			Container: "one", EndpointConfig: &networktypes.EndpointSettings{IPAMConfig: &networktypes.EndpointIPAMConfig{IPv4Address: a}},
		})
		if refused != errdefs.IsInvalidArgument(err) || refused == (err == nil) {
			t.Errorf("%s: %v", a, err)
		}
		if err == nil {
			w.disconnect("app", "one")
		}
	}
}
