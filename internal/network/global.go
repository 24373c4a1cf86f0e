package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network/ipam"
	"isle/internal/store"
)

// This file is about networks of a cluster. Their records are the cluster's; what is
// ours of them is a number, for the names of devices and the tables of routes.

// numbers are those of the cluster's networks on this host.
var numbers = store.NewTable[int]("number")

// footholds are those of the cluster's networks that containers of this host are on, as
// they are here: how far they have grown.
var footholds = store.NewTable[Network]("foothold")

// records are where that of n on this host is.
func (n Network) records() store.Table[Network] {
	if n.Global() {
		return footholds
	}
	return networks
}

const (
	createTries = 8
	createAgain = 50 * time.Millisecond
)

// ErrNoCluster is that there is nobody to have a network with.
var ErrNoCluster = fmt.Errorf("this host is in no cluster (hint: isle cluster init, or isle cluster join): %w", errdefs.ErrUnavailable)

// scopeOf is the scope of a network of a driver; want is what the user says of it.
func (m *Manager) scopeOf(req network.CreateRequest) (string, error) {
	d, _ := m.drivers().find(req.Driver)
	_, is := d.(Shared)
	switch {
	case req.Ingress:
		return "", fmt.Errorf("network %s: there are no networks of services here: %w", req.Name, errdefs.ErrInvalidArgument)
	case is && m.Fabric == nil:
		return "", fmt.Errorf("network %s: %w", req.Name, ErrNoCluster)
	case is && slices.Contains([]string{"", ScopeGlobal, "swarm"}, req.Scope):
		return ScopeGlobal, nil
	case is:
		return "", fmt.Errorf("network %s: a network of driver %s is on all hosts, so its scope cannot be %s: %w", req.Name, req.Driver, req.Scope, errdefs.ErrInvalidArgument)
	case req.Scope != "" && req.Scope != "local":
		return "", fmt.Errorf("network %s: a network of this driver is on one host, so its scope can only be local (hint: -d overlay): %w", req.Name, errdefs.ErrInvalidArgument)
	}
	return "local", nil
}

// createGlobal has the cluster write down a network. Others may choose the same subnet
// at the same time: then another one is chosen, unless the user named it.
func (m *Manager) createGlobal(ctx context.Context, n Network, want *network.IPAM) (Network, error) {
	var tried []ipam.Foreign
	for try := 1; ; try++ {
		one, vnis, err := m.settleGlobal(ctx, n, want, tried)
		if err != nil {
			return one, err
		}
		made, err := m.writeGlobal(ctx, one, vnis)
		if errdefs.IsConflict(err) && one.auto() && try < createTries && ctx.Err() == nil {
			tried = append(tried, one.subnets()...)
			time.Sleep(createAgain)
			continue
		}
		if err != nil {
			return one, err
		}
		return m.adopted(ctx, made)
	}
}

// reachable reports why no tunnel of another host can end here, though this one is in a
// cluster: its address there is only for itself.
func (m *Manager) reachable() error {
	here := m.cluster.here
	if here.ID == "" || usableHost(here) {
		return nil
	}
	return fmt.Errorf("no other host reaches this one at %s, its address in the cluster (hint: isle cluster leave, then isle cluster init --advertise ADDRESS): %w", here.Addr, errdefs.ErrFailedPrecondition)
}

// settleGlobal chooses the subnets of a network and checks it.
func (m *Manager) settleGlobal(ctx context.Context, n Network, want *network.IPAM, tried []ipam.Foreign) (Network, []fabric.Range, error) {
	m.op.Lock()
	defer m.op.Unlock()
	if _, ok := m.x.names[n.Name]; ok {
		return n, nil, errdefs.ErrConflict.WithMessage(fmt.Sprintf("network with name %s already exists", n.Name))
	}
	d, err := m.sharedDriver(n)
	if err != nil {
		return n, nil, err
	}
	if n.IPAMDriver != "default" {
		return n, nil, fmt.Errorf("network %s: the addresses of a network of driver %s are the cluster's to give out (hint: leave out --ipam-driver): %w", n.Name, n.Driver, errdefs.ErrInvalidArgument)
	}
	if err := m.reachable(); err != nil {
		return n, nil, inNetwork(n, err)
	}
	n.Pools = nil
	if err := m.globalPools(ctx, &n, want, tried); err != nil {
		return n, nil, inNetwork(n, err)
	}
	if err := errors.Join(d.Validate(n), d.Ready(n, 0, m.host)); err != nil {
		return n, nil, inNetwork(n, err)
	}
	vnis, err := d.VNIs(n)
	return n, vnis, inNetwork(n, err)
}

func (m *Manager) globalPools(ctx context.Context, n *Network, want *network.IPAM, tried []ipam.Foreign) error {
	if !n.IPv4 && !n.IPv6 {
		return fmt.Errorf("IPv4 or IPv6 must be enabled: %w", errdefs.ErrInvalidArgument)
	}
	foreign, err := m.foreign(ctx)
	if err != nil {
		return err
	}
	var asked []network.IPAMConfig
	if want != nil {
		asked = want.Config
	}
	return m.choosePools(n, asked, slices.Concat(foreign, m.cluster.far.addresses(), tried))
}

// addresses are those where tunnels end: on a network that had one, containers would be
// taken for that host.
func (f *far) addresses() (all []ipam.Foreign) {
	for _, id := range slices.Sorted(maps.Keys(f.hosts)) {
		if h := f.hosts[id]; usableHost(h) {
			all = append(all, ipam.Foreign{Prefix: netip.PrefixFrom(h.Addr, h.Addr.BitLen()), What: "address", Host: h.Name})
		}
	}
	return all
}

// auto reports whether a subnet of n was chosen by us.
func (n Network) auto() bool {
	return slices.ContainsFunc(n.Pools, func(p Pool) bool { return p.Auto })
}

func (n Network) subnets() (out []ipam.Foreign) {
	for _, p := range n.Pools {
		if p.Auto {
			out = append(out, ipam.Foreign{Prefix: p.Subnet, What: "network of another host"})
		}
	}
	return out
}

func (m *Manager) writeGlobal(ctx context.Context, n Network, vnis []fabric.Range) (fabric.Network, error) {
	text, err := json.Marshal(n)
	if err != nil {
		return fabric.Network{}, inNetwork(n, err)
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	made, err := m.Fabric.CreateNetwork(ctx, fabric.Network{ID: n.ID, Name: n.Name, Record: text}, vnis)
	if errdefs.IsAlreadyExists(err) {
		err = errdefs.ErrConflict.WithMessage(fmt.Sprintf("network with name %s already exists in the cluster", n.Name))
	}
	return made, inNetwork(n, err)
}

// adopted is a network that the cluster has written down, as this host has it.
func (m *Manager) adopted(ctx context.Context, f fabric.Network) (Network, error) {
	m.op.Lock()
	defer m.op.Unlock()
	m.adopt(ctx, f)
	n, ok := m.x.networks[f.ID]
	if !ok {
		return Network{}, fmt.Errorf("network %s: it was removed at once: %w", f.Name, errdefs.ErrNotFound)
	}
	return *n, nil
}

// adopt takes up a network of the cluster. What cannot be is ignored, and told of. op is
// held.
func (m *Manager) adopt(ctx context.Context, f fabric.Network) {
	n := m.take(ctx, f)
	if n == nil {
		return
	}
	m.impose(ctx, map[string]netspec.State{machineUnit: m.planner().machine(m.x.ipv6 > 0)})
	m.tell(events.ActionCreate, *n, "")
	for id := range m.cluster.far.of[n.ID] {
		m.countAddrs(m.cluster.far.endpoints[id], m.IPAM.Taken)
	}
}

// take is adopt in memory. It returns nil when there is nothing new.
func (m *Manager) take(ctx context.Context, f fabric.Network) *Network {
	if _, ok := m.x.networks[f.ID]; ok {
		m.setRemoved(ctx, f.ID, false)
		return nil
	}
	n, err := m.readGlobal(f)
	if err == nil {
		n.Index, err = m.number(ctx, n.ID)
	}
	if err != nil {
		m.tellOdd("a network of the cluster is ignored", "network "+f.ID, "name", f.Name, "err", err)
		return nil
	}
	m.keepGlobal(n)
	return &n
}

func (m *Manager) keepGlobal(n Network) {
	m.openPools(n)
	m.mu.Lock()
	m.x.addNetwork(&n, nil)
	m.mu.Unlock()
	m.zone(n)
}

// takeRemoved is take for a network that the cluster has no more: it was removed while
// this host could not be reached, and there are containers on it here.
func (m *Manager) takeRemoved(n Network) {
	n.Idle, n.Leaves, n.Removed = true, 0, true
	m.keepGlobal(n)
	m.tellRemoved(n)
}

func (m *Manager) tellRemoved(n Network) {
	m.Log.Warn("a network was removed in the cluster while this host could not be reached, and containers here are on it: it stays until they are gone", "network", n.Name)
}

// setRemoved notes whether a network is gone in the cluster.
func (m *Manager) setRemoved(ctx context.Context, id string, removed bool) {
	n := *m.x.networks[id]
	if n.Removed == removed {
		return
	}
	n.Removed = removed
	m.mu.Lock()
	m.x.networks[id] = &n
	m.x.nameAnew(n.Name)
	m.mu.Unlock()
	s, err := m.planner().network(n)
	if err != nil {
		m.Log.Error("plan a network that was removed in the cluster", "network", n.Name, "err", err)
		return
	}
	units := map[string]netspec.State{networkUnit(id): s}
	if !n.Idle {
		units = merged(units, m.farUnits(id))
	}
	m.impose(ctx, units)
}

// loseUnused drops networks that are gone in the cluster and that, as it turns out at a
// start, no container here is on.
func (m *Manager) loseUnused(ctx context.Context) {
	for _, n := range m.x.networks {
		if n.Removed && len(m.x.users[n.ID]) == 0 {
			m.loseNetwork(ctx, n.ID)
		}
	}
}

// readGlobal reads a record of the cluster's.
func (m *Manager) readGlobal(f fabric.Network) (n Network, err error) {
	if err := json.Unmarshal(f.Record, &n); err != nil {
		return n, fmt.Errorf("read its record: %w", err)
	}
	d, err := m.sharedDriver(n)
	switch {
	case err != nil:
		return n, err
	case f.ID == "" || n.ID != f.ID || !validName.MatchString(f.Name):
		return n, fmt.Errorf("it is called %q: %w", f.Name, errdefs.ErrInvalidArgument)
	}
	n.Name, n.Scope, n.Idle, n.Leaves, n.Unready, n.ConfigOnly = f.Name, ScopeGlobal, true, 0, false, false
	n = d.Numbered(n, f.VNI)
	for i := range n.Pools {
		p := &n.Pools[i]
		if !p.Subnet.IsValid() || p.Subnet != p.Subnet.Masked() {
			return n, fmt.Errorf("invalid subnet %s: %w", p.Subnet, errdefs.ErrInvalidArgument)
		}
		if err := p.complete(); err != nil {
			return n, err
		}
	}
	return n, d.Validate(n)
}

// number is a network's on this host, for as long as it is in the cluster.
func (m *Manager) number(ctx context.Context, id string) (i int, err error) {
	err = m.Store.Update(ctx, func(tx store.Tx) (err error) {
		if i, err = numbers.Get(tx, id); err == nil || !errdefs.IsNotFound(err) {
			return err
		}
		i = m.x.free
		return numbers.Put(tx, id, i)
	})
	return i, err
}

func (m *Manager) loadFootholds(tx store.Tx) error {
	for n, err := range footholds.All(tx) {
		if err != nil {
			return err
		}
		m.cluster.footholds[n.ID] = n
	}
	return nil
}

// loadNumbers keeps the numbers of networks that nobody has told of yet.
func (m *Manager) loadNumbers(tx store.Tx) error {
	for i, err := range numbers.All(tx) {
		if err != nil {
			return err
		}
		m.x.reserve(i)
	}
	return nil
}

// reserve keeps a number from others.
func (x *index) reserve(i int) {
	x.numbers[i] = struct{}{}
	for _, used := x.numbers[x.free]; used; _, used = x.numbers[x.free] {
		x.free++
	}
}

// openPools has the subnets of a network kept from others. One that a network of this
// host has is left to that.
func (m *Manager) openPools(n Network) {
	for _, p := range n.Pools {
		if err := m.IPAM.Check(p.Subnet, nil); err != nil {
			m.Log.Warn("a network of the cluster has a subnet of this host's networks: no container here can be on it", "network", n.Name, "subnet", p.Subnet, "err", err)
			continue
		}
		m.openPool(n, p)
	}
}

// loseNetwork drops a network that is gone in the cluster. While containers of ours are
// on it, it stays as it is. op is held.
func (m *Manager) loseNetwork(ctx context.Context, id string) {
	n, ok := m.x.networks[id]
	if !ok || !n.Global() {
		return
	}
	if len(m.x.users[id]) > 0 {
		if !n.Removed {
			m.tellRemoved(*n)
		}
		m.setRemoved(ctx, id, true)
		return
	}
	if !n.Idle {
		m.sleep(ctx, *n)
	}
	m.mu.Lock()
	m.x.dropNetwork(n, nil)
	delete(m.x.users, id)
	m.mu.Unlock()
	m.closePools(*n)
	m.impose(ctx, map[string]netspec.State{networkUnit(id): nil, machineUnit: m.planner().machine(m.x.ipv6 > 0)})
	if m.DNS != nil {
		m.DNS.DropZone(id)
	}
	m.openClosed()
	if err := m.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { numbers.Delete(tx, id); footholds.Delete(tx, id); return nil }); err != nil {
		m.Log.Error("forget the number of a network", "network", n.Name, "err", err)
	}
	m.tell(events.ActionDestroy, *n, "")
}

// openClosed opens the subnets of networks of the cluster that another network had.
func (m *Manager) openClosed() {
	for _, n := range m.x.networks {
		if !n.Global() || n.Removed {
			continue
		}
		for _, p := range n.Pools {
			if m.cluster.opened[p.Subnet] != n.ID && m.IPAM.Check(p.Subnet, nil) == nil {
				m.openPool(*n, p)
				m.countPool(*n, p)
			}
		}
	}
}

// countPool counts the addresses that other hosts have of a pool.
func (m *Manager) countPool(n Network, p Pool) {
	for id := range m.cluster.far.of[n.ID] {
		e := m.cluster.far.endpoints[id]
		for _, a := range e.Addrs {
			if e.Host != m.cluster.far.self && p.Subnet.Contains(a.Addr()) {
				m.IPAM.Taken(p.Subnet, a.Addr())
			}
		}
	}
}

func (m *Manager) openPool(n Network, p Pool) {
	m.IPAM.Open(m.pool(n, p))
	m.cluster.opened[p.Subnet] = n.ID
}

func (m *Manager) closePools(n Network) {
	for _, p := range n.Pools {
		if m.cluster.opened[p.Subnet] == n.ID {
			m.IPAM.Drop(p.Subnet)
			delete(m.cluster.opened, p.Subnet)
		}
	}
}

// removeGlobal has the cluster forget a network.
func (m *Manager) removeGlobal(ctx context.Context, n Network) error {
	if m.Fabric == nil {
		return inNetwork(n, ErrNoCluster)
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	if err := m.Fabric.RemoveNetwork(ctx, n.ID); err != nil {
		return fmt.Errorf("error while removing network: %w", inNetwork(n, err))
	}
	m.op.Lock()
	defer m.op.Unlock()
	m.loseNetwork(ctx, n.ID)
	return nil
}

// overlapBesides says which other network a subnet overlaps with.
func (x *index) overlapBesides(subnet netip.Prefix, id string) error {
	for _, other := range x.sorted {
		n := x.networks[other]
		for _, p := range n.Pools {
			if other != id && !n.ConfigOnly && p.Subnet.Overlaps(subnet) {
				return fmt.Errorf("%w: %s overlaps with %s of network %s", ipam.ErrOverlap, subnet, p.Subnet, n.Name)
			}
		}
	}
	return ipam.ErrOverlap
}
