package publish

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// Spec is a port as people write it, with what Docker's bindings have no place
// for:
//
//	[ADDRESS:|if=INTERFACE:][HOST]:CONTAINER[/PROTO][;from=PREFIX,…]
//	CONTAINER[/PROTO]
//
// HOST and CONTAINER are a port, or ranges of equal length. Without HOST any port
// that is free is taken; an IPv6 address stands in brackets.
type Spec struct {
	Proto         string
	HostIP        netip.Addr // invalid: none was named
	Iface         string
	HostPort      uint16 // 0: any
	Count         uint16 // at least 1
	ContainerPort uint16
	From          string
}

// ParseSpec reads a Spec.
func ParseSpec(text string) (Spec, error) {
	s, err := parseSpec(strings.TrimSpace(text))
	if err != nil {
		return s, fmt.Errorf("invalid port %q: %w", text, invalid(err))
	}
	return s, nil
}

// invalid gives err its class, once.
func invalid(err error) error {
	if errdefs.IsInvalidArgument(err) {
		return err
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
}

// ParseSpecs reads specs that stand in lines, or are separated by blanks.
func ParseSpecs(text string) ([]Spec, error) {
	var out []Spec
	for _, f := range strings.Fields(text) {
		s, err := ParseSpec(f)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func parseSpec(text string) (s Spec, err error) {
	text, from, limited := strings.Cut(text, ";")
	if limited {
		list, ok := strings.CutPrefix(from, "from=")
		if s.From, err = Sources(list); err != nil {
			return s, err
		}
		if !ok || s.From == "" {
			return s, fmt.Errorf("what follows ';' must be from=PREFIX[,PREFIX…]")
		}
	}
	side, text, err := cutSide(text)
	if err != nil {
		return s, err
	}
	s.HostIP, s.Iface = side.ip, side.iface
	host, ctr, both := strings.Cut(text, ":")
	if !both {
		host, ctr = "", text
		if side != (hostSide{}) {
			return s, fmt.Errorf("a container port must follow")
		}
	}
	return s.ports(host, ctr)
}

// hostSide is the address or interface before a spec's ports.
type hostSide struct {
	ip    netip.Addr
	iface string
}

// ifname is what the kernel allows, less what cannot be written in a spec.
var ifname = regexp.MustCompile(`^[^\s[:cntrl:]:;,/]+$`)

// checkIface is about names of interfaces, which may not be there yet.
func checkIface(name string) error {
	if !ifname.MatchString(name) || len(name) > 15 || name == "lo" || name == "." || name == ".." {
		return fmt.Errorf("%q cannot be published on: it must be the name of an interface other than lo", name)
	}
	return nil
}

func cutSide(text string) (hostSide, string, error) {
	if rest, ok := strings.CutPrefix(text, "if="); ok {
		name, rest, _ := strings.Cut(rest, ":")
		return hostSide{iface: name}, rest, checkIface(name)
	}
	if rest, ok := strings.CutPrefix(text, "["); ok {
		addr, rest, _ := strings.Cut(rest, "]:")
		ip, err := address(addr)
		return hostSide{ip: ip}, rest, err
	}
	if strings.Count(text, ":") == 2 {
		addr, rest, _ := strings.Cut(text, ":")
		ip, err := address(addr)
		return hostSide{ip: ip}, rest, err
	}
	return hostSide{}, text, nil
}

func address(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return ip, fmt.Errorf("%q is no address", s)
	}
	return ip.Unmap(), nil
}

func (s Spec) ports(host, ctr string) (Spec, error) {
	c, err := network.ParsePortRange(ctr)
	if err != nil || c.Start() == 0 {
		return s, fmt.Errorf("%q is no container port", ctr)
	}
	s.Proto, s.ContainerPort, s.Count = string(c.Proto()), c.Start(), c.End()-c.Start()+1
	if err := checkPort(s.Proto, s.ContainerPort); err != nil {
		return s, err
	}
	first, last, err := hostPorts(host)
	switch {
	case err != nil:
		return s, err
	case first != 0 && last-first+1 != s.Count:
		return s, fmt.Errorf("the ranges of host and container differ in length")
	case first == 0 && s.Count > 1:
		return s, fmt.Errorf("a range of container ports needs a range of host ports")
	}
	s.HostPort = first
	return s, nil
}

// String is s as ParseSpec reads it.
func (s Spec) String() string {
	var b strings.Builder
	switch {
	case s.Iface != "":
		b.WriteString("if=" + s.Iface + ":")
	case s.HostIP.Is6():
		b.WriteString("[" + s.HostIP.String() + "]:")
	case s.HostIP.IsValid():
		b.WriteString(s.HostIP.String() + ":")
	}
	if s.HostPort != 0 {
		b.WriteString(portRange(s.HostPort, s.Count))
	}
	fmt.Fprintf(&b, ":%s/%s", portRange(s.ContainerPort, s.Count), s.Proto)
	if s.From != "" {
		b.WriteString(";from=" + s.From)
	}
	return b.String()
}

func portRange(first, count uint16) string {
	if count > 1 {
		return fmt.Sprintf("%d-%d", first, first+count-1)
	}
	return fmt.Sprint(first)
}

// Plain reports whether Docker's bindings can say all of s.
func (s Spec) Plain() bool { return s.Iface == "" && s.From == "" }

func (s Spec) request(d Defaults) Request {
	if s.Iface != "" {
		d.HostIP = netip.Addr{}
	}
	return Request{
		Proto: s.Proto, ContainerPort: s.ContainerPort, HostIPs: d.hostIPs(s.HostIP), First: s.HostPort, Last: s.HostPort,
		Count: cmp.Or(s.Count, 1), Iface: s.Iface, From: s.From,
	}
}

// Selector is published ports as people name them: "8443", "8443/udp",
// "127.0.0.1:8443", "if=eth0:8443", "8000-8010".
type Selector struct {
	Proto       string
	HostIP      netip.Addr // invalid: on every address
	Iface       string     // with neither, on every interface too
	First, Last uint16
}

// ParseSelector reads a Selector.
func ParseSelector(text string) (Selector, error) {
	side, rest := hostSide{}, text
	var err error
	if strings.Contains(text, ":") {
		// One colon: what cutSide takes for "HOST:CONTAINER" without an address.
		side, rest, err = cutSide(text)
		if addr, port, ok := strings.Cut(rest, ":"); err == nil && ok {
			side.ip, err = address(addr)
			rest = port
		}
	}
	r, perr := network.ParsePortRange(rest)
	if err != nil || perr != nil || r.Start() == 0 {
		return Selector{}, fmt.Errorf("invalid published port %q: it must be [ADDRESS:|if=INTERFACE:]PORT[/PROTO]: %w", text, errdefs.ErrInvalidArgument)
	}
	return Selector{string(r.Proto()), side.ip, side.iface, r.Start(), r.End()}, nil
}

// Select is what of ms is selected.
func (s Selector) Select(ms []Mapping) []Mapping {
	var out []Mapping
	for _, m := range ms {
		first, last, ok := m.overlap(s.First, s.Last)
		if ok && s.on(m) {
			out = append(out, m.part(first, last))
		}
	}
	return out
}

// Missing is the error for a container of whose ports s selects none. It names
// those that have the number, as they are selected.
func (s Selector) Missing(name string, ms []Mapping) error {
	var near []string
	for _, m := range ms {
		if first, last, ok := m.overlap(s.First, s.Last); ok {
			near = append(near, Selector{m.Proto, m.HostIP, m.Iface, first, last}.String())
		}
	}
	hint := ""
	if len(near) > 0 {
		slices.Sort(near)
		hint = fmt.Sprintf(" (hint: it publishes %s)", strings.Join(slices.Compact(near), ", "))
	}
	return fmt.Errorf("container %s does not publish %s%s: %w", name, s, hint, errdefs.ErrNotFound)
}

func (s Selector) on(m Mapping) bool {
	switch {
	case m.Proto != s.Proto, s.Iface != "" && m.Iface != s.Iface:
		return false
	case s.HostIP.IsValid():
		return m.Iface == "" && m.HostIP == s.HostIP
	}
	return true
}

// String is s as ParseSelector reads it.
func (s Selector) String() string {
	side := ""
	switch {
	case s.Iface != "":
		side = "if=" + s.Iface + ":"
	case s.HostIP.Is6():
		side = "[" + s.HostIP.String() + "]:"
	case s.HostIP.IsValid():
		side = s.HostIP.String() + ":"
	}
	return fmt.Sprintf("%s%s/%s", side, portRange(s.First, s.Last-s.First+1), s.Proto)
}
