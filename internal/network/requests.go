package network

import (
	"net/netip"
	"os"

	"github.com/moby/moby/api/types/network"

	"isle/internal/network/publish"
)

// OpenRequest is a sandbox to be made with its endpoints.
type OpenRequest struct {
	ID       string // the container's
	Name     string // the container's
	Sysctls  map[string]string
	Router   bool // it may route for others
	DNS      DNSConfig
	Networks []ConnectRequest
	Ports    PortRequest
	From     *os.File // the namespace, when somebody else made it; ID is Manager.Lent's
}

// ConnectRequest is a place wanted on a network.
type ConnectRequest struct {
	Network       string // id
	ContainerName string
	ContainerID   string
	Settings      network.EndpointSettings // the user's wishes: IPAMConfig, Aliases, MacAddress, DriverOpts, GwPriority
}

// PortRequest is what is to be published, on whichever endpoint can.
type PortRequest struct {
	Bindings network.PortMap // PublishAll already spelled out; an empty HostPort means: choose one
	Specs    []publish.Spec  // what Bindings have no place for
}

// Opened is what became of an OpenRequest.
type Opened struct {
	NSPath    string // path of the namespace
	Endpoints []Endpoint
	Ports     network.PortMap // every binding with its host port, as "inspect" shows it
	Warnings  []string
}

// Counters are an interface's, as the container sees them.
type Counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// ResolverAddr is the name server that every sandbox sees.
var ResolverAddr = netip.AddrFrom4([4]byte{127, 0, 0, 11})
