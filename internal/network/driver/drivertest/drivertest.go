// Package drivertest is what every driver of networks passes: it is
// deterministic and additive, it names its devices as ours, and it refuses
// nothing that it has accepted.
package drivertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/reconcile"
)

// Host is a machine that can do everything.
var Host = network.Host{LinkPrefix: "isle", MTU: 1450, IPv6: true, SockAddr: true, Guard: true, Sources: true, Tunnel: network.Tunnel{
	Addr: netip.MustParseAddr("192.0.2.1"), MTU: 1500, Seal: network.Seal{Link: "islew0"},
}, Parents: network.Parents([]network.Parent{
	{Name: "eth0", MTU: 1500, MAC: netspec.MAC{2, 1}, Up: true, Carrier: true, Addr4: netip.MustParseAddr("10.9.0.200"), Addr6: netip.MustParseAddr("fd00:9::200")},
})}

// Run checks d on networks that differ in their options.
func Run(t *testing.T, d network.Driver, options ...map[string]string) {
	options = append(options, nil, map[string]string{"com.example.unknown": "kept", "com.docker.network.unknown": "kept"})
	for _, opts := range options {
		for _, v6 := range []bool{false, true} {
			for _, internal := range []bool{false, true} {
				n := Network(d, opts, v6, internal)
				t.Run(fmt.Sprintf("options=%v/ipv6=%t/internal=%t", opts, v6, internal), func(t *testing.T) { conform(t, d, n) })
			}
		}
	}
}

// Network is a network of driver d.
func Network(d network.Driver, opts map[string]string, v6, internal bool) network.Network {
	n := network.Network{ID: strings.Repeat("abcdef0123456789", 4), Name: "app", Driver: "x", IPv4: true, IPv6: v6, Internal: internal, Options: opts, Index: 7}
	if d.Caps().IPAM {
		n.Pools = []network.Pool{{Subnet: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}}
		if v6 {
			n.Pools = append(n.Pools, network.Pool{Subnet: netip.MustParsePrefix("fd00:9::/64"), Gateway: netip.MustParseAddr("fd00:9::1")})
		}
	}
	return n
}

// Endpoint is the i-th endpoint on n.
func Endpoint(n network.Network, i int) network.Endpoint {
	ep := network.Endpoint{
		ID: fmt.Sprintf("%064x", i+1), Network: n.ID, Sandbox: fmt.Sprint("sandbox", i), ContainerName: fmt.Sprint("c", i),
		Interface: "eth0", HostInterface: fmt.Sprint("islev", i), MAC: netspec.MAC{2, 0, 0, 0, 0, byte(i)},
	}
	for _, p := range n.Pools {
		a := p.Gateway
		for range i + 1 {
			a = a.Next()
		}
		ep.Addrs = append(ep.Addrs, netip.PrefixFrom(a, p.Subnet.Bits()))
	}
	for k, ip := range []string{"0.0.0.0", "::", "127.0.0.1", "192.0.2.1"} {
		ep.Publish = append(ep.Publish, network.Publish{Proto: "tcp", HostIP: netip.MustParseAddr(ip), HostPort: uint16(8000 + 100*i + 10*k), Count: 3, ContainerPort: 80})
	}
	return ep
}

func conform(t *testing.T, d network.Driver, n network.Network) {
	if err := d.Validate(n); err != nil {
		t.Fatal(err)
	}
	var eps []network.Endpoint
	for i := range 4 {
		eps = append(eps, Endpoint(n, i))
	}
	all := plan(t, d, n, eps)
	t.Run("deterministic", func(t *testing.T) { same(t, all, plan(t, d, n, eps)) })
	t.Run("additive", func(t *testing.T) {
		sum := plan(t, d, n, eps[:1])
		maps.Copy(sum, plan(t, d, n, eps[1:]))
		same(t, all, sum)
	})
	t.Run("endpoints keep to themselves", func(t *testing.T) { separate(t, d, n, eps) })
	t.Run("grown", func(t *testing.T) { grown(t, d, n, eps) })
	t.Run("the record is enough", func(t *testing.T) { same(t, all, plan(t, d, reload(t, n), eps)) })
	t.Run("names", func(t *testing.T) { names(t, d, n, all) })
	t.Run("no endpoint on a bare host", func(t *testing.T) {
		if err := d.Plan(netspec.State{}, n, eps, network.Host{LinkPrefix: "isle"}); err != nil {
			t.Error(err)
		}
	})
}

func plan(t *testing.T, d network.Driver, n network.Network, eps []network.Endpoint) netspec.State {
	t.Helper()
	s := netspec.State{}
	if err := d.Plan(s, n, eps, Host); err != nil {
		t.Fatal(err)
	}
	return s
}

func same(t *testing.T, want, got netspec.State) {
	t.Helper()
	if !want.Equal(got) {
		t.Errorf("want\n%sgot\n%s", reconcile.Dump(want), reconcile.Dump(got))
	}
}

// separate: what two endpoints need besides the network has nothing in common.
func separate(t *testing.T, d network.Driver, n network.Network, eps []network.Endpoint) {
	alone := plan(t, d, n, nil)
	first := plan(t, d, n, eps[:1]).Without(alone)
	for k := range plan(t, d, n, eps[1:]).Without(alone) {
		if o, ok := first[k]; ok {
			t.Errorf("%v is claimed by two endpoints", o)
		}
	}
}

// grown: what an endpoint needs besides the network is the same however many
// leaves the network has, and names of all devices are good.
func grown(t *testing.T, d network.Driver, n network.Network, eps []network.Endpoint) {
	if d.Caps().Leaves == 0 {
		return
	}
	eps = []network.Endpoint{eps[0]}
	eps[0].Leaf, n.Leaves = 1, 1
	one := plan(t, d, n, eps).Without(plan(t, d, n, nil))
	n.Leaves = d.Caps().Leaves
	many := plan(t, d, n, eps)
	same(t, one, many.Without(plan(t, d, n, nil)))
	names(t, d, n, many)
}

// reload is n as it comes back from the store.
func reload(t *testing.T, n network.Network) network.Network {
	t.Helper()
	b, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var out network.Network
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// names: devices on the host fit the kernel, and are ours unless the user
// chose their names.
func names(t *testing.T, _ network.Driver, n network.Network, s netspec.State) {
	chosen := map[string]bool{}
	for _, v := range n.Options {
		chosen[v] = true
	}
	for _, o := range s {
		l, ok := o.(netspec.Link)
		if lan, is := o.(netspec.LAN); is {
			l, ok = netspec.Link{NS: lan.NS, Name: lan.Name}, true
		}
		if p := o.Key(); p.Rank == netspec.RankParent && len(p.ID) > 15 {
			t.Errorf("interface name %q has more than 15 bytes", p.ID)
		}
		if !ok {
			continue
		}
		if len(l.Name) == 0 || len(l.Name) > 15 || len(l.Peer) > 15 {
			t.Errorf("device name %q or %q is not from 1 to 15 bytes", l.Name, l.Peer)
		}
		if l.NS == "" && !strings.HasPrefix(l.Name, Host.LinkPrefix) && !chosen[l.Name] {
			t.Errorf("device %q does not begin with the prefix of ours", l.Name)
		}
	}
}
