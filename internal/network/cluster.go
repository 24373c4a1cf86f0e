package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network/dns"
	"isle/internal/reconcile"
)

// This file follows what the cluster says. A network that is on all hosts costs a host
// nothing until a container of its own is on it; from then on there are, besides the
// network's unit, one for each endpoint of another host and one for each host that has
// any. So news costs what it is about. What the kernel refuses of it is no reason not to
// believe it: it stays wanted, and is tried again.

// cluster is what a Manager knows of its cluster. All of it is under op.
type cluster struct {
	far     far
	here    fabric.Host                // this host, as it was last known
	known   bool                       // the cluster was heard of since the start
	units   map[string]map[string]bool // network → units of what is elsewhere
	named   map[string]dns.Host        // unit → what the resolver was told
	seals   seals                      // keys and ways of encrypted tunnels
	waiting map[string][]Endpoint      // sandbox → endpoints whose networks nobody has told of yet
	opened  map[netip.Prefix]string    // pools that nobody else has → network
	bars    bars                       // what of others stands in the way past tunnels
	proven  map[string]bool            // hosts that what containers send gets to as it is
	odd     map[string]bool            // records that were told of because they cannot be

	trials map[string]bool // units by which ways to other hosts are tried
	retry  chan struct{}   // who tries them is to be told which there are

	footholds map[string]Network // as they were at the start

	due      chan struct{}   // the cluster is to be told what this host has
	joining  sync.RWMutex    // held, not under op, while endpoints come and go in the cluster
	parting  map[string]bool // endpoints to be taken out of the cluster
	partings sync.Mutex      // one at a time does that
}

func (m *Manager) newCluster() {
	c := &m.cluster
	c.far, c.known = newFar(), false
	c.units, c.named = map[string]map[string]bool{}, map[string]dns.Host{}
	c.waiting, c.opened = map[string][]Endpoint{}, map[netip.Prefix]string{}
	c.bars = bars{}
	c.footholds, c.proven = map[string]Network{}, m.provenBefore()
	c.odd, c.parting, c.due = map[string]bool{}, map[string]bool{}, make(chan struct{}, 1)
	c.seals = seals{shaken: map[shake]bool{}}
	c.trials, c.retry = map[string]bool{}, make(chan struct{}, 1)
}

const (
	metAgain     = 5 * time.Millisecond
	watchAgain   = time.Second
	restoreAgain = 2 * time.Second
)

// followCluster keeps this host in step with the cluster, and the cluster with it.
func (m *Manager) followCluster(ctx context.Context) {
	if m.Fabric == nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { m.watchCluster(ctx) })
	wg.Go(func() { m.rotateKeys(ctx) })
	wg.Go(func() { m.followTrials(ctx) })
	for again := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-m.cluster.due:
		case <-after(again):
		}
		again = 0
		if err := m.Restore(ctx); err != nil && ctx.Err() == nil {
			m.Log.Warn("tell the cluster what this host has", "err", err)
			again = restoreAgain
		}
	}
}

// after is never for 0.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

func (m *Manager) watchCluster(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.Fabric.Watch(ctx, func(ch fabric.Change) { m.Heard(ctx, ch) })
		if ctx.Err() != nil {
			return
		}
		m.Log.Warn("follow the cluster", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// Heard brings everything in step with news of the cluster. Run calls it.
func (m *Manager) Heard(ctx context.Context, ch fabric.Change) {
	m.op.Lock()
	defer m.op.Unlock()
	if ch.Reset || !m.cluster.known {
		m.resetCluster(ctx, m.Fabric.View())
		return
	}
	for id, n := range ch.Networks {
		if n == nil {
			m.loseNetwork(ctx, id)
		} else {
			m.adopt(ctx, *n)
		}
	}
	n := newNews()
	for id, h := range ch.Hosts {
		m.hearHost(ctx, id, h, n)
	}
	for id, e := range ch.Endpoints {
		m.hearEndpoint(id, e, n)
	}
	m.replanFar(ctx, n)
}

// resetCluster takes everything anew.
func (m *Manager) resetCluster(ctx context.Context, v fabric.View) {
	switch {
	case !m.cluster.known && whole(v):
		m.meetCluster(ctx, v)
		return
	case !m.cluster.known || !v.Known:
		return
	}
	m.takeView(ctx, v)
	n := newNews()
	for id := range m.cluster.far.endpoints {
		if _, ok := v.Endpoints[id]; !ok {
			m.hearEndpoint(id, nil, n)
		}
	}
	for id, e := range v.Endpoints {
		if old, ok := m.cluster.far.endpoints[id]; !ok || !sameEndpoint(old, e) {
			m.hearEndpoint(id, &e, n)
		}
	}
	m.replanFar(ctx, n)
	m.restoreSoon()
}

// whole reports whether a view has this host too. One whose lease has ended writes itself
// down anew: until then its tunnels would seem to begin nowhere, and would be taken away.
func whole(v fabric.View) bool { return v.Known && (v.Self == "" || v.Hosts[v.Self].ID != "") }

// meetCluster takes up what the cluster says first. The kernel has what it had before isled
// was started: all is planned, and only what is not so is written.
func (m *Manager) meetCluster(ctx context.Context, v fabric.View) {
	m.loadView(ctx, v)
	m.units[machineUnit] = m.planner().machine(m.x.ipv6 > 0)
	m.reunite(ctx)
	m.loseUnused(ctx)
	for _, s := range m.units {
		m.announce(nil, s)
	}
	if err := m.sync(ctx); err != nil {
		m.Log.Error("bring the kernel in step with the cluster", "err", err)
		m.resync()
	}
	m.restoreSoon()
}

func sameEndpoint(a, b fabric.Endpoint) bool {
	return a.Network == b.Network && a.Host == b.Host && a.Container == b.Container && a.MAC == b.MAC && a.Generation == b.Generation &&
		slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Names, b.Names)
}

// takeView takes hosts and networks from a view.
func (m *Manager) takeView(ctx context.Context, v fabric.View) {
	m.cluster.far.self = v.Self
	for id, n := range m.x.networks {
		if _, ok := v.Networks[id]; !ok && n.Global() {
			m.loseNetwork(ctx, id)
		}
	}
	n := newNews()
	for id := range m.cluster.far.hosts {
		if _, ok := v.Hosts[id]; !ok {
			m.hearHost(ctx, id, nil, n)
		}
	}
	for id, h := range v.Hosts {
		if m.cluster.far.hosts[id] != h {
			m.hearHost(ctx, id, &h, n)
		}
	}
	m.outside(ctx, v)
	for _, id := range slices.Sorted(maps.Keys(v.Networks)) {
		m.adopt(ctx, v.Networks[id])
	}
	m.replanFar(ctx, n)
}

// Met waits until it was heard that this host is id of a cluster, or ctx ends.
func (m *Manager) Met(ctx context.Context, id string) {
	for !m.isHost(id) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(metAgain):
		}
	}
}

func (m *Manager) isHost(id string) bool {
	m.op.Lock()
	defer m.op.Unlock()
	return m.cluster.here.ID == id
}

// outside is for a host that is in no cluster any more: no tunnel begins here. One that
// is in one and is not heard of goes on as it was.
func (m *Manager) outside(ctx context.Context, v fabric.View) {
	if v.Self != "" || m.cluster.here == (fabric.Host{}) {
		return
	}
	m.cluster.here = fabric.Host{}
	if err := m.relook(ctx); err != nil {
		m.Log.Error("look where tunnels begin", "err", err)
	}
}

// hearHost notes what another host is now, or this one. nil: it is gone.
func (m *Manager) hearHost(ctx context.Context, id string, h *fabric.Host, n news) {
	f := &m.cluster.far
	affected := f.like(f.hosts[id])
	if h == nil {
		delete(f.hosts, id)
	} else {
		f.hosts[id] = *h
		affected = append(affected, f.like(*h)...)
	}
	m.meet(ctx, id)
	for _, other := range append(affected, id) {
		f.touch(other, n)
	}
	if id == f.self && h != nil && m.described(*h) != *h { // it was written down anew
		m.restoreSoon()
	}
	if id == f.self && h != nil && m.cluster.here != *h {
		m.cluster.here = *h
		if err := m.relook(ctx); err != nil {
			m.Log.Error("look where tunnels begin", "err", err)
		}
	}
}

// tunnelPeer is what a host needs that sends to ours, while there is one.
func (m *Manager) tunnelPeer(host string) netspec.State {
	h, ok := m.cluster.far.leads(host)
	if !ok || h.Addr == m.cluster.here.Addr || !m.tunneling() {
		return nil
	}
	s := netspec.State{}
	s.Add(netspec.TunnelPeer{Addr: h.Addr})
	return s
}

// tunneling reports whether tunnels end here: of a network of the cluster, or for trials.
func (m *Manager) tunneling() bool {
	if m.trying() {
		return true
	}
	for _, n := range m.x.networks {
		if n.Global() && !n.Idle {
			return true
		}
	}
	return false
}

// tunnelUnits are those that come with the first network of the cluster, and go with the
// last.
func (m *Manager) tunnelUnits() map[string]netspec.State {
	units := map[string]netspec.State{}
	here := m.tunneling()
	for id := range m.cluster.far.hosts {
		if id != m.cluster.far.self && here != (m.units[tunnelUnit(id)] != nil) {
			units[tunnelUnit(id)] = m.tunnelPeer(id)
		}
	}
	return units
}

// sealUnit is that of the link which encrypts, or of the host at its other end.
func sealUnit(host string) string                { return "seal/" + host }
func tunnelUnit(host string) string              { return "tunnel/" + host }
func remoteUnit(network, endpoint string) string { return "remote/" + network + "/" + endpoint }
func peerUnit(network, host string) string       { return "peer/" + network + "/" + host }

// hearEndpoint notes what an endpoint is now. nil: it is gone.
func (m *Manager) hearEndpoint(id string, e *fabric.Endpoint, n news) {
	f := &m.cluster.far
	old, had := f.endpoints[id]
	if had {
		m.countAddrs(old, m.IPAM.Freed)
		n.endpoint(trace{id, old.Network, old.Host})
	}
	for _, t := range f.put(id, e) {
		n.endpoint(f.trace(t))
	}
	if e != nil {
		m.countAddrs(*e, m.IPAM.Taken)
	}
	if sb, _ := m.seatOf(id); sb != nil && e == nil { // it is here: our lease has ended
		m.restoreSoon()
	}
}

// countAddrs keeps the numbers of addresses in use in step.
func (m *Manager) countAddrs(e fabric.Endpoint, do func(netip.Prefix, netip.Addr)) {
	n, ok := m.x.networks[e.Network]
	if !ok || e.Host == m.cluster.far.self { // those of this host are counted where they are made
		return
	}
	for _, a := range e.Addrs {
		for _, p := range n.Pools {
			if p.Subnet.Contains(a.Addr()) && m.cluster.opened[p.Subnet] == n.ID {
				do(p.Subnet, a.Addr())
			}
		}
	}
}

// replanFar brings the units of endpoints, and of hosts, in step. All at once, so that
// frames have a new way to a host before the old one is closed.
func (m *Manager) replanFar(ctx context.Context, n news) {
	units := map[string]netspec.State{}
	var drop, add []dns.Host
	for t := range n.endpoints {
		m.planFar(t, units, &drop, &add)
		if _, done := units[sealUnit(t.host)]; !done && t.host != m.cluster.far.self {
			units[sealUnit(t.host)] = m.sealPeer(t.host)
		}
	}
	for host := range n.hosts {
		if host != m.cluster.far.self {
			units[tunnelUnit(host)], units[sealUnit(host)] = m.tunnelPeer(host), m.sealPeer(host)
			m.trialsTo(host, units)
		}
	}
	m.impose(ctx, units)
	if m.DNS != nil && len(drop)+len(add) > 0 {
		m.DNS.Change(drop, add)
	}
}

// planFar plans an endpoint's unit, and that of its host, and notes names.
func (m *Manager) planFar(t trace, units map[string]netspec.State, drop, add *[]dns.Host) {
	n, ok := m.x.networks[t.network]
	if !ok || t.host == m.cluster.far.self {
		return
	}
	unit := remoteUnit(n.ID, t.id)
	s, name := m.planRemote(*n, t.id)
	units[unit], units[peerUnit(n.ID, t.host)] = s, m.planPeer(*n, t.host)
	if old, ok := m.cluster.named[unit]; ok {
		*drop = append(*drop, old)
		delete(m.cluster.named, unit)
	}
	if len(name.Addrs) > 0 {
		*add = append(*add, name)
		m.cluster.named[unit] = name
	}
}

// planRemote is what an endpoint of another host needs here, and its names; nothing for
// one that is gone, or not right.
func (m *Manager) planRemote(n Network, id string) (netspec.State, dns.Host) {
	f := &m.cluster.far
	now := f.endpoints[id]
	h, alive := f.hosts[now.Host]
	if n.Idle || now.Network != n.ID || now.Host == f.self || !alive || !usableHost(h) || !f.wins(now) {
		return nil, dns.Host{}
	}
	if !n.plausible(now) {
		m.tellOdd("an endpoint of another host cannot be as it is written down: it is ignored", "endpoint "+id, "network", n.Name, "container", now.Container, "host", h.Name)
		return nil, dns.Host{}
	}
	now.MAC = macOf(now)
	s := netspec.State{}
	d, err := m.sharedDriver(n)
	if err == nil {
		err = d.PlanRemote(s, n, Remote{now, h, m.passage(h), m.cluster.proven[h.ID]}, m.host)
	}
	if err != nil {
		m.Log.Error("plan an endpoint of another host", "network", n.Name, "container", now.Container, "err", err)
	}
	name := dns.Host{Zone: n.ID, Owner: now.ID, Names: now.Names}
	for _, a := range now.Addrs {
		name.Addrs = append(name.Addrs, a.Addr())
	}
	return s, name
}

// planPeer is what another host needs here that has endpoints of n.
func (m *Manager) planPeer(n Network, host string) netspec.State {
	h, ok := m.cluster.far.leads(host)
	if n.Idle || !ok || m.cluster.far.counts[seat{n.ID, host}] == 0 {
		return nil
	}
	s := netspec.State{}
	d, err := m.sharedDriver(n)
	if err == nil {
		err = d.PlanPeer(s, n, Remote{Host: h, Sealed: m.passage(h)}, m.host)
	}
	if err != nil {
		m.Log.Error("plan a host of the cluster", "network", n.Name, "host", h.Name, "err", err)
	}
	return s
}

func (m *Manager) sharedDriver(n Network) (Shared, error) {
	d, err := m.planner().driver(n)
	if err != nil {
		return nil, err
	}
	s, ok := d.(Shared)
	if !ok {
		return nil, fmt.Errorf("driver %s has no networks of a cluster: %w", n.Driver, errdefs.ErrInvalidArgument)
	}
	return s, nil
}

// tellOdd logs once what cannot be.
func (m *Manager) tellOdd(text, what string, args ...any) {
	if !m.cluster.odd[what] {
		m.cluster.odd[what] = true
		m.Log.Warn(text, append([]any{"what", what}, args...)...)
	}
}

// impose makes units what they are to be, whatever the kernel says: what it refuses is
// tried again. op is held.
func (m *Manager) impose(ctx context.Context, units map[string]netspec.State) {
	have, want := netspec.State{}, netspec.State{}
	for u, s := range units {
		maps.Copy(have, m.units[u])
		maps.Copy(want, s)
	}
	m.keep(units, have, want)
	for u, s := range units {
		m.announce(m.units[u], s)
		m.note(u, s)
	}
	if err := reconcile.Apply(context.WithoutCancel(ctx), m.Kernel, reconcile.Diff(have, want)); err != nil {
		m.Log.Error("bring the kernel in step with the cluster", "err", err)
		m.resync()
	}
}

// note keeps a unit, and of which network it is.
func (m *Manager) note(unit string, s netspec.State) {
	had := m.units[unit] != nil
	if s == nil {
		delete(m.units, unit)
	} else {
		m.units[unit] = s
	}
	kind, rest, _ := strings.Cut(unit, "/")
	switch kind {
	case "trial":
		m.noteTrial(unit, s)
		return
	case "remote":
	case "peer":
		if had != (s != nil) { // who is near is asked more often
			m.tryAnew()
		}
	default:
		return
	}
	network, _, _ := strings.Cut(rest, "/")
	if s == nil {
		leave(m.cluster.units, network, unit)
	} else {
		enter(m.cluster.units, network, unit)
	}
}

// replanCluster plans all that is elsewhere again: facts of this host have changed.
func (m *Manager) replanCluster() {
	for id := range m.cluster.far.hosts {
		if id != m.cluster.far.self {
			m.note(tunnelUnit(id), m.tunnelPeer(id))
			m.note(sealUnit(id), m.sealPeer(id))
		}
	}
	m.note(sealUnit(""), m.sealLinks())
	for unit, s := range m.trialUnits() {
		m.note(unit, s)
	}
	for id, n := range m.x.networks {
		if n.Global() && !n.Idle {
			for unit, s := range m.farUnits(id) {
				m.note(unit, s)
			}
		}
	}
}

// farUnits are the units of what is elsewhere on a network.
func (m *Manager) farUnits(network string) map[string]netspec.State {
	units := map[string]netspec.State{}
	var drop, add []dns.Host
	for id := range m.cluster.far.of[network] {
		m.planFar(m.cluster.far.trace(id), units, &drop, &add)
	}
	if m.DNS != nil && len(drop)+len(add) > 0 {
		m.DNS.Change(drop, add)
	}
	return units
}

// begin is where tunnels of this host begin.
func (m *Manager) begin(ctx context.Context, h Host) (Tunnel, error) {
	here := m.cluster.here
	if m.Fabric == nil || !usableHost(here) {
		return Tunnel{}, nil
	}
	t := Tunnel{Addr: here.Addr, MTU: h.MTU}
	if p, ok := h.with(here.Addr); ok {
		t.Link, t.MTU = cmp.Or(p.Now, p.Name), p.MTU
	}
	if h.IPv6 {
		t.Seal = m.seal()
	}
	var err error
	t.Near, err = m.near(ctx, t)
	return t, err
}

// with is the interface that has an address of the host.
func (h Host) with(a netip.Addr) (Parent, bool) {
	for line := range strings.Lines(h.Parents) {
		name, _, _ := strings.Cut(line, "\t")
		if p, ok := h.Parent(name); ok && (p.Addr4 == a || p.Addr6 == a) {
			return p, true
		}
	}
	return Parent{}, false
}
