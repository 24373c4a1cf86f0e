package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"isle/internal/store"
)

// This file is about endpoints whose interfaces others make (External). The record is
// there first, without a Result; then the others are asked, while other operations go
// on; then the Result is committed. What they would not take back is owed to them, and
// written down until they do.

// What is gone here and others still have.
var (
	debts        = store.NewTable[Attachment]("debt")
	networkDebts = store.NewTable[Network]("debt-network")
)

func (m *Manager) external(n *Network) (External, bool) {
	d, _ := m.drivers().find(n.Driver)
	x, ok := d.(External)
	return x, ok && !n.ConfigOnly
}

// attach has others make the interfaces of new endpoints.
func (m *Manager) attach(ctx context.Context, places []place) error {
	for _, pl := range places {
		x, ok := m.external(pl.net)
		if !ok {
			continue
		}
		if err := m.attachOne(ctx, x, pl.ID); err != nil {
			return fmt.Errorf("container %s: %w", pl.ContainerName, inNetwork(*pl.net, err))
		}
	}
	return nil
}

func (m *Manager) attachOne(ctx context.Context, x External, id string) error {
	defer m.seats.take(id)()
	a, ok := m.attachment(id)
	if !ok || a.Endpoint.Result != nil {
		return nil
	}
	r, err := x.Attach(ctx, a)
	if err != nil {
		return err
	}
	r.Portless = a.portless
	_, _, found, err := m.alter(ctx, id, func(e *Endpoint) bool { e.Result = &r; return true })
	if err == nil && found {
		return nil
	}
	a.Endpoint.Result = &r
	return errors.Join(err, gone(found), x.Detach(context.WithoutCancel(ctx), a))
}

func gone(found bool) error {
	if found {
		return nil
	}
	return fmt.Errorf("it was disconnected meanwhile: %w", errdefs.ErrConflict)
}

// detach gives back what others gave an endpoint that goes. That they do not take it
// is no reason for it to stay.
func (m *Manager) detach(ctx context.Context, pl place) {
	if x, ok := m.external(pl.net); ok {
		done := m.seats.take(pl.ID)
		defer done()
		if a, found := m.attachment(pl.ID); found {
			m.unseat(ctx, pl)
			m.settleDebt(ctx, x, a)
		}
	}
	m.ungrant(ctx, pl)
}

// unseat writes down that pl is not attached. If the process dies before it is gone,
// it is attached again.
func (m *Manager) unseat(ctx context.Context, pl place) {
	_, _, _, err := m.alter(ctx, pl.ID, func(e *Endpoint) bool {
		was := e.Result
		if e.Result = nil; pl.net.given() {
			e.Addrs = nil
		}
		if e.Wish != nil && len(e.Granted) == 0 { // else it is the one that its address was given to
			e.MAC = e.Wish.MAC
		}
		return was != nil
	})
	if err != nil {
		m.Log.Error("a container leaves a network", "container", pl.ContainerName, "network", pl.net.Name, "err", err)
	}
}

// settleDebt has others take an attachment back, or writes down that they are to.
func (m *Manager) settleDebt(ctx context.Context, x External, a Attachment) {
	err := x.Detach(ctx, a)
	if err == nil {
		return
	}
	m.Log.Error("a network's plug-in does not take back what it gave to a container: it is asked again later",
		"container", a.Endpoint.ContainerName, "network", a.Network.Name, "err", err)
	err = m.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { return owe(tx, a) })
	if err != nil {
		m.Log.Error("write down what a plug-in is to take back", "container", a.Endpoint.ContainerName, "err", err)
	}
}

// owe writes down that others are to take an attachment back. By then its namespace is
// gone, or another's.
func owe(tx store.Tx, a Attachment) error {
	a.NSPath = ""
	return debts.Put(tx, a.Endpoint.ID, a)
}

// dismiss has others take back what left a sandbox that goes on; they owe it already.
func (m *Manager) dismiss(ctx context.Context, left []Attachment) {
	for _, a := range left {
		if x, ok := m.external(&a.Network); ok {
			m.dismissOne(ctx, x, a)
		}
		m.ungrant(ctx, place{a.Endpoint, &a.Network})
	}
}

func (m *Manager) dismissOne(ctx context.Context, x External, a Attachment) {
	defer m.seats.take(a.Endpoint.ID)()
	err := x.Detach(ctx, a)
	if err == nil {
		err = m.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { debts.Delete(tx, a.Endpoint.ID); return nil })
	}
	if err != nil {
		m.Log.Error("a container leaves a network", "container", a.Endpoint.ContainerName, "network", a.Network.Name, "err", err)
	}
}

// attachment is an endpoint as its others are told of it.
func (m *Manager) attachment(id string) (Attachment, bool) {
	m.op.Lock()
	defer m.op.Unlock()
	sb, i := m.seatOf(id)
	if sb == nil {
		return Attachment{}, false
	}
	return m.attachmentOf(sb, i), true
}

func (m *Manager) attachmentOf(sb *sandbox, i int) Attachment {
	pl := sb.places[i]
	a := Attachment{Network: *pl.net, Endpoint: pl.Endpoint, NSPath: m.path(sb.NS), NS: sb.NS, Publish: m.ports(sb, i), Hostname: sb.Name}
	a.portless = len(sb.Publish) > 0 && len(a.Publish) == 0
	if len(a.Endpoint.Addrs) == 0 {
		a.Endpoint.Addrs = pl.Wish.single()
	}
	return a
}

// ports are those of the sandbox that its i-th place carries, or will.
func (m *Manager) ports(sb *sandbox, i int) []Publish {
	places := make([]place, len(sb.places))
	for k, pl := range sb.places {
		if _, ok := m.external(pl.net); ok && len(pl.Addrs) == 0 {
			pl.Addrs = pl.Wish.anywhere(pl.net)
		}
		places[k] = pl
	}
	for _, pl := range m.planner().assign(sb.Publish, places) {
		if pl.ID == sb.places[i].ID {
			return pl.Publish
		}
	}
	return nil
}

// owed is what others still have of a kind.
func owed[T any](ctx context.Context, m *Manager, kind store.Table[T]) (out []T, err error) {
	err = m.Store.View(ctx, func(tx store.Tx) error {
		for one, err := range kind.All(tx) {
			if err != nil {
				return err
			}
			out = append(out, one)
		}
		return nil
	})
	return out, err
}
