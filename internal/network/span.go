package network

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network/pulse"
)

// Span is where in the cluster a network is.
type Span struct {
	VNI       uint32
	Here      bool // containers of this host are on it
	Removed   bool // gone in the cluster; it stays here until the last of them is gone
	Known     bool // the cluster was heard of; otherwise the rest is not complete
	Revision  int64
	Hosts     []SpanHost     // with containers on it, by name
	Endpoints []SpanEndpoint // by host and container
}

// SpanHost is a host that has containers on a network.
type SpanHost struct {
	ID, Name   string
	Addr       netip.Addr
	Containers int
	Self       bool
	Contact    pulse.Contact // not with this host itself
	Way        string        // WayDirect or WayTunnel; "": this host, or the network is not here
}

// SpanEndpoint is a container on a network.
type SpanEndpoint struct {
	Endpoint, Container, Host string
	Addrs                     []netip.Prefix
	MAC                       netspec.MAC
}

// Span says where a network of the cluster is. It is zero for one of this host.
func (m *Manager) Span(ctx context.Context, ref string) (Span, error) {
	n, err := m.Find(ctx, ref)
	if err != nil || !n.Global() || m.Fabric == nil {
		return Span{}, err
	}
	v := m.Fabric.View()
	s := Span{VNI: v.Networks[n.ID].VNI, Here: !n.Idle, Removed: n.Removed, Known: v.Known, Revision: v.Revision}
	containers := map[string]int{}
	for _, e := range v.Endpoints {
		if e.Network == n.ID {
			containers[e.Host]++
			s.Endpoints = append(s.Endpoints, SpanEndpoint{e.ID, e.Container, hostName(v, e.Host), e.Addrs, macOf(e)})
		}
	}
	for id, count := range containers {
		h := SpanHost{ID: id, Name: hostName(v, id), Addr: v.Hosts[id].Addr, Containers: count, Self: id == v.Self}
		if !h.Self && s.Here {
			h.Way = m.wayTo(n, id)
		}
		h.Contact = m.contact(n, id)
		s.Hosts = append(s.Hosts, h)
	}
	slices.SortFunc(s.Hosts, func(a, b SpanHost) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Endpoints, func(a, b SpanEndpoint) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return s, nil
}

// farNames are the endpoints of the cluster, where n is one of its networks.
func (m *Manager) farNames(n Network) map[string]fabric.Endpoint {
	if !n.Global() || m.Fabric == nil {
		return nil
	}
	return m.Fabric.View().Endpoints
}

func hostName(v fabric.View, id string) string { return cmp.Or(v.Hosts[id].Name, id) }
