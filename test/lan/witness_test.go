package lan

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	v4 "github.com/insomniacslk/dhcp/dhcpv4"
	v6 "github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
)

// witness writes down, a line each, the frames that pass an interface in both
// directions. It hears them from the kernel, and shares no code with what it watches.
type witness struct {
	t    *testing.T
	mu   sync.Mutex
	seen []string
}

// watch begins at once; it ends with the test.
func watch(t *testing.T, ns kerneltest.NS, iface string) *witness {
	t.Helper()
	w := &witness{t: t}
	var fd int
	ns.Do(func() (err error) {
		fd, err = packetSocket(iface)
		return err
	})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.listen(fd, stop)
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		unix.Close(fd)
		if t.Failed() {
			t.Logf("seen on %s:\n%s", iface, strings.Join(w.seen, "\n"))
		}
	})
	return w
}

// packetSocket hears all frames of an interface. Those that the host sends are turned by
// it before they are heard; the deadline lets the listener look up.
func packetSocket(iface string) (fd int, err error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return -1, err
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index})
	}
	return fd, err
}

func (w *witness) listen(fd int, stop chan struct{}) {
	b := make([]byte, 65536)
	for {
		select {
		case <-stop:
			return
		default:
		}
		if n, _, err := unix.Recvfrom(fd, b, 0); err == nil && n > 14 {
			w.mu.Lock()
			w.seen = append(w.seen, words(b[:n]))
			w.mu.Unlock()
		}
	}
}

// forget begins a new page.
func (w *witness) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = nil
}

// lines are those that match.
func (w *witness) lines(pattern string) (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	re := regexp.MustCompile("^" + pattern)
	for _, l := range w.seen {
		if re.MatchString(l) {
			out = append(out, l)
		}
	}
	return out
}

// saw waits until frames that match were seen, in this order, others between them.
func (w *witness) saw(patterns ...string) {
	w.t.Helper()
	var missing string
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if missing = inOrder(w.lines(""), patterns); missing == "" {
			return
		}
	}
	w.t.Errorf("never seen on the wire in this order: %q\nthe first that is missing: %s", patterns, missing)
}

// inOrder is the first pattern that no line matches after those of the ones before it.
func inOrder(lines, patterns []string) string {
	for _, p := range patterns {
		re, found := regexp.MustCompile("^"+p), false
		for len(lines) > 0 && !found {
			found, lines = re.MatchString(lines[0]), lines[1:]
		}
		if !found {
			return p
		}
	}
	return ""
}

// not checks that no frame matched.
func (w *witness) not(pattern string) {
	w.t.Helper()
	if found := w.lines(pattern); len(found) > 0 {
		w.t.Errorf("on the wire, where it should not be:\n%s", strings.Join(found, "\n"))
	}
}

// words says what a frame is: "MAC > MAC: what".
func words(b []byte) string {
	return fmt.Sprintf("%s > %s: %s", net.HardwareAddr(b[6:12]), net.HardwareAddr(b[:6]), inside(binary.BigEndian.Uint16(b[12:]), b[14:]))
}

func inside(kind uint16, b []byte) string {
	switch {
	case kind == unix.ETH_P_ARP && len(b) >= 28:
		return arp(b)
	case kind == unix.ETH_P_IP && len(b) >= 28:
		return ip4(b)
	case kind == unix.ETH_P_IPV6 && len(b) >= 48:
		return ip6(b)
	}
	return fmt.Sprintf("type %#04x", kind)
}

func arp(b []byte) string {
	from, about := netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	switch {
	case from.IsUnspecified():
		return fmt.Sprintf("ARP probe %s", about)
	case from == about:
		return fmt.Sprintf("ARP announce %s at %s", about, net.HardwareAddr(b[8:14]))
	case binary.BigEndian.Uint16(b[6:]) == 2:
		return fmt.Sprintf("ARP %s is at %s", from, net.HardwareAddr(b[8:14]))
	}
	return fmt.Sprintf("ARP %s asks for %s", from, about)
}

func ip4(b []byte) string {
	way := fmt.Sprintf("%s > %s", netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])))
	body := b[min(len(b), int(b[0]&15)*4):]
	if b[9] != unix.IPPROTO_UDP || len(body) < 8 || !anyPort(body, 67, 68) {
		return "IP " + way
	}
	m, err := v4.FromBytes(body[8:])
	if err != nil {
		return "DHCP " + err.Error()
	}
	about := m.YourIPAddr
	if about.IsUnspecified() {
		about = m.ClientIPAddr
	}
	if a := m.RequestedIPAddress(); a != nil {
		about = a
	}
	return fmt.Sprintf("DHCP %s %s (%s)", m.MessageType(), about, way)
}

func anyPort(udp []byte, ports ...uint16) bool {
	for _, p := range ports {
		if binary.BigEndian.Uint16(udp) == p || binary.BigEndian.Uint16(udp[2:]) == p {
			return true
		}
	}
	return false
}

func ip6(b []byte) string {
	way := fmt.Sprintf("%s > %s", netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])))
	switch body := b[40:]; {
	case b[6] == unix.IPPROTO_ICMPV6:
		return icmp6(body, way)
	case b[6] == unix.IPPROTO_UDP && anyPort(body, 546, 547):
		return dhcp6(body[8:], way)
	}
	return "IP " + way
}

func icmp6(b []byte, way string) string {
	about := ""
	if len(b) >= 24 {
		about = netip.AddrFrom16([16]byte(b[8:])).String()
	}
	switch b[0] {
	case 133:
		return "RS " + way
	case 134:
		return "RA " + way
	case 135:
		return fmt.Sprintf("NS %s (%s)", about, way)
	case 136:
		if b[4]&0x40 == 0 {
			return fmt.Sprintf("NA announce %s (%s)", about, way)
		}
		return fmt.Sprintf("NA %s (%s)", about, way)
	}
	return "IP " + way
}

func dhcp6(b []byte, way string) string {
	m, err := v6.MessageFromBytes(b)
	if err != nil {
		return "DHCPv6 " + err.Error()
	}
	s := "DHCPv6 " + m.MessageType.String()
	if ia := m.Options.OneIANA(); ia != nil {
		for _, a := range ia.Options.Addresses() {
			s += " " + a.IPv6Addr.String()
		}
	}
	return s + " (" + way + ")"
}
