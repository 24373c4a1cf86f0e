package netspec

import (
	"fmt"
	"net/netip"
	"strings"
)

// Namespace is a network namespace with its loopback device up.
type Namespace struct{ NS NS }

func (n Namespace) Key() Key { return Key{RankNamespace, n.NS, ""} }

// MAC is an Ethernet address; zero lets the kernel choose.
type MAC [6]byte

// Kinds of links.
const (
	Bridge = "bridge"
	Veth   = "veth"
)

// Link is a network device, administratively up. A veth is one object with both
// its ends: the peer is made inside PeerNS (never moved there, that costs 19 ms)
// and vanishes with it. A trunk between two bridges has both ends on the host.
type Link struct {
	NS       NS
	Name     string
	Kind     string
	MTU      int // 0: the kernel's default
	MAC      MAC
	Master   string // name of the bridge that it is a port of
	Isolated bool   // bridge port that may not talk to other isolated ports
	Hairpin  bool   // bridge port that may get back what it sent
	PeerNS   NS     // veth only, as all Peer fields
	Peer     string
	PeerMAC  MAC

	PeerMaster   string // name of the bridge in PeerNS that the peer is a port of
	PeerIsolated bool   // as Isolated, of the peer
}

func (l Link) Key() Key { return Key{RankLink, l.NS, l.Name} }

// Addr is an address on a link, without duplicate address detection.
type Addr struct {
	NS     NS
	Link   string
	Prefix netip.Prefix
	Cut    bool // somebody took away the kernel's route to its subnet; nobody plans that
}

func (a Addr) Key() Key { return Key{RankAddr, a.NS, a.Link + " " + a.Prefix.String()} }

// Rule sends what has a source address in From to a routing table of its own.
// Of several that match the one with the lowest priority comes first; the main
// table has 32766.
type Rule struct {
	NS       NS
	From     netip.Prefix
	Table    int
	Priority int
}

func (r Rule) Key() Key {
	return Key{RankRule, r.NS, fmt.Sprintf("from %s table %d priority %d", r.From, r.Table, r.Priority)}
}

// Route is a unicast route. Without Via, Dst is on the link.
type Route struct {
	NS     NS
	Dst    netip.Prefix
	Via    netip.Addr
	Dev    string
	Src    netip.Addr // preferred source, may be zero
	Metric int
	Table  int  // 0: the main table
	OnLink bool // Via is on the link, whatever the other routes say
}

func (r Route) Key() Key {
	id := r.Dst.String()
	if r.Table != 0 {
		id += fmt.Sprint(" table ", r.Table)
	}
	if r.Metric != 0 { // beside the one of another metric
		id += fmt.Sprint(" metric ", r.Metric)
	}
	return Key{RankRoute, r.NS, id}
}

// Sysctl is one value below /proc/sys of a namespace. Name is with slashes,
// below "net/" ("ipv4/conf/eth0/rp_filter").
type Sysctl struct {
	NS    NS
	Name  string
	Value string
}

// Key : forwarding is switched on last, because it changes what the other settings
// of a link mean.
func (s Sysctl) Key() Key {
	if s.Name == "ipv4/ip_forward" || strings.HasSuffix(s.Name, "/forwarding") {
		return Key{RankForwarding, s.NS, s.Name}
	}
	return Key{RankSysctl, s.NS, s.Name}
}
