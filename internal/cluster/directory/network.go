package directory

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/fabric"
	"isle/internal/store"
)

// CreateNetwork implements fabric.Directory. A VNI in n is taken or refused; without one
// it is the first of vnis that is free.
func (d *Directory) CreateNetwork(ctx context.Context, n fabric.Network, vnis []fabric.Range) (fabric.Network, error) {
	d.doubts.drop(n.ID)
	var got fabric.Network
	err := d.write(ctx, "create network "+n.Name, func(ctx context.Context, _ clientv3.LeaseID) error {
		return d.Store.Update(ctx, func(tx store.Tx) (err error) {
			got, err = newNetwork(tx, n, vnis)
			return err
		})
	})
	if err != nil && (errdefs.IsUnavailable(err) || ctx.Err() != nil) {
		d.doubts.add(n.ID, func(ctx context.Context) error { return d.removeNetwork(ctx, n.ID) })
	}
	return got, err
}

func newNetwork(tx store.Tx, n fabric.Network, vnis []fabric.Range) (fabric.Network, error) {
	if had, err := networks.Get(tx, n.ID); err == nil && had.Name == n.Name {
		return had, nil // an earlier try was done
	}
	if owner, ok := tx.Get(nameKey(n.Name)); ok {
		return n, fmt.Errorf("network with name %s already exists in the cluster: %s: %w", n.Name, owner, errdefs.ErrAlreadyExists)
	}
	own, err := subnetsOf(n)
	if err != nil {
		return n, invalid("record of network %s: %w", n.Name, err)
	}
	if err := overlap(tx, own); err != nil {
		return n, err
	}
	if n.VNI, err = freeVNI(tx, n, vnis); err != nil {
		return n, err
	}
	if err := checkNetwork(n); err != nil {
		return n, err
	}
	tx.Put(nameKey(n.Name), []byte(n.ID))
	tx.Put(vniKey(n.VNI), []byte(n.ID))
	if err := subnets.Put(tx, n.ID, own); err != nil {
		return n, err
	}
	return n, networks.Put(tx, n.ID, n)
}

// overlap is of class Conflict when a network of the cluster has some of own.
func overlap(tx store.Tx, own []netip.Prefix) error {
	for theirs, err := range subnets.All(tx) {
		if err != nil {
			continue // what cannot be read takes nothing
		}
		for _, a := range theirs {
			for _, b := range own {
				if a.Overlaps(b) {
					return fmt.Errorf("subnet %s overlaps %s of another network of the cluster: %w", b, a, errdefs.ErrConflict)
				}
			}
		}
	}
	return nil
}

// Within finds the network of the cluster that has an address in one of its subnets.
func Within(tx store.Tx, a netip.Addr) (subnet netip.Prefix, network string, found bool) {
	for n, err := range networks.All(tx) {
		if err != nil {
			continue // what cannot be read has no address
		}
		all, _ := subnetsOf(n)
		for _, p := range all {
			if p.Contains(a.Unmap()) {
				return p, n.Name, true
			}
		}
	}
	return subnet, "", false
}

func freeVNI(tx store.Tx, n fabric.Network, vnis []fabric.Range) (uint32, error) {
	used := map[string]bool{}
	for k := range tx.Scan(vniPrefix + "/") {
		used[k] = true
	}
	if n.VNI != 0 {
		if used[vniKey(n.VNI)] {
			return 0, fmt.Errorf("VNI %d is already in use: %w", n.VNI, errdefs.ErrConflict)
		}
		return n.VNI, nil
	}
	for _, r := range vnis {
		for v := uint64(max(r.First, 1)); v <= uint64(min(r.Last, maxVNI)); v++ {
			if !used[vniKey(uint32(v))] {
				return uint32(v), nil
			}
		}
	}
	return 0, fmt.Errorf("no VNI is free of those that may be taken: %w", errdefs.ErrResourceExhausted)
}

// RemoveNetwork implements fabric.Directory. One that is not there is no error.
func (d *Directory) RemoveNetwork(ctx context.Context, id string) error {
	d.doubts.drop(id)
	d.choose.forget(id)
	return d.write(ctx, "remove network "+id, func(ctx context.Context, _ clientv3.LeaseID) error {
		return d.removeNetwork(ctx, id)
	})
}

func (d *Directory) removeNetwork(ctx context.Context, id string) error {
	return d.Store.Update(ctx, func(tx store.Tx) error {
		n, err := networks.Get(tx, id)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for k, endpoint := range tx.Scan(addrsOf(id)) {
			return fmt.Errorf("network %s is in use by endpoint %s (%s): %w", n.Name, endpoint, k, errdefs.ErrConflict)
		}
		networks.Delete(tx, id)
		subnets.Delete(tx, id)
		tx.Delete(nameKey(n.Name))
		tx.Delete(vniKey(n.VNI))
		return nil
	})
}
