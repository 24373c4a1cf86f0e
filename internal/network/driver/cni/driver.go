package cni

import (
	"path/filepath"
	"time"

	"isle/internal/netspec"
	"isle/internal/network"
)

// Config is where a driver finds things and how long it waits.
type Config struct {
	PluginDirs []string      // where plugins are looked for, in order
	ConfDirs   []string      // where configurations are looked for by name
	StateDir   string        // required: what networks keep; survives a reboot
	Limit      time.Duration // of one run of a plugin, unless the network has its own; 0: 30 s
	Inside     Inside        // nil: namespaces are not looked into
}

// Inside looks into namespaces of containers, given by path. A namespace that is not
// there has no links.
type Inside interface {
	// Links names the links of a namespace.
	Links(ns string) ([]string, error)
	// RemoveLink takes a link away. One that is not there is no error.
	RemoveLink(ns, name string) error
	// Yield has the default routes that others have made over a link count after Isle's.
	Yield(ns, name string) error
}

// Driver is the driver. It is made by New and may be used concurrently.
type Driver struct {
	Config
	kept  shelf
	turns turns
	alive alive
}

var (
	_ network.External   = (*Driver)(nil)
	_ network.Particular = (*Driver)(nil)
)

// New makes a driver. Nothing is looked at yet.
func New(c Config) *Driver {
	if c.Limit == 0 {
		c.Limit = 30 * time.Second
	}
	return &Driver{Config: c, kept: shelf{dir: filepath.Join(c.StateDir, "networks")}}
}

// Caps implements network.Driver: what networks can do at most.
func (*Driver) Caps() network.Caps { return network.Caps{Publish: true, Gateway: true} }

// CapsOf implements network.Particular: ports can be published where a plugin takes them.
func (d *Driver) CapsOf(n network.Network) network.Caps {
	caps := d.Caps()
	c, err := d.kept.load(n.ID)
	caps.Publish = err == nil && c.takes(capPorts)
	return caps
}

// Validate implements network.Driver. It starts no plugin.
func (d *Driver) Validate(n network.Network) error {
	o, err := parse(n.Options)
	if err != nil {
		return err
	}
	c, err := d.read(o.Conf)
	if err != nil {
		return optionError(optConf, o.Conf, err)
	}
	if err := d.installed(c); err != nil {
		return optionError(optConf, o.Conf, err)
	}
	return nil
}

// Beside implements network.Driver. Networks of one CNI name are refused by Make.
func (*Driver) Beside(_, _ network.Network) error { return nil }

// Ready implements network.Driver: the plugins say so themselves, to Attach.
func (*Driver) Ready(network.Network, int, network.Host) error { return nil }

// Uplink implements network.Driver: only the plugins know.
func (*Driver) Uplink(network.Network, network.Host) string { return "" }

// Plan implements network.Driver. The interface is the plugins'; what the user has set
// for it is added when it is there.
func (*Driver) Plan(s netspec.State, _ network.Network, eps []network.Endpoint, _ network.Host) error {
	for _, ep := range eps {
		if ep.Result == nil {
			continue
		}
		users, err := ep.InterfaceSysctls()
		if err != nil {
			return err
		}
		for name, v := range users {
			s.Add(netspec.Sysctl{NS: ep.NS(), Name: name, Value: v})
		}
	}
	return nil
}
