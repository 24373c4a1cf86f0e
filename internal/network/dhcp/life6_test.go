package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	v6 "github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

const onLinkAuto = 0xc0

// acquired6 is acquired for IPv6.
func acquired6(t *testing.T, cfg Config) (*Client, Lease) {
	t.Helper()
	c, l, err := Acquire6(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, l
}

// plain is a router whose prefix is for everybody's own addresses.
func plain() *ra {
	r := ra{lifetime: 1800}.prefix("2001:db8:1::/64", onLinkAuto, 24*time.Hour, 12*time.Hour).server(time.Hour, "2001:db8::1", "fe80::1")
	return &r
}

// TestSLAAC: addresses of prefixes, with what else routers say.
func TestSLAAC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, _, cfg := newLAN(routerOf(plain()))
		_, l := acquired6(t, cfg)
		expect(t, "heard", lan.log(), []string{"RS"})
		expect(t, "address", showAddrs(l), "[slaac 2001:db8:1::ff:fe00:7/64]")
		expect(t, "routes", routesOf(l), "2001:db8:1::/64, ::/0 by fe80::1")
		expect(t, "DNS", fmt.Sprint(l.DNS), "[2001:db8::1 fe80::1]")
		expect(t, "ends", fmt.Sprint(l.Expire.Sub(l.Obtained), l.Addresses[0].Preferred.Sub(l.Obtained)), "24h0m0s 12h0m0s")
	})
}

// TestSharedMACv6: endpoints with one MAC make different addresses, each always
// the same.
func TestSharedMACv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, cfg := newLAN(routerOf(plain()))
		cfg.SharedMAC = true
		_, l1 := acquired6(t, cfg)
		_, l2 := acquired6(t, cfg)
		cfg.Endpoint = "another"
		_, l3 := acquired6(t, cfg)
		if l1.Address() != l2.Address() || l1.Address() == l3.Address() || !mustPrefix("2001:db8:1::/64").Contains(l3.Address().Addr()) {
			t.Errorf("%s, %s, %s", l1.Address(), l2.Address(), l3.Address())
		}
	})
}

// TestAdvertisementsChange: what routers add, change and end is reported.
func TestAdvertisementsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(routerOf(plain()))
		c, _ := acquired6(t, cfg)
		now := func() string { l, _ := c.Lease(); return showAddrs(l) + " " + routesOf(l) + " " + fmt.Sprint(l.DNS) }
		hear := func(r ra) []Kind {
			time.Sleep(2 * calm)
			lan.say(r.frame())
			until(time.Now().Add(2 * calm))
			return kinds(cs.take())
		}
		expect(t, "the same again", hear(*plain()), []Kind(nil))
		expect(t, "another prefix", hear(ra{lifetime: 1800}.prefix("2001:db8:2::/64", onLinkAuto, 24*time.Hour, time.Hour)), []Kind{Altered})
		expect(t, "then", now(), "[slaac 2001:db8:1::ff:fe00:7/64 slaac 2001:db8:2::ff:fe00:7/64] 2001:db8:1::/64, 2001:db8:2::/64, ::/0 by fe80::1 [2001:db8::1 fe80::1]")
		expect(t, "a name server ends", hear(ra{lifetime: 1800}.server(0, "fe80::1")), []Kind{Altered})
		expect(t, "a better router", hear(ra{from: netip.MustParseAddr("fe80::2"), flags: 0x08, lifetime: 1800}), []Kind{Altered})
		expect(t, "then", now(), "[slaac 2001:db8:1::ff:fe00:7/64 slaac 2001:db8:2::ff:fe00:7/64] 2001:db8:1::/64, 2001:db8:2::/64, ::/0 by fe80::2 [2001:db8::1]")
		expect(t, "it resigns", hear(ra{from: netip.MustParseAddr("fe80::2")}), []Kind{Altered})
		expect(t, "a prefix is taken back at once", hear(ra{lifetime: 1800}.prefix("2001:db8:2::/64", onLinkAuto, 0, 0)), []Kind(nil))
		until(time.Now().Add(twoHours))
		cs.take()
		expect(t, "two hours later", now(), "[slaac 2001:db8:1::ff:fe00:7/64] 2001:db8:1::/64 []")
		lan.leave()
		until(time.Now().Add(23 * time.Hour))
		expect(t, "in the end", kinds(cs.take()), []Kind{Lost})
	})
}

// TestFloodOfAdvertisements: changes that routers make come at intervals.
func TestFloodOfAdvertisements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(routerOf(plain()))
		c, _ := acquired6(t, cfg)
		for i := range 10_000 {
			lan.say(ra{lifetime: 1800}.prefix(fmt.Sprintf("2001:db8:%x::/64", i), onLinkAuto, 24*time.Hour, time.Hour).server(time.Hour, fmt.Sprintf("2001:db8::%x", i)).frame())
			time.Sleep(time.Millisecond)
		}
		until(time.Now().Add(2 * calm))
		if n := len(cs.take()); n > 12 {
			t.Errorf("%d changes in 10 s", n)
		}
		if l, _ := c.Lease(); len(l.Addresses) > mostPrefixes || len(l.DNS) > mostAddrs {
			t.Errorf("%d addresses, %d name servers", len(l.Addresses), len(l.DNS))
		}
	})
}

// TestDHCPv6: the life of an address: got, prolonged at T1 by its server and at
// T2 by any, and lost.
func TestDHCPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		r := ra{flags: managed, lifetime: 9000}.prefix("2001:db8::/64", 0x80, 24*time.Hour, 24*time.Hour)
		lan, cs, cfg := newLAN(routerOf(&r), s.answer)
		c, l := acquired6(t, cfg)
		expect(t, "heard", lan.log(), []string{"RS", "SOLICIT", "REQUEST for 2001:db8::7", "NS for 2001:db8::7", "NS for 2001:db8::7", "NS for 2001:db8::7"})
		expect(t, "address", showAddrs(l), "[dhcp6 2001:db8::7/128]")
		expect(t, "routes", routesOf(l), "2001:db8::/64, ::/0 by fe80::1")
		expect(t, "names", fmt.Sprint(l.DNS, l.Search), "[2001:db8::53] [corp.example]")
		expect(t, "times", fmt.Sprint(l.Renew.Sub(l.Obtained).Round(time.Minute), l.Rebind.Sub(l.Obtained).Round(time.Minute)), "30m0s 48m0s")
		until(l.Renew.Add(time.Second))
		expect(t, "at T1", lan.log(), []string{"RENEW for 2001:db8::7"})
		expect(t, "changes", kinds(cs.take()), []Kind{Renewed})
		l, _ = c.Lease()
		s.with(func(s *serverV6) { s.silent[v6.MessageTypeRenew] = true })
		until(l.Rebind.Add(-time.Second))
		if h := lan.log(); len(h) < 3 || h[0] != "RENEW for 2001:db8::7" || slices.Contains(h, "REBIND for 2001:db8::7") {
			t.Errorf("between T1 and T2: %q", h)
		}
		until(l.Rebind.Add(time.Second))
		expect(t, "at T2", lan.log(), []string{"REBIND for 2001:db8::7"})
		expect(t, "changes", kinds(cs.take()), []Kind{Renewed})
		l, _ = c.Lease()
		s.with(func(s *serverV6) {
			for k := range v6.MessageType(13) {
				s.silent[k] = true
			}
		})
		until(l.Expire.Add(-time.Second))
		expect(t, "changes before the end", cs.take(), []Change(nil))
		until(l.Expire.Add(time.Second))
		expect(t, "changes at the end", kinds(cs.take()), []Kind{Lost})
		s.with(func(s *serverV6) { clear(s.silent) })
		until(time.Now().Add(5 * time.Minute))
		expect(t, "when the server is back", kinds(cs.take()), []Kind{Acquired})
	})
}

// TestRapidCommit: two messages are enough when the server agrees.
func TestRapidCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		s.rapid = true
		lan, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 1800}), s.answer)
		_, l := acquired6(t, cfg)
		expect(t, "heard", lan.log()[:3], []string{"RS", "SOLICIT", "NS for 2001:db8::7"})
		expect(t, "address", showAddrs(l), "[dhcp6 2001:db8::7/128]")
	})
}

// TestPreference: of several servers the one that wants it most is taken.
func TestPreference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		low, high := newServer6(), newServer6()
		high.duid, high.give = []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 2}, give6.Next()
		high.change = func(m *v6.Message) { m.AddOption(v6.OptPreference(7)) }
		_, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 1800}), low.answer, high.answer)
		_, l := acquired6(t, cfg)
		expect(t, "address", showAddrs(l), "[dhcp6 2001:db8::8/128]")
		expect(t, "server", l.ServerDUID, high.duid)
	})
}

// TestNoRouter: DHCPv6 is tried without the word of a router.
func TestNoRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, _, cfg := newLAN(newServer6().answer)
		_, l := acquired6(t, cfg)
		expect(t, "heard", lan.log()[:4], []string{"RS", "RS", "SOLICIT", "REQUEST for 2001:db8::7"})
		expect(t, "routes", routesOf(l), "")
	})
}

// TestBoth: addresses of a prefix and of DHCPv6; one kind is enough, and the other
// is asked for on.
func TestBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		s.silent[v6.MessageTypeSolicit] = true
		r := ra{flags: managed, lifetime: 9000}.prefix("2001:db8::/64", onLinkAuto, 24*time.Hour, 24*time.Hour)
		_, cs, cfg := newLAN(routerOf(&r), s.answer)
		_, l := acquired6(t, cfg)
		expect(t, "address", showAddrs(l), "[slaac 2001:db8::ff:fe00:7/64]")
		s.with(func(s *serverV6) { clear(s.silent) })
		until(time.Now().Add(5 * time.Minute))
		got := cs.take()
		expect(t, "changes", kinds(got), []Kind{Altered})
		expect(t, "addresses", showAddrs(got[0].Lease), "[dhcp6 2001:db8::7/128 slaac 2001:db8::ff:fe00:7/64]")
		s.with(func(s *serverV6) {
			s.status[v6.MessageTypeRenew], s.status[v6.MessageTypeRequest] = iana.StatusNoBinding, iana.StatusNoAddrsAvail
		})
		until(got[0].Lease.Renew.Add(time.Minute))
		got = cs.take()
		expect(t, "changes", kinds(got), []Kind{Altered})
		expect(t, "addresses", showAddrs(got[0].Lease), "[slaac 2001:db8::ff:fe00:7/64]")
	})
}

// TestNoBinding: a server that forgot an address gives it again.
func TestNoBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		lan, cs, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 9000}), s.answer)
		_, l := acquired6(t, cfg)
		lan.log()
		s.with(func(s *serverV6) { s.status[v6.MessageTypeRenew] = iana.StatusNoBinding })
		until(l.Renew.Add(time.Second))
		expect(t, "heard", lan.log(), []string{"RENEW for 2001:db8::7", "REQUEST for 2001:db8::7"})
		expect(t, "changes", kinds(cs.take()), []Kind{Renewed})
	})
}

// TestInformation: names by DHCPv6, addresses by prefixes.
func TestInformation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := ra{flags: other, lifetime: 9000}.prefix("2001:db8::/64", onLinkAuto, 240*time.Hour, 240*time.Hour)
		lan, _, cfg := newLAN(routerOf(&r), newServer6().answer)
		_, l := acquired6(t, cfg)
		expect(t, "heard", lan.log(), []string{"RS", "INFORMATION-REQUEST"})
		expect(t, "address", showAddrs(l), "[slaac 2001:db8::ff:fe00:7/64]")
		expect(t, "names", fmt.Sprint(l.DNS, l.Search), "[2001:db8::53] [corp.example]")
		until(time.Now().Add(25 * time.Hour))
		expect(t, "a day later", lan.log(), []string{"INFORMATION-REQUEST"})
	})
}

// TestConfirm: addresses of before are asked about, and kept, refused, or used
// when nobody answers.
func TestConfirm(t *testing.T) {
	again := "CONFIRM for 2001:db8::7"
	for name, c := range map[string]struct {
		set   func(*serverV6)
		first []string
		want  string
	}{
		"confirmed": {func(*serverV6) {}, []string{"RS", again}, "[dhcp6 2001:db8::7/128]"},
		"refused": {func(s *serverV6) { s.status[v6.MessageTypeConfirm] = iana.StatusNotOnLink; s.give = give6.Next() },
			[]string{"RS", again, "SOLICIT for 2001:db8::7", "REQUEST for 2001:db8::8"}, "[dhcp6 2001:db8::8/128]"},
		"no answer": {func(s *serverV6) { s.silent[v6.MessageTypeConfirm] = true }, []string{"RS", again, again}, "[dhcp6 2001:db8::7/128]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer6()
				lan, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 9000}), s.answer)
				first, l := acquired6(t, cfg)
				first.Close()
				lan.log()
				time.Sleep(time.Minute)
				s.with(c.set)
				cfg.Previous = kept(t, l)
				_, l = acquired6(t, cfg)
				expect(t, "address", showAddrs(l), c.want)
				expect(t, "heard", lan.log()[:len(c.first)], c.first)
				if !l.Renew.After(time.Now()) {
					t.Errorf("T1 is %s", l.Renew)
				}
			})
		})
	}
}

// TestRouterAway: what routers said before a restart counts until one speaks.
func TestRouterAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := plain()
		lan, _, cfg := newLAN(routerOf(r))
		first, l := acquired6(t, cfg)
		first.Close()
		lan.leave()
		cfg.Previous = kept(t, l)
		_, again := acquired6(t, cfg)
		if !again.Same(l) {
			t.Errorf("got  %s %s\nwant %s %s", showAddrs(again), routesOf(again), showAddrs(l), routesOf(l))
		}
	})
}

// TestInUse6: an address that another host has is declined.
func TestInUse6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		s.decline = true
		lan, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 9000}), s.answer, owner6(otherMAC, give6))
		_, l := acquired6(t, cfg)
		expect(t, "address", showAddrs(l), "[dhcp6 2001:db8::8/128]")
		expect(t, "heard", lan.log()[3:5], []string{"NS for 2001:db8::7", "DECLINE for 2001:db8::7"})
	})
	synctest.Test(t, func(t *testing.T) {
		_, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 9000}), newServer6().answer, owner6(otherMAC, give6))
		_, _, err := Acquire6(t.Context(), cfg)
		if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "2001:db8::7 is used by 02:00:00:00:00:09") {
			t.Error(err)
		}
	})
}

// TestRelease6: DHCPv6's addresses are given back, and a server that is away does
// not hold up the end.
func TestRelease6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		lan, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 9000}), s.answer)
		c, _ := acquired6(t, cfg)
		lan.log()
		if err := c.Release(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, "heard", lan.log(), []string{"RELEASE for 2001:db8::7"})
		expect(t, "open", len(lan.sockets), 0)
		c, _ = acquired6(t, cfg)
		s.with(func(s *serverV6) { s.silent[v6.MessageTypeRelease] = true })
		start := time.Now()
		if err := c.Release(t.Context()); err == nil || time.Since(start) > releaseLimit {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// TestFailures6: what is said when there is no address.
func TestFailures6(t *testing.T) {
	m := &ra{flags: managed, lifetime: 1800}
	for name, c := range map[string]struct {
		hosts func(*serverV6) []func([]byte) [][]byte
		want  string
	}{
		"silence": {func(*serverV6) []func([]byte) [][]byte { return nil },
			"neither a router nor a DHCPv6 server answered on eth0 in 10s: 2 router solicitation sent, 0 router advertisement, "},
		"a router without prefixes": {func(*serverV6) []func([]byte) [][]byte { return []func([]byte) [][]byte{routerOf(&ra{lifetime: 1800})} },
			"a router answered, and there was no IPv6 address on eth0 in 10s: "},
		"a server without addresses": {func(s *serverV6) []func([]byte) [][]byte {
			s.status[v6.MessageTypeSolicit] = iana.StatusNoAddrsAvail
			return []func([]byte) [][]byte{routerOf(m), s.answer}
		}, `the DHCPv6 server says NoAddrsAvail "no"`},
		"a liar": {func(s *serverV6) []func([]byte) [][]byte {
			s.give = netip.IPv6Loopback()
			return []func([]byte) [][]byte{routerOf(m), s.answer}
		}, "address ::1, which no host can have"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, _, cfg := newLAN(c.hosts(newServer6())...)
				_, _, err := Acquire6(t.Context(), cfg)
				if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
			})
		})
	}
}

// TestInterface6: an interface that fails is noticed at once, and when it is back
// the LAN is asked whether it is still the same.
func TestInterface6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer6()
		lan, cs, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 9000}), s.answer)
		c, _ := acquired6(t, cfg)
		lan.log()
		lan.fail(fmt.Errorf("eth0 is down: %w", errdefs.ErrUnavailable))
		until(time.Now().Add(time.Minute))
		expect(t, "changes", kinds(cs.take()), []Kind{Trouble})
		lan.fail(nil)
		until(time.Now().Add(time.Minute))
		expect(t, "heard", lan.log(), []string{"RS", "CONFIRM for 2001:db8::7"})
		expect(t, "changes", kinds(cs.take()), []Kind{Healed})
		s.with(func(s *serverV6) { s.status[v6.MessageTypeConfirm] = iana.StatusNotOnLink; s.give = give6.Next() })
		c.Renew()
		until(time.Now().Add(time.Minute))
		expect(t, "on another LAN", kinds(cs.take()), []Kind{Lost, Acquired})
		lan.fail(fmt.Errorf("eth0 is down: %w", errdefs.ErrUnavailable))
		l, _ := c.Lease()
		until(l.Expire.Add(time.Second))
		expect(t, "past the end", kinds(cs.take()), []Kind{Trouble, Lost})
	})
}

// TestLateRouter: a router that speaks up while DHCPv6 is tried in vain.
func TestLateRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, _, cfg := newLAN()
		time.AfterFunc(5*time.Second, func() { lan.say(plain().frame()) })
		_, l := acquired6(t, cfg)
		expect(t, "address", showAddrs(l), "[slaac 2001:db8:1::ff:fe00:7/64]")
	})
}

// TestLongerLives: the caller hears that addresses live on before it takes them
// away, and not of every advertisement.
func TestLongerLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(routerOf(plain()))
		c, l := acquired6(t, cfg)
		for range 6 * 30 { // thirty hours, of addresses that live for a day
			time.Sleep(10 * time.Minute)
			lan.say(plain().frame())
		}
		until(time.Now().Add(calm))
		expect(t, "changes", kinds(cs.take()), []Kind{Renewed, Renewed})
		if now, ok := c.Lease(); !ok || !now.Same(l) || !now.Expire.After(l.Expire) {
			t.Errorf("lease: %v, %v", now, ok)
		}
	})
}

// TestHighestPreference: nobody waits for others after an answer with 255.
func TestHighestPreference(t *testing.T) {
	took := map[byte]time.Duration{}
	for _, p := range []byte{254, 255} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer6()
			s.change = func(m *v6.Message) { m.AddOption(v6.OptPreference(p)) }
			_, _, cfg := newLAN(routerOf(&ra{flags: managed, lifetime: 1800}), s.answer)
			cfg.Probe = -1
			start := time.Now()
			acquired6(t, cfg)
			took[p] = time.Since(start)
		})
	}
	if took[255] != 0 || took[254] == 0 {
		t.Errorf("waited %v", took)
	}
}
