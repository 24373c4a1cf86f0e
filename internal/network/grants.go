package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
)

// This file is about addresses that an ExternalIPAM gives out. Its protocol has no
// question for what is taken, so what a crash leaves between the answer and the record
// stays taken there.

// outsideIPAM finds an IPAM driver that is not Isle's. A driver that is built in and
// gives its networks their addresses is none.
func (m *Manager) outsideIPAM(name string) (ExternalIPAM, bool) {
	_, builtin := m.Drivers[name]
	if m.OutsideIPAM == nil || builtin || !(Network{IPAMDriver: name}).given() {
		return nil, false
	}
	return m.OutsideIPAM(name)
}

// borrowPools gets the pools of a network that is to be.
func (m *Manager) borrowPools(ctx context.Context, n *Network, want *network.IPAM) (err error) {
	l, ok := m.outsideIPAM(n.IPAMDriver)
	if !ok || n.ConfigOnly {
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(inNetwork(*n, err), m.repayPools(context.WithoutCancel(ctx), *n))
		}
	}()
	for _, c := range n.poolWishes(want) {
		p, err := borrowPool(ctx, l, c, n.IPAMOptions)
		if p.Grant != "" {
			n.Pools = append(n.Pools, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// poolWishes are the pools that n is to have: those asked for, and one for each other
// family.
func (n Network) poolWishes(want *network.IPAM) (out []network.IPAMConfig) {
	need := map[bool]bool{false: n.IPv4, true: n.IPv6}
	if want != nil {
		for _, c := range want.Config {
			out = append(out, c)
			need[familyOf(c)] = false
		}
	}
	for _, v6 := range []bool{false, true} {
		if need[v6] {
			out = append(out, network.IPAMConfig{Subnet: map[bool]netip.Prefix{false: allV4, true: allV6}[v6]})
		}
	}
	return out
}

// borrowPool gets a pool with its gateway. p.Grant is set when there is anything to
// give back.
func borrowPool(ctx context.Context, l ExternalIPAM, c network.IPAMConfig, options map[string]string) (p Pool, err error) {
	w := PoolWish{Subnet: c.Subnet.Masked(), Range: c.IPRange.Masked(), IPv6: familyOf(c), Options: options}
	if w.Subnet.Addr().IsUnspecified() {
		w.Subnet = netip.Prefix{}
	}
	g, err := l.RequestPool(ctx, w)
	if err != nil {
		return p, err
	}
	p = Pool{Subnet: g.Subnet.Masked(), Range: w.Range, Gateway: c.Gateway, Aux: c.AuxAddress, Auto: !w.Subnet.IsValid(), Grant: g.ID}
	if !p.Gateway.IsValid() && g.Gateway.IsValid() {
		p.Gateway = g.Gateway
		return p, p.complete()
	}
	got, err := l.RequestAddress(ctx, g.ID, c.Gateway, true, netspec.MAC{})
	if err != nil {
		return p, err
	}
	p.Gateway = got.Addr()
	for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
		if _, err := l.RequestAddress(ctx, g.ID, p.Aux[name], false, netspec.MAC{}); err != nil {
			return p, fmt.Errorf("aux-address %s: %w", name, err)
		}
	}
	return p, p.complete()
}

// repayPools gives the pools of a network back that is gone.
func (m *Manager) repayPools(ctx context.Context, n Network) error {
	l, ok := m.outsideIPAM(n.IPAMDriver)
	if !ok || n.ConfigOnly {
		return nil
	}
	var errs []error
	for _, p := range n.Pools {
		for _, a := range append(slices.Collect(maps.Values(p.Aux)), p.Gateway) {
			if a.IsValid() {
				errs = append(errs, l.ReleaseAddress(ctx, p.Grant, a))
			}
		}
		errs = append(errs, l.ReleasePool(ctx, p.Grant))
	}
	return errors.Join(errs...)
}

// grant gets the addresses of new endpoints.
func (m *Manager) grant(ctx context.Context, places []place) error {
	for _, pl := range places {
		if l, ok := m.outsideIPAM(pl.net.IPAMDriver); ok && pl.Wish != nil {
			if err := m.grantOne(ctx, l, pl); err != nil {
				return fmt.Errorf("container %s: %w", pl.ContainerName, inNetwork(*pl.net, err))
			}
		}
	}
	return nil
}

func (m *Manager) grantOne(ctx context.Context, l ExternalIPAM, pl place) error {
	pl, err := m.withMAC(ctx, l, pl)
	if err != nil {
		return err
	}
	for _, v6 := range []bool{false, true} {
		p, ok := pl.poolFor(v6)
		if !ok {
			continue
		}
		got, err := l.RequestAddress(ctx, p.Grant, pl.Wish.of(v6), false, pl.MAC)
		if err != nil {
			return err
		}
		g := Granted{p.Grant, netip.PrefixFrom(got.Addr(), p.Subnet.Bits())}
		if err = pl.checkGrant(p, g.Addr.Addr()); err == nil {
			err = m.noteGrant(ctx, pl.ID, g)
		}
		if err != nil {
			return errors.Join(err, l.ReleaseAddress(context.WithoutCancel(ctx), p.Grant, got.Addr()))
		}
	}
	return nil
}

func (m *Manager) noteGrant(ctx context.Context, id string, g Granted) error {
	_, _, found, err := m.alter(ctx, id, func(e *Endpoint) bool { e.Granted = append(slices.Clone(e.Granted), g); return true })
	return errors.Join(err, gone(found))
}

// poolFor is the pool that pl has its address of a family from.
func (pl place) poolFor(v6 bool) (Pool, bool) {
	want := pl.Wish.of(v6)
	if v6 && pl.Wish.NoIPv6 {
		return Pool{}, false
	}
	for _, p := range pl.net.Pools {
		if p.Subnet.Addr().Is6() == v6 && (!want.IsValid() || p.Subnet.Contains(want)) {
			return p, true
		}
	}
	return Pool{}, false
}

// checkGrant refuses what cannot be: the plug-in may be wrong.
func (pl place) checkGrant(p Pool, a netip.Addr) error {
	if p.Subnet.Contains(a) && a != p.Gateway && !p.reserved(a) {
		return nil
	}
	return fmt.Errorf("ipam driver %s gave address %s, which no container can have in %s: %w", pl.net.IPAMDriver, a, p.Subnet, errdefs.ErrUnavailable)
}

// ungrant gives the addresses of an endpoint back that goes.
func (m *Manager) ungrant(ctx context.Context, pl place) {
	l, ok := m.outsideIPAM(pl.net.IPAMDriver)
	if !ok {
		return
	}
	for _, g := range m.endpoint(pl).Granted {
		if err := l.ReleaseAddress(ctx, g.Pool, g.Addr.Addr()); err != nil {
			m.Log.Error("an IPAM plug-in does not take an address back", "container", pl.ContainerName, "network", pl.net.Name, "address", g.Addr, "err", err)
		}
	}
}
