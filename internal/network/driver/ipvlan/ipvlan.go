// Package ipvlan is the driver of networks whose containers are on the LAN of an
// interface of the host, all with the MAC address of that interface.
// README.md says what a user may set and draws the way of a packet; the work is
// done by package lan.
package ipvlan

import (
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/lan"
)

// Driver is the driver. The zero value is ready to use.
type Driver struct{}

var _ network.Driver = Driver{}

// Caps implements network.Driver.
func (Driver) Caps() network.Caps {
	return network.Caps{IPAM: true, Gateway: true, DHCP: true, OneMAC: true}
}

// Validate implements network.Driver.
func (Driver) Validate(n network.Network) error { return lan.Validate(netspec.IPvlan, n) }

// Beside implements network.Driver.
func (Driver) Beside(n, other network.Network) error { return lan.Beside(netspec.IPvlan, n, other) }

// Ready implements network.Driver.
func (Driver) Ready(n network.Network, users int, host network.Host) error {
	return lan.Ready(netspec.IPvlan, n, users, host)
}

// Uplink implements network.Driver.
func (Driver) Uplink(n network.Network, host network.Host) string {
	return lan.Uplink(netspec.IPvlan, n, host)
}

// Plan implements network.Driver.
func (Driver) Plan(s netspec.State, n network.Network, eps []network.Endpoint, host network.Host) error {
	return lan.Plan(netspec.IPvlan, s, n, eps, host)
}
