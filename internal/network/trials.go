package network

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"isle/internal/netspec"
	"isle/internal/network/pulse"
)

// This file is about trying the ways to the other hosts of a cluster. For each way that
// tunnels of networks here go there is one more tunnel, in no bridge, by which isled sends
// frames of its own; and one for the way that tunnels go when nobody chooses another, as
// long as this host is in a cluster. So it does not cost more with more networks.

// Pulse finds out how ways to other hosts are.
type Pulse interface {
	// Set says which ways there are: all of them.
	Set(ways []pulse.Way)
	// Contact is how a way, by its name, to a host is; false: nobody tries it.
	Contact(way, host string) (pulse.Contact, bool)
}

// trialUnit is that of the tunnel, or of the host at its other end.
func trialUnit(w Way, host string) string { return "trial/" + w.String() + "/" + host }

// String names the way for people.
func (w Way) String() string {
	if w.Sealed {
		return fmt.Sprintf("UDP port %d, encrypted", w.Port)
	}
	return fmt.Sprintf("UDP port %d", w.Port)
}

// trying reports whether ways are to be tried: this host is in a cluster.
func (m *Manager) trying() bool { return m.Pulse != nil && m.host.Tunnel.Addr.IsValid() }

// trialWays are those that are to be tried, by port. What networks here go comes before what
// they would go.
func (m *Manager) trialWays() map[Way]Shared {
	ways, ports := map[Way]Shared{}, map[uint16]bool{}
	add := func(d Shared, n Network) {
		if w := d.Way(n); w.Port != 0 && !ports[w.Port] {
			ways[w], ports[w.Port] = d, true
		}
	}
	if !m.trying() {
		return nil
	}
	for _, n := range m.x.networks {
		if d, err := m.sharedDriver(*n); err == nil && n.Global() && !n.Idle {
			add(d, *n)
		}
	}
	for _, d := range m.Drivers {
		if d, ok := d.(Shared); ok {
			add(d, Network{})
		}
	}
	return ways
}

// otherWay reports why tunnels of n cannot begin here: those of another network have the
// port, and are encrypted where these are not, or the other way round.
func (m *Manager) otherWay(n Network) error {
	d, err := m.sharedDriver(n)
	if err != nil {
		return err
	}
	mine := d.Way(n)
	for _, o := range m.x.networks {
		if !o.Global() || o.Idle || o.ID == n.ID {
			continue
		}
		if d, err := m.sharedDriver(*o); err == nil && d.Way(*o).Port == mine.Port && d.Way(*o) != mine {
			return fmt.Errorf("UDP port %d is that of network %s, and only one of the two is encrypted: %w (hint: another -o isle.overlay.port)", mine.Port, o.Name, errdefs.ErrConflict)
		}
	}
	return nil
}

// trialUnits are all units of trials, as they are to be now; those that were and are not to
// be any more are to go.
func (m *Manager) trialUnits() map[string]netspec.State {
	units := map[string]netspec.State{}
	for unit := range m.cluster.trials {
		units[unit] = nil
	}
	for w, d := range m.trialWays() {
		s := netspec.State{}
		d.PlanTrial(s, w, m.host)
		if len(s) == 0 {
			continue
		}
		units[trialUnit(w, "")] = s
		for id := range m.cluster.far.hosts {
			m.trialTo(w, d, id, units)
		}
	}
	return units
}

// trialsTo are the units of the trials that another host is at the other end of.
func (m *Manager) trialsTo(host string, units map[string]netspec.State) {
	for w, d := range m.trialWays() {
		m.trialTo(w, d, host, units)
	}
}

func (m *Manager) trialTo(w Way, d Shared, host string, units map[string]netspec.State) {
	unit := trialUnit(w, host)
	units[unit] = nil
	if h, ok := m.cluster.far.leads(host); ok && host != m.cluster.far.self && h.Addr != m.cluster.here.Addr {
		s := netspec.State{}
		if d.PlanTrialTo(s, w, Remote{Host: h, Sealed: m.passage(h)}, m.host); len(s) > 0 {
			units[unit] = s
		}
	}
}

// noteTrial keeps which there are, and has who tries told.
func (m *Manager) noteTrial(unit string, s netspec.State) {
	if s == nil {
		delete(m.cluster.trials, unit)
	} else {
		m.cluster.trials[unit] = true
	}
	m.tryAnew()
}

func (m *Manager) tryAnew() {
	select {
	case m.cluster.retry <- struct{}{}:
	default:
	}
}

// trialPause lets news come together.
const trialPause = 250 * time.Millisecond

// followTrials keeps who tries the ways in step.
func (m *Manager) followTrials(ctx context.Context) {
	if m.Pulse == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.cluster.retry:
			m.op.Lock()
			ways := m.ways()
			m.op.Unlock()
			m.Pulse.Set(ways)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(trialPause):
		}
	}
}

// ways are those that can be tried now.
func (m *Manager) ways() (all []pulse.Way) {
	for w := range m.trialWays() {
		link, ok := tunnelIn(m.units[trialUnit(w, "")])
		if !ok {
			continue
		}
		way := pulse.Way{Name: w.String(), Link: link.Name, Self: m.cluster.far.self, MTU: m.need(w, link.MTU)}
		near, usual := m.sharers(w), m.usual(w)
		for id, h := range m.cluster.far.hosts {
			if m.units[trialUnit(w, id)] != nil && (usual || near[id]) {
				way.Peers = append(way.Peers, pulse.Peer{ID: id, Name: h.Name, Addr: h.Addr, Near: near[id]})
			}
		}
		slices.SortFunc(way.Peers, func(a, b pulse.Peer) int { return cmp.Compare(a.ID, b.ID) })
		all = append(all, way)
	}
	return all
}

// need is how large frames of networks are that go a way. What they do not need is not
// tried, so that who has given networks a smaller MTU has no black hole any more.
func (m *Manager) need(w Way, most int) (mtu int) {
	for id, n := range m.x.networks {
		if d, err := m.sharedDriver(*n); err != nil || !n.Global() || n.Idle || d.Way(*n) != w {
			continue
		}
		if v, ok := tunnelIn(m.units[networkUnit(id)]); ok {
			mtu = max(mtu, v.MTU)
		}
	}
	if mtu == 0 {
		return most
	}
	return min(mtu, most)
}

// usual reports whether w is a way that every host of a cluster has, with or without networks.
func (m *Manager) usual(w Way) bool {
	for _, d := range m.Drivers {
		if d, ok := d.(Shared); ok && d.Way(Network{}) == w {
			return true
		}
	}
	return false
}

// sharers are the hosts with containers on networks that are here too, and go that way.
func (m *Manager) sharers(w Way) map[string]bool {
	hosts := map[string]bool{}
	for id, n := range m.x.networks {
		if d, err := m.sharedDriver(*n); err != nil || !n.Global() || n.Idle || d.Way(*n) != w {
			continue
		}
		for host := range m.cluster.far.hosts {
			if m.cluster.far.counts[seat{id, host}] > 0 {
				hosts[host] = true
			}
		}
	}
	return hosts
}

func tunnelIn(s netspec.State) (netspec.VXLAN, bool) {
	for _, o := range s {
		if v, ok := o.(netspec.VXLAN); ok {
			return v, true
		}
	}
	return netspec.VXLAN{}, false
}

// TellWay tells of a way to another host that is other than it was.
func (m *Manager) TellWay(r pulse.Report) {
	log := m.Log.With("host", r.Peer.Name, "way", r.Way, "state", r.State)
	switch problem := r.Problem(); {
	case problem != "":
		log.Warn("the way to another host of the cluster is not as it should be: " + problem)
	case r.Old == pulse.Unknown:
		return
	default:
		log.Info("the way to another host of the cluster is as it should be again")
	}
	if m.Events != nil {
		m.Events.Publish(events.Message{Type: events.NodeEventType, Action: events.ActionUpdate, Scope: "swarm", Actor: events.Actor{ID: r.Peer.ID,
			Attributes: map[string]string{"name": r.Peer.Name, "way": r.Way, "state.old": string(r.Old), "state.new": string(r.State)}}})
	}
}

// contact is how the way of a network's tunnels to a host is.
func (m *Manager) contact(n Network, host string) pulse.Contact {
	unknown := pulse.Contact{State: pulse.Unknown}
	d, err := m.sharedDriver(n)
	if err != nil || m.Pulse == nil {
		return unknown
	}
	if c, ok := m.Pulse.Contact(d.Way(n).String(), host); ok {
		return c
	}
	return unknown
}
