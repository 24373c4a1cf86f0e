package live_test

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
)

// nobodys is a MAC address that nobody has.
const nobodys = "02:99:99:99:99:99"

// TestOverlayWide: an overlay of more containers than a bridge has ports is one Ethernet
// segment on all hosts, and what is answered, or dropped, before it gets to a tunnel is so
// on every bridge of it.
func TestOverlayWide(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	a.end()
	a.room = 2
	a.begin()
	yes := true
	if _, err := a.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the network is on the other host", func() bool { return b.knows("app") })
	two := b.open(b.m, "two", nil, "app").Endpoints[0]
	b.serve("two", "[::]:80")
	var here []network.Endpoint
	for i := range 5 { // on the first bridge, and on two leaves
		ports := api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: fmt.Sprint(8080 + i)}}}
		here = append(here, a.open(a.m, fmt.Sprint("c", i), ports, "app").Endpoints[0])
		a.serve(netspec.NS(fmt.Sprint("c", i)), "[::]:80")
	}
	soon(t, "each knows the other's containers", func() bool { return len(a.behind()) == 1 && len(b.behind()) == 5 })
	n, err := a.m.Find(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	a.serveIn(a.ns, "[::]:81")
	check := func(when string) {
		t.Helper()
		for i, one := range here {
			ns := netspec.NS(fmt.Sprint("c", i))
			for k, v4 := range []bool{true, false} {
				across(t, when, a, ns, two.Addr(v4), 80, one.Addr(v4))
				across(t, when, b, "two", one.Addr(v4), 80, two.Addr(v4))
				across(t, when+", on one host", a, ns, here[(i+2)%5].Addr(v4), 80, one.Addr(v4))
				across(t, when+", to the gateway", a, ns, n.Pools[k].Gateway, 81, one.Addr(v4))
			}
			across(t, when+", published", b, "two", netip.MustParseAddr("10.8.0.1"), uint16(8080+i), netip.MustParseAddr("10.8.0.2"))
		}
	}
	check("at first")
	multicast(t, a, b)
	unseen(t, a, b, here[4], two)
	a.end()
	a.count.n = 0
	a.begin()
	if check("after a restart"); a.count.n != 0 {
		t.Errorf("%d kernel changes at a restart", a.count.n)
	}
	a.ns.IP(fmt.Sprintf("link del isleb%d-1", n.Index))
	if err := a.m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after somebody took a leaf away")
	for i := range here {
		if err := a.m.Close(t.Context(), fmt.Sprint("c", i)); err != nil {
			t.Error(err)
		}
	}
	for _, link := range []string{"isle-", "isleb", "islet", "isleu", "islex"} {
		if links := a.ns.Run("ip", "-o", "link"); strings.Contains(links, " "+link) {
			t.Errorf("%s is left over:\n%s", link, links)
		}
	}
}

// multicast : what is for a group or for everybody gets from a leaf to the other host, and
// from there to a leaf.
func multicast(t *testing.T, a, b *member) {
	t.Helper()
	heard := make(chan string, 100)
	for _, group := range []string{"239.1.2.3:5353", "255.255.255.255:5354", "[ff15::1234%eth0]:5355"} {
		for name, h := range map[netspec.NS]*member{"c0": a, "c4": a, "two": b} {
			h.listen(name, group, func() { heard <- group + " at " + string(name) })
		}
		for from, h := range map[netspec.NS]*member{"c4": a, "two": b} {
			missing := map[string]bool{}
			for _, at := range []string{"c0", "c4", "two"} {
				if at != string(from) {
					missing[group+" at "+at] = true
				}
			}
			for tries := 0; len(missing) > 0 && tries < 100; tries++ {
				h.send(from, group)
				for wait := time.After(50 * time.Millisecond); wait != nil; {
					select {
					case at := <-heard:
						delete(missing, at)
					case <-wait:
						wait = nil
					}
				}
			}
			if len(missing) > 0 {
				t.Errorf("from %s nothing came of %v", from, missing)
			}
		}
	}
}

// unseen : who on a leaf asks for an address is answered by its own host; a frame for
// nobody does not leave the host; one for the other host is seen by no neighbour.
func unseen(t *testing.T, a, b *member, one, two network.Endpoint) {
	t.Helper()
	const ns = "c4" // alone on its leaf but for c5
	a.open(a.m, "c5", nil, "app")
	defer func() {
		if err := a.m.Close(t.Context(), "c5"); err != nil {
			t.Error(err)
		}
	}()
	for _, h := range []*member{a, b} {
		h.ns.Run("nft", fmt.Sprintf(`table bridge witness {
			counter asked {
			}
			counter lost {
			}
			counter overheard {
			}
			chain in { type filter hook prerouting priority -500;
				iifname "islex*" arp operation request arp daddr ip %[1]s counter name asked
				iifname "islex*" icmpv6 type nd-neighbor-solicit @th,64,128 0x%[2]x counter name asked
			}
			chain out { type filter hook postrouting priority 500;
				oifname "islex*" ether daddr %[3]s counter name lost
				oifname "islev*" ether daddr %[4]s ip daddr %[1]s counter name overheard
			}
		}`, two.Addr(true), two.Addr(false).AsSlice(), nobodys, net.HardwareAddr(two.MAC[:])))
		defer h.ns.Run("nft", "delete table bridge witness")
	}
	a.ip(ns, "neigh", "flush", "dev", "eth0")
	for _, v4 := range []bool{true, false} {
		across(t, "anew", a, ns, two.Addr(v4), 80, one.Addr(v4))
	}
	nobody := one.Addr(true).Next().Next()
	a.ip(ns, "neigh", "replace", nobody.String(), "lladdr", nobodys, "dev", "eth0")
	for range 5 {
		a.send(ns, netip.AddrPortFrom(nobody, 9).String())
	}
	time.Sleep(50 * time.Millisecond)
	for name, h := range map[string]*member{"asked": b, "lost": a, "overheard": a} {
		if out := h.ns.Run("nft", "list", "counter", "bridge", "witness", name); !regexp.MustCompile("packets 0 ").MatchString(out) {
			t.Errorf("%s: %s", name, out)
		}
	}
}
