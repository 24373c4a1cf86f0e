package remote

import (
	"net/netip"

	"isle/internal/netspec"
	"isle/internal/network"
)

// Keys of the maps of options, as Docker names them.
const (
	keyGeneric    = "com.docker.network.generic"
	keyEnableIPv4 = "com.docker.network.enable_ipv4"
	keyEnableIPv6 = "com.docker.network.enable_ipv6"
	keyInternal   = "com.docker.network.internal"

	keyExposed = "com.docker.network.endpoint.exposedports"
	keyPortMap = "com.docker.network.portmap"
	keyMAC     = "com.docker.network.endpoint.macaddress"

	keyGateway     = "com.docker.network.gateway"
	keyAddressType = "RequestAddressType"
)

// Address spaces of networks whose addresses no plugin gives out.
const (
	spaceDefault = "LocalDefault"
	spaceNull    = "null"
)

// networkOptions are those of a network: what the user gave as they gave it, and what
// Docker says besides. more is what the plugin itself has added to them.
func networkOptions(n network.Network, more map[string]string) map[string]any {
	generic := map[string]string{}
	for _, m := range []map[string]string{n.Options, more} {
		for k, v := range m {
			generic[k] = v
		}
	}
	opts := map[string]any{keyGeneric: generic, keyEnableIPv4: n.IPv4, keyEnableIPv6: n.IPv6}
	if n.Internal {
		opts[keyInternal] = true
	}
	return opts
}

// pools are a network's subnets of a family. Without any Docker names the whole of the
// address space, by which plugins that ask others for addresses know such a network.
func pools(n network.Network, v4 bool) []ipamData {
	out := []ipamData{}
	for _, p := range n.Pools {
		if p.Subnet.Addr().Is4() == v4 {
			out = append(out, pool(n, p))
		}
	}
	if all := map[bool]string{true: "0.0.0.0/0", false: "::/0"}[v4]; len(n.Pools) == 0 && (v4 && n.IPv4 || !v4 && n.IPv6) {
		out = append(out, ipamData{AddressSpace: spaceNull, Pool: all})
	}
	return out
}

func pool(n network.Network, p network.Pool) ipamData {
	d := ipamData{AddressSpace: spaceDefault, Pool: p.Subnet.String(), Gateway: inPool(p, p.Gateway)}
	if len(p.Aux) > 0 {
		d.AuxAddresses = map[string]string{}
	}
	for name, a := range p.Aux {
		d.AuxAddresses[name] = inPool(p, a)
	}
	return d
}

func inPool(p network.Pool, a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return netip.PrefixFrom(a, p.Subnet.Bits()).String()
}

// protocols are the numbers of IP protocols.
var protocols = map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}

// portOptions are the ports of an endpoint. Docker sends them with CreateEndpoint and
// with Join, empty lists too.
func portOptions(ports []network.Publish) map[string]any {
	exposed, bound := []transportPort{}, []portBinding{}
	seen := map[transportPort]bool{}
	for _, p := range ports {
		for i := range max(p.Count, 1) {
			at := transportPort{protocols[p.Proto], p.ContainerPort + i}
			if !seen[at] {
				seen[at] = true
				exposed = append(exposed, at)
			}
			host := p.HostPort + i
			bound = append(bound, portBinding{Proto: at.Proto, Port: at.Port, HostIP: text(p.HostIP), HostPort: host, HostPortEnd: host})
		}
	}
	return map[string]any{keyExposed: exposed, keyPortMap: bound}
}

// endpointOptions are those of CreateEndpoint: the user's own besides the ports. A MAC
// address is there as Docker writes it, in base64.
func endpointOptions(a network.Attachment) map[string]any {
	opts := map[string]any{}
	for k, v := range a.Endpoint.Options {
		opts[k] = v
	}
	for k, v := range portOptions(a.Publish) {
		opts[k] = v
	}
	if mac := a.Endpoint.MAC; mac != (netspec.MAC{}) {
		opts[keyMAC] = mac[:]
	}
	return opts
}
