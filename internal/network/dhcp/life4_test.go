package dhcp

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	v4 "github.com/insomniacslk/dhcp/dhcpv4"

	"isle/internal/netspec"
)

// newLAN is a segment with these hosts, and a configuration to be on it.
func newLAN(hosts ...func([]byte) [][]byte) (*lan, *changes, Config) {
	l, c := &lan{hosts: hosts}, &changes{}
	return l, c, Config{Interface: "eth0", MAC: ourMAC, Endpoint: "endpoint", Hostname: "web", Changed: c.add, open: l.open}
}

// acquired is a client that has its lease; it ends with the test.
func acquired(t *testing.T, cfg Config) (*Client, Lease) {
	t.Helper()
	c, l, err := Acquire(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, l
}

// until lets time pass up to a moment, and all do what they do then.
func until(at time.Time) {
	time.Sleep(time.Until(at))
	synctest.Wait()
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

var (
	dialogueOf = []string{
		"DISCOVER to all", "REQUEST to all for 192.0.2.7 from 192.0.2.1",
		"ARP 0.0.0.0 for 192.0.2.7", "ARP 0.0.0.0 for 192.0.2.7", "ARP 0.0.0.0 for 192.0.2.7",
	}
	renewal   = []string{"ARP 192.0.2.7 for 192.0.2.1", "REQUEST to 192.0.2.1 at 02:00:00:00:00:01 by 192.0.2.7"}
	rebinding = "REQUEST to all by 192.0.2.7"
)

// TestLife: a lease is got, prolonged at T1, and given back.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		lan, cs, cfg := newLAN(s.answer)
		c, l := acquired(t, cfg)
		expect(t, "dialogue", lan.log(), dialogueOf)
		expect(t, "address", l.Address().String(), "192.0.2.7/24")
		expect(t, "routes", l.Routes, []Route{{Dest: netip.MustParsePrefix("0.0.0.0/0"), Via: serverIP}})
		until(l.Renew.Add(-time.Second))
		expect(t, "before T1", lan.log(), []string(nil))
		until(l.Renew.Add(time.Second))
		expect(t, "at T1", lan.log(), renewal)
		expect(t, "changes", kinds(cs.take()), []Kind{Renewed})
		if now, ok := c.Lease(); !ok || !now.Expire.After(l.Expire) || !now.Same(l) {
			t.Errorf("renewed: %v, %v", now, ok)
		}
		if err := c.Release(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, "release", lan.log(), []string{
			"ARP 192.0.2.7 for 192.0.2.1", "RELEASE to 192.0.2.1 at 02:00:00:00:00:01 by 192.0.2.7 from 192.0.2.1",
		})
	})
}

// TestRebindAndExpiry: without its server a client asks that one up to T2, then
// everybody, and at the end the address is lost and another looked for.
func TestRebindAndExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		lan, cs, cfg := newLAN(s.answer)
		_, l := acquired(t, cfg)
		lan.log()
		s.with(func(s *server) { s.silent[v4.MessageTypeRequest], s.silent[v4.MessageTypeDiscover] = true, true })
		until(l.Rebind.Add(-time.Second))
		heard := lan.log()
		expect(t, "first at T1", heard[:2], renewal)
		if n := len(heard) - 1; n < 3 || slices.Contains(heard, rebinding) {
			t.Errorf("%d REQUEST between T1 and T2: %q", n, heard)
		}
		until(l.Rebind.Add(time.Second))
		expect(t, "at T2", lan.log(), []string{rebinding})
		until(l.Expire.Add(-time.Second))
		if heard := lan.log(); len(heard) < 2 || heard[0] != rebinding {
			t.Errorf("between T2 and the end: %q", heard)
		}
		expect(t, "changes before the end", cs.take(), []Change(nil))
		until(l.Expire.Add(time.Second))
		got := cs.take()
		expect(t, "at the end", kinds(got), []Kind{Lost})
		if !strings.Contains(got[0].Reason, "the lease of 192.0.2.7 ended: no server answered since") {
			t.Errorf("reason: %s", got[0].Reason)
		}
		s.with(func(s *server) { clear(s.silent); s.give = s.give.Next() })
		until(time.Now().Add(2 * time.Minute))
		got = cs.take()
		expect(t, "when the server is back", kinds(got), []Kind{Acquired})
		expect(t, "new address", got[0].Lease.Address().String(), "192.0.2.8/24")
	})
}

// TestRebindOtherServer: at T2 any server may prolong the lease.
func TestRebindOtherServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newServer(), newServer(v4.OptDNS(net.IPv4(192, 0, 2, 53)))
		second.addr = netip.MustParseAddr("192.0.2.2")
		second.silent[v4.MessageTypeDiscover] = true
		_, cs, cfg := newLAN(first.answer, second.answer)
		_, l := acquired(t, cfg)
		first.with(func(s *server) { s.silent[v4.MessageTypeRequest] = true })
		until(l.Rebind.Add(-time.Second))
		expect(t, "changes before T2", cs.take(), []Change(nil))
		until(l.Rebind.Add(time.Second))
		got := cs.take()
		expect(t, "changes at T2", kinds(got), []Kind{Altered})
		expect(t, "name server", got[0].Lease.DNS, []netip.Addr{netip.MustParseAddr("192.0.2.53")})
		expect(t, "server", got[0].Lease.Server, second.addr)
	})
}

// TestNAK: a refused prolongation ends the lease at once.
func TestNAK(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, cs, cfg := newLAN(s.answer)
		_, l := acquired(t, cfg)
		s.with(func(s *server) { s.nak[v4.MessageTypeRequest] = true })
		until(l.Renew.Add(time.Second))
		got := cs.take()
		expect(t, "changes", kinds(got), []Kind{Lost})
		expect(t, "reason", got[0].Reason, `refused by the server: 192.0.2.1 refused: "wrong network"`)
		s.with(func(s *server) { clear(s.nak) })
		until(time.Now().Add(time.Minute))
		expect(t, "changes", kinds(cs.take()), []Kind{Acquired})
	})
}

// TestRenew: asked to, the client asks everybody, and no answer changes nothing.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		lan, cs, cfg := newLAN(s.answer)
		c, l := acquired(t, cfg)
		lan.log()
		s.with(func(s *server) { s.silent[v4.MessageTypeRequest] = true })
		c.Renew()
		until(time.Now().Add(time.Minute))
		expect(t, "heard", lan.log(), []string{rebinding, rebinding, rebinding})
		expect(t, "changes", cs.take(), []Change(nil))
		s.with(func(s *server) { clear(s.silent); s.give = s.give.Next() })
		c.Renew()
		until(time.Now().Add(time.Minute))
		got := cs.take()
		expect(t, "changes", kinds(got), []Kind{Altered})
		expect(t, "address", got[0].Lease.Address().String(), "192.0.2.8/24")
		if now, ok := c.Lease(); !ok || now.Same(l) {
			t.Errorf("lease: %v", now)
		}
	})
}

// again is the lease as it comes back from where the caller kept it.
func kept(t *testing.T, l Lease) *Lease {
	t.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var k Lease
	if err := json.Unmarshal(b, &k); err != nil {
		t.Fatal(err)
	}
	return &k
}

// TestReboot: a lease of before is asked for again, and kept, refused, or used
// as it is when nobody answers.
func TestReboot(t *testing.T) {
	again := "REQUEST to all for 192.0.2.7"
	for name, c := range map[string]struct {
		set   func(*server)
		first []string
		want  string
	}{
		"confirmed": {func(*server) {}, []string{again}, "192.0.2.7/24"},
		"refused": {func(s *server) {
			s.give = s.give.Next()
			s.change = func(m *v4.DHCPv4) {
				if s.last.ServerIdentifier() == nil && s.last.MessageType() == v4.MessageTypeRequest {
					m.UpdateOption(v4.OptMessageType(v4.MessageTypeNak))
				}
			}
		}, []string{again, "DISCOVER to all for 192.0.2.7"}, "192.0.2.8/24"},
		"no answer": {func(s *server) { s.silent[v4.MessageTypeRequest] = true }, []string{again, again, again}, "192.0.2.7/24"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				lan, _, cfg := newLAN(s.answer)
				first, l := acquired(t, cfg)
				first.Close()
				lan.log()
				time.Sleep(time.Minute)
				s.with(c.set)
				cfg.Previous = kept(t, l)
				_, l = acquired(t, cfg)
				expect(t, "address", l.Address().String(), c.want)
				expect(t, "heard", lan.log()[:len(c.first)], c.first)
				if !l.Renew.After(time.Now()) || !l.Expire.After(l.Renew) {
					t.Errorf("times: %v, %v", l.Renew, l.Expire)
				}
			})
		})
	}
}

// TestRebootExpired: an old lease is only a wish.
func TestRebootExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		lan, _, cfg := newLAN(s.answer)
		first, l := acquired(t, cfg)
		first.Close()
		lan.log()
		time.Sleep(2 * time.Hour)
		cfg.Previous = kept(t, l)
		acquired(t, cfg)
		expect(t, "first message", lan.log()[0], "DISCOVER to all for 192.0.2.7")
	})
}

// TestUnconfirmedIsAskedAgain: a lease that nobody confirmed after a restart is
// asked for again soon.
func TestUnconfirmedIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, cs, cfg := newLAN(s.answer)
		first, l := acquired(t, cfg)
		first.Close()
		s.with(func(s *server) { s.silent[v4.MessageTypeRequest] = true })
		cfg.Previous = kept(t, l)
		acquired(t, cfg)
		s.with(func(s *server) { clear(s.silent) })
		until(time.Now().Add(2 * time.Minute))
		expect(t, "changes", kinds(cs.take()), []Kind{Renewed})
	})
}

// TestInUse: an address that another host has is declined, and the next one
// taken; a client with only such ones fails with who has them.
func TestInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.decline = true
		lan, _, cfg := newLAN(s.answer, owner(otherMAC, s.give))
		_, l := acquired(t, cfg)
		expect(t, "address", l.Address().String(), "192.0.2.8/24")
		expect(t, "heard", lan.log()[2:5], []string{
			"ARP 0.0.0.0 for 192.0.2.7", "DECLINE to all for 192.0.2.7 from 192.0.2.1", "DISCOVER to all",
		})
	})
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, _, cfg := newLAN(s.answer, owner(otherMAC, s.give))
		_, _, err := Acquire(t.Context(), cfg)
		if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "all declined: 192.0.2.7 is used by 02:00:00:00:00:09") {
			t.Error(err)
		}
	})
}

// TestProbedByAnother: an address that another host probes for is not taken.
func TestProbedByAnother(t *testing.T) {
	for name, c := range map[string]struct {
		by   netspec.MAC
		want bool
	}{"another": {otherMAC, true}, "ourselves, reflected": {ourMAC, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				lan, _, cfg := newLAN(s.answer, func(b []byte) [][]byte {
					if a, ok := readARP(frame{data: b}); ok {
						return [][]byte{arp{arpRequest, c.by, netip.IPv4Unspecified(), a.wantedIP}.frame()}
					}
					return nil
				})
				client, _, err := Acquire(t.Context(), cfg)
				if err == nil {
					defer client.Close()
				}
				if got := slices.Contains(lan.log(), "DECLINE to all for 192.0.2.7 from 192.0.2.1"); got != c.want || (err != nil) != c.want {
					t.Errorf("declined: %v, %v", got, err)
				}
			})
		})
	}
}

// TestFailures: what is said when there is no lease.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*server)
		class error
		want  string
	}{
		"silence": {func(s *server) { s.silent[v4.MessageTypeDiscover] = true }, errdefs.ErrUnavailable,
			"no DHCP server answered on eth0 in 10s: 4 DISCOVER sent, 0 OFFER (hint: "},
		"no ACK": {func(s *server) { s.silent[v4.MessageTypeRequest] = true }, errdefs.ErrUnavailable,
			"a DHCP server offered an address and did not confirm it on eth0 in 10s: 1 DISCOVER sent, 1 OFFER, 4 REQUEST sent, 0 ACK"},
		"NAK": {func(s *server) { s.nak[v4.MessageTypeRequest] = true }, errdefs.ErrUnavailable, `192.0.2.1 refused: "wrong network"`},
		"lies": {func(s *server) { s.give = netip.MustParseAddr("127.0.0.1") }, errdefs.ErrUnavailable,
			"no usable answer of a DHCP server on eth0 in 10s: 4 DISCOVER sent, 4 OFFER; address 127.0.0.1, which no host can have"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				c.set(s)
				_, _, cfg := newLAN(s.answer)
				start := time.Now()
				_, _, err := Acquire(t.Context(), cfg)
				if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
				expect(t, "waited", time.Since(start), defaultLimit)
			})
		})
	}
}

// TestCancelled: who gives up is not told that there is no server.
func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, cfg := newLAN()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		_, _, err := Acquire(ctx, cfg)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "given up after 2s") {
			t.Error(err)
		}
	})
}

// TestInterface: one that is down or gone is said to be, and when it is back
// all goes on.
func TestInterface(t *testing.T) {
	gone := errors.Join(errors.New("eth0 is not there"), errdefs.ErrNotFound)
	synctest.Test(t, func(t *testing.T) {
		lan, _, cfg := newLAN(newServer().answer)
		lan.fail(gone)
		_, _, err := Acquire(t.Context(), cfg)
		if !errors.Is(err, errdefs.ErrNotFound) || !strings.HasPrefix(err.Error(), "no DHCP on eth0 in 10s: eth0 is not there") {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		lan, _, cfg := newLAN(newServer().answer)
		lan.fail(gone)
		time.AfterFunc(3*time.Second, func() { lan.fail(nil) })
		_, l := acquired(t, cfg)
		expect(t, "address", l.Address().String(), "192.0.2.7/24")
	})
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(newServer().answer)
		c, l := acquired(t, cfg)
		lan.fail(gone)
		until(l.Renew.Add(time.Minute))
		expect(t, "changes", kinds(cs.take()), []Kind{Trouble})
		if _, ok := c.Lease(); !ok {
			t.Error("the lease is lost with the interface")
		}
		lan.fail(nil)
		until(time.Now().Add(time.Minute))
		expect(t, "changes", kinds(cs.take()), []Kind{Healed, Renewed})
	})
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(newServer().answer)
		_, l := acquired(t, cfg)
		lan.mu.Lock()
		lan.failing = true
		lan.mu.Unlock()
		until(l.Expire.Add(-time.Minute))
		lan.mu.Lock()
		lan.failing = false
		lan.mu.Unlock()
		until(l.Expire.Add(time.Minute))
		expect(t, "changes", kinds(cs.take()), []Kind{Trouble, Healed, Renewed})
	})
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(newServer().answer)
		_, l := acquired(t, cfg)
		lan.fail(gone)
		until(l.Expire.Add(time.Minute))
		lan.fail(nil)
		until(time.Now().Add(time.Minute))
		expect(t, "gone for longer than the lease", kinds(cs.take()), []Kind{Trouble, Lost, Acquired})
	})
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(newServer().answer)
		first, l := acquired(t, cfg)
		first.Close()
		lan.fail(errors.New("eth0 is down"))
		cfg.Previous = kept(t, l)
		acquired(t, cfg)
		until(time.Now().Add(2 * again))
		lan.fail(nil)
		until(time.Now().Add(time.Minute))
		expect(t, "down while isled restarts", kinds(cs.take()), []Kind{Trouble, Healed, Renewed})
	})
}

// TestInfinite: a lease without an end is never asked for again.
func TestInfinite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(v4.OptIPAddressLeaseTime(forever * time.Second))
		lan, cs, cfg := newLAN(s.answer)
		c, l := acquired(t, cfg)
		lan.log()
		until(time.Now().Add(10 * 365 * 24 * time.Hour))
		expect(t, "heard", lan.log(), []string(nil))
		expect(t, "changes", cs.take(), []Change(nil))
		if _, ok := c.Lease(); !ok || !l.Valid(time.Now()) || !l.Expire.IsZero() {
			t.Errorf("lease: %v", l)
		}
	})
}

// TestCloseKeeps: Close sends nothing, and nothing is open after it.
func TestCloseKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lan, cs, cfg := newLAN(newServer().answer)
		c, l := acquired(t, cfg)
		expect(t, "open while the lease is held", len(lan.sockets), 0)
		lan.log()
		c.Close()
		c.Close()
		if err := c.Release(t.Context()); err != nil {
			t.Error(err)
		}
		until(l.Expire.Add(time.Hour))
		expect(t, "heard", lan.log(), []string(nil))
		expect(t, "changes", cs.take(), []Change(nil))
	})
}

// TestBackoff: questions come at doubled distances, no two clients' alike.
func TestBackoff(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		w := doubling(firstWait, lastWait, 9)
		want := firstWait
		for range 9 {
			d, ok := w()
			if spread := min(want/4, time.Second); !ok || d < want-spread || d > want+spread {
				t.Errorf("wait of %v, expected about %v", d, want)
			}
			seen[d] = true
			want = min(2*want, lastWait)
		}
		if _, ok := w(); ok {
			t.Error("more tries than asked for")
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d different waits", len(seen))
	}
}
