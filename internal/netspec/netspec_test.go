package netspec_test

import (
	"net/netip"
	"reflect"
	"testing"

	"isle/internal/netspec"
)

var (
	addr   = netip.MustParseAddr("10.0.0.2")
	subnet = netip.MustParsePrefix("10.0.0.0/24")
)

// objects are one of each kind, in the order in which they must be made.
var objects = []netspec.Object{
	netspec.Namespace{NS: "c1"},
	netspec.Tunnel{Port: 4789},
	netspec.TunnelPeer{Addr: addr},
	netspec.VLAN{Name: "eth0.5", Parent: "eth0", ID: 5},
	netspec.Dummy{Name: "dm-1"},
	netspec.LAN{NS: "c1", Name: "eth1", Kind: netspec.Macvlan, Parent: "eth0.5", Mode: "bridge"},
	netspec.Link{NS: "", Name: "v1", Kind: netspec.Veth, Master: "br", PeerNS: "c1", Peer: "eth0"},
	netspec.WireGuard{Name: "w0", Public: "k", Port: 51871},
	netspec.VXLAN{Name: "x1", VNI: 5, Local: addr, Port: 4789, Master: "br"},
	netspec.Guard{Link: "br"},
	netspec.Shape{NS: "c1", Link: "eth0", Rate: 1},
	netspec.Sysctl{NS: "c1", Name: "ipv6/conf/eth0/accept_ra", Value: "0"},
	netspec.Sysctl{NS: "", Name: "ipv6/conf/all/forwarding", Value: "1"},
	netspec.Addr{NS: "c1", Link: "eth0", Prefix: subnet},
	netspec.Rule{NS: "c1", From: subnet, Table: 7, Priority: 1},
	netspec.Route{NS: "c1", Dst: subnet, Dev: "eth0"},
	netspec.Hop{To: addr, Via: addr, Dev: "eth0"},
	netspec.Neigh{NS: "c1", Link: "eth1", Addr: addr, MAC: netspec.MAC{2}},
	netspec.FDB{Link: "x1", MAC: netspec.MAC{2}, Dst: addr},
	netspec.Flood{Link: "x1", Dst: addr},
	netspec.Peer{Link: "w0", Public: "k"},
	netspec.Announce{NS: "c1", Link: "eth0", Times: 1},
	netspec.Segment{Link: "br", Subnet: subnet},
	netspec.Across{Link: "br", Addr: addr, Way: "eth0"},
	netspec.Shortcut{Link: "br", Addr: addr, MAC: netspec.MAC{2}},
	netspec.Entrance{Link: "br", Subnet: subnet, From: "eth1"},
	netspec.Open{Link: "br", To: addr, Proto: "tcp", Port: 80, Count: 1},
	netspec.Publish{Proto: "tcp", HostIP: addr, HostPort: 80, Count: 1, To: addr, ToPort: 80, Link: "br"},
	netspec.Allow{Proto: "tcp", HostIP: addr, HostPort: 80, Count: 1, From: subnet},
	netspec.Source{Link: "v1", MAC: netspec.MAC{2}, Addr: subnet},
	netspec.PortGuard{NS: "c1", Link: "v1"},
	netspec.Loopback{Proto: "tcp", HostIP: addr, HostPort: 80, Count: 1, To: addr, ToPort: 80},
	netspec.DNSRedirect{NS: "c1", Port: 61000},
}

func TestKinds(t *testing.T) {
	seen := map[netspec.Key]netspec.Object{}
	var last netspec.Rank
	for _, o := range objects {
		k := o.Key()
		if k.Rank < last || k.Rank.String() == "" {
			t.Errorf("%T has rank %d %q after %d", o, k.Rank, k.Rank, last)
		}
		last = k.Rank
		if other, ok := seen[k]; ok {
			t.Errorf("%T and %T have one key", o, other)
		}
		seen[k] = o
		if !reflect.TypeOf(o).Comparable() || o != reflect.ValueOf(o).Interface() {
			t.Errorf("%T is not a comparable value", o)
		}
	}
}

// TestIdentity: what is part of a key and what is a version of the same thing.
func TestIdentity(t *testing.T) {
	for _, c := range []struct {
		what string
		a, b netspec.Object
		same bool
	}{
		{"a link's MTU", netspec.Link{Name: "a", MTU: 1}, netspec.Link{Name: "a", MTU: 2}, true},
		{"a link's master", netspec.Link{Name: "a"}, netspec.Link{Name: "a", Master: "b"}, true},
		{"a link's parent", netspec.LAN{Name: "a", Parent: "b"}, netspec.LAN{Name: "a", Parent: "c"}, true},
		{"a neighbour's place", netspec.Neigh{Addr: addr}, netspec.Neigh{Addr: addr, MAC: netspec.MAC{2}}, true},
		{"a neighbour's link", netspec.Neigh{Addr: addr}, netspec.Neigh{Addr: addr, Link: "a"}, false},
		{"where a station is", netspec.FDB{Link: "a"}, netspec.FDB{Link: "a", Dst: addr}, true},
		{"a station's MAC", netspec.FDB{Link: "a"}, netspec.FDB{Link: "a", MAC: netspec.MAC{2}}, false},
		{"where copies go", netspec.Flood{Link: "a"}, netspec.Flood{Link: "a", Dst: addr}, false},
		{"whether a tunnel's packets are cut", netspec.VXLAN{Name: "a"}, netspec.VXLAN{Name: "a", Whole: true}, true},
		{"a station of no bridge", netspec.FDB{Link: "a"}, netspec.FDB{Link: "a", Alone: true}, true},
		{"a tunnel's number", netspec.VXLAN{Name: "a"}, netspec.VXLAN{Name: "a", VNI: 5}, true},
		{"what a tunnel's packets come by", netspec.Tunnel{Port: 5}, netspec.Tunnel{Port: 5, Via: "w"}, false},
		{"the way to a station", netspec.FDB{Link: "a"}, netspec.FDB{Link: "a", Via: "w"}, true},
		{"the way of copies", netspec.Flood{Link: "a"}, netspec.Flood{Link: "a", Via: "w"}, false},
		{"a route's metric", netspec.Route{Dst: subnet}, netspec.Route{Dst: subnet, Metric: 7}, false},
		{"a link's namespace", netspec.Link{Name: "a"}, netspec.Link{NS: "n", Name: "a"}, false},
		{"a route's gateway", netspec.Route{Dst: subnet}, netspec.Route{Dst: subnet, Via: addr}, true},
		{"a route's table", netspec.Route{Dst: subnet}, netspec.Route{Dst: subnet, Table: 7}, false},
		{"a rule's table", netspec.Rule{From: subnet}, netspec.Rule{From: subnet, Table: 7}, false},
		{"an address's link", netspec.Addr{Link: "a", Prefix: subnet}, netspec.Addr{Link: "b", Prefix: subnet}, false},
		{"where a port leads", netspec.Publish{HostPort: 1}, netspec.Publish{HostPort: 1, To: addr, Count: 2}, true},
		{"a port's protocol", netspec.Publish{Proto: "tcp"}, netspec.Publish{Proto: "udp"}, false},
		{"a port's address", netspec.Publish{HostIP: addr}, netspec.Publish{}, false},
		{"where a loopback port leads", netspec.Loopback{HostPort: 1}, netspec.Loopback{HostPort: 1, ToPort: 2}, true},
		{"a segment's policy", netspec.Segment{Link: "a", Internal: true}, netspec.Segment{Link: "a", Masquerade: true}, true},
		{"a segment's bridge", netspec.Segment{Link: "a"}, netspec.Segment{Link: "b"}, false},
		{"a resolver's port", netspec.DNSRedirect{NS: "n", Port: 1}, netspec.DNSRedirect{NS: "n", Port: 2}, true},
		{"a setting's value", netspec.Sysctl{Name: "a", Value: "0"}, netspec.Sysctl{Name: "a", Value: "1"}, true},
	} {
		if got := c.a.Key() == c.b.Key(); got != c.same {
			t.Errorf("%s: same thing %t, want %t", c.what, got, c.same)
		}
	}
}

func TestState(t *testing.T) {
	s := netspec.State{}
	s.Add(objects...)
	s.Add(objects[0]) // the same object again is no conflict
	if len(s) != len(objects) {
		t.Errorf("%d objects", len(s))
	}
	half := netspec.State{}
	half.Add(objects[:3]...)
	if rest := s.Without(half); len(rest) != len(objects)-3 || rest[objects[0].Key()] != nil {
		t.Errorf("without: %v", rest)
	}
	changed := netspec.State{}
	changed.Add(netspec.Link{Name: "v1", MTU: 9})
	if rest := s.Without(changed); len(rest) != len(objects) {
		t.Error("another version of an object is not the object")
	}
	if s.Equal(half) || !s.Equal(s.Without(nil)) {
		t.Error("equality")
	}
	defer func() {
		if recover() == nil {
			t.Error("two different objects with one key did not panic")
		}
	}()
	s.Add(netspec.Link{Name: "v1", MTU: 9})
}

func TestKeyString(t *testing.T) {
	for want, k := range map[string]netspec.Key{
		"link eth0 in c1":          netspec.Link{NS: "c1", Name: "eth0"}.Key(),
		"filter publish tcp :: 80": netspec.Publish{Proto: "tcp", HostIP: netip.IPv6Unspecified(), HostPort: 80}.Key(),
	} {
		if got := k.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
