package publish

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// Mapping is one published port, or Count of them in a row, with nothing left
// to choose. It has the fields of network.Publish.
type Mapping struct {
	Proto         string
	HostIP        netip.Addr
	HostPort      uint16
	Count         uint16
	ContainerPort uint16
}

// Request is one binding as it was asked for.
type Request struct {
	Proto         string
	ContainerPort uint16
	HostIPs       []netip.Addr // the same host port on each
	First, Last   uint16       // host ports to choose from; 0: any that is free
}

// Defaults are what a binding gets that names no address.
type Defaults struct {
	HostIP netip.Addr // invalid: every address of both families
	IPv6   bool       // the host has IPv6
}

// Parse reads bindings, in an order that does not depend on the map's. A port
// without bindings is not published.
func Parse(ports network.PortMap, d Defaults) ([]Request, error) {
	var reqs []Request
	for _, port := range slices.SortedFunc(maps.Keys(ports), comparePorts) {
		proto := string(port.Proto())
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return nil, fmt.Errorf("invalid port %s: protocol must be tcp, udp or sctp: %w", port, errdefs.ErrInvalidArgument)
		}
		if port.Num() == 0 {
			return nil, fmt.Errorf("invalid container port 0: %w", errdefs.ErrInvalidArgument)
		}
		for _, b := range ports[port] {
			r := Request{Proto: proto, ContainerPort: port.Num(), HostIPs: d.hostIPs(b.HostIP)}
			var err error
			if r.First, r.Last, err = hostPorts(b.HostPort); err != nil {
				return nil, fmt.Errorf("port %s: %w", port, err)
			}
			reqs = append(reqs, r)
		}
	}
	// A fixed port must not be taken by one that could have been any other.
	slices.SortStableFunc(reqs, func(a, b Request) int { return cmp.Compare(a.choices(), b.choices()) })
	return reqs, nil
}

func comparePorts(a, b network.Port) int {
	return cmp.Or(cmp.Compare(a.Proto(), b.Proto()), cmp.Compare(a.Num(), b.Num()))
}

func (r Request) choices() int {
	if r.First == 0 {
		return 1 << 16
	}
	return int(r.Last) - int(r.First)
}

func (d Defaults) hostIPs(asked netip.Addr) []netip.Addr {
	switch {
	case asked.IsValid():
		return []netip.Addr{asked.Unmap()}
	case d.HostIP.IsValid() && !d.HostIP.IsUnspecified():
		return []netip.Addr{d.HostIP}
	case d.IPv6 && !(d.HostIP.IsValid() && d.HostIP.Is4()):
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified()}
}

// hostPorts reads "", "0", "8080" and "8000-8010".
func hostPorts(s string) (first, last uint16, err error) {
	if s == "" || s == "0" {
		return 0, 0, nil
	}
	r, err := network.ParsePortRange(s)
	if err != nil || r.Start() == 0 || strings.Contains(s, "/") {
		return 0, 0, fmt.Errorf("invalid host port %q: %w", s, errdefs.ErrInvalidArgument)
	}
	return r.Start(), r.End(), nil
}

// Join makes one mapping of those that follow each other.
func Join(ms []Mapping) []Mapping {
	slices.SortFunc(ms, compare)
	var out []Mapping
	for _, m := range ms {
		if n := len(out); n > 0 && out[n-1].continuedBy(m) {
			out[n-1].Count += m.Count
			continue
		}
		out = append(out, m)
	}
	return out
}

func (m Mapping) continuedBy(n Mapping) bool {
	return m.Proto == n.Proto && m.HostIP == n.HostIP && int(m.Count)+int(n.Count) < 1<<16 &&
		int(m.HostPort)+int(m.Count) == int(n.HostPort) && int(m.ContainerPort)+int(m.Count) == int(n.ContainerPort)
}

func compare(a, b Mapping) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
}

// Show is ms as "inspect" shows them.
func Show(ms []Mapping) network.PortMap {
	out := network.PortMap{}
	for _, m := range ms {
		for i := range m.Count {
			port, ok := network.PortFrom(m.ContainerPort+i, network.IPProtocol(m.Proto))
			if !ok {
				continue
			}
			out[port] = append(out[port], network.PortBinding{HostIP: m.HostIP, HostPort: fmt.Sprint(m.HostPort + i)})
		}
	}
	return out
}
