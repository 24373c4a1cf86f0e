package rtnl

import (
	"net/netip"
	"slices"

	"isle/internal/netspec"
)

// View is one namespace's links by number, and what of it is ours.
type View struct {
	Links  map[int32]Info
	Addrs  []AddrInfo
	Routes []RouteInfo    // of the main table, and of those that our rules lead to
	Rules  []netspec.Rule // ours; NS is not filled in
	Neighs []NeighInfo    // ours, where there are links of a LAN or tunnels
}

// Read takes a view of the namespace.
func (c *Conn) Read() (View, error) {
	links, err := c.Links(false)
	if err != nil {
		return View{}, err
	}
	v := View{Links: make(map[int32]Info, len(links))}
	for _, l := range links {
		v.Links[l.Index] = l
	}
	if v.Addrs, err = c.Addrs(); err != nil {
		return View{}, err
	}
	if v.Routes, err = c.Routes(0); err != nil {
		return View{}, err
	}
	if slices.ContainsFunc(links, func(l Info) bool { return l.OnLAN() || l.Kind == netspec.KindVXLAN }) {
		if v.Neighs, err = c.Neighs(); err != nil {
			return View{}, err
		}
	}
	return v, c.readRules(&v)
}

func (c *Conn) readRules(v *View) (err error) {
	if v.Rules, err = c.Rules(); err != nil {
		return err
	}
	seen := map[int]bool{}
	for _, r := range v.Rules {
		if seen[r.Table] {
			continue
		}
		seen[r.Table] = true
		more, err := c.Routes(r.Table)
		if err != nil {
			return err
		}
		v.Routes = append(v.Routes, more...)
	}
	return nil
}

// Own is the first address of a family on a link that others can reach: not one of the
// link alone. Of several it is the kernel's own first.
func (v View) Own(index int32, v4 bool) netip.Addr {
	for _, a := range v.Addrs {
		if ip := a.Prefix.Addr(); a.Index == index && ip.Is4() == v4 && !ip.IsLinkLocalUnicast() {
			return ip
		}
	}
	return netip.Addr{}
}

// Names are those of links, by number.
func Names(links []Info) map[int32]string {
	out := make(map[int32]string, len(links))
	for _, l := range links {
		out[l.Index] = l.Name
	}
	return out
}

// Of is the view without the addresses and routes of links that are not ours:
// another isled on this machine writes the same protocol number to its
// own, and they are not ours to remove.
func (v View) Of(ours func(Info) bool) View {
	not := func(index int32) bool { return !ours(v.Links[index]) }
	v.Addrs = slices.DeleteFunc(slices.Clone(v.Addrs), func(a AddrInfo) bool { return not(a.Index) })
	v.Neighs = slices.DeleteFunc(slices.Clone(v.Neighs), func(n NeighInfo) bool { return not(n.Index) })
	v.Rules = nil // they belong to no link, and we make none beside those of others
	v.Routes = slices.DeleteFunc(slices.Clone(v.Routes), func(r RouteInfo) bool { return not(r.Index) })
	return v
}

// Objects are our addresses, neighbours, rules and routes in the view.
func (v View) Objects(s netspec.State, ns netspec.NS) {
	for _, a := range v.Addrs {
		if a.Proto == Proto {
			s.Add(netspec.Addr{NS: ns, Link: v.Links[a.Index].Name, Prefix: a.Prefix, Cut: v.cut(a)})
		}
	}
	for _, n := range v.Neighs {
		s.Add(netspec.Neigh{NS: ns, Link: v.Links[n.Index].Name, Addr: n.Addr, MAC: n.MAC})
	}
	for _, r := range v.Rules {
		r.NS = ns
		s.Add(r)
	}
	for _, r := range v.Routes {
		if r.Proto == Proto {
			o := netspec.Route{NS: ns, Dst: r.Dst, Via: r.Via, Dev: v.Links[r.Index].Name, Src: r.Src, Metric: r.Metric, Table: r.Table, OnLink: r.OnLink}
			s[o.Key()] = o // two of one destination differ in metric: the last one stands for both
		}
	}
}

// cut reports whether the route that the kernel makes with an address is gone.
func (v View) cut(a AddrInfo) bool {
	return !a.Prefix.IsSingleIP() && v.Links[a.Index].Up && !slices.ContainsFunc(v.Routes, func(r RouteInfo) bool {
		return r.Index == a.Index && r.Dst == a.Prefix.Masked() && r.Table == 0
	})
}

// Object is a link as an object; peers are the views of the namespaces by the
// number that this one knows them by. up reports whether both its ends are, as far
// as they can be seen.
func (v View) Object(l Info, ns netspec.NS, peers map[int32]Peer) (o netspec.Link, up bool) {
	up = l.Up
	o = netspec.Link{
		NS: ns, Name: l.Name, Kind: l.Kind, MTU: int(l.MTU), MAC: l.MAC,
		Master: v.Links[l.Master].Name, Isolated: l.Isolated, Hairpin: l.Hairpin,
	}
	p, ok := peers[l.PeerNS]
	if l.PeerNS < 0 { // both ends are here
		p, ok = Peer{ns, v}, v.Links[l.Peer].Up
	}
	if ok && l.Kind == netspec.Veth {
		end := p.View.Links[l.Peer]
		up = up && end.Up
		o.PeerNS, o.Peer, o.PeerMAC = p.NS, end.Name, end.MAC
		o.PeerMaster, o.PeerIsolated = p.View.Links[end.Master].Name, end.Isolated
	}
	return o, up
}

// Peer is another namespace in which peers of veths may be.
type Peer struct {
	NS   netspec.NS
	View View
}
