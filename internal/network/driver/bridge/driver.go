package bridge

import (
	"fmt"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/bridged"
)

// Driver is the driver. The zero value is ready to use.
type Driver struct{}

var _ network.Driver = Driver{}

// Caps implements network.Driver.
func (Driver) Caps() network.Caps {
	return network.Caps{IPAM: true, Publish: true, DHCP: true, Gateway: true, Room: bridged.Room, Leaves: bridged.Leaves}
}

// Validate implements network.Driver.
func (Driver) Validate(n network.Network) error {
	o, err := parse(n.Options)
	if err == nil {
		err = bridged.Known(n.Options, optGuard, optMode)
	}
	if err != nil {
		return err
	}
	for k, m := range map[string]bridged.Mode{optMode4: o.Mode4, optMode6: o.Mode6} {
		if m == bridged.Isolated && !n.Internal {
			return fmt.Errorf("option %s=isolated: only an internal network can do without a gateway (hint: add --internal): %w", k, errdefs.ErrInvalidArgument)
		}
	}
	if n.IPv6 && o.MTU != 0 && o.MTU < network.LeastIPv6MTU {
		return fmt.Errorf("option %s=%d: IPv6 needs at least %d (hint: --ipv6=false): %w", optMTU, o.MTU, network.LeastIPv6MTU, errdefs.ErrInvalidArgument)
	}
	for _, p := range n.Pools {
		if p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) {
			return fmt.Errorf("gateway %s is not in subnet %s: %w", p.Gateway, p.Subnet, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Beside implements network.Driver.
func (Driver) Beside(_, _ network.Network) error { return nil }

// Ready implements network.Driver.
func (Driver) Ready(network.Network, int, network.Host) error { return nil }

// Uplink implements network.Driver.
func (Driver) Uplink(network.Network, network.Host) string { return "" }

// Plan implements network.Driver.
func (Driver) Plan(s netspec.State, n network.Network, eps []network.Endpoint, host network.Host) error {
	o, err := parse(n.Options)
	if err != nil {
		return err
	}
	if o.Link == "" {
		o.Link = bridged.Name(host.LinkPrefix, n.ID)
	}
	o.Way = host.MTU
	return bridged.Plan(s, n, eps, host, o)
}
