package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/fabric"
	"isle/internal/store"
)

// lease is what all that this host writes of itself goes with.
type lease struct {
	mu   sync.Mutex
	id   clientv3.LeaseID // 0: there is none
	had  clientv3.LeaseID // before isled was started, or before it was lost
	kick chan struct{}    // holds one: look at the lease now
	got  chan struct{}    // closed while there is one
	left bool             // none is wanted
}

func (l *lease) init(had int64) {
	l.had, l.kick, l.got = clientv3.LeaseID(had), make(chan struct{}, 1), make(chan struct{})
}

func (l *lease) current() clientv3.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

func (l *lease) gained(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == 0 {
		close(l.got)
	}
	l.id, l.had = id, id
}

// lost says that id is gone, and has the next one looked for.
func (l *lease) lost(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id != id || id == 0 {
		return
	}
	l.id, l.had, l.got = 0, 0, make(chan struct{})
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *lease) want(one bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = !one
}

// await waits until there is a lease.
func (l *lease) await(ctx context.Context) (clientv3.LeaseID, error) {
	l.mu.Lock()
	got := l.got
	l.mu.Unlock()
	select {
	case <-got:
		if id := l.current(); id != 0 {
			return id, nil
		}
	case <-ctx.Done():
	}
	return 0, fmt.Errorf("this host has no lease: %w", errdefs.ErrUnavailable)
}

// keepLease keeps the host alive in the eyes of the others until ctx ends. The lease is
// left then: isled may come back within its time.
func (d *Directory) keepLease(ctx context.Context) error {
	every := d.TTL / 3
	for {
		err := d.renew(ctx, every)
		if err != nil && ctx.Err() == nil {
			d.Log.Debug("the lease of this host is not renewed", "error", err)
		}
		pause := every
		if err != nil {
			pause = min(every, 500*time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.lease.kick:
		case <-time.After(pause):
		}
	}
}

// renew does what is to be done for the lease now; within is for each request.
func (d *Directory) renew(ctx context.Context, within time.Duration) error {
	d.lease.mu.Lock()
	id, had, left := d.lease.id, d.lease.had, d.lease.left
	d.lease.mu.Unlock()
	if left {
		return nil
	}
	if had == 0 {
		return d.grant(ctx, within)
	}
	timed, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := d.Store.Client.KeepAliveOnce(timed, had)
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		d.Log.Warn("the lease of this host has ended; all that it had is written down again")
		d.lease.lost(id)
		return d.grant(ctx, within)
	case err != nil:
		return err
	case id == 0: // from before isled was started
		return d.begin(ctx, had)
	}
	d.state.touch()
	return nil
}

// grant gets a lease, and has the readers write down again what they have.
func (d *Directory) grant(ctx context.Context, within time.Duration) error {
	timed, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	resp, err := d.Store.Client.Grant(timed, int64(max(d.TTL/time.Second, 1)))
	if err != nil {
		return err
	}
	if d.Remember != nil {
		if err := d.Remember(int64(resp.ID)); err != nil {
			return fmt.Errorf("write down lease: %w", err)
		}
	}
	if err := d.begin(ctx, resp.ID); err != nil {
		return err
	}
	d.state.reset()
	return nil
}

// begin shows this host to the others.
func (d *Directory) begin(ctx context.Context, id clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, d.TTL) // it is of no use after that
	defer cancel()
	if err := d.putHost(ctx, id, func(tx store.Tx) fabric.Host { return keyed(tx, d.host()) }); err != nil {
		return err
	}
	d.lease.gained(id)
	d.state.touch()
	return nil
}

func (d *Directory) putHost(ctx context.Context, id clientv3.LeaseID, host func(store.Tx) fabric.Host) error {
	s := d.Store
	s.Lease = id
	return s.Update(ctx, func(tx store.Tx) error {
		h := host(tx)
		return hosts.Put(tx, h.ID, h)
	})
}

// keyed is h with the key that it had before this process, until it is described again:
// without one the others would drop its encrypted tunnels.
func keyed(tx store.Tx, h fabric.Host) fabric.Host {
	if old, err := hosts.Get(tx, h.ID); err == nil && h.Key == "" {
		h.Key, h.KeyPort, h.OldKey, h.OldPort = old.Key, old.KeyPort, old.OldKey, old.OldPort
	}
	return h
}

// Leave ends the lease, and with it all that others see of this host, until Stay.
func (d *Directory) Leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	d.lease.want(false)
	id := d.lease.current()
	if id == 0 {
		return nil
	}
	if _, err := d.Store.Client.Revoke(ctx, id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("end the lease of this host: %w: %w", err, errdefs.ErrUnavailable)
	}
	return nil
}

// Stay is the way back from Leave.
func (d *Directory) Stay() { d.lease.want(true) }
