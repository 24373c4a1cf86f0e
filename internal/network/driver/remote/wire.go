package remote

import (
	"encoding/json"
	"net/netip"
)

// Kinds of plugins, which begin the names of calls.
const (
	kindNetwork = "NetworkDriver"
	kindIPAM    = "IpamDriver"
)

// problem is in every answer. Plugins for networks have Err, those for addresses
// Error, and the library for both writes Err with a status.
type problem struct{ Err, Error string }

func (p problem) refusal() string {
	if p.Err != "" {
		return p.Err
	}
	return p.Error
}

// done is an answer without content.
type done struct{ problem }

// manifest answers Plugin.Activate.
type manifest struct {
	problem
	Implements []string
}

// capabilities answers NetworkDriver.GetCapabilities.
type capabilities struct {
	problem
	Scope, ConnectivityScope string
}

// Scopes.
const (
	scopeLocal  = "local"
	scopeGlobal = "global"
)

// ipamData is the addressing of a network. Addresses have the length of the pool's
// prefix.
type ipamData struct {
	AddressSpace string
	Pool         string
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

type allocateNetwork struct {
	NetworkID          string
	Options            map[string]string
	IPv4Data, IPv6Data []ipamData
}

type allocated struct {
	problem
	Options map[string]string
}

type createNetwork struct {
	NetworkID          string
	Options            map[string]any
	IPv4Data, IPv6Data []ipamData
}

// networkID is the argument of DeleteNetwork and FreeNetwork.
type networkID struct{ NetworkID string }

// endpointID is the argument of all calls that name an endpoint and nothing else.
type endpointID struct{ NetworkID, EndpointID string }

// iface is the addressing of an endpoint.
type iface struct{ Address, AddressIPv6, MacAddress string }

type createEndpoint struct {
	NetworkID, EndpointID string
	Interface             iface
	Options               map[string]any
}

type createdEndpoint struct {
	problem
	Interface *iface
}

// operInfo answers EndpointOperInfo; its content is the plugin's own.
type operInfo struct {
	problem
	Value map[string]json.RawMessage
}

type join struct {
	NetworkID, EndpointID string
	SandboxKey            string
	Options               map[string]any
}

// Types of static routes.
const (
	routeNextHop   = 0
	routeConnected = 1
)

type staticRoute struct {
	Destination string
	RouteType   int
	NextHop     string
}

type joined struct {
	problem
	joinedWords
}

// joinedWords is what a plugin says of an endpoint; inspect shows it as it is.
type joinedWords struct {
	InterfaceName         struct{ SrcName, DstPrefix string }
	Gateway, GatewayIPv6  string
	StaticRoutes          []staticRoute `json:",omitempty"`
	DisableGatewayService bool          `json:",omitempty"`
}

// program is the argument of ProgramExternalConnectivity.
type program struct {
	NetworkID, EndpointID string
	Options               map[string]any
}

// discoverNode is the only type of discovery that there is.
const discoverNode = 1

type discovery struct {
	DiscoveryType int
	DiscoveryData node
}

type node struct {
	Address string
	Self    bool
}

// transportPort and portBinding are in the options of endpoints. Proto is the number
// of the IP protocol; an address that is not given is "".
type transportPort struct {
	Proto uint8
	Port  uint16
}

type portBinding struct {
	Proto                 uint8
	IP                    string
	Port                  uint16
	HostIP                string
	HostPort, HostPortEnd uint16
}

// text is an address in the protocol: "" for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
