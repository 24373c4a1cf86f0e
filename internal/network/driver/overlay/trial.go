package overlay

import (
	"fmt"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/pulse"
)

// trialVNI is the number of the tunnels by which isled tries the ways to other hosts. No
// network can have it.
const trialVNI = 0

// Way implements network.Shared.
func (Driver) Way(n network.Network) network.Way {
	o, err := parse(n.Options)
	if err != nil {
		return network.Way{}
	}
	return network.Way{Port: o.Port, Sealed: o.Encrypted}
}

// PlanTrial implements network.Shared: a tunnel in no bridge. What does not fit is not cut
// there, so that it is seen how much fits.
func (Driver) PlanTrial(s netspec.State, w network.Way, host network.Host) {
	p := trial(w, host)
	if !p.opens() {
		return
	}
	s.Add(netspec.VXLAN{Name: trialName(host.LinkPrefix, w), VNI: trialVNI, Local: p.local(), Port: w.Port, Via: p.links()[0], MTU: p.room(), Whole: true})
	p.guard(s)
}

// PlanTrialTo implements network.Shared.
func (Driver) PlanTrialTo(s netspec.State, w network.Way, r network.Remote, host network.Host) {
	p := trial(w, host)
	if p.joins(r) {
		to := p.passage(r)
		s.Add(netspec.FDB{Link: trialName(host.LinkPrefix, w), MAC: pulse.MAC(r.Host.ID), Dst: to.Addr, Via: to.Link, Alone: true})
	}
}

// trial is a network of which only the way of its tunnels counts.
func trial(w network.Way, host network.Host) plan {
	return plan{host: host, o: options{Port: w.Port, Encrypted: w.Sealed}}
}

// trialName is that of such a tunnel: on a host each port is of one way.
func trialName(prefix string, w network.Way) string { return fmt.Sprint(prefix, "p", w.Port) }
