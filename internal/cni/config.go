package cni

import (
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// config is the configuration of the plugin, as the runtime hands it over.
type config struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	DNS        DNS    `json:"dns"`

	// Isle's own keys.
	Network      string                 `json:"network"`
	Interface    string                 `json:"interface"`
	DefaultRoute *bool                  `json:"defaultRoute"`
	Runtime      string                 `json:"runtime"`
	Create       *network.CreateRequest `json:"create"`

	RuntimeConfig wishes          `json:"runtimeConfig"`
	PrevResult    json.RawMessage `json:"prevResult"`
	Valid         json.RawMessage `json:"cni.dev/valid-attachments"`
}

// wishes are what a runtime asks for by capabilities.
type wishes struct {
	PortMappings []Port     `json:"portMappings"`
	IPs          []string   `json:"ips"`
	MAC          string     `json:"mac"`
	Aliases      []string   `json:"aliases"`
	DNS          runtimeDNS `json:"dns"`
	Bandwidth    Bandwidth  `json:"bandwidth"`
}

// Bandwidth is what a container may get and send: bits per second, and bits at once. Zero
// is no limit, and a burst of our choice.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// Port is a port of the host that leads into the container.
type Port struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// DNS is as in results.
type DNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

type runtimeDNS struct {
	Servers  []string `json:"servers"`
	Searches []string `json:"searches"`
	Options  []string `json:"options"`
}

// configure takes over what a configuration says.
func (c *Call) configure(conf config) error {
	for _, step := range []func(config) error{c.configureNetwork, c.configurePlace, c.configurePorts, c.configurePrev, c.configureGC} {
		if err := step(conf); err != nil {
			return err
		}
	}
	c.Aliases = conf.RuntimeConfig.Aliases
	c.configureDNS(conf)
	return nil
}

func (c *Call) configureNetwork(conf config) error {
	if !identifier.MatchString(conf.Name) {
		return failf(CodeConfig, "name %q is not an identifier: letters, digits, '_', '.' and '-', beginning with a letter or digit", conf.Name)
	}
	if conf.Runtime != "" && !identifier.MatchString(conf.Runtime) {
		return failf(CodeConfig, "runtime %q is not an identifier", conf.Runtime)
	}
	c.Config, c.Runtime, c.Network, c.Create = conf.Name, conf.Runtime, conf.Network, conf.Create
	if c.Network == "" {
		c.Network = conf.Name
	}
	return nil
}

func (c *Call) configurePlace(conf config) error {
	c.Interface, c.WayOut = c.IfName, conf.DefaultRoute
	if conf.Interface != "" {
		c.Interface = conf.Interface
		if err := checkInterface(CodeConfig, "interface", c.Interface); err != nil {
			return err
		}
	}
	c.Bandwidth = conf.RuntimeConfig.Bandwidth
	if err := c.wantIPs(CodeConfig, "runtimeConfig.ips", conf.RuntimeConfig.IPs); err != nil {
		return err
	}
	return c.wantMAC(CodeConfig, "runtimeConfig.mac", conf.RuntimeConfig.MAC)
}

// wantIPs reads addresses, with or without the length of a prefix: at most one for a
// family.
func (c *Call) wantIPs(code Code, what string, list []string) error {
	for _, s := range list {
		host, _, _ := strings.Cut(strings.TrimSpace(s), "/")
		a, err := netip.ParseAddr(host)
		if err != nil || a.Zone() != "" {
			return failf(code, "%s: %q is not an address", what, s)
		}
		if slices.ContainsFunc(c.IPs, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			return failf(code, "%s: more than one address of a family", what)
		}
		c.IPs = append(c.IPs, a.Unmap())
	}
	return nil
}

func (c *Call) wantMAC(code Code, what, s string) (err error) {
	if s == "" {
		return nil
	}
	if c.MAC, err = net.ParseMAC(s); err != nil {
		return failf(code, "%s: %w", what, err)
	}
	return nil
}

// configurePorts leaves out ports without a port of the host, as others do.
func (c *Call) configurePorts(conf config) error {
	for _, p := range conf.RuntimeConfig.PortMappings {
		p.Protocol = strings.ToLower(p.Protocol)
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		if p.HostPort < 0 || p.HostPort > 65535 || p.ContainerPort < 1 || p.ContainerPort > 65535 {
			return failf(CodeConfig, "runtimeConfig.portMappings: ports %d and %d must be from 1 to 65535", p.HostPort, p.ContainerPort)
		}
		if !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Protocol) {
			return failf(CodeConfig, "runtimeConfig.portMappings: protocol %q is not tcp, udp or sctp", p.Protocol)
		}
		if _, err := netip.ParseAddr(p.HostIP); p.HostIP != "" && err != nil {
			return failf(CodeConfig, "runtimeConfig.portMappings: hostIP %q is not an address", p.HostIP)
		}
		if p.HostPort != 0 {
			c.Ports = append(c.Ports, p)
		}
	}
	return nil
}

// configureDNS: what the runtime says goes before what the configuration does.
func (c *Call) configureDNS(conf config) {
	c.DNS = conf.DNS
	for dst, src := range map[*[]string][]string{
		&c.DNS.Nameservers: conf.RuntimeConfig.DNS.Servers, &c.DNS.Search: conf.RuntimeConfig.DNS.Searches, &c.DNS.Options: conf.RuntimeConfig.DNS.Options,
	} {
		if len(src) > 0 {
			*dst = src
		}
	}
}

func (c *Call) configurePrev(conf config) (err error) {
	if len(conf.PrevResult) == 0 || string(conf.PrevResult) == "null" {
		if c.Command == Check {
			return failf(CodeConfig, "CHECK needs prevResult")
		}
		return nil
	}
	c.Prev, err = parseResult(conf.PrevResult)
	return err
}

// configureGC: a list that is missing is not an empty one, which removes all. Null is
// how libcni writes that.
func (c *Call) configureGC(conf config) error {
	if c.Command != GC {
		return nil
	}
	if conf.Valid == nil {
		return failf(CodeConfig, "GC needs cni.dev/valid-attachments")
	}
	if err := json.Unmarshal(conf.Valid, &c.Valid); err != nil {
		return failf(CodeDecode, "cni.dev/valid-attachments: %w", err)
	}
	return nil
}
