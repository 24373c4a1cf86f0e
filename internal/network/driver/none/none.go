// Package none is the driver of the network that is no network: a container on
// it has its loopback device and nothing else.
package none

import (
	"isle/internal/netspec"
	"isle/internal/network"
)

// Driver is the driver. The zero value is ready to use.
type Driver struct{}

var _ network.Driver = Driver{}

// Validate implements network.Driver: there is nothing that could be wrong.
func (Driver) Validate(network.Network) error { return nil }

// Caps implements network.Driver.
func (Driver) Caps() network.Caps { return network.Caps{Singleton: true} }

// Beside implements network.Driver.
func (Driver) Beside(_, _ network.Network) error { return nil }

// Ready implements network.Driver.
func (Driver) Ready(network.Network, int, network.Host) error { return nil }

// Uplink implements network.Driver.
func (Driver) Uplink(network.Network, network.Host) string { return "" }

// Plan implements network.Driver: the namespace is the sandbox's own.
func (Driver) Plan(netspec.State, network.Network, []network.Endpoint, network.Host) error {
	return nil
}
