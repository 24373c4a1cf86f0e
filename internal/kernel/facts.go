package kernel

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
)

// Facts are what planning needs to know of the host.
type Facts struct {
	MTU    int // of the way out, IPv4's before IPv6's; 1500 when there is none
	Way4   Way // out
	Way6   Way
	Ways   []string // interfaces that default routes of the main table lead over
	Addrs  []Used   // of the host's links, ours left out
	Routes []Used   // destinations of the main table, default routes and ours left out
	Links  []Link   // of the host, ours too
	IPv6   bool     // the kernel has IPv6
	// Advertised are the uplinks that take router advertisements.
	Advertised []string
	Parents    []Parent // of the host, without ours
}

// Parent is an interface of the host that others can be made on.
type Parent struct {
	Name, Now, Master     string // Now is its name since it was renamed
	MTU                   int
	MAC                   netspec.MAC
	Up, Carrier, Wireless bool
	Way                   bool       // a default route leads over it
	Addr4, Addr6          netip.Addr // the host's own there
}

// Way is how packets to far away leave. The zero value is no way.
type Way struct {
	Link string // one of several
	MTU  int
}

// Used is a prefix that somebody else uses.
type Used struct {
	netip.Prefix
	Dev string
}

// Link is an interface of the host.
type Link struct {
	Name     string
	MTU      int
	Up       bool
	Loopback bool
	Ours     bool
	Addrs    []netip.Prefix
}

const defaultMTU = 1500

// Somewhere far away, for each family: the packets to there go the way that most
// packets of containers go, whatever rules of routing there are. Nothing is sent.
var (
	far4 = netip.MustParseAddr("198.41.0.4")
	far6 = netip.MustParseAddr("2001:503:ba3e::2:30")
)

// Facts reads them.
func (k *Kernel) Facts(ctx context.Context) (Facts, error) {
	if err := ctx.Err(); err != nil {
		return Facts{}, err
	}
	c, err := rtnl.Open(k.host)
	if err != nil {
		return Facts{}, err
	}
	defer c.Close()
	v, err := c.Read()
	if err != nil {
		return Facts{}, err
	}
	f := Facts{IPv6: k.features.IPv6, Links: k.links(v)}
	f.Addrs, f.Routes = k.used(v)
	f.Ways = ways(v)
	f.Parents = k.parentFacts(v)
	if f.Way4, err = way(c, v, far4); err != nil {
		return f, err
	}
	if f.Way6, err = way(c, v, far6); err != nil {
		return f, err
	}
	f.MTU = cmp.Or(f.Way4.MTU, f.Way6.MTU, defaultMTU)
	f.Advertised, err = k.advertised(v)
	return f, err
}

// way is how packets to somewhere leave, with the least MTU of several ways.
func way(c *rtnl.Conn, v rtnl.View, dst netip.Addr) (out Way, err error) {
	w, ok, err := c.WayTo(dst)
	if err != nil || !ok {
		return out, err
	}
	for _, i := range w.Links {
		if l := v.Links[i]; l.MTU > 0 && (out.MTU == 0 || int(l.MTU) < out.MTU) && !l.Loopback {
			out = Way{l.Name, int(l.MTU)}
		}
	}
	if w.MTU > 0 && w.MTU < out.MTU {
		out.MTU = w.MTU
	}
	return out, nil
}

func ways(v rtnl.View) (names []string) {
	for _, r := range v.Routes {
		if l := v.Links[r.Index]; r.Dst.Bits() == 0 && r.Dst.Addr().Is4() && l.Name != "" {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (k *Kernel) used(v rtnl.View) (addrs, routes []Used) {
	ours := k.ours
	for _, a := range v.Addrs {
		if l := v.Links[a.Index]; !ours(l) {
			addrs = append(addrs, Used{a.Prefix, l.Name})
		}
	}
	for _, r := range v.Routes {
		l := v.Links[r.Index]
		if _, hop := k.mark.Hop(r, l.Name); !hop && !ours(l) && r.Dst.Bits() > 0 {
			routes = append(routes, Used{r.Dst, l.Name})
		}
	}
	return addrs, routes
}

func (k *Kernel) links(v rtnl.View) []Link {
	of := map[int32][]netip.Prefix{}
	for _, a := range v.Addrs {
		of[a.Index] = append(of[a.Index], a.Prefix)
	}
	out := make([]Link, 0, len(v.Links))
	for i, l := range v.Links {
		out = append(out, Link{l.Name, int(l.MTU), l.Up, l.Loopback, k.ours(l), of[i]})
	}
	slices.SortFunc(out, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// hostAddrs are all addresses of the host, ours too.
func (k *Kernel) hostAddrs() ([]netip.Prefix, error) {
	c, err := rtnl.Open(k.host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	as, err := c.Addrs()
	out := make([]netip.Prefix, len(as))
	for i, a := range as {
		out[i] = a.Prefix
	}
	return out, err
}

// NextTo are those of addrs that packets from an interface of the host reach without
// being routed.
func (k *Kernel) NextTo(ctx context.Context, link string, addrs []netip.Addr) (out []netip.Addr, err error) {
	if err := ctx.Err(); err != nil || len(addrs) == 0 {
		return nil, err
	}
	c, err := rtnl.Open(k.host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	index, err := c.Index(link)
	if err != nil {
		return nil, rtnl.Gone(err)
	}
	for _, a := range addrs {
		next, err := c.NextTo(index, a)
		if err != nil {
			return out, err
		}
		if next {
			out = append(out, a)
		}
	}
	return out, nil
}

// Counters are what a link has counted, as its own namespace sees it.
type Counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Counters reads the links of a namespace, by name, without lo.
func (k *Kernel) Counters(ctx context.Context, ns netspec.NS) (map[string]Counters, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := k.open(ns)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := rtnl.Open(f)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := c.Links(true)
	if err != nil {
		return nil, fmt.Errorf("read counters of namespace %s: %w", ns, err)
	}
	out := map[string]Counters{}
	for _, l := range links {
		if !l.Loopback {
			out[l.Name] = Counters{
				l.RxBytes, l.RxPackets, l.RxErrors, l.RxDropped, l.TxBytes, l.TxPackets, l.TxErrors, l.TxDropped,
			}
		}
	}
	return out, nil
}
