package publish

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// Request is one binding as it was asked for, or Count of them in a row.
type Request struct {
	Proto         string
	ContainerPort uint16
	HostIPs       []netip.Addr // the same host port on each
	First, Last   uint16       // host ports to choose from; 0: any that is free
	Count         uint16       // with more than 1, First is the first of them and there is no choice
	Iface         string
	From          string
	// Direct4 and Direct6: ports of the family are open at the container's own
	// address only, so none of the host is taken.
	Direct4, Direct6 bool
}

// Defaults are what a binding gets that names no address.
type Defaults struct {
	HostIP netip.Addr // invalid: every address of both families
	IPv6   bool       // the host has IPv6
}

// Parse reads bindings and specs, in an order that does not depend on the map's.
// A port without bindings is not published.
func Parse(ports network.PortMap, specs []Spec, d Defaults) ([]Request, error) {
	var reqs []Request
	for _, port := range slices.SortedFunc(maps.Keys(ports), comparePorts) {
		proto := string(port.Proto())
		if err := checkPort(proto, port.Num()); err != nil {
			return nil, fmt.Errorf("invalid port %s: %w", port, invalid(err))
		}
		for _, b := range ports[port] {
			if zone := b.HostIP.Zone(); zone != "" {
				return nil, fmt.Errorf("port %s: invalid host address %s: an interface is not part of it (hint: if=%s:%s:%d publishes on an interface): %w",
					port, b.HostIP, zone, b.HostPort, port.Num(), errdefs.ErrInvalidArgument)
			}
			r := Request{Proto: proto, ContainerPort: port.Num(), HostIPs: d.hostIPs(b.HostIP), Count: 1}
			var err error
			if r.First, r.Last, err = hostPorts(b.HostPort); err != nil {
				return nil, fmt.Errorf("port %s: %w", port, err)
			}
			reqs = append(reqs, r)
		}
	}
	for _, s := range specs {
		reqs = append(reqs, s.request(d))
	}
	for _, r := range reqs {
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	// A fixed port must not be taken by one that could have been any other.
	slices.SortStableFunc(reqs, func(a, b Request) int { return cmp.Or(cmp.Compare(a.choices(), b.choices()), a.compare(b)) })
	return rows(reqs), nil
}

// compare puts fixed requests that follow each other next to each other.
func (r Request) compare(n Request) int {
	if !r.fixed() {
		return 0
	}
	return cmp.Or(cmp.Compare(r.Proto, n.Proto), cmp.Compare(r.Iface, n.Iface), cmp.Compare(r.From, n.From),
		slices.CompareFunc(r.HostIPs, n.HostIPs, netip.Addr.Compare), cmp.Compare(r.First, n.First))
}

func checkPort(proto string, port uint16) error {
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return errors.New("its protocol must be tcp, udp or sctp")
	}
	if port == 0 {
		return errors.New("a container has no port 0")
	}
	return nil
}

// check refuses what could be recorded but would lead nowhere.
func (r Request) check() error {
	if i := slices.IndexFunc(r.HostIPs, netip.Addr.IsMulticast); i >= 0 {
		return fmt.Errorf("port %d/%s cannot be published on %s: it is a group's address, not the host's: %w", r.ContainerPort, r.Proto, r.HostIPs[i], errdefs.ErrInvalidArgument)
	}
	if r.Proto == "sctp" && slices.ContainsFunc(r.HostIPs, netip.Addr.IsLoopback) {
		return fmt.Errorf("port %d/sctp cannot be published on %s: only TCP and UDP can on a loopback address: %w", r.ContainerPort, r.HostIPs[0], errdefs.ErrInvalidArgument)
	}
	return nil
}

func comparePorts(a, b network.Port) int {
	return cmp.Or(cmp.Compare(a.Proto(), b.Proto()), cmp.Compare(a.Num(), b.Num()))
}

// rows makes one request of fixed ones that follow each other: a range of ports
// comes as one binding for each. So it does of free ones that differ in their
// addresses only: they get the same port, for clients that try both.
func rows(reqs []Request) []Request {
	var out []Request
	for _, r := range reqs {
		switch n := len(out); {
		case n > 0 && out[n-1].continuedBy(r):
			out[n-1].Count += r.Count
		case n > 0 && out[n-1].besides(r):
			out[n-1].HostIPs = append(out[n-1].HostIPs, r.HostIPs...)
		default:
			out = append(out, r)
		}
	}
	return out
}

func (r Request) besides(n Request) bool {
	met := func(a netip.Addr) bool {
		return slices.ContainsFunc(r.HostIPs, func(b netip.Addr) bool { return collide(n.mapping(a, 0), r.mapping(b, 0)) })
	}
	return !r.fixed() && r.alike(n) && r.ContainerPort == n.ContainerPort && r.First == n.First && r.Last == n.Last && !slices.ContainsFunc(n.HostIPs, met)
}

// alike: r and n differ in ports and addresses only.
func (r Request) alike(n Request) bool {
	return r.Proto == n.Proto && r.Iface == n.Iface && r.From == n.From
}

func (r Request) continuedBy(n Request) bool {
	return r.fixed() && n.fixed() && r.alike(n) && slices.Equal(r.HostIPs, n.HostIPs) &&
		int(r.First)+int(r.Count) == int(n.First) && int(r.ContainerPort)+int(r.Count) == int(n.ContainerPort)
}

func (r Request) fixed() bool { return r.First != 0 && r.First == r.Last || r.Count > 1 }

func (r Request) choices() int {
	switch {
	case r.fixed():
		return 0
	case r.First == 0:
		return 1 << 16
	}
	return int(r.Last) - int(r.First)
}

// hostIPs are the addresses for a binding. "::" as a default is every address of
// IPv6 only, as with Docker.
func (d Defaults) hostIPs(asked netip.Addr) []netip.Addr {
	switch {
	case asked.IsValid():
		return []netip.Addr{asked.Unmap()}
	case d.HostIP.IsValid():
		return []netip.Addr{d.HostIP.Unmap()}
	case d.IPv6:
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

func (r Request) direct(ip netip.Addr) bool { return ip.Is4() && r.Direct4 || ip.Is6() && r.Direct6 }

// mapping is what r becomes on one address when port is its first.
func (r Request) mapping(ip netip.Addr, port uint16) Mapping {
	return Mapping{r.Proto, ip, r.Iface, port, max(r.Count, 1), r.ContainerPort, r.From}
}
