package network

import (
	"context"
	"fmt"
	"hash/fnv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network/publish"
	"isle/internal/store"
	"isle/internal/undo"
)

// Where resolvers listen: above the ports that the kernel gives out by itself.
const dnsFirst, dnsCount = 61000, 4000

// Open makes a sandbox and connects it, all or nothing.
func (m *Manager) Open(ctx context.Context, req OpenRequest) (out Opened, err error) {
	m.op.Lock()
	defer m.op.Unlock()
	if m.x.sandboxes[req.ID] != nil {
		return out, fmt.Errorf("the network of container %s is open: %w", ids.Short(req.ID), errdefs.ErrAlreadyExists)
	}
	rec, drafts, err := m.draftSandbox(req)
	if err != nil {
		return out, err
	}
	var u undo.Stack
	defer u.Unwind(ctx, &err)
	if out.Warnings, err = m.claim(&rec, drafts, req.Ports); err != nil {
		return out, err
	}
	u.Push("hold ports", func(context.Context) error { m.Ports.Release(rec.ID, mappings(rec.Publish)); return nil })
	sb, err := m.write(ctx, rec, nil, drafts)
	if err != nil {
		return out, err
	}
	u.Push("open sandbox", func(ctx context.Context) error { return m.erase(ctx, sb) })
	if err := m.resolve(ctx, sb); err != nil {
		return out, err
	}
	for _, pl := range sb.places {
		out.Endpoints = append(out.Endpoints, pl.Endpoint)
		m.tell(events.ActionConnect, *pl.net, sb.ID)
	}
	out.NSPath, out.Ports = m.path(sb.NS), publish.Show(mappings(sb.Publish))
	return out, nil
}

func (m *Manager) path(ns netspec.NS) string {
	if ns == "" {
		return ""
	}
	return m.Machine.Path(ns)
}

// Path is where the namespace of an open sandbox is; "" for the host's.
func (m *Manager) Path(sandboxID string) (string, error) {
	sb, err := m.sandbox(sandboxID)
	if err != nil {
		return "", err
	}
	return m.path(sb.NS), nil
}

// draftSandbox reads a request.
func (m *Manager) draftSandbox(req OpenRequest) (Sandbox, []draft, error) {
	rec := Sandbox{ID: req.ID, Name: req.Name, NS: netspec.NS(req.ID), DNS: req.DNS, Sysctls: req.Sysctls}
	h := fnv.New32a()
	h.Write([]byte(req.ID))
	rec.DNSPort = dnsFirst + uint16(h.Sum32()%dnsCount)
	if _, err := upstreams(req.DNS); err != nil {
		return rec, nil, err
	}
	var drafts []draft
	for _, c := range req.Networks {
		d, err := m.draft(rec, c, drafts)
		if err != nil {
			return rec, nil, err
		}
		if d.net.Driver == DriverHost {
			rec.NS = ""
		}
		drafts = append(drafts, d)
	}
	if len(drafts) > 1 && rec.NS == "" {
		return rec, nil, errHostNetwork
	}
	return rec, drafts, m.nameInterfaces(nil, drafts)
}

// claim settles the ports of a sandbox that is to be. They belong to the
// sandbox, not to an endpoint: they stay when it changes networks.
func (m *Manager) claim(rec *Sandbox, drafts []draft, want PortRequest) (warnings []string, err error) {
	d := publish.Defaults{HostIP: m.Config.HostBinding, IPv6: m.host.IPv6}
	var places []place
	for _, dr := range drafts {
		places = append(places, dr.place)
	}
	places = sorted(places)
	able, isolated := false, len(places) > 0
	for _, pl := range places {
		drv, err := m.planner().driver(*pl.net)
		if err != nil {
			return nil, err
		}
		isolated = isolated && !drv.Caps().IPAM
		if drv.Caps().Publish && !pl.net.Internal && !able {
			if able = true; pl.net.Options[OptHostBinding] != "" {
				if d.HostIP, err = hostBinding(*pl.net, d.HostIP); err != nil {
					return nil, err
				}
			}
		}
	}
	reqs, err := publish.Parse(want.Bindings, d)
	if err != nil || len(reqs) == 0 {
		return nil, err
	}
	switch {
	case rec.NS == "":
		return []string{"Published ports are discarded when using host network mode"}, nil
	case isolated:
		return nil, fmt.Errorf("ports cannot be published: network %s has no addresses (hint: leave out --network %s, or -p): %w",
			places[0].net.Name, places[0].net.Name, errdefs.ErrInvalidArgument)
	case !able:
		warnings = append(warnings, "Published ports cannot be reached while the container is on internal networks only")
	}
	got, err := m.Ports.Claim(rec.ID, reqs, m.x.containerName)
	rec.Publish = publishes(got)
	return warnings, err
}

// Close removes a sandbox and its endpoints. A missing one is no error.
func (m *Manager) Close(ctx context.Context, sandboxID string) error {
	m.op.Lock()
	defer m.op.Unlock()
	sb := m.x.sandboxes[sandboxID]
	if sb == nil {
		return nil
	}
	if err := m.erase(ctx, sb); err != nil {
		return fmt.Errorf("close the network of container %s: %w", sb.Name, err)
	}
	m.Ports.Release(sb.ID, mappings(sb.Publish))
	for _, pl := range sb.places {
		m.tell(events.ActionDisconnect, *pl.net, sb.ID)
	}
	return nil
}

// write commits a sandbox with the places it has and those it is to get.
func (m *Manager) write(ctx context.Context, rec Sandbox, have []place, drafts []draft) (*sandbox, error) {
	var sb *sandbox
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		places, units := have, map[string]netspec.State{}
		for _, d := range drafts {
			pl, err := m.reserve(tx, d)
			if err == nil {
				err = m.seat(tx, &pl, units)
			}
			if err != nil {
				return nil, err
			}
			if err := endpoints.Put(tx, pl.ID, pl.Endpoint); err != nil {
				return nil, err
			}
			places = append(places[:len(places):len(places)], pl)
		}
		sb = m.assemble(rec, places)
		if err := m.putSandbox(tx, sb); err != nil {
			return nil, err
		}
		s, err := m.planner().sandbox(rec, sb.places)
		units[sandboxUnit(rec.ID)] = s
		return units, err
	})
	if err != nil {
		return nil, err
	}
	m.became(rec.ID, sb)
	return sb, nil
}

func (m *Manager) putSandbox(tx store.Tx, sb *sandbox) error {
	for _, p := range sb.Publish {
		if holder, err := holds.Get(tx, holdKey(p)); err == nil && holder != sb.ID {
			return fmt.Errorf("host port %s/%d belongs to container %s: %w", p.Proto, p.HostPort, ids.Short(holder), errdefs.ErrConflict)
		}
		if err := holds.Put(tx, holdKey(p), sb.ID); err != nil {
			return err
		}
	}
	return sandboxes.Put(tx, sb.ID, sb.Sandbox)
}

// erase commits that a sandbox is gone.
func (m *Manager) erase(ctx context.Context, sb *sandbox) error {
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		for _, pl := range sb.places {
			if err := m.release(tx, pl); err != nil {
				return nil, err
			}
		}
		for _, p := range sb.Publish {
			holds.Delete(tx, holdKey(p))
		}
		sandboxes.Delete(tx, sb.ID)
		return map[string]netspec.State{sandboxUnit(sb.ID): nil}, nil
	})
	if err != nil {
		return err
	}
	m.became(sb.ID, nil)
	if m.DNS != nil {
		m.DNS.Detach(sb.ID)
	}
	return nil
}

// became brings everything in memory in step with a sandbox that was
// committed; nil: it is gone.
func (m *Manager) became(id string, sb *sandbox) {
	m.mu.Lock()
	old := m.x.sandboxes[id]
	m.x.setSandbox(id, sb)
	m.mu.Unlock()
	m.name(sb, old)
	if old != nil {
		for _, pl := range old.places {
			m.eachLease(pl, m.IPAM.Freed)
		}
	}
	if sb != nil {
		for _, pl := range sb.places {
			m.eachLease(pl, m.IPAM.Taken)
		}
		m.forward(sb)
	}
}

// forward tells the sockets that hold ports where the container is now.
func (m *Manager) forward(sb *sandbox) {
	for _, p := range sb.Publish {
		for _, pl := range sb.places {
			if holdsPort(pl, p) {
				t := publish.Target{V4: pl.Addr(true), V6: pl.Addr(false)}
				m.Ports.Forward(sb.ID, publish.Mapping(p), t.Any(p.HostIP))
			}
		}
	}
}

func holdsPort(pl place, p Publish) bool {
	for _, q := range pl.Publish {
		if q == p {
			return true
		}
	}
	return false
}

var errHostNetwork = errdefs.ErrInvalidArgument.WithMessage("container cannot be disconnected from host network or connected to host network")
