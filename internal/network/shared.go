package network

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"strings"

	"isle/internal/fabric"
	"isle/internal/netspec"
)

// Shared is a Driver whose networks are on all hosts of a cluster. What is on other
// hosts is planned beside what is on this one: a unit for each endpoint there, and one
// for each host that has any, so that news costs what it is about.
type Shared interface {
	Driver
	// VNIs are the numbers that n may be given. Its errors are of class InvalidArgument.
	VNIs(n Network) ([]fabric.Range, error)
	// Numbered is n with the number that it was given.
	Numbered(n Network, vni uint32) Network
	// Sealed reports whether the tunnels of n must be encrypted.
	Sealed(n Network) bool
	// Direct reports whether containers of n need no tunnel to a host next to theirs.
	Direct(n Network) bool
	// PlanRemote adds to s what n needs on host for an endpoint of another host.
	PlanRemote(s netspec.State, n Network, r Remote, host Host) error
	// PlanPeer adds to s what n needs on host for another host that has endpoints of it;
	// which they are does not matter.
	PlanPeer(s netspec.State, n Network, r Remote, host Host) error
	// Way is how the tunnels of n go.
	Way(n Network) Way
	// PlanTrial adds to s what frames of isled's own need on host to go that way, as far
	// as it can be gone from there; PlanTrialTo what they need to get to another host.
	PlanTrial(s netspec.State, w Way, host Host)
	PlanTrialTo(s netspec.State, w Way, r Remote, host Host)
}

// Way is what the tunnels of networks have in common that go through the same filters,
// network cards and routers. On one host there is one way for each port.
type Way struct {
	Port   uint16 // UDP
	Sealed bool   // encrypted
}

// Remote is an endpoint of another host.
type Remote struct {
	Endpoint fabric.Endpoint
	Host     fabric.Host
	Sealed   Passage // where tunnels are encrypted
	Proven   bool    // what containers send gets to the host as it is
}

// Passage is where frames to another host go. Its zero value: they cannot.
type Passage struct {
	Link string     // that they leave by; "": as they are routed
	Addr netip.Addr // the other host's there
}

// Tunnel is where tunnels of a host begin.
type Tunnel struct {
	Addr netip.Addr // the host's, as the others of the cluster reach it
	Link string     // the host's interface that has it; "": none
	MTU  int        // of the way from there
	Seal Seal
	// Near are the hosts that are reached by Link without being routed, as function Near
	// writes them.
	Near string
}

// Near writes addresses as Tunnel.Near has them.
func Near(list []netip.Addr) string {
	slices.SortFunc(list, netip.Addr.Compare)
	var b strings.Builder
	for _, a := range slices.Compact(list) {
		b.WriteString(a.String() + "\n")
	}
	return b.String()
}

// near are the addresses in Near.
func (t Tunnel) near() (out []netip.Addr) {
	for line := range strings.Lines(t.Near) {
		if a, err := netip.ParseAddr(strings.TrimSpace(line)); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// NextTo reports whether the host with an address is near.
func (t Tunnel) NextTo(a netip.Addr) bool {
	return strings.HasPrefix(t.Near, a.String()+"\n") || strings.Contains(t.Near, "\n"+a.String()+"\n")
}

// Seal is what encrypts tunnels: what is sent by its links. Its zero value: nothing does.
type Seal struct {
	Link string // with the host's key
	Old  string // with the key before, as long as that is there
}

// SealedAddr is the address that a host has where tunnels are encrypted, on the link that
// has this key: it follows from both, so nobody gives it out, and nobody routes to it
// elsewhere.
func SealedAddr(host, key string) netip.Addr {
	h := sha256.Sum256([]byte("sealed " + host + " " + key))
	b := [16]byte{0xfd, 0x69, 0x73, 0x6c, 0x65, 0x00} // a ULA of all clusters: RFC 4193
	copy(b[6:], h[:10])
	return netip.AddrFrom16(b)
}

// GatewayMAC is the MAC address of a network's bridge: the same for a network as long as
// it lives, and on every host that has it.
func GatewayMAC(network string) netspec.MAC {
	h := sha256.Sum256([]byte(network))
	m := netspec.MAC(h[:6])
	m[0] = 0x02
	return m
}

// ScopeGlobal is the scope of networks that are on all hosts of a cluster.
const ScopeGlobal = "global"

// Global reports whether n is on all hosts of a cluster. Its record is the cluster's.
func (n Network) Global() bool { return n.Scope == ScopeGlobal }
