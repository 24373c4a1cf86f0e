package network

import (
	"crypto/sha256"
	"net/netip"

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
	// PlanRemote adds to s what n needs on host for an endpoint of another host.
	PlanRemote(s netspec.State, n Network, r Remote, host Host) error
	// PlanPeer adds to s what n needs on host for another host that has endpoints of it;
	// which they are does not matter.
	PlanPeer(s netspec.State, n Network, r Remote, host Host) error
}

// Remote is an endpoint of another host.
type Remote struct {
	Endpoint fabric.Endpoint
	Host     fabric.Host
	Sealed   Way // where tunnels are encrypted
}

// Way is the one to another host where tunnels are encrypted. Its zero value: there is none.
type Way struct {
	Link string     // that frames leave by
	Addr netip.Addr // the other host's there
}

// Tunnel is where tunnels of a host begin.
type Tunnel struct {
	Addr netip.Addr // the host's, as the others of the cluster reach it
	MTU  int        // of the way from there
	Seal Seal
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
