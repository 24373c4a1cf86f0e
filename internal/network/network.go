// Package network holds networks, sandboxes and endpoints and keeps the kernel
// in step with them. It is the subject of Isle.
//
// A Network is what the user made with "network create". A Sandbox is the
// network namespace of a container. An Endpoint is a sandbox's place on one
// network: its interface, addresses, names and published ports. All three are
// records; the kernel is a function of them (plan.go), and the Manager is the
// only writer of both.
package network

import (
	"net/netip"
	"time"

	"isle/internal/netspec"
	"isle/internal/network/dhcp"
)

// Network is what the user asked for. It is a record: no locks, no handles.
type Network struct {
	ID, Name, Driver string
	Created          time.Time
	IPv4, IPv6       bool
	Pools            []Pool            // at most one for each subnet; several of one family are allowed
	IPAMDriver       string            // "default", "null", IPAMDHCP
	IPAMOptions      map[string]string // as given
	Options          map[string]string // as given; a driver parses them once, into its own struct
	Labels           map[string]string
	Internal         bool
	Attachable       bool
	ConfigOnly       bool
	ConfigFrom       string
	Warnings         []string `json:"-"` // of its making, for the person
	Scope            string   // "local"
	Index            int      // small number, unique on this host, never reused while the network lives: for device names
	Unready          bool     `json:",omitempty"` // others are making it, or taking it away: nobody can be connected
	Idle             bool     `json:"-"`          // of a cluster, and no container of this host is on it: nothing of it is here
	Removed          bool     `json:"-"`          // gone in the cluster; what is here stays until no container is on it
	Leaves           int      // how far it has grown beyond its first bridge (Caps.Room); it does not shrink
}

// Pool is one subnet of a network. Gateway may be invalid (internal, inhibited).
type Pool struct {
	Subnet  netip.Prefix
	Range   netip.Prefix // addresses are taken from here; invalid: the whole subnet
	Gateway netip.Addr
	Aux     map[string]netip.Addr // reserved for others
	Auto    bool                  // Subnet was chosen by us
	Grant   string                `json:",omitempty"` // the name that an ExternalIPAM has for it
}

// Sandbox is the network namespace of one container.
type Sandbox struct {
	ID      string // the container's
	Name    string // the container's
	NS      netspec.NS
	DNSPort uint16 // where its resolver listens, on 127.0.0.11
	DNS     DNSConfig
	Publish []Publish         // its ports; which endpoint carries them follows from the gateway (plan.go)
	Sysctls map[string]string // "net.ipv4.…" of the container, in its namespace
	Router  bool              // it may route for others: NET_ADMIN was given to it
}

// DNSConfig is what a sandbox's resolver does with names that are not ours.
type DNSConfig struct {
	Upstreams []string // "address" or "address:port"; empty: those of the host
}

// Endpoint is one sandbox's place on one network.
type Endpoint struct {
	ID, Network, Sandbox string
	ContainerName        string
	Interface            string // name inside the sandbox, "eth0"
	HostInterface        string // name of the veth's host end
	Addrs                []netip.Prefix
	LinkLocal            []netip.Prefix
	MAC                  netspec.MAC
	Names                []string // DNS names on this network: container name, aliases, short id. The first gives the PTR record
	GwPriority           int
	Leases               map[Family]*dhcp.Lease `json:",omitempty"` // what it asks its LAN for, and was given; Addrs follow from them
	Wish                 *Wish                  `json:",omitempty"` // of one whose interface or addresses others give
	Granted              []Granted              `json:",omitempty"` // by an ExternalIPAM
	Result               *Result                `json:",omitempty"` // what an External driver gave it; Addrs and MAC follow from it
	Leaf                 int                    // which of the network's bridges it is a port of; 0 is the first
	Options              map[string]string      // driver options as given
	// Publish is the part of the sandbox's ports that this endpoint carries. It
	// follows from the sandbox's other endpoints and is not in the record.
	Publish []Publish `json:"-"`
	// Open are those that others carry: on a routed network they are open at the
	// endpoint's own address all the same.
	Open   []Publish `json:"-"`
	Router bool      `json:"-"` // the sandbox's
}

// NS is the namespace that the endpoint's interface is in.
func (e Endpoint) NS() netspec.NS { return netspec.NS(e.Sandbox) }

// Publish is one published port (or Count ports in a row) as it was settled:
// nothing in it is left to choose.
type Publish struct {
	Proto         string // tcp, udp, sctp
	HostIP        netip.Addr
	Iface         string // on this interface's addresses; HostIP says the family
	HostPort      uint16
	Count         uint16
	ContainerPort uint16
	From          string // who may connect, as publish.Sources writes it; "": everybody
}

// Host is what a driver may know of the machine it plans for. It is a fact
// given to the plan, never looked up by a driver.
type Host struct {
	LinkPrefix string // of the names of our devices
	MTU        int    // of the interface that the default route leaves by; 0: unknown
	IPv6       bool   // the host's kernel has IPv6
	// SockAddr: loopback publishes and DNS redirection can be done by eBPF at
	// connect time. Without it Loopback objects are not planned.
	SockAddr bool
	Guard    bool // eBPF can stand on bridges; without it Guard objects are not planned
	Sources  bool // nftables can look at what bridges forward; the same for Source objects
	// Advertised are the uplinks that take router advertisements, with "/" between
	// them, which no name has: a Host is compared.
	Advertised string
	// Tunnel is where tunnels to the other hosts of the cluster begin. Its zero value: this
	// host is in none.
	Tunnel Tunnel
	// Parents are the interfaces that are not ours, as function Parents writes them.
	Parents string
}
