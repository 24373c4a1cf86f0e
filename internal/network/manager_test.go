package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/ipam"
	"isle/internal/reconcile"
)

func create(t testing.TB, m *network.Manager, req api.CreateRequest) network.Network {
	t.Helper()
	n, err := m.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// refused checks an error's class and, word for word, what clients match in it.
func refused(t *testing.T, err error, is func(error) bool, text string) {
	t.Helper()
	if err == nil || !is(err) || !strings.Contains(err.Error(), text) {
		t.Errorf("err = %v (%T), want %q of another class", err, err, text)
	}
}

func TestPredefined(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	list, err := m.List(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, want := range []string{"bridge bridge", "host host", "none null"} {
		if got := list[i].Name + " " + list[i].Driver; got != want {
			t.Errorf("network %d is %s, want %s", i, got, want)
		}
	}
	if _, ok := w.kernel.State[netspec.Link{Name: "isle0"}.Key()]; !ok {
		t.Error("the default bridge is not there")
	}
	again, err := w.start(t).List(t.Context())
	if err != nil || again[0].ID != list[0].ID {
		t.Errorf("another process has other networks: %v", again)
	}
}

// TestRestartChangesNothing: zero kernel changes for running containers.
func TestRestartChangesNothing(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	create(t, m, api.CreateRequest{Name: "app"})
	if _, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":0"), "app", "bridge")); err != nil {
		t.Fatal(err)
	}
	w.kernel.N = 0
	w.start(t)
	if w.kernel.N != 0 {
		t.Errorf("%d kernel changes at a restart", w.kernel.N)
	}
}

func TestCreateRefused(t *testing.T) {
	w := newWorld()
	w.machine.foreign = []ipam.Foreign{{Prefix: prefix("10.8.0.0/16"), What: "route", Dev: "tun0"}}
	m := w.start(t)
	create(t, m, api.CreateRequest{Name: "app", IPAM: config("10.1.0.0/24")})
	off := false
	for name, c := range map[string]struct {
		req  api.CreateRequest
		is   func(error) bool
		text string
	}{
		"duplicate":        {api.CreateRequest{Name: "app"}, errdefs.IsConflict, "network with name app already exists"},
		"predefined":       {api.CreateRequest{Name: "host"}, errdefs.IsPermissionDenied, "operation is not permitted on predefined host network"},
		"bad name":         {api.CreateRequest{Name: "a b"}, errdefs.IsInvalidArgument, "invalid network name"},
		"unknown driver":   {api.CreateRequest{Name: "x", Driver: "weave"}, errdefs.IsNotFound, "plugin not found"},
		"second host":      {api.CreateRequest{Name: "x", Driver: "host"}, errdefs.IsPermissionDenied, `only one instance of "host" network is allowed`},
		"overlap":          {api.CreateRequest{Name: "x", IPAM: config("10.1.0.0/16")}, errdefs.IsPermissionDenied, "Pool overlaps with other one on this address space: 10.1.0.0/16 overlaps with 10.1.0.0/24 of network app"},
		"overlap, route":   {api.CreateRequest{Name: "x", IPAM: config("10.8.3.0/24")}, errdefs.IsPermissionDenied, "subnet 10.8.3.0/24 overlaps with route 10.8.0.0/16 on tun0 of this host (hint: choose another --subnet, or none)"},
		"overlap, itself":  {api.CreateRequest{Name: "x", IPAM: config("10.2.0.0/24", "10.2.0.0/25")}, errdefs.IsPermissionDenied, "subnet of the same network"},
		"host bits":        {api.CreateRequest{Name: "x", IPAM: config("10.3.0.1/24")}, errdefs.IsInvalidArgument, "it should be 10.3.0.0/24"},
		"tiny":             {api.CreateRequest{Name: "x", IPAM: config("10.3.0.1/32")}, errdefs.IsInvalidArgument, "no room"},
		"gateway outside":  {api.CreateRequest{Name: "x", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.3.0.0/24"), Gateway: addr("10.4.0.1")}}}}, errdefs.IsInvalidArgument, "no matching subnet for gateway 10.4.0.1"},
		"range outside":    {api.CreateRequest{Name: "x", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.3.0.0/24"), IPRange: prefix("10.4.0.0/25")}}}}, errdefs.IsInvalidArgument, "no matching subnet for range"},
		"aux outside":      {api.CreateRequest{Name: "x", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.3.0.0/24"), AuxAddress: map[string]netip.Addr{"r": addr("10.4.0.1")}}}}}, errdefs.IsInvalidArgument, "no matching subnet for aux-address"},
		"aux the gateway":  {api.CreateRequest{Name: "x", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.3.0.0/24"), Gateway: addr("10.3.0.1"), AuxAddress: map[string]netip.Addr{"r": addr("10.3.0.1")}}}}}, errdefs.IsInvalidArgument, "aux-address r=10.3.0.1 is the gateway of 10.3.0.0/24"},
		"not ours":         {api.CreateRequest{Name: "x", Options: map[string]string{"isle.bridge.source_gard": "false"}}, errdefs.IsInvalidArgument, "did you mean isle.bridge.source_guard?"},
		"of an endpoint":   {api.CreateRequest{Name: "x", Options: map[string]string{"isle.endpoint.mtu": "1400"}}, errdefs.IsInvalidArgument, "driver-opt=isle.endpoint.mtu=1400"},
		"loopback":         {api.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.name": "lo"}}, errdefs.IsInvalidArgument, "it is the loopback interface's"},
		"no family":        {api.CreateRequest{Name: "x", EnableIPv4: &off}, errdefs.IsInvalidArgument, "IPv4 or IPv6 must be enabled"},
		"IPv6 not enabled": {api.CreateRequest{Name: "x", IPAM: config("fd00::/64")}, errdefs.IsInvalidArgument, "not enabled"},
		"IPAM driver":      {api.CreateRequest{Name: "x", IPAM: &api.IPAM{Driver: "infoblox"}}, errdefs.IsNotFound, "infoblox"},
		"leases":           {api.CreateRequest{Name: "x", Internal: true, IPAM: &api.IPAM{Driver: "dhcp"}}, errdefs.IsInvalidArgument, "nobody to ask"},
		"swarm":            {api.CreateRequest{Name: "x", Scope: "swarm"}, errdefs.IsInvalidArgument, "local"},
		"option":           {api.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}}, errdefs.IsInvalidArgument, "gateway_mode_ipv4"},
		"device taken":     {api.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.bridge.name": "isle0"}}, errdefs.IsConflict, "link isle0 belongs to network bridge already (hint: take another name"},
		"config missing":   {api.CreateRequest{Name: "x", ConfigFrom: &api.ConfigReference{Network: "nope"}}, errdefs.IsNotFound, "network nope not found"},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.kernel.State
			_, err := m.Create(t.Context(), c.req)
			refused(t, err, c.is, c.text)
			if n := len(w.keys("network/")); n != 4 || !w.kernel.State.Equal(before) {
				t.Errorf("something is left: %d networks", n)
			}
		})
	}
}

func config(subnets ...string) *api.IPAM {
	i := &api.IPAM{}
	for _, s := range subnets {
		i.Config = append(i.Config, api.IPAMConfig{Subnet: prefix(s)})
	}
	return i
}

func TestRemoveRefused(t *testing.T) {
	m := newWorld().start(t)
	n := create(t, m, api.CreateRequest{Name: "app"})
	out := open(t, m, "web", "app")
	_, err := m.Remove(t.Context(), "app")
	refused(t, err, errdefs.IsPermissionDenied,
		fmt.Sprintf(`error while removing network: network app has active endpoints (name:"web" id:"%s")`, out.Endpoints[0].ID[:12]))
	_, err = m.Remove(t.Context(), "bridge")
	refused(t, err, errdefs.IsPermissionDenied, "bridge is a pre-defined network and cannot be removed")
	_, err = m.Remove(t.Context(), "nope")
	refused(t, err, errdefs.IsNotFound, "network nope not found")
	if err := m.Close(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), n.ID[:5]); err != nil {
		t.Errorf("by a prefix of the id: %v", err)
	}
}

func TestFind(t *testing.T) {
	m := newWorld().start(t)
	a := create(t, m, api.CreateRequest{Name: "app"})
	create(t, m, api.CreateRequest{Name: a.ID[:6]}) // a name goes before a prefix
	for ref, want := range map[string]string{"app": "app", a.ID: "app", a.ID[:12]: "app", a.ID[:6]: a.ID[:6]} {
		if n, err := m.Find(t.Context(), ref); err != nil || n.Name != want {
			t.Errorf("find %s: %s, %v; want %s", ref, n.Name, err, want)
		}
	}
	_, err := m.Find(t.Context(), "")
	refused(t, err, errdefs.IsNotFound, "not found")
}

func TestConfigOnly(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	create(t, m, api.CreateRequest{Name: "conf", ConfigOnly: true, IPAM: config("10.5.0.0/24"), Options: map[string]string{"com.docker.network.driver.mtu": "1300"}})
	yes, no := true, false
	_, err := m.Create(t.Context(), api.CreateRequest{Name: "app", ConfigFrom: &api.ConfigReference{Network: "conf"}, EnableIPv6: &yes})
	refused(t, err, errdefs.IsPermissionDenied, "not supported")
	n := create(t, m, api.CreateRequest{Name: "app", ConfigFrom: &api.ConfigReference{Network: "conf"}, EnableIPv6: &no})
	if n.Pools[0].Subnet != prefix("10.5.0.0/24") || n.Options["com.docker.network.driver.mtu"] != "1300" || n.Driver != "bridge" {
		t.Errorf("%+v did not take over the configuration", n)
	}
	_, err = m.Remove(t.Context(), "conf")
	refused(t, err, errdefs.IsPermissionDenied, `configuration network "conf" is in use`)
	_, err = m.Open(t.Context(), request("c", nil, "conf"))
	refused(t, err, errdefs.IsPermissionDenied, "configuration-only")
}

func TestSubnets(t *testing.T) {
	w := newWorld()
	w.machine.foreign = []ipam.Foreign{
		{Prefix: prefix("172.17.4.0/24"), What: "route", Dev: "eth0"}, {Prefix: prefix("172.18.0.53/32"), What: "name server"},
		{Prefix: prefix("0.0.0.0/0"), What: "route", Dev: "eth0"}, {Prefix: prefix("128.0.0.0/1"), What: "route", Dev: "tun0"},
	}
	m := w.start(t)
	bridge, _ := m.Find(t.Context(), "bridge")
	yes, no := true, false
	a := create(t, m, api.CreateRequest{Name: "a", EnableIPv6: &yes})
	b := create(t, m, api.CreateRequest{Name: "b", EnableIPv4: &no, EnableIPv6: &yes})
	c := create(t, m, api.CreateRequest{Name: "c", IPAM: config("0.0.0.0/24")})
	d := create(t, m, api.CreateRequest{Name: "d", IPAM: config("10.0.0.0/24", "10.0.1.0/24")})
	ula := ipam.ULA("test").Addr()
	for what, c := range map[string]struct{ got, want any }{
		"the default network has the first free one": {bridge.Pools[0].Subnet, prefix("172.16.0.0/16")},
		"routes and name servers are left alone":     {a.Pools[0].Subnet, prefix("172.19.0.0/16")},
		"IPv6 is from the machine's own prefix":      {a.Pools[1].Subnet, netip.PrefixFrom(ula, 64)},
		"gateway":                                    {a.Pools[1].Gateway, ula.Next()},
		"IPv6 only":                                  {len(b.Pools), 1},
		"a size was asked for":                       {c.Pools[0].Subnet.Bits(), 24},
		"several of one family":                      {len(d.Pools), 2},
		"chosen ones are marked":                     {c.Pools[0].Auto && !d.Pools[0].Auto, true},
		"numbers are small and free":                 {d.Index, 7},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", what, c.got, c.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	n := create(t, m, api.CreateRequest{Name: "app", IPAM: &api.IPAM{Config: []api.IPAMConfig{
		{Subnet: prefix("10.0.0.0/24"), IPRange: prefix("10.0.0.128/30"), Gateway: addr("10.0.0.254"), AuxAddress: map[string]netip.Addr{"r": addr("10.0.0.129")}},
		{Subnet: prefix("10.0.1.0/30")},
	}}})
	var got []string
	for i := range 4 {
		got = append(got, open(t, m, fmt.Sprint("c", i), "app").Endpoints[0].Addrs[0].String())
	}
	if want := "10.0.0.128/24 10.0.0.130/24 10.0.0.131/24 10.0.1.2/30"; strings.Join(got, " ") != want {
		t.Errorf("addresses %v, want %s", got, want)
	}
	_, err := m.Open(t.Context(), request("c9", nil, "app"))
	refused(t, err, errdefs.IsUnavailable, "no available IPv4 addresses on this network's address pools: app ("+n.ID[:12]+")")
	static := func(id, a string) error {
		req := request(id, nil, "app")
		req.Networks[0].Settings.IPAMConfig = &api.EndpointIPAMConfig{IPv4Address: addr(a)}
		_, err := m.Open(t.Context(), req)
		return err
	}
	refused(t, static("c9", "10.0.0.130"), errdefs.IsPermissionDenied, "Address already in use: container c1 has 10.0.0.130")
	refused(t, static("c9", "10.0.0.254"), errdefs.IsPermissionDenied, "Address already in use: 10.0.0.254 is the gateway")
	refused(t, static("c9", "10.0.0.129"), errdefs.IsPermissionDenied, "Address already in use: 10.0.0.129 is the aux-address ")
	refused(t, static("c9", "10.0.0.255"), errdefs.IsInvalidArgument, "out of range: 10.0.0.255 is the network's own or the broadcast address of 10.0.0.0/24")
	refused(t, static("c9", "10.7.0.1"), errdefs.IsInvalidArgument, "no configured subnet contains IP address 10.7.0.1 (it has 10.0.0.0/24, 10.0.1.0/30)")
	if err := static("c9", "10.0.0.7"); err != nil {
		t.Error(err)
	}
	if len(w.keys("sandbox/")) != 5 {
		t.Error("a refused sandbox left something")
	}
}

// TestStaticOnAutomaticSubnet: Docker refuses it (moby#51569).
func TestStaticOnAutomaticSubnet(t *testing.T) {
	m := newWorld().start(t)
	req := request("c1", nil, "bridge")
	req.Networks[0].Settings.IPAMConfig = &api.EndpointIPAMConfig{IPv4Address: addr("172.16.9.9")}
	out, err := m.Open(t.Context(), req)
	if err != nil || out.Endpoints[0].Addrs[0] != prefix("172.16.9.9/16") {
		t.Errorf("%v, %v", out.Endpoints, err)
	}
}

func TestInterfaces(t *testing.T) {
	m := newWorld().start(t)
	create(t, m, api.CreateRequest{Name: "a"})
	create(t, m, api.CreateRequest{Name: "b", Options: map[string]string{"com.docker.network.container_iface_prefix": "net"}})
	req := request("c1", nil, "bridge", "a", "b")
	req.Networks[1].Settings.DriverOpts = map[string]string{network.OptIfname: "eth0"}
	req.Networks[2].Settings.MacAddress = api.HardwareAddr{2, 1, 2, 3, 4, 5}
	out, err := m.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, ep := range out.Endpoints {
		got[ep.Interface] = fmt.Sprintf("%x", ep.MAC)
		if len(ep.HostInterface) > 15 || !strings.HasPrefix(ep.HostInterface, "islev") || ep.MAC[0]&3 != 2 {
			t.Errorf("%+v", ep)
		}
	}
	if len(got) != 3 || got["eth0"] == "" || got["eth1"] == "" || got["net0"] != "020102030405" {
		t.Errorf("interfaces %v", got)
	}
	first := out.Endpoints
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	again, err := m.Open(t.Context(), req)
	if err != nil || again.Endpoints[0].MAC != first[0].MAC || again.Endpoints[0].Addrs[0] == first[0].Addrs[0] {
		t.Errorf("a restart keeps the MAC and does not hurry to use an address again: %v then %v", first[0], again.Endpoints[0])
	}
	for what, opts := range map[string]api.EndpointSettings{
		"name twice": {DriverOpts: map[string]string{network.OptIfname: "eth0"}},
		"bad name":   {DriverOpts: map[string]string{network.OptIfname: "../x"}},
		"group MAC":  {MacAddress: api.HardwareAddr{1, 0, 0, 0, 0, 1}},
		"sysctl":     {DriverOpts: map[string]string{"com.docker.network.endpoint.sysctls": "net.ipv4.ip_forward=1"}},
	} {
		req := request("c2", nil, "bridge", "a")
		req.Networks[0].Settings.DriverOpts = map[string]string{network.OptIfname: "eth0"}
		req.Networks[1].Settings = opts
		if _, err := m.Open(t.Context(), req); class(err) == nil {
			t.Errorf("%s: err = %v", what, err)
		}
	}
}

func TestDefaultRoute(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	yes := true
	a := create(t, m, api.CreateRequest{Name: "a"})
	b := create(t, m, api.CreateRequest{Name: "b", EnableIPv6: &yes})
	create(t, m, api.CreateRequest{Name: "inside", Internal: true})
	via := func() (v4, v6 string) {
		for _, o := range w.kernel.State {
			if r, ok := o.(netspec.Route); ok && r.NS == "c1" && r.Table == 0 {
				if r.Dst.Addr().Is4() {
					v4 = r.Via.String() + " " + r.Dev
				} else {
					v6 = r.Via.String() + " " + r.Dev
				}
			}
		}
		return v4, v6
	}
	open(t, m, "c1", "inside", "b")
	if v4, v6 := via(); v4 != b.Pools[0].Gateway.String()+" eth1" || v6 != b.Pools[1].Gateway.String()+" eth1" {
		t.Errorf("by way of %s and %s", v4, v6)
	}
	connect := func(n string, prio int) {
		_, err := m.Connect(t.Context(), "c1", network.ConnectRequest{Network: n, ContainerName: "c1", Settings: api.EndpointSettings{GwPriority: prio}})
		if err != nil {
			t.Fatal(err)
		}
	}
	connect("a", 0)
	if v4, v6 := via(); v4 != a.Pools[0].Gateway.String()+" eth2" || v6 != b.Pools[1].Gateway.String()+" eth1" {
		t.Errorf("the first name is the way out: %s and %s", v4, v6)
	}
	connect("bridge", 7)
	if v4, _ := via(); !strings.HasSuffix(v4, "eth3") {
		t.Errorf("the highest priority is the way out: %s", v4)
	}
}

// TestPortsFollowTheGateway: ports belong to the sandbox and stay the same
// while its networks come and go.
func TestPortsFollowTheGateway(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	a := create(t, m, api.CreateRequest{Name: "a"})
	out, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":0"), "bridge"))
	if err != nil {
		t.Fatal(err)
	}
	b := out.Ports[api.MustParsePort("80/tcp")]
	if len(b) != 2 || b[0].HostPort != b[1].HostPort || b[0].HostPort == "0" {
		t.Fatalf("bindings %v: want one port on both families", b)
	}
	link := func() (l string) {
		for _, o := range w.kernel.State {
			if p, ok := o.(netspec.Publish); ok && fmt.Sprint(p.HostPort) == b[0].HostPort {
				l = p.Link
			}
		}
		return l
	}
	if link() != "isle0" {
		t.Errorf("published on %q", link())
	}
	if _, err := m.Connect(t.Context(), "c1", network.ConnectRequest{Network: "a", ContainerName: "c1"}); err != nil {
		t.Fatal(err)
	}
	if link() != "isle-"+a.ID[:10] {
		t.Errorf("after connecting the new gateway's network: published on %q", link())
	}
	bridge, _ := m.Find(t.Context(), "bridge")
	for _, id := range []string{a.ID, bridge.ID} {
		if err := m.Disconnect(t.Context(), "c1", id); err != nil {
			t.Fatal(err)
		}
	}
	if link() != "" || len(w.keys("publish/")) != 2 {
		t.Errorf("without a network: published on %q, holding %v", link(), w.keys("publish/"))
	}
}

func TestPortConflict(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	if _, err := m.Open(t.Context(), request("web", ports("80/tcp", ":8080"), "bridge")); err != nil {
		t.Fatal(err)
	}
	for _, hostIP := range []string{"", "127.0.0.1"} {
		_, err := m.Open(t.Context(), request("other", ports("80/tcp", hostIP+":8080"), "bridge"))
		refused(t, err, errdefs.IsConflict, ":8080 failed: port is already allocated")
		refused(t, err, errdefs.IsConflict, "container web")
	}
	if len(w.keys("sandbox/")) != 1 || len(w.keys("publish/")) != 2 {
		t.Error("a refused sandbox left something")
	}
	if _, err := w.start(t).Open(t.Context(), request("other", ports("80/tcp", ":8080"), "bridge")); !errdefs.IsConflict(err) {
		t.Errorf("another process forgot who holds the port: %v", err)
	}
	if err := m.Close(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), request("other", ports("80/tcp", ":8080"), "bridge")); err != nil {
		t.Error("the port is not free again:", err)
	}
}

func TestPortsWithoutNetwork(t *testing.T) {
	m := newWorld().start(t)
	create(t, m, api.CreateRequest{Name: "inside", Internal: true})
	_, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":8080"), "none"))
	refused(t, err, errdefs.IsInvalidArgument, "ports cannot be published")
	out, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":8080"), "host"))
	if err != nil || len(out.Ports) != 0 || out.NSPath != "" || out.Warnings[0] != "Published ports are discarded when using host network mode" {
		t.Errorf("%+v, %v", out, err)
	}
	out, err = m.Open(t.Context(), request("c2", ports("80/tcp", ":8080"), "inside"))
	if err != nil || len(out.Warnings) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestHostAndNone(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	bare := w.kernel.State[netspec.Link{Name: "isle0"}.Key()]
	open(t, m, "h", "host")
	open(t, m, "n", "none")
	if _, ok := w.kernel.State[netspec.Namespace{NS: "h"}.Key()]; ok || bare == nil {
		t.Error("the host's network made something")
	}
	if _, ok := w.kernel.State[netspec.Namespace{NS: "n"}.Key()]; !ok {
		t.Error("none has no namespace")
	}
	_, err := m.Connect(t.Context(), "h", network.ConnectRequest{Network: "bridge"})
	refused(t, err, errdefs.IsInvalidArgument, "container cannot be disconnected from host network or connected to host network")
	_, err = m.Open(t.Context(), request("x", nil, "host", "bridge"))
	refused(t, err, errdefs.IsInvalidArgument, "host network")
	if _, err := m.Connect(t.Context(), "n", network.ConnectRequest{Network: "bridge", ContainerName: "n"}); err != nil {
		t.Error("from none to a network:", err)
	}
	_, err = m.Connect(t.Context(), "n", network.ConnectRequest{Network: "bridge", ContainerName: "n"})
	refused(t, err, errdefs.IsPermissionDenied, "endpoint with name n already exists in network bridge")
	c, err := m.Counters(t.Context(), "n")
	if err != nil || len(c) != 1 || c["eth0"].RxBytes != 7 {
		t.Errorf("counters %v, %v", c, err)
	}
}

func TestEvents(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	_, live, cancel := w.events.Subscribe(time.Time{})
	defer cancel()
	n := create(t, m, api.CreateRequest{Name: "app"})
	open(t, m, "c1", "app")
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"create ", "connect c1", "disconnect c1", "destroy "} {
		e := <-live
		got := string(e.Action) + " " + e.Actor.Attributes["container"]
		if got != want || e.Type != events.NetworkEventType || e.Actor.ID != n.ID || e.Actor.Attributes["name"] != "app" || e.Actor.Attributes["type"] != "bridge" {
			t.Errorf("event %+v, want %s", e, want)
		}
	}
}

// TestBridgeRenamed: the default network's device has the name of the
// configuration, and containers stay on it.
func TestBridgeRenamed(t *testing.T) {
	w := newWorld()
	open(t, w.start(t), "c1", "bridge")
	m := w.manager()
	m.Config.Bridge = "other0"
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, old := w.kernel.State[netspec.Link{Name: "isle0"}.Key()]; old {
		t.Error("the old device is there")
	}
	for _, o := range w.kernel.State {
		if l, ok := o.(netspec.Link); ok && l.Kind == netspec.Veth && l.Master != "other0" {
			t.Errorf("%+v", l)
		}
	}
}

// TestRun: changes of others are repaired while it runs, and it ends when it
// is told to.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		changed := make(chan reconcile.Alarm)
		m := w.manager()
		m.Changed, m.Config.Resync = changed, time.Hour
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx) }()
		key := netspec.Link{Name: "isle0"}.Key()
		there := func() bool {
			s, err := w.kernel.Observe(ctx)
			return err == nil && s[key] != nil
		}
		harm := func() { w.kernel.Flush(); changed <- reconcile.Alarm{Scope: reconcile.Scope{Host: true}} }
		harm()
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !there() {
			t.Error("not repaired at once")
		}
		synctest.Wait()
		before := w.kernel.Batches
		for range 1000 { // somebody who goes on for 10 s
			harm()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := w.kernel.Batches - before; n > 450 { // a pause of 25 ms is what repairs that cost nothing get
			t.Errorf("%d repairs against somebody who deletes in a loop", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !there() {
			t.Error("not repaired after a swarm of changes")
		}
		w.kernel.Flush()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if !there() {
			t.Error("not repaired by the timer")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestCostDoesNotGrow: with a hundred containers on the network, one more is
// as many kernel changes and record writes as the first.
func TestCostDoesNotGrow(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	cost := func(id string) (changes, batches int) {
		w.kernel.N, w.kernel.Batches = 0, 0
		if _, err := m.Open(t.Context(), request(id, ports("80/tcp", ":0"), "bridge")); err != nil {
			t.Fatal(err)
		}
		return w.kernel.N, w.kernel.Batches
	}
	first, batches := cost("first")
	for i := range 100 {
		cost(fmt.Sprint("c", i))
	}
	if last, n := cost("last"); last != first || n != batches || n != 1 {
		t.Errorf("the last container took %d changes in %d batches, the first %d in %d", last, n, first, batches)
	}
}

// TestForeignChangeIsRepaired: what somebody else took away comes back, and
// one thing that cannot be repaired does not keep the others.
func TestForeignChangeIsRepaired(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "c1", "bridge")
	open(t, m, "c2", "bridge")
	want := w.want(t)
	for k := range want {
		if k.NS == "c1" || k.NS == "c2" {
			delete(w.kernel.State, k)
		}
	}
	w.kernel.N, w.kernel.FailAt = 0, 3
	if err := m.Sync(t.Context()); err == nil {
		t.Error("the first attempt was to fail")
	}
	w.kernel.FailAt = 0
	if !w.kernel.State.Equal(want) {
		t.Errorf("not repaired: %v", reconcile.Diff(w.kernel.State, want))
	}
}

// TestHostChanges: plans follow the facts.
func TestHostChanges(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "c1", "bridge")
	w.machine.host.MTU = 1380
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := w.kernel.State[netspec.Link{Name: "isle0"}.Key()].(netspec.Link); l.MTU != 1380 {
		t.Errorf("MTU %d", l.MTU)
	}
	if !w.kernel.State.Equal(w.want(t)) {
		t.Error("the kernel is not what a fresh process wants")
	}
}

// TestReplyTables: with several ways out there is a table for each, found by the
// container's addresses; with one, or for a family that has one, there is none.
func TestReplyTables(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	yes, no := true, false
	a := create(t, m, api.CreateRequest{Name: "a", EnableIPv6: &no})
	b := create(t, m, api.CreateRequest{Name: "b", EnableIPv6: &yes})
	create(t, m, api.CreateRequest{Name: "inside", Internal: true})
	tables := func() (out []string) {
		for _, o := range w.kernel.State {
			switch o := o.(type) {
			case netspec.Rule:
				out = append(out, fmt.Sprintf("%s: %d", o.From, o.Table))
			case netspec.Route:
				if o.Table != 0 {
					out = append(out, fmt.Sprintf("%d: %s by %s", o.Table, o.Dst, o.Dev))
				}
			}
		}
		slices.Sort(out)
		return out
	}
	c1 := open(t, m, "c1", "a", "inside")
	if got := tables(); len(got) > 0 {
		t.Errorf("with one way out: %v", got)
	}
	ep, err := m.Connect(t.Context(), "c1", network.ConnectRequest{Network: b.ID, ContainerName: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	ta, tb := 73000+a.Index, 73000+b.Index
	want := []string{
		fmt.Sprintf("%s/32: %d", c1.Endpoints[0].Addr(true), ta), fmt.Sprintf("%d: 0.0.0.0/0 by eth0", ta), fmt.Sprintf("%d: %s by eth0", ta, a.Pools[0].Subnet),
		fmt.Sprintf("%s/32: %d", ep.Addr(true), tb), fmt.Sprintf("%d: 0.0.0.0/0 by eth2", tb), fmt.Sprintf("%d: %s by eth2", tb, b.Pools[0].Subnet),
	}
	if slices.Sort(want); !slices.Equal(tables(), want) {
		t.Errorf("%v, want %v", tables(), want)
	}
	if err := m.Disconnect(t.Context(), "c1", a.ID); err != nil {
		t.Fatal(err)
	}
	if got := tables(); len(got) > 0 {
		t.Errorf("with one way out again: %v", got)
	}
}

// TestTakes: whether a network has an address at all is known before a container is
// started.
func TestTakes(t *testing.T) {
	m := newWorld().start(t)
	n := create(t, m, api.CreateRequest{Name: "app", IPAM: config("10.1.0.0/24")})
	if err := n.Takes(&api.EndpointIPAMConfig{IPv4Address: addr("10.1.0.9")}); err != nil {
		t.Error(err)
	}
	refused(t, n.Takes(&api.EndpointIPAMConfig{IPv4Address: addr("10.2.0.9")}), errdefs.IsInvalidArgument, "network app: no configured subnet contains IP address 10.2.0.9 (it has 10.1.0.0/24)")
}

// TestOneMACForOne: a bridge knows one place for a MAC address.
func TestOneMACForOne(t *testing.T) {
	m := newWorld().start(t)
	create(t, m, api.CreateRequest{Name: "app"})
	create(t, m, api.CreateRequest{Name: "other"})
	with := func(id, network string) error {
		req := request(id, nil, network)
		req.Networks[0].Settings.MacAddress = api.HardwareAddr{2, 0, 0, 0, 0, 9}
		_, err := m.Open(t.Context(), req)
		return err
	}
	if err := with("c1", "app"); err != nil {
		t.Fatal(err)
	}
	refused(t, with("c2", "app"), errdefs.IsConflict, "MAC address 02:00:00:00:00:09 is in use on network app: container c1 has it")
	if err := with("c3", "other"); err != nil {
		t.Error(err)
	}
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := with("c2", "app"); err != nil {
		t.Error(err)
	}
}

// TestDefaultSubnetIsFollowed: another network.subnet is followed at a start at which
// no container is on the default network.
func TestDefaultSubnetIsFollowed(t *testing.T) {
	w := newWorld()
	open(t, w.start(t), "c1", "bridge")
	start := func() (*network.Manager, netip.Prefix) {
		m := w.manager()
		m.Config.Subnet = prefix("10.99.0.0/24")
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, err := m.Find(t.Context(), "bridge")
		if err != nil {
			t.Fatal(err)
		}
		return m, n.Pools[0].Subnet
	}
	m, got := start()
	if got == prefix("10.99.0.0/24") {
		t.Error("the default network was taken away from a container")
	}
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if m, got = start(); got != prefix("10.99.0.0/24") {
		t.Errorf("the default network has %s", got)
	}
	if out := open(t, m, "c1", "bridge"); !prefix("10.99.0.0/24").Contains(out.Endpoints[0].Addrs[0].Addr()) {
		t.Errorf("%v", out.Endpoints[0].Addrs)
	}
}
