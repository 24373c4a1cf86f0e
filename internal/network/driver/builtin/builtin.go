// Package builtin is the list of the drivers that come with Isle. Only
// cmd/isled imports it.
package builtin

import (
	"time"

	"isle/internal/config"
	"isle/internal/network"
	"isle/internal/network/driver/bridge"
	"isle/internal/network/driver/cni"
	"isle/internal/network/driver/host"
	"isle/internal/network/driver/ipvlan"
	"isle/internal/network/driver/macvlan"
	"isle/internal/network/driver/none"
	"isle/internal/network/driver/overlay"
	"isle/internal/network/driver/remote"
)

// CNI is the driver of networks that CNI plugins make.
func CNI(n config.Network, state string, inside cni.Inside) network.Driver {
	return cni.New(cni.Config{
		PluginDirs: n.CNIPluginDirs, ConfDirs: n.CNIConfDirs, StateDir: state,
		Limit: time.Duration(n.CNITimeout) * time.Second, Inside: inside,
	})
}

// Plugins finds Docker's plugins for networks and addresses.
func Plugins(seats remote.Seats) *remote.Registry { return remote.New(remote.Config{Seats: seats}) }

// Drivers are the other drivers by the name that users give.
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
