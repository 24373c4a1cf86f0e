// Package builtin is the list of the drivers that come with Isle. Only
// cmd/isled imports it.
package builtin

import (
	"isle/internal/network"
	"isle/internal/network/driver/bridge"
	"isle/internal/network/driver/host"
	"isle/internal/network/driver/ipvlan"
	"isle/internal/network/driver/macvlan"
	"isle/internal/network/driver/none"
	"isle/internal/network/driver/overlay"
)

// Drivers are the drivers by the name that users give.
func Drivers() map[string]network.Driver {
	return map[string]network.Driver{
		network.DriverBridge:  bridge.Driver{},
		network.DriverHost:    host.Driver{},
		network.DriverNone:    none.Driver{},
		network.DriverMacvlan: macvlan.Driver{},
		network.DriverIPvlan:  ipvlan.Driver{},
		network.DriverOverlay: overlay.Driver{},
	}
}
