package cni

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"isle/internal/netspec"
	"isle/internal/network"
)

// The capabilities that plugins can declare and what is then handed to them.
const (
	capPorts     = "portMappings"
	capBandwidth = "bandwidth"
	capIPs       = "ips"
	capMAC       = "mac"
	capAliases   = "aliases"
	capDNS       = "dns"
)

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

type dnsArgs struct {
	Servers  []netip.Addr `json:"servers,omitempty"`
	Searches []string     `json:"searches,omitempty"`
	Options  []string     `json:"options,omitempty"`
}

// runtimeConf is what plugins are told of an attachment.
func (c chain) runtimeConf(o options, a network.Attachment) (*libcni.RuntimeConf, error) {
	args, err := c.args(o, a)
	if err != nil {
		return nil, err
	}
	rt := conf(a)
	rt.CapabilityArgs = args
	return rt, nil
}

// conf is whose interface a is: enough for all but ADD.
func conf(a network.Attachment) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: a.Endpoint.Sandbox, NetNS: a.NSPath, IfName: a.Endpoint.Interface,
		Args: cniArgs,
	}
}

var cniArgs = [][2]string{{"IgnoreUnknown", "1"}}

// args are the capability arguments. What the user asked for and nobody takes is an
// error; ports are ignored then, with a warning of the Manager's, as on a LAN.
func (c chain) args(o options, a network.Attachment) (map[string]any, error) {
	out := map[string]any{}
	for capability, arg := range map[string]func(options, network.Attachment) (any, error){
		capPorts: c.ports, capBandwidth: c.bandwidth, capIPs: c.ips, capMAC: c.mac, capAliases: c.aliases, capDNS: c.dns,
	} {
		v, err := arg(o, a)
		if err != nil {
			return nil, err
		}
		if v != nil && c.takes(capability) {
			out[capability] = v
		}
	}
	return out, nil
}

// lacks is the error for what is wanted and no plugin can be told.
func (c chain) lacks(what, capability string) error {
	return fmt.Errorf("%s: no plugin of the configuration %s has the capability %q (hint: \"capabilities\": {%q: true} in one that can): %w",
		what, c.Name, capability, capability, errdefs.ErrInvalidArgument)
}

func (c chain) ports(_ options, a network.Attachment) (any, error) {
	if !c.takes(capPorts) || len(a.Publish) == 0 {
		return nil, nil
	}
	var out []portMapping
	for _, p := range a.Publish {
		if p.Iface != "" || p.From != "" {
			return nil, fmt.Errorf("publish port %d of the container: CNI plugins can be told an address of the host, neither an interface nor who may connect: %w", p.ContainerPort, errdefs.ErrInvalidArgument)
		}
		for i := range max(int(p.Count), 1) {
			m := portMapping{HostPort: int(p.HostPort) + i, ContainerPort: int(p.ContainerPort) + i, Protocol: p.Proto}
			if p.HostIP.IsValid() {
				m.HostIP = p.HostIP.String()
			}
			out = append(out, m)
		}
	}
	return out, nil
}

func (c chain) bandwidth(o options, a network.Attachment) (any, error) {
	r, err := o.Rates.of(a.Endpoint)
	if err != nil || r == (rates{}) {
		return nil, err
	}
	if !c.takes(capBandwidth) {
		return nil, c.lacks("limit the rate", capBandwidth)
	}
	return r, nil
}

func (c chain) ips(o options, a network.Attachment) (any, error) {
	w := a.Endpoint.Wish
	if w == nil || len(w.Addrs) == 0 {
		return nil, nil
	}
	if !c.takes(capIPs) {
		return nil, c.lacks(fmt.Sprintf("address %s", w.Addrs[0]), capIPs)
	}
	var out []string
	for _, addr := range w.Addrs {
		out = append(out, o.inSubnet(addr))
	}
	return out, nil
}

// inSubnet is an address with the length of its subnet, where that is known. Some
// plugins cannot do without, some find it themselves.
func (o options) inSubnet(a netip.Addr) string {
	i := slices.IndexFunc(o.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		return a.String()
	}
	return netip.PrefixFrom(a, o.Subnets[i].Bits()).String()
}

// mac is the one that the user has asked for, else one that is the same at every start.
func (c chain) mac(_ options, a network.Attachment) (any, error) {
	mac := stable(a.Endpoint)
	if w := a.Endpoint.Wish; w != nil && w.MAC != (netspec.MAC{}) {
		if !c.takes(capMAC) {
			return nil, c.lacks(fmt.Sprintf("MAC address %s", net.HardwareAddr(w.MAC[:])), capMAC)
		}
		mac = w.MAC
	}
	return net.HardwareAddr(mac[:]).String(), nil
}

func stable(ep network.Endpoint) (mac netspec.MAC) {
	h := sha256.Sum256([]byte("cni " + ep.Sandbox + " " + ep.Network))
	copy(mac[:], h[:])
	mac[0] = mac[0]&^1 | 2 // of one station, not of a maker
	return mac
}

func (c chain) aliases(_ options, a network.Attachment) (any, error) {
	if len(a.Endpoint.Names) == 0 {
		return nil, nil
	}
	return a.Endpoint.Names, nil
}

func (c chain) dns(_ options, a network.Attachment) (any, error) {
	w := a.Endpoint.Wish
	if w == nil || len(w.DNS.Servers)+len(w.DNS.Search)+len(w.DNS.Options) == 0 {
		return nil, nil
	}
	return dnsArgs{Servers: w.DNS.Servers, Searches: w.DNS.Search, Options: w.DNS.Options}, nil
}
