package dhcp

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v6 "github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"
)

// TestRefusedAdverts: frames that are not advertisements of a router on the link.
func TestRefusedAdverts(t *testing.T) {
	t.Parallel()
	good := plain().frame()
	if _, ok := readAdvert(frame{data: good}); !ok {
		t.Fatal("a good one is not read")
	}
	for name, f := range map[string]func() []byte{
		"passed on by a router":  func() []byte { b := bytes.Clone(good); b[21] = 254; return b },
		"a bad checksum":         func() []byte { b := bytes.Clone(good); b[56]++; return b },
		"not from the link":      func() []byte { r := plain(); r.from = give6; return r.frame() },
		"cut short":              func() []byte { return good[:len(good)-1] },
		"an option of no length": func() []byte { return plain().raw(1, 0, 0, 0, 0, 0, 0, 0).frame() },
		"an option that runs on": func() []byte { return plain().raw(1, 9, 0, 0, 0, 0, 0, 0).frame() },
		"half an option":         func() []byte { return plain().raw(1, 1).frame() },
		"too short":              func() []byte { return icmp6(serverMAC, routerIP, allNodes, routerAdvertisement, make([]byte, 4)) },
		"a solicitation":         func() []byte { return solicitRouters(serverMAC, routerIP) },
		"nothing":                func() []byte { return nil },
	} {
		if a, ok := readAdvert(frame{data: f()}); ok {
			t.Errorf("%s: %v", name, a)
		}
	}
}

// TestAdvertsLie: what is not believed of an advertisement.
func TestAdvertsLie(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		r    ra
		want string // addresses, routes, DNS, MTU
	}{
		"prefix of the link":        {ra{}.prefix("fe80::/64", onLinkAuto, day, day), "[]  [] 0"},
		"prefix of a group":         {ra{}.prefix("ff02::/64", onLinkAuto, day, day), "[]  [] 0"},
		"prefix of everything":      {ra{}.prefix("::/0", onLinkAuto, day, day), "[]  [] 0"},
		"not of 64 bits":            {ra{}.prefix("2001:db8::/48", onLinkAuto, day, day), "[] 2001:db8::/48 [] 0"},
		"preferred longer":          {ra{}.prefix("2001:db8::/64", onLinkAuto, time.Hour, day), "[]  [] 0"},
		"not on the link":           {ra{}.prefix("2001:db8::/64", 0x40, day, day), "[slaac 2001:db8::ff:fe00:7/128]  [] 0"},
		"only on the link":          {ra{}.prefix("2001:db8::/64", 0x80, day, day), "[] 2001:db8::/64 [] 0"},
		"no life":                   {ra{}.prefix("2001:db8::/64", onLinkAuto, 0, 0), "[]  [] 0"},
		"for ever":                  {ra{}.prefix("2001:db8::/64", onLinkAuto, endless, endless), "[slaac 2001:db8::ff:fe00:7/64] 2001:db8::/64 [] 0"},
		"servers that are none":     {ra{}.server(time.Hour, "::1", "ff02::1", "::ffff:192.0.2.1", "2001:db8::1"), "[]  [2001:db8::1] 0"},
		"MTU":                       {ra{}.raw(ndMTU, 1, 0, 0, 0, 0, 5, 220), "[]  [] 1500"},
		"MTU 0":                     {ra{}.raw(ndMTU, 1, 0, 0, 0, 0, 0, 0), "[]  [] 0"},
		"MTU of gigabytes":          {ra{}.raw(ndMTU, 1, 0, 0, 255, 255, 255, 255), "[]  [] 0"},
		"a reserved preference":     {ra{flags: 0x10, lifetime: 9}, "[] ::/0 by fe80::1 [] 0"},
		"a domain list of pointers": {ra{}.raw(ndSearch, 2, 0, 0, 0, 0, 1, 0, 0xc0, 0, 0xc0, 0, 0xc0, 0, 0xc0, 0), "[]  [] 0"},
	} {
		a, ok := readAdvert(frame{data: c.r.frame()})
		if !ok {
			t.Errorf("%s: not read", name)
			continue
		}
		var rs routers
		var l Lease
		rs.take(a, time.Now())
		rs.fill(&l, testConfig(), time.Now())
		if got := fmt.Sprintf("%s %s %v %d", showAddrs(l), routesOf(l), l.DNS, l.MTU); got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, c.want)
		}
	}
}

// TestSearchOfRouters: domains by RDNSS's sister.
func TestSearchOfRouters(t *testing.T) {
	t.Parallel()
	r := ra{}.raw(ndSearch, 3, 0, 0, 0, 0, 1, 0, 4, 'c', 'o', 'r', 'p', 3, 'l', 'a', 'b', 0, 0, 0, 0, 0, 0, 0)
	a, ok := readAdvert(frame{data: r.frame()})
	if !ok || len(a.search) != 1 || a.search[0].v != "corp.lab" {
		t.Errorf("%v, %v", a.search, ok)
	}
}

// TestShortenedLives: nobody can end the life of an address at once (RFC 4862).
func TestShortenedLives(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct{ before, said, want time.Duration }{
		"longer":             {time.Hour, 5 * time.Hour, 5 * time.Hour},
		"shorter, but long":  {9 * time.Hour, 5 * time.Hour, 5 * time.Hour},
		"too short":          {9 * time.Hour, time.Minute, twoHours},
		"short and shorter":  {time.Hour, time.Minute, time.Hour},
		"of ever, too short": {endless, time.Minute, twoHours},
		"of ever":            {endless, endless, endless},
	} {
		var rs routers
		rs.prefix(prefix{Prefix: mustPrefix("2001:db8::/64"), valid: c.before, preferred: c.before}, now)
		rs.prefix(prefix{Prefix: mustPrefix("2001:db8::/64"), valid: c.said, preferred: c.said}, now)
		if got := rs.prefixes[0].end; !got.Equal(ending(now, c.want)) {
			t.Errorf("%s: %s", name, got.Sub(now))
		}
	}
}

// TestRefusedAnswers6: answers of DHCPv6 that are not taken; the client asks on,
// and takes the good one after them.
func TestRefusedAnswers6(t *testing.T) {
	ofIA := func(f func(*v6.OptIANA)) func(*v6.Message) { return func(m *v6.Message) { f(m.Options.OneIANA()) } }
	ofAddr := func(f func(*v6.OptIAAddress)) func(*v6.Message) {
		return ofIA(func(ia *v6.OptIANA) { f(ia.Options.OneAddress()) })
	}
	for name, change := range map[string]func(*v6.Message){
		"another's id":       func(m *v6.Message) { m.TransactionID[0]++ },
		"another client's":   func(m *v6.Message) { m.UpdateOption(generic(v6.OptionClientID, []byte{0, 3, 0, 1, 9})) },
		"nobody's":           func(m *v6.Message) { m.Options.Del(v6.OptionClientID) },
		"of no server":       func(m *v6.Message) { m.Options.Del(v6.OptionServerID) },
		"another IA":         ofIA(func(ia *v6.OptIANA) { ia.IaId[0]++ }),
		"no IA":              func(m *v6.Message) { m.Options.Del(v6.OptionIANA) },
		"no address":         ofIA(func(ia *v6.OptIANA) { ia.Options.Del(v6.OptionIAAddr) }),
		"T1 after T2":        ofIA(func(ia *v6.OptIANA) { ia.T1, ia.T2 = time.Hour, time.Minute }),
		"a group":            ofAddr(func(a *v6.OptIAAddress) { a.IPv6Addr = ip(allNodes) }),
		"of the link":        ofAddr(func(a *v6.OptIAAddress) { a.IPv6Addr = ip(routerIP) }),
		"IPv4":               ofAddr(func(a *v6.OptIAAddress) { a.IPv6Addr = ip(netip.MustParseAddr("::ffff:192.0.2.1")) }),
		"of no life":         ofAddr(func(a *v6.OptIAAddress) { a.ValidLifetime, a.PreferredLifetime = 0, 0 }),
		"preferred for long": ofAddr(func(a *v6.OptIAAddress) { a.PreferredLifetime = 3 * time.Hour }),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer6()
				s.change = change
				_, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 1800}), s.answer)
				cfg.Limit = 4 * time.Second
				if c, _, err := Acquire6(t.Context(), cfg); err == nil {
					c.Close()
					t.Error("taken")
				}
				time.AfterFunc(2*time.Second, func() { s.with(func(s *serverV6) { s.change = nil }) })
				cfg.Limit = 20 * time.Second
				_, l := acquired6(t, cfg)
				expect(t, "address", showAddrs(l), "[dhcp6 2001:db8::7/128]")
			})
		})
	}
}

// TestMalformedOthers6: what is malformed and not needed does not spoil an answer.
func TestMalformedOthers6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		s.change = func(m *v6.Message) {
			m.UpdateOption(generic(v6.OptionDomainSearchList, []byte{3, 'l', 'a', 'b', 0xc0, 4}))
			m.UpdateOption(generic(v6.OptionNTPServer, []byte{0, 1, 0, 99}))
			m.UpdateOption(generic(v6.OptionDNSRecursiveNameServer, slices.Concat(ip(netip.IPv6Loopback()), ip(give6), []byte{1})))
		}
		_, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 1800}), s.answer)
		_, l := acquired6(t, cfg)
		expect(t, "DNS", l.DNS, []netip.Addr{give6})
		expect(t, "ignored", l.Ignored, []string{
			"name server ::1", "time servers: malformed", "domain search list: rfc1035label: cannot handle nested pointers",
		})
	})
}

// TestOptionsSent6: who asks, and what for.
func TestOptionsSent6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		_, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 1800}), s.answer)
		cfg.UserClass = "lab"
		acquired6(t, cfg)
		m := s.last
		expect(t, "DUID", m.Options.ClientID().ToBytes(), []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 7})
		expect(t, "IAID", m.Options.OneIANA().IaId, cfg.iaid())
		expect(t, "user class", m.Options.UserClasses(), [][]byte{[]byte("lab")})
		expect(t, "name", m.GetOneOption(v6.OptionFQDN).ToBytes(), []byte("\x01\x03web"))
		for _, o := range asked6 {
			if !m.IsOptionRequested(o) {
				t.Errorf("%s is not asked for", o)
			}
		}
		cfg.DUID, cfg.FQDN = append([]byte{0, 4}, "0123456789abcdef"...), "web.corp.example"
		acquired6(t, cfg)
		expect(t, "given DUID", s.last.Options.ClientID().ToBytes(), cfg.DUID)
		expect(t, "full name", s.last.GetOneOption(v6.OptionFQDN).ToBytes(), []byte("\x01\x03web\x04corp\x07example\x00"))
	})
}

// FuzzAnswer6: whatever comes, what is made of it can be used.
func FuzzAnswer6(f *testing.F) {
	s := newServer6()
	cfg := testConfig()
	m := newMessage6(v6.MessageTypeSolicit)
	m.id, m.ia = v6.TransactionID{}, true
	f.Add(s.answer(udp6(ourMAC, linkLocal(ourMAC), m.bytes(cfg)))[0])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.Unix(1e9, 0).UTC()
		r, ok := cfg.read6(message6{}, frame{data: b, partial: true})
		if !ok {
			return
		}
		if g, err := r.grant(cfg.iaid(), now); err == nil {
			l := Lease{Obtained: now}
			g.fill(&l, now)
			l.Expire = g.end
			sane(t, l)
		}
	})
}

// FuzzAdvert: the same for routers.
func FuzzAdvert(f *testing.F) {
	f.Add(plain().raw(ndSearch, 2, 0, 0, 0, 0, 1, 0, 3, 'l', 'a', 'b', 0, 0, 0, 0).frame(), uint16(0))
	f.Add(plain().raw(ndMTU, 1, 0, 0, 0, 0, 5, 220).frame(), uint16(60))
	cfg := testConfig()
	f.Fuzz(func(t *testing.T, b []byte, later uint16) {
		a, ok := readAdvert(frame{data: b, partial: true})
		if !ok {
			return
		}
		now := time.Unix(1e9, 0).UTC()
		var rs routers
		rs.take(a, now)
		rs.take(a, now.Add(time.Duration(later)*time.Second))
		l := Lease{Obtained: now}
		rs.fill(&l, cfg, now)
		sane(t, l)
	})
}

// TestFrames6: what is not a packet for us.
func TestFrames6(t *testing.T) {
	t.Parallel()
	good := frame6(serverMAC, ourMAC, serverIP6, linkLocal(ourMAC), unix.IPPROTO_UDP, udp(serverIP6, linkLocal(ourMAC), server6, client6, []byte("hello")))
	if d, ok := readUDP6(frame{data: good}); !ok || string(d.payload) != "hello" {
		t.Fatalf("%q, %v", d.payload, ok)
	}
	for i, v := range map[int]byte{12: 0x08, 14: 0x40, 18: 0xff, 20: 0, 57: 0, 58: 0xff, 59: 1, 61: 9, 62: 'x'} {
		bad := bytes.Clone(good)
		bad[i] = v
		if d, ok := readUDP6(frame{data: bad}); ok {
			t.Errorf("byte %d: %q", i, d.payload)
		}
	}
}
