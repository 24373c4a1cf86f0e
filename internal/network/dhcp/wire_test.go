package dhcp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	v4 "github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
)

// wire is a container with eth0, and a LAN with lan0 at the other end of it.
type wire struct {
	box, lan kerneltest.NS
	w        *witness
	cs       *changes
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{box: kerneltest.NewNS(t), lan: kerneltest.NewNS(t), cs: &changes{}}
	w.plug()
	w.w = newWitness(t, w.lan)
	return w
}

// plug makes the cable.
func (w *wire) plug() {
	w.box.IP(fmt.Sprintf(`link add eth0 address %s type veth peer name lan0 netns /proc/%d/fd/%d
		link set eth0 up`, hardware(ourMAC), os.Getpid(), w.lan.File.Fd()))
	w.lan.IP(fmt.Sprintf(`link set lan0 address %s
		link set lan0 up
		addr add %s/24 dev lan0`, hardware(serverMAC), serverIP))
}

// config is of a client in the container.
func (w *wire) config() Config {
	return Config{
		Do:        func(f func() error) error { return netns.Do(w.box.File, f) },
		Interface: "eth0", MAC: ourMAC, Endpoint: "endpoint", Hostname: "web", Changed: w.cs.add,
		Probe: 300 * time.Millisecond,
	}
}

// witness sees all frames of DHCP and ARP that pass lan0, in both directions.
type witness struct {
	fd   int
	mu   sync.Mutex
	seen []string
}

// rawSocket is one of the test's own, not the client's.
func rawSocket(t *testing.T, ns kerneltest.NS, protocol uint16) (fd, index int) {
	t.Helper()
	ns.Do(func() error {
		ifi, err := net.InterfaceByName("lan0")
		if err != nil {
			return err
		}
		index = ifi.Index
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swap(protocol))); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	})
	return fd, index
}

// reading calls f with each frame, until the test ends.
func reading(t *testing.T, fd int, f func([]byte)) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if n, _, err := unix.Recvfrom(fd, b, 0); err == nil && n > 40 {
				f(slices.Clone(b[:n]))
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		unix.Close(fd)
	})
}

func newWitness(t *testing.T, ns kerneltest.NS) *witness {
	t.Helper()
	w := &witness{}
	w.fd, _ = rawSocket(t, ns, unix.ETH_P_ALL)
	reading(t, w.fd, func(b []byte) {
		if s := interesting(b); s != "" {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, s)
		}
	})
	return w
}

// interesting is what the witness notes.
func interesting(b []byte) string {
	switch kind := be.Uint16(b[12:]); {
	case kind == unix.ETH_P_ARP:
		return words(b)
	case kind == unix.ETH_P_IP && b[23] == unix.IPPROTO_UDP && (be.Uint16(b[36:]) == server4 || be.Uint16(b[36:]) == client4):
		return words(b)
	case kind == unix.ETH_P_IPV6:
		return words6(b)
	}
	return ""
}

// saw waits until the witness has seen all of these, in this order.
func (w *witness) saw(t *testing.T, want ...string) {
	t.Helper()
	var seen []string
	for range 200 {
		w.mu.Lock()
		seen = slices.Clone(w.seen)
		w.mu.Unlock()
		if inOrder(seen, want) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("the witness saw\n%s\nand not in this order\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
}

func inOrder(seen, want []string) bool {
	for _, s := range seen {
		if len(want) > 0 && strings.HasPrefix(s, want[0]) {
			want = want[1:]
		}
	}
	return len(want) == 0
}

// serve runs the server of the tests on lan0.
func (w *wire) serve(t *testing.T, answer func([]byte) [][]byte) {
	t.Helper()
	fd, index := rawSocket(t, w.lan, unix.ETH_P_ALL)
	reading(t, fd, func(b []byte) {
		if [6]byte(b[6:12]) == serverMAC {
			return // it hears itself
		}
		for _, f := range answer(b) {
			_ = unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index, Halen: 6})
		}
	})
}

// dhcpOnly leaves ARP to the kernel of the LAN.
func dhcpOnly(answer func([]byte) [][]byte) func([]byte) [][]byte {
	return func(b []byte) [][]byte {
		if be.Uint16(b[12:]) == unix.ETH_P_ARP {
			return nil
		}
		return answer(b)
	}
}

// TestWire: the life of a lease over a real interface.
func TestWire(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	s := newServer()
	w.serve(t, dhcpOnly(s.answer))
	c, l := acquired(t, w.config())
	expect(t, "address", l.Address().String(), "192.0.2.7/24")
	if open := w.box.Run("cat", "/proc/self/net/packet"); strings.Count(open, "\n") != 1 {
		t.Errorf("sockets are open while the lease is held:\n%s", open)
	}
	w.box.IP("addr add 192.0.2.7/24 dev eth0")
	c.Renew()
	w.w.saw(t, "DISCOVER to all", "OFFER", "REQUEST to all for 192.0.2.7 from 192.0.2.1", "ACK", "ARP 0.0.0.0 for 192.0.2.7",
		"REQUEST to all by 192.0.2.7", "ACK")
	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.w.saw(t, "ARP 192.0.2.7 for 192.0.2.1", "RELEASE to 192.0.2.1 at 02:00:00:00:00:01 by 192.0.2.7 from 192.0.2.1")
}

// TestWireInUse: the kernel of another host has the address.
func TestWireInUse(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	s := newServer()
	s.decline = true
	w.serve(t, dhcpOnly(s.answer))
	w.lan.IP("addr add 192.0.2.7/24 dev lan0")
	_, l := acquired(t, w.config())
	expect(t, "address", l.Address().String(), "192.0.2.8/24")
	w.w.saw(t, "ARP 0.0.0.0 for 192.0.2.7", "DECLINE to all for 192.0.2.7 from 192.0.2.1", "DISCOVER to all", "ARP 0.0.0.0 for 192.0.2.8")
}

// TestWireTagged: frames of a VLAN that somebody else on the cable has are not
// answers.
func TestWireTagged(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	s := newServer()
	s.mangle = func(f []byte) [][]byte { return [][]byte{slices.Insert(f, 12, 0x81, 0, 0, 5)} }
	w.serve(t, dhcpOnly(s.answer))
	cfg := w.config()
	cfg.Limit = 2 * time.Second
	if c, _, err := Acquire(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "2 DISCOVER sent, 0 OFFER") {
		t.Errorf("%v, %v", c, err)
	}
}

// TestWireInterface: an interface that is down or gone is said to be, and a
// client that waits for it goes on when it is there.
func TestWireInterface(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.serve(t, dhcpOnly(newServer().answer))
	cfg := w.config()
	cfg.Limit = time.Second / 2
	w.box.IP("link set eth0 down")
	if _, _, err := Acquire(t.Context(), cfg); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "eth0 is down") {
		t.Errorf("down: %v", err)
	}
	cfg.Interface = "eth7"
	if _, _, err := Acquire(t.Context(), cfg); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "eth7 is not there") {
		t.Errorf("gone: %v", err)
	}
	time.AfterFunc(500*time.Millisecond, func() { _, _ = w.box.Try("ip", "link", "set", "eth0", "up") })
	_, l := acquired(t, w.config())
	expect(t, "address", l.Address().String(), "192.0.2.7/24")
}

// TestWireFails: an interface that goes down while an answer is waited for.
func TestWireFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stop, start string
		plug        bool
	}{
		"down": {"link set eth0 down", "link set eth0 up", false},
		"gone": {"link del eth0", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			cfg := w.config()
			cfg.Limit = 20 * time.Second
			got := make(chan error, 1)
			var l Lease
			go func() {
				client, lease, err := Acquire(t.Context(), cfg)
				if l = lease; err == nil {
					client.Close()
				}
				got <- err
			}()
			w.w.saw(t, "DISCOVER to all")
			w.box.IP(c.stop)
			time.Sleep(1500 * time.Millisecond) // it asks in vain
			if c.plug {
				w.plug()
			} else {
				w.box.IP(c.start)
			}
			w.serve(t, dhcpOnly(newServer().answer))
			if err := <-got; err != nil {
				t.Fatal(err)
			}
			expect(t, "address", l.Address().String(), "192.0.2.7/24")
		})
	}
}

// TestWireMacvlan: two endpoints on one parent have leases of their own.
func TestWireMacvlan(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	s := newServer()
	s.change = func(m *v4.DHCPv4) { m.YourIPAddr = net.IPv4(192, 0, 2, m.ClientHWAddr[5]).To4() }
	w.serve(t, dhcpOnly(s.answer))
	for _, last := range []byte{21, 22} {
		box := kerneltest.NewNS(t)
		mac := ourMAC
		mac[5] = last
		w.box.IP(fmt.Sprintf("link add m%d link eth0 address %s type macvlan mode bridge", last, hardware(mac)))
		w.box.IP(fmt.Sprintf("link set m%d netns /proc/%d/fd/%d", last, os.Getpid(), box.File.Fd()))
		box.IP(fmt.Sprintf("link set m%d name eth0\nlink set eth0 up", last))
		cfg := w.config()
		cfg.MAC, cfg.Do = mac, func(f func() error) error { return netns.Do(box.File, f) }
		_, l := acquired(t, cfg)
		expect(t, "address", l.Address().String(), fmt.Sprintf("192.0.2.%d/24", last))
	}
}

// TestWireIpvlan: endpoints with their parent's MAC are told apart by their ids,
// and hear answers that are sent to everybody.
func TestWireIpvlan(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	if out, err := w.box.Try("ip", "link", "add", "i0", "link", "eth0", "type", "ipvlan", "mode", "l2"); err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "ipvlan", Err: errors.New(strings.TrimSpace(out))})
	}
	ids := map[string]byte{}
	s := newServer()
	s.change = func(m *v4.DHCPv4) {
		id := string(s.last.Options.Get(v4.OptionClientIdentifier))
		if ids[id] == 0 {
			ids[id] = byte(31 + len(ids))
		}
		m.YourIPAddr = net.IPv4(192, 0, 2, ids[id]).To4()
	}
	w.serve(t, dhcpOnly(s.answer))
	for i, want := range []string{"192.0.2.31/24", "192.0.2.32/24"} {
		box := kerneltest.NewNS(t)
		if i > 0 {
			w.box.IP(fmt.Sprintf("link add i%d link eth0 type ipvlan mode l2", i))
		}
		w.box.IP(fmt.Sprintf("link set i%d netns /proc/%d/fd/%d", i, os.Getpid(), box.File.Fd()))
		box.IP(fmt.Sprintf("link set i%d name eth0\nlink set eth0 up", i))
		cfg := w.config()
		cfg.SharedMAC, cfg.Endpoint, cfg.Do = true, want, func(f func() error) error { return netns.Do(box.File, f) }
		_, l := acquired(t, cfg)
		expect(t, "address", l.Address().String(), want)
	}
}

// dnsmasq runs on lan0 until the test ends.
func (w *wire) dnsmasq(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		t.Skip(&probe.NotSupportedError{Feature: "running dnsmasq", Err: err})
	}
	dir := t.TempDir()
	cmd := exec.Command(path, append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=lan0", "--log-dhcp", "--no-ping", "--dhcp-authoritative",
		"--pid-file=" + filepath.Join(dir, "pid"), "--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--log-facility=" + filepath.Join(dir, "log"),
	}, args...)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	w.lan.Do(cmd.Start)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); said.Len() > 0 {
			t.Errorf("dnsmasq: %v\n%s", err, &said)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() {
			t.Logf("dnsmasq:\n%s", b)
		}
	})
}

// TestDnsmasq: the life of a lease with a server that others wrote.
func TestDnsmasq(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.dnsmasq(t, "--dhcp-range=192.0.2.50,192.0.2.59,2m", "--dhcp-option=option:mtu,1400", "--dhcp-option=option:router,192.0.2.1",
		"--dhcp-option=option:classless-static-route,10.0.0.0/8,192.0.2.2,0.0.0.0/0,192.0.2.1", "--domain=corp.example",
		"--dhcp-option=option:domain-search,corp.example,lab.example", "--dhcp-option=option:dns-server,192.0.2.53",
		"--dhcp-option=option:ntp-server,192.0.2.123", "--dhcp-option=option:T1,5", "--dhcp-option=option:T2,100")
	c, l := acquired(t, w.config())
	own := l.Address()
	w.box.IP("addr add " + own.String() + " dev eth0")
	expect(t, "routes", routesOf(l), "10.0.0.0/8 by 192.0.2.2, 0.0.0.0/0 by 192.0.2.1")
	expect(t, "names", fmt.Sprint(l.DNS, l.Domain, l.Search, l.NTP, l.MTU, l.Server, l.Ignored),
		"[192.0.2.53]corp.example[corp.example lab.example] [192.0.2.123] 1400 192.0.2.1 []")
	a := own.Addr().String()
	w.w.saw(t, "DISCOVER to all", "OFFER", "REQUEST to all for "+a+" from 192.0.2.1", "ACK", "ARP 0.0.0.0 for "+a,
		"ARP "+a+" for 192.0.2.1", "REQUEST to 192.0.2.1 at 02:00:00:00:00:01 by "+a, "ACK to "+a)
	for range 100 {
		if slices.Contains(kinds(w.cs.take()), Renewed) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if now, _ := c.Lease(); !now.Expire.After(l.Expire) {
		t.Error("the lease was not prolonged at T1")
	}
	c.Close()

	cfg := w.config()
	cfg.Previous = kept(t, l)
	c, again := acquired(t, cfg)
	expect(t, "after a restart", again.Address(), own)
	w.w.saw(t, "REQUEST to 192.0.2.1", "REQUEST to all for "+a, "ACK")
	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.w.saw(t, "RELEASE to 192.0.2.1 at 02:00:00:00:00:01 by "+a+" from 192.0.2.1")
}

// TestDnsmasqRefuses: a lease of another network is refused, and another taken.
func TestDnsmasqRefuses(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.dnsmasq(t, "--dhcp-range=192.0.2.50,192.0.2.59,2m")
	old, err := testConfig().parse4(ack(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	old.Addresses[0].Prefix = mustPrefix("198.51.100.7/24")
	cfg := w.config()
	cfg.Previous = &old
	_, l := acquired(t, cfg)
	if !mustPrefix("192.0.2.0/24").Contains(l.Address().Addr()) {
		t.Errorf("address %s", l.Address())
	}
	w.w.saw(t, "REQUEST to all for 198.51.100.7", "NAK", "DISCOVER to all for 198.51.100.7", "OFFER", "REQUEST", "ACK")
}

// TestDnsmasqInUse: what another host has is declined, and never given again.
func TestDnsmasqInUse(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.serve(t, owner(otherMAC, netip.MustParseAddr("192.0.2.50")))
	w.dnsmasq(t, "--dhcp-range=192.0.2.50,192.0.2.51,2m", "--dhcp-sequential-ip")
	_, l := acquired(t, w.config())
	expect(t, "address", l.Address().String(), "192.0.2.51/24")
	w.w.saw(t, "REQUEST to all for 192.0.2.50", "ACK", "DECLINE to all for 192.0.2.50 from 192.0.2.1", "DISCOVER to all", "REQUEST to all for 192.0.2.51")
}
