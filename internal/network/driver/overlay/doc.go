// Package overlay is the driver of networks that are on all hosts of a cluster.
// README.md says what a user may set and draws the way of a packet; options.go reads the
// options, plan.go plans what is on this host and remote.go what is on the others.
//
// A network is on each host what a bridge network is (package bridged), with the same
// gateway, address and MAC, everywhere; and one more port of the bridge, the tunnel.
//
// Traps. The kernel has one table of stations for the bridge and one for the tunnel;
// netspec.FDB is an entry in both. A bridge answers ARP for a neighbour only when the
// station is behind a port that suppresses ARP, so the neighbour alone is not enough.
// Since every host has the gateway, answers to what a host itself sends would go to the
// host that the container is on: a host reaches the containers of its own only.
package overlay
