package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/netspec"
)

// Frames as a malicious container sends them, with a packet socket of its own:
// byte by byte, past its IP stack. Each carries a token by which a witness
// knows it again.

const tokenStart, tokenLen = "isle#", 13

var tokens atomic.Uint64

func token() string { return fmt.Sprintf("%s%08x", tokenStart, tokens.Add(1)) }

// ears hear tokens.
type ears struct {
	mu      sync.Mutex
	waiting map[string]chan struct{}
}

// expect is closed when the token is heard. It is to be called before sending.
func (e *ears) expect(token string) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting == nil {
		e.waiting = map[string]chan struct{}{}
	}
	c := make(chan struct{})
	e.waiting[token] = c
	return c
}

func (e *ears) hear(b []byte) {
	i := bytes.Index(b, []byte(tokenStart))
	if i < 0 || len(b) < i+tokenLen {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t := string(b[i : i+tokenLen])
	if c := e.waiting[t]; c != nil {
		close(c)
		delete(e.waiting, t)
	}
}

// wire is a packet socket on a link: it sends frames and hears those that come.
type wire struct {
	ears
	file *os.File
}

func tap(t testing.TB, ns *os.File, link string) *wire {
	t.Helper()
	w := &wire{}
	if err := netns.Do(ns, func() (err error) { w.file, err = packetSocket(link); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.file.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := w.file.Read(b)
			if err != nil {
				return
			}
			w.hear(b[:n])
		}
	}()
	return w
}

func packetSocket(link string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(link)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: be16(unix.ETH_P_ALL), Ifindex: int(req.Uint32())})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket on %s: %w", link, err)
	}
	return os.NewFile(uintptr(fd), link), nil
}

func be16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

const heard = "heard"

// passes sends what make makes of a token and reports whether the witness hears it.
func passes(from *wire, witness *ears, frame func(token []byte) []byte, patience time.Duration) string {
	t := token()
	c := witness.expect(t)
	if _, err := from.file.Write(frame([]byte(t))); err != nil {
		return err.Error()
	}
	select {
	case <-c:
		return heard
	case <-time.After(patience):
		return blocked
	}
}

// Words for frames.

var (
	broadcast = netspec.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netspec.MAC{0x33, 0x33, 0, 0, 0, 1}
	nobodyMAC = netspec.MAC{2, 0xff, 0, 0, 0, 0x77}
)

const etherARP, ether4, ether6, etherOther = 0x0806, 0x0800, 0x86dd, 0x88b5

func eth(to, from netspec.MAC, typ uint16, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint16(append(to[:], from[:]...), typ), payload...)
}

// arpSays announces that ip is at mac; behind it is room for a token.
func arpSays(mac netspec.MAC, addr netip.Addr, token []byte) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 2}
	b = append(append(b, mac[:]...), addr.AsSlice()...)
	b = append(append(b, mac[:]...), addr.AsSlice()...)
	return append(b, token...)
}

// ipPacket is of the family of its addresses.
func ipPacket(from, to netip.Addr, proto byte, payload []byte) []byte {
	if from.Is6() {
		b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
		b = append(append(append(b, proto, 255), from.AsSlice()...), to.AsSlice()...)
		return append(b, payload...)
	}
	b := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(payload)))
	b = append(append(append(b, 0, 0, 0, 0, 64, proto, 0, 0), from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], sum(b))
	return append(b, payload...)
}

func etherOf(a netip.Addr) uint16 {
	if a.Is4() {
		return ether4
	}
	return ether6
}

// sum is the internet checksum.
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// summed writes the checksum of a transport's packet at an offset.
func summed(from, to netip.Addr, proto byte, b []byte, at int) []byte {
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(b)))
	pseudo = append(binary.BigEndian.AppendUint32(pseudo, uint32(proto)), b...)
	if proto == unix.IPPROTO_ICMP {
		pseudo = b
	}
	binary.BigEndian.PutUint16(b[at:], sum(pseudo))
	return b
}

func udp(from, to netip.Addr, dport uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(serial(payload)[:2], dport)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...)
	return ipPacket(from, to, unix.IPPROTO_UDP, summed(from, to, unix.IPPROTO_UDP, b, 6))
}

// Flags of TCP. Together they are nonsense, which conntrack calls invalid.
const fin, syn = 1, 2

func segment(from, to netip.Addr, port uint16, flags byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(serial(payload)[:2], port)
	b = append(append(b, make([]byte, 8)...), 5<<4, flags, 4, 0, 0, 0, 0, 0)
	b = append(b, payload...)
	return ipPacket(from, to, unix.IPPROTO_TCP, summed(from, to, unix.IPPROTO_TCP, b, 16))
}

func ping(from, to netip.Addr, payload []byte) []byte {
	proto, typ := byte(unix.IPPROTO_ICMP), byte(8)
	if from.Is6() {
		proto, typ = unix.IPPROTO_ICMPV6, 128
	}
	return ipPacket(from, to, proto, summed(from, to, proto, append(append([]byte{typ, 0, 0, 0}, serial(payload)...), payload...), 2))
}

// serial is a number of four bytes that makes one packet no part of another's flow.
func serial(token []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(token))
}

const icmpRA, icmpNS, icmpNA, icmpRedirect = 134, 135, 136, 137

// icmp6 is a message of ICMPv6: type, code, checksum, body.
func icmp6(from, to netip.Addr, typ byte, body ...[]byte) []byte {
	b := append([]byte{typ, 0, 0, 0}, bytes.Join(body, nil)...)
	return summed(from, to, unix.IPPROTO_ICMPV6, b, 2)
}

func nd(from, to netip.Addr, typ byte, body ...[]byte) []byte {
	return ipPacket(from, to, unix.IPPROTO_ICMPV6, icmp6(from, to, typ, body...))
}

// linkOption is a source (1) or target (2) link-layer address option.
func linkOption(kind byte, m netspec.MAC) []byte { return append([]byte{kind, 1}, m[:]...) }

// tokenOption is an option that nobody knows and everybody skips.
func tokenOption(token []byte) []byte {
	return append([]byte{253, 2}, append(token, make([]byte, 14-len(token))...)...)
}

func hw(m netspec.MAC) string { return net.HardwareAddr(m[:]).String() }
