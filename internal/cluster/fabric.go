package cluster

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
)

// Fabric is what the hosts have in common, whether or not this host is in a cluster just
// now. Outside of one there is nothing, which is known, and nothing can be written. Who
// watches goes on watching when the host joins or leaves: each begins with a Reset.
func (c *Cluster) Fabric() fabric.Directory { return common{c} }

type common struct{ c *Cluster }

var errOutside = fmt.Errorf("this host is in no cluster (hint: isle cluster init, or isle cluster join TOKEN HOST): %w", errdefs.ErrUnavailable)

// View implements fabric.Directory.
func (f common) View() fabric.View {
	if d := f.c.Directory(); d != nil {
		return d.View()
	}
	return fabric.View{Known: f.c.broken.Load() == nil}
}

// outside is why nothing can be written.
func (f common) outside() error {
	if b := f.c.broken.Load(); b != nil {
		return fmt.Errorf("%w: %w", *b, errdefs.ErrUnavailable)
	}
	return errOutside
}

// Watch implements fabric.Directory.
func (f common) Watch(ctx context.Context, fn func(fabric.Change)) error {
	for {
		moved := f.c.moves()
		if err := f.watchUntil(ctx, moved, fn); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			return err
		}
	}
}

// watchUntil watches what there is now until the host moves.
func (f common) watchUntil(ctx context.Context, moved <-chan struct{}, fn func(fabric.Change)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := f.c.Directory()
	if d == nil {
		fn(fabric.Change{Reset: true})
		select {
		case <-moved:
		case <-ctx.Done():
		}
		return nil
	}
	go func() {
		select {
		case <-moved:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := d.Watch(ctx, fn)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Describe implements fabric.Directory.
func (f common) Describe(ctx context.Context, set func(*fabric.Host)) error {
	if d := f.c.Directory(); d != nil {
		return d.Describe(ctx, set)
	}
	return f.outside()
}

// CreateNetwork implements fabric.Directory.
func (f common) CreateNetwork(ctx context.Context, n fabric.Network, vnis []fabric.Range) (fabric.Network, error) {
	if d := f.c.Directory(); d != nil {
		return d.CreateNetwork(ctx, n, vnis)
	}
	return n, f.outside()
}

// RemoveNetwork implements fabric.Directory.
func (f common) RemoveNetwork(ctx context.Context, id string) error {
	if d := f.c.Directory(); d != nil {
		return d.RemoveNetwork(ctx, id)
	}
	return nil
}

// Connect implements fabric.Directory.
func (f common) Connect(ctx context.Context, e fabric.Endpoint, pools []netip.Prefix, reserved []netip.Addr) (fabric.Endpoint, error) {
	if d := f.c.Directory(); d != nil {
		return d.Connect(ctx, e, pools, reserved)
	}
	return e, f.outside()
}

// Disconnect implements fabric.Directory.
func (f common) Disconnect(ctx context.Context, endpoint string) error {
	if d := f.c.Directory(); d != nil {
		return d.Disconnect(ctx, endpoint)
	}
	return nil
}

// Restore implements fabric.Directory. Outside of a cluster nobody is told anything, and
// nobody has taken an address.
func (f common) Restore(ctx context.Context, mine []fabric.Endpoint) ([]fabric.Endpoint, error) {
	if d := f.c.Directory(); d != nil {
		return d.Restore(ctx, mine)
	}
	return nil, nil
}

// moves is closed when the host joins or leaves the next time.
func (c *Cluster) moves() <-chan struct{} {
	c.movedMu.Lock()
	defer c.movedMu.Unlock()
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.moved
}

// move makes s the session of this host; nil: it has none any more.
func (c *Cluster) move(s *session) {
	c.session.Store(s)
	c.movedMu.Lock()
	defer c.movedMu.Unlock()
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
}
