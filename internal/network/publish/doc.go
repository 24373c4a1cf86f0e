// Package publish gives ports of the host to containers: parse.go reads what
// was asked for, allocate.go chooses host ports and keeps who has which,
// sockets.go holds them against other programs, forward.go serves what arrives
// at the held sockets, plan.go says what the kernel is to do.
//
// Nearly all traffic is redirected in the kernel and never gets here. What
// does: connections of IPv6 neighbours to a container that has IPv4 only (a
// packet cannot change its family on the way), datagrams from [::1] to it, and,
// where eBPF is not to be had, all that the host sends to its own loopback
// addresses. So "::" is bound for every port that names no address, as
// docker-proxy does.
package publish
