package cni

import (
	"context"
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"isle/internal/network"
)

// Keep implements network.External: what is noted and is none of all is taken away by
// DEL; then GC, where it may be called.
func (d *Driver) Keep(ctx context.Context, n network.Network, all []network.Attachment) error {
	o, c, err := d.of(n)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	valid := d.alive.of(n.ID)
	for _, a := range all {
		valid[attachment(conf(a))] = true
	}
	err = d.stale(ctx, n.ID, o, c, valid)
	if !d.collects(o, c) {
		return err
	}
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
	for a := range valid {
		args.ValidAttachments = append(args.ValidAttachments, a)
	}
	cni, p := d.over(n.ID, o)
	if gc := cni.GCNetworkList(ctx, c.NetworkConfigList, args); gc != nil {
		err = errors.Join(err, p.fail("GC", gc))
	}
	return err
}

// stale takes away what is noted and nobody else knows of.
func (d *Driver) stale(ctx context.Context, id string, o options, c chain, valid map[types.GCAttachment]bool) error {
	all, err := d.kept.remembered(id)
	errs := []error{err}
	for _, was := range all {
		rt := was.conf()
		if valid[attachment(rt)] {
			continue
		}
		if !exists(rt.NetNS) {
			rt.NetNS = ""
		}
		done := d.turns.take(rt.ContainerID)
		errs = append(errs, d.del(ctx, id, o, c, rt))
		done()
	}
	return errors.Join(errs...)
}
