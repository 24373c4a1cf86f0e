package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	v4 "github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

var (
	ourMAC    = netspec.MAC{2, 0, 0, 0, 0, 7}
	serverMAC = netspec.MAC{2, 0, 0, 0, 0, 1}
	otherMAC  = netspec.MAC{2, 0, 0, 0, 0, 9}
	serverIP  = netip.MustParseAddr("192.0.2.1")
)

// lan is a segment without a kernel: who is on it answers frames by frames.
type lan struct {
	mu      sync.Mutex
	hosts   []func(frame []byte) [][]byte
	sockets []*fakeSocket
	down    error    // of the interface
	failing bool     // sending fails, though opening does not
	heard   []string // what the client sent, in words
}

// fakeSocket passes what its filter lets pass.
type fakeSocket struct {
	l    *lan
	vm   *bpf.VM
	in   chan frame
	once sync.Once
}

func (l *lan) open(f filter) (socket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return nil, l.down
	}
	vm, err := bpf.NewVM(f.program()[len(ours):])
	if err != nil {
		return nil, err
	}
	s := &fakeSocket{l: l, vm: vm, in: make(chan frame, waiting)}
	l.sockets = append(l.sockets, s)
	return s, nil
}

func (s *fakeSocket) frames() <-chan frame { return s.in }
func (s *fakeSocket) local() netip.Addr    { return linkLocal(ourMAC) }

func (s *fakeSocket) close() {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.shut()
}

func (s *fakeSocket) shut() {
	s.l.sockets = slices.DeleteFunc(s.l.sockets, func(o *fakeSocket) bool { return o == s })
	s.once.Do(func() { close(s.in) })
}

func (s *fakeSocket) send(b []byte) error {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.l.down != nil || s.l.failing {
		return unix.ENETDOWN
	}
	s.l.heard = append(s.l.heard, words(b))
	for _, h := range s.l.hosts {
		for _, f := range h(b) {
			s.l.deliver(f)
		}
	}
	return nil
}

func (l *lan) deliver(b []byte) {
	for _, s := range l.sockets {
		if n, err := s.vm.Run(b); err == nil && n > 0 {
			select {
			case s.in <- frame{data: b}:
			default:
			}
		}
	}
}

// say sends a frame from somebody else.
func (l *lan) say(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deliver(b)
}

// fail takes the interface down, or up again with nil.
func (l *lan) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = err
	for err != nil && len(l.sockets) > 0 {
		l.sockets[0].shut()
	}
}

// leave makes all other hosts go.
func (l *lan) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts = nil
}

// log is what was heard since the last time.
func (l *lan) log() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.heard
	l.heard = nil
	return h
}

// words says what a frame is: "REQUEST to all for 192.0.2.7 from 192.0.2.1".
func words(b []byte) string {
	switch be.Uint16(b[12:]) {
	case unix.ETH_P_ARP:
		a, _ := readARP(frame{data: b})
		return fmt.Sprintf("ARP %s for %s", a.sender, a.wantedIP)
	case unix.ETH_P_IPV6:
		return words6(b)
	}
	m, err := v4.FromBytes(b[42:])
	if err != nil {
		return err.Error()
	}
	s := m.MessageType().String() + " to " + to(b)
	if !m.ClientIPAddr.IsUnspecified() {
		s += " by " + m.ClientIPAddr.String()
	}
	if a := m.RequestedIPAddress(); a != nil {
		s += " for " + a.String()
	}
	if a := m.ServerIdentifier(); a != nil {
		s += " from " + a.String()
	}
	return s
}

func to(b []byte) string {
	if dst := netip.AddrFrom4([4]byte(b[30:])); dst != all.addr {
		return fmt.Sprintf("%s at %s", dst, net.HardwareAddr(b[:6]))
	}
	return "all"
}

// server is a DHCPv4 server that does as it is told.
type server struct {
	mu      sync.Mutex
	addr    netip.Addr
	give    netip.Addr // what it has to give
	opts    []v4.Option
	silent  map[v4.MessageType]bool // kinds it does not answer
	nak     map[v4.MessageType]bool // kinds it refuses
	change  func(*v4.DHCPv4)        // the answer, before it is sent
	mangle  func([]byte) [][]byte   // the answer's frames
	decline bool                    // it gives the next address after a DECLINE
	last    *v4.DHCPv4              // the last message it got
}

func newServer(opts ...v4.Option) *server {
	return &server{
		addr: serverIP, give: netip.MustParseAddr("192.0.2.7"),
		silent: map[v4.MessageType]bool{}, nak: map[v4.MessageType]bool{},
		opts: append([]v4.Option{
			v4.OptSubnetMask(net.CIDRMask(24, 32)), v4.OptRouter(serverIP.AsSlice()), v4.OptDNS(serverIP.AsSlice()),
			v4.OptIPAddressLeaseTime(time.Hour),
		}, opts...),
	}
}

// with changes the server while it runs.
func (s *server) with(f func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *server) answer(b []byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if be.Uint16(b[12:]) == unix.ETH_P_ARP {
		if a, ok := readARP(frame{data: b}); ok && a.wantedIP == s.addr && a.op == arpRequest {
			return [][]byte{arp{arpReply, serverMAC, s.addr, a.sender}.frame()}
		}
		return nil
	}
	if be.Uint16(b[12:]) != unix.ETH_P_IP || b[23] != unix.IPPROTO_UDP || be.Uint16(b[36:]) != server4 {
		return nil
	}
	m, err := v4.FromBytes(b[42:])
	if err != nil {
		return nil
	}
	return s.reply(m)
}

func (s *server) reply(m *v4.DHCPv4) [][]byte {
	s.last = m
	kind := m.MessageType()
	if kind == v4.MessageTypeDecline && s.decline {
		s.give = s.give.Next()
	}
	answer := map[v4.MessageType]v4.MessageType{v4.MessageTypeDiscover: v4.MessageTypeOffer, v4.MessageTypeRequest: v4.MessageTypeAck}[kind]
	if s.nak[kind] {
		answer = v4.MessageTypeNak
	}
	if answer == v4.MessageTypeNone || s.silent[kind] {
		return nil
	}
	r, err := v4.NewReplyFromRequest(m, v4.WithMessageType(answer), v4.WithOption(optServerID(s.addr)))
	if err != nil {
		return nil
	}
	if answer != v4.MessageTypeNak {
		r.YourIPAddr = ip(s.give)
		for _, o := range s.opts {
			r.UpdateOption(o)
		}
	} else {
		r.UpdateOption(v4.OptMessage("wrong network"))
	}
	if s.change != nil {
		s.change(r)
	}
	f := serverFrame(r.ToBytes(), s.addr)
	if s.mangle != nil {
		return s.mangle(f)
	}
	return [][]byte{f}
}

// serverFrame is a frame from a server to everybody.
func serverFrame(payload []byte, from netip.Addr) []byte {
	b := ethernet(everybody, serverMAC, unix.ETH_P_IP)
	b = be.AppendUint16(append(b, 0x45, 0), uint16(ip4Len+udpLen+len(payload)))
	b = append(append(append(b, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0), from.AsSlice()...), all.addr.AsSlice()...)
	be.PutUint16(b[ethernetLen+10:], ^sum(0, b[ethernetLen:]))
	return append(b, udp(from, all.addr, server4, client4, payload)...)
}

// owner is a host that has addresses.
func owner(mac netspec.MAC, addrs ...netip.Addr) func([]byte) [][]byte {
	return func(b []byte) [][]byte {
		a, ok := readARP(frame{data: b})
		if !ok || !slices.Contains(addrs, a.wantedIP) {
			return nil
		}
		return [][]byte{arp{arpReply, mac, a.wantedIP, a.sender}.frame()}
	}
}

// changes collects what a client says.
type changes struct {
	mu  sync.Mutex
	all []Change
}

func (c *changes) add(ch Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, ch)
}

// take are the changes since the last time.
func (c *changes) take() []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.all
	c.all = nil
	return a
}

func kinds(cs []Change) (ks []Kind) {
	for _, c := range cs {
		ks = append(ks, c.Kind)
	}
	return ks
}

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
