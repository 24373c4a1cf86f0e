// Package publish gives ports of the host to containers: spec.go and parse.go
// read what was asked for, allocate.go keeps who has which port, settle.go
// changes that and can take it back, sockets.go holds ports against other
// programs, gate.go refuses connections there while a port leads nowhere,
// forward.go serves what arrives at the held sockets and allow.go says
// whom, plan.go says what the kernel is to do, difference.go and follow.go
// compare what is with what is wanted.
//
// Ports that follow each other are one row everywhere: ten thousand of them are
// one claim, one record and one object of the kernel.
//
// Nearly all traffic is redirected in the kernel and never gets here. What
// does: connections of IPv6 neighbours to a container that has IPv4 only (a
// packet cannot change its family on the way), datagrams from [::1] to it, and,
// where eBPF is not to be had, all that the host sends to its own loopback
// addresses. So "::" is bound for every port that names no address, as
// docker-proxy does.
package publish
