package live_test

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	api "github.com/moby/moby/api/types/network"
)

// TestIPv6Only: a network without IPv4: neighbours, the gateway, names and
// published ports work, for clients of either family.
func TestIPv6Only(t *testing.T) {
	h := newHost(t, true)
	m := h.start()
	defer stop(m)
	yes, no := true, false
	n, err := m.Create(t.Context(), api.CreateRequest{Name: "six", EnableIPv4: &no, EnableIPv6: &yes})
	if err != nil {
		t.Fatal(err)
	}
	web := h.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "six")
	h.open(m, "db", nil, "six")
	if a := web.Endpoints[0].Addrs; len(n.Pools) != 1 || len(a) != 1 || !a[0].Addr().Is6() {
		t.Fatalf("subnets %v, addresses %v", n.Pools, a)
	}
	at := web.Endpoints[0].Addr(false)
	h.serve("web", "[::]:80")
	h.serve("", "[::]:81")
	h.reach("db", netip.AddrPortFrom(at, 80), true, "a neighbour")
	h.reach("", netip.AddrPortFrom(at, 80), true, "the host")
	h.reach("db", netip.AddrPortFrom(n.Pools[0].Gateway, 81), true, "the gateway")
	h.reach("db", netip.AddrPortFrom(n.Pools[0].Gateway, 8080), true, "the published port at the gateway")
	h.reach("", netip.MustParseAddrPort("[::1]:8080"), true, "localhost")
	h.reach("", netip.MustParseAddrPort("127.0.0.1:8080"), true, "localhost, IPv4")
	if out := h.ip("web", "-4", "addr", "show", "dev", "eth0"); out != "" {
		t.Errorf("has IPv4:\n%s", out)
	}
	err = h.kernel.Do("db", func() error {
		for q, want := range map[uint16]string{miekg.TypeAAAA: at.String(), miekg.TypeA: ""} {
			conn, err := net.DialTimeout("udp", "127.0.0.11:53", 3*time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			msg, _, err := (&miekg.Client{Timeout: 3 * time.Second}).ExchangeWithConn(new(miekg.Msg).SetQuestion("web.", q), &miekg.Conn{Conn: conn})
			if err != nil {
				return err
			}
			if msg.Rcode != miekg.RcodeSuccess || (len(msg.Answer) > 0) != (want != "") || want != "" && !strings.Contains(msg.Answer[0].String(), want) {
				t.Errorf("%s: %v", miekg.TypeToString[q], msg)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestUplinkKeepsItsAdvertisements: an uplink that takes router advertisements
// goes on with it when the first network makes the host forward IPv6; one whose
// owner has said no is not touched.
func TestUplinkKeepsItsAdvertisements(t *testing.T) {
	h := newHost(t, false)
	m := h.start()
	defer stop(m)
	conf := func(link, name, v string) string {
		path := "/proc/sys/net/ipv6/conf/" + link + "/" + name
		if v != "" {
			if err := os.WriteFile(path, []byte(v), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	conf("all", "forwarding", "0")
	for i, link := range []string{"up0", "refuses0", "side0"} {
		run(t, "ip", "link", "add", link, "type", "veth", "peer", "name", "p"+link)
		t.Cleanup(func() { run(t, "ip", "link", "del", link) })
		run(t, "ip", "link", "set", link, "up")
		run(t, "ip", "link", "set", "p"+link, "up")
		conf(link, "accept_ra", "1")
		if link != "side0" {
			run(t, "ip", "-6", "route", "add", "default", "dev", link, "metric", []string{"10", "20"}[i])
		}
	}
	conf("refuses0", "accept_ra", "0")
	yes := true
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "six", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]string{"up0": "2", "refuses0": "0", "side0": "1"} {
		if got := conf(link, "accept_ra", ""); got != want || conf(link, "forwarding", "") != "1" {
			t.Errorf("%s: accept_ra=%s, want %s", link, got, want)
		}
	}
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := conf("up0", "accept_ra", ""); got != "2" {
		t.Errorf("after a Sync: accept_ra=%s", got)
	}
}
