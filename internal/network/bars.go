package network

import (
	"context"
	"time"

	"isle/internal/netspec"
	"isle/internal/network/exposure"
	"isle/internal/ruleset"
)

// This file is about packet filters of others on this host. What a tunnel carries they
// do not see; what is routed past it they may drop. A Scout does not find that out, since
// what it sends ends at the other host and is not forwarded. So their rules are read, and
// a packet is tried on them in thought: where it would not pass, or nobody can tell,
// other hosts get no answer, and keep to the tunnel.

// barsEvery is how old may be what is known of the rules of others.
const barsEvery = 10 * time.Second

// bars are why networks cannot do without tunnels on this host; "": nothing is in the way.
type bars struct {
	of map[string]string
	at time.Time
}

// lookForBars reads the rules of others, when that is due.
func (m *Manager) lookForBars(ctx context.Context) {
	ways, due := m.crossings()
	if m.Surroundings == nil || !due {
		return
	}
	h, err := m.Surroundings(ctx)
	m.op.Lock()
	defer m.op.Unlock()
	if err != nil {
		m.Log.Debug("read the packet filters of others", "err", err)
		return
	}
	before := m.cluster.bars.of
	m.cluster.bars = bars{map[string]string{}, time.Now()}
	for id, packets := range ways {
		why := barred(h.Host, packets)
		if m.cluster.bars.of[id] = why; why != "" && before[id] != why {
			m.Log.Warn("something on this host stands in the way of what is routed: the network keeps its tunnels (hint: isle doctor)", "network", m.networkName(id), "by", why)
		}
	}
}

// crossings are a packet in and one out of each direct network that has containers
// elsewhere; due is whether the rules of others are to be looked at for them.
func (m *Manager) crossings() (ways map[string][]ruleset.Packet, due bool) {
	m.op.Lock()
	defer m.op.Unlock()
	ways, due = map[string][]ruleset.Packet{}, time.Since(m.cluster.bars.at) >= barsEvery
	for _, n := range m.directs() {
		a, ok := m.someAcross(n.ID)
		here := m.someone(n.ID, a.Addr.Is4())
		if !ok || !here.IsValid() {
			continue
		}
		_, known := m.cluster.bars.of[n.ID]
		due = due || !known
		ways[n.ID] = []ruleset.Packet{
			{In: a.Way, Out: a.Link, Src: a.Addr, Dst: here, Proto: "tcp", SrcPort: 49152, DstPort: 80},
			{In: a.Link, Out: a.Way, Src: here, Dst: a.Addr, Proto: "tcp", SrcPort: 49152, DstPort: 80},
		}
	}
	return ways, due && len(ways) > 0
}

// someAcross is what lets in one of the containers of other hosts on a network.
func (m *Manager) someAcross(network string) (netspec.Across, bool) {
	for unit := range m.cluster.units[network] {
		for _, o := range m.units[unit] {
			if a, ok := o.(netspec.Across); ok {
				return a, true
			}
		}
	}
	return netspec.Across{}, false
}

// barred is why one of the packets does not pass.
func barred(h exposure.Host, packets []ruleset.Packet) string {
	for _, p := range packets {
		if verdict, why := h.Forwarded(p); verdict != exposure.Reachable {
			return why
		}
	}
	return ""
}

// unbarred reports whether nothing of others is known to be in the way of a direct network.
func (m *Manager) unbarred(network string) bool {
	why, known := m.cluster.bars.of[network]
	return m.Surroundings == nil || known && why == ""
}
