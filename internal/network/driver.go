package network

import (
	"isle/internal/netspec"
)

// Driver turns networks and endpoints into kernel state. It keeps no state and
// calls nothing: equal arguments give equal results.
//
// Plan is additive: what it gives for some endpoints is the union of what it
// gives for each alone. That is what lets the Manager plan one container
// without looking at the others; drivertest checks it.
type Driver interface {
	// Validate reports whether n is well formed for this driver. Its errors
	// are of class InvalidArgument and name the option.
	Validate(n Network) error
	// Caps says what the driver's networks can do.
	Caps() Caps
	// Beside reports why n cannot be on one host with other, a network that is
	// there, of whichever driver. Class Conflict.
	Beside(n, other Network) error
	// Ready reports why a container, one more than those on n, cannot be there
	// now, for reasons that lie in the host. Class Unavailable.
	Ready(n Network, users int, host Host) error
	// Uplink says, in words, which interface of the host n is on and how that is;
	// "" when n is on none.
	Uplink(n Network, host Host) string
	// Plan adds to s what n and its endpoints need on host.
	Plan(s netspec.State, n Network, eps []Endpoint, host Host) error
}

// Caps is what networks of a driver can do.
type Caps struct {
	IPAM      bool // has addresses; none and host have not
	Publish   bool // host ports can be published on it
	Singleton bool // there is exactly one network of it, made by Isle
	Gateway   bool // its endpoints can be the way out of a sandbox
	Room      int  // endpoints on one of its devices, after which Plan needs another leaf; 0: any number
	DHCP      bool // its endpoints can have their addresses from the LAN
	OneMAC    bool // its endpoints have the MAC address of what they are on
	Leaves    int  // how many more such devices a network can have
}

func caps(d Driver, n Network) Caps {
	if p, ok := d.(Particular); ok {
		return p.CapsOf(n)
	}
	return d.Caps()
}

// addressed reports whether endpoints of d's networks have addresses.
func addressed(d Driver) bool {
	_, others := d.(External)
	return others || d.Caps().IPAM
}
