package exposure_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"isle/internal/netspec"
	"isle/internal/network/exposure"
	"isle/internal/ruleset"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

func state(objs ...netspec.Object) netspec.State {
	s := netspec.State{}
	s.Add(objs...)
	return s
}

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, pfx(p))
	}
	return out
}

// host has two interfaces that others come by, and one of ours.
func host(rules *ruleset.Ruleset) exposure.Host {
	return exposure.Host{
		Interfaces: []exposure.Interface{
			{Name: "lo", Up: true, Loopback: true, Addrs: prefixes("127.0.0.1/8", "::1/128")},
			{Name: "eth0", Up: true, Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64", "fe80::1/64")},
			{Name: "eth1", Up: true, Addrs: prefixes("198.51.100.1/24")},
			{Name: "eth2", Addrs: prefixes("203.0.113.1/24")},
			{Name: "isle0", Up: true, Ours: true, Addrs: prefixes("10.1.0.1/24")},
		},
		Rules: rules, Forward4: true, Forward6: true,
	}
}

var networks = []exposure.Network{{Name: "app", State: state(
	netspec.Segment{Link: "isleb1-1", Subnet: pfx("10.1.0.0/24"), Leaf: true}, netspec.Segment{Link: "isle0", Subnet: pfx("10.1.0.0/24")}, netspec.Segment{Link: "isle0", Subnet: pfx("fd00::/64")})}}

func publish(ip4or6 string, host, count uint16, objs ...netspec.Object) exposure.Container {
	to := ip("10.1.0.2")
	if ip(ip4or6).Is6() {
		to = ip("fd00::2")
	}
	return exposure.Container{Name: "web", State: state(append(objs, netspec.Publish{
		Proto: "tcp", HostIP: ip(ip4or6), HostPort: host, Count: count, To: to, ToPort: 80, Link: "isle0",
	})...)}
}

func allow(from string) netspec.Allow {
	return netspec.Allow{Proto: "tcp", HostIP: ip("192.0.2.1"), HostPort: 8080, Count: 1, From: pfx(from)}
}

func relay(from ...netip.Prefix) []exposure.Relay {
	return []exposure.Relay{{From: from, Publish: netspec.Publish{
		Proto: "tcp", HostIP: ip("2001:db8::1"), HostPort: 8080, Count: 1, To: ip("10.1.0.2"), ToPort: 80,
	}}}
}

// dropping is a foreign chain at a hook that drops one port.
func dropping(hook ruleset.Hook, port uint16, more ...ruleset.Step) *ruleset.Ruleset {
	steps := append(more, ruleset.Ports{Dest: [][2]uint16{{port, port}}}, ruleset.End{Verdict: ruleset.Verdict{Code: ruleset.Drop}})
	return &ruleset.Ruleset{Chains: []ruleset.Chain{{Family: "inet", Table: "t", Name: "c", Hook: hook, Rules: []ruleset.Rule{{Handle: 4, Text: "drop it", Steps: steps}}}}}
}

const by = "rule 4 in chain c of table inet t (drop it)"

func TestList(t *testing.T) {
	fromFarAway := ruleset.Step(ruleset.Compare{Src: 1, Op: ruleset.Neq, Data: []byte{192, 0, 2}})
	loadSource := ruleset.Step(ruleset.Load{Field: ruleset.Field{Of: ruleset.NetworkHeader, Offset: 12, Len: 4}, Dst: 1})
	for _, tt := range []struct {
		what  string
		rules *ruleset.Ruleset
		c     exposure.Container
		want  []string
	}{
		{"every address", nil, publish("0.0.0.0", 8080, 1), []string{
			"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 anywhere published reachable", "tcp 198.51.100.1:8080+1 eth1 → 10.1.0.2:80 anywhere published reachable"}},
		{"IPv6", nil, publish("::", 8080, 1), []string{"tcp 2001:db8::1:8080+1 eth0 → [fd00::2]:80 anywhere published reachable"}},
		{"one address", nil, publish("198.51.100.1", 8080, 1), []string{"tcp 198.51.100.1:8080+1 eth1 → 10.1.0.2:80 anywhere published reachable"}},
		{"loopback", nil, publish("127.0.0.1", 8080, 1), nil},
		{"an address that is down", nil, publish("203.0.113.1", 8080, 1), nil},
		{"dropped before", dropping(ruleset.Prerouting, 8080), publish("192.0.2.1", 8080, 1), []string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 anywhere published blocked " + by}},
		{"dropped on its way", dropping(ruleset.Forward, 80), publish("192.0.2.1", 8080, 1), []string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 anywhere published blocked " + by}},
		{"dropped to the host, which it does not go to", dropping(ruleset.Input, 8080), publish("192.0.2.1", 8080, 1), []string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 anywhere published reachable"}},
		{"who is not understood", dropping(ruleset.Forward, 80, ruleset.Perhaps{}), publish("192.0.2.1", 8080, 1), []string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 anywhere published uncertain " + by}},
		{"neighbours alone", dropping(ruleset.Forward, 80, loadSource, fromFarAway), publish("192.0.2.1", 8080, 1), []string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 192.0.2.0/24 published reachable from elsewhere: " + by}},
		{"a part of a row", dropping(ruleset.Prerouting, 8081), publish("192.0.2.1", 8080, 4), []string{
			"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 anywhere published reachable", "tcp 192.0.2.1:8081+1 eth0 → 10.1.0.2:81 anywhere published blocked " + by,
			"tcp 192.0.2.1:8082+2 eth0 → 10.1.0.2:82 anywhere published reachable"}},
		{"who is allowed", nil, publish("192.0.2.1", 8080, 1, allow("10.9.0.0/16")),
			[]string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 10.9.0.0/16 published reachable"}},
		{"one who is allowed", dropping(ruleset.Forward, 80, loadSource, ruleset.Compare{Src: 1, Op: ruleset.Neq, Data: []byte{10, 9, 0}}), publish("192.0.2.1", 8080, 1, allow("10.9.0.7/32")),
			[]string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 10.9.0.7/32 published reachable"}},
		{"the last of its prefix", dropping(ruleset.Forward, 80, ruleset.Load{Field: ruleset.Field{Of: ruleset.NetworkHeader, Offset: 12, Len: 4}, Dst: 1}, ruleset.Compare{Src: 1, Op: ruleset.Neq, Data: []byte{10, 9, 0, 255}}),
			publish("192.0.2.1", 8080, 1, allow("10.9.0.255/32")), []string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 10.9.0.255/32 published reachable"}},
		{"some of those who are allowed", dropping(ruleset.Forward, 80, loadSource, ruleset.Compare{Src: 1, Data: []byte{10, 8, 0}}), publish("192.0.2.1", 8080, 1, allow("10.8.0.0/24"), allow("10.9.0.0/24")),
			[]string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 10.9.0.0/24 published reachable from the others: " + by}},
		{"an interface", nil, exposure.Container{Name: "web", State: state(netspec.Publish{
			Proto: "udp", HostIP: ip("0.0.0.0"), Iface: "eth1", HostPort: 53, Count: 1, To: ip("10.1.0.2"), ToPort: 53, Link: "isle0",
		})}, []string{"udp 198.51.100.1:53+1 eth1 → 10.1.0.2:53 anywhere published reachable"}},
		{"relayed by a socket, so the host's own rules count", dropping(ruleset.Input, 8080), exposure.Container{Name: "web", Relayed: relay()}, []string{"tcp 2001:db8::1:8080+1 eth0 → 10.1.0.2:80 anywhere relayed blocked " + by}},
		{"relayed for some", nil, exposure.Container{Name: "web", Relayed: relay(pfx("2001:db8:7::/48"))}, []string{"tcp 2001:db8::1:8080+1 eth0 → 10.1.0.2:80 2001:db8:7::/48 relayed reachable"}},
		{"behind a leaf of a wide network", dropping(ruleset.Forward, 80, ruleset.Load{Field: ruleset.Field{Of: ruleset.OutName}, Dst: 1}, ruleset.Compare{Src: 1, Data: []byte("isle0\x00")}),
			exposure.Container{Name: "web", State: state(netspec.Publish{
				Proto: "tcp", HostIP: ip("192.0.2.1"), HostPort: 8080, Count: 1, To: ip("10.1.0.2"), ToPort: 80, Link: "isleb1-1",
			})}, []string{"tcp 192.0.2.1:8080+1 eth0 → 10.1.0.2:80 anywhere published blocked " + by}},
		{"the host's network", nil, exposure.Container{Name: "web", HostMode: true}, []string{"any :0+0  →   host network reachable every socket that it listens on is one of the host's"}},
		{"its own address, closed", nil, exposure.Container{Name: "web", State: state(netspec.Open{Link: "isle0", To: ip("10.1.0.2"), Proto: "tcp", Port: 80, Count: 1})}, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			compare(t, exposure.List(host(tt.rules), networks, []exposure.Container{tt.c}), tt.want)
		})
	}
}

func compare(t *testing.T, got []exposure.Exposed, want []string) {
	t.Helper()
	var lines []string
	for _, e := range got {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s:%d+%d %s → %s %s %s %s %s", e.Proto, e.Address, e.Port, e.Count, e.Interface, e.Target, e.From, e.By, e.Verdict, e.Reason)))
		if e.Container != "web" {
			t.Errorf("container %q", e.Container)
		}
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// TestDirect: containers at their own addresses.
func TestDirect(t *testing.T) {
	web := exposure.Container{Name: "web", State: state(
		netspec.Addr{NS: "web", Link: "eth0", Prefix: pfx("10.1.0.2/24")}, netspec.Open{Link: "isle0", To: ip("10.1.0.2"), Proto: "tcp", Port: 80, Count: 1})}
	h := host(dropping(ruleset.Forward, 80))
	h.Interfaces = h.Interfaces[:2]
	for access, want := range map[netspec.Access][]string{
		netspec.AccessNone:   nil,
		netspec.AccessOpen:   {"tcp 10.1.0.2:80+1 eth0 → 10.1.0.2:80 whoever has a route to it direct blocked " + by},
		netspec.AccessDirect: {"any 10.1.0.2:0+0 eth0 → 10.1.0.2, every port whoever has a route to it direct reachable"},
	} {
		n := []exposure.Network{{Name: "app", State: state(netspec.Segment{Link: "isle0", Subnet: pfx("10.1.0.0/24"), Access: access})}}
		compare(t, exposure.List(h, n, []exposure.Container{web}), want)
	}
	n := []exposure.Network{{Name: "app", State: state(netspec.Segment{Link: "isle0", Subnet: pfx("10.1.0.0/24")}, netspec.Entrance{Link: "isle0", Subnet: pfx("10.1.0.0/24"), From: "eth0"})}}
	compare(t, exposure.List(host(nil), n, []exposure.Container{web}), []string{"tcp 10.1.0.2:80+1 eth0 → 10.1.0.2:80 whoever has a route to it direct reachable"})
}

// TestDirectForSome: a list of sources holds at the containers' own addresses too,
// and those nearby may get where others do not.
func TestDirectForSome(t *testing.T) {
	n := []exposure.Network{{Name: "app", State: state(netspec.Segment{Link: "isle0", Subnet: pfx("10.1.0.0/24"), Access: netspec.AccessOpen})}}
	loadSource := ruleset.Step(ruleset.Load{Field: ruleset.Field{Of: ruleset.NetworkHeader, Offset: 12, Len: 4}, Dst: 1})
	h := host(dropping(ruleset.Forward, 80, loadSource, ruleset.Compare{Src: 1, Op: ruleset.Neq, Data: []byte{192, 0, 2}}))
	h.Interfaces = h.Interfaces[:2]
	for from, want := range map[string]string{
		"192.0.2.7/32": "tcp 10.1.0.2:80+1 eth0 → 10.1.0.2:80 192.0.2.7/32 direct reachable",
		"10.9.0.0/16":  "tcp 10.1.0.2:80+1 eth0 → 10.1.0.2:80 10.9.0.0/16 direct blocked " + by,
		"":             "tcp 10.1.0.2:80+1 eth0 → 10.1.0.2:80 192.0.2.0/24 direct reachable from elsewhere: " + by,
	} {
		o := netspec.Open{Link: "isle0", To: ip("10.1.0.2"), Proto: "tcp", Port: 80, Count: 1}
		if from != "" {
			o.From = pfx(from)
		}
		compare(t, exposure.List(h, n, []exposure.Container{{Name: "web", State: state(o)}}), []string{want})
	}
}

func TestForwardingOff(t *testing.T) {
	h := host(nil)
	h.Forward4 = false
	got := exposure.List(h, networks, []exposure.Container{publish("192.0.2.1", 8080, 1)})
	if len(got) != 1 || got[0].Verdict != exposure.Blocked || got[0].Network != "app" {
		t.Errorf("%+v", got)
	}
}

func BenchmarkList(b *testing.B) {
	var cs []exposure.Container
	for i := range 100 {
		cs = append(cs, publish("0.0.0.0", uint16(8000+i), 1))
	}
	for h := host(dropping(ruleset.Forward, 80)); b.Loop(); {
		exposure.List(h, networks, cs)
	}
}
