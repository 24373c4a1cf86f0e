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
	var objs []netspec.Object
	if to := t.For(m.HostIP); to.IsValid() && !m.HostIP.IsLoopback() {
		objs = append(objs, netspec.Publish{
			Proto: m.Proto, HostIP: m.HostIP, HostPort: m.HostPort, Count: m.Count,
			To: to, ToPort: m.ContainerPort, Link: t.Link,
		})
	}
	lo, ok := loopbackOf(m.HostIP)
	if !loopback || !ok || m.Proto == "sctp" {
		return objs
	}
	// A socket of IPv6 can be sent to an IPv4 address, not the other way round.
	to := t.For(lo)
	if lo.Is6() {
		to = t.Any(lo)
	}
	if !to.IsValid() {
		return objs
	}
	for i := range m.Count {
		objs = append(objs, netspec.Loopback{Proto: m.Proto, HostIP: lo, HostPort: m.HostPort + i, Count: 1, To: to, ToPort: m.ContainerPort + i})
	}
	return objs
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
