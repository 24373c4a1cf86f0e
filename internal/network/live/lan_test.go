package live_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/network"
)

// wire is the LAN of a host: a switch in a namespace of its own that the host is joined
// to by eth9, with 10.9.0.5 and fd00:9::5, and a router there, 10.9.0.1 and fd00:9::1,
// behind which 198.51.100.1 is.
type wire struct {
	*host
	router kerneltest.NS
}

func newLAN(t *testing.T) *wire {
	t.Helper()
	h := newHost(t, false)
	l := &wire{h, kerneltest.NewNS(t)}
	l.plug("eth9")
	run(t, "ip", "addr", "add", "10.9.0.5/24", "dev", "eth9")
	run(t, "ip", "addr", "add", "fd00:9::5/64", "dev", "eth9", "nodad")
	l.router.IP(`addr add 10.9.0.1/24 dev switch
		addr add fd00:9::1/64 dev switch nodad
		addr add 198.51.100.1/32 dev lo
		link set switch up`)
	return l
}

// plug joins the host to the switch by another interface.
func (l *wire) plug(name string) {
	l.t.Helper()
	if _, err := l.router.Try("ip", "link", "show", "switch"); err != nil {
		l.router.IP("link add switch type bridge")
	}
	run(l.t, "ip", "link", "add", name, "type", "veth", "peer", "name", "p-"+name, "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.router.File.Fd()))
	l.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	l.router.IP("link set p-" + name + " master switch up")
	run(l.t, "ip", "link", "set", name, "up")
}

// from is what comes back from a connection that is made on the LAN.
func (l *wire) from(ns kerneltest.NS, at string, patience time.Duration) (got string, err error) {
	ns.Do(func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", at, patience); err != nil {
			return nil
		}
		defer c.Close()
		if err = c.SetDeadline(time.Now().Add(patience)); err != nil {
			return nil
		}
		b := make([]byte, 100)
		n, rerr := c.Read(b)
		got, err = string(b[:n]), rerr
		return nil
	})
	return got, err
}

func onLAN(driver string, opts ...string) api.CreateRequest {
	yes := true
	req := api.CreateRequest{Name: "lan", Driver: driver, EnableIPv6: &yes, Options: map[string]string{"parent": "eth9"}, IPAM: &api.IPAM{Config: []api.IPAMConfig{
		{Subnet: netip.MustParsePrefix("10.9.0.0/24"), IPRange: netip.MustParsePrefix("10.9.0.128/25"), Gateway: netip.MustParseAddr("10.9.0.1")},
		{Subnet: netip.MustParsePrefix("fd00:9::/64"), IPRange: netip.MustParsePrefix("fd00:9::8000/113"), Gateway: netip.MustParseAddr("fd00:9::1")},
	}}}
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		req.Options[k] = v
	}
	return req
}

func (l *wire) create(m *network.Manager, req api.CreateRequest) network.Network {
	l.t.Helper()
	n, err := m.Create(l.t.Context(), req)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// TestMacvlan: a container is on the LAN, as another machine is: the LAN reaches it,
// it reaches the LAN and what is behind the router, by both families; the host and it
// do not reach each other.
func TestMacvlan(t *testing.T) {
	l := newLAN(t)
	m := l.start()
	defer stop(m)
	l.create(m, onLAN("macvlan"))
	web := l.open(m, "web", nil, "lan").Endpoints[0]
	l.open(m, "db", nil, "lan")
	l.serve("web", "0.0.0.0:80")
	l.serve("web", "[::]:81")
	l.serveIn(l.router, "198.51.100.1:80")
	a4, a6 := web.Addr(true).String(), web.Addr(false).String()
	for _, at := range []string{a4 + ":80", "[" + a6 + "]:81"} {
		if got, err := l.from(l.router, at, 10*time.Second); err != nil {
			t.Errorf("the LAN to %s: %q, %v", at, got, err)
		}
		if got, err := l.get("db", at, 10*time.Second); err != nil {
			t.Errorf("a container to %s: %q, %v", at, got, err)
		}
	}
	if got, err := l.get("web", "198.51.100.1:80", 10*time.Second); !strings.HasPrefix(got, a4+":") {
		t.Errorf("behind the router it is seen as %q, %v", got, err)
	}
	if got, err := l.get("", a4+":80", 500*time.Millisecond); err == nil {
		t.Errorf("the host got to the container: %q", got)
	}
	for _, proto := range []string{"udp", "tcp"} {
		if got, err := l.lookup("db", proto, "web"); err != nil || got != "NOERROR "+a4 {
			t.Errorf("db asks for web over %s: %s, %v", proto, got, err)
		}
	}
	if c, err := m.Counters(t.Context(), "web"); err != nil || c["eth0"].RxPackets == 0 {
		t.Errorf("counters %v, %v", c, err)
	}
	l.unchanged(m)
	for _, c := range []string{"web", "db"} {
		if err := m.Close(t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Remove(t.Context(), "lan"); err != nil {
		t.Error(err)
	}
}

// unchanged: the kernel is what the records say.
func (l *wire) unchanged(m *network.Manager) {
	l.t.Helper()
	l.count.n = 0
	if err := m.Sync(l.t.Context()); err != nil || l.count.n != 0 {
		l.t.Errorf("%d changes, %v", l.count.n, err)
	}
}
