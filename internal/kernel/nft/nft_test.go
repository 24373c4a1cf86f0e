package nft

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

var update = flag.Bool("update", false, "write the listing into table.nft; its remarks stay")

func open(t testing.TB) (*Table, kerneltest.NS) {
	t.Helper()
	ns := kerneltest.NewNS(t)
	table, err := Open(ns.File, "isle")
	if err != nil {
		t.Fatal(err)
	}
	table.Group, table.Prefix = 0x15e, "isle"
	t.Cleanup(func() { table.Close() })
	return table, ns
}

func apply(t testing.TB, table *Table, from, to netspec.State) {
	t.Helper()
	if i, err := table.Apply(context.Background(), reconcile.Diff(from, to)); err != nil {
		t.Fatalf("change %d: %v", i, err)
	}
}

func read(t testing.TB, table *Table) netspec.State {
	t.Helper()
	s, err := table.Read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func state(objs ...netspec.Object) netspec.State {
	s := netspec.State{}
	s.Add(objs...)
	return s
}

var remark = regexp.MustCompile(`(?m)^[ \t]*#.*\n`)

// nftLists is both our tables as nft prints them.
func nftLists(ns kerneltest.NS) string {
	return ns.Run("nft", "list", "table", "inet", "isle") + ns.Run("nft", "list", "table", "bridge", "isle")
}

// TestTable holds table.nft and the rules in Go together; nft is the witness.
func TestTable(t *testing.T) {
	table, ns := open(t)
	apply(t, table, nil, state(netspec.Tunnel{Port: 4789})) // its chains come with it
	got := regexp.MustCompile(`(?m)^\tcomment .*\n|^\t\telements = .*\n`).ReplaceAllString(nftLists(ns), "")
	b, err := os.ReadFile("table.nft")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		b = annotate(string(b), got)
		if err := os.WriteFile("table.nft", b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := remark.ReplaceAllString(string(b), ""); got != want {
		t.Errorf("nft lists\n%s\ntable.nft has\n%s", got, want)
	}
}

// TestReadBack : what nft prints of our tables, nft can load.
func TestReadBack(t *testing.T) {
	table, ns := open(t)
	apply(t, table, nil, state(everyKind()...))
	file := filepath.Join(t.TempDir(), "saved.nft")
	if err := os.WriteFile(file, []byte("flush ruleset\n"+nftLists(ns)), 0o644); err != nil {
		t.Fatal(err)
	}
	ns.Run("nft", "-f", file)
}

// annotate puts the remarks of old before the same lines in listing.
func annotate(old, listing string) []byte {
	remarks, block := map[string]string{}, ""
	for l := range strings.Lines(old) {
		if strings.HasPrefix(strings.TrimSpace(l), "#") {
			block += l
			continue
		}
		remarks[l], block = remarks[l]+block, ""
	}
	var b []byte
	for l := range strings.Lines(listing) {
		b = append(b, remarks[l]+l...)
		delete(remarks, l)
	}
	return b
}

func ports(n int) netspec.State {
	s := state(netspec.Segment{Link: "isle0", Subnet: netip.MustParsePrefix("10.0.0.0/8"), Masquerade: true})
	for i := range n {
		to := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		s.Add(netspec.Publish{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: uint16(i + 1), Count: 1, To: to, ToPort: 80, Link: "isle0"})
	}
	return s
}

// TestManyPorts : 10,000 ports are one batch, and come back whole.
func TestManyPorts(t *testing.T) {
	table, _ := open(t)
	want := ports(10_000)
	apply(t, table, nil, want)
	if got := read(t, table); !got.Equal(want) {
		t.Errorf("%d of %d came back", len(got), len(want))
	}
	apply(t, table, want, nil)
	if got := read(t, table); len(got) > 0 {
		t.Errorf("%d stay", len(got))
	}
}

// TestIdempotent : what is there is not added, what is not there is not
// deleted, what differs is replaced; each within a batch that does more.
func TestIdempotent(t *testing.T) {
	table, _ := open(t)
	have := ports(3)
	apply(t, table, nil, have)
	apply(t, table, nil, have)
	moved := netspec.State{}
	for _, o := range have {
		if p, ok := o.(netspec.Publish); ok {
			p.ToPort, p.Count = 8080, 1
			o = p
		}
		moved.Add(o)
	}
	apply(t, table, nil, moved)
	if got := read(t, table); !got.Equal(moved) {
		t.Errorf("after replacing:\n%s", reconcile.Dump(got))
	}
	apply(t, table, ports(10), ports(1))
	if got, want := read(t, table), moved; got.Equal(want) || len(got) != 2 {
		t.Errorf("after deleting what was not there:\n%s", reconcile.Dump(got))
	}
}

// TestAllOrNothing : a batch with a change that cannot be made changes nothing
// and names the culprit.
func TestAllOrNothing(t *testing.T) {
	table, _ := open(t)
	have := ports(2)
	apply(t, table, nil, have)
	row := func(first, count uint16) reconcile.Change {
		p := netspec.Publish{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: first, Count: count, To: netip.MustParseAddr("10.0.0.9"), ToPort: first, Link: "isle0"}
		return reconcile.Change{Key: p.Key(), New: p}
	}
	failed, err := table.Apply(t.Context(), []reconcile.Change{row(100, 10), row(200, 10), row(205, 10)})
	if err == nil || failed != 2 {
		t.Errorf("overlapping rows: change %d, %v", failed, err)
	}
	wide := row(100, 10)
	apply(t, table, nil, state(wide.New))
	p := wide.New.(netspec.Publish)
	p.To = netip.MustParseAddr("10.0.0.10")
	apply(t, table, nil, state(p)) // the very row, leading elsewhere
	apply(t, table, state(p), nil)
	if got := read(t, table); !got.Equal(have) {
		t.Errorf("after a batch that failed:\n%s", reconcile.Dump(got))
	}
}

// TestRepair : whatever is done to our table, the next Apply makes it whole and
// keeps the elements that were left.
func TestRepair(t *testing.T) {
	for name, harm := range map[string]string{
		"rule deleted":     "flush chain inet isle forward",
		"rule added":       "insert rule inet isle forward accept",
		"table deleted":    "delete table inet isle",
		"ruleset flushed":  "flush ruleset",
		"elements deleted": "flush map inet isle anyports4",
		"nothing":          "list table inet isle",
	} {
		t.Run(name, func(t *testing.T) {
			table, ns := open(t)
			want := ports(5)
			apply(t, table, nil, want)
			whole := ns.Run("nft", "list", "table", "inet", "isle")
			ns.Run("nft", strings.Fields(harm)...)
			have := read(t, table)
			if got := have.Equal(want); got != (name == "nothing") {
				t.Errorf("seen as whole: %v", got)
			}
			if changes := reconcile.Diff(have, want); len(changes) > 0 {
				if _, err := table.Apply(t.Context(), changes); err != nil {
					t.Fatal(err)
				}
			}
			if got := ns.Run("nft", "list", "table", "inet", "isle"); sorted(got) != sorted(whole) {
				t.Errorf("repaired:\n%s\nwas:\n%s", got, whole)
			}
			if got := read(t, table); !got.Equal(want) {
				t.Errorf("read:\n%s", reconcile.Dump(got))
			}
		})
	}
}

// TestOtherVersion : the table of another version is replaced with all that
// can be understood of it.
func TestOtherVersion(t *testing.T) {
	table, ns := open(t)
	want := ports(5)
	apply(t, table, nil, want)
	ns.Run("nft", "add chain inet isle old { type filter hook input priority 5; }")
	ns.Run("nft", "insert rule inet isle ingress counter")
	more := ports(6)
	apply(t, table, want, more)
	again, err := Open(ns.File, "isle")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	apply(t, again, nil, state(netspec.Segment{Link: "isle1", Subnet: netip.MustParsePrefix("192.168.1.0/24")}))
	more.Add(netspec.Segment{Link: "isle1", Subnet: netip.MustParsePrefix("192.168.1.0/24")})
	if got := read(t, again); !got.Equal(more) {
		t.Errorf("elements:\n%s", reconcile.Dump(got))
	}
	if out := ns.Run("nft", "list", "chain", "inet", "isle", "ingress"); strings.Contains(out, "counter") {
		t.Errorf("the old rule stays:\n%s", out)
	}
}

// TestSegmentsShare : links of several subnets keep what the others need.
func TestSegmentsShare(t *testing.T) {
	table, _ := open(t)
	s := func(subnet string) netspec.Segment {
		return netspec.Segment{Link: "isle0", Subnet: netip.MustParsePrefix(subnet), Masquerade: true, Internal: true}
	}
	all := state(s("10.1.0.0/24"), s("10.1.1.0/24"), s("10.0.255.0/24"), s("fd00::/64"))
	apply(t, table, nil, all)
	for _, gone := range []string{"10.1.0.0/24", "fd00::/64", "10.0.255.0/24", "10.1.1.0/24"} {
		left := all.Without(state(s(gone)))
		apply(t, table, all, left)
		if got := read(t, table); !got.Equal(left) {
			t.Errorf("without %s:\n%s", gone, reconcile.Dump(got))
		}
		all = left
	}
}

func sorted(s string) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" ,\n\t", r) })
	count := map[string]int{}
	for _, w := range words {
		count[w]++
	}
	return fmt.Sprint(count)
}

func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{0, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table, _ := open(b)
			apply(b, table, nil, ports(n))
			one := netspec.Publish{Proto: "udp", HostIP: netip.IPv4Unspecified(), HostPort: 1, Count: 1, To: netip.MustParseAddr("10.0.0.9"), ToPort: 1, Link: "isle0"}
			for b.Loop() {
				apply(b, table, nil, state(one))
				apply(b, table, state(one), nil)
			}
		})
	}
}

// everyKind are objects of all kinds that the table holds, in all their forms.
func everyKind() []netspec.Object {
	ip, px := netip.MustParseAddr, netip.MustParsePrefix
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	return []netspec.Object{
		netspec.Segment{Link: "isle0", Subnet: px("10.1.0.0/24"), Masquerade: true},
		netspec.Segment{Link: "isle1", Subnet: px("10.1.1.0/24"), Access: netspec.AccessOpen},
		netspec.Segment{Link: "isle1", Subnet: px("fd01::/64"), Access: netspec.AccessDirect},
		netspec.Segment{Link: "isle2", Subnet: px("10.1.2.0/24"), Internal: true},
		netspec.Segment{Link: "lan0"},
		netspec.Segment{Link: "lan0b", Leaf: true},
		netspec.Entrance{Link: "isle0", Subnet: px("10.1.0.0/24"), From: "eth0"},
		netspec.Entrance{Link: "isle1", Subnet: px("fd01::/64"), From: "eth0"},
		netspec.Open{Link: "isle1", To: ip("10.1.1.2"), Proto: "tcp", Port: 80, Count: 1},
		netspec.Open{Link: "isle1", To: ip("fd01::2"), Proto: "sctp", Port: 1000, Count: 9000},
		netspec.Open{Link: "isle1", To: ip("10.1.1.2"), Proto: "tcp", Port: 81, Count: 1, From: px("10.0.0.0/8")},
		netspec.Open{Link: "isle1", To: ip("fd01::2"), Proto: "udp", Port: 1000, Count: 9, From: px("2001:db8::1/128")},
		netspec.Publish{Proto: "tcp", HostIP: any4, HostPort: 80, Count: 1, To: ip("10.1.0.2"), ToPort: 8080, Link: "isle0"},
		netspec.Publish{Proto: "udp", HostIP: ip("192.0.2.1"), HostPort: 80, Count: 3, To: ip("10.1.0.2"), ToPort: 8080, Link: "isle0"},
		netspec.Publish{Proto: "tcp", HostIP: any6, HostPort: 20000, Count: 10000, To: ip("fd01::2"), ToPort: 20000, Link: "isle1"},
		netspec.Publish{Proto: "tcp", HostIP: any4, Iface: "eth0", HostPort: 80, Count: 1, To: ip("10.1.0.3"), ToPort: 80, Link: "isle0"},
		netspec.Publish{Proto: "tcp", HostIP: any6, Iface: "eth0", HostPort: 100, Count: 10, To: ip("fd01::3"), ToPort: 100, Link: "isle1"},
		netspec.Allow{Proto: "tcp", HostIP: any4, HostPort: 80, Count: 1, From: px("10.0.0.0/8")},
		netspec.Allow{Proto: "tcp", HostIP: any4, HostPort: 80, Count: 1, From: px("192.168.0.7/32")},
		netspec.Allow{Proto: "udp", HostIP: ip("192.0.2.1"), HostPort: 80, Count: 3, From: px("0.0.0.0/0")},
		netspec.Allow{Proto: "tcp", HostIP: any6, Iface: "eth0", HostPort: 100, Count: 10, From: px("2001:db8::/32")},
		netspec.Source{Link: "v1", MAC: netspec.MAC{2, 1}, Addr: px("10.1.0.2/32")},
		netspec.Source{Link: "v1", MAC: netspec.MAC{2, 1}, Addr: px("fd01::2/128")},
		netspec.Source{Link: "v1", MAC: netspec.MAC{2, 1}, Addr: px("10.8.0.0/24")},
		netspec.Source{Link: "v2", MAC: netspec.MAC{2, 2}, Addr: px("0.0.0.0/0")},
		netspec.Source{Link: "v2", MAC: netspec.MAC{2, 2}, Addr: px("::/0")},
		netspec.Tunnel{Port: 4789}, netspec.Tunnel{Port: 8472}, netspec.Tunnel{Port: 4790, Via: "wg0"},
		netspec.Across{Link: "isle0", Addr: ip("10.1.0.9"), Way: "eth0"}, netspec.Across{Link: "isle1", Addr: ip("fd01::9"), Way: "eth0"},
		netspec.Shortcut{Link: "isle0", Addr: ip("10.1.0.9"), MAC: netspec.MAC{2, 9}, Gateway: netspec.MAC{2, 1}},
		netspec.Shortcut{Link: "isle1", Addr: ip("fd01::9"), MAC: netspec.MAC{2, 9}, Gateway: netspec.MAC{2, 2}},
		netspec.TunnelPeer{Addr: ip("192.0.2.7")}, netspec.TunnelPeer{Addr: ip("2001:db8::7")},
	}
}

// TestEveryKind : whatever goes in comes back as it was, and goes away without
// taking along what others need.
func TestEveryKind(t *testing.T) {
	table, ns := open(t)
	objs := everyKind()
	all := state(objs...)
	apply(t, table, nil, all)
	if got := read(t, table); !got.Equal(all) {
		t.Fatalf("read:\n%s\nwritten:\n%s\n%s", reconcile.Dump(got.Without(all)), reconcile.Dump(all.Without(got)), nftLists(ns))
	}
	for _, o := range objs {
		left := all.Without(state(o))
		apply(t, table, all, left)
		if got := read(t, table); !got.Equal(left) {
			t.Fatalf("without %v:\n%s\nmissing:\n%s", o.Key(), reconcile.Dump(got.Without(left)), reconcile.Dump(left.Without(got)))
		}
		all = left
	}
}

// TestStray : what somebody puts into our sets is found and taken out.
func TestStray(t *testing.T) {
	table, ns := open(t)
	want := state(everyKind()...)
	apply(t, table, nil, want)
	ns.Run("nft", "add", "element", "inet", "isle", "direct4", "{ 10.1.0.0/16 }")
	ns.Run("nft", "add", "element", "bridge", "isle", "routers4", "{ \"v1\" . 02:00:00:00:00:09 }")
	have := read(t, table)
	if n := len(have) - len(want); n < 2 {
		t.Errorf("%d found", n)
	}
	apply(t, table, have, want)
	if got := read(t, table); !got.Equal(want) {
		t.Errorf("left:\n%s", reconcile.Dump(got.Without(want)))
	}
}

// TestAlteredRule : a rule with our words and another meaning is not ours.
func TestAlteredRule(t *testing.T) {
	table, ns := open(t)
	want := ports(1)
	apply(t, table, nil, want)
	ns.Run("nft", "flush", "chain", "inet", "isle", "passed")
	ns.Run("nft", "add", "rule", "inet", "isle", "passed", "oifgroup", "!=", "351", "accept", "comment", `"nobody asks for the mark elsewhere"`)
	ns.Run("nft", "add", "rule", "inet", "isle", "passed", "accept", "comment", `"the guard of the bridge asks for it"`)
	if got := read(t, table); len(got) > 0 {
		t.Error("it is taken for ours")
	}
	apply(t, table, nil, want)
	if got := read(t, table); !got.Equal(want) {
		t.Errorf("repaired:\n%s", reconcile.Dump(got))
	}
}

// TestTunnelChains : the chains that every packet of the host passes are there while there
// is a tunnel, and come and go in one batch with it: no tunnel is ever without.
func TestTunnelChains(t *testing.T) {
	table, ns := open(t)
	there := func() bool {
		out := nftLists(ns)
		return strings.Contains(out, "chain arrived") && strings.Contains(out, "chain spoken")
	}
	base := ports(1)
	plain, sealed := base.Without(nil), base.Without(nil)
	plain.Add(netspec.Tunnel{Port: 4789})
	sealed.Add(netspec.Tunnel{Port: 4790, Via: "wg0"})
	apply(t, table, nil, base)
	if there() {
		t.Error("a host without tunnels has them")
	}
	from := base
	for _, to := range []netspec.State{plain, sealed, plain, base} {
		before, err := table.generation()
		if err != nil {
			t.Fatal(err)
		}
		apply(t, table, from, to)
		after, err := table.generation()
		if err != nil || after != before+1 {
			t.Errorf("%d batches, %v", after-before, err)
		}
		if want := len(to) > len(base); there() != want {
			t.Errorf("the chains are there: %t, with %s", !want, reconcile.Dump(to.Without(base)))
		}
		if got := read(t, table); !got.Equal(to) {
			t.Errorf("read:\n%s", reconcile.Dump(got))
		}
		from = to
	}
	apply(t, table, base, plain)
	ns.Run("nft", "delete", "chain", "inet", "isle", "arrived")
	ns.Run("nft", "delete", "chain", "inet", "isle", "spoken")
	if got := read(t, table); len(got) > 0 {
		t.Error("a tunnel without its chains is taken for whole")
	}
	apply(t, table, nil, plain)
	if !there() {
		t.Error("the chains are not made again")
	}
	ns.Run("nft", "flush", "set", "inet", "isle", "tunnels")
	if got := read(t, table); !got.Equal(base) {
		t.Errorf("read:\n%s", reconcile.Dump(got))
	}
	more := ports(2)
	if apply(t, table, base, more); there() {
		t.Error("the chains of a tunnel that is gone stay")
	}
}

// BenchmarkTunnelChains: a datagram from a program of the host to another one, with the
// chains of tunnels in its way and without.
func BenchmarkTunnelChains(b *testing.B) {
	for _, name := range []string{"without", "with"} {
		b.Run(name, func(b *testing.B) {
			table, ns := open(b)
			want := ports(1)
			if name == "with" {
				want.Add(netspec.Tunnel{Port: 4789}, netspec.TunnelPeer{Addr: netip.MustParseAddr("192.0.2.7")})
			}
			apply(b, table, nil, want)
			ns.Do(func() error { return datagrams(b) })
		})
	}
}

func datagrams(b *testing.B) error {
	in, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := net.DialUDP("udp4", nil, in.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return err
	}
	defer out.Close()
	for buf := make([]byte, 1); b.Loop(); {
		if _, err := out.Write(buf); err != nil {
			return err
		}
		if _, err := in.Read(buf); err != nil {
			return err
		}
	}
	return nil
}
