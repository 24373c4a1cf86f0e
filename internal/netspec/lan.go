package netspec

import "net/netip"

// Kinds of a LAN.
const (
	Macvlan = "macvlan"
	IPvlan  = "ipvlan"
)

// VLAN is an 802.1q interface of the host on another one of its interfaces.
type VLAN struct {
	Name   string
	Parent string
	ID     uint16
}

func (v VLAN) Key() Key { return Key{RankParent, "", v.Name} }

// Dummy is an interface of the host that leads nowhere: what has it for a parent
// reaches each other and nobody else.
type Dummy struct{ Name string }

func (d Dummy) Key() Key { return Key{RankParent, "", d.Name} }

// LAN is an interface on the wire of an interface of the host, its parent. It is
// made inside NS under its name, and is never moved or renamed.
type LAN struct {
	NS     NS
	Name   string
	Kind   string // Macvlan or IPvlan
	Parent string // on the host
	Mode   string // bridge, private, vepa or passthru; l2, l3 or l3s
	Flag   string // IPvlan's: bridge, private or vepa
	MAC    MAC    // zero where it is the parent's: IPvlan, passthru
	MTU    int
}

func (l LAN) Key() Key { return Key{RankLink, l.NS, l.Name} }

// Neigh says where an address is on a link, for good: nobody is asked.
type Neigh struct {
	NS   NS
	Link string
	Addr netip.Addr
	MAC  MAC
}

func (n Neigh) Key() Key { return Key{RankNeigh, n.NS, n.Link + " " + n.Addr.String()} }
