package netspec

import (
	"fmt"
	"net/netip"
)

// KindVXLAN is the kernel's name for the kind of link of VXLAN.
const KindVXLAN = "vxlan"

// VXLAN is a tunnel of the host (RFC 7348) and a port of bridge Master. It learns
// nothing: where frames go is said by FDB and Flood, and what they do not say goes
// nowhere. Through it the bridge answers ARP and neighbour discovery itself for every
// Neigh on the bridge. One without Master is in no bridge: only programs use it.
type VXLAN struct {
	Name   string
	VNI    uint32
	Local  netip.Addr // where the tunnel begins; zero: where the link does that a packet leaves by, over IPv6
	Port   uint16     // UDP, at all its ends
	Via    string     // link with which it goes; "": it stays
	MTU    int
	Master string
	Whole  bool // over IPv4 its packets are not cut into fragments: what does not fit is lost
}

func (v VXLAN) Key() Key { return Key{RankLink, "", v.Name} }

// FDB says behind which end of a tunnel a station is.
type FDB struct {
	Link string // a VXLAN
	MAC  MAC
	Dst  netip.Addr
	Via  string // link that frames leave by, and by no other; "": as they are routed
	// Alone: the tunnel is in no bridge whose table would have the station too.
	Alone bool
}

func (f FDB) Key() Key { return Key{RankNeigh, "", fmt.Sprintf("fdb %s %x", f.Link, f.MAC)} }

// Hop is the way to an address that is behind another host, which is next to this one:
// a route by an interface of the host that is not ours.
type Hop struct {
	To  netip.Addr
	Via netip.Addr // the other host, of the family of To
	Dev string
}

func (h Hop) Key() Key { return Key{RankRoute, "", "hop " + h.To.String()} }

// Across lets in a container of another host that does not come by the tunnel: what has
// Addr as its source and comes in by Way may go to what is behind Link, as frames may.
type Across struct {
	Link string // the bridge
	Addr netip.Addr
	Way  string // interface of the host
}

func (a Across) Key() Key { return Key{RankFilter, "", "across " + a.Link + " " + a.Addr.String()} }

// Shortcut hands frames to the host's routing that are for a container of another host:
// containers send them to its own MAC address, whichever way there is.
type Shortcut struct {
	Link    string // the bridge
	Addr    netip.Addr
	MAC     MAC
	Gateway MAC // the bridge's
}

func (s Shortcut) Key() Key { return Key{RankFilter, "", "shortcut " + s.Addr.String()} }

// Flood is an end of a tunnel that gets a copy of each broadcast and multicast frame.
type Flood struct {
	Link string // a VXLAN
	Dst  netip.Addr
	Via  string // as of FDB
}

func (f Flood) Key() Key {
	return Key{RankNeigh, "", "flood " + f.Link + " " + f.Dst.String() + by(f.Via)}
}

// Tunnel is a UDP port at which tunnels of this host end. Only TunnelPeers may send to
// it, and no program may send to theirs. With Via it is for what comes by that link
// only, or by another one for which it is said too, whoever sent it.
type Tunnel struct {
	Port uint16
	Via  string
}

func (t Tunnel) Key() Key { return Key{RankTunnel, "", fmt.Sprint("tunnel ", t.Port) + by(t.Via)} }

// by is the part of a key that says by which link.
func by(link string) string {
	if link == "" {
		return ""
	}
	return " by " + link
}

// TunnelPeer is where another host's tunnels begin.
type TunnelPeer struct{ Addr netip.Addr }

func (p TunnelPeer) Key() Key { return Key{RankTunnel, "", "tunnel peer " + p.Addr.String()} }

// WireGuard is a link of the host whatever is sent by which is encrypted. The private key
// is in no object: who makes the link finds it by the public one.
type WireGuard struct {
	Name   string
	Public string // key, base64
	Port   uint16 // UDP
	MTU    int
}

func (w WireGuard) Key() Key { return Key{RankLink, "", w.Name} }

// Peer is who may be at the other end of a WireGuard link, and who is the only one to have
// an address there.
type Peer struct {
	Link    string
	Public  string // key, base64
	At      netip.AddrPort
	Allowed netip.Addr
	Awake   bool // there is always a session, not only when there is something to send
}

func (p Peer) Key() Key { return Key{RankNeigh, "", "peer " + p.Link + " " + p.Public} }
