package publish

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"
)

// Mapping is one published port, or Count of them in a row, with nothing left
// to choose. It has the fields of network.Publish.
type Mapping struct {
	Proto         string
	HostIP        netip.Addr // with Iface only its family counts
	Iface         string     // an interface of the host, whether it is there or not
	HostPort      uint16
	Count         uint16
	ContainerPort uint16
	From          string // who may connect: see Sources
}

// last is the last host port of the row.
func (m Mapping) last() uint16 { return m.HostPort + m.Count - 1 }

// part is the piece of m from one host port to another, which are in it.
func (m Mapping) part(first, last uint16) Mapping {
	m.ContainerPort += first - m.HostPort
	m.HostPort, m.Count = first, last-first+1
	return m
}

// Each yields the ports of ms as mappings of one port.
func Each(ms []Mapping) func(yield func(Mapping) bool) {
	return func(yield func(Mapping) bool) {
		for _, m := range ms {
			for i := range m.Count {
				if !yield(m.part(m.HostPort+i, m.HostPort+i)) {
					return
				}
			}
		}
	}
}

// Join makes one mapping of those that follow each other.
func Join(ms []Mapping) []Mapping {
	slices.SortFunc(ms, compare)
	var out []Mapping
	for _, m := range ms {
		if n := len(out); n > 0 && out[n-1].continuedBy(m) {
			out[n-1].Count += m.Count
			continue
		}
		out = append(out, m)
	}
	return out
}

func (m Mapping) continuedBy(n Mapping) bool {
	return m.sameSide(n) && m.From == n.From && int(m.Count)+int(n.Count) < 1<<16 &&
		int(m.HostPort)+int(m.Count) == int(n.HostPort) && int(m.ContainerPort)+int(m.Count) == int(n.ContainerPort)
}

// sameSide: m and n are on the same address or interface.
func (m Mapping) sameSide(n Mapping) bool {
	return m.Proto == n.Proto && m.HostIP == n.HostIP && m.Iface == n.Iface
}

func compare(a, b Mapping) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), cmp.Compare(a.Iface, b.Iface), cmp.Compare(a.HostPort, b.HostPort))
}

// Without is ms less the ports of gone, whatever these lead to.
func Without(ms, gone []Mapping) []Mapping {
	for _, g := range gone {
		var left []Mapping
		for _, m := range ms {
			left = append(left, m.without(g)...)
		}
		ms = left
	}
	return ms
}

func (m Mapping) without(g Mapping) []Mapping {
	first, last, ok := m.overlap(g.HostPort, g.last())
	if !ok || !m.sameSide(g) {
		return []Mapping{m}
	}
	var out []Mapping
	if first > m.HostPort {
		out = append(out, m.part(m.HostPort, first-1))
	}
	if last < m.last() {
		out = append(out, m.part(last+1, m.last()))
	}
	return out
}

// overlap is what m has of the ports from first to last.
func (m Mapping) overlap(first, last uint16) (from, to uint16, ok bool) {
	from, to = max(first, m.HostPort), min(last, m.last())
	return from, to, from <= to
}

// where is m's side of the host, for people.
func (m Mapping) where() string {
	if m.Iface != "" {
		return fmt.Sprintf("if=%s:%d", m.Iface, m.HostPort)
	}
	return netip.AddrPortFrom(m.HostIP, m.HostPort).String()
}

// Show is ms as "inspect" shows them: direct ones without a port of the host, as
// with Docker. Ports of an interface have the address of their family that stands
// for all: there is no place for a name.
func Show(ms []Mapping, direct func(Mapping) bool) network.PortMap {
	out := network.PortMap{}
	for m := range Each(ms) {
		if port, ok := network.PortFrom(m.ContainerPort, network.IPProtocol(m.Proto)); ok {
			b := network.PortBinding{HostIP: m.HostIP}
			if !direct(m) {
				b.HostPort = fmt.Sprint(m.HostPort)
			}
			out[port] = append(out[port], b)
		}
	}
	return out
}
