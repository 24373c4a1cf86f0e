package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"isle/internal/netspec"
	"isle/internal/network/ipam"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
	"isle/internal/store"
)

// Start reads the records, makes the predefined networks if they are not
// there, repairs the kernel, holds ports and answers names again. Containers
// that have been running all the while notice nothing.
func (m *Manager) Start(ctx context.Context) error {
	m.op.Lock()
	defer m.op.Unlock()
	m.kick, m.tenants = make(chan struct{}, 1), newTenants()
	m.units, m.unplanned = map[string]netspec.State{}, map[string]bool{}
	m.underway, m.ailing = map[string]bool{}, map[string]string{}
	if err := m.look(ctx); err != nil {
		return err
	}
	if err := m.load(ctx); err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	m.loseUnused(ctx)
	m.forsake(ctx, m.erase)
	for _, s := range m.units {
		m.announce(nil, s)
	}
	if err := m.sync(ctx); err != nil {
		m.Log.Error("bring the kernel in step with the records", "err", err)
		m.resync()
	}
	if err := m.predefine(ctx); err != nil {
		return err
	}
	if err := m.warnOverlaps(ctx); err != nil {
		m.Log.Warn("look for subnets that others use too", "err", err)
	}
	for _, sb := range m.x.sandboxes {
		if err := m.restorePorts(ctx, sb); err != nil {
			m.Log.Warn("a published port is not held against other programs", "container", sb.Name, "err", err)
		}
		m.forward(sb)
		if err := m.resolve(ctx, sb); err != nil {
			m.Log.Error("answer names", "container", sb.Name, "err", err)
		}
		for _, pl := range sb.places {
			m.retain(pl)
		}
	}
	return nil
}

// Sync makes the kernel match the records. It runs at start, when something
// changed and on a timer.
func (m *Manager) Sync(ctx context.Context) error {
	m.forsake(ctx, func(ctx context.Context, sb *sandbox) error { return m.Close(ctx, sb.ID) })
	m.op.Lock()
	defer m.op.Unlock()
	before := m.host
	if err := m.look(ctx); err != nil {
		return err
	}
	if !m.same(m.host, before) {
		m.replan()
	}
	for _, id := range m.Ports.HoldAgain() {
		m.forward(m.x.sandboxes[id])
	}
	return m.sync(ctx)
}

// look reads the facts that plans depend on.
func (m *Manager) look(ctx context.Context) error {
	h, err := m.Machine.Host(ctx)
	if err != nil {
		return fmt.Errorf("look at this host's network: %w", err)
	}
	h.LinkPrefix = m.Config.LinkPrefix
	if h.Tunnel, err = m.begin(ctx, h); err != nil {
		return err
	}
	before := m.host
	m.host = h
	m.rewired(before)
	return nil
}

// sync compares everything. When it cannot be put right as a whole, it is put
// right unit by unit, so that one broken thing does not keep the others.
func (m *Manager) sync(ctx context.Context) error {
	have, err := m.Kernel.Observe(ctx)
	if err != nil {
		return fmt.Errorf("observe kernel: %w", err)
	}
	want, err := m.wanted()
	if err != nil {
		return err
	}
	changes := m.certain(reconcile.Diff(have, want))
	if len(changes) > 0 {
		m.Log.Info("the kernel differs from the records", "changes", len(changes), "first", changes[0].String())
	}
	if err = reconcile.Apply(ctx, m.Kernel, changes); err == nil {
		return nil
	}
	return errors.Join(err, m.syncUnits(ctx, have, want))
}

// certain leaves out removals as long as something may belong to a unit that could
// not be planned, or to one whose parent is away: it would be cut off while it is in use.
func (m *Manager) certain(changes []reconcile.Change) []reconcile.Change {
	if len(m.unplanned) == 0 {
		return m.hanging(changes)
	}
	return slices.DeleteFunc(changes, func(c reconcile.Change) bool { return c.New == nil })
}

// wanted is the state of all units.
func (m *Manager) wanted() (netspec.State, error) {
	size := 0
	for _, s := range m.units {
		size += len(s)
	}
	want := make(netspec.State, size) // a repair waits for this: it must not grow step by step
	for u, s := range m.units {
		if err := merge(want, s); err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
	}
	return want, nil
}

func (m *Manager) syncUnits(ctx context.Context, have, want netspec.State) error {
	var errs []error
	for _, u := range slices.Sorted(maps.Keys(m.units)) { // machine, networks, sandboxes
		mine := netspec.State{}
		for k := range m.units[u] {
			if o, ok := have[k]; ok {
				mine[k] = o
			}
		}
		if err := reconcile.Apply(ctx, m.Kernel, reconcile.Diff(mine, m.units[u])); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", u, err))
		}
	}
	stray := netspec.State{}
	for k, o := range have {
		if _, ok := want[k]; !ok {
			stray[k] = o
		}
	}
	return errors.Join(append(errs, reconcile.Apply(ctx, m.Kernel, m.certain(reconcile.Diff(stray, nil))))...)
}

// load reads all records into memory.
func (m *Manager) load(ctx context.Context) error {
	m.mu.Lock()
	m.x = newIndex()
	m.newCluster()
	err := m.Store.View(ctx, func(tx store.Tx) error {
		return errors.Join(m.loadNetworks(tx), m.loadNumbers(tx), m.loadFootholds(tx))
	})
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.loadCluster(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	err = m.Store.View(ctx, m.loadSandboxes)
	m.units[machineUnit] = m.planner().machine(m.x.ipv6 > 0)
	return err
}

func (m *Manager) loadNetworks(tx store.Tx) error {
	for n, err := range networks.All(tx) {
		if err != nil {
			return err
		}
		if err := m.loadNetwork(tx, &n); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) loadNetwork(tx store.Tx, n *Network) error {
	if n.Name == NameBridge { // its device is the administrator's to name, at any start
		n.Options = maps.Clone(n.Options)
		n.Options[optBridgeName] = m.Config.Bridge
	}
	s, err := m.planner().network(*n)
	if err != nil {
		m.Log.Error("a network cannot be brought up: what is there of it is left as it is", "network", n.Name, "err", err)
		m.unplanned[networkUnit(n.ID)] = true
	}
	m.units[networkUnit(n.ID)] = s
	m.x.addNetwork(n, s)
	m.zone(*n)
	for _, p := range n.Pools {
		if n.ConfigOnly {
			break
		}
		if err := m.IPAM.Load(tx, m.pool(*n, p)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) loadSandboxes(tx store.Tx) error {
	places := map[string][]place{}
	for ep, err := range endpoints.All(tx) {
		if err != nil {
			return err
		}
		n, ok := m.x.networks[ep.Network]
		if !ok {
			m.orphan(ep)
			continue
		}
		places[ep.Sandbox] = append(places[ep.Sandbox], place{ep, m.rouse(n)})
	}
	for rec, err := range sandboxes.All(tx) {
		if err != nil {
			return err
		}
		sb := m.assemble(rec, places[rec.ID])
		s, err := m.planner().sandbox(rec, sb.places)
		if len(m.cluster.waiting[rec.ID]) > 0 {
			s, m.unplanned[sandboxUnit(rec.ID)] = nil, true
		}
		if err != nil {
			m.Log.Error("a container's network cannot be brought up: what is there of it is left as it is", "container", rec.Name, "err", err)
			m.unplanned[sandboxUnit(rec.ID)] = true
		}
		m.units[sandboxUnit(rec.ID)] = s
		m.x.setSandbox(rec.ID, sb)
		m.name(sb, nil)
	}
	return nil
}

// replan is for when the facts of the machine have changed.
func (m *Manager) replan() {
	p := m.planner()
	m.units[machineUnit] = p.machine(m.x.ipv6 > 0)
	m.replanCluster()
	for id, n := range m.x.networks {
		m.replace(networkUnit(id), func() (netspec.State, error) { return p.network(*n) })
	}
	for id, sb := range m.x.sandboxes {
		m.replace(sandboxUnit(id), func() (netspec.State, error) { return p.sandbox(sb.Sandbox, sb.places) })
	}
}

func (m *Manager) replace(unit string, plan func() (netspec.State, error)) {
	s, err := plan()
	if err != nil {
		m.Log.Error("plan again after a change of the host", "unit", unit, "err", err)
		return
	}
	m.units[unit] = s
	m.planned(unit)
}

// assemble puts a sandbox's places in order and gives them its ports.
func (m *Manager) assemble(rec Sandbox, places []place) *sandbox {
	return &sandbox{rec, m.planner().assign(rec.Publish, sorted(places))}
}

// pool is what may be given out of p. The host's own addresses on the LAN are not.
func (m *Manager) pool(n Network, p Pool) ipam.Pool {
	out := ipam.Pool{Subnet: p.Subnet, Range: p.Range}
	if p.Gateway.IsValid() {
		out.Exclude = append(out.Exclude, p.Gateway)
	}
	for _, a := range p.Aux {
		out.Exclude = append(out.Exclude, a)
	}
	if n.OnLAN() {
		out.Exclude = append(out.Exclude, m.host.own()...)
	}
	return out
}

func mappings(ps []Publish) []publish.Mapping {
	out := make([]publish.Mapping, len(ps))
	for i, p := range ps {
		out[i] = publish.Mapping(p)
	}
	return out
}

func publishes(ms []publish.Mapping) []Publish {
	out := make([]Publish, len(ms))
	for i, m := range ms {
		out[i] = Publish(m)
	}
	return out
}
