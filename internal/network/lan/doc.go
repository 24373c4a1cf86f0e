// Package lan plans networks whose containers are on the wire of an interface of
// the host, the parent: what the drivers macvlan and ipvlan have in common.
// options.go reads what a user may set, uplink.go finds the parent, plan.go and
// access.go do the work.
//
// Traps. While the parent is away nothing is planned: the kernel has taken the
// containers' links with it, and they come back with it. Several networks may be
// on one parent, so whatever is planned for the parent, its VLANs and the way of
// the host to its containers, must not depend on one of them. ipvlan has its mode
// from the parent: a link with another mode changes that of all.
package lan
