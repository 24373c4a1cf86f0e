package netspec

import (
	"fmt"
	"net/netip"
)

// Segment is one subnet of a network behind one of our bridges. It is what the
// firewall needs to deny by ingress interface: an address inside Subnet may be
// reached from Link only, and from elsewhere only by what Access says.
type Segment struct {
	Link       string       // the bridge
	Subnet     netip.Prefix // masked; invalid: the LAN's, which is not known here: frames only pass on Link
	Masquerade bool         // source NAT for what leaves by another interface
	Internal   bool         // nothing leaves, nothing enters
	Access     Access
	Leaf       bool // frames only pass on Link, whose name has LeafBridge: what is routed is routed on another bridge of the network
}

// LeafBridge follows the prefix of our links in the names of leaf bridges.
const LeafBridge = "b"

// TunnelLink follows it in the names of the tunnels of overlay networks.
const TunnelLink = "x"

// Access is who may come to the addresses of a segment themselves. Published
// ports of the host are another matter: they need no grant.
type Access string

// Grants of access.
const (
	AccessNone   Access = ""       // nobody
	AccessOpen   Access = "open"   // everybody to ports that are Open, and pings
	AccessDirect Access = "direct" // everybody to everything
)

func (s Segment) Key() Key {
	return Key{RankFilter, "", "segment " + s.Link + " " + s.Subnet.String()}
}

// Entrance lets what comes in by an interface of the host go to the ports of a
// segment that are Open, though the segment grants no access.
type Entrance struct {
	Link   string       // the bridge
	Subnet netip.Prefix // masked
	From   string       // the interface
}

func (e Entrance) Key() Key {
	return Key{RankFilter, "", "entrance " + e.Link + " " + e.Subnet.String() + " " + e.From}
}

// Open is a port of a container, or Count of them in a row, that may be reached
// at the container's own address where its segment's access, or an Entrance,
// lets anybody so far.
type Open struct {
	Link  string
	To    netip.Addr
	Proto string
	Port  uint16
	Count uint16
	From  netip.Prefix // who may; masked; invalid: everybody
}

func (o Open) Key() Key {
	return Key{RankFilter, "", fmt.Sprintf("open %s %s %d %s", o.Proto, o.To, o.Port, o.From)}
}

// Publish gives one host port, or Count of them with equal offsets, to a
// container. HostIP is a local address, or the unspecified address of a family
// for every local address of that family but loopback ones (see Loopback). With
// Iface it is the addresses of that interface, whichever they are, for what
// comes in by it; HostIP then only says the family.
type Publish struct {
	Proto    string // tcp, udp, sctp
	HostIP   netip.Addr
	Iface    string
	HostPort uint16
	Count    uint16 // ports in a row, at least 1
	To       netip.Addr
	ToPort   uint16
	Link     string // the bridge that To is behind
}

func (p Publish) Key() Key {
	return Key{RankFilter, "", fmt.Sprintf("publish %s %s %d", p.Proto, at(p.HostIP, p.Iface), p.HostPort)}
}

// at is where a port is published.
func at(ip netip.Addr, iface string) string {
	if iface == "" {
		return ip.String()
	}
	return ip.String() + " on " + iface
}

// Allow is one prefix that may reach a published port; where there is one, all
// others may not. The fields are those of the Publish. What the host itself
// sends is not asked.
type Allow struct {
	Proto    string
	HostIP   netip.Addr
	Iface    string
	HostPort uint16
	Count    uint16
	From     netip.Prefix // masked, of HostIP's family
}

func (a Allow) Key() Key {
	return Key{RankFilter, "", fmt.Sprintf("allow %s %s %d %s", a.Proto, at(a.HostIP, a.Iface), a.HostPort, a.From)}
}

// Loopback sends the host's own connections to 127.0.0.1:HostPort or
// [::1]:HostPort to a container, at connect(2), so that no packet with a
// loopback address ever leaves the machine's lo. HostIP is 127.0.0.0/8 or ::1.
type Loopback struct {
	Proto    string // tcp, udp
	HostIP   netip.Addr
	HostPort uint16
	Count    uint16 // ports in a row, at least 1
	To       netip.Addr
	ToPort   uint16
}

func (l Loopback) Key() Key {
	return Key{RankFilter, "", fmt.Sprintf("loopback %s %s %d", l.Proto, l.HostIP, l.HostPort)}
}

// Source is what the port of a container may send: frames from MAC, with Addr as
// their source (and in their ARP and neighbour advertisements). A port without a
// Source may send anything. Addr may be a prefix: a container that routes.
type Source struct {
	Link string // the host's end of the veth
	MAC  MAC
	Addr netip.Prefix
}

func (s Source) Key() Key { return Key{RankFilter, "", "source " + s.Link + " " + s.Addr.String()} }

// Stray is something in our firewall that no object stands for: it is there to be
// deleted. Nobody plans one.
type Stray struct{ ID string }

func (s Stray) Key() Key { return Key{RankFilter, "", "stray " + s.ID} }

// Guard stands on one of our bridges and lets in what the firewall has passed,
// and nothing when there is no firewall. Of an internal network nothing leaves
// either.
type Guard struct {
	Link     string
	Internal bool
}

func (g Guard) Key() Key { return Key{RankGuard, "", g.Link} }

// PortGuard stands at the host's end of a container's link and drops neighbour
// advertisements for addresses that the sender does not send from. (Who may send
// from which is a Source's business.)
type PortGuard struct {
	NS   NS // the container's
	Link string
}

func (g PortGuard) Key() Key { return Key{RankFilter, g.NS, "port guard " + g.Link} }

// DNSRedirect sends what processes in NS send to 127.0.0.11:53, UDP and TCP, to
// 127.0.0.11:Port in the same namespace. Nothing is bound to port 53 there.
type DNSRedirect struct {
	NS   NS
	Port uint16
}

func (d DNSRedirect) Key() Key { return Key{RankFilter, d.NS, "dns"} }
