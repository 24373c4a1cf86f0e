package dhcp

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	v6 "github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

var (
	routerIP   = netip.MustParseAddr("fe80::1")
	serverIP6  = netip.MustParseAddr("fe80::53")
	serverDUID = []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 1}
	give6      = netip.MustParseAddr("2001:db8::7")
)

// words6 says what a frame of IPv6 is: "REQUEST for 2001:db8::7".
func words6(b []byte) string {
	if len(b) < 62 {
		return ""
	}
	body := b[ethernetLen+ip6Len:]
	switch b[20] {
	case unix.IPPROTO_ICMPV6:
		switch body[0] {
		case routerSolicitation:
			return "RS"
		case routerAdvertisement:
			return "RA"
		case neighbourSolicitation:
			if src := netip.AddrFrom16([16]byte(b[22:])); src.IsUnspecified() {
				return "NS for " + netip.AddrFrom16([16]byte(body[8:])).String()
			}
		}
	case unix.IPPROTO_UDP:
		if p := be.Uint16(body[2:]); p == client6 || p == server6 {
			return wordsOf(body[8:])
		}
	}
	return ""
}

func wordsOf(b []byte) string {
	m, err := v6.MessageFromBytes(b)
	if err != nil {
		return err.Error()
	}
	s := m.MessageType.String()
	if ia := m.Options.OneIANA(); ia != nil {
		for _, a := range ia.Options.Addresses() {
			s += " for " + a.IPv6Addr.String()
		}
	}
	return s
}

// serverV6 is a DHCPv6 server that does as it is told.
type serverV6 struct {
	mu        sync.Mutex
	give      netip.Addr
	duid      []byte
	preferred time.Duration
	valid     time.Duration
	t1, t2    time.Duration
	rapid     bool
	silent    map[v6.MessageType]bool
	status    map[v6.MessageType]iana.StatusCode // of the IA, or of the message where there is none
	change    func(*v6.Message)
	last      *v6.Message
	decline   bool
}

func newServer6() *serverV6 {
	return &serverV6{
		give: give6, duid: serverDUID, preferred: time.Hour, valid: 2 * time.Hour,
		silent: map[v6.MessageType]bool{}, status: map[v6.MessageType]iana.StatusCode{},
	}
}

func (s *serverV6) with(f func(*serverV6)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// answer is to frames; words of ICMPv6 are none of its business.
func (s *serverV6) answer(b []byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if be.Uint16(b[12:]) != unix.ETH_P_IPV6 || b[20] != unix.IPPROTO_UDP || be.Uint16(b[56:]) != server6 {
		return nil
	}
	m, err := v6.MessageFromBytes(b[62:])
	if err != nil || s.silent[m.MessageType] {
		return nil
	}
	s.last = m
	if d, ok := m.Options.GetOne(v6.OptionServerID).(interface{ ToBytes() []byte }); ok && string(d.ToBytes()) != string(s.duid) {
		return nil
	}
	r := s.reply(m)
	if s.change != nil {
		s.change(r)
	}
	src := netip.AddrFrom16([16]byte(b[22:]))
	return [][]byte{frame6(serverMAC, ourMAC, serverIP6, src, unix.IPPROTO_UDP, udp(serverIP6, src, server6, client6, r.ToBytes()))}
}

func (s *serverV6) reply(m *v6.Message) *v6.Message {
	r := &v6.Message{MessageType: v6.MessageTypeReply, TransactionID: m.TransactionID}
	rapid := s.rapid && m.GetOneOption(v6.OptionRapidCommit) != nil
	if m.MessageType == v6.MessageTypeSolicit && !rapid {
		r.MessageType = v6.MessageTypeAdvertise
	}
	if rapid {
		r.AddOption(generic(v6.OptionRapidCommit, nil))
	}
	r.AddOption(m.GetOneOption(v6.OptionClientID))
	r.AddOption(generic(v6.OptionServerID, s.duid))
	r.AddOption(v6.OptDNS(ip(netip.MustParseAddr("2001:db8::53"))))
	r.AddOption(v6.OptDomainSearchList(&rfc1035label.Labels{Labels: []string{"corp.example"}}))
	code, refused := s.status[m.MessageType]
	switch m.MessageType {
	case v6.MessageTypeConfirm, v6.MessageTypeDecline, v6.MessageTypeRelease:
		r.AddOption(&v6.OptStatusCode{StatusCode: code})
		if m.MessageType == v6.MessageTypeDecline && s.decline {
			s.give = s.give.Next()
		}
		return r
	case v6.MessageTypeInformationRequest:
		return r
	}
	ia := &v6.OptIANA{IaId: m.Options.OneIANA().IaId, T1: s.t1, T2: s.t2}
	if refused {
		ia.Options.Add(&v6.OptStatusCode{StatusCode: code, StatusMessage: "no"})
	} else {
		ia.Options.Add(&v6.OptIAAddress{IPv6Addr: ip(s.give), PreferredLifetime: s.preferred, ValidLifetime: s.valid})
	}
	r.AddOption(ia)
	return r
}

// frame6 is a frame to one host.
func frame6(from, to netspec.MAC, src, dst netip.Addr, protocol byte, payload []byte) []byte {
	b := ip6(from, src, dst, protocol, 255, payload)
	copy(b, to[:])
	return b
}

// ra is a router advertisement in the making.
type ra struct {
	from     netip.Addr
	flags    byte
	lifetime uint16
	options  []byte
}

const managed, other = 0x80, 0x40

func (r ra) prefix(p string, flags byte, valid, preferred time.Duration) ra {
	n := netip.MustParsePrefix(p)
	o := []byte{ndPrefix, 4, byte(n.Bits()), flags}
	o = be.AppendUint32(be.AppendUint32(o, uint32(valid/time.Second)), uint32(preferred/time.Second))
	r.options = append(r.options[:len(r.options):len(r.options)], append(append(o, 0, 0, 0, 0), n.Addr().AsSlice()...)...)
	return r
}

func (r ra) server(long time.Duration, addrs ...string) ra {
	o := be.AppendUint32([]byte{ndDNS, byte(1 + 2*len(addrs)), 0, 0}, uint32(long/time.Second))
	for _, a := range addrs {
		o = append(o, netip.MustParseAddr(a).AsSlice()...)
	}
	r.options = append(r.options[:len(r.options):len(r.options)], o...)
	return r
}

func (r ra) raw(b ...byte) ra {
	r.options = append(r.options[:len(r.options):len(r.options)], b...)
	return r
}

func (r ra) frame() []byte {
	from := r.from
	if !from.IsValid() {
		from = routerIP
	}
	body := be.AppendUint16([]byte{64, r.flags}, r.lifetime)
	body = append(append(body, 0, 0, 0, 0, 0, 0, 0, 0), r.options...)
	return icmp6(serverMAC, from, allNodes, routerAdvertisement, body)
}

// routerOf answers solicitations.
func routerOf(r *ra) func([]byte) [][]byte {
	return func(b []byte) [][]byte {
		if words(b) == "RS" {
			return [][]byte{r.frame()}
		}
		return nil
	}
}

// owner6 is a host that has an address.
func owner6(mac netspec.MAC, a netip.Addr) func([]byte) [][]byte {
	return func(b []byte) [][]byte {
		if words(b) != "NS for "+a.String() {
			return nil
		}
		body := append([]byte{0x20, 0, 0, 0}, a.AsSlice()...)
		return [][]byte{icmp6(mac, a, allNodes, neighbourAdvertisement, body)}
	}
}

func showAddrs(l Lease) string {
	var s []string
	for _, a := range l.Addresses {
		s = append(s, fmt.Sprintf("%s %s", a.Source, a.Prefix))
	}
	return fmt.Sprint(s)
}
