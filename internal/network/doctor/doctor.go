// Package doctor says what on this host keeps containers from being reached, or
// from reaching others: which rule of whom, which setting, which overlap, and what
// to do about it. It is pure: it is given facts and plans, and sends nothing.
//
//	for _, f := range doctor.Examine(host, networks, containers) { … }
//
// What a rule would do is asked of package ruleset. Where a rule is not understood
// nothing is found: a finding is something that is so.
package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isle/internal/netspec"
	"isle/internal/network/exposure"
	"isle/internal/ruleset"
)

// Finding is one thing that is wrong.
type Finding struct {
	Severity string
	Subject  string // "network app", "port 8080/tcp of container web", "this host"
	Problem  string // what does not work
	Cause    string // what it is due to
	Hint     string // what helps; where it is commands, they can be run as they are
}

// Severities.
const (
	Error   = "error"   // something that was asked for does not work
	Warning = "warning" // something may not work
)

// Host is the machine.
type Host struct {
	exposure.Host
	Way4, Way6     Way      // to far away
	Ways           []string // interfaces that default routes lead over
	Strict         []string // interfaces that drop what comes by another way than answers take (rp_filter 1)
	BridgeFilter   bool     // packets within a bridge go through the rules for what is forwarded too
	Flows, MostOf  int      // connections in conntrack, and how many there may be; 0: not known
	Resolvers      []netip.AddrPort
	Overlaps       map[string][]string // by network: what else uses its subnets
	Removed        map[string]Removed  // by network
	NeedForwarding bool                // there are networks
	Unheld         []Unheld
}

// Unheld is a published port, or several in a row, that isled does not hold against
// other programs.
type Unheld struct {
	Container   string
	Proto       string
	Port, Count uint16
	Err         error // why not
}

// Removed is a network that is gone in its cluster and that containers here are on.
type Removed struct {
	ID         string
	Containers []string
}

// Way is how packets leave.
type Way struct {
	Interface string // "": there is none
	MTU       int
}

// Examine finds what is wrong.
func Examine(h Host, networks []exposure.Network, containers []exposure.Container) []Finding {
	e := examination{h: h, containers: containers}
	e.host()
	e.forwarding(networks)
	for _, n := range networks {
		e.network(n)
	}
	for _, c := range containers {
		e.damage(c)
	}
	e.ports(networks)
	e.resolvers()
	e.found = append(e.found, e.stops.findings()...)
	slices.SortStableFunc(e.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Subject, b.Subject))
	})
	return e.found
}

type examination struct {
	h          Host
	containers []exposure.Container
	found      []Finding
	stops      stops
}

func (e *examination) add(severity, subject, problem, cause, hint string) {
	e.found = append(e.found, Finding{severity, subject, problem, cause, hint})
}

const thisHost = "this host"

// host is what concerns all networks.
func (e *examination) host() {
	e.conntrack()
	e.strict()
	e.unheld()
}

// forwarding of a family matters as soon as a network has it.
func (e *examination) forwarding(networks []exposure.Network) {
	problem := "containers reach nothing outside of their network, and published ports do not answer"
	if e.h.NeedForwarding && !e.h.Forward4 {
		e.add(Error, thisHost, problem, "somebody has switched off net.ipv4.ip_forward", "sysctl -w net.ipv4.ip_forward=1")
	}
	v6 := func(n exposure.Network) bool {
		return slices.ContainsFunc(segments(n), func(s netspec.Segment) bool { return s.Subnet.Addr().Is6() })
	}
	if !e.h.Forward6 && slices.ContainsFunc(networks, v6) {
		e.add(Error, thisHost, problem+", by IPv6", "somebody has switched off net.ipv6.conf.all.forwarding", "sysctl -w net.ipv6.conf.all.forwarding=1")
	}
}

func (e *examination) unheld() {
	for _, u := range e.h.Unheld {
		e.add(Warning, fmt.Sprintf("port %s/%s of container %s", rowWords(u.Port, u.Count), u.Proto, u.Container),
			"who asks for it may get an answer of another program", "isled could not take it when it started: "+u.Err.Error(),
			fmt.Sprintf("look who has it, and stop that: ss -anpH 'sport >= :%d and sport <= :%d'; isled goes on trying", u.Port, u.Port+max(u.Count, 1)-1))
	}
}

// nearlyFull is the share of conntrack's table from which it is worth a word.
const nearlyFull = 0.9

func (e *examination) conntrack() {
	h := e.h
	if h.MostOf == 0 || float64(h.Flows) < nearlyFull*float64(h.MostOf) {
		return
	}
	severity, problem := Warning, "new connections will soon be dropped"
	if h.Flows >= h.MostOf {
		severity, problem = Error, "new connections are dropped"
	}
	e.add(severity, thisHost, problem, fmt.Sprintf("the table of connections holds %d of at most %d", h.Flows, h.MostOf),
		fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*h.MostOf))
}

// strict matters where there is more than one way out: what comes in by the others
// from far away is dropped, though answers would find their way.
func (e *examination) strict() {
	if len(e.h.Ways) < 2 {
		return
	}
	for _, name := range e.h.Strict {
		if name != e.h.Way4.Interface && slices.Contains(e.h.Ways, name) {
			e.add(Warning, "interface "+name, "published ports do not answer to clients far away who come by it",
				fmt.Sprintf("packets from them are expected by %s only (net.ipv4.conf.%s.rp_filter is 1)", e.h.Way4.Interface, name),
				fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", name))
		}
	}
}

// network is what concerns one network.
func (e *examination) network(n exposure.Network) {
	subject := "network " + n.Name
	for _, by := range e.h.Overlaps[n.Name] {
		e.add(Warning, subject, "its containers do not reach some others who have the same addresses, or the host does not reach its containers",
			"its subnet overlaps with "+by, elsewhere(n.Name))
	}
	if r, ok := e.h.Removed[n.Name]; ok {
		e.removed(subject, r)
	}
	for _, o := range n.State {
		if l, ok := o.(netspec.Link); ok && l.Kind == netspec.Bridge {
			e.mtu(subject, l)
		}
	}
	for _, s := range segments(n) {
		if !s.Internal {
			e.egress(subject, s)
		}
		e.within(subject, s)
	}
	e.ownPorts(subject, n)
}

// elsewhere is how a network gets another subnet.
func elsewhere(name string) string {
	if name == "bridge" {
		return "set network.subnet in isled.toml to one that is free, stop the containers on the network, and start isled again"
	}
	return "remove the network and create it again with another --subnet: isle network rm " + name
}

// ownPorts are those that containers of a network publish: their neighbours do not
// get to them where a frame is translated inside of the bridge, whose ports are
// isolated from each other.
func (e *examination) ownPorts(subject string, n exposure.Network) {
	if !e.h.BridgeFilter || !slices.ContainsFunc(e.containers, func(c exposure.Container) bool { return isolated(c, n) }) {
		return
	}
	e.add(Warning, subject, "its containers do not reach ports that are published by containers of the same network",
		"enable_icc=false isolates them from each other, and because net.bridge.bridge-nf-call-iptables is 1 packets to a published port do not leave the bridge",
		"sysctl -w net.bridge.bridge-nf-call-iptables=0 && sysctl -w net.bridge.bridge-nf-call-ip6tables=0")
}

// removed is about what is left of a network, which goes with its last container.
func (e *examination) removed(subject string, r Removed) {
	var commands []string
	for _, c := range r.Containers {
		commands = append(commands, fmt.Sprintf("isle network disconnect %s %s", r.ID, c))
	}
	e.add(Warning, subject, "it was removed in the cluster: its containers here ("+strings.Join(r.Containers, ", ")+") reach no other host by it, and no more can be on it",
		"this host could not be reached when it was removed", strings.Join(commands, "; "))
}

// damage is what somebody did inside of a container's namespace.
func (e *examination) damage(c exposure.Container) {
	if words := c.Damage(); len(words) > 0 {
		e.add(Error, "container "+c.Name, "it may reach nobody, and not be reached", "inside of it somebody changed the network: "+strings.Join(words, "; "),
			"isled puts it right now; if it comes again, look for a program in the container that has NET_ADMIN")
	}
}

// isolated reports whether a container that publishes ports may not talk to the
// others of a network.
func isolated(c exposure.Container, n exposure.Network) bool {
	apart, publishes := false, false
	for _, o := range c.State {
		switch o := o.(type) {
		case netspec.Link:
			_, on := n.State[netspec.Link{Name: o.Master}.Key()]
			apart = apart || on && o.Isolated
		case netspec.Publish:
			_, on := n.State[netspec.Link{Name: o.Link}.Key()]
			publishes = publishes || on
		}
	}
	return apart && publishes
}

func segments(n exposure.Network) (out []netspec.Segment) {
	for _, o := range n.State {
		if s, ok := o.(netspec.Segment); ok && !s.Leaf {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b netspec.Segment) int { return cmp.Compare(a.Subnet.String(), b.Subnet.String()) })
	return out
}

func (e *examination) mtu(subject string, l netspec.Link) {
	if way := e.h.Way4; way.Interface != "" && l.MTU > way.MTU && way.MTU > 0 {
		e.add(Warning, subject, "large packets of its containers may vanish: connections begin and then hang",
			fmt.Sprintf("its MTU is %d, and that of the way out over %s is %d", l.MTU, way.Interface, way.MTU),
			"create the network with "+narrower(way.MTU)+", or without that option")
	}
}

// narrower are the options for an MTU: links of less than 1,280 bytes have no IPv6.
func narrower(mtu int) string {
	option := fmt.Sprintf("-o com.docker.network.driver.mtu=%d", mtu)
	if mtu < 1280 {
		return "--ipv6=false " + option
	}
	return option
}

var far = map[bool]netip.Addr{true: netip.MustParseAddr("198.41.0.4"), false: netip.MustParseAddr("2001:503:ba3e::2:30")}

const clientPort = 49152

// egress asks whether a container gets out.
func (e *examination) egress(subject string, s netspec.Segment) {
	v4 := s.Subnet.Addr().Is4()
	way := e.h.way(v4)
	if way.Interface == "" || e.h.Rules == nil {
		return
	}
	p := ruleset.Packet{In: s.Link, Out: way.Interface, Src: e.somebody(s.Subnet), Dst: far[v4], Proto: "tcp", SrcPort: clientPort, DstPort: 443}
	if by, dropped := e.stopped(p, ruleset.Prerouting, ruleset.Forward); dropped {
		e.stops.add(by.String(), effect{
			Error, subject, "containers of %s do not get out over " + way.Interface, subject, family(v4), advice(by, e.h.Rules, traffic{link: s.Link}),
		})
	}
}

func (h Host) way(v4 bool) Way {
	if v4 {
		return h.Way4
	}
	return h.Way6
}

func family(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

// stopped sends a packet through hooks.
func (e *examination) stopped(p ruleset.Packet, hooks ...ruleset.Hook) (ruleset.Place, bool) {
	for _, hook := range hooks {
		if out := e.h.Rules.Pass(hook, p); out.Drop {
			return out.By, true
		}
	}
	return ruleset.Place{}, false
}

// within asks whether containers of a network reach each other, where rules for what
// is forwarded are asked about that too. By itself that does no harm.
func (e *examination) within(subject string, s netspec.Segment) {
	if !e.h.BridgeFilter || e.h.Rules == nil {
		return
	}
	from := e.somebody(s.Subnet)
	p := ruleset.Packet{In: s.Link, Out: s.Link, Src: from, Dst: from.Next(), Proto: "tcp", SrcPort: clientPort, DstPort: 80}
	if by, dropped := e.stopped(p, ruleset.Forward); dropped {
		e.stops.add(by.String(), effect{
			Error, subject, "containers of %s do not reach each other, for net.bridge.bridge-nf-call-iptables is 1", subject, family(from.Is4()),
			advice(by, e.h.Rules, traffic{link: s.Link}),
		})
	}
}

// somebody is the address of a container in a subnet, or one that could be.
func (e *examination) somebody(subnet netip.Prefix) netip.Addr {
	var found []netip.Addr
	for _, c := range e.containers {
		for _, o := range c.State {
			if a, ok := o.(netspec.Addr); ok && subnet.Contains(a.Prefix.Addr()) {
				found = append(found, a.Prefix.Addr())
			}
		}
	}
	if len(found) > 0 {
		return slices.MinFunc(found, netip.Addr.Compare)
	}
	return subnet.Addr().Next().Next()
}

// ports are the published ports that nobody outside reaches by some interface.
func (e *examination) ports(networks []exposure.Network) {
	for _, x := range exposure.List(e.h.Host, networks, e.containers) {
		relayed := x.By == "relayed" // by a socket: nothing is forwarded
		forwards := map[bool]bool{false: e.h.Forward4, true: e.h.Forward6}[strings.Contains(x.Address, ":")]
		if x.Verdict != exposure.Blocked || !forwards && !relayed { // that has been said
			continue
		}
		t := traffic{link: bridgeOf(networks, x.Network)}
		if relayed {
			t.proto, t.port = x.Proto, rowWords(x.Port, x.Count)
		}
		hint, rule := adviceFor(x.Reason, e.h.Rules, t)
		if !rule && e.damaged(x.Container) {
			continue
		}
		subject := fmt.Sprintf("port %s/%s of container %s", rowWords(x.Port, x.Count), x.Proto, x.Container)
		e.stops.add(x.Reason, effect{
			Warning, subject, "%s cannot be reached from outside", fmt.Sprintf("%s at %s on %s", subject, x.Address, x.Interface), "", hint,
		})
	}
}

func (e *examination) damaged(container string) bool {
	return slices.ContainsFunc(e.containers, func(c exposure.Container) bool { return c.Name == container && len(c.Lost) > 0 })
}

func rowWords(port, count uint16) string {
	if count > 1 {
		return fmt.Sprintf("%d-%d", port, port+count-1)
	}
	return fmt.Sprint(port)
}

func bridgeOf(networks []exposure.Network, name string) string {
	for _, n := range networks {
		if s := segments(n); n.Name == name && len(s) > 0 {
			return s[0].Link
		}
	}
	return ""
}

// resolvers asks whether isled reaches the name servers that containers' questions
// go to.
func (e *examination) resolvers() {
	if e.h.Rules == nil {
		return
	}
	for _, s := range e.h.Resolvers {
		out, src := e.h.towards(s.Addr())
		if out == "" {
			continue
		}
		p := ruleset.Packet{Out: out, Src: src, Dst: s.Addr(), Proto: "udp", SrcPort: clientPort, DstPort: s.Port(), Local: out == "lo"}
		if by, dropped := e.stopped(p, ruleset.Output); dropped {
			e.stops.add(by.String(), effect{
				Error, "name server " + s.String(), "names outside of the networks are not found by %s", "name server " + s.String(), "",
				adviceForHost(by, e.h.Rules, traffic{proto: "udp", port: fmt.Sprint(s.Port())}),
			})
		}
	}
}

// towards is the interface to an address, and the host's own address there.
func (h Host) towards(to netip.Addr) (iface string, src netip.Addr) {
	if to.IsLoopback() {
		return "lo", to
	}
	way := h.way(to.Is4()).Interface
	for _, i := range h.Interfaces {
		for _, a := range i.Addrs {
			if a.Contains(to) {
				return i.Name, a.Addr()
			}
			if i.Name == way && a.Addr().Is4() == to.Is4() && !src.IsValid() {
				iface, src = way, a.Addr()
			}
		}
	}
	return iface, src
}
