// Package exposure lists what of the containers can be reached from outside of the
// host, as it is and not as it was asked for: each published port is tried, in
// thought, on each address of each interface, against the packet filters of others.
// It is pure.
//
//	for _, e := range exposure.List(host, networks, containers) { … }
//
// It says nothing of what is behind a reachable port, of firewalls that are not on
// this host, or of packets that come by the host's own interfaces for containers.
package exposure

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"isle/internal/netspec"
	"isle/internal/ruleset"
)

// Exposed is a port, or Count of them in a row, on one address of the host, or of
// a container.
type Exposed struct {
	Proto     string
	Address   string
	Port      uint16 // 0: every port
	Count     uint16
	Interface string // that it is reached by
	Container string
	Network   string
	Target    string // where it leads: the container's address and port
	From      string // who may
	By        string // what opens it: "published", "relayed", "direct", "host network"
	Verdict   string
	Reason    string // what decides
}

// Verdicts.
const (
	Reachable = "reachable"
	Blocked   = "blocked"
	Uncertain = "uncertain" // a rule that is not understood decides
)

// Interface is one of the host's.
type Interface struct {
	Name     string
	MTU      int
	Up       bool
	Loopback bool
	Ours     bool // a bridge or a veth of ours
	Addrs    []netip.Prefix
}

// Host is the machine.
type Host struct {
	Interfaces []Interface
	Rules      *ruleset.Ruleset // of others
	Forward4   bool             // the host forwards packets
	Forward6   bool
}

// Network is what a network is planned to be.
type Network struct {
	Name  string
	State netspec.State
}

// Container is what a container is planned to be.
type Container struct {
	Name     string
	State    netspec.State
	Relayed  []Relay
	HostMode bool             // it has the host's network
	Lost     []netspec.Object // of State: what is inside of its namespace and is not as planned
}

// Has reports whether o is planned in the container's namespace, or leads there.
func (c Container) Has(o netspec.Object) bool {
	if o == nil {
		return false
	}
	l, _ := o.(netspec.Link)
	return c.State[o.Key()] == o && (o.Key().NS != "" || l.PeerNS != "")
}

// Relay is a port that a socket of isled takes and passes on.
type Relay struct {
	netspec.Publish
	From []netip.Prefix // who may; empty: everybody
}

// List is what is exposed, by container, port and address.
func List(h Host, networks []Network, containers []Container) []Exposed {
	l := lister{h: h}
	for _, n := range networks {
		l.learn(n)
	}
	for _, c := range containers {
		l.container(c)
	}
	slices.SortFunc(l.out, func(a, b Exposed) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.By, b.By), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Address, b.Address), cmp.Compare(a.From, b.From))
	})
	return l.out
}

// segment is a part of a network.
type segment struct {
	netspec.Segment
	network string
}

type lister struct {
	h         Host
	segments  []segment
	entrances []netspec.Entrance
	out       []Exposed
}

func (l *lister) learn(n Network) {
	for _, o := range n.State {
		switch o := o.(type) {
		case netspec.Segment:
			if !o.Leaf { // nothing is routed to a leaf
				l.segments = append(l.segments, segment{o, n.Name})
			}
		case netspec.Entrance:
			l.entrances = append(l.entrances, o)
		}
	}
}

// at is the segment that an address is in; the zero value: none.
func (l *lister) at(a netip.Addr) segment {
	for _, s := range l.segments {
		if s.Subnet.Contains(a) {
			return s
		}
	}
	return segment{}
}

func (l *lister) container(c Container) {
	if c.HostMode {
		l.out = append(l.out, Exposed{
			Proto: "any", Container: c.Name, Network: "host", By: "host network", Verdict: Reachable,
			Reason: "every socket that it listens on is one of the host's",
		})
	}
	allowed := allows(c.State)
	for _, o := range c.State {
		switch o := o.(type) {
		case netspec.Publish:
			l.published(c, o, allowed[gate{o.Proto, o.Iface, o.HostIP, o.HostPort}], "published")
		case netspec.Open:
			l.open(c, o)
		case netspec.Addr:
			l.direct(c, o)
		}
	}
	for _, p := range c.Relayed {
		l.published(c, p.Publish, p.From, "relayed")
	}
}

// gate is a published port, without where it leads: what Allows are for.
type gate struct {
	proto, iface string
	ip           netip.Addr
	port         uint16
}

func allows(s netspec.State) map[gate][]netip.Prefix {
	out := map[gate][]netip.Prefix{}
	for _, o := range s {
		if a, ok := o.(netspec.Allow); ok {
			g := gate{a.Proto, a.Iface, a.HostIP, a.HostPort}
			out[g] = append(out[g], a.From)
		}
	}
	for _, ps := range out {
		slices.SortFunc(ps, func(a, b netip.Prefix) int { return cmp.Compare(a.String(), b.String()) })
	}
	return out
}

// outside are the interfaces that others may come by.
func (h Host) outside() (out []Interface) {
	for _, i := range h.Interfaces {
		if i.Up && !i.Loopback && !i.Ours {
			out = append(out, i)
		}
	}
	return out
}

func (l *lister) published(c Container, p netspec.Publish, from []netip.Prefix, by string) {
	if p.HostIP.IsLoopback() {
		return
	}
	seg := l.at(p.To)
	cut := c.cut(p.To, by == "relayed") // a relay asks from the container's own network
	p.Link = cmp.Or(seg.Link, p.Link)   // packets are routed to the network's first bridge, whichever the container is behind
	for _, i := range l.h.outside() {
		for _, a := range i.Addrs {
			at := a.Addr()
			if !on(p, i.Name, at) {
				continue
			}
			try := attempt{l.h, i, a, p, by == "relayed"}
			e := Exposed{
				Proto: p.Proto, Address: at.String(), Interface: i.Name, Container: c.Name, Network: seg.network, By: by,
			}
			l.row(e, p, func(port uint16) (who, verdict, reason string) {
				who, verdict, reason = audience(from, at.Is4(), []netip.Prefix{a}, func(src netip.Addr) (string, string) { return unless(cut)(try.from(src, port)) })
				return cmp.Or(who, "anywhere"), verdict, reason
			})
		}
	}
}

// on reports whether a port is published on an address of an interface. A client
// at a link-local address cannot be answered, so those publish nothing.
func on(p netspec.Publish, iface string, at netip.Addr) bool {
	if at.Is4() != p.HostIP.Is4() || at.IsLinkLocalUnicast() && at.Is6() || at.IsLoopback() {
		return false
	}
	if p.Iface != "" {
		return p.Iface == iface
	}
	return p.HostIP.IsUnspecified() || p.HostIP == at
}

// row adds the ports of a row, those together that end alike.
func (l *lister) row(e Exposed, p netspec.Publish, try func(uint16) (who, verdict, reason string)) {
	first := len(l.out)
	for n := range max(p.Count, 1) {
		e.From, e.Verdict, e.Reason = try(p.HostPort + n)
		if last := len(l.out) - 1; last >= first && l.out[last].From == e.From && l.out[last].Verdict == e.Verdict && l.out[last].Reason == e.Reason {
			l.out[last].Count++
			continue
		}
		e.Port, e.Count = p.HostPort+n, 1
		e.Target = netip.AddrPortFrom(p.To, p.ToPort+n).String()
		l.out = append(l.out, e)
	}
}

// attempt is somebody who comes by an interface to an address.
type attempt struct {
	h     Host
	by    Interface
	at    netip.Prefix
	p     netspec.Publish
	relay bool
}

func (t attempt) from(src netip.Addr, port uint16) (verdict, reason string) {
	at := netip.AddrPortFrom(t.at.Addr(), port)
	p := ruleset.Packet{In: t.by.Name, Src: src, Dst: at.Addr(), Proto: t.p.Proto, SrcPort: clientPort, DstPort: port, Local: true}
	if t.relay {
		return t.h.judge(p, ruleset.Prerouting, ruleset.Input)
	}
	if verdict, reason = t.h.judge(p, ruleset.Prerouting); verdict != Reachable {
		return verdict, reason
	}
	p.Out, p.Dst, p.DstPort, p.DNAT, p.Local = t.p.Link, t.p.To, t.p.ToPort+(port-t.p.HostPort), at, false
	return t.h.Forwarded(p)
}

const clientPort = 49152

// Forwarded is what becomes of a packet that the host is to pass on.
func (h Host) Forwarded(p ruleset.Packet) (verdict, reason string) {
	if p.Dst.Is4() && !h.Forward4 {
		return Blocked, "the host forwards no packets (net.ipv4.ip_forward is 0)"
	}
	if p.Dst.Is6() && !h.Forward6 {
		return Blocked, "the host forwards no packets (net.ipv6.conf.all.forwarding is 0)"
	}
	return h.judge(p, ruleset.Forward)
}

func (h Host) judge(p ruleset.Packet, hooks ...ruleset.Hook) (verdict, reason string) {
	if h.Rules == nil {
		return Reachable, ""
	}
	for _, hook := range hooks {
		out := h.Rules.Pass(hook, p)
		switch {
		case out.Drop:
			return Blocked, out.By.String()
		case out.Redirect && hook == ruleset.Prerouting:
			return Blocked, "sent elsewhere by " + out.By.String()
		case out.Unsure:
			return Uncertain, out.By.String()
		}
	}
	return Reachable, ""
}

// unless makes what is reachable blocked where something cuts it off.
func unless(cut string) func(verdict, reason string) (string, string) {
	return func(verdict, reason string) (string, string) {
		if cut == "" || verdict == Blocked {
			return verdict, reason
		}
		return Blocked, cut
	}
}

// open is a port of a container's own address that a grant, or an entrance, lets
// others come to.
func (l *lister) open(c Container, o netspec.Open) {
	for _, i := range l.h.outside() {
		if l.grants(o.Link, o.To, i.Name, netspec.AccessOpen) {
			l.own(c, i, o)
		}
	}
}

// direct is a container whose every port others may come to.
func (l *lister) direct(c Container, a netspec.Addr) {
	for _, s := range l.segments {
		if s.Access != netspec.AccessDirect || !s.Subnet.Contains(a.Prefix.Addr()) {
			continue
		}
		for _, i := range l.h.outside() {
			l.own(c, i, netspec.Open{Link: s.Link, To: a.Prefix.Addr(), Proto: "any"})
		}
	}
}

// grants reports whether those who come by an interface get to an address's open
// ports.
func (l *lister) grants(link string, to netip.Addr, by string, access netspec.Access) bool {
	return slices.ContainsFunc(l.segments, func(s segment) bool {
		return s.Link == link && s.Subnet.Contains(to) && s.Access == access
	}) || slices.ContainsFunc(l.entrances, func(e netspec.Entrance) bool {
		return e.Link == link && e.Subnet.Contains(to) && e.From == by
	})
}

// own is a port of a container's own address, or every one, to who comes by an
// interface.
func (l *lister) own(c Container, i Interface, o netspec.Open) {
	p := ruleset.Packet{In: i.Name, Out: o.Link, Dst: o.To, Proto: o.Proto, SrcPort: clientPort, DstPort: o.Port}
	target := netip.AddrPortFrom(o.To, o.Port).String()
	if o.Proto == "any" {
		p.Proto, p.DstPort, target = "tcp", clientPort, fmt.Sprintf("%s, every port", o.To)
	}
	var from []netip.Prefix
	if o.From.IsValid() {
		from = []netip.Prefix{o.From}
	}
	who, verdict, reason := audience(from, o.To.Is4(), i.of(o.To.Is4()), func(src netip.Addr) (string, string) {
		p.Src = src
		if verdict, reason := l.h.judge(p, ruleset.Prerouting); verdict != Reachable {
			return verdict, reason
		}
		return unless(c.cut(o.To, false))(l.h.Forwarded(p))
	})
	l.out = append(l.out, Exposed{
		Proto: o.Proto, Address: o.To.String(), Port: o.Port, Count: o.Count, Interface: i.Name, Container: c.Name, Network: l.at(o.To).network,
		Target: target, From: cmp.Or(who, "whoever has a route to it"), By: "direct", Verdict: verdict, Reason: reason,
	})
}

// of are the addresses of a family.
func (i Interface) of(v4 bool) (out []netip.Prefix) {
	for _, a := range i.Addrs {
		if a.Addr().Is4() == v4 && !a.Addr().IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	return out
}
