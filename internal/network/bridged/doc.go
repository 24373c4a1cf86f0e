// Package bridged plans networks made of one Linux bridge on the host and a veth pair
// for each endpoint: what the drivers bridge and overlay have in common. A driver reads
// the user's options into Options; plan.go does the work.
//
// Traps: a bridge without a MAC address of its own takes the lowest of its
// ports', and changes it when that port goes, so it is given one. Ports may get
// back what they sent (hairpin): with br_netfilter a container's connection to
// its own published port is redirected inside the bridge. Router
// advertisements are ignored on both ends of a network with IPv6: a container
// could send them.
package bridged
