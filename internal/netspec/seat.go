package netspec

import "net/netip"

// Seat says where a link goes that others made on the host: into a namespace. It is
// no object of a State, since the link is not ours: nobody plans it, and nobody but
// who asked for it takes it back.
type Seat struct {
	Source string // its name on the host
	NSPath string // file of the namespace
	Name   string // in there
	MAC    MAC    // zero: the one that it has
	IPv6   bool   // it gets IPv6 addresses
	Owner  string // written on the link: a Seat is found again when all else was lost
	// Addrs are those that the link may have on the host. With others it is taken
	// for one that the host uses itself.
	Addrs []netip.Prefix
}

// Seated is a link in its namespace, as it can be known again there whatever those
// inside name it.
type Seated struct {
	Index int32
	Peer  int32  // a veth's other end, or what it is on; 0: none
	Kind  string // "" for a device of the machine
	MAC   MAC
	MTU   int
	Host  string `json:",omitempty"` // the link of the host at its other end, or that it is on
}
