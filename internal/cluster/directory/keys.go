package directory

import (
	"fmt"
	"net/netip"

	"isle/internal/fabric"
	"isle/internal/store"
)

// root is before all that is watched.
const root = "fabric/"

const (
	hostPrefix     = root + "host"
	networkPrefix  = root + "network"
	endpointPrefix = root + "endpoint"
	vniPrefix      = "vni"
	subnetPrefix   = "subnet"
	namePrefix     = "name/network"
)

var (
	hosts     = store.NewTable[fabric.Host](hostPrefix)
	networks  = store.NewTable[fabric.Network](networkPrefix)
	endpoints = store.NewTable[fabric.Endpoint](endpointPrefix)
	subnets   = store.NewTable[[]netip.Prefix](subnetPrefix)
)

func addrKey(network string, a netip.Addr) string {
	return "addr/" + network + "/" + a.Unmap().String()
}

func addrsOf(network string) string { return "addr/" + network + "/" }

func vniKey(vni uint32) string { return fmt.Sprintf("%s/%08d", vniPrefix, vni) }

func nameKey(name string) string { return namePrefix + "/" + name }
