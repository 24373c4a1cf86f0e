package network

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Options of networks and endpoints that the Manager itself acts on. All
// others are the drivers'.
const (
	// OptIfacePrefix begins the names of interfaces in containers.
	OptIfacePrefix = "com.docker.network.container_iface_prefix"
	// OptHostBinding is where ports are published when the user names no address.
	OptHostBinding = "com.docker.network.bridge.host_binding_ipv4"
	// OptIfname is the whole name of an endpoint's interface.
	OptIfname = "com.docker.network.endpoint.ifname"

	// OptSysctls are settings of an endpoint's interface.
	OptSysctls = "com.docker.network.endpoint.sysctls"

	// OptParent is the interface of the host that a network of the LAN is on.
	OptParent = "parent"

	// OptHostAccess lets the host and the containers of such a network reach each other.
	OptHostAccess = "isle.host_access"

	// OptMTU is the MTU of a network's interfaces.
	OptMTU = "com.docker.network.driver.mtu"

	// OptGatewayMode4 and 6 are how a family is joined to the world outside.
	OptGatewayMode4 = "com.docker.network.bridge.gateway_mode_ipv4"
	OptGatewayMode6 = "com.docker.network.bridge.gateway_mode_ipv6"

	optBridgeName = "com.docker.network.bridge.name"
)

var ifname = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.@-]{0,14}$`)

// CheckInterface reports whether a network device can have that name.
func CheckInterface(name string) error {
	if name == "lo" {
		return fmt.Errorf("invalid interface name \"lo\": it is the loopback interface's: %w", errdefs.ErrInvalidArgument)
	}
	if !ifname.MatchString(name) {
		return fmt.Errorf("invalid interface name %q: 1 to 15 letters, digits, '_', '-', '.', beginning with a letter or digit: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// LeastIPv6MTU is what a link must take to have IPv6 at all (RFC 8200): the kernel
// switches IPv6 off on links with less.
const LeastIPv6MTU = 1280

// narrow reports whether the user wants less of n's links than IPv6 needs.
func (n Network) narrow() bool {
	mtu, err := strconv.Atoi(n.Options[OptMTU])
	return err == nil && mtu > 0 && mtu < LeastIPv6MTU
}

// routed reports whether published ports of a family are reached at the
// containers' own addresses instead of the host's.
func (n Network) routed(v4 bool) bool {
	if v4 {
		return n.Options[OptGatewayMode4] == "routed"
	}
	return n.Options[OptGatewayMode6] == "routed"
}

func hostBinding(n Network, def netip.Addr) (netip.Addr, error) {
	v, ok := n.Options[OptHostBinding]
	if !ok || v == "" {
		return def, nil
	}
	a, err := netip.ParseAddr(v)
	if err != nil {
		return a, fmt.Errorf("option %s: %w: %w", OptHostBinding, err, errdefs.ErrInvalidArgument)
	}
	if a == netip.IPv4Unspecified() { // Docker's default, written out: no restriction
		return def, nil
	}
	return a, nil
}

// HasIPv6 is false for an endpoint whose container switched IPv6 off.
func (e Endpoint) HasIPv6() bool {
	if _, ok := e.Leases[IPv6]; ok {
		return true
	}
	return slices.ContainsFunc(slices.Concat(e.Addrs, e.LinkLocal), func(a netip.Prefix) bool { return a.Addr().Is6() })
}

// InterfaceSysctls reads the option of the endpoint for them, such as
// "net.ipv4.conf.IFNAME.log_martians=1,…". Only those of its own interface may be
// changed here. Names are with slashes, below "net/". The docker CLI makes IFNAME
// lower-case.
func (e Endpoint) InterfaceSysctls() (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range strings.Split(e.Options[OptSysctls], ",") {
		if kv = strings.TrimSpace(kv); kv == "" {
			continue
		}
		k, val, ok := strings.Cut(kv, "=")
		part := strings.Split(k, ".")
		if !ok || len(part) != 5 || part[0] != "net" || !strings.EqualFold(part[3], "IFNAME") || strings.ContainsAny(k, "/") ||
			!slices.Contains([]string{"ipv4", "ipv6", "mpls"}, part[1]) || !slices.Contains([]string{"conf", "neigh"}, part[2]) || part[4] == "" {
			return nil, fmt.Errorf("option %s: %q is not of the form net.ipv4.conf.IFNAME.setting=value: %w", OptSysctls, kv, errdefs.ErrInvalidArgument)
		}
		out[part[1]+"/"+part[2]+"/"+e.Interface+"/"+part[4]] = val
	}
	return out, nil
}

// via is the next hop of a way out by gateway gw; invalid: there is none, the kernel
// routes between the endpoints and what they are on.
func (n Network) via(gw netip.Addr) netip.Addr {
	if mode := n.Options["ipvlan_mode"]; n.Driver == DriverIPvlan && (mode == "l3" || mode == "l3s") {
		return netip.Addr{}
	}
	return gw
}
