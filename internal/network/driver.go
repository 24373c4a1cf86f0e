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
	Leaves    int  // how many more such devices a network can have
}
