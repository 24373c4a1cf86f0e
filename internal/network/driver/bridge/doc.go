// Package bridge plans networks made of one Linux bridge and a veth pair for
// each endpoint. README.md says what a user may set and draws the way of a
// packet; options.go reads the options, plan.go does the work.
//
// Traps: a bridge without a MAC address of its own takes the lowest of its
// ports', and changes it when that port goes, so it is given one. Ports may get
// back what they sent (hairpin): with br_netfilter a container's connection to
// its own published port is redirected inside the bridge. Router
// advertisements are ignored on both ends of a network with IPv6: a container
// could send them.
package bridge
