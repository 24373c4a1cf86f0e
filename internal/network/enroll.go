package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
	"isle/internal/ids"
	"isle/internal/store"
)

// This file is about endpoints of this host on networks of a cluster. Their interface is
// made without an address; then the cluster is asked for one, while other operations go
// on; then it is committed. So it is with a LAN (obtain.go), and the same holds: who
// cannot be asked gives nothing, and what is there stays.

// clusterPatience is how long the cluster has for an answer.
const clusterPatience = 10 * time.Second

// enroll gets the addresses of new endpoints on networks of a cluster.
func (m *Manager) enroll(ctx context.Context, places []place) error {
	for _, pl := range places {
		if !pl.net.Global() {
			continue
		}
		m.withdraw(ctx) // what was given back before may be wanted now
		if err := m.enrollOne(ctx, pl); err != nil {
			return fmt.Errorf("container %s: %w", pl.ContainerName, inNetwork(*pl.net, err))
		}
	}
	return nil
}

func (m *Manager) enrollOne(ctx context.Context, pl place) error {
	if m.Fabric == nil {
		return ErrNoCluster
	}
	m.cluster.joining.RLock()
	defer m.cluster.joining.RUnlock()
	e, pools := m.applicant(pl)
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	got, err := m.Fabric.Connect(ctx, e, pools, pl.net.reserved())
	if err != nil {
		return err
	}
	_, _, found, err := m.alter(ctx, pl.ID, func(e *Endpoint) bool { e.granted(got); return true })
	if err = errors.Join(err, gone(found)); err != nil {
		return errors.Join(err, m.Fabric.Disconnect(context.WithoutCancel(ctx), pl.ID))
	}
	return nil
}

// granted notes what the cluster gave.
func (e *Endpoint) granted(got fabric.Endpoint) {
	e.Granted = nil
	for _, a := range got.Addrs {
		e.Granted = append(e.Granted, Granted{Addr: a})
	}
	e.MAC = macOf(got)
}

// applicant is what the cluster is told of a place, and where its addresses are to be
// from. One that is unspecified the cluster chooses.
func (m *Manager) applicant(pl place) (e fabric.Endpoint, pools []netip.Prefix) {
	e = m.farOf(pl.Endpoint)
	e.Addrs = nil
	for _, v6 := range []bool{false, true} {
		want := pl.Wish.of(v6)
		p, ok := pl.poolFor(v6)
		if on := !v6 && pl.net.IPv4 || v6 && pl.net.IPv6; !ok || !on && !want.IsValid() {
			continue
		}
		if !want.IsValid() {
			want = map[bool]netip.Addr{false: netip.IPv4Unspecified(), true: netip.IPv6Unspecified()}[v6]
		}
		from := p.Subnet
		if p.Range.IsValid() {
			from = p.Range
		}
		e.Addrs, pools = append(e.Addrs, netip.PrefixFrom(want, p.Subnet.Bits())), append(pools, from)
	}
	return e, pools
}

// farOf is an endpoint of this host as the cluster has it. A MAC address that nobody
// asked for follows from the address.
func (m *Manager) farOf(e Endpoint) fabric.Endpoint {
	m.op.Lock()
	defer m.op.Unlock()
	return m.farOfLocked(e)
}

func (m *Manager) farOfLocked(e Endpoint) fabric.Endpoint {
	out := fabric.Endpoint{ID: e.ID, Network: e.Network, Host: m.cluster.far.self, Container: e.ContainerName, Names: e.Names, Addrs: e.Addrs}
	if e.Wish != nil {
		out.MAC = e.Wish.MAC
	}
	return out
}

// reserved are the addresses of n that no container can have.
func (n Network) reserved() (out []netip.Addr) {
	for _, p := range n.Pools {
		out = append(out, slices.Collect(maps.Values(p.Aux))...)
		out = append(out, p.Gateway)
		for _, a := range []netip.Addr{p.Subnet.Addr(), lastOf(p.Subnet)} {
			if p.reserved(a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// lastOf is the highest address of a subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// wishShared keeps what the user wants of a place on a network of a cluster. A MAC address
// must be nobody else's there.
func (m *Manager) wishShared(d *draft, mac bool) error {
	d.Wish = d.wish()
	if !mac {
		return nil
	}
	d.Wish.MAC = d.MAC
	for id := range m.cluster.far.claims[claim{network: d.net.ID, mac: d.MAC}] {
		if o := m.cluster.far.endpoints[id]; o.Host != m.cluster.far.self {
			return errdefs.ErrConflict.WithMessage(fmt.Sprintf("MAC address %x is in use on network %s: container %s of another host has it", d.MAC, d.net.Name, o.Container))
		}
	}
	return nil
}

// depart notes that an endpoint is to be taken out of the cluster. op is held.
func (m *Manager) depart(old, now *sandbox) {
	for _, pl := range old.places {
		if pl.net.Global() && (now == nil || !slices.ContainsFunc(now.places, func(o place) bool { return o.ID == pl.ID })) {
			m.cluster.parting[pl.ID] = true
		}
	}
}

// withdraw takes endpoints that are gone out of the cluster. That it cannot be reached keeps
// nothing here: they are taken out later, or end with our lease.
func (m *Manager) withdraw(ctx context.Context) {
	if m.Fabric == nil {
		return
	}
	m.cluster.partings.Lock()
	defer m.cluster.partings.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clusterPatience)
	defer cancel()
	for _, id := range m.departed() {
		if err := m.Fabric.Disconnect(ctx, id); err != nil {
			m.Log.Warn("take an endpoint out of the cluster: it is tried again", "endpoint", ids.Short(id), "err", err)
			m.restoreSoon()
			return
		}
		m.op.Lock()
		delete(m.cluster.parting, id)
		m.op.Unlock()
	}
}

func (m *Manager) departed() []string {
	m.op.Lock()
	defer m.op.Unlock()
	return slices.Sorted(maps.Keys(m.cluster.parting))
}

// restoreSoon has the cluster told what this host has.
func (m *Manager) restoreSoon() {
	select {
	case m.cluster.due <- struct{}{}:
	default:
	}
}

// Restore writes down in the cluster what this host has, when that is not there. Run calls it. Nobody
// comes or goes meanwhile.
func (m *Manager) Restore(ctx context.Context) error {
	m.cluster.joining.Lock()
	defer m.cluster.joining.Unlock()
	if err := m.publishKey(ctx); err != nil {
		return err
	}
	mine, differs := m.mine()
	if !differs {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	lost, err := m.Fabric.Restore(ctx, mine)
	if err != nil {
		return err
	}
	m.op.Lock()
	clear(m.cluster.parting)
	m.op.Unlock()
	var errs []error
	for _, e := range lost {
		errs = append(errs, m.readdress(ctx, e))
	}
	return errors.Join(errs...)
}

// mine are the endpoints of this host, and whether the cluster has something else. What
// this host has not heard of yet, it has.
func (m *Manager) mine() (mine []fabric.Endpoint, differs bool) {
	v := m.Fabric.View()
	m.op.Lock()
	defer m.op.Unlock()
	if !v.Known || !m.cluster.known { // what this host has is not known before it knows its networks
		return nil, false
	}
	here := map[string]bool{}
	for _, users := range m.x.users {
		for _, pl := range users {
			if !pl.net.Global() || len(pl.Granted) == 0 || m.x.networks[pl.net.ID].Removed {
				continue
			}
			e := m.farOfLocked(pl.Endpoint)
			mine, here[e.ID] = append(mine, e), true
			e.Generation = v.Endpoints[e.ID].Generation
			differs = differs || !sameEndpoint(v.Endpoints[e.ID], e)
		}
	}
	for id, e := range v.Endpoints {
		differs = differs || e.Host == v.Self && !here[id]
	}
	return mine, differs
}

// readdress gives an endpoint other addresses: others have its own by now, because this
// host was not heard of for too long. One whose address the user chose is left without.
func (m *Manager) readdress(ctx context.Context, e fabric.Endpoint) error {
	m.op.Lock()
	sb, i := m.seatOf(e.ID)
	if sb == nil {
		m.op.Unlock()
		return nil
	}
	pl := sb.places[i]
	m.op.Unlock()
	applicant, pools := m.applicant(pl)
	got, err := m.Fabric.Connect(ctx, applicant, pools, pl.net.reserved())
	if errdefs.IsNotFound(err) {
		return nil // the network was removed, as will be told: what is here stays as it is
	}
	if err != nil {
		m.Log.Error("another container of the cluster has this one's address, and there is no other", "container", pl.ContainerName, "network", pl.net.Name, "addresses", pl.Addrs, "err", err)
		got = fabric.Endpoint{Network: pl.net.ID}
	}
	was, now, _, aerr := m.alter(ctx, e.ID, func(e *Endpoint) bool { e.granted(got); e.Addrs = nil; return true })
	if aerr == nil {
		m.moved(ctx, was, now, "the cluster gave it another one")
	}
	return errors.Join(err, aerr)
}

// reunite puts endpoints into their sandboxes whose networks are known by now.
func (m *Manager) reunite(ctx context.Context) {
	for id, eps := range m.cluster.waiting {
		if err := m.reuniteOne(ctx, id, eps); err != nil {
			m.Log.Error("bring a container's places on networks of the cluster back", "container", id, "err", err)
		}
	}
	clear(m.cluster.waiting)
}

func (m *Manager) reuniteOne(ctx context.Context, id string, eps []Endpoint) error {
	old := m.x.sandboxes[id]
	if old == nil {
		return nil
	}
	places := slices.Clone(old.places)
	for _, ep := range eps {
		n, ok := m.x.networks[ep.Network]
		if !ok {
			m.Log.Error("an endpoint's network is gone", "endpoint", ids.Short(ep.ID), "network", ids.Short(ep.Network))
			continue
		}
		m.mu.Lock()
		places = append(places, place{ep, m.rouse(n)})
		m.mu.Unlock()
	}
	sb := m.assemble(old.Sandbox, places)
	s, err := m.planner().sandbox(sb.Sandbox, sb.places)
	if err != nil {
		return err
	}
	m.units[sandboxUnit(id)] = s
	m.became(id, sb)
	m.planned(sandboxUnit(id))
	return m.resolve(ctx, sb)
}

// rouse plans a network that containers of this host are on, without touching the
// kernel: it has been there all the while. It returns the network as it is then. mu is
// held.
func (m *Manager) rouse(n *Network) *Network {
	if !n.Global() || !n.Idle {
		return n
	}
	id := n.ID
	now := *n
	now.Idle, now.Leaves = false, m.cluster.footholds[id].Leaves
	s, err := m.planner().network(now)
	if err != nil {
		m.Log.Error("a network of the cluster cannot be brought up: what is there of it is left as it is", "network", n.Name, "err", err)
		m.unplanned[networkUnit(id)] = true
	}
	m.x.networks[id] = &now
	m.x.occupy(id, s)
	m.note(networkUnit(id), s)
	for unit, s := range merged(merged(m.farUnits(id), m.tunnelUnits()), merged(m.sealUnits(), m.trialUnits())) {
		m.note(unit, s)
	}
	return &now
}

// orphan is for an endpoint whose network is not among the records: it may be the
// cluster's, and nobody has told of that yet. op is held.
func (m *Manager) orphan(ep Endpoint) {
	if m.Fabric == nil || m.cluster.known || ep.Wish == nil {
		m.Log.Error("an endpoint's network is gone", "endpoint", ids.Short(ep.ID), "network", ids.Short(ep.Network))
		return
	}
	m.cluster.waiting[ep.Sandbox] = append(m.cluster.waiting[ep.Sandbox], ep)
}

// dropWaiting forgets the endpoints of a sandbox that goes before their networks are
// known.
func (m *Manager) dropWaiting(tx store.Tx, sandbox string) {
	for _, ep := range m.cluster.waiting[sandbox] {
		endpoints.Delete(tx, ep.ID)
	}
}

// loadCluster takes up what the cluster says at a start. Nothing in the kernel is touched.
func (m *Manager) loadCluster(ctx context.Context) {
	if m.Fabric == nil {
		return
	}
	if v := m.Fabric.View(); whole(v) {
		m.loadView(ctx, v)
	}
}

func (m *Manager) loadView(ctx context.Context, v fabric.View) {
	m.cluster.far.self, m.cluster.known = v.Self, true
	for id, h := range v.Hosts {
		m.cluster.far.hosts[id] = h
	}
	m.cluster.here = v.Hosts[v.Self]
	var err error
	if m.host.Tunnel, err = m.begin(ctx, m.host); err != nil {
		m.Log.Error("look where tunnels begin", "err", err)
	}
	for _, id := range slices.Sorted(maps.Keys(v.Networks)) {
		m.take(ctx, v.Networks[id])
	}
	for _, id := range slices.Sorted(maps.Keys(m.cluster.footholds)) {
		if m.x.networks[id] == nil {
			m.takeRemoved(m.cluster.footholds[id])
		}
	}
	for id, e := range v.Endpoints {
		m.cluster.far.put(id, &e)
		m.countAddrs(e, m.IPAM.Taken)
	}
	if err := m.lookAtShakes(ctx); err != nil {
		m.Log.Error("look which ways to other hosts are open", "err", err)
	}
	for unit, s := range merged(m.tunnelUnits(), m.trialUnits()) {
		m.note(unit, s)
	}
}
