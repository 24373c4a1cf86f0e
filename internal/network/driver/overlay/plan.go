package overlay

import (
	"fmt"
	"maps"
	"net/netip"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/bridged"
)

// Driver is the driver. The zero value is ready to use.
type Driver struct{}

var _ network.Shared = Driver{}

// Caps implements network.Driver.
func (Driver) Caps() network.Caps {
	return network.Caps{IPAM: true, Publish: true, Gateway: true, Room: bridged.Room, Leaves: bridged.Leaves}
}

// Validate implements network.Driver.
func (Driver) Validate(n network.Network) error {
	o, err := parse(n.Options)
	if err == nil {
		err = bridged.Known(n.Options, optPort, optDirect)
	}
	if err != nil {
		return err
	}
	if o.Direct && n.Internal {
		return fmt.Errorf("option %s: nothing is routed out of an internal network, so it needs its tunnels (hint: leave out --internal, or %s): %w", optDirect, optDirect, errdefs.ErrInvalidArgument)
	}
	if n.IPv6 && o.MTU != 0 && o.MTU < network.LeastIPv6MTU {
		return fmt.Errorf("option %s=%d: IPv6 needs at least %d (hint: --ipv6=false): %w", optMTU, o.MTU, network.LeastIPv6MTU, errdefs.ErrInvalidArgument)
	}
	return nil
}

// VNIs implements network.Shared.
func (Driver) VNIs(n network.Network) (out []fabric.Range, err error) {
	o, err := parse(n.Options)
	if err != nil {
		return nil, err
	}
	for _, v := range o.VNIs {
		out = append(out, fabric.Range{First: v, Last: v})
	}
	if len(out) == 0 {
		out = append(out, fabric.Range{First: firstVNI, Last: lastVNI})
	}
	return out, nil
}

// Numbered implements network.Shared.
func (Driver) Numbered(n network.Network, vni uint32) network.Network {
	n.Options = maps.Clone(n.Options)
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	n.Options[optVNI] = fmt.Sprint(vni)
	return n
}

// Sealed implements network.Shared.
func (Driver) Sealed(n network.Network) bool {
	o, err := parse(n.Options)
	return err == nil && o.Encrypted
}

// Direct implements network.Shared.
func (Driver) Direct(n network.Network) bool {
	o, err := parse(n.Options)
	return err == nil && o.Direct
}

// Beside implements network.Driver. Tunnels of one number must have different ports:
// that the numbers differ the cluster sees to.
func (Driver) Beside(_, _ network.Network) error { return nil }

// Ready implements network.Driver.
func (Driver) Ready(n network.Network, _ int, host network.Host) error {
	o, err := parse(n.Options)
	switch {
	case err != nil:
		return err
	case !host.Tunnel.Addr.IsValid():
		return network.ErrNoCluster
	case o.Encrypted && host.Tunnel.Seal.Link == "":
		return fmt.Errorf("the network is to be encrypted, and this host cannot do that now: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// Uplink implements network.Driver.
func (Driver) Uplink(network.Network, network.Host) string { return "" }

// Plan implements network.Driver.
func (Driver) Plan(s netspec.State, n network.Network, eps []network.Endpoint, host network.Host) error {
	p, err := newPlan(n, host)
	if err != nil {
		return err
	}
	if p.begins() {
		s.Add(p.tunnel())
		p.guard(s)
	}
	return bridged.Plan(s, n, eps, host, p.bridge())
}

// guard adds who may speak for the tunnel.
func (p plan) guard(s netspec.State) {
	for _, link := range p.links() {
		s.Add(netspec.Tunnel{Port: p.o.Port, Via: link})
	}
}

// plan is one network on one host.
type plan struct {
	network.Network
	host network.Host
	o    options
}

func newPlan(n network.Network, host network.Host) (plan, error) {
	o, err := parse(n.Options)
	return plan{n, host, o}, err
}

// begins reports whether there is a tunnel: it has a number and a place to begin. One
// that is to be encrypted and cannot be is not there at all; nor is that of a network
// which the cluster has removed: its number may be another's by now.
func (p plan) begins() bool { return p.o.vni() != 0 && p.opens() && !p.Removed }

// opens reports whether there is a place where it could begin.
func (p plan) opens() bool {
	return p.host.Tunnel.Addr.IsValid() && (!p.o.Encrypted || p.host.Tunnel.Seal.Link != "")
}

// local is where the tunnel begins. One that is encrypted begins on each of its links.
func (p plan) local() netip.Addr {
	if p.o.Encrypted {
		return netip.Addr{}
	}
	return p.host.Tunnel.Addr
}

// links are those that packets of the tunnel may come by; "" is any.
func (p plan) links() []string {
	switch seal := p.host.Tunnel.Seal; {
	case !p.o.Encrypted:
		return []string{""}
	case seal.Old == "":
		return []string{seal.Link}
	default:
		return []string{seal.Link, seal.Old}
	}
}

func (p plan) tunnel() netspec.VXLAN {
	mtu := p.o.MTU
	if mtu == 0 {
		mtu = p.room()
	}
	return netspec.VXLAN{Name: p.name(), VNI: p.o.vni(), Local: p.local(), Port: p.o.Port, Via: p.links()[0], MTU: mtu, Master: p.bridge().Link}
}

// name is the tunnel's: the same whenever the network comes to this host.
func (p plan) name() string {
	name := p.host.LinkPrefix + netspec.TunnelLink + p.ID
	return name[:min(len(name), 15)]
}

func (p plan) bridge() bridged.Options {
	return bridged.Options{
		Link: bridged.Name(p.host.LinkPrefix, p.ID), ICC: true, Masquerade: true, MTU: p.o.MTU, Way: p.room(),
		Mode4: bridged.NAT, Mode6: bridged.NAT, Guard: true, Addressing: bridged.DefaultAddressing,
	}
}

// What is put around a frame: Ethernet, IP, UDP and VXLAN headers; then WireGuard's, with
// IP and UDP once more.
const (
	around4, around6   = 14 + 20 + 8 + 8, 14 + 40 + 8 + 8
	sealing4, sealing6 = 20 + 8 + 32, 40 + 8 + 32
)

// room is what of a frame fits into the tunnel; 0: nobody knows. For IPv6 it is never too
// narrow: then what is put around is cut into fragments.
func (p plan) room() int {
	under := p.host.Tunnel.MTU
	if under == 0 {
		return 0
	}
	if p.o.Encrypted {
		under -= pick(p.host.Tunnel.Addr, sealing4, sealing6)
	}
	room := under - pick(p.local(), around4, around6)
	if p.IPv6 {
		room = max(room, network.LeastIPv6MTU)
	}
	return max(room, leastMTU)
}

const leastMTU = 68 // RFC 791

// pick is v4 for an address of IPv4. Links that encrypt have IPv6 only.
func pick(a netip.Addr, v4, v6 int) int {
	if a.Is4() {
		return v4
	}
	return v6
}
