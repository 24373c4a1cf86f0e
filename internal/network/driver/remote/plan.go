package remote

import (
	"net/netip"
	"slices"

	"isle/internal/netspec"
	"isle/internal/network"
)

// Plan implements network.Driver: the link is the plugin's, what is on it in the
// container is planned, so that it is looked after like all else. The default routes
// are the Manager's, by the gateways of all of a container's networks.
func (Driver) Plan(s netspec.State, n network.Network, eps []network.Endpoint, host network.Host) error {
	for _, ep := range eps {
		set, err := ep.InterfaceSysctls()
		if err != nil {
			return err
		}
		if ep.Result != nil && ep.Result.MTU != 0 { // it is attached, and has a link
			endpoint(s, ep, host, set)
		}
	}
	return nil
}

// endpoint is what is on a link; set are the settings that the user gave.
func endpoint(s netspec.State, ep network.Endpoint, host network.Host, set map[string]string) {
	for _, a := range slices.Concat(ep.Result.Addrs, ep.LinkLocal) {
		s.Add(netspec.Addr{NS: ep.NS(), Link: ep.Interface, Prefix: a})
	}
	for _, r := range ep.Result.Routes {
		s.Add(netspec.Route{NS: ep.NS(), Dst: r.Dst, Via: r.Via, Dev: ep.Interface, OnLink: beyond(r.Via, ep.Result.Addrs)})
	}
	for name, v := range mine(ep, host) {
		if _, ok := set[name]; !ok {
			set[name] = v
		}
	}
	for name, v := range set {
		s.Add(netspec.Sysctl{NS: ep.NS(), Name: name, Value: v})
	}
}

// beyond reports whether a next hop is on the link although no subnet there has it.
func beyond(via netip.Addr, addrs []netip.Prefix) bool {
	return via.IsValid() && !via.IsLinkLocalUnicast() && !slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Contains(via) })
}

// mine are the settings of the link: it has IPv6 addresses from Isle only, or no IPv6.
func mine(ep network.Endpoint, host network.Host) map[string]string {
	if !host.IPv6 {
		return nil
	}
	conf := "ipv6/conf/" + ep.Interface + "/"
	if hasIPv6(ep) {
		return map[string]string{conf + "disable_ipv6": "0", conf + "accept_ra": "0"}
	}
	return map[string]string{conf + "disable_ipv6": "1"}
}

func hasIPv6(ep network.Endpoint) bool {
	return slices.ContainsFunc(slices.Concat(ep.Result.Addrs, ep.LinkLocal), func(a netip.Prefix) bool { return a.Addr().Is6() })
}
