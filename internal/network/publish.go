package network

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network/publish"
	"isle/internal/store"
)

// This file is about the published ports of sandboxes. They belong to the
// sandbox, not to an endpoint: they stay when it changes networks, and lead to
// whichever endpoint can carry them.

// Events of ports, beside Docker's own of networks.
const (
	ActionPublish   events.Action = "publish"
	ActionUnpublish events.Action = "unpublish"
)

// Ports is what became of a change of published ports.
type Ports struct {
	Added, Removed []Publish
	Lost           map[string][]Publish // by other sandboxes, to this one
	Warnings       []string
}

// Publish gives a sandbox that is open more ports. What it has already is no
// change.
func (m *Manager) Publish(ctx context.Context, sandboxID string, want PortRequest) (Ports, error) {
	return m.changePorts(ctx, sandboxID, func(sb *sandbox, reqs []publish.Request) (portChange, error) {
		return portChange{reqs: publish.Missing(reqs, mappings(sb.Publish))}, nil
	}, want)
}

// Replace is Publish, but takes ports over from whichever sandbox has them at
// the very same address, this one included, in one change: no connection finds
// nobody there. A port keeps its allow-list unless want has another.
func (m *Manager) Replace(ctx context.Context, sandboxID string, want PortRequest) (Ports, error) {
	return m.changePorts(ctx, sandboxID, func(sb *sandbox, reqs []publish.Request) (portChange, error) {
		return portChange{reqs: publish.Missing(m.Ports.KeepSources(sb.ID, m.direct(reqs, sb.Sandbox, sb.places)), mappings(sb.Publish)), take: true}, nil
	}, want)
}

// Unpublish takes ports from a sandbox that is open. Class NotFound when one of
// the selectors matches nothing; then nothing is changed.
func (m *Manager) Unpublish(ctx context.Context, sandboxID string, which []publish.Selector) (Ports, error) {
	return m.changePorts(ctx, sandboxID, func(sb *sandbox, _ []publish.Request) (c portChange, err error) {
		for _, s := range which {
			hit := s.Select(mappings(sb.Publish))
			if len(hit) == 0 {
				return c, s.Missing(sb.Name, mappings(sb.Publish))
			}
			c.drop = append(c.drop, hit...)
		}
		return c, nil
	}, PortRequest{})
}

// SetPorts gives a sandbox that is open exactly these ports. Those that it has
// already are not touched.
func (m *Manager) SetPorts(ctx context.Context, sandboxID string, want PortRequest) (Ports, error) {
	return m.changePorts(ctx, sandboxID, func(sb *sandbox, reqs []publish.Request) (c portChange, err error) {
		c.reqs, c.drop = publish.Difference(reqs, mappings(sb.Publish))
		return c, nil
	}, want)
}

// Published are the settled ports of a sandbox that is open, and how "inspect"
// shows those that an endpoint carries.
func (m *Manager) Published(sandboxID string) ([]Publish, network.PortMap, error) {
	sb, err := m.sandbox(sandboxID)
	if err != nil {
		return nil, nil, err
	}
	return sb.Publish, sb.shown(), nil
}

// shown leaves out ports that lead nowhere: the sandbox is on no network that
// could carry them.
func (sb *sandbox) shown() network.PortMap {
	var all []publish.Mapping
	direct := map[publish.Mapping]bool{}
	for _, pl := range sb.places {
		for p := range publish.Each(mappings(pl.Publish)) {
			to := publish.Target{V4: pl.Addr(true), V6: pl.Addr(false)}.Any(p.HostIP)
			if direct[p] = pl.net.routed(to.Is4()); direct[p] && to.Is4() != p.HostIP.Is4() {
				continue // nothing can pass it on
			}
			all = append(all, p)
		}
	}
	return publish.Show(publish.Join(all), func(p publish.Mapping) bool { return direct[p] })
}

// portChange is what is to become of a sandbox's ports.
type portChange struct {
	drop []publish.Mapping
	reqs []publish.Request
	take bool
}

func (m *Manager) changePorts(ctx context.Context, id string, plan func(*sandbox, []publish.Request) (portChange, error), want PortRequest) (out Ports, err error) {
	m.op.Lock()
	defer m.op.Unlock()
	sb, err := m.sandboxLocked(id)
	if err != nil {
		return out, err
	}
	reqs, warnings, err := m.portRequests(sb.Sandbox, sb.places, want)
	if err != nil {
		return out, err
	}
	if sb.NS == "" && len(reqs) > 0 {
		return out, fmt.Errorf("container %s is on the host's network: its ports are the host's, nothing can be published: %w", sb.Name, errdefs.ErrInvalidArgument)
	}
	c, err := plan(sb, reqs)
	if err != nil {
		return out, err
	}
	out.Warnings = warnings
	return out, m.settlePorts(ctx, sb, c, &out)
}

// settlePorts claims, commits all sandboxes that the change is about as one, and
// tells.
func (m *Manager) settlePorts(ctx context.Context, sb *sandbox, c portChange, out *Ports) error {
	if len(c.drop)+len(c.reqs) == 0 {
		return nil
	}
	s, err := m.Ports.Change(sb.ID, c.drop, m.direct(c.reqs, sb.Sandbox, sb.places), c.take, m.x.containerName)
	if err != nil {
		m.forward(sb) // some of its sockets may be new ones
		return err
	}
	old, now := m.settled(sb, c, s)
	if err = m.tellable(old, now); err == nil {
		err = m.commitPorts(ctx, old, now)
	}
	if err != nil {
		s.Undo()
		for _, sb := range old {
			m.forward(sb)
		}
		return fmt.Errorf("publish ports of container %s: %w", sb.Name, err)
	}
	s.Commit()
	out.Lost = map[string][]Publish{}
	for i, sb := range slices.Backward(now) { // who lost something first
		m.became(sb.ID, sb)
		added, removed := m.tellPorts(old[i], sb)
		if i == 0 {
			out.Added, out.Removed = added, removed
		} else {
			out.Lost[sb.ID] = removed
		}
	}
	return nil
}

// tellable reports whether others would have to be told of other ports of an endpoint than
// it was attached with. There are no words for it.
func (m *Manager) tellable(old, now []*sandbox) error {
	for i, sb := range old {
		for k, pl := range sb.places {
			if _, others := m.external(pl.net); others && !slices.Equal(pl.Publish, now[i].places[k].Publish) {
				return fmt.Errorf("those who make network %s publish the ports of container %s, and are told of them when it starts (hint: stop it, change its ports, start it): %w",
					pl.net.Name, sb.Name, errdefs.ErrConflict)
			}
		}
	}
	return nil
}

// settled are the sandboxes that s is about, before and after; sb is the first.
func (m *Manager) settled(sb *sandbox, c portChange, s *publish.Settlement) (old, now []*sandbox) {
	mine := publish.Without(publish.Without(mappings(sb.Publish), c.drop), s.Got)
	old = []*sandbox{sb}
	now = []*sandbox{m.withPorts(sb, append(mine, s.Got...))}
	for _, id := range slices.Sorted(maps.Keys(s.Lost)) {
		if loser := m.x.sandboxes[id]; loser != nil {
			old = append(old, loser)
			now = append(now, m.withPorts(loser, publish.Without(mappings(loser.Publish), s.Lost[id])))
		}
	}
	return old, now
}

func (m *Manager) withPorts(sb *sandbox, ms []publish.Mapping) *sandbox {
	rec := sb.Sandbox
	rec.Publish = publishes(publish.Join(ms))
	return m.assemble(rec, sb.places)
}

// commitPorts writes what sandboxes have now instead of before.
func (m *Manager) commitPorts(ctx context.Context, old, now []*sandbox) error {
	return m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		for _, sb := range old {
			dropHolds(tx, sb)
		}
		units := map[string]netspec.State{}
		for _, sb := range now {
			if err := m.putSandbox(tx, sb); err != nil {
				return nil, err
			}
			s, err := m.planner().sandbox(sb.Sandbox, sb.places)
			if err != nil {
				return nil, err
			}
			units[sandboxUnit(sb.ID)] = s
		}
		return units, nil
	})
}

func dropHolds(tx store.Tx, sb *sandbox) {
	for _, p := range sb.Publish {
		if holder, err := holds.Get(tx, holdKey(p)); err == nil && holder == sb.ID { // of direct ports it may be another's
			holds.Delete(tx, holdKey(p))
		}
	}
}

// putHolds records which ports of the host are taken.
func (m *Manager) putHolds(tx store.Tx, sb *sandbox) error {
	dropHolds(tx, sb)
	id := sb.ID
	for _, p := range sb.Publish {
		if m.Ports.Direct(id, publish.Mapping(p)) {
			continue
		}
		if holder, err := holds.Get(tx, holdKey(p)); err == nil {
			if holder == id {
				continue
			}
			return fmt.Errorf("host port %s/%d belongs to container %s: %w", p.Proto, p.HostPort, ids.Short(holder), errdefs.ErrConflict)
		}
		if err := holds.Put(tx, holdKey(p), id); err != nil {
			return err
		}
	}
	return nil
}

// tellPorts emits an event for each row of ports that came or went.
func (m *Manager) tellPorts(old, sb *sandbox) (added, removed []Publish) {
	added, removed = less(sb.Publish, old.Publish), less(old.Publish, sb.Publish)
	for _, p := range removed {
		m.tellPort(ActionUnpublish, old, p)
	}
	for _, p := range added {
		m.tellPort(ActionPublish, sb, p)
	}
	return added, removed
}

// less is what of a is not in b, port by port.
func less(a, b []Publish) []Publish {
	have := map[publish.Mapping]bool{}
	for p := range publish.Each(mappings(b)) {
		have[p] = true
	}
	var out []publish.Mapping
	for p := range publish.Each(mappings(a)) {
		if !have[p] {
			out = append(out, p)
		}
	}
	return publishes(publish.Join(out))
}

func (m *Manager) tellPort(a events.Action, sb *sandbox, p Publish) {
	if m.Events == nil {
		return
	}
	attrs := map[string]string{
		"container": sb.ID, "name": sb.Name, "proto": p.Proto, "hostIP": p.HostIP.String(), "hostPort": strconv.Itoa(int(p.HostPort)),
		"containerPort": strconv.Itoa(int(p.ContainerPort)), "count": strconv.Itoa(int(p.Count)),
	}
	if p.Iface != "" {
		attrs["interface"] = p.Iface
	}
	if p.From != "" {
		attrs["from"] = p.From
	}
	kind, id := events.NetworkEventType, sb.carrierOf(p)
	if id == "" {
		kind, id = events.ContainerEventType, sb.ID
	}
	m.Events.Publish(events.Message{Type: kind, Action: a, Actor: events.Actor{ID: id, Attributes: attrs}})
}

// carrierOf is the network that p's row leads through, or else the first that
// the sandbox is on; "": none.
func (sb *sandbox) carrierOf(p Publish) string {
	for _, pl := range sb.places {
		for _, q := range pl.Publish {
			if q.Proto == p.Proto && q.HostIP == p.HostIP && q.Iface == p.Iface && q.HostPort <= p.HostPort && p.HostPort-q.HostPort < q.Count {
				return pl.net.ID
			}
		}
	}
	if len(sb.places) > 0 {
		return sb.places[0].net.ID
	}
	return ""
}

// claim settles the ports of a sandbox that is to be.
func (m *Manager) claim(rec *Sandbox, drafts []draft, want PortRequest) (warnings []string, err error) {
	var places []place
	for _, dr := range drafts {
		places = append(places, dr.foreseen())
	}
	reqs, warnings, err := m.portRequests(*rec, sorted(places), want)
	if err != nil || len(reqs) == 0 {
		return warnings, err
	}
	if rec.NS == "" {
		return []string{"Published ports are discarded when using host network mode"}, nil
	}
	got, err := m.Ports.Claim(rec.ID, m.direct(reqs, *rec, sorted(places)), m.x.containerName)
	rec.Publish = publishes(got)
	return warnings, err
}

// portRequests reads what is wanted of a sandbox with these places, in order.
func (m *Manager) portRequests(rec Sandbox, places []place, want PortRequest) (reqs []publish.Request, warnings []string, err error) {
	d := publish.Defaults{HostIP: m.Config.HostBinding, IPv6: m.host.IPv6}
	able, isolated := false, len(places) > 0
	for _, pl := range places {
		drv, err := m.planner().driver(*pl.net)
		if err != nil {
			return nil, nil, err
		}
		isolated = isolated && !addressed(drv)
		if caps(drv, *pl.net).Publish && !pl.net.Internal && !able {
			if able = true; pl.net.Options[OptHostBinding] != "" {
				if d.HostIP, err = hostBinding(*pl.net, d.HostIP); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	if reqs, err = publish.Parse(want.Bindings, want.Specs, d); err != nil || len(reqs) == 0 || rec.NS == "" {
		return reqs, nil, err
	}
	if isolated {
		return nil, nil, fmt.Errorf("ports cannot be published: network %s has no addresses (hint: leave out --network %s, or -p): %w",
			places[0].net.Name, places[0].net.Name, errdefs.ErrInvalidArgument)
	}
	if ignoring(places) != "" { // nothing to hold: the host has no part in it
		reqs = nil
	}
	return reqs, m.portWarnings(places), nil
}

// portWarnings are what a person should know who publishes ports in these places.
func (m *Manager) portWarnings(places []place) []string {
	p := m.planner()
	v4, carried := p.direct(places, true)
	v6, _ := p.direct(places, false)
	switch {
	case ignoring(places) != "":
		return []string{IgnoredPorts(ignoring(places))}
	case len(places) == 0:
		return []string{"Published ports cannot be reached while the container is on no network"}
	case !carried:
		return []string{uncarried(places)}
	case v4 && v6:
		return []string{"Published ports are open at the container's own addresses only: its network has no NAT (gateway mode routed), and no port of the host is taken"}
	case v4 || v6:
		family := map[bool]string{true: "IPv4", false: "IPv6"}[v4]
		return []string{"Published ports are open at the container's own address only for " + family + ": its network has no NAT there (gateway mode routed), and no port of the host is taken"}
	}
	return nil
}

// uncarried says why no place of a container carries its ports.
func uncarried(places []place) string {
	for _, pl := range places {
		if !pl.net.Internal && !pl.net.OnLAN() {
			return "Published ports are ignored: those who make network " + pl.net.Name + " cannot publish any"
		}
	}
	return "Published ports cannot be reached while the container is on internal networks only"
}

// PortWarnings are those of a container that is to be on networks, which are
// named or known by their ids.
func (m *Manager) PortWarnings(networks []string) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var places []place
	for _, ref := range networks {
		n, err := m.x.find(ref)
		if err != nil {
			return nil // whoever starts it will be told
		}
		places = append(places, draft{place: place{Endpoint{HostInterface: "any"}, n}}.foreseen())
	}
	return m.portWarnings(sorted(places))
}

// direct says of requests for rec which families of them are direct.
func (m *Manager) direct(reqs []publish.Request, rec Sandbox, places []place) []publish.Request {
	v4, v6 := m.isDirect(rec, places, true), m.isDirect(rec, places, false)
	for i := range reqs {
		reqs[i].Direct4, reqs[i].Direct6 = v4, v6
	}
	return reqs
}

// isDirect reports whether ports of a family are. All of one sandbox are alike: when
// nothing carries them they stay as they were.
func (m *Manager) isDirect(rec Sandbox, places []place, v4 bool) bool {
	if direct, carried := m.planner().direct(places, v4); carried {
		return direct
	}
	return slices.ContainsFunc(rec.Publish, func(p Publish) bool { return p.HostIP.Is4() == v4 && m.Ports.Direct(rec.ID, publish.Mapping(p)) })
}

// turning takes the ports of the host that a sandbox needs in its new places and did
// not in the old ones, and lets go those that it does not need any more. It goes
// with a transaction, which may run more than once.
type turning struct {
	m *Manager
	s *publish.Settlement
}

func (t *turning) to(sb *sandbox) (err error) {
	m := t.m
	if t.s != nil {
		t.s.Undo()
	}
	direct := map[bool]bool{true: m.isDirect(sb.Sandbox, sb.places, true), false: m.isDirect(sb.Sandbox, sb.places, false)}
	t.s, err = m.Ports.Turn(sb.ID, mappings(sb.Publish), func(p publish.Mapping) bool { return direct[p.HostIP.Is4()] }, m.x.containerName)
	return err
}

func (t *turning) end(err error) {
	switch {
	case t.s == nil:
	case err != nil:
		t.s.Undo()
	default:
		t.s.Commit()
	}
}

// restorePorts claims the ports of a sandbox as the records say that they are.
func (m *Manager) restorePorts(ctx context.Context, sb *sandbox) error {
	taken := map[publish.Mapping]bool{}
	err := m.Store.View(ctx, func(tx store.Tx) error {
		for _, p := range sb.Publish {
			holder, err := holds.Get(tx, holdKey(p))
			taken[publish.Mapping(p)] = err == nil && holder == sb.ID
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.Ports.Restore(sb.ID, mappings(sb.Publish), func(p publish.Mapping) bool { return !taken[p] })
}

// ignoring is a network of the LAN, when there are only such; "" else.
func ignoring(places []place) (name string) {
	for _, pl := range places {
		if !pl.net.OnLAN() {
			return ""
		}
		name = pl.net.Name
	}
	return name
}

// IgnoredPorts says why nothing is published of a container that is on networks like
// this one only.
func IgnoredPorts(network string) string {
	return "Published ports are ignored: on network " + network + " the container has an address of the LAN, where all its ports can be reached as they are"
}

// forward tells the sockets that hold ports where the container is now.
func (m *Manager) forward(sb *sandbox) {
	carried := map[Publish]bool{}
	for _, pl := range sb.places {
		t := publish.Target{V4: pl.Addr(true), V6: pl.Addr(false)}
		for _, p := range pl.Publish {
			to := t.Any(p.HostIP)
			if !to.IsValid() || pl.net.routed(to.Is4()) {
				continue // open at the container's own address, and nowhere else
			}
			carried[p] = true
			m.Ports.Forward(sb.ID, publish.Mapping(p), to)
		}
	}
	for _, p := range sb.Publish {
		if !carried[p] {
			m.Ports.Forward(sb.ID, publish.Mapping(p), netip.Addr{})
		}
	}
}
