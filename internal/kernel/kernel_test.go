package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

// machine is a host in a namespace of its own, with things on it that are not
// ours.
type machine struct {
	*Kernel
	host kerneltest.NS
	t    testing.TB
	cfg  Config
}

type option func(*Config)

func withBPF(c *Config) { c.BPFDir = filepath.Join(filepath.Dir(c.NSDir), "bpf", "isle") }

func newMachine(t testing.TB, opts ...option) *machine {
	t.Helper()
	m := &machine{host: kerneltest.NewNS(t), t: t}
	dir := t.TempDir()
	m.cfg = Config{Table: "isle", LinkGroup: 4711, LinkPrefix: "is", NSDir: filepath.Join(dir, "netns")}
	for _, o := range opts {
		o(&m.cfg)
	}
	m.open()
	t.Cleanup(func() {
		names, err := m.ns.List()
		if err != nil {
			t.Error(err)
		}
		for _, n := range names {
			if err := m.ns.Delete(n); err != nil {
				t.Error(err)
			}
		}
		if err := m.Kernel.Close(); err != nil {
			t.Error(err)
		}
		if m.cfg.BPFDir != "" {
			_ = os.RemoveAll(m.cfg.BPFDir)
			_ = unix.Unmount(filepath.Dir(m.cfg.BPFDir), unix.MNT_DETACH)
		}
		_ = unix.Unmount(m.cfg.NSDir, unix.MNT_DETACH)
	})
	return m
}

// open makes a Kernel, as a restart of the daemon does.
func (m *machine) open() {
	m.t.Helper()
	m.host.Do(func() (err error) { m.Kernel, err = New(m.cfg); return err })
}

func (m *machine) restart() {
	m.t.Helper()
	if err := m.Kernel.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.open()
}

func (m *machine) apply(s netspec.State) {
	m.t.Helper()
	m.change(nil, s)
}

func (m *machine) remove(s netspec.State) {
	m.t.Helper()
	m.change(s, nil)
}

func (m *machine) change(from, to netspec.State) {
	m.t.Helper()
	if err := reconcile.Apply(context.Background(), m.Kernel, reconcile.Diff(from, to)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) observe() netspec.State {
	m.t.Helper()
	s, err := m.Observe(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// in makes a witness of a container's namespace.
func (m *machine) in(ns netspec.NS) kerneltest.NS {
	m.t.Helper()
	f, err := m.Kernel.open(ns)
	if err != nil {
		m.t.Fatal(err)
	}
	w := kerneltest.Wrap(m.t, f)
	m.t.Cleanup(w.Close)
	return w
}

func state(objs ...netspec.Object) netspec.State {
	s := netspec.State{}
	s.Add(objs...)
	return s
}

// bridge number n: 10.n.0.0/24 and fd00:n::/64.
func bridge(n int, policy netspec.Segment) netspec.State {
	name := fmt.Sprintf("isbr%d", n)
	seg := policy
	seg.Link = name
	s := netspec.State{}
	for _, p := range []string{fmt.Sprintf("10.%d.0.1/24", n), fmt.Sprintf("fd00:%d::1/64", n)} {
		seg.Subnet = pfx(p).Masked()
		s.Add(seg, netspec.Addr{Link: name, Prefix: pfx(p)})
	}
	s.Add(netspec.Link{Name: name, Kind: netspec.Bridge, MTU: 1500, MAC: netspec.MAC{2, 0, 0, 0, byte(n), 1}},
		netspec.Sysctl{Name: "ipv4/ip_forward", Value: "1"},
		netspec.Sysctl{Name: "ipv6/conf/all/forwarding", Value: "1"})
	return s
}

// container number i on bridge n: .i+1, ::i+1.
func container(n, i int) (netspec.State, netspec.NS) {
	ns := netspec.NS(fmt.Sprintf("c%d-%d", n, i))
	return state(
		netspec.Namespace{NS: ns},
		netspec.Link{
			Name: fmt.Sprintf("isv%d-%d", n, i), Kind: netspec.Veth, MTU: 1500, MAC: netspec.MAC{2, 1, 0, 0, byte(n), byte(i)},
			Master: fmt.Sprintf("isbr%d", n), PeerNS: ns, Peer: "eth0", PeerMAC: netspec.MAC{2, 2, 0, 0, byte(n), byte(i)},
			Hairpin: true, // where br_netfilter is on, hairpin traffic never leaves layer 2
		},
		netspec.Addr{NS: ns, Link: "eth0", Prefix: pfx(fmt.Sprintf("10.%d.0.%d/24", n, i+1))},
		netspec.Addr{NS: ns, Link: "eth0", Prefix: pfx(fmt.Sprintf("fd00:%d::%d/64", n, i+1))},
		netspec.Route{NS: ns, Dst: pfx("0.0.0.0/0"), Via: ip(fmt.Sprintf("10.%d.0.1", n)), Dev: "eth0"},
		netspec.Route{NS: ns, Dst: pfx("::/0"), Via: ip(fmt.Sprintf("fd00:%d::1", n)), Dev: "eth0"},
		netspec.Sysctl{NS: ns, Name: "ipv4/ip_unprivileged_port_start", Value: "0"},
	), ns
}

func merge(states ...netspec.State) netspec.State {
	out := netspec.State{}
	for _, s := range states {
		for _, o := range s {
			out.Add(o)
		}
	}
	return out
}

// foreign puts links, addresses, routes and rules of others on the host.
func (m *machine) foreign() {
	m.t.Helper()
	m.host.IP(`link add docker0 type bridge
		link set docker0 addrgenmode none
		link set docker0 up
		addr add 172.31.0.1/16 dev docker0
		link add isfake type veth peer name other
		link set isfake up
		route add 203.0.113.0/24 dev docker0`)
	m.host.Run("nft", "add table inet foreign")
	m.host.Run("nft", "add chain inet foreign c { type filter hook input priority 0; }")
	m.host.Run("nft", "add rule inet foreign c tcp dport 9 drop")
	m.host.Run("nft", "add table ip isle")
}

// carrier is what the kernel finds out about a link by itself, some time later.
var carrier = regexp.MustCompile(`NO-CARRIER,| state [A-Z]+`)

// foreignDump is all that is not ours, as other programs see it.
func (m *machine) foreignDump() string {
	m.t.Helper()
	out := m.host.Run("nft", "list", "table", "inet", "foreign") + m.host.Run("nft", "list", "table", "ip", "isle")
	for _, l := range []string{"docker0", "isfake", "other"} {
		out += carrier.ReplaceAllString(m.host.Run("ip", "addr", "show", "dev", l), "")
	}
	for _, r := range strings.Split(m.host.Run("ip", "route"), "\n") {
		if strings.Contains(r, "docker0") {
			out += r + "\n"
		}
	}
	return out
}

func TestAttachDetach(t *testing.T) {
	m := newMachine(t, withBPF)
	m.foreign()
	before := m.foreignDump()
	br := bridge(1, netspec.Segment{Masquerade: true})
	m.apply(br)
	c, ns := container(1, 1)
	c.Add(everyPort(ns)...)
	m.apply(c)
	want := merge(br, c)
	if got := m.observe(); !got.Equal(want) {
		t.Fatalf("missing:\n%s\ntoo much:\n%s", reconcile.Dump(want.Without(got)), reconcile.Dump(got.Without(want)))
	}
	w := m.in(ns)
	if out := w.Run("ip", "addr", "show", "dev", "eth0", "scope", "global"); strings.Contains(out, "tentative") || !strings.Contains(out, "UP") {
		t.Errorf("eth0: %s", out)
	}
	if changes, err := reconcile.Sync(t.Context(), m.Kernel, want); err != nil || len(changes) > 0 {
		t.Errorf("Sync of what is there: %v, %v", changes, err)
	}
	w.Close()
	m.remove(c)
	m.settle("isv1-1")
	if got := m.observe(); !got.Equal(br) {
		t.Errorf("after detach, missing:\n%s\ntoo much:\n%s", reconcile.Dump(br.Without(got)), reconcile.Dump(got.Without(br)))
	}
	m.remove(br)
	if got := m.observe(); len(got) > 0 {
		t.Errorf("left behind:\n%s", reconcile.Dump(got))
	}
	if after := m.foreignDump(); after != before {
		t.Errorf("foreign state changed:\n%s\nwas\n%s", after, before)
	}
}

// everyPort is one of each kind of filter object for container 1 on bridge 1.
func everyPort(ns netspec.NS) []netspec.Object {
	v4, v6, link := ip("10.1.0.2"), ip("fd00:1::2"), "isbr1"
	return []netspec.Object{
		netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 8080, Count: 1, To: v4, ToPort: 80, Link: link},
		netspec.Publish{Proto: "tcp", HostIP: ip("::"), HostPort: 8080, Count: 1, To: v6, ToPort: 80, Link: link},
		netspec.Publish{Proto: "udp", HostIP: ip("192.0.2.1"), HostPort: 53, Count: 1, To: v4, ToPort: 5353, Link: link},
		netspec.Publish{Proto: "sctp", HostIP: ip("2001:db8::1"), HostPort: 7, Count: 1, To: v6, ToPort: 7, Link: link},
		netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 9000, Count: 100, To: v4, ToPort: 9000, Link: link},
		netspec.Publish{Proto: "udp", HostIP: ip("::"), HostPort: 9000, Count: 100, To: v6, ToPort: 9000, Link: link},
		netspec.Publish{Proto: "tcp", HostIP: ip("192.0.2.1"), HostPort: 7000, Count: 10, To: v4, ToPort: 7000, Link: link},
		netspec.Publish{Proto: "tcp", HostIP: ip("0.0.0.0"), HostPort: 6000, Count: 10, To: v4, ToPort: 16000, Link: link},
		netspec.Publish{Proto: "tcp", HostIP: ip("2001:db8::1"), HostPort: 6000, Count: 10, To: v6, ToPort: 16000, Link: link},
		netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 8080, Count: 1, To: v4, ToPort: 80},
		netspec.Loopback{Proto: "udp", HostIP: ip("::1"), HostPort: 8080, Count: 1, To: v6, ToPort: 80},
		netspec.Loopback{Proto: "tcp", HostIP: ip("::1"), HostPort: 8081, Count: 1, To: v4, ToPort: 80},
		netspec.Loopback{Proto: "tcp", HostIP: ip("127.0.0.1"), HostPort: 20001, Count: 9999, To: v4, ToPort: 1},
		netspec.DNSRedirect{NS: ns, Port: 40053},
	}
}

// settle waits until the kernel has reaped a link.
func (m *machine) settle(link string) {
	m.t.Helper()
	for range 500 {
		if _, err := m.host.Try("ip", "link", "show", "dev", link); err != nil {
			return
		}
	}
	m.t.Fatalf("link %s stays", link)
}
