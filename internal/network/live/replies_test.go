package live_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
)

// TestRepliesLeaveTheWayTheyCame: a container on two networks is asked, at its
// address on the one that its default route does not lead over, by somebody who
// is on neither. The reply leaves by that network, of either family.
func TestRepliesLeaveTheWayTheyCame(t *testing.T) {
	h := newHost(t, false)
	m := h.start()
	defer stop(m)
	yes := true
	for _, name := range []string{"front", "side"} {
		if _, err := m.Create(t.Context(), api.CreateRequest{Name: name, EnableIPv6: &yes}); err != nil {
			t.Fatal(err)
		}
	}
	h.open(m, "alone", nil, "front")
	if out := h.ip("alone", "rule"); strings.Contains(out, "7300") {
		t.Errorf("a container on one network has rules:\n%s", out)
	}
	c0 := h.open(m, "c0", nil, "front", "side")
	h.serve("c0", "[::]:80")
	run(t, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	run(t, "ip", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	t.Cleanup(func() { run(t, "ip", "addr", "flush", "dev", "lo", "scope", "global") })
	side := c0.Endpoints[1]
	if side.Network == c0.Endpoints[0].Network || side.Interface != "eth1" {
		t.Fatalf("endpoints %+v", c0.Endpoints)
	}
	for _, from := range []string{"192.0.2.1", "2001:db8::1"} {
		a := netip.MustParseAddr(from)
		to, left := netip.AddrPortFrom(side.Addr(a.Is4()), 80), uint64(1)
		for try := 0; try < 5 && left > 0; try++ { // eth0 announces its addresses meanwhile
			before := sent(t, m, "c0", "eth0")
			got, err := ask(from, to)
			if err != nil || !strings.Contains(got, from) {
				t.Errorf("from %s: %q, %v", from, got, err)
			}
			left = sent(t, m, "c0", "eth0") - before
		}
		if left > 0 {
			t.Errorf("from %s: %d packets of the reply left by eth0", from, left)
		}
	}
	if err := m.Disconnect(t.Context(), "c0", side.Network); err != nil {
		t.Fatal(err)
	}
	if out := h.ip("c0", "rule") + h.ip("c0", "-6", "rule"); strings.Contains(out, "7300") {
		t.Errorf("a container that is on one network again has rules:\n%s", out)
	}
}

// TestPublishedBesideAnInternalNetwork: a port works though the network with the
// highest priority can publish nothing.
func TestPublishedBesideAnInternalNetwork(t *testing.T) {
	h := newHost(t, true)
	m := h.start()
	defer stop(m)
	for name, internal := range map[string]bool{"back": true, "web": false} {
		if _, err := m.Create(t.Context(), api.CreateRequest{Name: name, Internal: internal}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := m.Open(t.Context(), network.OpenRequest{ID: "c0", Name: "c0", Networks: []network.ConnectRequest{
		{Network: "back", Settings: api.EndpointSettings{GwPriority: 9}}, {Network: "web"},
	}, Ports: network.PortRequest{Bindings: api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	h.serve("c0", "0.0.0.0:80")
	h.open(m, "c1", nil, "bridge")
	h.reach("", netip.MustParseAddrPort("127.0.0.1:8080"), true, "localhost")
	h.reach("c1", netip.MustParseAddrPort("10.66.0.1:8080"), true, "another network, by an address of the host")
}

// ask makes a TCP connection from an address of the host and returns the answer.
func ask(from string, to netip.AddrPort) (string, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 3 * time.Second}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func sent(t *testing.T, m *network.Manager, id, link string) uint64 {
	t.Helper()
	c, err := m.Counters(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c[link].TxPackets
}

// TestRoutedBesideNAT: a published port is open at the container's own address on a
// routed network, whichever network the default route leads over; at the address on
// the other it is not.
func TestRoutedBesideNAT(t *testing.T) {
	h := newHost(t, true)
	m := h.start()
	defer stop(m)
	neighbour := lan(t)
	yes := true
	routed := map[string]string{network.OptGatewayMode4: "routed", network.OptGatewayMode6: "routed"}
	for name, opts := range map[string]map[string]string{"front": nil, "rt": routed} {
		if _, err := m.Create(t.Context(), api.CreateRequest{Name: name, EnableIPv6: &yes, Options: opts}); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "ip", "addr", "add", "2001:db8:1::1/64", "dev", "up0", "nodad")
	neighbour.IP("addr add 2001:db8:1::2/64 dev lan0 nodad\nroute add default via 2001:db8:1::1")
	both := api.PortMap{
		api.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified(), HostPort: "7200"}, {HostIP: netip.IPv6Unspecified(), HostPort: "7200"}},
		api.MustParsePort("81/tcp"): {{HostIP: loopback, HostPort: "7201"}},
	}
	for id, first := range map[string]string{"c0": "front", "c1": "rt"} {
		req := network.OpenRequest{ID: id, Name: id, Ports: network.PortRequest{Bindings: both}}
		for _, n := range []string{"front", "rt"} {
			c := network.ConnectRequest{Network: n, ContainerName: id, ContainerID: id}
			if n == first {
				c.Settings.GwPriority = 9
			}
			req.Networks = append(req.Networks, c)
		}
		o, err := m.Open(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range []string{"80", "81", "82"} {
			h.serve(netspec.NS(id), "[::]:"+port)
		}
		for _, e := range o.Endpoints {
			n, err := m.Find(t.Context(), e.Network)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range e.Addrs {
				for port, open := range map[uint16]bool{80: n.Name == "rt", 81: false, 82: false} {
					at := netip.AddrPortFrom(a.Addr(), port)
					c, err := reach(neighbour.File, at.String(), 300*time.Millisecond)
					if (err == nil) != open {
						t.Errorf("%s, whose way out is %s: %s on %s: %v, want open: %t", id, first, at, n.Name, err, open)
					}
					if err == nil {
						c.Close()
					}
				}
			}
		}
		both = api.PortMap{api.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified(), HostPort: "7300"}, {HostIP: netip.IPv6Unspecified(), HostPort: "7300"}}}
	}
}
