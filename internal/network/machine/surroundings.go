package machine

import (
	"context"

	"isle/internal/kernel"
	"isle/internal/network/doctor"
	"isle/internal/network/exposure"
)

// Surroundings is the host as the doctor wants to see it.
func (m Machine) Surroundings(ctx context.Context) (h doctor.Host, err error) {
	f, err := m.Facts(ctx)
	if err != nil {
		return h, err
	}
	var names []string
	for _, l := range f.Links {
		h.Interfaces = append(h.Interfaces, exposure.Interface(l))
		if !l.Ours && !l.Loopback {
			names = append(names, l.Name)
		}
	}
	health, err := m.Health(ctx, names)
	if err != nil {
		return h, err
	}
	if h.Rules, err = m.Rules(ctx); err != nil {
		return h, err
	}
	h.Forward4, h.Forward6 = health.Forward4, health.Forward6
	h.Way4, h.Way6, h.Ways = way(f.Way4), way(f.Way6), f.Ways
	h.Strict, h.BridgeFilter = health.Strict, health.BridgeFilter
	h.Flows, h.MostOf = health.Flows, health.MostFlows
	h.Resolvers = m.Servers()
	return h, nil
}

func way(w kernel.Way) doctor.Way { return doctor.Way{Interface: w.Link, MTU: w.MTU} }
