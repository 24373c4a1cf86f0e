package network

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/store"
)

// This file is about networks that others make (External). The record is there first,
// marked as not ready; then the others are asked, while other operations go on; then
// the mark is taken away. It is set again before they are asked to take the network
// away. What is left with the mark by a crash is taken away at the next start.

// make has others make n, if they are to.
func (m *Manager) make(ctx context.Context, n Network) (Network, error) {
	x, ok := m.external(&n)
	if !ok {
		return n, nil
	}
	made, err := x.Make(ctx, n)
	m.op.Lock()
	defer m.op.Unlock()
	delete(m.underway, n.ID)
	if err == nil {
		n, err = m.mark(context.WithoutCancel(ctx), n, false)
	}
	if err == nil {
		n.Warnings = made.Warnings
		return n, nil
	}
	ctx = context.WithoutCancel(ctx)
	if !errdefs.IsNotFound(err) {
		m.retire(ctx, x, n)
	}
	return n, errors.Join(m.hinted(n, err), m.drop(ctx, m.x.networks[n.ID]))
}

// hinted says which drivers there are, where one was not found.
func (m *Manager) hinted(n Network, err error) error {
	if !errdefs.IsNotFound(err) {
		return inNetwork(n, err)
	}
	return fmt.Errorf("%w (hint: the drivers that are built in are %s)", err, strings.Join(m.DriverNames(), ", "))
}

// unmake has others take n away. That they do not is no reason for it to stay.
func (m *Manager) unmake(ctx context.Context, x External, n Network) error {
	ctx = context.WithoutCancel(ctx)
	m.retire(ctx, x, n)
	m.op.Lock()
	defer m.op.Unlock()
	delete(m.underway, n.ID)
	now, ok := m.x.networks[n.ID]
	if !ok {
		return nil
	}
	return m.drop(ctx, now)
}

// retire has others take n away, or writes down that they are to.
func (m *Manager) retire(ctx context.Context, x External, n Network) {
	err := x.Unmake(ctx, n)
	if err == nil {
		return
	}
	m.Log.Error("a network's plug-in does not take it away: it is asked again later", "network", n.Name, "driver", n.Driver, "err", err)
	err = m.Store.Update(ctx, func(tx store.Tx) error { return networkDebts.Put(tx, n.ID, n) })
	if err != nil {
		m.Log.Error("write down what a plug-in is to take away", "network", n.Name, "err", err)
	}
}

// mark writes down whether n is ready. op is held.
func (m *Manager) mark(ctx context.Context, n Network, unready bool) (Network, error) {
	n.Unready = unready
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		return nil, networks.Put(tx, n.ID, n)
	})
	if err != nil {
		return n, inNetwork(n, err)
	}
	m.mu.Lock()
	m.x.networks[n.ID] = &n
	m.mu.Unlock()
	if unready {
		m.underway[n.ID] = true
	}
	return n, nil
}
