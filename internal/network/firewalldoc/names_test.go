package firewalldoc

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isle/internal/netspec"
	"isle/internal/network"
)

// names are what stands in the pages for what is made of random ids.
type names struct {
	shown map[string]string // by what it is in the kernel
	links map[string]int    // how many endpoints a container has been shown with
}

func newNames() *names { return &names{shown: map[string]string{}, links: map[string]int{}} }

// learn gives names to what is new.
func (n *names) learn(m *network.Manager) error {
	nets, err := m.List(context.Background())
	if err != nil {
		return err
	}
	byID := map[string]string{}
	for _, net := range nets {
		byID[net.ID] = net.Name
		n.shown["isle-"+net.ID[:10]] = "isle-" + net.Name
	}
	eps, err := m.Endpoints(context.Background())
	slices.SortFunc(eps, func(a, b network.Endpoint) int {
		return cmp.Or(strings.Compare(a.ContainerName, b.ContainerName), strings.Compare(a.Interface, b.Interface))
	})
	for _, ep := range eps {
		n.endpoint(ep, byID[ep.Network])
	}
	return err
}

func (n *names) endpoint(ep network.Endpoint, net string) {
	if n.shown[ep.HostInterface] != "" || ep.HostInterface == "" {
		return
	}
	name := "islev-" + ep.ContainerName
	if n.links[ep.ContainerName]++; n.links[ep.ContainerName] > 1 {
		name += "-" + net
	}
	n.shown[ep.HostInterface] = name
	count := 1
	for _, s := range n.shown {
		if strings.HasPrefix(s, "02:00:00") {
			count++
		}
	}
	shown := netspec.MAC{2, 0, 0, 0, 0, byte(count)}
	n.shown[text(ep.MAC)], n.shown[linkLocal(ep.MAC)] = text(shown), linkLocal(shown)
}

func text(m netspec.MAC) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func linkLocal(m netspec.MAC) string {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}).String()
}

// show puts names for what s tells.
func (n *names) show(s string) string {
	var pairs []string
	for from, to := range n.shown {
		pairs = append(pairs, from, to)
	}
	return strings.NewReplacer(pairs...).Replace(s)
}
