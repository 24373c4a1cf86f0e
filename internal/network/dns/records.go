package dns

import (
	"net/netip"
	"slices"
	"strings"
)

// Zone is one network.
type Zone struct {
	Name    string
	Subnets []netip.Prefix
}

// Host is one endpoint: its names and addresses on a network. The first name
// is what its addresses resolve back to.
type Host struct {
	Zone, Owner string // ids of network and endpoint
	Names       []string
	Addrs       []netip.Addr
}

// Records is everything that is known of all networks. It is never changed;
// a change makes another one at a cost that does not grow with what is known.
type Records struct {
	zones tree[string, zone]
}

type zone struct {
	Zone
	names tree[string, []entry]
	ptr   tree[netip.Addr, []back]
}

type entry struct {
	owner string
	addr  netip.Addr
}

type back struct{ owner, name string }

func newRecords() *Records {
	return &Records{newTree[string, zone](strings.Compare)}
}

// withZone adds a network or changes what it is called; its hosts stay.
func (r *Records) withZone(id string, info Zone) *Records {
	z := r.zone(id)
	z.Zone = info
	return &Records{r.zones.with(id, z)}
}

func (r *Records) withoutZone(id string) *Records { return &Records{r.zones.without(id)} }

// zone is a network as it is known; hosts may be known before it is.
func (r *Records) zone(id string) zone {
	z, ok := r.zones.get(id)
	if !ok {
		z = zone{names: newTree[string, []entry](strings.Compare), ptr: newTree[netip.Addr, []back](netip.Addr.Compare)}
	}
	return z
}

func (r *Records) withHost(h Host) *Records {
	z := r.zone(h.Zone)
	for _, name := range h.Names {
		name = strings.ToLower(name)
		es, _ := z.names.get(name)
		es = slices.Clone(es)
		for _, a := range h.Addrs {
			if e := (entry{h.Owner, a}); !slices.Contains(es, e) {
				es = append(es, e)
			}
		}
		z.names = z.names.with(name, es)
	}
	if len(h.Names) > 0 {
		for _, a := range h.Addrs {
			bs, _ := z.ptr.get(a)
			z.ptr = z.ptr.with(a, append(slices.Clone(bs), back{h.Owner, h.Names[0]}))
		}
	}
	return &Records{r.zones.with(h.Zone, z)}
}

func (r *Records) withoutHost(h Host) *Records {
	z, ok := r.zones.get(h.Zone)
	if !ok {
		return r
	}
	for _, name := range h.Names {
		name = strings.ToLower(name)
		es, _ := z.names.get(name)
		es = slices.DeleteFunc(slices.Clone(es), func(e entry) bool { return e.owner == h.Owner })
		if len(es) > 0 {
			z.names = z.names.with(name, es)
		} else {
			z.names = z.names.without(name)
		}
	}
	for _, a := range h.Addrs {
		bs, _ := z.ptr.get(a)
		bs = slices.DeleteFunc(slices.Clone(bs), func(b back) bool { return b.owner == h.Owner })
		if len(bs) > 0 {
			z.ptr = z.ptr.with(a, bs)
		} else {
			z.ptr = z.ptr.without(a)
		}
	}
	return &Records{r.zones.with(h.Zone, z)}
}
