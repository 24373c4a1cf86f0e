package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"isle/internal/network"
)

// Make implements network.External: it keeps the configuration as it is now. Plugins are
// asked for their versions and whether they are ready. For a network that is there, not
// to be ready is no error: its containers may be running.
func (d *Driver) Make(ctx context.Context, n network.Network) (network.Made, error) {
	o, err := parse(n.Options)
	if err != nil {
		return network.Made{}, err
	}
	c, err := d.kept.load(n.ID)
	again := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		c, err = d.read(o.Conf)
	}
	if err != nil {
		return network.Made{}, optionError(optConf, o.Conf, err)
	}
	cni, p := d.over(n.ID, o)
	made := network.Made{Warnings: warnings(n, c, d.collects(o, c))}
	if err := p.ready(ctx, cni, c); err != nil && !again {
		return network.Made{}, err
	} else if err != nil {
		made.Warnings = append(made.Warnings, err.Error())
	}
	if !again {
		err = d.kept.keep(n.ID, c)
	}
	return made, err
}

// ready reports which plugin cannot do what the chain asks of it, now or at all.
func (p *plugins) ready(ctx context.Context, cni *libcni.CNIConfig, c chain) error {
	seen := map[string]bool{}
	for _, one := range c.Plugins {
		if seen[one.Network.Type] {
			continue
		}
		seen[one.Network.Type] = true
		info, err := cni.GetVersionInfo(ctx, one.Network.Type)
		if err != nil {
			return p.fail("VERSION", err)
		}
		if has := info.SupportedVersions(); !slices.Contains(has, c.CNIVersion) {
			return fmt.Errorf("plugin %s: it does not know cniVersion %s of the configuration, but %s: %w",
				one.Network.Type, c.CNIVersion, clean(strings.Join(has, ", ")), errdefs.ErrInvalidArgument)
		}
	}
	if err := cni.GetStatusNetworkList(ctx, c.NetworkConfigList); err != nil {
		return p.fail("STATUS", err)
	}
	return nil
}

// collects reports whether GC may be called: plugins forget all that they are not told
// of then, also what another runtime has made with the same configuration.
func (d *Driver) collects(o options, c chain) bool {
	switch {
	case !c.since("1.1.0"), c.DisableGC:
		return false
	case o.GC != nil:
		return *o.GC
	}
	return strings.Contains(o.Conf, "/") && !slices.Contains(d.ConfDirs, filepath.Dir(filepath.Clean(o.Conf)))
}

// warnings are what the chain cannot do and what Isle cannot enforce on it.
func warnings(n network.Network, c chain, collects bool) (out []string) {
	say := func(when bool, text string) {
		if when {
			out = append(out, text)
		}
	}
	say(true, "its plugins decide what passes: other networks and neighbours are not kept from it, and source addresses are not checked")
	say(!c.takes(capPorts), "no plugin of the configuration has the capability portMappings: published ports are ignored on this network")
	say(n.Internal, "--internal is not enforced: what the network reaches is its plugins' business")
	say(c.since("1.1.0") && !c.DisableGC && !collects, "GC is not used, since other runtimes may share the configuration; -o "+optGC+"=true if none does")
	say(!c.since("0.4.0"), "cniVersion "+c.CNIVersion+" has no CHECK: what others change is not noticed; 0.4.0 and later have it")
	say(c.since("0.4.0") && c.DisableCheck, "the configuration has disableCheck: what others change is not noticed")
	return out
}

// Unmake implements network.External.
func (d *Driver) Unmake(ctx context.Context, n network.Network) error {
	if err := d.Keep(ctx, n, nil); err != nil {
		return fmt.Errorf("take away what is left of the network: %w (hint: correct what keeps the plugin from it; or, to forget about it, remove %s)", err, d.kept.notes(n.ID))
	}
	return d.kept.drop(n.ID)
}
