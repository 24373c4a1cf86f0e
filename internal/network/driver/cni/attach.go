package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"isle/internal/network"
)

// Attach implements network.External: ADD. After an error DEL has been called, and the
// interface is not in the namespace any more.
func (d *Driver) Attach(ctx context.Context, a network.Attachment) (network.Result, error) {
	o, err := parse(a.Network.Options)
	if err != nil {
		return network.Result{}, err
	}
	c, err := d.kept.load(a.Network.ID)
	if err != nil {
		return network.Result{}, err
	}
	rt, err := c.runtimeConf(o, a)
	if err != nil {
		return network.Result{}, err
	}
	defer d.turns.take(a.Endpoint.Sandbox)()
	if err := d.vacant(a); err != nil {
		return network.Result{}, err
	}
	if err := d.kept.remember(a.Network.ID, rt); err != nil {
		return network.Result{}, err
	}
	d.alive.add(a.Network.ID, attachment(rt))
	res, err := d.add(ctx, o, c, rt, a)
	if err == nil {
		return res, nil
	}
	defer d.alive.remove(a.Network.ID, attachment(rt))
	return network.Result{}, errors.Join(err, d.clear(context.WithoutCancel(ctx), o, c, rt, a))
}

func attachment(rt *libcni.RuntimeConf) types.GCAttachment {
	return types.GCAttachment{ContainerID: rt.ContainerID, IfName: rt.IfName}
}

// vacant reports whether the interface's name is taken.
func (d *Driver) vacant(a network.Attachment) error {
	there, err := d.inside(a)
	if err == nil && there {
		err = fmt.Errorf("interface %s is in the container already: %w", a.Endpoint.Interface, errdefs.ErrConflict)
	}
	return err
}

// inside reports whether the interface is in the namespace.
func (d *Driver) inside(a network.Attachment) (bool, error) {
	if d.Inside == nil || a.NSPath == "" {
		return false, nil
	}
	links, err := d.Inside.Links(a.NSPath)
	return slices.Contains(links, a.Endpoint.Interface), err
}

// add is ADD with all that follows from it.
func (d *Driver) add(ctx context.Context, o options, c chain, rt *libcni.RuntimeConf, a network.Attachment) (network.Result, error) {
	cni, p := d.over(a.Network.ID, o)
	said, err := cni.AddNetworkList(ctx, c.NetworkConfigList, rt)
	if err != nil {
		return network.Result{}, p.fail("ADD", err)
	}
	res, claimed, err := read(said, rt.IfName)
	if err != nil {
		return res, p.fail("ADD", fmt.Errorf("its result: %w", err))
	}
	there, err := d.inside(a)
	if err == nil && d.Inside != nil && claimed && !there {
		err = p.fail("ADD", fmt.Errorf("it says that all is well, but interface %s is not in the container", rt.IfName))
	}
	if err == nil && there {
		err = d.yield(a)
	}
	return res, err
}

// yield leaves the way out to Isle: which of a container's networks it leads over is
// for the user to say, and it must find another one when this network goes. The route
// stays, for plugins that look after it.
func (d *Driver) yield(a network.Attachment) error {
	if err := d.Inside.Yield(a.NSPath, a.Endpoint.Interface); err != nil {
		return fmt.Errorf("put the default route over %s behind others: %w", a.Endpoint.Interface, err)
	}
	return nil
}

// clear takes away what a failed ADD has left.
func (d *Driver) clear(ctx context.Context, o options, c chain, rt *libcni.RuntimeConf, a network.Attachment) error {
	err := d.del(ctx, a.Network.ID, o, c, rt)
	if err != nil {
		err = fmt.Errorf("take away what it has left: %w", err)
	}
	return errors.Join(err, d.sweep(a))
}

// sweep takes away the interface that plugins have left in the namespace.
func (d *Driver) sweep(a network.Attachment) error {
	there, err := d.inside(a)
	if err == nil && there {
		err = d.Inside.RemoveLink(a.NSPath, a.Endpoint.Interface)
	}
	if err != nil {
		return fmt.Errorf("take away interface %s, which plugins have left in the container: %w", a.Endpoint.Interface, err)
	}
	return nil
}

// Check implements network.External. What libcni has no result of was attached by
// nobody, or before its cache was lost: nothing can be said of it.
func (d *Driver) Check(ctx context.Context, a network.Attachment) error {
	o, c, err := d.of(a.Network)
	if err != nil || !c.since("0.4.0") || c.DisableCheck {
		return err
	}
	defer d.turns.take(a.Endpoint.Sandbox)()
	cni, p := d.over(a.Network.ID, o)
	rt := d.asAdded(cni, c, conf(a))
	if res, err := cni.GetNetworkListCachedResult(c.NetworkConfigList, rt); err != nil || res == nil {
		return err
	}
	if err := cni.CheckNetworkList(ctx, c.NetworkConfigList, rt); err != nil {
		return p.fail("CHECK", err)
	}
	return nil
}

// of is what a network was made with.
func (d *Driver) of(n network.Network) (o options, c chain, err error) {
	if o, err = parse(n.Options); err != nil {
		return o, c, err
	}
	c, err = d.kept.load(n.ID)
	return o, c, err
}

// Detach implements network.External: DEL. A network that has kept no configuration
// never was attached to.
func (d *Driver) Detach(ctx context.Context, a network.Attachment) error {
	defer d.turns.take(a.Endpoint.Sandbox)()
	if !exists(a.NSPath) {
		a.NSPath = ""
	}
	o, c, err := d.of(a.Network)
	if errors.Is(err, fs.ErrNotExist) {
		return d.sweep(a)
	}
	if err != nil {
		return err
	}
	rt := conf(a)
	if args, err := c.args(o, a); err == nil { // libcni has those of ADD, if it came to its end
		rt.CapabilityArgs = args
	}
	if err := d.del(ctx, a.Network.ID, o, c, rt); err != nil {
		return err
	}
	d.alive.remove(a.Network.ID, attachment(rt))
	return d.sweep(a)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// asAdded is rt with the arguments that ADD was called with.
func (d *Driver) asAdded(cni *libcni.CNIConfig, c chain, rt *libcni.RuntimeConf) *libcni.RuntimeConf {
	if b, was, err := cni.GetNetworkListCachedConfig(c.NetworkConfigList, rt); err == nil && b != nil {
		return was
	}
	return rt
}

// del calls DEL, from the last plugin to the first. libcni ends at the first that fails;
// the others are called all the same, without it.
func (d *Driver) del(ctx context.Context, id string, o options, c chain, rt *libcni.RuntimeConf) error {
	cni, _ := d.over(id, o)
	rt = d.asAdded(cni, c, rt)
	var errs []error
	for list := *c.NetworkConfigList; len(list.Plugins) > 0; {
		cni, p := d.over(id, o)
		err := cni.DelNetworkList(ctx, &list, rt)
		if err == nil {
			break
		}
		errs = append(errs, p.fail("DEL", err))
		list.Plugins = list.Plugins[:len(list.Plugins)-max(p.asked, 1)]
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return d.kept.forget(id, rt)
}
