package network

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/store"
	"isle/internal/undo"
)

// Where resolvers listen: above the ports that the kernel gives out by itself.
const dnsFirst, dnsCount = 61000, 4000

// Open makes a sandbox and connects it, all or nothing.
func (m *Manager) Open(ctx context.Context, req OpenRequest) (Opened, error) {
	sb, warnings, err := m.open(ctx, req)
	if err != nil {
		return Opened{}, err
	}
	if err := m.obtain(ctx, sb.places); err != nil {
		return Opened{}, errors.Join(err, m.shut(context.WithoutCancel(ctx), req.ID, nil))
	}
	m.op.Lock()
	defer m.op.Unlock()
	if sb, err = m.sandboxLocked(req.ID); err != nil {
		return Opened{}, err
	}
	for _, pl := range sb.places {
		m.tell(events.ActionConnect, *pl.net, sb.ID)
	}
	out := m.opened(sb)
	out.Warnings = warnings
	return out, nil
}

// open is Open up to what the LAN has to give.
func (m *Manager) open(ctx context.Context, req OpenRequest) (sb *sandbox, warnings []string, err error) {
	m.op.Lock()
	defer m.op.Unlock()
	if m.x.sandboxes[req.ID] != nil {
		return nil, nil, fmt.Errorf("the network of container %s is open: %w", ids.Short(req.ID), errdefs.ErrAlreadyExists)
	}
	rec, drafts, err := m.draftSandbox(req)
	if err != nil {
		return nil, nil, err
	}
	if rec.NS != "" && !rec.NS.Lent() {
		defer m.Machine.Prepare()()
	}
	var u undo.Stack
	defer u.Unwind(ctx, &err)
	if err := m.borrow(req, &u); err != nil {
		return nil, nil, err
	}
	if warnings, err = m.claim(&rec, drafts, req.Ports); err != nil {
		return nil, nil, err
	}
	u.Push("hold ports", func(context.Context) error { m.Ports.Release(rec.ID, mappings(rec.Publish)); return nil })
	if sb, err = m.write(ctx, rec, nil, drafts); err != nil {
		return nil, nil, err
	}
	u.Push("open sandbox", func(ctx context.Context) error { return m.erase(ctx, sb) })
	return sb, warnings, m.resolve(ctx, sb)
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
	rec := Sandbox{ID: req.ID, Name: req.Name, NS: netspec.NS(req.ID), DNS: req.DNS, Sysctls: req.Sysctls, Router: req.Router}
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

// Close removes a sandbox and its endpoints. A missing one is no error.
func (m *Manager) Close(ctx context.Context, sandboxID string) error {
	defer m.withdraw(ctx)
	return m.shut(ctx, sandboxID, func(pl place) { m.tell(events.ActionDisconnect, *pl.net, sandboxID) })
}

// shut is Close; told, if not nil, hears of each endpoint that is gone.
func (m *Manager) shut(ctx context.Context, sandboxID string, told func(place)) error {
	m.giveBack(ctx, sandboxID, "")
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
	if told != nil {
		for _, pl := range sb.places {
			told(pl)
		}
	}
	return nil
}

// write commits a sandbox with the places it has and those it is to get.
func (m *Manager) write(ctx context.Context, rec Sandbox, have []place, drafts []draft) (*sandbox, error) {
	for _, d := range drafts {
		if err := m.ready(ctx, *d.net); err != nil {
			return nil, err
		}
	}
	drafts, err := m.awaken(ctx, drafts)
	if err != nil {
		return nil, err
	}
	sb, err := m.writeAwake(ctx, rec, have, drafts)
	if err != nil {
		m.doze(ctx, networksOf(drafts))
	}
	return sb, err
}

// writeAwake is write when all networks are on this host.
func (m *Manager) writeAwake(ctx context.Context, rec Sandbox, have []place, drafts []draft) (*sandbox, error) {
	var sb *sandbox
	var units map[string]netspec.State
	ports := turning{m: m}
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		places := have
		units = map[string]netspec.State{}
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
			debts.Delete(tx, pl.ID) // it was to go, and comes back
			places = append(places[:len(places):len(places)], pl)
		}
		sb = m.assemble(rec, places)
		if err := ports.to(sb); err != nil {
			return nil, err
		}
		if err := m.putSandbox(tx, sb); err != nil {
			return nil, err
		}
		s, err := m.planner().sandbox(rec, sb.places)
		units[sandboxUnit(rec.ID)] = s
		return units, err
	})
	ports.end(err)
	if err != nil {
		return nil, err
	}
	m.became(rec.ID, sb)
	m.grown(sb, units)
	return sb, nil
}

func (m *Manager) putSandbox(tx store.Tx, sb *sandbox) error {
	if err := m.putHolds(tx, sb); err != nil {
		return err
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
		m.dropWaiting(tx, sb.ID)
		dropHolds(tx, sb)
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
		m.evict(old, sb)
		m.depart(old, sb)
		m.doze(context.Background(), left(old, sb))
	}
	if sb != nil {
		for _, pl := range sb.places {
			m.eachLease(pl, m.IPAM.Taken)
		}
		m.forward(sb)
	}
}

var errHostNetwork = errdefs.ErrInvalidArgument.WithMessage("container cannot be disconnected from host network or connected to host network")
