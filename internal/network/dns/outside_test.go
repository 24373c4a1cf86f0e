package dns_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	isledns "isle/internal/network/dns"
)

type handler = func(dns.ResponseWriter, *dns.Msg)

// outsideLab has a client that may ask these servers.
func outsideLab(t *testing.T, ups ...netip.AddrPort) *lab {
	t.Helper()
	return newLab(t, isledns.Client{Zones: []string{"n1"}, Forward: true, Upstreams: ups})
}

// deadServer is a port that nobody listens on, or one that takes everything and
// says nothing.
func deadServer(t testing.TB, refuses bool) netip.AddrPort {
	t.Helper()
	u, l := listenBoth(t)
	l.Close()
	if refuses {
		u.Close()
	} else {
		t.Cleanup(func() { u.Close() })
	}
	return u.LocalAddr().(*net.UDPAddr).AddrPort()
}

func overTCP(w dns.ResponseWriter) bool { return w.RemoteAddr().Network() == "tcp" }

// TestUpstreamsThatMisbehave: one good server is enough, whatever the first
// one does; and alone, the first one is enough if it can be dealt with.
func TestUpstreamsThatMisbehave(t *testing.T) {
	yes := says("192.0.2.1", dns.RcodeSuccess)
	change := func(fn func(m *dns.Msg)) handler {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A 203.0.113.66")
			m.Answer = append(m.Answer, rr)
			fn(m)
			w.WriteMsg(m)
		}
	}
	for what, c := range map[string]struct {
		first handler
		alone bool // it needs no other server
	}{
		"says who is wrong":           {change(func(m *dns.Msg) { m.Question[0].Name = "evil.example." }), false},
		"answers another type":        {change(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }), false},
		"guesses the id":              {change(func(m *dns.Msg) { m.Id++ }), false},
		"asks back":                   {change(func(m *dns.Msg) { m.Response = false }), false},
		"has no question":             {change(func(m *dns.Msg) { m.Question = nil }), false},
		"has a name that folds to it": {change(func(m *dns.Msg) { m.Question[0].Name = strings.Replace(m.Question[0].Name, `\255`, `\254`, 1) }), false},
		"knows nothing":               {change(func(m *dns.Msg) { m.Answer = nil }), false},
		"not implemented":             {change(func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeNotImplemented, nil }), false},
		"answers only by TCP": {func(w dns.ResponseWriter, q *dns.Msg) {
			if overTCP(w) {
				yes(w, q)
			}
		}, true},
		"forges before it speaks": {func(w dns.ResponseWriter, q *dns.Msg) { change(func(m *dns.Msg) { m.Id++ })(w, q); yes(w, q) }, true},
		"truncates": {func(w dns.ResponseWriter, q *dns.Msg) {
			if overTCP(w) {
				yes(w, q)
			} else {
				change(func(m *dns.Msg) { m.Truncated, m.Answer = true, nil })(w, q)
			}
		}, true},
		"floods": {func(w dns.ResponseWriter, q *dns.Msg) {
			if overTCP(w) {
				yes(w, q)
				return
			}
			for range 20 {
				change(func(m *dns.Msg) { m.Id++ })(w, q)
			}
		}, true},
		"does not know EDNS": {func(w dns.ResponseWriter, q *dns.Msg) {
			if q.IsEdns0() != nil {
				says("", dns.RcodeFormatError)(w, q)
			} else {
				yes(w, q)
			}
		}, true},
		"has other versions of it": {func(w dns.ResponseWriter, q *dns.Msg) {
			if q.IsEdns0() == nil {
				yes(w, q)
				return
			}
			m := new(dns.Msg).SetReply(q)
			m.SetEdns0(1232, false)
			m.Rcode = dns.RcodeBadVers
			w.WriteMsg(m)
		}, true},
		"has its own case": {func(w dns.ResponseWriter, q *dns.Msg) {
			q.Question[0].Name = strings.ToUpper(q.Question[0].Name)
			yes(w, q)
		}, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ups := []netip.AddrPort{newUpstream(t, c.first).at}
			if !c.alone {
				ups = append(ups, newUpstream(t, yes).at)
			}
			l := outsideLab(t, ups...)
			for i, network := range []string{"udp", "tcp"} {
				if got := text(l.ask(t, network, fmt.Sprintf(`h%d.\255.example.com.`, i), dns.TypeA, nil)); got != "NOERROR 192.0.2.1" {
					t.Errorf("%s: %s", network, got)
				}
			}
		})
	}
}

// TestFailuresAreOurs: whatever way a server fails, the client is told that
// there is no answer now; most programs do not ask again after other codes.
func TestFailuresAreOurs(t *testing.T) {
	for what, bad := range map[string]handler{
		"refused": says("", dns.RcodeRefused), "malformed": says("", dns.RcodeFormatError),
		"not implemented": says("", dns.RcodeNotImplemented), "nothing, without recursion": says("", dns.RcodeSuccess),
	} {
		l := outsideLab(t, newUpstream(t, bad).at)
		if got := text(l.ask(t, "udp", "example.com.", dns.TypeA, nil)); got != "SERVFAIL" {
			t.Errorf("%s: %s", what, got)
		}
	}
}

// TestServerComesBack: a server that was dead is noticed when it is not.
func TestServerComesBack(t *testing.T) {
	var dead atomic.Bool
	dead.Store(true)
	only := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if dead.Load() {
			says("", dns.RcodeServerFailure)(w, q)
		} else {
			says("192.0.2.1", dns.RcodeSuccess)(w, q)
		}
	})
	l := outsideLab(t, only.at)
	if got := text(l.ask(t, "udp", "example.com.", dns.TypeA, nil)); got != "SERVFAIL" {
		t.Error(got)
	}
	dead.Store(false)
	if got := text(l.ask(t, "udp", "example.com.", dns.TypeA, nil)); got != "NOERROR 192.0.2.1" {
		t.Error("a failure is kept:", got)
	}
}

// TestCache: what is kept and what is asked again.
func TestCache(t *testing.T) {
	up := newUpstream(t, says("192.0.2.1", dns.RcodeSuccess))
	l := outsideLab(t, up.at)
	for i, c := range []struct {
		name   string
		qtype  uint16
		change func(*dns.Msg)
		asks   bool
	}{
		{"example.com.", dns.TypeA, nil, true},
		{"example.com.", dns.TypeA, nil, false},
		{"EXAMPLE.com.", dns.TypeA, nil, false},
		{"example.com.", dns.TypeA, func(q *dns.Msg) { q.SetEdns0(1232, false) }, false},
		{"example.com.", dns.TypeA, func(q *dns.Msg) { q.SetEdns0(1232, true) }, true},
		{"example.com.", dns.TypeA, func(q *dns.Msg) { q.CheckingDisabled = true }, true},
		{"example.com.", dns.TypeMX, nil, true},
		{"example.com.", dns.TypeA, func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassANY }, true},
	} {
		before := up.asked.Load()
		m := l.ask(t, []string{"udp", "tcp"}[i%2], c.name, c.qtype, c.change)
		if asked := up.asked.Load() > before; asked != c.asks || m.Rcode != dns.RcodeSuccess || m.Question[0].Name != c.name {
			t.Errorf("%d: asked outside %t, want %t: %v", i, asked, c.asks, m)
		}
	}
	if s := l.Stats(); s.CacheHits != 3 || s.Cached != 5 || s.Forwarded != 5 {
		t.Errorf("%+v", s)
	}
}

// TestNamesOfContainersWin: over what is kept of the same name.
func TestNamesOfContainersWin(t *testing.T) {
	l := outsideLab(t, newUpstream(t, says("192.0.2.1", dns.RcodeSuccess)).at)
	api := isledns.Host{Zone: "n1", Owner: "e9", Names: []string{"api.example.com"}, Addrs: []netip.Addr{ip("10.0.0.9")}}
	for _, want := range []string{"NOERROR 192.0.2.1", "NOERROR 10.0.0.9", "NOERROR 192.0.2.1"} {
		if got := text(l.ask(t, "udp", "api.example.com.", dns.TypeA, nil)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		l.Change(nil, []isledns.Host{api})
		if want == "NOERROR 10.0.0.9" {
			l.Change([]isledns.Host{api}, nil)
		}
	}
}

// TestOtherServersOtherAnswers: what one set of servers said is not told to
// the clients of another.
func TestOtherServersOtherAnswers(t *testing.T) {
	one, two := newUpstream(t, says("192.0.2.1", dns.RcodeSuccess)), newUpstream(t, says("192.0.2.2", dns.RcodeSuccess))
	l := outsideLab(t, one.at)
	expect := func(what, want string) {
		t.Helper()
		if got := text(l.ask(t, "udp", "example.com.", dns.TypeA, nil)); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("the first", "NOERROR 192.0.2.1")
	l.SetClient("c1", isledns.Client{Forward: true, Upstreams: []netip.AddrPort{two.at}})
	expect("another", "NOERROR 192.0.2.2")
	l.SetClient("c1", isledns.Client{Forward: true, Upstreams: []netip.AddrPort{one.at}})
	expect("the first again", "NOERROR 192.0.2.1")
	if n := one.asked.Load(); n != 1 {
		t.Errorf("the first was asked %d times", n)
	}
}

// TestEqualQuestionsGoOutOnce: many clients ask the same at once.
func TestEqualQuestionsGoOutOnce(t *testing.T) {
	hold := make(chan struct{})
	up := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) { <-hold; says("192.0.2.1", dns.RcodeSuccess)(w, q) })
	l := outsideLab(t, up.at)
	var wg sync.WaitGroup
	const clients = 50
	for i := range clients {
		wg.Go(func() {
			if got := text(l.ask(t, []string{"udp", "tcp"}[i%2], "example.com.", dns.TypeA, nil)); got != "NOERROR 192.0.2.1" {
				t.Error(got)
			}
		})
	}
	for l.Stats().Joined < clients-1 {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wg.Wait()
	if s := l.Stats(); s.Forwarded != 1 {
		t.Errorf("%d questions outside", s.Forwarded)
	}
}

// TestOptionsStayInside: what a client says of itself is not passed on, and
// what a server says of itself neither.
func TestOptionsStayInside(t *testing.T) {
	var leaked atomic.Int32
	up := newUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		o := q.IsEdns0()
		if o == nil || len(o.Option) > 0 || o.UDPSize() != 1232 || !o.Do() || len(q.Question) != 1 {
			leaked.Add(1)
		}
		m := new(dns.Msg).SetReply(q)
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Nsid: "aa"}}
		w.WriteMsg(m)
	})
	l := outsideLab(t, up.at)
	m := l.ask(t, "udp", "example.com.", dns.TypeA, func(q *dns.Msg) {
		q.SetEdns0(1400, true)
		q.IsEdns0().Option = []dns.EDNS0{
			&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"},
			&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(10, 0, 0, 0)},
		}
	})
	if leaked.Load() != 0 {
		t.Error("the server outside has got options")
	}
	if o := m.IsEdns0(); o == nil || len(o.Option) > 0 || o.UDPSize() != 512 || !o.Do() {
		t.Error(m)
	}
	if m := l.ask(t, "udp", "example.com.", dns.TypeA, nil); m.IsEdns0() != nil {
		t.Error("a client without EDNS:", m)
	}
}

// TestReservedNames: names that no server outside should ever hear of.
func TestReservedNames(t *testing.T) {
	up := newUpstream(t, says("203.0.113.66", dns.RcodeSuccess))
	l := outsideLab(t, up.at)
	l.Change(nil, []isledns.Host{{Zone: "n1", Owner: "evil", Names: []string{"localhost"}, Addrs: []netip.Addr{ip("10.0.0.66")}}})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"localhost.", dns.TypeA, "NOERROR 127.0.0.1"},
		{"LocalHost.", dns.TypeAAAA, "NOERROR ::1"},
		{"a.localhost.", dns.TypeA, "NOERROR 127.0.0.1"},
		{"localhost.", dns.TypeMX, "NOERROR"},
		{"1.0.0.127.in-addr.arpa.", dns.TypePTR, "NOERROR localhost."},
		{"x.invalid.", dns.TypeA, "NXDOMAIN"},
		{"x.onion.", dns.TypeA, "NXDOMAIN"},
		{"_dns.resolver.arpa.", dns.TypeSVCB, "NXDOMAIN"},
		{"printer.local.", dns.TypeA, "NXDOMAIN"},
		{"7.1.0.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"}, // of a network that the client is not on
		{"example.com.", dns.TypeAXFR, "REFUSED"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := text(l.ask(t, network, c.name, c.qtype, nil)); got != c.want {
				t.Errorf("%s %s: %s, want %s", network, c.name, got, c.want)
			}
		}
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("asked outside %d times", n)
	}
	if got := text(l.ask(t, "udp", ".", dns.TypeNS, nil)); got != "NOERROR 203.0.113.66" {
		t.Error("the root, which is nobody's name:", got)
	}
}

// TestLocalOfACompany: a host that searches a domain below .local has servers
// that know it.
func TestLocalOfACompany(t *testing.T) {
	up := newUpstream(t, says("192.0.2.1", dns.RcodeSuccess))
	host := &isledns.HostConfig{Path: filepath.Join(t.TempDir(), "resolv.conf")}
	if err := os.WriteFile(host.Path, []byte("search example.org Corp.local.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := labOf(t, &isledns.Server{Log: slog.New(slog.DiscardHandler), Host: host}, isledns.Client{Forward: true, Upstreams: []netip.AddrPort{up.at}})
	for name, want := range map[string]string{"dc1.corp.local.": "NOERROR 192.0.2.1", "printer.local.": "NXDOMAIN"} {
		if got := text(l.ask(t, "udp", name, dns.TypeA, nil)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
