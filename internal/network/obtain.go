package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"

	"isle/internal/netspec"
	"isle/internal/network/dhcp"
	"isle/internal/store"
)

// This file is about endpoints whose addresses the LAN gives out. Their interface is
// made without any; then the LAN is asked, while other operations go on; then the
// addresses are committed like everything else. What holds a lease later on says only
// that there is news, and Run has it followed.

// ActionAddressChanged is the event of an endpoint whose LAN gave it other addresses.
const ActionAddressChanged events.Action = "address-changed"

// obtain gets what others have to give to new endpoints: addresses, then interfaces.
// op is not held: they take their time.
func (m *Manager) obtain(ctx context.Context, places []place) error {
	for _, get := range []func(context.Context, []place) error{m.lease, m.grant, m.enroll, m.attach} {
		if err := get(ctx, places); err != nil {
			return err
		}
	}
	return nil
}

// lease gets addresses of the LAN.
func (m *Manager) lease(ctx context.Context, places []place) error {
	var waits []*tenant
	places = slices.DeleteFunc(slices.Clone(places), func(pl place) bool { return !pl.Leased() })
	for _, pl := range places {
		for f := range pl.Leases {
			waits = append(waits, m.tenants.add(pl.ID, f, m.ask(pl, f)))
		}
	}
	err := wait(ctx, waits)
	for _, pl := range places {
		if err == nil {
			_, _, err = m.followLease(ctx, pl.ID)
		}
	}
	if err != nil {
		for _, pl := range places {
			m.tenants.release(context.WithoutCancel(ctx), pl.ID)
		}
	}
	return err
}

// wait is for the end of all asking, or of ctx.
func wait(ctx context.Context, all []*tenant) error {
	var errs []error
	for _, one := range all {
		select {
		case <-one.asked:
			errs = append(errs, one.err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// ask asks once.
func (m *Manager) ask(pl place, f Family) asking {
	return func(ctx context.Context) (Lessee, error) {
		c, err := m.leaseConfig(pl, f)
		if err != nil {
			return nil, inNetwork(*pl.net, err)
		}
		c.Changed = func(ch dhcp.Change) { m.tenants.tell(pl.ID, told(ch)) }
		client, _, err := m.Lease(ctx, f, c)
		if err != nil {
			return nil, inNetwork(*pl.net, err)
		}
		return client, nil
	}
}

func told(ch dhcp.Change) string {
	if ch.Reason == "" {
		return string(ch.Kind)
	}
	return fmt.Sprintf("%s: %s", ch.Kind, ch.Reason)
}

// askAgain is how long to wait after a LAN gave nothing, for who has been there before.
const askAgain = 5 * time.Second

// retain asks the LAN, for as long as it takes, to confirm what an endpoint has.
func (m *Manager) retain(pl place) {
	for f := range pl.Leases {
		m.tenants.add(pl.ID, f, m.askOn(pl, f))
	}
}

func (m *Manager) askOn(pl place, f Family) asking {
	ask := m.ask(pl, f)
	return func(ctx context.Context) (Lessee, error) {
		for {
			client, err := ask(ctx)
			if err == nil || ctx.Err() != nil {
				return client, err
			}
			m.Log.Warn("the LAN does not confirm a container's lease", "container", pl.ContainerName, "err", err)
			m.tenants.tell(pl.ID, err.Error()) // it may have ended meanwhile
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(askAgain):
			}
		}
	}
}

// giveBack returns what a sandbox, or its place on one network, has of others: to the
// LAN its leases, while the interface has its addresses still. op is not held.
func (m *Manager) giveBack(ctx context.Context, sandboxID, networkID string) {
	sb, err := m.sandbox(sandboxID)
	if err != nil {
		return
	}
	for _, pl := range sb.places {
		if networkID != "" && networkID != pl.net.ID {
			continue
		}
		if pl.Leased() {
			m.tenants.release(ctx, pl.ID)
		}
		m.detach(ctx, pl)
	}
}

// evict ends what holds leases of places that a sandbox has no more.
func (m *Manager) evict(old, now *sandbox) {
	for _, pl := range old.places {
		if pl.Leased() && (now == nil || !slices.ContainsFunc(now.places, func(o place) bool { return o.ID == pl.ID })) {
			m.tenants.drop(pl.ID)
		}
	}
}

// rewired has leases confirmed where the parent is back: the wire may be another one.
func (m *Manager) rewired(before Host) {
	for id, n := range m.x.networks {
		if n.IPAMDriver != IPAMDHCP || !n.OnLAN() {
			continue
		}
		was, _ := before.below(n.Options[OptParent])
		if now, _ := m.host.below(n.Options[OptParent]); was.works() || !now.works() {
			continue
		}
		for _, pl := range m.x.users[id] {
			m.tenants.renew(pl.ID)
		}
	}
}

func (p Parent) works() bool { return p.Up && p.Carrier }

// FollowLeases brings everything in step with what the LANs have said. Run calls it
// when there is news.
func (m *Manager) FollowLeases(ctx context.Context) {
	for id, what := range m.tenants.heard() {
		was, now, err := m.followLease(ctx, id)
		if err != nil {
			m.Log.Error("follow what the LAN gave to a container", "container", was.ContainerName, "lease", what, "err", err)
			m.later(id, what)
			continue
		}
		if !slices.Equal(was.Addrs, now.Addrs) {
			m.moved(ctx, was, now, what)
		}
	}
}

// later has news heard again: it could not be followed now.
func (m *Manager) later(id, what string) {
	time.AfterFunc(askAgain, func() { m.tenants.tell(id, what) })
}

// followLease writes down what an endpoint has of its LAN now.
func (m *Manager) followLease(ctx context.Context, id string) (was, now Endpoint, err error) {
	was, now, _, err = m.alter(ctx, id, func(e *Endpoint) bool {
		old := e.Leases
		e.Leases = m.tenants.leases(*e, time.Now())
		return !sameLeases(old, e.Leases)
	})
	return was, now, err
}

// alter changes the record of an endpoint whose addresses come from outside, and puts
// what follows into the kernel and the names. edit reports whether there is anything
// to write down. found is false when the endpoint is gone by now.
func (m *Manager) alter(ctx context.Context, id string, edit func(*Endpoint) bool) (was, now Endpoint, found bool, err error) {
	m.op.Lock()
	defer m.op.Unlock()
	sb, i := m.seatOf(id)
	if sb == nil {
		return was, now, false, nil
	}
	was = sb.places[i].Endpoint
	places := slices.Clone(sb.places)
	if !edit(&places[i].Endpoint) {
		return was, was, true, nil
	}
	places[i].follow()
	now, next := places[i].Endpoint, m.assemble(sb.Sandbox, places)
	ports := turning{m: m}
	err = m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		if err := errors.Join(endpoints.Put(tx, id, now), ports.to(next), m.putHolds(tx, next)); err != nil {
			return nil, err
		}
		s, err := m.planner().sandbox(next.Sandbox, next.places)
		return map[string]netspec.State{sandboxUnit(sb.ID): s}, err
	})
	ports.end(err)
	if err != nil {
		return was, was, true, fmt.Errorf("container %s: set up what network %s gave it: %w", sb.Name, sb.places[i].net.Name, err)
	}
	m.became(sb.ID, next)
	return was, now, true, m.resolve(ctx, next)
}

// sameLeases reports whether there is nothing to write down.
func sameLeases(a, b map[Family]*dhcp.Lease) bool {
	return maps.EqualFunc(a, b, func(a, b *dhcp.Lease) bool {
		return a == b || a != nil && b != nil && a.Obtained.Equal(b.Obtained) && a.Expire.Equal(b.Expire) && a.Same(*b)
	})
}

// seatOf finds an endpoint in its sandbox.
func (m *Manager) seatOf(id string) (*sandbox, int) {
	for _, users := range m.x.users {
		if pl, ok := users[id]; ok {
			sb := m.x.sandboxes[pl.Sandbox]
			return sb, slices.IndexFunc(sb.places, func(o place) bool { return o.ID == id })
		}
	}
	return nil, 0
}

// moved tells that a LAN gave an endpoint other addresses.
func (m *Manager) moved(ctx context.Context, was, now Endpoint, what string) {
	n, err := m.Find(ctx, now.Network)
	if err != nil {
		return // it is gone by now
	}
	m.Log.Info("a container's addresses have changed", "container", now.ContainerName, "network", n.Name, "now", now.Addrs, "before", was.Addrs, "lease", what)
	if m.Moved != nil {
		m.Moved(ctx, now, was.Addrs)
	}
	if m.Events == nil {
		return
	}
	m.Events.Publish(events.Message{Type: events.NetworkEventType, Action: ActionAddressChanged, Actor: events.Actor{ID: n.ID, Attributes: map[string]string{
		"name": n.Name, "type": n.Driver, "container": now.Sandbox, "before": list(was.Addrs), "now": list(now.Addrs), "reason": what,
	}}})
}

func list(ps []netip.Prefix) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return strings.Join(out, ",")
}
