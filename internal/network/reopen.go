package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"isle/internal/ids"
	"isle/internal/network/publish"
	"isle/internal/store"
	"isle/internal/undo"
)

// Reopen makes a sandbox that is open what Open would have made of req, and
// leaves alone what is so already: others may be in its namespace. Class NotFound
// when it is not open.
func (m *Manager) Reopen(ctx context.Context, req OpenRequest) (Opened, error) {
	old, sb, left, err := m.reopen(ctx, req)
	if err != nil {
		return Opened{}, err
	}
	m.dismiss(context.WithoutCancel(ctx), left)
	if err := m.obtain(ctx, without(sb.places, old.places)); err != nil {
		for _, pl := range without(sb.places, old.places) {
			_, undo := m.disconnect(context.WithoutCancel(ctx), sb.ID, pl.net.ID)
			err = errors.Join(err, undo)
		}
		return Opened{}, err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if sb, err = m.sandboxLocked(req.ID); err != nil {
		return Opened{}, err
	}
	return m.reopened(ctx, old, sb, req.Ports)
}

// reopen is Reopen up to what the LAN has to give.
func (m *Manager) reopen(ctx context.Context, req OpenRequest) (old, sb *sandbox, left []Attachment, err error) {
	m.op.Lock()
	defer m.op.Unlock()
	if old, err = m.sandboxLocked(req.ID); err != nil {
		return nil, nil, nil, err
	}
	rec := old.Sandbox
	rec.Name, rec.DNS, rec.Sysctls, rec.Router = req.Name, req.DNS, req.Sysctls, req.Router
	if _, err := upstreams(req.DNS); err != nil {
		return nil, nil, nil, err
	}
	keep, drafts, err := m.sift(rec, old.places, req.Networks)
	if err != nil {
		return nil, nil, nil, err
	}
	if sb, err = m.rewrite(ctx, old, rec, keep, drafts); err != nil {
		return nil, nil, nil, fmt.Errorf("network of container %s: %w", rec.Name, err)
	}
	return old, sb, m.parting(old, keep), nil
}

// parting are the places of a sandbox that others made and that it does not keep.
func (m *Manager) parting(old *sandbox, keep []place) (out []Attachment) {
	for i, pl := range old.places {
		others := pl.Wish != nil
		if others && !slices.ContainsFunc(keep, func(o place) bool { return o.ID == pl.ID }) {
			out = append(out, m.attachmentOf(old, i))
		}
	}
	return out
}

// sift parts the places of a sandbox from what it is to have: those that stay,
// and what must be made.
func (m *Manager) sift(rec Sandbox, have []place, want []ConnectRequest) (keep []place, drafts []draft, err error) {
	for _, c := range want {
		d, err := m.draft(rec, c, drafts)
		if err != nil {
			return nil, nil, err
		}
		if d.net.Driver == DriverHost {
			return nil, nil, errHostNetwork
		}
		if i := slices.IndexFunc(have, func(pl place) bool { return pl.net.ID == d.net.ID && d.fits(pl) }); i >= 0 {
			keep = append(keep, have[i])
			continue
		}
		drafts = append(drafts, d)
	}
	return keep, drafts, m.nameInterfaces(keep, drafts)
}

// fits reports whether pl is what d would become.
func (d draft) fits(pl place) bool {
	asked := func(want netip.Addr, v4 bool) bool { return !want.IsValid() || pl.Addr(v4) == want }
	return pl.ContainerName == d.ContainerName && pl.GwPriority == d.GwPriority && d.sameMAC(pl) &&
		maps.Equal(pl.Options, d.Options) && slices.Equal(pl.Names, d.Names) && slices.Equal(pl.LinkLocal, d.LinkLocal) &&
		asked(d.want.IPv4Address, true) && asked(d.want.IPv6Address, false)
}

// sameMAC reports whether pl has the MAC address that d would have. Others choose it
// when nobody asks for one.
func (d draft) sameMAC(pl place) bool {
	if d.Wish != nil && pl.Wish != nil && (pl.Result != nil || pl.net.Global()) {
		return d.Wish.MAC == pl.Wish.MAC
	}
	return pl.MAC == d.MAC
}

// rewrite gives a sandbox its other places: first those go that it does not keep,
// since the names of their interfaces and their addresses may be wanted again. When
// that fails they come back: others are in the sandbox.
func (m *Manager) rewrite(ctx context.Context, old *sandbox, rec Sandbox, keep []place, drafts []draft) (sb *sandbox, err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)
	sb = old
	for _, pl := range without(old.places, keep) {
		i := slices.IndexFunc(sb.places, func(o place) bool { return o.ID == pl.ID })
		debt := m.attachmentOf(sb, i)
		err := m.part(ctx, sb, i, func(tx store.Tx) error {
			if _, ok := m.external(pl.net); !ok {
				return nil
			}
			return owe(tx, debt)
		})
		if err != nil {
			return nil, err
		}
		u.Push("connect to network "+pl.net.Name+" again", func(ctx context.Context) error { return m.rejoin(ctx, pl) })
		sb = m.x.sandboxes[sb.ID]
	}
	return m.write(ctx, rec, sb.places, drafts)
}

// rejoin puts a sandbox back where it was.
func (m *Manager) rejoin(ctx context.Context, pl place) error {
	sb := m.x.sandboxes[pl.Sandbox]
	was := draft{place: pl, want: network.EndpointIPAMConfig{IPv4Address: pl.Addr(true), IPv6Address: pl.Addr(false)}, noIPv6: true}
	sb, err := m.write(ctx, sb.Sandbox, sb.places, []draft{was})
	if err != nil {
		return err
	}
	return m.resolve(ctx, sb)
}

// without are the places of a that are not in b.
func without(a, b []place) []place {
	return slices.DeleteFunc(slices.Clone(a), func(pl place) bool {
		return slices.ContainsFunc(b, func(o place) bool { return o.ID == pl.ID })
	})
}

// reopened brings the ports and the resolver in step, and tells.
func (m *Manager) reopened(ctx context.Context, old, sb *sandbox, want PortRequest) (out Opened, err error) {
	for _, pl := range without(old.places, sb.places) {
		m.tell(events.ActionDisconnect, *pl.net, sb.ID)
	}
	for _, pl := range without(sb.places, old.places) {
		m.tell(events.ActionConnect, *pl.net, sb.ID)
	}
	reqs, warnings, err := m.portRequests(sb.Sandbox, sb.places, want)
	if err != nil {
		return out, err
	}
	var c portChange
	c.reqs, c.drop = publish.Difference(reqs, mappings(sb.Publish))
	if err := m.settlePorts(ctx, sb, c, &Ports{}); err != nil {
		return out, err
	}
	if err := m.resolve(ctx, m.x.sandboxes[sb.ID]); err != nil {
		return out, fmt.Errorf("network of container %s: %w", ids.Short(sb.ID), err)
	}
	out = m.opened(m.x.sandboxes[sb.ID])
	out.Warnings = warnings
	return out, nil
}

// opened is how a sandbox is told of.
func (m *Manager) opened(sb *sandbox) Opened {
	out := Opened{NSPath: m.path(sb.NS), Ports: sb.shown()}
	for _, pl := range sb.places {
		out.Endpoints = append(out.Endpoints, pl.Endpoint)
	}
	return out
}
