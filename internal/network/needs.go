package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"isle/internal/netspec"
)

// NeedyIPAM is an ExternalIPAM that may want more than others.
type NeedyIPAM interface {
	ExternalIPAM
	Needs(ctx context.Context) (IPAMNeeds, error)
}

// IPAMNeeds is what an ExternalIPAM wants of whoever asks it.
type IPAMNeeds struct {
	MAC    bool // it gives no address without the MAC address of who is to have it
	Replay bool // after a start of isled it is asked again for all that it gave
}

func needs(ctx context.Context, l ExternalIPAM) (n IPAMNeeds, err error) {
	if x, ok := l.(NeedyIPAM); ok {
		n, err = x.Needs(ctx)
	}
	return n, err
}

// withMAC is pl with a MAC address, if l gives addresses to none without. Who makes
// the interface is told of it as of one that the user asks for.
func (m *Manager) withMAC(ctx context.Context, l ExternalIPAM, pl place) (place, error) {
	if pl.MAC != (netspec.MAC{}) {
		return pl, nil
	}
	n, err := needs(ctx, l)
	if err != nil || !n.MAC {
		return pl, err
	}
	if pl.MAC, err = mac(pl.Sandbox, pl.net.ID, nil); err != nil {
		return pl, err
	}
	_, _, found, err := m.alter(ctx, pl.ID, func(e *Endpoint) bool { e.MAC = pl.MAC; return true })
	if err == nil {
		err = gone(found)
	}
	return pl, err
}

// replay asks for all again that others gave, where they forget it with a start.
func (m *Manager) replay(ctx context.Context) {
	all, _ := m.List(ctx)
	for _, n := range all {
		l, ok := m.outsideIPAM(n.IPAMDriver)
		if !ok || n.ConfigOnly || ctx.Err() != nil {
			continue
		}
		want, err := needs(ctx, l)
		if err == nil && want.Replay {
			err = m.replayOne(ctx, l, n)
		}
		if err != nil {
			m.Log.Warn("an IPAM plug-in does not take up again what it gave", "network", n.Name, "driver", n.IPAMDriver, "err", err)
		}
	}
}

func (m *Manager) replayOne(ctx context.Context, l ExternalIPAM, n Network) error {
	var errs []error
	for _, p := range n.Pools {
		g, err := l.RequestPool(ctx, PoolWish{Subnet: p.Subnet, Range: p.Range, IPv6: p.Subnet.Addr().Is6(), Options: n.IPAMOptions})
		if err != nil {
			return fmt.Errorf("pool %s: %w", p.Subnet, err)
		}
		if g.ID != p.Grant {
			return fmt.Errorf("pool %s has another name than before: %q instead of %q", p.Subnet, g.ID, p.Grant)
		}
		for _, a := range append(slices.Collect(maps.Values(p.Aux)), p.Gateway) {
			errs = append(errs, takeAgain(ctx, l, Granted{p.Grant, netip.PrefixFrom(a, a.BitLen())}, a == p.Gateway, netspec.MAC{}))
		}
	}
	for _, a := range m.attachmentsOf(n.ID) {
		for _, g := range a.Endpoint.Granted {
			errs = append(errs, takeAgain(ctx, l, g, false, a.Endpoint.MAC))
		}
	}
	return errors.Join(errs...)
}

func takeAgain(ctx context.Context, l ExternalIPAM, g Granted, gateway bool, mac netspec.MAC) error {
	if !g.Addr.IsValid() {
		return nil
	}
	if _, err := l.RequestAddress(ctx, g.Pool, g.Addr.Addr(), gateway, mac); err != nil {
		return fmt.Errorf("address %s: %w", g.Addr.Addr(), err)
	}
	return nil
}
