package network

import (
	"context"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/store"
)

// visits looks in on the others from time to time: what they still have of ours, what
// they have no more. It asks them, so it is not part of Sync.
func (m *Manager) visits(ctx context.Context) {
	m.greet(ctx)
	m.replay(ctx)
	m.Visit(ctx)
	if m.Config.Resync <= 0 {
		return
	}
	t := time.NewTicker(m.Config.Resync)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			m.Visit(ctx)
		}
	}
}

// greet tells the others after a start which networks there are.
func (m *Manager) greet(ctx context.Context) {
	m.eachExternal(ctx, func(x External, n Network) {
		if _, err := x.Make(ctx, n); err != nil {
			m.Log.Error("a network's plug-in does not take it up again", "network", n.Name, "driver", n.Driver, "err", err)
		}
	})
}

// Visit settles debts, finishes what a crash left half done, and has the rest checked.
func (m *Manager) Visit(ctx context.Context) {
	m.payDebts(ctx)
	m.finish(ctx)
	m.eachExternal(ctx, func(x External, n Network) {
		all := m.attachmentsOf(n.ID)
		if err := x.Keep(ctx, n, all); err != nil {
			m.Log.Warn("a network's plug-in does not say what it has beyond the records", "network", n.Name, "err", err)
		}
		for _, a := range all {
			m.check(ctx, x, a)
		}
	})
}

// eachExternal goes through the networks that others have and that are ready.
func (m *Manager) eachExternal(ctx context.Context, do func(External, Network)) {
	all, _ := m.List(ctx)
	for _, n := range all {
		if x, ok := m.external(&n); ok && !n.Unready && ctx.Err() == nil {
			do(x, n)
		}
	}
}

func (m *Manager) attachmentsOf(networkID string) (out []Attachment) {
	m.op.Lock()
	defer m.op.Unlock()
	for _, pl := range m.x.users[networkID] {
		if sb, i := m.seatOf(pl.ID); sb != nil {
			out = append(out, m.attachmentOf(sb, i))
		}
	}
	return out
}

// check makes good an endpoint that was never attached, and tells when one is not as
// it was.
func (m *Manager) check(ctx context.Context, x External, a Attachment) {
	var err error
	if a.Endpoint.Result == nil {
		err = m.attachOne(ctx, x, a.Endpoint.ID)
	} else {
		err = x.Check(ctx, a)
	}
	if ctx.Err() == nil {
		m.diagnose(a, err)
	}
}

// diagnose tells what others say of an endpoint, when that is news.
func (m *Manager) diagnose(a Attachment, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	m.op.Lock()
	defer m.op.Unlock()
	if m.ailing[a.Endpoint.ID] == now {
		return
	}
	if m.ailing[a.Endpoint.ID] = now; now == "" {
		delete(m.ailing, a.Endpoint.ID)
		m.Log.Info("a container's place on a network is as it should be again", "container", a.Endpoint.ContainerName, "network", a.Network.Name)
		return
	}
	m.Log.Warn("a container's place on a network is not as its plug-in made it", "container", a.Endpoint.ContainerName, "network", a.Network.Name, "err", err)
}

// payDebts has others take back what they would not before: endpoints, then networks.
func (m *Manager) payDebts(ctx context.Context) {
	pay(ctx, m, debts, func(a Attachment) (string, Network, error) {
		x, ok := m.external(&a.Network)
		if !ok {
			return a.Endpoint.ID, a.Network, errNoPlugin
		}
		return a.Endpoint.ID, a.Network, x.Detach(ctx, a)
	})
	pay(ctx, m, networkDebts, func(n Network) (string, Network, error) {
		x, ok := m.external(&n)
		if !ok {
			return n.ID, n, errNoPlugin
		}
		return n.ID, n, x.Unmake(ctx, n)
	})
}

var errNoPlugin = errdefs.ErrNotFound.WithMessage("this isled has no such plug-in")

// pay strikes out the debts of a kind that are taken back.
func pay[T any](ctx context.Context, m *Manager, kind store.Table[T], back func(T) (id string, n Network, err error)) {
	all, err := owed(ctx, m, kind)
	if err != nil {
		m.Log.Error("read what plug-ins are to take back", "err", err)
	}
	for _, one := range all {
		id, n, err := back(one)
		if err == nil {
			err = m.Store.Update(ctx, func(tx store.Tx) error { kind.Delete(tx, id); return nil })
		}
		if err != nil && ctx.Err() == nil {
			m.Log.Warn("a plug-in does not take back what it has of ours", "network", n.Name, "driver", n.Driver, "err", err)
		}
	}
}

// finish takes away networks that a crash left half made, or half taken away.
func (m *Manager) finish(ctx context.Context) {
	for _, n := range m.halfMade() {
		x, ok := m.external(&n)
		if !ok {
			continue
		}
		err := m.unmake(ctx, x, n)
		if err != nil {
			m.Log.Warn("a network that was left half made is not taken away", "network", n.Name, "err", err)
			continue
		}
		if err := m.repayPools(ctx, n); err != nil {
			m.Log.Warn("give the addresses of a network back", "network", n.Name, "err", err)
		}
	}
}

func (m *Manager) halfMade() (out []Network) {
	m.op.Lock()
	defer m.op.Unlock()
	for id, n := range m.x.networks {
		if n.Unready && !m.underway[id] {
			m.underway[id] = true
			out = append(out, *n)
		}
	}
	return out
}
