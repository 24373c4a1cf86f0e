// Package publish gives ports of the host to containers: parse.go reads what
// was asked for, allocate.go chooses host ports and keeps who has which,
// sockets.go holds them against other programs, forward.go serves what arrives
// at the held sockets, plan.go says what the kernel is to do.
//
// Nearly all traffic is redirected in the kernel and never gets here. What
// does: connections from [::1], or from IPv6 neighbours, to a container that
// has IPv4 only, and, where eBPF is not to be had, those of the host to its
// own loopback addresses.
package publish
