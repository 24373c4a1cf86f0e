// Package fabric is what the hosts of a cluster tell each other of overlay networks:
// plain data, and the interface between what carries it (cluster) and what acts by it
// (network).
//
// Who writes what: a host writes its own Host and Endpoints, under its lease, so that
// they go when it dies. Networks are written by whoever makes them and stay.
package fabric

import (
	"context"
	"encoding/json"
	"net/netip"
)

// Host is a member of the cluster as the others see it.
type Host struct {
	ID      string     // of the machine's membership; never used again
	Name    string     // unique among the hosts
	Addr    netip.Addr // where its tunnels end: the underlay
	Key     string     `json:",omitempty"` // WireGuard public key, base64 (RFC 4648 section 4): the one to use
	KeyPort uint16     `json:",omitempty"` // its UDP port
	OldKey  string     `json:",omitempty"` // the one before, which the host takes frames with until this is gone
	OldPort uint16     `json:",omitempty"`
}

// Network is an overlay network as all hosts have it.
type Network struct {
	ID, Name string
	VNI      uint32          // RFC 7348 section 5: 24 bits, unique in the cluster
	Record   json.RawMessage // network.Network, as the host that made it wrote it down
}

// Endpoint is a container's place on an overlay network.
type Endpoint struct {
	ID, Network, Host string
	Container         string // name
	Addrs             []netip.Prefix
	MAC               [6]byte
	Names             []string
	// Generation is the revision of the store at which it was written: of two with one
	// address the higher counts.
	Generation int64 `json:"-"`
}

// View is all that is known at one revision. Nobody changes it after it was given out.
type View struct {
	Self      string          // this host's ID
	Hosts     map[string]Host // alive, this one too
	Networks  map[string]Network
	Endpoints map[string]Endpoint
	Revision  int64
	// Known is false until the store has been read once, and while it cannot be reached
	// View stays as it was last: flows go on, changes are refused.
	Known bool
}

// Change is what is new since the last one. For each id: the new value, or nil when
// it is gone. Reset says that anything may have changed: read View.
type Change struct {
	Reset     bool
	Hosts     map[string]*Host
	Networks  map[string]*Network
	Endpoints map[string]*Endpoint
	Revision  int64
}

// Directory is the cluster's memory. Errors of the calls that write are of class
// Unavailable when the store cannot be reached or has no quorum; nothing was changed
// then, or will be found to be taken back.
type Directory interface {
	// View is what is known now. It does not block.
	View() View
	// Watch calls fn for each change, in order, until ctx ends; the first is a Reset. What
	// happens while fn runs comes as one change.
	Watch(ctx context.Context, fn func(Change)) error
	// Describe changes what others see of this host.
	Describe(ctx context.Context, set func(*Host)) error
	// CreateNetwork writes a network down. vnis are those that may be taken; it picks one
	// that is free. Class AlreadyExists for a name that is taken, Conflict for an overlap.
	CreateNetwork(ctx context.Context, n Network, vnis []Range) (Network, error)
	// RemoveNetwork is of class Conflict while endpoints are on it.
	RemoveNetwork(ctx context.Context, id string) error
	// Connect takes addresses that nobody in the cluster has and writes the endpoint
	// down. An address in e.Addrs that is unspecified (0.0.0.0/24 has the length of the
	// subnet) is chosen out of pools[i], a specified one is taken or refused with class
	// Conflict.
	Connect(ctx context.Context, e Endpoint, pools []netip.Prefix, reserved []netip.Addr) (Endpoint, error)
	// Disconnect gives them back. One that is not there is no error.
	Disconnect(ctx context.Context, endpoint string) error
	// Restore writes down again, after a lease was lost, what this host has; those that
	// it has not any more go. It returns the endpoints whose addresses others have by now.
	Restore(ctx context.Context, mine []Endpoint) (lost []Endpoint, err error)
}

// Range is from First to Last, both included.
type Range struct{ First, Last uint32 }
