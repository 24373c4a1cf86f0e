package network

import (
	"net/netip"

	"isle/internal/netspec"
)

// Routing tables of a container's namespace that are for replies: one for each
// network, by its Index. The rules that lead there are asked before the main
// table (32766).
const (
	replyTables   = 73000
	replyPriority = 7300
)

// replies are for a sandbox that has several ways out: what it sends from one of
// its addresses leaves by the network of that address, so that the answer to a
// request takes the way that the request came by. A family with a single way
// out needs none of it.
func (p planner) replies(sb Sandbox, places []place) ([]netspec.Object, error) {
	var objs []netspec.Object
	for _, all := range []netip.Prefix{allV4, allV6} {
		var ways int
		var mine []netspec.Object
		for _, pl := range places {
			more, err := p.way(sb, pl, all)
			if err != nil {
				return nil, err
			}
			if mine = append(mine, more...); len(more) > 0 {
				ways++
			}
		}
		if ways > 1 {
			objs = append(objs, mine...)
		}
	}
	return objs, nil
}

// way is the way out by one endpoint, for what has its addresses of a family.
func (p planner) way(sb Sandbox, pl place, all netip.Prefix) ([]netspec.Object, error) {
	v4 := all.Addr().Is4()
	_, gw, err := p.gateway([]place{pl}, v4)
	if err != nil || !gw.IsValid() {
		return nil, err
	}
	table := replyTables + pl.net.Index
	objs := []netspec.Object{netspec.Route{NS: sb.NS, Dst: all, Via: pl.net.via(gw), Dev: pl.Interface, Table: table, OnLink: pl.beyond(gw)}}
	for _, a := range pl.Addrs {
		if a.Addr().Is4() == v4 {
			objs = append(objs,
				netspec.Rule{NS: sb.NS, From: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), Table: table, Priority: replyPriority},
				netspec.Route{NS: sb.NS, Dst: a.Masked(), Dev: pl.Interface, Table: table})
		}
	}
	return objs, nil
}
