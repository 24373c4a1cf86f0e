package live_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
)

// TestWide: a network of three bridges is one Ethernet segment to its
// containers, and with enable_icc=false they reach the gateway and nobody else,
// wherever they are.
func TestWide(t *testing.T) {
	for _, icc := range []bool{true, false} {
		t.Run(fmt.Sprintf("icc=%t", icc), func(t *testing.T) { wide(t, icc) })
	}
}

func wide(t *testing.T, icc bool) {
	h := newHost(t, false)
	h.room = 2
	m := h.start()
	defer func() { stop(m) }()
	yes := true
	n, err := m.Create(t.Context(), api.CreateRequest{Name: "app", EnableIPv6: &yes, Options: map[string]string{
		"com.docker.network.bridge.enable_icc": fmt.Sprint(icc), "com.docker.network.bridge.name": "zz0", // sorts behind its leaves
	}})
	if err != nil {
		t.Fatal(err)
	}
	var addrs [][]netip.Prefix
	for i := range 5 {
		id := fmt.Sprint("c", i)
		addrs = append(addrs, h.open(m, id, nil, "app").Endpoints[0].Addrs)
		h.serve(netspec.NS(id), "[::]:80")
	}
	h.serve("", "[::]:81")
	check := func(when string) {
		t.Helper()
		for i := range addrs {
			ns := netspec.NS(fmt.Sprint("c", i))
			for k := range 2 {
				h.reach(ns, netip.AddrPortFrom(n.Pools[k].Gateway, 81), true, when+": the gateway")
				h.reach("", netip.AddrPortFrom(addrs[i][k].Addr(), 80), true, when+": from the host")
				for j := range addrs {
					if i != j && (icc || i+1 == j || i == 4) { // what does not come takes long to be sure of
						h.reach(ns, netip.AddrPortFrom(addrs[j][k].Addr(), 80), icc, fmt.Sprintf("%s: c%d to c%d", when, i, j))
					}
				}
			}
			if !strings.Contains(h.ip(ns, "neigh", "show", n.Pools[0].Gateway.String()), mac(t, "zz0")) {
				t.Errorf("%s: c%d has another neighbour than the root as its gateway:\n%s", when, i, h.ip(ns, "neigh"))
			}
		}
	}
	check("at first")
	stop(m)
	h.count.n = 0
	m = h.start()
	if h.count.n != 0 {
		t.Errorf("%d kernel changes at a restart", h.count.n)
	}
	run(t, "ip", "link", "del", fmt.Sprintf("isleb%d-1", n.Index))
	run(t, "ip", "link", "set", fmt.Sprintf("isleu%d-2", n.Index), "nomaster", "down")
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after somebody took a leaf away")
	for i := range addrs {
		if err := m.Close(t.Context(), fmt.Sprint("c", i)); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	for _, link := range []string{"zz0", "isleb", "islet", "isleu"} {
		if links := run(t, "ip", "-o", "link"); strings.Contains(links, " "+link) {
			t.Errorf("%s is left over:\n%s", link, links)
		}
	}
}

// reach tries a TCP connection.
func (h *host) reach(ns netspec.NS, to netip.AddrPort, want bool, what string) {
	h.t.Helper()
	patience := 10 * time.Second
	if !want {
		patience = 150 * time.Millisecond
	}
	got, err := h.get(ns, to.String(), patience)
	if (err == nil && got != "") != want {
		h.t.Errorf("%s: %s to %s: %q, %v; want to get through: %t", what, ns, to, got, err, want)
	}
}

// ip is what the program says in a container.
func (h *host) ip(ns netspec.NS, args ...string) string {
	h.t.Helper()
	return run(h.t, "nsenter", append([]string{"--net=" + h.kernel.Path(ns), "ip"}, args...)...)
}

func mac(t *testing.T, link string) string {
	t.Helper()
	l, err := net.InterfaceByName(link)
	if err != nil {
		t.Fatal(err)
	}
	return l.HardwareAddr.String()
}

// TestMulticast: what a container sends to a group or to everybody comes to its
// neighbours on every leaf, without a querier on the network, and without the
// sender being a member.
func TestMulticast(t *testing.T) {
	h := newHost(t, false)
	h.room = 1
	m := h.start()
	defer stop(m)
	yes := true
	n, err := m.Create(t.Context(), api.CreateRequest{Name: "app", EnableIPv6: &yes})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"c0", "c1", "c2"} {
		h.open(m, id, nil, "app")
	}
	for _, br := range []string{"isle-" + n.ID[:10], fmt.Sprintf("isleb%d-1", n.Index)} {
		if got := run(t, "ip", "-d", "link", "show", "dev", br); !strings.Contains(got, "mcast_snooping 0") {
			t.Errorf("%s drops what nobody has asked for:\n%s", br, got)
		}
	}
	for _, group := range []string{"239.1.2.3:5353", "255.255.255.255:5354", "[ff15::1234%eth0]:5355"} {
		heard := make(chan string, 4)
		for _, id := range []string{"c1", "c2"} {
			h.listen(netspec.NS(id), group, func() { heard <- id })
		}
		got := map[string]bool{}
		for tries := 0; len(got) < 2 && tries < 100; tries++ {
			h.send("c0", group)
			select {
			case id := <-heard:
				got[id] = true
			case <-time.After(50 * time.Millisecond):
			}
		}
		if len(got) != 2 {
			t.Errorf("%s was heard by %v", group, got)
		}
	}
}

// listen calls fn for every datagram to a group.
func (h *host) listen(ns netspec.NS, group string, fn func()) {
	h.t.Helper()
	err := h.kernel.Do(ns, func() error {
		at, err := net.ResolveUDPAddr("udp", group)
		if err != nil {
			return err
		}
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		open := func() (*net.UDPConn, error) { return net.ListenMulticastUDP("udp", eth0, at) }
		if !at.IP.IsMulticast() {
			open = func() (*net.UDPConn, error) { return net.ListenUDP("udp4", &net.UDPAddr{Port: at.Port}) }
		}
		c, err := open()
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { c.Close() })
		go func() {
			for b := make([]byte, 10); ; fn() {
				if _, _, err := c.ReadFrom(b); err != nil {
					return
				}
			}
		}()
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) send(ns netspec.NS, to string) {
	h.t.Helper()
	if err := h.kernel.Do(ns, func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
}

// TestWideToOutside: containers on a leaf go out with the host's address and are
// published, also to themselves and their neighbours, with and without
// br_netfilter: with it the firewall sees their frames on the leaf too.
func TestWideToOutside(t *testing.T) {
	for _, filter := range []string{"0", "1"} {
		t.Run("br_netfilter="+filter, func(t *testing.T) { wideToOutside(t, filter) })
	}
}

func wideToOutside(t *testing.T, filter string) {
	h := newHost(t, true)
	for _, f := range []string{"ip", "ip6"} {
		if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+f+"tables", []byte(filter), 0o644); err != nil && filter == "1" {
			t.Skip(&probe.NotSupportedError{Feature: "br_netfilter", Err: err})
		}
	}
	h.room = 1
	m := h.start()
	defer stop(m)
	n, err := m.Create(t.Context(), api.CreateRequest{Name: "app"})
	if err != nil {
		t.Fatal(err)
	}
	var addrs []netip.Addr
	for i := range 3 {
		id := fmt.Sprint("c", i)
		ports := api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: fmt.Sprint(8000 + i)}}}
		addrs = append(addrs, h.open(m, id, ports, "app").Endpoints[0].Addr(true))
		h.serve(netspec.NS(id), "0.0.0.0:80")
	}
	lan := kerneltest.NewNS(t)
	run(t, "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), lan.File.Fd()))
	t.Cleanup(func() { run(t, "ip", "link", "del", "lan0") })
	run(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "lan0")
	run(t, "ip", "link", "set", "lan0", "up")
	lan.IP(`addr add 10.77.0.2/24 dev eth0
		link set eth0 up`)
	h.serveIn(lan, "0.0.0.0:80")
	for i := range addrs {
		ns := netspec.NS(fmt.Sprint("c", i))
		if got, err := h.get(ns, "10.77.0.2:80", 10*time.Second); err != nil || !strings.HasPrefix(got, "10.77.0.1:") {
			t.Errorf("c%d goes out as %q, %v", i, got, err)
		}
		for j := range addrs {
			for _, at := range []string{"10.77.0.1", n.Pools[0].Gateway.String()} {
				if i != 0 && filter == "1" && i == j {
					continue // see the driver's README, "Limits"
				}
				h.reach(ns, netip.MustParseAddrPort(fmt.Sprintf("%s:%d", at, 8000+j)), true, fmt.Sprintf("c%d to the published port of c%d", i, j))
			}
		}
		var got string
		lan.Do(func() (err error) { got, err = dial(fmt.Sprintf("10.77.0.1:%d", 8000+i)); return err })
		if !strings.HasPrefix(got, "10.77.0.2:") {
			t.Errorf("c%d sees %q from the LAN", i, got)
		}
	}
}

func dial(to string) (string, error) {
	c, err := net.DialTimeout("tcp", to, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}
