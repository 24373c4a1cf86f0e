package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network/ipam"
	"isle/internal/store"
)

// The networks that are always there, with their drivers.
const (
	NameBridge, NameHost, NameNone       = "bridge", "host", "none"
	DriverBridge, DriverHost, DriverNone = "bridge", "host", "null"
	DriverMacvlan, DriverIPvlan          = netspec.Macvlan, netspec.IPvlan
	DriverOverlay                        = "overlay"
	DriverCNI                            = "cni"
)

// Predefined reports whether name belongs to a network of Isle's own.
func Predefined(name string) bool {
	return name == NameBridge || name == NameHost || name == NameNone || name == "default"
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// Create makes a network.
func (m *Manager) Create(ctx context.Context, req network.CreateRequest) (Network, error) {
	if !validName.MatchString(req.Name) {
		return Network{}, fmt.Errorf("invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed: %w", req.Name, errdefs.ErrInvalidArgument)
	}
	if Predefined(req.Name) {
		return Network{}, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("operation is not permitted on predefined %s network", req.Name))
	}
	n, req, err := m.drafted(ctx, req)
	if err != nil {
		return Network{}, err
	}
	if n.Global() {
		return m.createGlobal(ctx, n, req.IPAM)
	}
	if err := m.borrowPools(ctx, &n, req.IPAM); err != nil {
		return Network{}, err
	}
	if n, err = m.createNow(ctx, n, req.IPAM); err == nil {
		n, err = m.make(ctx, n)
	}
	if err != nil {
		err = errors.Join(err, m.repayPools(context.WithoutCancel(ctx), n))
	}
	return n, err
}

func (m *Manager) drafted(ctx context.Context, req network.CreateRequest) (Network, network.CreateRequest, error) {
	m.op.Lock()
	defer m.op.Unlock()
	req, err := m.front(ctx, req)
	if err != nil {
		return Network{}, req, err
	}
	n, err := m.draftNetwork(req)
	return n, req, err
}

func (m *Manager) createNow(ctx context.Context, n Network, want *network.IPAM) (Network, error) {
	m.op.Lock()
	defer m.op.Unlock()
	return m.create(ctx, n, want)
}

// draftNetwork is everything about a network but its subnets.
func (m *Manager) draftNetwork(req network.CreateRequest) (Network, error) {
	n := Network{
		ID: ids.New(), Name: req.Name, Driver: req.Driver, Created: time.Now().UTC(),
		IPv4: req.EnableIPv4 == nil || *req.EnableIPv4, IPv6: req.EnableIPv6 != nil && *req.EnableIPv6,
		Options: maps.Clone(req.Options), Labels: maps.Clone(req.Labels), IPAMDriver: "default",
		Internal: req.Internal, Attachable: req.Attachable, ConfigOnly: req.ConfigOnly,
	}
	scope, err := m.scopeOf(req)
	if n.Scope = scope; err != nil {
		return n, err
	}
	switch {
	case n.ConfigOnly && req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return n, fmt.Errorf("network %s: a configuration-only network cannot depend on another configuration network: %w", n.Name, errdefs.ErrInvalidArgument)
	case n.ConfigOnly:
		n.Driver = DriverNone
	case n.Driver == "" || n.Driver == "default":
		n.Driver = DriverBridge
	}
	if req.IPAM != nil {
		n.IPAMOptions = maps.Clone(req.IPAM.Options)
		if req.IPAM.Driver != "" {
			n.IPAMDriver = req.IPAM.Driver
		}
	}
	n, err = m.addressedBy(n)
	if err != nil {
		return n, err
	}
	if req.EnableIPv6 == nil {
		n.IPv6 = m.dualStack(n)
	}
	return m.configFrom(n, req)
}

// addressedBy settles who gives out the addresses of n: others that make its
// interfaces choose them too, unless they leave it to Isle.
func (m *Manager) addressedBy(n Network) (Network, error) {
	if x, ok := m.external(&n); ok && !x.Caps().IPAM {
		if n.IPAMDriver != "default" {
			return n, fmt.Errorf("network %s: driver %s chooses the addresses itself (hint: leave out --ipam-driver): %w", n.Name, n.Driver, errdefs.ErrInvalidArgument)
		}
		n.IPAMDriver = n.Driver
		return n, nil
	}
	if _, ok := m.outsideIPAM(n.IPAMDriver); n.given() && !ok {
		return n, fmt.Errorf("network %s: ipam driver %q not found: %w", n.Name, n.IPAMDriver, errdefs.ErrNotFound)
	}
	return n, nil
}

// dualStack reports whether a network gets IPv6 though nobody has asked for it.
func (m *Manager) dualStack(n Network) bool {
	d, ok := m.drivers().find(n.Driver)
	return ok && d.Caps().IPAM && m.Config.IPv6 && m.host.IPv6 && !n.ConfigOnly && n.IPAMDriver == "default" && !n.narrow()
}

// configFrom takes over what a configuration-only network says.
func (m *Manager) configFrom(n Network, req network.CreateRequest) (Network, error) {
	if req.ConfigFrom == nil || req.ConfigFrom.Network == "" {
		return n, nil
	}
	from, err := m.x.find(req.ConfigFrom.Network)
	if err != nil {
		return n, fmt.Errorf("network %s: configuration: %w", n.Name, err)
	}
	switch {
	case !from.ConfigOnly:
		return n, fmt.Errorf("network %s: %s is not a configuration-only network: %w", n.Name, from.Name, errdefs.ErrInvalidArgument)
	case len(req.Options) > 0, req.IPAM != nil && len(req.IPAM.Config) > 0, req.EnableIPv6 != nil && *req.EnableIPv6: // old clients always say false
		return n, errdefs.ErrPermissionDenied.WithMessage("user specified configurations are not supported if the network depends on a configuration network")
	}
	n.ConfigFrom, n.IPv4, n.IPv6 = from.Name, from.IPv4, from.IPv6
	n.Options, n.IPAMOptions, n.IPAMDriver = from.Options, from.IPAMOptions, from.IPAMDriver
	n.Pools = from.Pools
	if n.Labels == nil {
		n.Labels = from.Labels
	}
	return n, nil
}

// create settles the subnets of n, checks it, and makes it. op is held.
func (m *Manager) create(ctx context.Context, n Network, want *network.IPAM) (Network, error) {
	if _, ok := m.x.names[n.Name]; ok {
		return n, errdefs.ErrConflict.WithMessage(fmt.Sprintf("network with name %s already exists", n.Name))
	}
	d, err := m.planner().driver(n)
	if err != nil {
		return n, err
	}
	if d.Caps().Singleton && !n.ConfigOnly && !Predefined(n.Name) {
		return n, errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("only one instance of %q network is allowed", n.Driver))
	}
	if err := m.pools(ctx, &n, d, want); err != nil {
		return n, inNetwork(n, err)
	}
	n.Index = m.x.free
	_, n.Unready = m.external(&n)
	if !n.ConfigOnly {
		if err := d.Validate(n); err != nil {
			return n, inNetwork(n, err)
		}
		if err := m.beside(n, d); err != nil {
			return n, err
		}
		if n.OnLAN() { // what is there may have come this moment
			if err := m.relook(ctx); err != nil {
				return n, err
			}
		}
		if err := m.ready(ctx, n); err != nil {
			return n, err
		}
	}
	return n, m.commitNetwork(ctx, n)
}

func (m *Manager) commitNetwork(ctx context.Context, n Network) error {
	var s netspec.State
	err := m.commit(ctx, func(tx store.Tx) (_ map[string]netspec.State, err error) {
		if s, err = m.planner().network(n); err != nil {
			return nil, err
		}
		if err := m.x.clash(s, n.ID); err != nil {
			return nil, inNetwork(n, err)
		}
		units := map[string]netspec.State{networkUnit(n.ID): s, machineUnit: m.planner().machine(m.x.ipv6 > 0 || n.IPv6)}
		return units, networks.Put(tx, n.ID, n)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.x.addNetwork(&n, s)
	m.mu.Unlock()
	if n.Unready {
		m.underway[n.ID] = true
	}
	if !n.ConfigOnly {
		for _, p := range n.Pools {
			m.IPAM.Open(m.pool(n, p))
		}
	}
	m.zone(n)
	m.tell(events.ActionCreate, n, "")
	return nil
}

// pools settles the subnets of n: those asked for, and one for each family
// that has none.
func (m *Manager) pools(ctx context.Context, n *Network, d Driver, want *network.IPAM) error {
	if n.IPAMDriver == IPAMDHCP && !n.ConfigOnly {
		if err := m.leasable(*n, d); err != nil {
			return err
		}
	}
	if len(n.Pools) > 0 && n.Pools[0].Grant != "" {
		return m.free(ctx, n.Pools)
	}
	if !d.Caps().IPAM && !n.ConfigOnly || n.IPAMDriver != "default" {
		if want != nil && len(want.Config) > 0 {
			return n.noChoice()
		}
		return nil
	}
	var asked []network.IPAMConfig
	if want != nil {
		asked = want.Config
	}
	for _, p := range n.Pools { // of the configuration network
		asked = append(asked, network.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway, AuxAddress: p.Aux})
	}
	if n.Pools = nil; n.ConfigOnly {
		for _, c := range asked {
			n.Pools = append(n.Pools, Pool{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
		}
		return nil
	}
	if !n.IPv4 && !n.IPv6 {
		return fmt.Errorf("IPv4 or IPv6 must be enabled: %w", errdefs.ErrInvalidArgument)
	}
	foreign, err := m.foreign(ctx)
	if err != nil {
		return err
	}
	return m.choosePools(n, asked, foreign)
}

// free reports whether pools that others chose are nobody's here.
func (m *Manager) free(ctx context.Context, pools []Pool) error {
	foreign, err := m.foreign(ctx)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if err := m.IPAM.Check(p.Subnet, foreign); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) choosePools(n *Network, asked []network.IPAMConfig, foreign []ipam.Foreign) error {
	need := map[bool]bool{false: n.IPv4, true: n.IPv6} // by "is IPv6"
	for _, c := range asked {
		if !c.Subnet.IsValid() && !c.IPRange.IsValid() && !c.Gateway.IsValid() && len(c.AuxAddress) == 0 {
			continue
		}
		v6 := familyOf(c)
		if (v6 && !n.IPv6) || (!v6 && !n.IPv4) {
			return fmt.Errorf("subnet %s given, but its address family is not enabled: %w", c.Subnet, errdefs.ErrInvalidArgument)
		}
		p, err := m.settlePool(c, v6, besides(foreign, n))
		if err != nil {
			return err
		}
		need[v6] = false
		n.Pools = append(n.Pools, p)
		foreign = append(foreign, ipam.Foreign{Prefix: p.Subnet, What: "subnet of the same network"})
	}
	for _, v6 := range []bool{false, true} {
		if need[v6] {
			p, err := m.settlePool(network.IPAMConfig{}, v6, foreign)
			if err != nil {
				return err
			}
			n.Pools = append(n.Pools, p)
		}
	}
	return nil
}

// besides are the others whose addresses n cannot have too. A network of the LAN has
// those of the LAN.
func besides(foreign []ipam.Foreign, n *Network) (out []ipam.Foreign) {
	if !n.OnLAN() {
		return foreign
	}
	for _, p := range n.Pools {
		out = append(out, ipam.Foreign{Prefix: p.Subnet, What: "subnet of the same network"})
	}
	return out
}

func familyOf(c network.IPAMConfig) (v6 bool) {
	if c.Subnet.IsValid() {
		return c.Subnet.Addr().Is6()
	}
	return c.IPRange.Addr().Is6() || c.Gateway.Is6()
}

// settlePool checks what was asked for and fills in the rest. A subnet with
// the unspecified address asks for a size only.
func (m *Manager) settlePool(c network.IPAMConfig, v6 bool, foreign []ipam.Foreign) (Pool, error) {
	p := Pool{Subnet: c.Subnet.Masked(), Range: c.IPRange.Masked(), Gateway: c.Gateway, Aux: c.AuxAddress}
	err := usable(c)
	switch {
	case err != nil:
	case !c.Subnet.IsValid() || c.Subnet.Addr().IsUnspecified():
		if c.IPRange.IsValid() || c.Gateway.IsValid() || len(c.AuxAddress) > 0 {
			return p, errdefs.ErrInvalidArgument.WithMessage("no matching subnet for range, gateway or aux-address: give --subnet too")
		}
		p.Auto = true
		p.Subnet, err = m.IPAM.Choose(v6, max(c.Subnet.Bits(), 0), foreign)
	case c.Subnet.Addr() != p.Subnet.Addr():
		err = fmt.Errorf("invalid subnet %s: it should be %s: %w", c.Subnet, p.Subnet, errdefs.ErrInvalidArgument)
	default:
		err = m.IPAM.Check(p.Subnet, foreign)
	}
	if errors.Is(err, ipam.ErrOverlap) {
		err = m.x.overlap(p.Subnet)
	}
	if err != nil {
		return p, err
	}
	return p, p.complete()
}

// usable reports what kind of address a network cannot have.
func usable(c network.IPAMConfig) error {
	all := append(slices.Collect(maps.Values(c.AuxAddress)), c.Subnet.Addr(), c.IPRange.Addr(), c.Gateway)
	for _, a := range all {
		what := ""
		switch {
		case a.Is4In6():
			what = "an IPv4 address written as IPv6"
		case a.Zone() != "":
			what = "an address of one interface"
		case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			what = "an address of a group"
		case a.IsLoopback():
			what = "a loopback address"
		case a.IsLinkLocalUnicast():
			what = "a link-local address"
		}
		if what != "" {
			return fmt.Errorf("invalid address %s: a network cannot have %s (hint: take a private one, such as 10.5.0.0/24 or fd00:5::/64): %w", a, what, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// reserved reports whether a is the subnet's own address or the broadcast address.
func (p *Pool) reserved(a netip.Addr) bool {
	if p.Subnet.Addr().BitLen()-p.Subnet.Bits() < 2 {
		return false // RFC 3021
	}
	next := a.Next()
	return a == p.Subnet.Addr() || a.Is4() && (!next.IsValid() || !p.Subnet.Contains(next))
}

// complete checks the parts of p against its subnet and chooses a gateway.
func (p *Pool) complete() error {
	bad := func(what string, v any) error {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no matching subnet for %s %v", what, v))
	}
	host := p.Subnet.Addr().BitLen() - p.Subnet.Bits()
	switch {
	case host < 1:
		return fmt.Errorf("invalid subnet %s: there is no room for a gateway and a container: %w", p.Subnet, errdefs.ErrInvalidArgument)
	case p.Range.IsValid() && (p.Range.Bits() < p.Subnet.Bits() || !p.Subnet.Contains(p.Range.Addr())):
		return bad("range", p.Range)
	case p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway):
		return bad("gateway", p.Gateway)
	case p.Gateway.IsValid() && p.reserved(p.Gateway):
		return fmt.Errorf("invalid gateway %s: it is the network's or the broadcast address of %s: %w", p.Gateway, p.Subnet, errdefs.ErrInvalidArgument)
	}
	taken := map[netip.Addr]bool{}
	for name, a := range p.Aux {
		if a == p.Gateway && a.IsValid() {
			return fmt.Errorf("aux-address %s=%s is the gateway of %s: %w", name, a, p.Subnet, errdefs.ErrInvalidArgument)
		}
		if !p.Subnet.Contains(a) {
			return bad("aux-address", name+"="+a.String())
		}
		if taken[a] {
			return fmt.Errorf("aux-address %s=%s is given twice: %w", name, a, errdefs.ErrInvalidArgument)
		}
		taken[a] = true
	}
	if p.Gateway.IsValid() {
		return nil
	}
	if p.Gateway = p.firstFree(taken); !p.Gateway.IsValid() {
		return bad("gateway", "none is left by the aux-addresses")
	}
	return nil
}

// firstFree is the first address that a gateway can have; invalid: none is left.
func (p *Pool) firstFree(taken map[netip.Addr]bool) netip.Addr {
	for a := p.Subnet.Addr(); p.Subnet.Contains(a); a = a.Next() {
		if !taken[a] && !p.reserved(a) {
			return a
		}
	}
	return netip.Addr{}
}

// foreign are the prefixes that others use: not our own devices' routes.
func (m *Manager) foreign(ctx context.Context) ([]ipam.Foreign, error) {
	all, err := m.Machine.Foreign(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at this host's routes: %w", err)
	}
	var out []ipam.Foreign
	for _, f := range all {
		_, ours := m.x.devices[netspec.Link{Name: f.Dev}.Key()]
		if !ours {
			out = append(out, f)
		}
	}
	return out, nil
}

// predefine makes the networks that are always there. op is held.
func (m *Manager) predefine(ctx context.Context) error {
	if err := m.moveDefault(ctx); err != nil {
		return fmt.Errorf("give the default network another subnet: %w", err)
	}
	for _, name := range []string{NameBridge, NameHost, NameNone} {
		if _, ok := m.x.names[name]; ok {
			continue
		}
		n := Network{ID: ids.New(), Name: name, Created: time.Now().UTC(), Scope: "local", IPv4: true, IPAMDriver: "default"}
		var want *network.IPAM
		switch name {
		case NameHost:
			n.Driver = DriverHost
		case NameNone:
			n.Driver = DriverNone
		default:
			n.Driver = DriverBridge
			n.IPv6 = m.dualStack(n)
			n.Options = map[string]string{
				"com.docker.network.bridge.default_bridge":       "true",
				"com.docker.network.bridge.enable_icc":           "true",
				"com.docker.network.bridge.enable_ip_masquerade": "true",
				OptHostBinding: "0.0.0.0",
				optBridgeName:  m.Config.Bridge,
			}
			if m.Config.Subnet.IsValid() {
				want = &network.IPAM{Config: []network.IPAMConfig{{Subnet: m.Config.Subnet}}}
			}
		}
		if _, err := m.create(ctx, n, want); err != nil {
			return fmt.Errorf("make the %s network: %w", name, err)
		}
	}
	return nil
}
