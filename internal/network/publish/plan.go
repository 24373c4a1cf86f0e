package publish

import (
	"net/netip"

	"isle/internal/netspec"
)

// Target is where published ports lead: a container's addresses (either may be
// invalid) behind a bridge.
type Target struct {
	V4, V6 netip.Addr
	Link   string
}

// For is the address of t that serves what comes to host address ip in the
// kernel; invalid: none does. An IPv6 destination cannot be made an IPv4 one
// on the way.
func (t Target) For(ip netip.Addr) netip.Addr {
	if ip.Is4() {
		return t.V4
	}
	return t.V6
}

// Any is For with the other family as second choice: for what begins at a
// socket of the host.
func (t Target) Any(ip netip.Addr) netip.Addr {
	if a := t.For(ip); a.IsValid() {
		return a
	}
	if ip.Is4() {
		return t.V6
	}
	return t.V4
}

// Plan is what the kernel does for m. loopback: connections of the host to its
// loopback addresses are redirected too; otherwise they arrive at the sockets
// that hold the port.
func Plan(m Mapping, t Target, loopback bool) []netspec.Object {
	objs := m.redirect(t)
	if lo, ok := m.loopback(t); ok && loopback {
		objs = append(objs, lo)
	}
	return objs
}

// redirect is the way from outside, and who may take it. With a list that names
// nobody of m's family there is no way.
func (m Mapping) redirect(t Target) []netspec.Object {
	to, from, limited := t.For(m.HostIP), []netip.Prefix(nil), false
	if from, limited = m.sources(); !to.IsValid() || m.HostIP.IsLoopback() || limited && len(from) == 0 {
		return nil
	}
	objs := []netspec.Object{netspec.Publish{
		Proto: m.Proto, HostIP: m.HostIP, Iface: m.Iface, HostPort: m.HostPort, Count: m.Count,
		To: to, ToPort: m.ContainerPort, Link: t.Link,
	}}
	for _, p := range from {
		objs = append(objs, netspec.Allow{Proto: m.Proto, HostIP: m.HostIP, Iface: m.Iface, HostPort: m.HostPort, Count: m.Count, From: p})
	}
	return objs
}

// loopback is for the host's own connections to its loopback addresses. What is
// published on an interface is not on them.
func (m Mapping) loopback(t Target) (netspec.Loopback, bool) {
	lo, ok := loopbackOf(m.HostIP)
	if !ok || m.Proto == "sctp" || m.Iface != "" {
		return netspec.Loopback{}, false
	}
	// A socket of IPv6 can be sent to an IPv4 address, not the other way round.
	to := t.For(lo)
	if lo.Is6() {
		to = t.Any(lo)
	}
	return netspec.Loopback{Proto: m.Proto, HostIP: lo, HostPort: m.HostPort, Count: m.Count, To: to, ToPort: m.ContainerPort}, to.IsValid()
}

func loopbackOf(ip netip.Addr) (netip.Addr, bool) {
	switch {
	case ip.IsLoopback():
		return ip, true
	case ip == netip.IPv4Unspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	case ip == netip.IPv6Unspecified():
		return netip.IPv6Loopback(), true
	}
	return netip.Addr{}, false
}
