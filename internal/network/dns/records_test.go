package dns

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// TestTreeAgainstMap: every version stays as it was.
func TestTreeAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		trees, maps := []tree[int, int]{newTree[int, int](cmp.Compare[int])}, []map[int]int{{}}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			tr, m := trees[len(trees)-1], map[int]int{}
			for k, v := range maps[len(maps)-1] {
				m[k] = v
			}
			k, v := rapid.IntRange(0, 20).Draw(t, "k"), rapid.Int().Draw(t, "v")
			if rapid.Bool().Draw(t, "put") {
				tr, m[k] = tr.with(k, v), v
			} else {
				tr = tr.without(k)
				delete(m, k)
			}
			trees, maps = append(trees, tr), append(maps, m)
		}
		for i, tr := range trees {
			n, last := 0, -1
			tr.root.all(func(k, v int) bool {
				if maps[i][k] != v || k <= last {
					t.Fatalf("version %d: %d is %d, want %d", i, k, v, maps[i][k])
				}
				n, last = n+1, k
				return true
			})
			for k := range maps[i] {
				if _, ok := tr.get(k); !ok {
					t.Fatalf("version %d: %d is missing", i, k)
				}
			}
			if n != len(maps[i]) {
				t.Fatalf("version %d: %d keys, want %d", i, n, len(maps[i]))
			}
		}
	})
}

// TestNothingToTakeAway: it costs nothing that grows with what there is.
func TestNothingToTakeAway(t *testing.T) {
	tr := newTree[int, int](cmp.Compare[int])
	for i := range 1000 {
		tr = tr.with(2*i, i)
	}
	if n := testing.AllocsPerRun(10, func() { tr.without(777) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func host(i int) Host {
	return Host{Zone: "n", Owner: fmt.Sprint(i), Names: []string{fmt.Sprint("c", i)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}}
}

// TestChangeDoesNotGrow: a change among ten thousand hosts makes little more
// than one among ten.
func TestChangeDoesNotGrow(t *testing.T) {
	grow := func(n int) float64 {
		r := newRecords()
		for i := range n {
			r = r.withHost(host(i))
		}
		return testing.AllocsPerRun(20, func() { r.withHost(host(1 << 20)).withoutHost(host(1 << 20)) })
	}
	small, large := grow(10), grow(10_000)
	if large > 12*small {
		t.Errorf("%v allocations with 10 hosts, %v with 10,000", small, large)
	}
}

// TestMemoryOfNames: a container with three names costs little, and nothing when
// it is gone, however many have come and gone.
func TestMemoryOfNames(t *testing.T) {
	const hosts, limit = 20_000, 2 << 10
	use := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, r := use(), newRecords()
	h := func(i int) Host {
		h := host(i)
		h.Names = append(h.Names, fmt.Sprintf("%012x", i), "www")
		return h
	}
	for i := range hosts {
		r = r.withHost(h(i))
	}
	each := (use() - before) / hosts
	t.Logf("%d bytes for each of %d containers", each, hosts)
	if each > limit {
		t.Errorf("limit %d", limit)
	}
	for i := range hosts {
		r = r.withoutHost(h(i))
	}
	if z, _ := r.zones.get("n"); z.names.root != nil || z.ptr.root != nil {
		t.Error("something is left")
	}
}

// TestOrderDoesNotMatter: the records are what the hosts are, however they
// came and went.
func TestOrderDoesNotMatter(t *testing.T) {
	var hosts []Host
	for i := range 50 {
		hosts = append(hosts, host(i))
	}
	a, b := newRecords(), newRecords()
	for _, i := range rand.Perm(50) {
		a = a.withHost(hosts[i])
	}
	for _, i := range rand.Perm(50) {
		b = b.withHost(hosts[i]).withoutHost(hosts[i]).withHost(hosts[i])
	}
	c := newRecords().next(nil, Client{Zones: []string{"n"}}, time.Now())
	for i := range 50 {
		name := fmt.Sprint("c", i)
		if x, y := fmt.Sprint(a.name(c, name, time.Now())), fmt.Sprint(b.name(c, name, time.Now())); x != y || !strings.Contains(x, hosts[i].Addrs[0].String()) {
			t.Errorf("%s: %s and %s", name, x, y)
		}
	}
}

func TestReverse(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.1.in-addr.arpa": "1.2.3.4/32", "4.3.2.1.in-addr.arpa.x": "", "4.3.2.1.xin-addr.arpa": "",
		"3.2.1.in-addr.arpa": "1.2.3.0/24", "256.3.2.1.in-addr.arpa": "1.2.3.0/24 below", "x.3.2.1.in-addr.arpa": "1.2.3.0/24 below",
		"5.4.3.2.1.in-addr.arpa": "1.2.3.4/32 below", "04.3.2.1.in-addr.arpa": "1.2.3.0/24 below", "lb._dns-sd._udp.0.0.2.1.in-addr.arpa": "1.2.0.0/32 below",
		".in-addr.arpa": "", "in-addr.arpa": "", "x.in-addr.arpa": "", "ip6.arpa": "",
		strings.Repeat("0.", 31) + "2.ip6.arpa": "2000::/128", strings.Repeat("0.", 30) + "2.ip6.arpa": "2000::/124", strings.Repeat("g.", 31) + "2.ip6.arpa": "2000::/4 below",
		strings.Repeat("00", 31) + "2.ip6.arpa": "", "8.b.d.0.1.0.0.2.ip6.arpa": "2001:db8::/32",
	} {
		p, below, ok := reverse(name)
		if got := p.String() + map[bool]string{true: " below"}[below]; ok != (want != "") || (ok && got != want) {
			t.Errorf("%s: %s, %t; want %q", name, got, ok, want)
		}
	}
}

// TestClientsOfThePastAreForgotten: what those have left who do not come back
// is kept for as long as it matters.
func TestClientsOfThePastAreForgotten(t *testing.T) {
	s, now := Server{was: map[string]*client{}}, time.Now()
	s.SetZone("n", Zone{Name: "app"})
	c := s.Records().next(nil, Client{Zones: []string{"n"}}, now)
	for i := range 1000 {
		s.remember(fmt.Sprint(i), c, now.Add(time.Duration(i)*time.Second))
	}
	if n, most := len(s.was), int(2*memory/time.Second); n > most+1 || s.was["999"] == nil {
		t.Errorf("%d are kept", n)
	}
}

// TestStrangeNames: whatever a user calls a container is found, as a client
// writes it; what is no name takes nobody else's.
func TestStrangeNames(t *testing.T) {
	r := newRecords().withZone("n", Zone{Name: "app"}).withHost(Host{
		Zone: "n", Owner: "e", Names: []string{"web", "Bücher", "a b", `back\slash`, "\u212a", "db.", "", "."}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")},
	})
	c := r.next(nil, Client{Zones: []string{"n"}, Forward: true}, time.Now())
	for wire, found := range map[string]bool{
		"\x03web": true, "\x07B\xc3\xbccher": true, "\x07b\xc3\xbcCHER\x03app": true, "\x03a b": true, "\x0aback\\slash": true,
		"\x02db": true, "\x02db\x03app": true, "\x01k": false, "\x03\xe2\x84\xaa": true, "": false, "\x03app": false,
	} {
		q, ok := parse([]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"+wire+"\x00\x00\x01\x00\x01"), false)
		if a := r.name(c, q.name, time.Now()); !ok || q.rcode != noError || a.Found != found {
			t.Errorf("%q: %+v, want %t", wire, a, found)
		}
	}
}

// TestLeavingOftenIsRememberedOnce: a container that is connected and
// disconnected in a loop does not become slower with each round.
func TestLeavingOftenIsRememberedOnce(t *testing.T) {
	r, now := newRecords().withZone("n", Zone{Name: "app"}), time.Now()
	var c *client
	for range 100 {
		c = r.next(r.next(c, Client{Zones: []string{"n"}}, now), Client{}, now)
		now = now.Add(time.Second / 10)
	}
	if len(c.left) != 1 || !c.left[0].owns("db.app", now.Add(memory-time.Second)) {
		t.Errorf("%+v", c.left)
	}
}

func TestHostConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	h := &HostConfig{Path: path}
	write := func(s string, at time.Time) {
		if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		h.looked = time.Time{} // a second has passed
	}
	if got := h.Servers(); len(got) != 0 {
		t.Error("no file:", got)
	}
	write("# c\nsearch x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n", time.Unix(1, 0))
	if got := fmt.Sprint(h.Servers()); got != "[127.0.0.53:53 [fe80::1%eth0]:53]" {
		t.Error(got)
	}
	write("nameserver 192.0.2.53\n", time.Unix(2, 0))
	if got := fmt.Sprint(h.Servers()); got != "[192.0.2.53:53]" {
		t.Error("after a change:", got)
	}
	h.Given = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5353")}
	if got := fmt.Sprint(h.Servers()); got != "[192.0.2.1:5353]" {
		t.Error("given:", got)
	}
}

// BenchmarkReply is the work for one question, without the system calls.
func BenchmarkReply(b *testing.B) {
	r := newRecords().withZone("n", Zone{Name: "app"})
	for i := range 20_000 {
		r = r.withHost(host(i))
	}
	c := r.next(nil, Client{Zones: []string{"n"}, Forward: true}, time.Now())
	for _, name := range []string{"c77.", "c77.app.", "nobody.", "77.0.0.10.in-addr.arpa."} {
		b.Run(name, func(b *testing.B) {
			m := new(dns.Msg).SetQuestion(name, dns.TypeA)
			m.SetEdns0(1232, false)
			packet, _ := m.Pack()
			now, out := time.Now(), make([]byte, 0, 512)
			b.ReportAllocs()
			for b.Loop() {
				q, _ := parse(packet, false)
				out, _ = r.reply(out[:0], c, &q, now)
			}
		})
	}
}

// BenchmarkChange is one container that comes and goes, by how many there are.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10, 1000, 20_000} {
		r := newRecords()
		for i := range n {
			r = r.withHost(host(i))
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.withHost(host(1 << 20)).withoutHost(host(1 << 20))
			}
		})
	}
}
