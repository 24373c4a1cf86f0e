package dns_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	isledns "isle/internal/network/dns"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// lab is a server with two networks and a client on its own listener.
type lab struct {
	*isledns.Server
	udp, tcp string           // where the client asks
	ups      []netip.AddrPort // whom it may ask outside, if a test needs to know
}

var web = isledns.Host{Zone: "n1", Owner: "e1", Names: []string{"Web", "www", "0123456789ab"}, Addrs: []netip.Addr{ip("10.0.0.2"), ip("fd00::2")}}

func newLab(t *testing.T, c isledns.Client) *lab {
	t.Helper()
	return labOf(t, &isledns.Server{Log: slog.New(slog.DiscardHandler)}, c)
}

func labOf(t *testing.T, s *isledns.Server, c isledns.Client) *lab {
	t.Helper()
	s.SetZone("n1", isledns.Zone{Name: "app", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}})
	s.SetZone("n2", isledns.Zone{Name: "back.end", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}})
	s.Change(nil, []isledns.Host{
		web,
		{Zone: "n1", Owner: "e2", Names: []string{"db", "www"}, Addrs: []netip.Addr{ip("10.0.0.3")}},
		{Zone: "n2", Owner: "e3", Names: []string{"secret"}, Addrs: []netip.Addr{ip("10.0.1.2")}},
	})
	u, l := listen(t)
	s.Attach("c1", u, l, c)
	t.Cleanup(s.Close)
	return &lab{Server: s, udp: u.LocalAddr().String(), tcp: l.Addr().String()}
}

func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return u, l
}

// ask puts one question. change may alter it.
func (l *lab) ask(t *testing.T, network, name string, qtype uint16, change func(*dns.Msg)) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name, qtype)
	if change != nil {
		change(q)
	}
	at := map[string]string{"udp": l.udp, "tcp": l.tcp}[network]
	resp, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(q, at)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return resp
}

// text is an answer in short: rcode and records, sorted.
func text(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	return strings.Join(append([]string{dns.RcodeToString[m.Rcode]}, out...), " ")
}

func TestNames(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web.", dns.TypeA, "NOERROR 10.0.0.2"},
		{"wEB.", dns.TypeA, "NOERROR 10.0.0.2"},
		{"web.", dns.TypeAAAA, "NOERROR fd00::2"},
		{"web.", dns.TypeANY, "NOERROR 10.0.0.2 fd00::2"},
		{"web.app.", dns.TypeA, "NOERROR 10.0.0.2"},
		{"0123456789ab.", dns.TypeA, "NOERROR 10.0.0.2"},
		{"www.", dns.TypeA, "NOERROR 10.0.0.2 10.0.0.3"},
		{"db.", dns.TypeAAAA, "NOERROR"},
		{"db.", dns.TypeMX, "NOERROR"},
		{"nobody.", dns.TypeA, "NXDOMAIN"},
		{"secret.", dns.TypeA, "NXDOMAIN"},
		{"web.back.end.", dns.TypeA, "NXDOMAIN"},
		{"2.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR Web.app."},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "NOERROR Web.app."},
		{"2.1.0.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"9.0.0.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := l.ask(t, network, c.name, c.qtype, nil)
			if got := text(m); got != c.want {
				t.Errorf("%s %s %s: %s, want %s", network, c.name, dns.TypeToString[c.qtype], got, c.want)
			}
			for _, rr := range m.Answer {
				if h := rr.Header(); h.Ttl > 5 || h.Name != c.name {
					t.Errorf("%s: %v", c.name, rr)
				}
			}
			if m.Question[0].Name != c.name {
				t.Errorf("%s became %s", c.name, m.Question[0].Name)
			}
		}
	}
}

func TestNetworksOfTheClient(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	l.SetClient("c1", isledns.Client{Zones: []string{"n1", "n2"}})
	if got := text(l.ask(t, "udp", "secret.back.end.", dns.TypeA, nil)); got != "NOERROR 10.0.1.2" {
		t.Error("after connecting:", got)
	}
	l.Change([]isledns.Host{web}, nil)
	if got := text(l.ask(t, "udp", "www.", dns.TypeA, nil)); got != "NOERROR 10.0.0.3" {
		t.Error("an alias that one of two has left:", got)
	}
	if got := text(l.ask(t, "udp", "web.", dns.TypeA, nil)); got != "NXDOMAIN" {
		t.Error("after leaving:", got)
	}
	l.DropZone("n2")
	if got := text(l.ask(t, "udp", "secret.", dns.TypeA, nil)); got != "NXDOMAIN" {
		t.Error("after removing the network:", got)
	}
}

func TestEDNSAndTruncation(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	var many isledns.Host
	many.Zone, many.Owner, many.Names = "n1", "many", []string{"many"}
	for i := range 200 {
		many.Addrs = append(many.Addrs, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	l.Change(nil, []isledns.Host{many})
	plain := l.ask(t, "udp", "many.", dns.TypeA, nil)
	plain.Compress = true // as it was sent
	if !plain.Truncated || plain.Len() > 512 || plain.IsEdns0() != nil {
		t.Errorf("without EDNS: %d bytes, truncated %t, OPT %v", plain.Len(), plain.Truncated, plain.IsEdns0())
	}
	large := l.ask(t, "udp", "many.", dns.TypeA, func(q *dns.Msg) { q.SetEdns0(4096, true) })
	if o := large.IsEdns0(); large.Truncated || len(large.Answer) != 200 || o == nil || !o.Do() || o.Version() != 0 {
		t.Errorf("with EDNS: %d answers, truncated %t, OPT %v", len(large.Answer), large.Truncated, o)
	}
	if m := l.ask(t, "tcp", "many.", dns.TypeA, nil); len(m.Answer) != 200 || m.Truncated {
		t.Errorf("over TCP: %d answers", len(m.Answer))
	}
	bad := l.ask(t, "udp", "web.", dns.TypeA, func(q *dns.Msg) { q.SetEdns0(1232, false); q.IsEdns0().SetVersion(7) })
	if bad.Rcode != dns.RcodeBadVers {
		t.Errorf("EDNS version 7: %s", text(bad))
	}
	if m := l.ask(t, "udp", "web.", dns.TypeA, func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }); m.Rcode != dns.RcodeNotImplemented {
		t.Errorf("update: %s", text(m))
	}
}

// upstream is a name server outside. It answers everything as it is told to, and
// counts.
type upstream struct {
	at    netip.AddrPort
	asked atomic.Int32
}

func newUpstream(t testing.TB, answer func(dns.ResponseWriter, *dns.Msg)) *upstream {
	t.Helper()
	up := &upstream{}
	u, l := listenBoth(t)
	up.at = u.LocalAddr().(*net.UDPAddr).AddrPort()
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { up.asked.Add(1); answer(w, q) })
	for _, s := range []*dns.Server{{PacketConn: u, Handler: h}, {Listener: l, Handler: h}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	return up
}

// listenBoth opens one port for UDP and TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		u, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp4", u.LocalAddr().String())
		if err == nil {
			return u, l
		}
		u.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

func says(addr string, rcode int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, rcode)
		if addr != "" {
			rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A " + addr)
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	}
}

func silent(dns.ResponseWriter, *dns.Msg) {}

func TestForward(t *testing.T) {
	good := newUpstream(t, says("192.0.2.1", dns.RcodeSuccess))
	for name, first := range map[string]func(dns.ResponseWriter, *dns.Msg){
		"healthy": says("192.0.2.1", dns.RcodeSuccess), "silent": silent, "failing": says("", dns.RcodeServerFailure),
		"refusing": says("", dns.RcodeRefused),
		"forging": func(w dns.ResponseWriter, q *dns.Msg) { // another question's answer
			m := new(dns.Msg).SetReply(q)
			m.Question[0].Name = "evil.example."
			w.WriteMsg(m)
		},
		"malformed": func(w dns.ResponseWriter, _ *dns.Msg) { w.Write([]byte{1, 2, 3}) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: true, Upstreams: []netip.AddrPort{newUpstream(t, first).at, good.at}})
			for _, network := range []string{"udp", "tcp"} {
				if got := text(l.ask(t, network, "example.com.", dns.TypeA, nil)); got != "NOERROR 192.0.2.1" {
					t.Errorf("%s: %s", network, got)
				}
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		l := newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: true})
		if got := text(l.ask(t, "udp", "example.com.", dns.TypeA, nil)); got != "SERVFAIL" {
			t.Error(got)
		}
	})
	t.Run("large", func(t *testing.T) {
		big := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			for i := range 300 {
				rr, _ := dns.NewRR(fmt.Sprintf("%s 300 IN A 192.0.2.%d", q.Question[0].Name, i%256))
				m.Answer = append(m.Answer, rr)
			}
			if w.RemoteAddr().Network() == "udp" {
				m.Truncate(512)
			}
			w.WriteMsg(m)
		})
		l := newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: true, Upstreams: []netip.AddrPort{big.at}})
		if m := l.ask(t, "udp", "big.example.", dns.TypeA, nil); !m.Truncated {
			t.Error("a cut answer is passed on as a whole one")
		}
		if m := l.ask(t, "tcp", "big.example.", dns.TypeA, nil); len(m.Answer) != 300 {
			t.Errorf("over TCP: %d answers", len(m.Answer))
		}
	})
}

// TestNothingLeaks: what is asked outside, and what is not. Rows with a number
// are the advisories' own.
func TestNothingLeaks(t *testing.T) {
	for _, c := range []struct {
		id, name string
		qtype    uint16
		forward  bool // the client is not on internal networks only
		leaves   bool
	}{
		{"CVE-2024-29018", "exfiltrated.example.com.", dns.TypeA, false, false},
		{"CVE-2024-29018 by address", "1.2.0.192.in-addr.arpa.", dns.TypePTR, false, false},
		{"CVE-2025-8283", "gone.", dns.TypeA, true, false},
		{"the other family of a name", "db.", dns.TypeAAAA, true, false},
		{"another kind of a name", "web.", dns.TypeHTTPS, true, false},
		{"the other family of a long name", "db.app.", dns.TypeAAAA, true, false},
		{"an address of the network", "77.0.0.10.in-addr.arpa.", dns.TypePTR, true, false},
		{"a name outside", "example.com.", dns.TypeA, true, true},
		{"an address outside", "1.2.0.192.in-addr.arpa.", dns.TypePTR, true, true},
	} {
		t.Run(c.id, func(t *testing.T) {
			up := newUpstream(t, says("192.0.2.1", dns.RcodeSuccess))
			l := newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: c.forward, Upstreams: []netip.AddrPort{up.at}})
			l.ask(t, "udp", c.name, c.qtype, nil)
			l.ask(t, "tcp", c.name, c.qtype, nil)
			if n := up.asked.Load(); (n > 0) != c.leaves {
				t.Errorf("asked outside %d times", n)
			}
		})
	}
}

// TestCVE_2024_8418: clients that open TCP connections and say nothing, or
// half of something, keep nobody else from an answer.
func TestCVE_2024_8418(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	for i := range 20 {
		c, err := net.Dial("tcp", l.tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte{0, 200, 1, 2, 3}[:i%6])
	}
	for _, network := range []string{"udp", "tcp"} {
		if got := text(l.ask(t, network, "web.", dns.TypeA, nil)); got != "NOERROR 10.0.0.2" {
			t.Errorf("%s: %s", network, got)
		}
	}
}

// TestSlowUpstreamBlocksNobody: our own names are answered while many
// questions wait for a server that is silent.
func TestSlowUpstreamBlocksNobody(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: true, Upstreams: []netip.AddrPort{newUpstream(t, silent).at}})
	c, err := net.Dial("udp", l.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 150 { // as many as the socket has room for, on a slow machine
		b, _ := new(dns.Msg).SetQuestion(fmt.Sprintf("h%d.example.com.", i), dns.TypeA).Pack()
		c.Write(b)
	}
	if got := text(l.ask(t, "udp", "web.", dns.TypeA, nil)); got != "NOERROR 10.0.0.2" {
		t.Error(got)
	}
}

// TestCVE_2026_35406: whatever comes in is read once, and then the next.
func TestCVE_2026_35406(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	u, err := net.Dial("udp", l.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, p := range isledns.Malformed() {
		u.Write(p)
		c, err := net.Dial("tcp", l.tcp)
		if err != nil {
			t.Fatal(err)
		}
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...))
		c.Close()
	}
	for _, network := range []string{"udp", "tcp"} {
		if got := text(l.ask(t, network, "web.", dns.TypeA, nil)); got != "NOERROR 10.0.0.2" {
			t.Errorf("%s: %s", network, got)
		}
	}
}

// TestIdleMemory: a client that asks nothing costs little.
func TestIdleMemory(t *testing.T) {
	const clients, limit = 200, 40 << 10
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	use := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := use()
	for i := range clients {
		u, tl := listen(t)
		l.Attach(fmt.Sprint("idle", i), u, tl, isledns.Client{Zones: []string{"n1"}})
	}
	if each := (use() - before) / clients; each > limit {
		t.Errorf("%d bytes for each idle client, limit %d", each, limit)
	} else {
		t.Logf("%d bytes for each idle client", each)
	}
}

func TestDetachAndClose(t *testing.T) {
	l := newLab(t, isledns.Client{Zones: []string{"n1"}})
	c, err := net.Dial("tcp", l.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.Detach("c1")
	if l.SetClient("c1", isledns.Client{}) {
		t.Error("a detached client is known")
	}
	if _, err := net.Dial("tcp", l.tcp); err == nil {
		t.Error("a detached listener accepts")
	}
	l.Close()
	u, tl := listen(t)
	l.Attach("late", u, tl, isledns.Client{}) // must not leak
	if _, err := tl.Accept(); err == nil {
		t.Error("attached after the end")
	}
}
