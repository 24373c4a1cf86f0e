package publish_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"pgregory.net/rapid"

	"isle/internal/netspec"
	"isle/internal/network/publish"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func none(publish.Mapping) bool { return false }

func bindings(port string, bs ...network.PortBinding) network.PortMap {
	return network.PortMap{network.MustParsePort(port): bs}
}

func TestParse(t *testing.T) {
	both, v4 := publish.Defaults{IPv6: true}, publish.Defaults{}
	for _, c := range []struct {
		name string
		in   network.PortMap
		d    publish.Defaults
		want string
	}{
		{"exposed only", bindings("80/tcp"), both, "[]"},
		{"both families", bindings("80/tcp", network.PortBinding{HostPort: "8080"}), both, "[{tcp 80 [0.0.0.0 ::] 8080 8080}]"},
		{"IPv4 host", bindings("80/tcp", network.PortBinding{HostPort: "8080"}), v4, "[{tcp 80 [0.0.0.0] 8080 8080}]"},
		{"one address", bindings("80/udp", network.PortBinding{HostIP: ip("127.0.0.1"), HostPort: "0"}), both, "[{udp 80 [127.0.0.1] 0 0}]"},
		{"mapped address", bindings("80/udp", network.PortBinding{HostIP: ip("::ffff:127.0.0.1")}), both, "[{udp 80 [127.0.0.1] 0 0}]"},
		{"every address of IPv4", bindings("80/tcp", network.PortBinding{HostIP: ip("0.0.0.0"), HostPort: "1"}), both, "[{tcp 80 [0.0.0.0] 1 1}]"},
		{"a choice", bindings("80/sctp", network.PortBinding{HostPort: "8000-8010"}), v4, "[{sctp 80 [0.0.0.0] 8000 8010}]"},
		{"the network's default", bindings("80/tcp", network.PortBinding{HostPort: "1"}), publish.Defaults{HostIP: ip("192.0.2.1"), IPv6: true}, "[{tcp 80 [192.0.2.1] 1 1}]"},
		{"the network's default, mapped", bindings("80/tcp", network.PortBinding{HostPort: "1"}), publish.Defaults{HostIP: ip("::ffff:192.0.2.1"), IPv6: true}, "[{tcp 80 [192.0.2.1] 1 1}]"},
		{"a default of IPv6 only", bindings("80/tcp", network.PortBinding{HostPort: "1"}), publish.Defaults{HostIP: ip("::"), IPv6: true}, "[{tcp 80 [::] 1 1}]"},
		{"a default of IPv4 only", bindings("80/tcp", network.PortBinding{HostPort: "1"}), publish.Defaults{HostIP: ip("0.0.0.0"), IPv6: true}, "[{tcp 80 [0.0.0.0] 1 1}]"},
		{"free on two addresses", bindings("80/tcp", network.PortBinding{HostIP: ip("127.0.0.1")}, network.PortBinding{HostIP: ip("::1")}), both, "[{tcp 80 [127.0.0.1 ::1] 0 0}]"},
		{"twice free", bindings("80/tcp", network.PortBinding{}, network.PortBinding{HostIP: ip("::1")}), both, "[{tcp 80 [0.0.0.0 ::] 0 0} {tcp 80 [::1] 0 0}]"},
		{"two choices", bindings("80/tcp", network.PortBinding{HostIP: ip("127.0.0.1"), HostPort: "1-2"}, network.PortBinding{HostIP: ip("::1"), HostPort: "2-3"}), both, "[{tcp 80 [127.0.0.1] 1 2} {tcp 80 [::1] 2 3}]"},
		{"fixed before free", bindings("80/tcp", network.PortBinding{}, network.PortBinding{HostPort: "40000"}), v4, "[{tcp 80 [0.0.0.0] 40000 40000} {tcp 80 [0.0.0.0] 0 0}]"},
	} {
		got, err := publish.Parse(c.in, nil, c.d)
		if err != nil || show(got) != c.want {
			t.Errorf("%s: %v, %v; want %s", c.name, got, err, c.want)
		}
	}
	for _, bad := range []string{"x", "-1", "70000", "9-8", "1-", "0-5", "1/tcp/x"} {
		if _, err := publish.Parse(bindings("80/tcp", network.PortBinding{HostPort: bad}), nil, both); !errdefs.IsInvalidArgument(err) {
			t.Errorf("host port %q: %v", bad, err)
		}
	}
	zoned := bindings("80/tcp", network.PortBinding{HostIP: ip("fe80::1%eth0"), HostPort: "8080"})
	if _, err := publish.Parse(zoned, nil, both); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "if=eth0:8080:80") {
		t.Errorf("an address with a zone: %v", err)
	}
	for _, lo := range []string{"127.0.0.1", "::1", "::ffff:127.9.9.9"} {
		if _, err := publish.Parse(bindings("80/sctp", network.PortBinding{HostIP: ip(lo)}), nil, both); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "only TCP and UDP") {
			t.Errorf("SCTP on %s: %v", lo, err)
		}
	}
	for _, group := range []string{"224.0.0.1", "ff02::1", "::ffff:224.0.0.1"} {
		if _, err := publish.Parse(bindings("80/tcp", network.PortBinding{HostIP: ip(group)}), nil, both); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "group's address") {
			t.Errorf("on %s: %v", group, err)
		}
	}
	for _, bad := range []string{"0/tcp", "80/icmp"} {
		if _, err := publish.Parse(bindings(bad, network.PortBinding{}), nil, both); !errdefs.IsInvalidArgument(err) {
			t.Errorf("container port %s: %v", bad, err)
		}
	}
}

// show is requests of one port in few words.
func show(reqs []publish.Request) string {
	var out []string
	for _, r := range reqs {
		out = append(out, fmt.Sprintf("{%s %d %v %d %d}", r.Proto, r.ContainerPort, r.HostIPs, r.First, r.Last))
	}
	return "[" + strings.Join(out, " ") + "]"
}

func name(owner string) string { return "<" + owner + ">" }

func claim(t *testing.T, tab *publish.Table, owner string, pm network.PortMap) ([]publish.Mapping, error) {
	t.Helper()
	reqs, err := publish.Parse(pm, nil, publish.Defaults{IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	return tab.Claim(owner, reqs, name)
}

func TestRangesAreJoined(t *testing.T) {
	pm := network.PortMap{}
	for i := range 100 {
		p, _ := network.PortFrom(uint16(6000+i), "udp")
		pm[p] = []network.PortBinding{{HostIP: ip("0.0.0.0"), HostPort: fmt.Sprint(5000 + i)}}
	}
	got, err := claim(t, &publish.Table{}, "a", pm)
	if want := "[{udp 0.0.0.0  5000 100 6000 }]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
	if shown := publish.Show(got, none); len(shown) != 100 || shown[network.MustParsePort("6099/udp")][0].HostPort != "5099" {
		t.Errorf("shown: %v", shown)
	}
}

func TestEphemeral(t *testing.T) {
	var tab publish.Table
	seen := map[uint16]bool{}
	for i := range 50 {
		got, err := claim(t, &tab, fmt.Sprint(i), bindings("80/tcp", network.PortBinding{}))
		if err != nil || len(got) != 2 || got[0].HostPort != got[1].HostPort || seen[got[0].HostPort] || got[0].HostPort < 32768 {
			t.Fatalf("%v, %v", got, err)
		}
		seen[got[0].HostPort] = true
	}
}

// TestEphemeralOfHost: the host says where ports are chosen from, also later.
func TestEphemeralOfHost(t *testing.T) {
	said := "40000\t40001"
	tab := publish.Table{Sysctl: func(name string) (string, error) {
		if name != "ipv4/ip_local_port_range" {
			t.Errorf("asked for %s", name)
		}
		return said, nil
	}}
	for i, c := range []struct {
		said string
		want uint16 // 0: there is none
	}{
		{"40000\t40001", 40000}, {"40000 40001", 40001}, {"40000 40001", 0}, {"50000 50009", 50000}, {"1024 1025", 1025},
		{"0 0", 32768}, {"", 32769}, {"9 8", 32770}, {"x", 32771}, {"1 70000", 32772}, {"65535 65535", 65535}, {"65535 65535", 0},
	} {
		said = c.said
		got, err := claim(t, &tab, fmt.Sprint(i), bindings("80/tcp", network.PortBinding{}))
		if c.want == 0 {
			if !errdefs.IsConflict(err) {
				t.Errorf("%q: %v, %v; all are taken", c.said, got, err)
			}
			continue
		}
		if err != nil || got[0].HostPort != c.want {
			t.Errorf("%q: %v, %v; want %d", c.said, got, err, c.want)
		}
	}
}

func TestRangeOfChoice(t *testing.T) {
	var tab publish.Table
	for i := range 4 {
		got, err := claim(t, &tab, fmt.Sprint(i), bindings("80/tcp", network.PortBinding{HostPort: "8000-8002"}))
		if i < 3 && (err != nil || got[0].HostPort != uint16(8000+i)) {
			t.Errorf("%d: %v, %v", i, got, err)
		}
		if i == 3 && (!errdefs.IsConflict(err) || !strings.Contains(err.Error(), "no free host port from 8000 to 8002")) {
			t.Errorf("the fourth of three: %v", err)
		}
	}
}

func TestConflictNamesTheHolder(t *testing.T) {
	var tab publish.Table
	if _, err := claim(t, &tab, "web", bindings("80/tcp", network.PortBinding{HostPort: "8080"})); err != nil {
		t.Fatal(err)
	}
	_, err := claim(t, &tab, "other", bindings("80/tcp", network.PortBinding{HostIP: ip("192.0.2.1"), HostPort: "8080"}))
	want := "Bind for 192.0.2.1:8080 failed: port is already allocated: container <web> has 0.0.0.0:8080/tcp"
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	_, err = claim(t, &tab, "other", network.PortMap{port(80, "tcp"): {{HostPort: "9000"}}, port(81, "tcp"): {{HostIP: ip("127.0.0.1"), HostPort: "9000"}}})
	if want := "Bind for 127.0.0.1:9000 failed: port is already allocated: it is asked for twice, also as 0.0.0.0:9000/tcp"; !errdefs.IsConflict(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	for spec, want := range map[string]string{
		"8080:80;from=10.0.0.0/8": "failed: port is already allocated: the container itself has 0.0.0.0:8080/tcp (hint: --replace changes where it leads and who may connect)",
		"127.0.0.1:8080:80":       "failed: port is already allocated: the container itself has 0.0.0.0:8080/tcp: conflict",
	} {
		if _, err := tab.Claim("web", specs(t, spec), name); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := claim(t, &tab, "other", bindings("80/udp", network.PortBinding{HostPort: "8080"})); err != nil {
		t.Errorf("another protocol is another port: %v", err)
	}
}

// TestAgainstModel: all or nothing, and nothing twice.
func TestAgainstModel(t *testing.T) {
	ips := []string{"0.0.0.0", "::", "127.0.0.1", "::1", "192.0.2.1"}
	rapid.Check(t, func(t *rapid.T) {
		var tab publish.Table
		has := map[string][]publish.Mapping{}
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) {
				owner := rapid.StringMatching(`[a-e]`).Draw(t, "owner")
				if has[owner] != nil {
					return
				}
				var reqs []publish.Request
				for range rapid.IntRange(1, 3).Draw(t, "n") {
					port := uint16(rapid.IntRange(1, 4).Draw(t, "port"))
					reqs = append(reqs, publish.Request{Proto: "tcp", ContainerPort: 80, First: port, Last: port,
						HostIPs: []netip.Addr{ip(rapid.SampledFrom(ips).Draw(t, "ip"))}})
				}
				got, err := tab.Claim(owner, reqs, name)
				if free := model(has, reqs); free != (err == nil) {
					t.Fatalf("claim %v: %v; free: %t", reqs, err, free)
				}
				if err == nil {
					has[owner] = got
				}
			},
			"release": func(t *rapid.T) {
				owner := rapid.StringMatching(`[a-e]`).Draw(t, "owner")
				tab.Release(owner, has[owner])
				delete(has, owner)
			},
		})
	})
}

// model reports whether reqs can be had, the slow way.
func model(has map[string][]publish.Mapping, reqs []publish.Request) bool {
	var all []publish.Mapping
	for _, ms := range has {
		for _, m := range ms {
			for i := range m.Count {
				all = append(all, publish.Mapping{HostIP: m.HostIP, HostPort: m.HostPort + i})
			}
		}
	}
	for _, r := range reqs {
		a := r.HostIPs[0]
		if slices.ContainsFunc(all, func(m publish.Mapping) bool {
			return m.HostPort == r.First && m.HostIP.Is4() == a.Is4() && (m.HostIP == a || m.HostIP.IsUnspecified() || a.IsUnspecified())
		}) {
			return false
		}
		all = append(all, publish.Mapping{HostIP: a, HostPort: r.First})
	}
	return true
}

func sockets(t *testing.T) *publish.Table {
	tab := &publish.Table{Holder: &publish.Sockets{Log: slog.New(slog.DiscardHandler)}}
	t.Cleanup(tab.Close)
	return tab
}

// TestHeldAgainstOthers: another program has the port, or wants it.
func TestHeldAgainstOthers(t *testing.T) {
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := fmt.Sprint(other.Addr().(*net.TCPAddr).Port)
	tab := sockets(t)
	_, err = claim(t, tab, "a", bindings("80/tcp", network.PortBinding{HostIP: ip("127.0.0.1"), HostPort: port}))
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "Bind for 127.0.0.1:"+port+" failed: port is already allocated") {
		t.Errorf("a port of another program: %v", err)
	}
	other.Close()
	got, err := claim(t, tab, "a", bindings("80/tcp", network.PortBinding{HostIP: ip("127.0.0.1"), HostPort: port}))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("tcp4", "127.0.0.1:"+port); err == nil {
		l.Close()
		t.Error("another program could take a published port")
	}
	tab.Release("a", got)
	l, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatalf("a released port is not free: %v", err)
	}
	l.Close()
	for _, a := range []string{"203.0.113.77", "2001:db8::77", "fe80::77"} {
		for _, proto := range []string{"80/tcp", "80/udp"} {
			if _, err := claim(t, tab, "a", bindings(proto, network.PortBinding{HostIP: ip(a), HostPort: "0"})); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: an address that is not the host's: %v", a, err)
			}
		}
	}
}

// TestForward: what arrives at a held port gets to the container and back,
// also to one that has the other family only, and is refused when there is
// nowhere to go.
func TestForward(t *testing.T) {
	tcp, udp := echo(t)
	tab := sockets(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		got, err := claim(t, tab, host, network.PortMap{
			port(tcp, "tcp"): {{HostIP: ip(host)}}, port(udp, "udp"): {{HostIP: ip(host)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got {
			at := netip.AddrPortFrom(m.HostIP, m.HostPort).String()
			if c, err := net.DialTimeout(m.Proto, at, 5*time.Second); m.Proto == "tcp" && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("there is nowhere to go: %v, %v", c, err)
			}
			tab.Forward(host, m, ip("127.0.0.1"))
			c, err := net.Dial(m.Proto, at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			exchange(t, c, m)
		}
	}
}

func exchange(t *testing.T, c net.Conn, m publish.Mapping) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if tc, ok := c.(*net.TCPConn); ok {
		if err := tc.CloseWrite(); err != nil { // the answer comes after it
			t.Fatal(err)
		}
	}
	buf := make([]byte, 64)
	n, err := io.ReadAtLeast(c, buf, 5)
	if err != nil || string(buf[:n]) != "hello" {
		t.Errorf("%v: %q, %v", m, buf[:n], err)
	}
}

func port(n uint16, proto network.IPProtocol) network.Port {
	p, _ := network.PortFrom(n, proto)
	return p
}

// echo is a container: it answers on 127.0.0.1.
func echo(t *testing.T) (tcp, udp uint16) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { b, _ := io.ReadAll(c); c.Write(b); c.Close() }()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			n, a, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(b[:n], a)
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port), uint16(u.LocalAddr().(*net.UDPAddr).Port)
}

func TestPlan(t *testing.T) {
	dual := publish.Target{V4: ip("10.0.0.2"), V6: ip("fd00::2"), Link: "br"}
	v4 := publish.Target{V4: ip("10.0.0.2"), Link: "br"}
	for _, c := range []struct {
		hostIP, proto string
		to            publish.Target
		loopback      bool
		want          string // kinds
	}{
		{"0.0.0.0", "tcp", dual, true, "Publish Loopback"},
		{"0.0.0.0", "tcp", dual, false, "Publish"},
		{"::", "udp", dual, true, "Publish Loopback"},
		{"::", "tcp", v4, true, "Loopback"}, // the held socket serves the neighbours
		{"::", "tcp", v4, false, ""},
		{"0.0.0.0", "tcp", publish.Target{V6: ip("fd00::2"), Link: "br"}, true, ""},
		{"127.0.0.1", "tcp", dual, true, "Loopback"},
		{"127.0.0.1", "tcp", dual, false, ""}, // CVE-2025-54388: never a DNAT for a loopback address
		{"127.9.9.9", "tcp", dual, true, "Loopback"},
		{"192.0.2.1", "tcp", dual, true, "Publish"},
		{"0.0.0.0", "sctp", dual, true, "Publish"},
	} {
		var kinds []string
		for _, o := range publish.Plan(publish.Mapping{Proto: c.proto, HostIP: ip(c.hostIP), HostPort: 1, Count: 1, ContainerPort: 2}, c.to, c.loopback) {
			switch o := o.(type) {
			case netspec.Publish:
				kinds = append(kinds, "Publish")
			case netspec.Loopback:
				if kinds = append(kinds, "Loopback"); !o.HostIP.IsLoopback() {
					t.Errorf("%+v is not about a loopback address", o)
				}
			}
		}
		if got := strings.Join(kinds, " "); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.proto, c.hostIP, got, c.want)
		}
	}
}

// TestPlanSources: who may connect, each by the rules of the port's own family.
func TestPlanSources(t *testing.T) {
	dual := publish.Target{V4: ip("10.0.0.2"), V6: ip("fd00::2"), Link: "br"}
	for _, c := range []struct{ hostIP, iface, from, want string }{
		{"0.0.0.0", "", "10.0.0.0/8,192.0.2.0/24", "publish from 10.0.0.0/8 from 192.0.2.0/24 loopback"},
		{"0.0.0.0", "", "10.0.0.0/8,fd00::/8", "publish from 10.0.0.0/8 loopback"},
		{"::", "", "10.0.0.0/8", "loopback"}, // nobody of its family may: there is no way at all
		{"127.0.0.1", "", "10.0.0.0/8", "loopback"},
		{"0.0.0.0", "eth0", "10.0.0.0/8", "publish on eth0 from 10.0.0.0/8 on eth0"},
		{"::", "eth0", "", "publish on eth0"},
	} {
		m := publish.Mapping{Proto: "tcp", HostIP: ip(c.hostIP), Iface: c.iface, HostPort: 80, Count: 7, ContainerPort: 90, From: c.from}
		var got []string
		on := ""
		if c.iface != "" {
			on = " on " + c.iface
		}
		for _, o := range publish.Plan(m, dual, true) {
			switch o := o.(type) {
			case netspec.Publish:
				got = append(got, "publish"+on)
				if o.Iface != c.iface || o.Count != 7 {
					t.Errorf("%+v", o)
				}
			case netspec.Allow:
				got = append(got, "from "+o.From.String()+on)
				if o.HostIP != m.HostIP || o.Iface != c.iface || o.Count != 7 || o.HostPort != 80 {
					t.Errorf("%+v", o)
				}
			case netspec.Loopback:
				got = append(got, "loopback")
				if o.Count != 7 || o.ToPort != 90 {
					t.Errorf("a row is one object: %+v", o)
				}
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}
