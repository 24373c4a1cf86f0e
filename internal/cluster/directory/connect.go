package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/fabric"
	"isle/internal/store"
	"isle/internal/store/etcd"
)

// takenError is an address that another endpoint has.
type takenError struct {
	addr  netip.Addr
	owner string
}

func (e *takenError) Error() string {
	return fmt.Sprintf("address %s is already in use by endpoint %s", e.addr, e.owner)
}
func (e *takenError) Unwrap() error { return errdefs.ErrConflict }

func exhausted(pool netip.Prefix) error {
	return fmt.Errorf("no free address is left in %s: %w", pool, errdefs.ErrResourceExhausted)
}

// Connect implements fabric.Directory. Called again for an endpoint that is there, it
// keeps its addresses.
func (d *Directory) Connect(ctx context.Context, e fabric.Endpoint, pools []netip.Prefix, reserved []netip.Addr) (fabric.Endpoint, error) {
	e.Host = d.Self.ID
	d.doubts.drop(e.ID)
	var got fabric.Endpoint
	err := d.write(ctx, "connect "+e.Container+" to network "+e.Network, func(ctx context.Context, id clientv3.LeaseID) (err error) {
		got, err = d.connect(ctx, id, e, pools, reserved)
		return err
	})
	if err != nil && (errdefs.IsUnavailable(err) || ctx.Err() != nil) {
		d.doubts.add(e.ID, func(ctx context.Context) error { return d.forget(ctx, e.ID) })
	}
	return got, err
}

// connect chooses until nobody else was faster.
func (d *Directory) connect(ctx context.Context, id clientv3.LeaseID, e fabric.Endpoint, pools []netip.Prefix, reserved []netip.Addr) (fabric.Endpoint, error) {
	besides := map[netip.Addr]bool{}
	for _, a := range reserved {
		besides[a.Unmap()] = true
	}
	for {
		want, err := d.fill(e, pools, besides)
		if err == nil {
			err = checkEndpoint(want)
		}
		if err != nil {
			return fabric.Endpoint{}, err
		}
		got, err := d.put(ctx, id, want, e)
		var t *takenError
		if !errors.As(err, &t) || isFixed(e, t.addr) {
			return got, err
		}
		besides[t.addr.Unmap()] = true // somebody has it whom we have not heard of yet
		d.choose.part(e.Network, pools, t.addr.Unmap())
	}
}

// fill gives e addresses that are free, of those that rest only when there are no others.
func (d *Directory) fill(e fabric.Endpoint, pools []netip.Prefix, besides map[netip.Addr]bool) (fabric.Endpoint, error) {
	t := d.state.takenIn(e.Network, e.ID, besides)
	got, err := d.choose.fill(e, pools, d.state.withResting(e.Network, t))
	if errdefs.IsResourceExhausted(err) {
		return d.choose.fill(e, pools, t)
	}
	return got, err
}

func isFixed(e fabric.Endpoint, a netip.Addr) bool {
	return slices.ContainsFunc(e.Addrs, func(p netip.Prefix) bool { return p.Addr().Unmap() == a.Unmap() })
}

// put writes e down if its addresses are free. asked is e with what was left open.
func (d *Directory) put(ctx context.Context, id clientv3.LeaseID, e, asked fabric.Endpoint) (got fabric.Endpoint, err error) {
	s := d.Store
	s.Lease = id
	rev, err := s.Commit(ctx, func(tx store.Tx) error {
		etcd.Prefetch(tx, keysOf(e)...)
		if _, err := networks.Get(tx, e.Network); err != nil {
			return fmt.Errorf("there is no network %s in the cluster: %w", e.Network, errdefs.ErrNotFound)
		}
		had, err := endpoints.Get(tx, e.ID)
		if err == nil && had.Host != e.Host {
			return fmt.Errorf("endpoint %s is already on host %s: %w", e.ID, had.Host, errdefs.ErrConflict)
		}
		got = keep(e, asked, had)
		drop(tx, had)
		return claim(tx, got)
	})
	got.Generation = rev
	return got, err
}

// keep gives e the addresses that it has already, where any was asked for.
func keep(e, asked, had fabric.Endpoint) fabric.Endpoint {
	if had.Network != e.Network || len(had.Addrs) != len(e.Addrs) {
		return e
	}
	e.Addrs = slices.Clone(e.Addrs)
	for i, a := range had.Addrs {
		if asked.Addrs[i].Addr().IsUnspecified() && a.Bits() == e.Addrs[i].Bits() && a.Addr().Is4() == e.Addrs[i].Addr().Is4() {
			e.Addrs[i] = a
		}
	}
	return e
}

func keysOf(e fabric.Endpoint) []string {
	keys := []string{networkPrefix + "/" + e.Network, endpointPrefix + "/" + e.ID}
	for _, a := range e.Addrs {
		keys = append(keys, addrKey(e.Network, a.Addr()))
	}
	return keys
}

// claim writes e and its addresses.
func claim(tx store.Tx, e fabric.Endpoint) error {
	for _, a := range e.Addrs {
		k := addrKey(e.Network, a.Addr())
		if owner, ok := tx.Get(k); ok && string(owner) != e.ID {
			return &takenError{a.Addr(), string(owner)}
		}
		tx.Put(k, []byte(e.ID))
	}
	return endpoints.Put(tx, e.ID, e)
}

// drop takes e and those of its addresses away that are its own.
func drop(tx store.Tx, e fabric.Endpoint) {
	if e.ID == "" {
		return
	}
	for _, a := range e.Addrs {
		k := addrKey(e.Network, a.Addr())
		if owner, ok := tx.Get(k); ok && string(owner) == e.ID {
			tx.Delete(k)
		}
	}
	endpoints.Delete(tx, e.ID)
}

// Disconnect implements fabric.Directory. An endpoint of another host is left alone.
func (d *Directory) Disconnect(ctx context.Context, endpoint string) error {
	d.doubts.drop(endpoint)
	return d.write(ctx, "disconnect endpoint "+endpoint, func(ctx context.Context, _ clientv3.LeaseID) error {
		return d.forget(ctx, endpoint)
	})
}

func (d *Directory) forget(ctx context.Context, endpoint string) error {
	s := d.Store
	s.Lease = d.lease.current() // so that no trace is left
	return s.Update(ctx, func(tx store.Tx) error {
		e, err := endpoints.Get(tx, endpoint)
		if errdefs.IsNotFound(err) || err == nil && e.Host != d.Self.ID {
			return nil
		}
		if err != nil {
			endpoints.Delete(tx, endpoint)
			return nil
		}
		drop(tx, e)
		return nil
	})
}
