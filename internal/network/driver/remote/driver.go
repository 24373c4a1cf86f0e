package remote

import (
	"context"
	"fmt"

	"isle/internal/network"
)

// Driver is a network.External whose work a plugin does.
type Driver struct {
	reg    *Registry
	plugin *plugin
}

var _ network.External = Driver{}

// Name is the plugin's.
func (d Driver) Name() string { return d.plugin.name }

// Validate implements network.Driver. What options mean is the plugin's to say, when
// it makes the network.
func (d Driver) Validate(network.Network) error { return checkName(d.Name()) }

// Caps implements network.Driver. Ports are published by the plugin.
func (Driver) Caps() network.Caps { return network.Caps{IPAM: true, Publish: true, Gateway: true} }

// Beside implements network.Driver: the plugin says so when it makes a network.
func (Driver) Beside(_, _ network.Network) error { return nil }

// Ready implements network.Driver.
func (Driver) Ready(network.Network, int, network.Host) error { return nil }

// Uplink implements network.Driver: the protocol has no word for it.
func (Driver) Uplink(network.Network, network.Host) string { return "" }

// Make implements network.External. A network that an isled before this one made is
// not made again: plugins keep theirs, as they must for Docker, and many take a second
// CreateNetwork for a mistake. One that forgot is found out by its first endpoint, see
// attach.go. The plugin must be there: class NotFound when no file stands for it.
func (d Driver) Make(ctx context.Context, n network.Network) (network.Made, error) {
	if n.Created.Before(d.reg.began) {
		_, err := d.plugin.reach(ctx, &patience{answer: d.plugin.cfg.Answer}, kindNetwork)
		return network.Made{}, err
	}
	return network.Made{Warnings: d.warnings(n)}, d.create(ctx, d.plugin.begin(false), n)
}

func (d Driver) warnings(n network.Network) []string {
	w := []string{fmt.Sprintf("plugin %s moves the packets of network %s: isolation, policy and counters hold only for those that pass this host's own network", d.Name(), n.Name)}
	if n.Internal {
		w = append(w, fmt.Sprintf("whether network %s is closed to the outside is up to plugin %s: it was told", n.Name, d.Name()))
	}
	return w
}

// create tells the plugin of a network. When it is not known what became of that, it
// is told to forget it.
func (d Driver) create(ctx context.Context, w *patience, n network.Network) error {
	more, err := d.allocate(ctx, w, n)
	if err != nil {
		return err
	}
	l, err := d.plugin.ask(ctx, w, kindNetwork, "CreateNetwork", createNetwork{
		NetworkID: n.ID, Options: networkOptions(n, more), IPv4Data: pools(n, true), IPv6Data: pools(n, false),
	}, &done{})
	if err == nil {
		d.reg.told(n.ID, l)
		return nil
	}
	if happened(err) {
		err = withUndo(err, d.remove(context.WithoutCancel(ctx), w, "DeleteNetwork", networkID{n.ID}))
	}
	if l != nil && l.caps.Scope == scopeGlobal {
		err = withUndo(err, d.remove(context.WithoutCancel(ctx), w, "FreeNetwork", networkID{n.ID}))
	}
	return err
}

func withUndo(err, undo error) error {
	if undo == nil {
		return err
	}
	return fmt.Errorf("%w; failed to roll back: %w", err, undo)
}

// allocate asks a plugin of global scope for what its hosts must agree on: there is no
// other manager than this host.
func (d Driver) allocate(ctx context.Context, w *patience, n network.Network) (map[string]string, error) {
	l, err := d.plugin.reach(ctx, w, kindNetwork)
	if err != nil || l.caps.Scope != scopeGlobal {
		return nil, err
	}
	var out allocated
	_, err = d.plugin.ask(ctx, w, kindNetwork, "AllocateNetwork", allocateNetwork{n.ID, n.Options, pools(n, true), pools(n, false)}, &out)
	if unknownMethod(err) {
		return nil, nil
	}
	return out.Options, err
}

// remove makes a call that takes something away. What is not there, or is nothing that
// the plugin knows to take away, is gone.
func (d Driver) remove(ctx context.Context, w *patience, method string, arg any) error {
	_, err := d.plugin.ask(ctx, w, kindNetwork, method, arg, &done{})
	if absent(err) || unknownMethod(err) {
		return nil
	}
	return err
}

// Unmake implements network.External.
func (d Driver) Unmake(ctx context.Context, n network.Network) error {
	w := d.plugin.begin(true)
	err := d.remove(ctx, w, "DeleteNetwork", networkID{n.ID})
	if err != nil {
		return err
	}
	d.reg.told(n.ID, nil)
	if l := d.plugin.now.Load(); l != nil && l.caps.Scope == scopeGlobal {
		return d.remove(ctx, w, "FreeNetwork", networkID{n.ID})
	}
	return nil
}

// Keep implements network.External: the protocol has no word for it.
func (Driver) Keep(context.Context, network.Network, []network.Attachment) error { return nil }
