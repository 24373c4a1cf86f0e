package network

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network/ipam"
)

// clash reports whether another network than the one with that id has one of the
// objects of s. Of several the one that is made first says it best: the device.
func (x *index) clash(s netspec.State, of string) error {
	keys := slices.SortedFunc(maps.Keys(s), func(a, b netspec.Key) int { return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID)) })
	for _, k := range keys {
		id, ok := x.devices[k]
		if !ok || id == of {
			continue
		}
		hint := ""
		if k.Rank == netspec.RankLink {
			hint = " (hint: take another name for the bridge, or none)"
		}
		return errdefs.ErrConflict.WithMessage(fmt.Sprintf("%v belongs to network %s already%s", k, x.networks[id].Name, hint))
	}
	return nil
}

// overlap says which network a subnet overlaps with.
func (x *index) overlap(subnet netip.Prefix) error {
	for _, id := range x.sorted {
		n := x.networks[id]
		for _, p := range n.Pools {
			if !n.ConfigOnly && p.Subnet.Overlaps(subnet) {
				return fmt.Errorf("%w: %s overlaps with %s of network %s", ipam.ErrOverlap, subnet, p.Subnet, n.Name)
			}
		}
	}
	return ipam.ErrOverlap
}

// holder says who has an address of a network.
func (x *index) holder(n *Network, a netip.Addr) string {
	for _, pl := range x.users[n.ID] {
		if pl.Addr(a.Is4()) == a {
			return fmt.Sprintf("container %s has %s", pl.ContainerName, a)
		}
	}
	for _, p := range n.Pools {
		if p.Gateway == a {
			return fmt.Sprintf("%s is the gateway", a)
		}
		for name, aux := range p.Aux {
			if aux == a {
				return fmt.Sprintf("%s is the aux-address %s", a, name)
			}
		}
	}
	return a.String()
}

// soleMAC reports whether a place has the MAC address of another container on its
// network: a bridge would send the frames for one of them to the other.
func (x *index) soleMAC(pl place) error {
	for _, other := range x.users[pl.net.ID] {
		if other.MAC == pl.MAC && other.Sandbox != pl.Sandbox {
			return errdefs.ErrConflict.WithMessage(fmt.Sprintf("MAC address %s is in use on network %s: container %s has it",
				network.HardwareAddr(pl.MAC[:]), pl.net.Name, other.ContainerName))
		}
	}
	return nil
}

// Takes reports whether n's subnets have the addresses that a container wants on it.
// Whether they are free is known when it starts.
func (n Network) Takes(want *network.EndpointIPAMConfig) error {
	if want == nil || n.given() && len(n.Pools) == 0 {
		return nil
	}
	for _, a := range []netip.Addr{want.IPv4Address, want.IPv6Address} {
		if a.IsValid() && !slices.ContainsFunc(n.Pools, func(p Pool) bool { return p.Subnet.Contains(a) }) {
			return inNetwork(n, n.outside(a))
		}
	}
	return nil
}

// outside is the error of an address that is in none of n's subnets.
func (n Network) outside(a netip.Addr) error {
	var subnets []string
	for _, p := range n.Pools {
		if p.Subnet.Addr().Is4() == a.Is4() {
			subnets = append(subnets, p.Subnet.String())
		}
	}
	if n.IPAMDriver == IPAMDHCP {
		return fmt.Errorf("address %s cannot be chosen: the DHCP server of the LAN gives out the addresses (hint: have the server reserve it for the container's MAC address, --mac-address): %w", a, errdefs.ErrInvalidArgument)
	}
	have := "it has none of that family"
	if len(subnets) > 0 {
		have = "it has " + strings.Join(subnets, ", ")
	}
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("no configured subnet contains IP address %s (%s)", a, have))
}
