// Package machine shows the kernel as package network wants to see it. It is the
// only place that knows both.
package machine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/kernel"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/ipam"
)

// Machine is a network.Machine.
type Machine struct {
	*kernel.Kernel
	Servers func() []netip.AddrPort // the name servers of the host
}

var (
	_ network.Machine = Machine{}
	_ network.Lender  = Machine{}
)

func (m Machine) Host(ctx context.Context) (network.Host, error) {
	f, err := m.Facts(ctx)
	can := m.Features()
	return network.Host{MTU: f.MTU, IPv6: f.IPv6, SockAddr: can.SockAddr, Guard: can.Guard, Sources: can.Sources, Advertised: strings.Join(f.Advertised, "/"), Parents: parents(f.Parents)}, err
}

func (m Machine) Foreign(ctx context.Context) ([]ipam.Foreign, error) {
	f, err := m.Facts(ctx)
	if err != nil {
		return nil, err
	}
	var list []ipam.Foreign
	for _, p := range f.Routes {
		list = append(list, ipam.Foreign{Prefix: p.Prefix, What: "route", Dev: p.Dev})
	}
	for _, p := range f.Addrs {
		list = append(list, ipam.Foreign{Prefix: p.Prefix, What: "address", Dev: p.Dev})
	}
	for _, s := range m.Servers() {
		list = append(list, ipam.Foreign{Prefix: netip.PrefixFrom(s.Addr(), s.Addr().BitLen()), What: ipam.NameServer})
	}
	return list, nil
}

func (m Machine) Listen(ctx context.Context, ns netspec.NS, port uint16) (net.PacketConn, net.Listener, error) {
	return m.Kernel.Listen(ctx, ns, netip.AddrPortFrom(network.ResolverAddr, port))
}

func (m Machine) Counters(ctx context.Context, ns netspec.NS) (map[string]network.Counters, error) {
	links, err := m.Kernel.Counters(ctx, ns)
	out := make(map[string]network.Counters, len(links))
	for name, c := range links {
		out[name] = network.Counters(c)
	}
	return out, err
}

// MAC implements network.Machine.
func (m Machine) MAC(ns netspec.NS, link string) (mac netspec.MAC, err error) {
	err = m.Do(ns, func() error {
		i, err := net.InterfaceByName(link)
		if err == nil && len(i.HardwareAddr) != len(mac) {
			err = fmt.Errorf("it has none: %w", errdefs.ErrInvalidArgument)
		}
		if err == nil {
			mac = netspec.MAC(i.HardwareAddr)
		}
		return err
	})
	if err != nil {
		return mac, fmt.Errorf("MAC address of %s in namespace %s: %w", link, ns, err)
	}
	return mac, nil
}

// Inside implements network.Lender.
func (m Machine) Inside(ns netspec.NS, link string) (network.Inside, error) {
	in, err := m.Kernel.Inside(ns, link)
	return network.Inside(in), err
}

func parents(list []kernel.Parent) string {
	out := make([]network.Parent, len(list))
	for i, p := range list {
		out[i] = network.Parent(p)
	}
	return network.Parents(out)
}
