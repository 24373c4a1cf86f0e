package nettools

import (
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkJSON has iproute2's names.
type linkJSON struct {
	Index     int        `json:"ifindex"`
	Peer      int        `json:"link_index,omitempty"`
	Name      string     `json:"ifname"`
	Flags     []string   `json:"flags"`
	MTU       int        `json:"mtu"`
	Master    string     `json:"master,omitempty"`
	State     string     `json:"operstate"`
	Kind      string     `json:"link_type"`
	Address   string     `json:"address,omitempty"`
	Broadcast string     `json:"broadcast,omitempty"`
	Addrs     []addrJSON `json:"addr_info,omitempty"`
}

type addrJSON struct {
	Family string `json:"family"`
	Local  string `json:"local"`
	Peer   string `json:"address,omitempty"`
	Length int    `json:"prefixlen"`
	Bcast  string `json:"broadcast,omitempty"`
	Scope  string `json:"scope"`
	Label  string `json:"label,omitempty"`
	Flags  string `json:"-"`
}

func (p *ip) addresses() error { return p.links(true) }

func (p *ip) links(addresses bool) error {
	list, err := netlink.LinkList()
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, l := range list {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	out := []linkJSON{}
	for _, l := range list {
		if p.dev != "" && l.Attrs().Name != p.dev {
			continue
		}
		j := describe(l, names)
		if addresses {
			if j.Addrs, err = p.linkAddresses(l); err != nil {
				return err
			}
		}
		out = append(out, j)
	}
	if p.dev != "" && len(out) == 0 {
		return fmt.Errorf("device %q does not exist", p.dev)
	}
	return p.printLinks(out, addresses)
}

func (p *ip) linkAddresses(l netlink.Link) ([]addrJSON, error) {
	list, err := netlink.AddrList(l, p.family)
	var out []addrJSON
	for _, a := range list {
		length, _ := a.Mask.Size()
		j := addrJSON{Family: "inet", Local: a.IP.String(), Length: length, Scope: netlink.Scope(a.Scope).String(), Label: a.Label, Flags: addrFlags(a.Flags)}
		if j.Scope == "universe" {
			j.Scope = "global"
		}
		if a.IP.To4() == nil {
			j.Family, j.Label = "inet6", ""
		} else if a.Broadcast != nil {
			j.Bcast = a.Broadcast.String()
		}
		if a.Peer != nil && !a.Peer.IP.Equal(a.IP) {
			j.Peer = a.Peer.IP.String()
		}
		out = append(out, j)
	}
	return out, err
}

func addrFlags(flags int) string {
	out := ""
	for _, f := range []struct {
		bit  int
		name string
	}{{unix.IFA_F_TENTATIVE, " tentative"}, {unix.IFA_F_DADFAILED, " dadfailed"}, {unix.IFA_F_DEPRECATED, " deprecated"}, {unix.IFA_F_NODAD, " nodad"}} {
		if flags&f.bit != 0 {
			out += f.name
		}
	}
	return out
}

func describe(l netlink.Link, names map[int]string) linkJSON {
	a := l.Attrs()
	j := linkJSON{Index: a.Index, Name: a.Name, MTU: a.MTU, Master: names[a.MasterIndex], State: strings.ToUpper(a.OperState.String()),
		Kind: a.EncapType, Flags: linkFlags(a), Address: a.HardwareAddr.String(), Peer: a.ParentIndex}
	if a.EncapType == "loopback" && j.Address == "" {
		j.Address = net.HardwareAddr(make([]byte, 6)).String()
	}
	return j
}

func linkFlags(a *netlink.LinkAttrs) []string {
	out := []string{}
	if a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP == 0 {
		out = append(out, "NO-CARRIER")
	}
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.IFF_LOOPBACK, "LOOPBACK"}, {unix.IFF_BROADCAST, "BROADCAST"}, {unix.IFF_POINTOPOINT, "POINTOPOINT"}, {unix.IFF_MULTICAST, "MULTICAST"},
		{unix.IFF_NOARP, "NOARP"}, {unix.IFF_PROMISC, "PROMISC"}, {unix.IFF_UP, "UP"}, {unix.IFF_LOWER_UP, "LOWER_UP"}} {
		if a.RawFlags&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	return out
}

func (p *ip) printLinks(list []linkJSON, addresses bool) error {
	if p.json {
		return p.encode(list)
	}
	for _, l := range list {
		if addresses && p.family != 0 && len(l.Addrs) == 0 {
			continue
		}
		if p.brief {
			fmt.Fprintln(p.s.Out, l.brief(addresses))
			continue
		}
		fmt.Fprint(p.s.Out, l.text(!addresses || p.family == 0))
	}
	return nil
}

func (l linkJSON) brief(addresses bool) string {
	what := l.Address
	if addresses {
		var all []string
		for _, a := range l.Addrs {
			all = append(all, fmt.Sprintf("%s/%d", a.Local, a.Length))
		}
		what = strings.Join(all, " ")
	}
	return strings.TrimRight(fmt.Sprintf("%-16s %-14s %s", l.Name, l.State, what), " ")
}

func (l linkJSON) text(hardware bool) string {
	var b strings.Builder
	name := l.Name
	if l.Peer > 0 {
		name = fmt.Sprintf("%s@if%d", name, l.Peer)
	}
	fmt.Fprintf(&b, "%d: %s: <%s> mtu %d", l.Index, name, strings.Join(l.Flags, ","), l.MTU)
	if l.Master != "" {
		fmt.Fprintf(&b, " master %s", l.Master)
	}
	fmt.Fprintf(&b, " state %s\n", l.State)
	if hardware {
		fmt.Fprintf(&b, "    link/%s %s\n", l.Kind, l.Address)
	}
	for _, a := range l.Addrs {
		b.WriteString(a.text())
	}
	return b.String()
}

func (a addrJSON) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "    %s %s", a.Family, a.Local)
	if a.Peer != "" {
		fmt.Fprintf(&b, " peer %s", a.Peer)
	}
	fmt.Fprintf(&b, "/%d", a.Length)
	if a.Bcast != "" {
		fmt.Fprintf(&b, " brd %s", a.Bcast)
	}
	fmt.Fprintf(&b, " scope %s%s", a.Scope, a.Flags)
	if a.Label != "" {
		fmt.Fprintf(&b, " %s", a.Label)
	}
	return b.String() + "\n"
}
