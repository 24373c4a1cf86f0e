package cluster

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/cluster/pki"
	"isle/internal/fabric"
)

// strangers: who is in no cluster says that they are. Datagrams for a tunnel reach a
// container only when a host of the cluster has sent them: not from a host on the same
// segment, not from a program of a host, and not from a container.
func strangers(s *site) {
	h4, c1, c4 := s.all[3], s.box(1, "c1"), s.box(4, "c4")
	v, err := s.read(h4)
	s.must(err)
	to := v.of("c4", "app")
	port := 40000
	var l *net.UDPConn
	s.must(inside(c4.pid, func() (err error) { l, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}); return err }))
	defer l.Close()
	frame := forge(v.networks[to.Network].VNI, to, v.of("c1", "app"), port)
	at := net.JoinHostPort(h4.addr(), "4789")
	heard := func() bool {
		l.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		_, err := l.Read(make([]byte, 100))
		return err == nil
	}
	s.must(within("/run/netns/"+s.all[0].name, func() error { return s.inject(s.all[0], frame, h4.addr()) }))
	if !heard() {
		s.t.Fatal("a datagram that seems to be of the kernel of a host is not taken: the others prove nothing")
	}
	s.do("ip netns add $S-stranger")
	s.t.Cleanup(func() { shell(s.here("ip netns del $S-stranger")) })
	s.do(strings.SplitN(wiring, "\n", 2)[1], s.name+"-stranger", "east", 2, 77)
	for who, path := range map[string]string{
		"a stranger on the segment": "/run/netns/" + s.name + "-stranger", "a program of another host": "/run/netns/" + s.all[0].name,
		"a program of the host": "/run/netns/" + h4.name, "a container of another host": "/proc/" + c1.pid + "/ns/net", "a container of the host": "/proc/" + c4.pid + "/ns/net",
	} {
		s.must(within(path, func() error {
			c, err := net.Dial("udp4", at)
			if err != nil {
				return err
			}
			defer c.Close()
			c.Write(frame) // what is not let out is an error, or silence
			return nil
		}))
		if heard() {
			s.t.Errorf("%s has sent into the network app", who)
		}
	}
}

// of is an endpoint.
func (v view) of(container, network string) fabric.Endpoint {
	i := slices.IndexFunc(v.endpoints, func(e fabric.Endpoint) bool { return e.Container == container && v.networks[e.Network].Name == network })
	return v.endpoints[i]
}

// forge is a datagram's content (RFC 7348 section 5) with a frame to one container that
// seems to be of another: UDP to a port.
func forge(vni uint32, to, from fabric.Endpoint, port int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, vni<<8)
	b = append(append(b, station(to)...), station(from)...)
	b = append(b, 8, 0)
	return append(b, packet(from.Addrs[0].Addr(), to.Addrs[0].Addr(), port, port, []byte("x"))...)
}

// packet is IPv4 (RFC 791) with UDP in it (RFC 768), which has no checksum.
func packet(from, to netip.Addr, source, dest int, content []byte) []byte {
	u := binary.BigEndian.AppendUint16(nil, uint16(source))
	u = binary.BigEndian.AppendUint16(u, uint16(dest))
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(content)))
	u = append(append(u, 0, 0), content...)
	h := append(binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(u))), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum+sum>>16))
	return append(h, u...)
}

// inject has a datagram leave a host as if its kernel had made it: no socket has a part in
// it that the host could ask.
func (s *site) inject(h *host, content []byte, to string) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	gateway, err := router(h)
	if err != nil {
		return err
	}
	dst := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: link.Index, Halen: uint8(len(gateway))}
	copy(dst.Addr[:], gateway)
	return unix.Sendto(fd, packet(netip.MustParseAddr(h.addr()), netip.MustParseAddr(to), 50000, 4789, content), 0, dst)
}

// router is the MAC address of a host's way out.
func router(h *host) (net.HardwareAddr, error) {
	for _, e := range h.entries("ip", "-4", "neigh", "show", "dev", "eth0") {
		if strings.HasSuffix(e.Dst, ".254") && e.LLAddr != "" {
			return net.ParseMAC(e.LLAddr)
		}
	}
	return nil, fmt.Errorf("%s does not know its router", h.name)
}

// forged: who has made certificates of their own for the cluster's name is refused at
// every port of a member.
func forged(s *site) {
	h1 := s.all[0]
	real, err := pki.Load(filepath.Join(h1.Dir, "data", "cluster"))
	s.must(err)
	ca, err := pki.NewCA(pki.ClusterOf(real.CA()))
	s.must(err)
	key, request, err := pki.NewKey()
	s.must(err)
	cert, err := ca.Sign(request, pki.Subject{ID: real.Cert().Leaf.Subject.CommonName, Name: h1.name, Addr: netip.MustParseAddr(h1.addr())})
	s.must(err)
	mine, err := pki.Write(s.t.TempDir(), ca.Cert, cert, key)
	s.must(err)
	for port, proto := range map[string]string{"2377": "http/1.1", "2379": "h2", "2380": "http/1.1"} {
		conf := mine.ClientTLS()
		conf.InsecureSkipVerify, conf.NextProtos = true, []string{proto} // the forger minds nothing
		c, err := tls.Dial("tcp", h1.addr()+":"+port, conf)
		if err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(2 * time.Second))
		c.Write([]byte("GET /members HTTP/1.1\r\nHost: x\r\n\r\n"))
		if b := make([]byte, 100); true {
			n, err := c.Read(b)
			if err == nil && n > 0 {
				s.t.Errorf("port %s answers one with a forged certificate: %q", port, bytes.TrimSpace(b[:n]))
			}
		}
		c.Close()
	}
}
