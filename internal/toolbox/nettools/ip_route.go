package nettools

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeJSON has iproute2's names.
type routeJSON struct {
	Type     string   `json:"type,omitempty"`
	Dst      string   `json:"dst"`
	Gateway  string   `json:"gateway,omitempty"`
	Dev      string   `json:"dev,omitempty"`
	Table    string   `json:"table,omitempty"`
	Protocol string   `json:"protocol,omitempty"`
	Scope    string   `json:"scope,omitempty"`
	Source   string   `json:"prefsrc,omitempty"`
	Metric   int      `json:"metric,omitempty"`
	MTU      int      `json:"mtu,omitempty"`
	Flags    []string `json:"flags"`
}

func (p *ip) families() []int {
	if p.family != 0 {
		return []int{p.family}
	}
	return []int{unix.AF_INET}
}

func (p *ip) routes() error {
	var all []routeJSON
	for _, family := range p.families() {
		filter, mask := &netlink.Route{Table: unix.RT_TABLE_MAIN}, uint64(netlink.RT_FILTER_TABLE)
		switch {
		case p.table < 0:
			filter.Table = unix.RT_TABLE_UNSPEC
		case p.table > 0:
			filter.Table = p.table
		}
		list, err := netlink.RouteListFiltered(family, filter, mask)
		if err != nil {
			return err
		}
		for _, r := range list {
			if j := describeRoute(r, family); p.dev == "" || j.Dev == p.dev {
				all = append(all, j)
			}
		}
	}
	return p.printRoutes(all)
}

func (p *ip) printRoutes(list []routeJSON) error {
	if p.json {
		return p.encode(append([]routeJSON{}, list...))
	}
	for _, r := range list {
		fmt.Fprintln(p.s.Out, r.text())
	}
	return nil
}

func describeRoute(r netlink.Route, family int) routeJSON {
	j := routeJSON{Dst: "default", Dev: linkName(r.LinkIndex), Protocol: r.Protocol.String(), Metric: r.Priority, MTU: r.MTU, Flags: r.ListFlags()}
	if j.Flags == nil {
		j.Flags = []string{}
	}
	if r.Dst != nil && !(r.Dst.IP.IsUnspecified() && ones(r.Dst) == 0) {
		j.Dst = r.Dst.String()
		if ones(r.Dst) == 8*len(r.Dst.Mask) {
			j.Dst = r.Dst.IP.String()
		}
	}
	if r.Type != unix.RTN_UNICAST {
		j.Type = routeType(r.Type)
	}
	if j.Protocol == "boot" { // made by hand, and not shown, as iproute2 does
		j.Protocol = ""
	}
	if r.Gw != nil {
		j.Gateway = r.Gw.String()
	}
	if r.Src != nil {
		j.Source = r.Src.String()
	}
	if r.Table != unix.RT_TABLE_MAIN && r.Table != 0 {
		j.Table = strconv.Itoa(r.Table)
	}
	if family == unix.AF_INET && r.Scope != netlink.SCOPE_UNIVERSE {
		j.Scope = r.Scope.String()
	}
	return j
}

func ones(n *net.IPNet) int {
	o, _ := n.Mask.Size()
	return o
}

func routeType(t int) string {
	names := map[int]string{unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast",
		unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw"}
	if n, ok := names[t]; ok {
		return n
	}
	return strconv.Itoa(t)
}

func linkName(index int) string {
	if index == 0 {
		return ""
	}
	if l, err := netlink.LinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return "if" + strconv.Itoa(index)
}

func (r routeJSON) text() string {
	var w []string
	add := func(name, value string) {
		if value != "" && value != "0" {
			w = append(w, strings.TrimLeft(name+" "+value, " "))
		}
	}
	add("", r.Type)
	add("", r.Dst)
	add("via", r.Gateway)
	add("dev", r.Dev)
	add("table", r.Table)
	add("proto", r.Protocol)
	add("scope", r.Scope)
	add("src", r.Source)
	add("metric", strconv.Itoa(r.Metric))
	add("mtu", strconv.Itoa(r.MTU))
	add("", strings.Join(r.Flags, " "))
	return strings.Join(w, " ")
}

func (p *ip) routeGet(addr string) error {
	dst := net.ParseIP(addr)
	if dst == nil {
		return fmt.Errorf("%q is not an address", addr)
	}
	list, err := netlink.RouteGet(dst)
	if err != nil {
		return err
	}
	family := unix.AF_INET
	if dst.To4() == nil {
		family = unix.AF_INET6
	}
	var out []routeJSON
	for _, r := range list {
		out = append(out, describeRoute(r, family))
	}
	return p.printRoutes(out)
}

// ruleJSON has iproute2's names.
type ruleJSON struct {
	Priority int    `json:"priority"`
	Src      string `json:"src"`
	Dst      string `json:"dst,omitempty"`
	Iif      string `json:"iif,omitempty"`
	Oif      string `json:"oif,omitempty"`
	Mark     string `json:"fwmark,omitempty"`
	Table    string `json:"table"`
}

func (p *ip) rules() error {
	all := []ruleJSON{}
	for _, family := range p.families() {
		list, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range list {
			all = append(all, describeRule(r))
		}
	}
	if p.json {
		return p.encode(all)
	}
	for _, r := range all {
		fmt.Fprintln(p.s.Out, r.text())
	}
	return nil
}

func describeRule(r netlink.Rule) ruleJSON {
	j := ruleJSON{Priority: max(0, r.Priority), Src: "all", Iif: r.IifName, Oif: r.OifName, Table: strconv.Itoa(r.Table)}
	if n, ok := map[int]string{unix.RT_TABLE_MAIN: "main", unix.RT_TABLE_LOCAL: "local", unix.RT_TABLE_DEFAULT: "default"}[r.Table]; ok {
		j.Table = n
	}
	if r.Src != nil {
		j.Src = r.Src.String()
	}
	if r.Dst != nil {
		j.Dst = r.Dst.String()
	}
	if r.Mark != 0 {
		j.Mark = fmt.Sprintf("0x%x", r.Mark)
	}
	return j
}

func (r ruleJSON) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:\tfrom %s", r.Priority, r.Src)
	for _, part := range [][2]string{{"to", r.Dst}, {"iif", r.Iif}, {"oif", r.Oif}, {"fwmark", r.Mark}, {"lookup", r.Table}} {
		if part[1] != "" {
			fmt.Fprintf(&b, " %s %s", part[0], part[1])
		}
	}
	return b.String()
}

// neighJSON has iproute2's names.
type neighJSON struct {
	Dst   string   `json:"dst"`
	Dev   string   `json:"dev"`
	MAC   string   `json:"lladdr,omitempty"`
	State []string `json:"state"`
}

func (p *ip) neighbours() error {
	list, err := netlink.NeighList(0, p.family)
	if err != nil {
		return err
	}
	all := []neighJSON{}
	for _, n := range list {
		if n.State == netlink.NUD_NOARP || n.IP == nil {
			continue
		}
		j := neighJSON{Dst: n.IP.String(), Dev: linkName(n.LinkIndex), MAC: n.HardwareAddr.String(), State: neighState(n.State)}
		if p.dev == "" || p.dev == j.Dev {
			all = append(all, j)
		}
	}
	if p.json {
		return p.encode(all)
	}
	for _, n := range all {
		line := n.Dst + " dev " + n.Dev
		if n.MAC != "" {
			line += " lladdr " + n.MAC
		}
		fmt.Fprintln(p.s.Out, line, strings.Join(n.State, " "))
	}
	return nil
}

func neighState(state int) []string {
	out := []string{}
	for _, s := range []struct {
		bit  int
		name string
	}{{netlink.NUD_INCOMPLETE, "INCOMPLETE"}, {netlink.NUD_REACHABLE, "REACHABLE"}, {netlink.NUD_STALE, "STALE"}, {netlink.NUD_DELAY, "DELAY"},
		{netlink.NUD_PROBE, "PROBE"}, {netlink.NUD_FAILED, "FAILED"}, {netlink.NUD_NOARP, "NOARP"}, {netlink.NUD_PERMANENT, "PERMANENT"}} {
		if state&s.bit != 0 {
			out = append(out, s.name)
		}
	}
	return out
}
