package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/netspec"
)

// What our firewall promises, as a list of questions. Each asks by one fresh
// connection, datagram or frame, so that they can be asked together and again.
// Every rule and every element has one that only it decides: TestMutation
// shows that.

type question struct {
	name    string
	run     func(patience time.Duration) string
	want    string
	touches string // words of the rules and elements that decide, for TestMutation to try it first
}

// policy is a machine with a network of every kind and two neighbours: "lan",
// and "transit" whose interface is trusted with network 1.
type policy struct {
	*machine
	ns        map[string]kerneltest.NS
	wires     map[string]*wire
	want      netspec.State
	atHost    *ears // what UDP port 9999 of the host gets
	questions []question
}

// Numbers of networks.
const (
	natNet, nat2Net, internalNet, routedNet, directNet, plainNet = 1, 2, 3, 4, 5, 6
	secondSubnet                                                 = 11 // of natNet
	router, inSecond                                             = "c1-4", "c1-3"
)

// The MAC addresses of the host's interfaces outside.
var outsideMAC = map[string]netspec.MAC{"lan": {2, 3, 0, 0, 0, 2}, "transit": {2, 3, 0, 0, 0, 3}}

var policyNets = map[int]netspec.Segment{
	natNet: {Masquerade: true}, nat2Net: {Masquerade: true}, internalNet: {Internal: true},
	routedNet: {Access: netspec.AccessOpen}, directNet: {Access: netspec.AccessDirect, Masquerade: true}, plainNet: {},
}

// both is an address of each family.
type both [2]string

func gateway(n int) both { return both{fmt.Sprintf("10.%d.0.1", n), fmt.Sprintf("fd00:%d::1", n)} }
func member(n, i int) both {
	return both{fmt.Sprintf("10.%d.0.%d", n, i+1), fmt.Sprintf("fd00:%d::%d", n, i+1)}
}

var (
	anywhere = both{"0.0.0.0", "::"}
	hostAt   = both{"192.0.2.1", "2001:db8::1"}
	lanAt    = both{"192.0.2.2", "2001:db8::2"}
	lanToo   = both{"192.0.2.22", "2001:db8::22"}
	farAt    = both{"198.51.100.3", "2001:db8:100::3"}
	nobodyAt = both{"10.77.0.77", "fd00:77::77"}
)

func (b both) addr(f int) netip.Addr { return ip(b[f]) }

// url is where a port of it is.
func (b both) url(f int, port int) string {
	return netip.AddrPortFrom(ip(b[f]), uint16(port)).String()
}

func newPolicy(t testing.TB, opts ...option) *policy {
	m := newMachine(t, opts...)
	bridgesCall(m.host, "0")
	p := &policy{machine: m, ns: map[string]kerneltest.NS{"host": m.host}, wires: map[string]*wire{}, want: netspec.State{}, atHost: &ears{}}
	p.outside()
	for n, s := range policyNets {
		p.want = merge(p.want, bridge(n, s))
		for i := 1; i <= 2; i++ {
			p.container(n, i)
		}
	}
	p.second()
	p.container(natNet, 4)
	p.routers()
	p.grants()
	p.tunnels()
	p.across()
	p.apply(p.want)
	p.inside()
	return p
}

// bridgesCall says whether br_netfilter, where it is loaded, shows what bridges
// forward to the chains of routed packets.
func bridgesCall(host kerneltest.NS, v string) {
	for _, f := range []string{"iptables", "ip6tables", "arptables"} {
		_, _ = host.Try("sysctl", "-w", "net/bridge/bridge-nf-call-"+f+"="+v)
	}
}

// container adds one that is held to its addresses. The second one of the direct network is not.
func (p *policy) container(n, i int) {
	c, ns := container(n, i)
	p.want = merge(p.want, c)
	p.ns[string(ns)] = kerneltest.NS{}
	if n == directNet && i == 2 {
		return
	}
	for _, a := range member(n, i) {
		p.source(n, i, ip(a))
	}
	p.source(n, i, ownLinkLocal(macOf(n, i)))
}

func macOf(n, i int) netspec.MAC { return netspec.MAC{2, 2, 0, 0, byte(n), byte(i)} }

func (p *policy) source(n, i int, a netip.Addr) { p.prefix(n, i, netip.PrefixFrom(a, a.BitLen())) }
func (p *policy) prefix(n, i int, from netip.Prefix) {
	p.want.Add(netspec.Source{Link: fmt.Sprintf("isv%d-%d", n, i), MAC: macOf(n, i), Addr: from})
}

// ownLinkLocal is the address that the kernel gives an interface by itself.
func ownLinkLocal(m netspec.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// second is the second subnet of the first network, with a container in it.
func (p *policy) second() {
	for _, o := range bridge(secondSubnet, policyNets[natNet]) {
		switch o := o.(type) {
		case netspec.Segment:
			o.Link = "isbr1"
			p.want.Add(o)
		case netspec.Addr:
			o.Link = "isbr1"
			p.want.Add(o)
		}
	}
	c, ns := container(natNet, 3)
	p.ns[string(ns)] = kerneltest.NS{}
	for k, o := range c {
		if a, ok := o.(netspec.Addr); ok {
			delete(c, k)
			a.Prefix = netip.PrefixFrom(ip(member(secondSubnet, 3)[familyOf(a.Prefix.Addr())]), a.Prefix.Bits())
			c.Add(a)
		}
		if r, ok := o.(netspec.Route); ok {
			delete(c, k)
			r.Via = ip(gateway(secondSubnet)[familyOf(r.Via)])
			c.Add(r)
		}
	}
	p.want = merge(p.want, c)
	for _, a := range member(secondSubnet, 3) {
		p.source(natNet, 3, ip(a))
	}
	p.source(natNet, 3, ownLinkLocal(macOf(natNet, 3)))
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// routers are a container that routes for the world, and one for a prefix.
func (p *policy) routers() {
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		p.prefix(natNet, 4, pfx(all))
	}
	for _, some := range []string{"10.8.0.0/24", "fd00:8::/64"} {
		p.prefix(natNet, 2, pfx(some))
	}
}

// grants are what others may come to.
func (p *policy) grants() {
	allow := [2]netip.Prefix{pfx("192.0.2.0/24"), pfx("2001:db8::/64")}
	for f := range 2 {
		to := member(natNet, 1).addr(f)
		for _, g := range []struct {
			at        both
			port      uint16
			count     uint16
			to        uint16
			iface     string
			allow     netip.Prefix
			proto     string
			elsewhere netip.Addr
			link      string
		}{
			{at: anywhere, port: 8080, to: 80},
			{at: anywhere, port: 8080, to: 80, proto: "udp"},
			{at: hostAt, port: 8081, to: 80},
			{at: anywhere, port: 7000, count: 3, to: 7000},
			{at: hostAt, port: 7100, count: 3, to: 7100},
			{at: anywhere, port: 6000, count: 2, to: 7000},
			{at: anywhere, port: 8090, to: 80, iface: "up2"},
			{at: anywhere, port: 7200, count: 3, to: 7200, iface: "up2"},
			{at: hostAt, port: 8082, to: 80, allow: allow[f]},
			{at: anywhere, port: 7300, count: 3, to: 7300, allow: allow[f]},
			{at: anywhere, port: 8091, to: 80, iface: "up2", allow: netip.PrefixFrom(lanAt.addr(f), lanAt.addr(f).BitLen())},
			{at: anywhere, port: 8083, to: 80, elsewhere: member(internalNet, 1).addr(f), link: "isbr3"},
			{at: anywhere, port: 8084, to: 80, elsewhere: member(routedNet, 1).addr(f), link: "isbr4"},
		} {
			pub := netspec.Publish{Proto: "tcp", HostIP: g.at.addr(f), Iface: g.iface, HostPort: g.port, Count: max(g.count, 1), To: to, ToPort: g.to, Link: "isbr1"}
			if g.proto != "" {
				pub.Proto = g.proto
			}
			if g.link != "" {
				pub.To, pub.Link = g.elsewhere, g.link
			}
			p.want.Add(pub)
			if g.allow.IsValid() {
				p.want.Add(netspec.Allow{Proto: pub.Proto, HostIP: pub.HostIP, Iface: pub.Iface, HostPort: pub.HostPort, Count: pub.Count, From: g.allow})
			}
		}
		p.want.Add(
			netspec.Entrance{Link: "isbr1", Subnet: netip.PrefixFrom(to, []int{24, 64}[f]).Masked(), From: "up3"},
			netspec.Open{Link: "isbr1", To: to, Proto: "tcp", Port: 90, Count: 1},
			netspec.Open{Link: "isbr1", To: to, Proto: "tcp", Port: 91, Count: 2},
			netspec.Open{Link: "isbr4", To: member(routedNet, 1).addr(f), Proto: "tcp", Port: 80, Count: 1},
			netspec.Open{Link: "isbr4", To: member(routedNet, 1).addr(f), Proto: "tcp", Port: 7000, Count: 3},
			netspec.Open{Link: "isbr4", To: member(routedNet, 1).addr(f), Proto: "tcp", Port: 90, Count: 1, From: netip.PrefixFrom(lanAt.addr(f), lanAt.addr(f).BitLen())},
			netspec.Open{Link: "isbr4", To: member(routedNet, 1).addr(f), Proto: "tcp", Port: 91, Count: 2, From: allow[f]})
	}
}

// UDP ports of tunnels: one for lanAt and nobody else, and one for what comes by up3.
const tunnelPort, sealedPort = 4789, 4790

// tunnels are the ports, with the peer. Programs stand in for the tunnels.
func (p *policy) tunnels() {
	p.want.Add(netspec.Tunnel{Port: tunnelPort}, netspec.Tunnel{Port: sealedPort, Via: "up3"})
	for f, a := range lanAt {
		p.want.Add(netspec.TunnelPeer{Addr: ip(a)})
		for _, at := range []both{lanAt, lanToo} { // who has two addresses must answer with the one that was asked
			serveUDPAs(p.t, p.ns["lan"].File, "lan", at.url(f, tunnelPort))
			serveUDPAs(p.t, p.ns["lan"].File, "lan", at.url(f, sealedPort))
		}
	}
	for _, who := range []string{"host", "transit"} {
		for _, port := range []int{tunnelPort, sealedPort} {
			serveUDPAs(p.t, p.ns[who].File, who, fmt.Sprint(":", port))
		}
	}
}

// askTunnels : who may speak for a tunnel.
func (p *policy) askTunnels(f int, s string) {
	others := both{"198.51.100.1", "2001:db8:100::1"}
	for _, q := range []struct {
		name, from, network, local string
		to                         both
		port                       int
		want, touches              string
	}{
		{"from a peer", "lan", "udp", lanAt[f], hostAt, tunnelPort, answer("host", tunnelPort, lanAt[f]), "peers" + s},
		{"from a stranger", "lan", "udp", lanToo[f], hostAt, tunnelPort, blocked, "arrived tunnels"},
		{"from a stranger elsewhere", "transit", "udp", "", hostAt, tunnelPort, blocked, "arrived tunnels"},
		{"from a stranger, no tunnel", "lan", "tcp", lanToo[f], hostAt, tunnelPort, answer("host", tunnelPort, lanToo[f]), "arrived no tunnel"},
		{"sealed, from outside (CVE-2023-28840)", "lan", "udp", lanAt[f], hostAt, sealedPort, blocked, "arrived sealed"},
		{"sealed, from where it must", "transit", "udp", "", others, sealedPort, answer("host", sealedPort, farAt[f]), "arrived seals"},
		{"sealed, from a stranger outside (CVE-2023-28842)", "lan", "udp", lanToo[f], hostAt, sealedPort, blocked, "arrived sealed"},
		{"sealed, from outside, no tunnel", "lan", "tcp", "", hostAt, sealedPort, answer("host", sealedPort, lanAt[f]), "arrived no tunnel"},
		{"by a program", "host", "udp", "", lanAt, tunnelPort, blocked, "spoken peers" + s + " tunnels"},
		{"by a program, to a stranger", "host", "udp", "", lanToo, tunnelPort, answer("lan", tunnelPort, hostAt[f]), "spoken"},
		{"by a program, no tunnel", "host", "tcp", "", lanAt, tunnelPort, answer("lan", tunnelPort, hostAt[f]), "spoken no tunnel"},
		{"sealed, by a program", "host", "udp", "", farAt, sealedPort, blocked, "spoken seals"},
		{"sealed, by a program, another way", "host", "udp", "", lanAt, sealedPort, answer("lan", sealedPort, hostAt[f]), "spoken seals"},
		{"sealed, by a program, no tunnel", "host", "tcp", "", farAt, sealedPort, answer("transit", sealedPort, others[f]), "spoken no tunnel"},
		{"by a container", "c1-1", "udp", "", lanAt, tunnelPort, blocked, "ingress peers" + s + " tunnels"},
		{"by a container, to a stranger", "c1-1", "udp", "", lanToo, tunnelPort, answer("lan", tunnelPort, hostAt[f]), "ingress a container speaks"},
		{"by a container, another port", "c1-1", "udp", "", lanAt, sealedPort, answer("lan", sealedPort, hostAt[f]), "ingress a container speaks"},
		{"by a container, no tunnel", "c1-1", "tcp", "", lanAt, tunnelPort, answer("lan", tunnelPort, hostAt[f]), "ingress a container speaks"},
		{"through this host", "transit", "udp", "", lanAt, tunnelPort, answer("lan", tunnelPort, farAt[f]), "ingress a container speaks"},
	} {
		p.calls("tunnel "+q.name, call{from: q.from, network: q.network, local: q.local, to: q.to.url(f, q.port)}, q.want, q.touches)
	}
	mark := int(p.table.GuardMark())
	p.calls("tunnel by isled", call{from: "host", network: "udp", to: lanAt.url(f, tunnelPort), mark: mark}, answer("lan", tunnelPort, hostAt[f]), "spoken isled peers"+s+" tunnels")
	p.calls("tunnel, sealed, by isled", call{from: "host", network: "udp", to: farAt.url(f, sealedPort), mark: mark}, answer("transit", sealedPort, others[f]), "spoken isled seals")
}

// outside makes the neighbours, and a host that helps those who attack it.
func (p *policy) outside() {
	for _, s := range []string{"all/route_localnet=1", "all/rp_filter=0", "default/rp_filter=0", "all/send_redirects=0", "default/send_redirects=0"} {
		p.host.Run("sysctl", "-w", "net/ipv4/conf/"+s)
	}
	p.ns["lan"], p.ns["transit"] = p.machine.lan(2), p.machine.lan(3)
	for who, n := range map[string]int{"lan": 2, "transit": 3} {
		p.host.IP(fmt.Sprintf("link set up%d address %s", n, hw(outsideMAC[who])))
	}
	p.host.IP(`addr add fe80::2:1/64 dev up2 nodad
		route replace 198.51.100.0/24 dev up3 src 198.51.100.1 mtu 1300`)
	p.ns["lan"].IP(`addr add 192.0.2.22/24 dev lan2
		addr add 2001:db8::22/64 dev lan2 nodad preferred_lft 0`)
	for who, link := range map[string]string{"lan": "lan2", "transit": "lan3"} {
		p.wires[who] = tap(p.t, p.ns[who].File, link)
		serveAs(p.t, p.ns[who].File, who, 80, 77, 88, 7201, 7301, 8080, 8090, 8091, tunnelPort, sealedPort)
	}
	ports := []int{tunnelPort, sealedPort, 22, 24, 25, 8080, 8081, 8082, 8083, 8084, 8090, 8091, 6000, 6001}
	for i := range 3 {
		ports = append(ports, 7000+i, 7100+i, 7200+i, 7300+i)
	}
	serveAs(p.t, p.host.File, "host", ports...)
	p.listen()
}

// listen makes atHost hear.
func (p *policy) listen() {
	var u net.PacketConn
	p.host.Do(func() (err error) { u, err = net.ListenPacket("udp", ":9999"); return err })
	p.t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 1<<10)
		for {
			n, _, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			p.atHost.hear(b[:n])
		}
	}()
}

// inside starts what runs in the containers. The first two of each network go
// to each other through the gateway.
func (p *policy) inside() {
	for name := range p.ns {
		if !strings.HasPrefix(name, "c") {
			continue
		}
		p.start(name)
	}
	for n := range policyNets {
		for i := 1; i <= 2; i++ {
			for f, bits := range []int{32, 128} {
				p.ns[fmt.Sprintf("c%d-%d", n, i)].IP(fmt.Sprintf("route add %s/%d via %s", member(n, 3-i)[f], bits, gateway(n)[f]))
			}
		}
	}
}

// start is what runs in a container.
func (p *policy) start(name string) {
	c := p.in(netspec.NS(name))
	p.ns[name], p.wires[name] = c, tap(p.t, c.File, "eth0")
	serveAs(p.t, c.File, name, 80, 77, 90, 91, 92, 7000, 7001, 7002, 7101, 7201, 7301)
	c.Run("sysctl", "-w", "net/ipv6/conf/eth0/accept_redirects=0", "net/ipv6/conf/all/accept_redirects=0")
}

// serveAs answers, on every address of a namespace, with a name, the port and
// who asks; on TCP port 88 with the largest segment that it may send.
func serveAs(t testing.TB, ns *os.File, name string, ports ...int) {
	t.Helper()
	err := netns.Do(ns, func() error {
		for _, port := range ports {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go answerTCP(l, name, port)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	serveUDPAs(t, ns, name, ":80")
}

func serveUDPAs(t testing.TB, ns *os.File, name, at string) {
	t.Helper()
	var u net.PacketConn
	if err := netns.Do(ns, func() (err error) { u, err = net.ListenPacket("udp", at); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go answerUDP(u, name)
}

func answerTCP(l net.Listener, name string, port int) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if port == 88 {
			fmt.Fprintf(c, "%d", maxSegment(c))
		} else {
			fmt.Fprintf(c, "%s:%d from %s", name, port, host(c.RemoteAddr()))
		}
		c.Close()
	}
}

func answerUDP(u net.PacketConn, name string) {
	b := make([]byte, 100)
	for {
		_, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		_, port, _ := net.SplitHostPort(u.LocalAddr().String())
		_, _ = u.WriteTo(fmt.Appendf(nil, "%s:%s from %s", name, port, host(from)), from)
	}
}

func maxSegment(c net.Conn) (n int) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	}
	return n
}

// call is one connection or datagram, and what came back.
type call struct {
	from, network, to string
	local             string // the address to call from
	port              int    // with it
	segment           bool   // answer with our own largest segment
	mark              int    // of the packets
}

func (p *policy) call(c call, patience time.Duration) (answer string) {
	err := netns.Do(p.ns[c.from].File, func() error {
		d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
			return errors.Join(lingerNot(c.network, raw), marked(c.mark, raw))
		}}
		if c.local != "" {
			if d.LocalAddr = (&net.TCPAddr{IP: net.ParseIP(c.local), Port: c.port}); c.network == "udp" {
				d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(c.local), Port: c.port}
			}
		}
		conn, err := d.DialContext(context.Background(), c.network, c.to)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if c.network == "udp" {
			_, _ = conn.Write([]byte("hello"))
		}
		b := make([]byte, 100)
		n, err := conn.Read(b)
		answer = string(b[:n])
		if c.segment {
			answer = fmt.Sprint(maxSegment(conn))
		}
		return err
	})
	if err != nil && (answer == "" || err != io.EOF) {
		return blocked
	}
	return answer
}

// lingerNot ends connections by a reset: nothing is left to wait for.
func lingerNot(network string, raw syscall.RawConn) (err error) {
	if network == "tcp" {
		_ = raw.Control(func(fd uintptr) {
			err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
	}
	return err
}

func marked(mark int, raw syscall.RawConn) (err error) {
	if mark != 0 {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
	}
	return err
}

func (p *policy) add(q question) { p.questions = append(p.questions, q) }

func (p *policy) calls(name string, c call, want, touches string) {
	p.add(question{name + ": " + c.from + " " + c.network + " " + c.to, func(d time.Duration) string { return p.call(c, d) }, want, touches})
}

// answer is what container name says on a port to a client.
func answer(name string, port int, client string) string {
	return fmt.Sprintf("%s:%d from %s", name, port, client)
}

func (p *policy) frame(name, from string, witness *ears, frame func(token []byte) []byte, want, touches string) {
	p.add(question{name, func(d time.Duration) string { return passes(p.wires[from], witness, frame, d) }, want, touches})
}

// ask lists all questions. bpf says whether there are guards and redirects.
func (p *policy) ask(bpf bool) *policy {
	for f, s := range []string{"4", "6"} {
		p.askPublished(f, s)
		p.askLimited(f, s)
		p.askThrough(f, s)
		p.askNetworks(f, s, bpf)
		p.askOpen(f, s)
		p.askSources(f, s)
		p.askTunnels(f, s)
		p.askAcross(f, s)
	}
	p.askOddities(bpf)
	p.askARP()
	p.askND()
	p.askHidden()
	if bpf {
		p.askPorts()
	}
	return p
}

// askPublished : where published ports lead, and the client's address.
func (p *policy) askPublished(f int, s string) {
	client := lanAt[f]
	for _, q := range []struct {
		name    string
		port    int
		inside  int
		touches string
	}{
		{"every address", 8080, 80, "anyports" + s + " tcp 8080 prerouting jump publish"},
		{"one address", 8081, 80, "ports" + s + " 8081"},
		{"range", 7000, 7000, "anyranges" + s + " 7000"},
		{"range, end", 7002, 7002, "anyranges" + s},
		{"range of one address", 7101, 7101, "ranges" + s + " 7100"},
		{"other numbers", 6000, 7000, "anyports" + s + " 6000"},
		{"other numbers, end", 6001, 7001, "anyports" + s + " 6001"},
		{"interface", 8090, 80, "ifports" + s + " 8090"},
		{"range of an interface", 7201, 7201, "ifranges" + s + " 7200"},
	} {
		p.calls(q.name, call{from: "lan", network: "tcp", to: hostAt.url(f, q.port)}, answer("c1-1", q.inside, client), q.touches)
	}
	p.calls("every address, udp", call{from: "lan", network: "udp", to: hostAt.url(f, 8080)}, answer("c1-1", 80, client), "anyports"+s+" udp 8080")
	p.calls("interface, by another", call{from: "transit", network: "tcp", to: hostAt.url(f, 8090)}, answer("host", 8090, farAt[f]), "ifports")
	p.calls("interface, by another, its address", call{from: "transit", network: "tcp", to: hostAt.url(f, 7201)}, answer("host", 7201, farAt[f]), "ifranges")
	others := both{"198.51.100.1", "2001:db8:100::1"}
	p.calls("interface, address of another", call{from: "lan", network: "tcp", to: others.url(f, 8090)}, answer("host", 8090, client), "ifports")
	p.calls("range of an interface, address of another", call{from: "lan", network: "tcp", to: others.url(f, 7201)}, answer("host", 7201, client), "ifranges")
	p.calls("into a routed network", call{from: "lan", network: "tcp", to: hostAt.url(f, 8084)}, answer("c4-1", 80, client), "anyports"+s+" 8084")
	p.calls("into an internal network", call{from: "lan", network: "tcp", to: hostAt.url(f, 8083)}, blocked, "internal isbr3 nothing enters anyports"+s+" 8083")
	p.frame("into an internal network, one segment, IPv"+s, "lan", &p.wires["c3-1"].ears, func(token []byte) []byte {
		return eth(outsideMAC["lan"], nobodyMAC, etherOf(lanAt.addr(f)), segment(lanAt.addr(f), hostAt.addr(f), 8083, syn, token))
	}, blocked, "internal nothing enters")
	p.calls("host to itself, one address", call{from: "host", network: "tcp", to: hostAt.url(f, 8081)}, answer("c1-1", 80, hostAt[f]), "output ports"+s+" 8081")
	p.calls("host to itself", call{from: "host", network: "tcp", to: hostAt.url(f, 8080)}, answer("c1-1", 80, hostAt[f]), "output")
	p.calls("hairpin", call{from: "c1-2", network: "tcp", to: hostAt.url(f, 8080)}, answer("c1-1", 80, gateway(natNet)[f]), "hairpin segments"+s)
	p.calls("hairpin without masquerading", call{from: "c4-2", network: "tcp", to: hostAt.url(f, 8084)}, answer("c4-1", 80, gateway(routedNet)[f]), "hairpin segments"+s+" isbr4")
	p.calls("hairpin from the second subnet", call{from: inSecond, network: "tcp", to: hostAt.url(f, 8080)}, answer("c1-1", 80, gateway(natNet)[f]), "hairpin segments"+s)
	p.calls("a sibling by a published port", call{from: "c2-1", network: "tcp", to: hostAt.url(f, 8080)}, answer("c1-1", 80, gateway(natNet)[f]), "anyports")
}

func (p *policy) askLimited(f int, s string) {
	for _, q := range []struct {
		name, from, local string
		port              int
		want, touches     string
	}{
		{"allowed", "lan", "", 8082, answer("c1-1", 80, lanAt[f]), "allowed" + s + " ports" + s + " 8082"},
		{"not allowed", "transit", "", 8082, blocked, "limited" + s + " 8082"},
		{"not allowed, a sibling", "c2-1", "", 8082, blocked, "limited" + s + " 8082"},
		{"row, not allowed, a sibling", "c2-1", "", 7301, blocked, "limited" + s + " 7300"},
		{"not allowed, its own network", "c1-2", "", 8082, blocked, "limited" + s + " 8082"},
		{"row, allowed", "lan", "", 7301, answer("c1-1", 7301, lanAt[f]), "allowed" + s + " anyranges" + s + " 7300"},
		{"row, not allowed", "transit", "", 7301, blocked, "limited" + s + " 7300"},
		{"interface, allowed", "lan", lanAt[f], 8091, answer("c1-1", 80, lanAt[f]), "ifallowed" + s + " ifports" + s + " 8091"},
		{"interface, not allowed", "lan", lanToo[f], 8091, blocked, "iflimited" + s + " 8091"},
	} {
		p.calls(q.name, call{from: q.from, local: q.local, network: "tcp", to: hostAt.url(f, q.port)}, q.want, q.touches)
	}
	own := member(nat2Net, 1)[f] // masquerading keeps the port
	p.calls("out by a port that is limited here", call{from: "c2-1", local: own, port: 7302, network: "tcp", to: farAt.url(f, 80)},
		answer("transit", 80, both{"198.51.100.1", "2001:db8:100::1"}[f]), "limited"+s+" ct")
	p.calls("out by a port that is limited here by interface", call{from: "c2-1", local: own, port: 8091, network: "tcp", to: lanToo.url(f, 80)},
		answer("lan", 80, hostAt[f]), "iflimited"+s+" ct")
}

// askThrough : what only passes through the host, or does not leave it, is not
// taken for its own, whatever is published (CVE-2025-67499).
func (p *policy) askThrough(f int, s string) {
	for _, q := range []struct {
		from, local string
		to          both
		port        int
		touches     string
	}{
		{"lan", "", farAt, 8080, "CVE-2025-67499"},
		{"lan", "", farAt, 8090, "prerouting ifports" + s},
		{"lan", "", farAt, 7201, "prerouting ifranges" + s},
		{"transit", "", lanAt, 7301, "limited" + s},
		{"lan", lanToo[f], farAt, 8091, "iflimited" + s},
		{"host", "", lanAt, 8080, "output"},
	} {
		client := map[string]string{"lan": lanAt[f], "transit": farAt[f], "host": hostAt[f]}[q.from]
		if q.local != "" {
			client = q.local
		}
		c := call{from: q.from, local: q.local, network: "tcp", to: q.to.url(f, q.port)}
		p.calls("through", c, answer(map[both]string{lanAt: "lan", farAt: "transit"}[q.to], q.port, client), q.touches)
	}
	for _, n := range []int{natNet, nat2Net} {
		p.calls("host to a gateway that is masqueraded", call{from: "host", network: "tcp", to: gateway(n).url(f, 22)}, answer("host", 22, gateway(n)[f]), "does not leave")
	}
	p.calls("host to a gateway", call{from: "host", network: "tcp", to: gateway(plainNet).url(f, 22)}, answer("host", 22, gateway(plainNet)[f]), "in by its own bridge")
	here := both{"127.0.0.1", "::1"}
	p.calls("host to itself, limited", call{from: "host", network: "tcp", to: here.url(f, 7301)}, answer("host", 7301, here[f]), "limited"+s)
}

// askNetworks : each network within, out and from a neighbour.
func (p *policy) askNetworks(f int, s string, bpf bool) {
	out := map[int]string{natNet: hostAt[f], nat2Net: hostAt[f], directNet: hostAt[f], routedNet: member(routedNet, 1)[f], plainNet: member(plainNet, 1)[f]}
	for n, policy := range policyNets {
		name, link, subnet := fmt.Sprintf("network %d", n), fmt.Sprintf("isbr%d", n), " "+strings.TrimSuffix(gateway(n)[f], "1")
		first, second := fmt.Sprintf("c%d-1", n), fmt.Sprintf("c%d-2", n)
		to := func(b both, port int) call { return call{from: first, network: "tcp", to: b.url(f, port)} }
		if !bpf || !policy.Internal { // the guard of an internal network's bridge lets nothing be routed
			p.calls(name+" by its gateway", to(member(n, 2), 80), answer(second, 80, member(n, 1)[f]), "same stays within segments"+s+" "+link)
			p.calls(name+" by its gateway, marked", to(member(n, 2), 77), answer(second, 77, member(n, 1)[f]), "links same passed "+link)
		}
		p.calls(name+" to its host", to(gateway(n), 22), answer("host", 22, member(n, 1)[f]), "segments"+s+" "+link+subnet)
		if policy.Access == netspec.AccessNone {
			p.calls(name+"'s gateway from a neighbour", call{from: "lan", network: "tcp", to: gateway(n).url(f, 22)}, blocked, "nets"+s+subnet)
		}
		if policy.Internal {
			p.calls(name+" out", to(lanAt, 80), blocked, "internal nothing leaves "+link)
			p.frame(name+" out, a datagram, IPv"+s, first, &p.wires["lan"].ears, func(token []byte) []byte {
				return eth(netspec.MAC{2, 0, 0, 0, byte(n), 1}, macOf(n, 1), etherOf(lanAt.addr(f)), udp(member(n, 1).addr(f), lanAt.addr(f), 9998, token))
			}, blocked, "internal nothing leaves "+link)
		} else {
			p.calls(name+" out", to(lanAt, 80), answer("lan", 80, out[n]), "masquerade"+s+subnet+" established answers")
			p.calls(name+" out, not marked", to(lanAt, 77), answer("lan", 77, out[n]), "passed nobody asks")
		}
		if n != directNet {
			p.calls(name+" from a neighbour", call{from: "lan", network: "tcp", to: member(n, 1).url(f, 7101)}, blocked, "nets"+s)
			p.calls(name+" from a sibling", call{from: map[bool]string{true: "c2-2", false: "c6-1"}[n != nat2Net], network: "tcp", to: member(n, 1).url(f, 7101)}, blocked, "nets"+s)
		}
	}
	p.calls("second subnet to its host", call{from: inSecond, network: "tcp", to: gateway(secondSubnet).url(f, 22)}, answer("host", 22, member(secondSubnet, 3)[f]), "segments"+s)
	p.calls("second subnet to the first", call{from: inSecond, network: "tcp", to: member(natNet, 1).url(f, 80)}, answer("c1-1", 80, member(secondSubnet, 3)[f]), "segments"+s)
	p.calls("second subnet out", call{from: inSecond, network: "tcp", to: lanAt.url(f, 80)}, answer("lan", 80, hostAt[f]), "masquerade"+s+" 10.11.0. fd00:11::")
	p.calls("second subnet's gateway from a neighbour", call{from: "lan", network: "tcp", to: gateway(secondSubnet).url(f, 22)}, blocked, "nets"+s+" 10.11.0. fd00:11::")
	p.calls("internal to a sibling's published port", call{from: "c3-1", network: "tcp", to: hostAt.url(f, 8080)}, blocked, "internal nothing leaves")
}

// askOpen : ports at containers' own addresses.
func (p *policy) askOpen(f int, s string) {
	for _, q := range []struct {
		name, from    string
		to            both
		port          int
		want, touches string
	}{
		{"trusted", "transit", member(natNet, 1), 90, answer("c1-1", 90, farAt[f]), "entrances" + s + " openports" + s + " 90"},
		{"trusted, row", "transit", member(natNet, 1), 92, answer("c1-1", 92, farAt[f]), "openranges" + s + " 91"},
		{"trusted, not open", "transit", member(natNet, 1), 80, blocked, "everything else"},
		{"trusted with another network", "transit", gateway(nat2Net), 22, blocked, "nets" + s},
		{"open, not trusted", "lan", member(natNet, 1), 90, blocked, "in by its own bridge"},
		{"open, a sibling", "c2-1", member(natNet, 1), 90, blocked, "in by its own bridge"},
		{"open row, not trusted", "lan", member(natNet, 1), 92, blocked, "in by its own bridge"},
		{"routed", "lan", member(routedNet, 1), 80, answer("c4-1", 80, lanAt[f]), "openports" + s + " 10.4.0. fd00:4::"},
		{"routed, row", "lan", member(routedNet, 1), 7001, answer("c4-1", 7001, lanAt[f]), "openranges" + s + " 7000"},
		{"routed, a sibling", "c6-1", member(routedNet, 1), 80, answer("c4-1", 80, member(plainNet, 1)[f]), "openports" + s},
		{"routed, not open", "lan", member(routedNet, 1), 77, blocked, "everything else"},
		{"open to the sender", "lan", member(routedNet, 1), 90, answer("c4-1", 90, lanAt[f]), "openfrom" + s + " 90"},
		{"open to another", "transit", member(routedNet, 1), 90, blocked, "openfrom" + s},
		{"row, open to the sender", "lan", member(routedNet, 1), 92, answer("c4-1", 92, lanAt[f]), "openfrom" + s + " 91"},
		{"row, open to another", "transit", member(routedNet, 1), 92, blocked, "openfrom" + s},
		{"direct", "lan", member(directNet, 1), 7101, answer("c5-1", 7101, lanAt[f]), "direct" + s},
		{"direct, marked", "lan", member(directNet, 1), 77, answer("c5-1", 77, lanAt[f]), "passed asks for it"},
	} {
		p.calls(q.name, call{from: q.from, network: "tcp", to: q.to.url(f, q.port)}, q.want, q.touches)
	}
	for _, q := range []struct {
		from string
		at   both
		n    int
		want string
	}{{"lan", lanAt, natNet, blocked}, {"lan", lanAt, routedNet, heard}, {"lan", lanAt, directNet, heard}, {"transit", farAt, natNet, blocked}} {
		p.frame(fmt.Sprintf("ping%s from %s to network %d", s, q.from, q.n), q.from, &p.wires[fmt.Sprintf("c%d-1", q.n)].ears, func(token []byte) []byte {
			return eth(outsideMAC[q.from], nobodyMAC, etherOf(q.at.addr(f)), ping(q.at.addr(f), member(q.n, 1).addr(f), token))
		}, q.want, "open"+s+" that is routed to")
	}
}

// partner is who hears the broadcasts of a container.
func partner(c string) string {
	n, i, _ := strings.Cut(c, "-")
	return n + map[bool]string{true: "-2", false: "-1"}[i == "1"]
}

// says is a broadcast datagram of a container.
func says(mac netspec.MAC, from netip.Addr) func(token []byte) []byte {
	to, at := toAll(from)
	return func(token []byte) []byte { return eth(to, mac, etherOf(from), udp(from, at, 9998, token)) }
}

// toAll is whom a frame from an address can be sent to so that all hear it.
func toAll(from netip.Addr) (netspec.MAC, netip.Addr) {
	if from.Is6() {
		return allNodes, ip("ff02::1")
	}
	return broadcast, ip("255.255.255.255")
}

// saysSegment is says by TCP.
func saysSegment(mac netspec.MAC, from netip.Addr) func(token []byte) []byte {
	to, at := toAll(from)
	return func(token []byte) []byte { return eth(to, mac, etherOf(from), segment(from, at, 9998, syn, token)) }
}

// askSources : each container may send from its own addresses and no other.
func (p *policy) askSources(f int, s string) {
	links := map[string]netspec.MAC{}
	for _, o := range p.want {
		src, ok := o.(netspec.Source)
		if !ok || familyOf(src.Addr.Addr()) != f {
			continue
		}
		c := "c" + strings.TrimPrefix(src.Link, "isv")
		links[c] = src.MAC
		from := src.Addr.Addr()
		switch {
		case src.Addr.Bits() == 0:
			from = both{"203.0.113.9", "2001:db8:9::9"}.addr(f)
		case !src.Addr.IsSingleIP():
			from = from.Next()
		}
		p.frame(fmt.Sprintf("%s sends from %s", c, from), c, &p.wires[partner(c)].ears, says(src.MAC, from), heard,
			"sources"+s+" prefixes"+s+" routers"+s+" macs "+src.Link+" "+src.Addr.Addr().String())
	}
	for c, mac := range links {
		if c != router {
			p.frame(fmt.Sprintf("%s sends from another's address %s", c, nobodyAt[f]), c, &p.wires[partner(c)].ears, says(mac, nobodyAt.addr(f)), blocked,
				"guarded isv"+c[1:]+" ip"+s+" another's address")
			p.frame(fmt.Sprintf("%s sends a segment from another's address %s", c, nobodyAt[f]), c, &p.wires[partner(c)].ears, saysSegment(mac, nobodyAt.addr(f)), blocked,
				"guarded isv"+c[1:]+" its own address another's address")
		}
	}
	for _, o := range p.want {
		if seg, ok := o.(netspec.Segment); ok && !seg.Leaf && familyOf(seg.Subnet.Addr()) == f {
			a := seg.Subnet.Addr().As16()
			a[15] = 0x77
			from := netip.AddrFrom16(a).Unmap()
			p.frame(fmt.Sprintf("a router sends from %s", from), router, &p.wires[partner(router)].ears, says(links[router], from), blocked,
				"subnets"+s+" "+seg.Subnet.Addr().String()+" guarded isv1-4")
		}
	}
	p.frame("who is not held sends from anywhere, IPv"+s, "c5-2", &p.wires["c5-1"].ears, says(nobodyMAC, nobodyAt.addr(f)), heard, "not a container's")
}

// askOddities : one question for each rule that has none yet.
func (p *policy) askOddities(bpf bool) {
	lan, here := lanAt.addr(0), hostAt.addr(0)
	for _, q := range []struct {
		name, from    string
		to            netspec.MAC
		witness       *ears
		packet        func(token []byte) []byte
		want, touches string
	}{
		{"CVE-2020-8558: to 127.0.0.1 from outside", "lan", outsideMAC["lan"], p.atHost,
			func(b []byte) []byte { return udp(lan, ip("127.0.0.1"), 9999, b) }, blocked, "stay on lo"},
		{"from 127.0.0.9 outside", "lan", outsideMAC["lan"], p.atHost,
			func(b []byte) []byte { return udp(ip("127.0.0.9"), here, 9999, b) }, blocked, "has a loopback address"},
		{"a datagram to the host", "lan", outsideMAC["lan"], p.atHost,
			func(b []byte) []byte { return udp(lan, here, 9999, b) }, heard, ""},
		{"nonsense of others", "lan", outsideMAC["lan"], &p.wires["transit"].ears,
			func(b []byte) []byte { return segment(lan, farAt.addr(0), 80, syn|fin, b) }, heard, "not ours"},
		{"nonsense of a container, with its inside address", "c1-1", netspec.MAC{2, 0, 0, 0, natNet, 1}, &p.wires["lan"].ears,
			func(b []byte) []byte { return segment(member(natNet, 1).addr(0), lan, 80, syn|fin, b) }, blocked, "inside address"},
		{"nonsense within a direct network", "c5-1", netspec.MAC{2, 0, 0, 0, directNet, 1}, &p.wires["c5-2"].ears,
			func(b []byte) []byte {
				return segment(member(directNet, 1).addr(0), member(directNet, 2).addr(0), 80, syn|fin, b)
			}, heard, "same isbr5"},
	} {
		mac := nobodyMAC
		if q.from != "lan" {
			mac = macOf(int(q.to[4]), 1)
		}
		p.frame(q.name, q.from, q.witness, func(token []byte) []byte { return eth(q.to, mac, ether4, q.packet(token)) }, q.want, q.touches)
	}
	p.calls("to the host, marked", call{from: "c1-1", network: "tcp", to: hostAt.url(0, 24)}, answer("host", 24, member(natNet, 1)[0]), "br_netfilter")
	p.calls("hairpin, marked", call{from: "c1-2", network: "tcp", to: hostAt.url(0, 8081)}, answer("c1-1", 80, gateway(natNet)[0]), "br_netfilter hairpin")
	p.calls("to the host from outside, not marked", call{from: "lan", network: "tcp", to: hostAt.url(0, 25)}, answer("host", 25, lanAt[0]), "br_netfilter")
	p.calls("transit", call{from: "lan", network: "tcp", to: farAt.url(0, 80)}, answer("transit", 80, lanAt[0]), "not ours")
	p.calls("largest segment of others", call{from: "lan", network: "tcp", to: farAt.url(0, 88)}, "1448", "mss")
	p.calls("largest segment of others, back", call{from: "lan", network: "tcp", to: farAt.url(0, 88), segment: true}, "1448", "mss")
	p.calls("largest segment out", call{from: "c1-1", network: "tcp", to: farAt.url(0, 88)}, "1248", "mss from a container")
	p.calls("largest segment in", call{from: "c1-1", network: "tcp", to: farAt.url(0, 88), segment: true}, "1448", "mss")
	p.linkLocal("by an interface", "lan", "[fe80::2:1%lan2]:8090", "host:8090", "prerouting link-local")
	p.linkLocal("from outside", "lan", "[fe80::2:1%lan2]:8080", "host:8080", "prerouting link-local")
	p.linkLocal("from itself", "host", "[fe80::2:1%up2]:8080", "host:8080", "output link-local")
	if bpf {
		p.askRedirects()
		return
	}
	p.calls("loopback", call{from: "host", network: "tcp", to: "127.0.0.1:8080"}, "host:8080 from 127.0.0.1", "loopback is redirected")
	p.calls("loopback", call{from: "host", network: "tcp", to: "[::1]:8080"}, "host:8080 from ::1", "loopback is redirected")
}

func (p *policy) askRedirects() {
	for f, at := range []both{{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}} {
		for _, q := range []struct {
			network    string
			port, want int
		}{{"tcp", 8080, 80}, {"udp", 8080, 80}, {"tcp", 20000, 7000}, {"tcp", 20001, 7001}, {"tcp", 20002, 7002}} {
			p.calls("loopback", call{from: "host", network: q.network, to: at.url(0, q.port)}, answer("c1-1", q.want, gateway(natNet)[f]), "isle_lo isle_rows")
		}
	}
	p.calls("resolver", call{from: "c1-1", network: "udp", to: "127.0.0.11:53"}, answer("resolver", 40053, "127.0.0.1"), "isle_dns")
}

// linkLocal asks the host's own link-local address: who answers is all that counts.
func (p *policy) linkLocal(name, from, to, want, touches string) {
	c := call{from: from, network: "tcp", to: to}
	p.add(question{"link-local " + name, func(d time.Duration) string {
		who, _, _ := strings.Cut(p.call(c, d), " from ")
		return who
	}, want, touches})
}

func (p *policy) askARP() {
	own, addr := macOf(natNet, 1), member(natNet, 1).addr(0)
	arp := func(from string, mac, sha netspec.MAC, spa netip.Addr, name, want, touches string) {
		p.frame("arp: "+name, from, &p.wires[partner(from)].ears, func(token []byte) []byte {
			return eth(broadcast, mac, etherARP, arpSays(sha, spa, token))
		}, want, "arp "+touches)
	}
	arp("c1-1", own, own, addr, "own address", heard, "sources4")
	arp("c1-1", own, own, nobodyAt.addr(0), "another's address", blocked, "speaks of another's address")
	arp("c1-1", own, nobodyMAC, ip("0.0.0.0"), "another's MAC inside", blocked, "speaks of another's MAC")
	arp("c1-1", own, own, ip("0.0.0.0"), "is it free", heard, "is free")
	arp("c1-2", macOf(natNet, 2), macOf(natNet, 2), ip("10.8.0.7"), "for a prefix", heard, "prefixes4")
	other := func(c string, mac netspec.MAC, want, touches string) {
		p.frame(fmt.Sprintf("another protocol from %s by %s", hw(mac), c), c, &p.wires[partner(c)].ears, func(token []byte) []byte {
			return eth(broadcast, mac, etherOther, token)
		}, want, touches)
	}
	other("c1-1", nobodyMAC, blocked, "source another's MAC address")
	for c, mac := range p.held() {
		other(c, mac, heard, "source another's MAC address macs isv"+c[1:])
	}
	for _, inner := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
		p.frame(fmt.Sprintf("nested tags %#x", inner), "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
			return tagged(broadcast, own, etherARP, arpSays(own, addr, token), unix.ETH_P_8021Q, inner)
		}, blocked, "source nested tags")
	}
	dhcp := says(own, ip("0.0.0.0"))
	p.frame("dhcp discover", "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
		return eth(broadcast, own, ether4, udp(ip("0.0.0.0"), ip("255.255.255.255"), 67, token))
	}, heard, "ip4 DHCP")
	p.frame("another's address to the port of DHCP", "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
		return eth(broadcast, own, ether4, udp(nobodyAt.addr(0), ip("255.255.255.255"), 67, token))
	}, blocked, "ip4 DHCP")
	p.frame("from 0.0.0.0, a segment to port 67", "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
		return eth(broadcast, own, ether4, segment(ip("0.0.0.0"), ip("255.255.255.255"), 67, syn, token))
	}, blocked, "ip4 DHCP")
	p.frame("from 0.0.0.0 to another port", "c1-1", &p.wires["c1-2"].ears, dhcp, blocked, "ip4 another's address")
}

func (p *policy) askND() {
	own, addr, all := macOf(natNet, 1), member(natNet, 1).addr(1), ip("ff02::1")
	local, none := ownLinkLocal(own), make([]byte, 4)
	for _, q := range []struct {
		name          string
		from          netip.Addr
		typ           byte
		body          []byte
		want, touches string
	}{
		{"CVE-2020-13401: router advertisement", local, icmpRA, make([]byte, 12), blocked, "no router"},
		{"redirect", local, icmpRedirect, append(none, append(all.AsSlice(), all.AsSlice()...)...), blocked, "better way"},
		{"advertisement of its own", addr, icmpNA, append(none, addr.AsSlice()...), heard, "sources6"},
		{"is it free", ip("::"), icmpNS, append(none, nobodyAt.addr(1).AsSlice()...), heard, "is free"},
	} {
		p.frame("nd: "+q.name, "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
			return eth(allNodes, own, ether6, nd(q.from, all, q.typ, q.body, tokenOption(token)))
		}, q.want, "ip6 "+q.touches)
	}
	for _, first := range []byte{icmpRA, icmpNA, icmpRedirect} { // where the type of ICMPv6 would be
		p.frame(fmt.Sprintf("a datagram that begins with %d", first), "c1-2", &p.wires["c1-1"].ears, func(token []byte) []byte {
			frame := says(macOf(natNet, 2), ip("fd00:8::7"))(token)
			frame[ether+40] = first
			return frame
		}, heard, "ip6 no router better way hides what it says")
	}
	p.frame("a datagram from ::", "c1-1", &p.wires["c1-2"].ears, says(own, ip("::")), blocked, "ip6 is free")
	p.frame("a segment from another's address, IPv6", "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
		return eth(allNodes, own, ether6, segment(nobodyAt.addr(1), all, 80, syn, token))
	}, blocked, "source sources6")
	p.frame("ping from another's address", "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
		return eth(allNodes, own, ether6, ping(nobodyAt.addr(1), all, token))
	}, blocked, "ip6 is free")
	routes := macOf(natNet, 4)
	p.frame("nd: advertisement of a router's own", router, &p.wires[partner(router)].ears, func(token []byte) []byte {
		return eth(allNodes, routes, ether6, nd(ownLinkLocal(routes), all, icmpNA, none, ownLinkLocal(routes).AsSlice(), tokenOption(token)))
	}, heard, "sources6 isv1-4 "+ownLinkLocal(routes).String())
	p.frame("a router sends from another's link-local address", router, &p.wires[partner(router)].ears, says(routes, local), blocked, "ip6 link-local")
}

// askHidden : what stands behind headers of options and in fragments.
func (p *policy) askHidden() {
	own, addr, all := macOf(natNet, 1), member(natNet, 1).addr(1), ip("ff02::1")
	send := func(name string, next byte, payload func(token []byte) []byte, want, touches string) {
		p.frame(name, "c1-1", &p.wires["c1-2"].ears, func(token []byte) []byte {
			return eth(allNodes, own, ether6, ipPacket(addr, all, next, payload(token)))
		}, want, "ip6 "+touches)
	}
	for typ, want := range map[byte]string{icmpNA: blocked, icmpNS: heard} {
		send(fmt.Sprintf("nd: message %d behind options", typ), unix.IPPROTO_HOPOPTS, func(token []byte) []byte {
			return behind(unix.IPPROTO_ICMPV6, icmp6(addr, all, typ, make([]byte, 4), addr.AsSlice(), tokenOption(token)))
		}, want, "hides what it says")
	}
	for next, inside := range map[byte][]byte{
		unix.IPPROTO_DSTOPTS: behind(unix.IPPROTO_ICMPV6, nil), unix.IPPROTO_HOPOPTS: behind(unix.IPPROTO_ICMPV6, nil),
		unix.IPPROTO_ROUTING: behind(unix.IPPROTO_ICMPV6, nil), unix.IPPROTO_FRAGMENT: fragment(unix.IPPROTO_ICMPV6, 0, true, nil),
	} {
		send(fmt.Sprintf("a fragment that goes on with header %d", next), unix.IPPROTO_FRAGMENT, func(token []byte) []byte {
			return fragment(next, 0, next != unix.IPPROTO_FRAGMENT, slices.Concat(inside, make([]byte, 8), token))
		}, blocked, "fragments that hide")
	}
}

// askPorts : each container that is held to its addresses advertises those only.
func (p *policy) askPorts() {
	for c, mac := range p.held() {
		p.frame("nd: advertisement of another's by "+c, c, &p.wires[partner(c)].ears, func(token []byte) []byte {
			return eth(allNodes, mac, ether6, nd(ownLinkLocal(mac), ip("ff02::1"), icmpNA, make([]byte, 4), nobodyAt.addr(1).AsSlice(), tokenOption(token)))
		}, blocked, "port guard isv"+c[1:])
	}
}

// held are the containers that are held to their addresses, and their MAC addresses.
func (p *policy) held() map[string]netspec.MAC {
	out := map[string]netspec.MAC{}
	for _, o := range p.want {
		if src, ok := o.(netspec.Source); ok {
			out["c"+strings.TrimPrefix(src.Link, "isv")] = src.MAC
		}
	}
	return out
}

// guardPorts puts guards at their links.
func (p *policy) guardPorts() {
	needGuards(p.t, p.machine)
	more := netspec.State{}
	for c := range p.held() {
		more.Add(netspec.PortGuard{NS: netspec.NS(c), Link: "isv" + c[1:]})
	}
	p.want = merge(p.want, more)
	p.apply(more)
}

// Patience for an answer: at first, and when it is not what it should be.
const quick, thorough = 150 * time.Millisecond, 600 * time.Millisecond

// wrong asks qs together and returns those that are not answered as they
// should be, each asked again, with what they answered.
func wrong(qs []question) map[string]string { return wrongAfter(quick, qs) }

func wrongAfter(patience time.Duration, qs []question) map[string]string {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out, slots := map[string]string{}, make(chan struct{}, 32)
	for _, q := range qs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if got := q.run(patience); got == q.want {
				return
			}
			if got := q.run(thorough); got != q.want {
				mu.Lock()
				defer mu.Unlock()
				out[q.name] = got
			}
		})
	}
	wg.Wait()
	return out
}

// settled asks until all is as it should be: neighbours have to be found first.
func settled(qs []question) (still map[string]string) {
	for range 5 {
		if still = wrong(qs); len(still) == 0 {
			return nil
		}
		qs = slices.DeleteFunc(slices.Clone(qs), func(q question) bool { _, ok := still[q.name]; return !ok })
	}
	return still
}

// TestPolicy asks everything once.
func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, v := range policyVariants {
		t.Run(v.name, func(t *testing.T) {
			p := v.make(t)
			want := map[string]string{}
			for _, q := range p.questions {
				if _, twice := want[q.name]; twice {
					t.Errorf("two questions %q", q.name)
				}
				want[q.name] = q.want
			}
			bad := settled(p.questions)
			for _, name := range slices.Sorted(maps.Keys(bad)) {
				t.Errorf("%s: %q, want %q", name, bad[name], want[name])
			}
			t.Logf("%d questions", len(p.questions))
		})
	}
}

type variant struct {
	name string
	make func(t testing.TB) *policy
}

var policyVariants = []variant{
	{"nft", func(t testing.TB) *policy { p := newPolicy(t); p.markWitness(); return p.ask(false) }},
	{"br_netfilter", newLeaf},
	{"ebpf", newGuarded},
}

// newGuarded is a policy with guards and redirects.
func newGuarded(t testing.TB) *policy {
	p := newPolicy(t, withBPF)
	needSockAddr(t, p.machine)
	p.guardPorts()
	more := netspec.State{}
	for n, s := range policyNets {
		more.Add(netspec.Guard{Link: fmt.Sprintf("isbr%d", n), Internal: s.Internal})
	}
	for f, at := range []string{"127.0.0.1", "::1"} {
		to := member(natNet, 1).addr(f)
		for _, proto := range []string{"tcp", "udp"} {
			more.Add(netspec.Loopback{Proto: proto, HostIP: ip(at), HostPort: 8080, Count: 1, To: to, ToPort: 80})
		}
		more.Add(netspec.Loopback{Proto: "tcp", HostIP: ip(at), HostPort: 20000, Count: 3, To: to, ToPort: 7000})
	}
	more.Add(netspec.DNSRedirect{NS: "c1-1", Port: 40053})
	p.want = merge(p.want, more)
	p.apply(more)
	serveUDPAs(t, p.ns["c1-1"].File, "resolver", "127.0.0.11:40053")
	return p.ask(true)
}

// markWitness are rules of somebody else: what goes to port 77 is to carry the
// mark of the guards when it enters a bridge of ours, and not when it leaves;
// what goes to the host is to carry it at port 24, in a connection's first packet,
// and not at port 25; hairpin at port 8081 in the others.
func (p *policy) markWitness() {
	p.host.Run("nft", "add table inet witness")
	p.host.Run("nft", "add chain inet witness input { type filter hook input priority 0; }")
	p.host.Run("nft", "add rule inet witness input tcp dport 24 ct state new meta mark & 0x08000000 == 0 drop")
	p.host.Run("nft", "add rule inet witness input tcp dport 25 meta mark & 0x08000000 != 0 drop")
	p.host.Run("nft", "add chain inet witness prerouting { type filter hook prerouting priority -140; }")
	p.host.Run("nft", `add rule inet witness prerouting iifname "isbr1" tcp dport 8081 ct state established meta mark & 0x08000000 == 0 drop`)
	p.host.Run("nft", "add chain inet witness forward { type filter hook forward priority 300; }")
	for _, r := range []string{`iifname "isbr*" oifname != "isbr*" tcp dport 77 meta mark & 0x08000000 != 0 drop`, `oifname "isbr*" tcp dport 77 meta mark & 0x08000000 == 0 drop`} {
		p.host.Run("nft", "add rule inet witness forward "+r)
	}
}

// TestLoopback6 shows why no rule is needed against ::1 from outside: the kernel
// drops it before any chain, and these are gone here.
func TestLoopback6(t *testing.T) {
	p := newPolicy(t)
	p.host.Run("nft", "flush", "ruleset")
	send := func(from, to string, patience time.Duration) string {
		return passes(p.wires["lan"], p.atHost, func(token []byte) []byte {
			return eth(outsideMAC["lan"], nobodyMAC, ether6, udp(ip(from), ip(to), 9999, token))
		}, patience)
	}
	if got := send(lanAt[1], hostAt[1], 5*thorough); got != heard {
		t.Fatalf("an ordinary datagram: %s", got)
	}
	for _, way := range [][2]string{{lanAt[1], "::1"}, {"::1", hostAt[1]}, {"::1", "::1"}} {
		if got := send(way[0], way[1], quick); got != blocked {
			t.Errorf("from %s to %s: %s", way[0], way[1], got)
		}
	}
}
