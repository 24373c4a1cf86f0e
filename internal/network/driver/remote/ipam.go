package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

// mostID is how long the name of a pool may be: it is kept in the network's record.
const mostID = 1 << 10

// IPAM is a network.ExternalIPAM whose work a plugin does.
//
// Answers are not asked for twice: after an error without an answer the plugin may
// have given out what nobody knows of. ReleasePool and ReleaseAddress can be repeated.
type IPAM struct{ plugin *plugin }

var _ network.NeedyIPAM = IPAM{}

// Needs implements network.NeedyIPAM.
func (i IPAM) Needs(ctx context.Context) (network.IPAMNeeds, error) {
	l, err := i.plugin.reach(ctx, i.plugin.begin(true), kindIPAM)
	if err != nil {
		return network.IPAMNeeds{}, err
	}
	return network.IPAMNeeds{MAC: l.needs.RequiresMACAddress, Replay: l.needs.RequiresRequestReplay}, nil
}

func (i IPAM) ask(ctx context.Context, w *patience, method string, arg any, ret answer) (*life, error) {
	return i.plugin.ask(ctx, w, kindIPAM, method, arg, ret)
}

// RequestPool implements network.ExternalIPAM. A pool that overlaps with others of this
// host is the caller's to give back: after it has asked for the next, or it gets the
// same again.
func (i IPAM) RequestPool(ctx context.Context, want network.PoolWish) (network.PoolGrant, error) {
	if want.Range.IsValid() && !want.Subnet.IsValid() {
		return network.PoolGrant{}, fmt.Errorf("range %s without a subnet: %w", want.Range, errdefs.ErrInvalidArgument)
	}
	w := i.plugin.begin(false)
	var spaces addressSpaces
	if _, err := i.ask(ctx, w, "GetDefaultAddressSpaces", nil, &spaces); err != nil {
		return network.PoolGrant{}, err
	}
	var out requestedPool
	if _, err := i.ask(ctx, w, "RequestPool", requestPool{
		AddressSpace: spaces.LocalDefaultAddressSpace, Pool: prefixText(want.Subnet), SubPool: prefixText(want.Range), Options: orEmpty(want.Options), V6: want.IPv6,
	}, &out); err != nil {
		return network.PoolGrant{}, err
	}
	g, err := out.grant(want)
	if err != nil && g.ID != "" {
		err = i.giveBack(ctx, w, err, "ReleasePool", releasePool{g.ID})
	}
	return g, i.plugin.about(err)
}

func prefixText(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// giveBack returns what a plugin gave that cannot be taken.
func (i IPAM) giveBack(ctx context.Context, w *patience, err error, method string, arg any) error {
	return withUndo(err, i.release(context.WithoutCancel(ctx), w, method, arg))
}

func (i IPAM) release(ctx context.Context, w *patience, method string, arg any) error {
	if _, err := i.ask(ctx, w, method, arg, &done{}); err != nil && !absent(err) {
		return err
	}
	return nil
}

// grant checks an answer to RequestPool.
func (r requestedPool) grant(want network.PoolWish) (g network.PoolGrant, err error) {
	if r.PoolID == "" || len(r.PoolID) > mostID {
		return g, fmt.Errorf("invalid PoolID of %d bytes: 1 to %d are taken", len(r.PoolID), mostID)
	}
	g = network.PoolGrant{ID: r.PoolID, Data: r.Data}
	if g.Subnet, err = netip.ParsePrefix(r.Pool); err != nil || g.Subnet.Addr().Is4In6() {
		return g, fmt.Errorf("invalid CIDR address: %s", plain(r.Pool))
	}
	g.Subnet = g.Subnet.Masked()
	switch {
	case want.Subnet.IsValid() && g.Subnet != want.Subnet.Masked():
		return g, fmt.Errorf("asked for pool %s, got %s", want.Subnet, g.Subnet)
	case !want.Subnet.IsValid() && g.Subnet.Addr().Is6() != want.IPv6:
		return g, fmt.Errorf("asked for a pool of %s, got %s", familyName(!want.IPv6), g.Subnet)
	}
	if gw, ok := r.Data[keyGateway]; ok {
		p, err := netip.ParsePrefix(gw)
		if err != nil || !g.Subnet.Contains(p.Addr()) {
			return g, fmt.Errorf("%s: failed to parse gateway address %q for pool %s", keyGateway, plain(gw), g.Subnet)
		}
		g.Gateway = p.Addr()
	}
	return g, nil
}

// ReleasePool implements network.ExternalIPAM.
func (i IPAM) ReleasePool(ctx context.Context, pool string) error {
	return i.release(ctx, i.plugin.begin(true), "ReleasePool", releasePool{pool})
}

// RequestAddress implements network.ExternalIPAM. That the address is in the pool is
// the caller's to check.
func (i IPAM) RequestAddress(ctx context.Context, pool string, want netip.Addr, gateway bool, mac netspec.MAC) (netip.Prefix, error) {
	w := i.plugin.begin(true)
	l, err := i.plugin.reach(ctx, w, kindIPAM)
	if err != nil {
		return netip.Prefix{}, err
	}
	var out requestedAddress
	if _, err := i.ask(ctx, w, "RequestAddress", requestAddress{pool, text(want), addressOptions(l.needs, gateway, mac)}, &out); err != nil {
		return netip.Prefix{}, err
	}
	p, err := out.grant(want, gateway)
	if err != nil && p.IsValid() {
		err = i.giveBack(ctx, w, err, "ReleaseAddress", releaseAddress{pool, p.Addr().String()})
	}
	return p, i.plugin.about(err)
}

func addressOptions(needs ipamNeeds, gateway bool, mac netspec.MAC) map[string]string {
	opts := map[string]string{}
	if gateway {
		opts[keyAddressType] = keyGateway
	}
	if needs.RequiresMACAddress && mac != (netspec.MAC{}) {
		opts[keyMAC] = net.HardwareAddr(mac[:]).String()
	}
	return opts
}

// grant checks an answer to RequestAddress. A plugin without a gateway may answer with
// the pool's own address, since the protocol has no word for none.
func (r requestedAddress) grant(want netip.Addr, gateway bool) (netip.Prefix, error) {
	if r.Address == "" {
		return netip.Prefix{}, fmt.Errorf("no address returned: %w", errdefs.ErrUnavailable)
	}
	p, err := netip.ParsePrefix(r.Address)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("invalid CIDR address: %s", plain(r.Address))
	case !host(p.Addr()) && !(gateway && p.Addr().IsUnspecified()):
		return p, errors.New("invalid address " + p.String() + ": no interface can have it")
	case want.IsValid() && p.Addr() != want:
		return p, fmt.Errorf("asked for address %s, got %s", want, p)
	}
	return p, nil
}

// ReleaseAddress implements network.ExternalIPAM.
func (i IPAM) ReleaseAddress(ctx context.Context, pool string, a netip.Addr) error {
	return i.release(ctx, i.plugin.begin(true), "ReleaseAddress", releaseAddress{pool, text(a)})
}
