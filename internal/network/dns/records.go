package dns

import (
	"cmp"
	"net/netip"
	"strings"
	"time"
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
	zones   tree[string, zone]
	gone    tree[string, departed]  // networks that were there a moment ago
	subnets tree[netip.Prefix, int] // of all networks, and how many have it
}

// zone is a network. Its names and addresses are keys that are looked up by
// their beginning, so that a name that thousands share costs a change nothing.
type zone struct {
	Zone
	suffix string // what its long names end in, ".app"
	names  tree[named, struct{}]
	ptr    tree[back, struct{}]
}

type named struct {
	name  string // as canonical has it
	addr  netip.Addr
	owner string
}

type back struct {
	addr        netip.Addr
	owner, name string
}

func compareNamed(a, b named) int {
	return cmp.Or(strings.Compare(a.name, b.name), a.addr.Compare(b.addr), strings.Compare(a.owner, b.owner))
}

func compareBacks(a, b back) int {
	return cmp.Or(a.addr.Compare(b.addr), strings.Compare(a.owner, b.owner), strings.Compare(a.name, b.name))
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func newRecords() *Records {
	return &Records{newTree[string, zone](strings.Compare), newTree[string, departed](strings.Compare), newTree[netip.Prefix, int](comparePrefixes)}
}

// withZone adds a network or changes what it is called; its hosts stay.
func (r *Records) withZone(id string, info Zone) *Records {
	z := r.zone(id)
	next := *r
	next.count(z.Subnets, -1)
	next.count(info.Subnets, 1)
	z.Zone, z.suffix = info, "."+strings.ToLower(info.Name)
	next.zones, next.gone = r.zones.with(id, z), r.gone.without(id)
	return &next
}

// withoutZone forgets a network and its hosts. That its names were ours is
// remembered for a while.
func (r *Records) withoutZone(id string, now time.Time) *Records {
	z, ok := r.zones.get(id)
	if !ok {
		return r
	}
	next := *r
	next.count(z.Subnets, -1)
	next.zones, next.gone = r.zones.without(id), r.gone.with(id, r.departed(id, now))
	r.gone.root.all(func(id string, d departed) bool {
		if now.After(d.until) {
			next.gone = next.gone.without(id)
		}
		return true
	})
	return &next
}

// count notes that so many more networks have these subnets.
func (r *Records) count(subnets []netip.Prefix, more int) {
	for _, p := range subnets {
		n, _ := r.subnets.get(p.Masked())
		if n+more > 0 {
			r.subnets = r.subnets.with(p.Masked(), n+more)
		} else {
			r.subnets = r.subnets.without(p.Masked())
		}
	}
}

// inside reports whether addresses are of any network.
func (r *Records) inside(p netip.Prefix) bool {
	for bits := p.Bits(); bits >= 0; bits-- {
		p, _ := p.Addr().Prefix(bits)
		if _, ok := r.subnets.get(p); ok {
			return true
		}
	}
	return false
}

// zone is a network as it is known; hosts may be known before it is.
func (r *Records) zone(id string) zone {
	z, ok := r.zones.get(id)
	if !ok {
		z = zone{names: newTree[named, struct{}](compareNamed), ptr: newTree[back, struct{}](compareBacks)}
	}
	return z
}

func (r *Records) withHost(h Host) *Records {
	z := r.zone(h.Zone)
	h.each(func(n named) { z.names = z.names.with(n, struct{}{}) })
	h.eachBack(func(b back) { z.ptr = z.ptr.with(b, struct{}{}) })
	next := *r
	next.zones = r.zones.with(h.Zone, z)
	return &next
}

func (r *Records) withoutHost(h Host) *Records {
	z, ok := r.zones.get(h.Zone)
	if !ok {
		return r
	}
	h.each(func(n named) { z.names = z.names.without(n) })
	h.eachBack(func(b back) { z.ptr = z.ptr.without(b) })
	next := *r
	next.zones = r.zones.with(h.Zone, z)
	return &next
}

func (h Host) each(do func(named)) {
	for _, name := range h.Names {
		name = canonical(name)
		for _, a := range h.Addrs {
			if name != "" { // that would be the root
				do(named{name, a, h.Owner})
			}
		}
	}
}

// canonical is a user's name as parse has it in a question.
func canonical(name string) string {
	var out []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		out = append(appendLabel(out, []byte(label)), '.')
	}
	return string(out[:len(out)-1])
}

func (h Host) eachBack(do func(back)) {
	if len(h.Names) == 0 {
		return
	}
	for _, a := range h.Addrs {
		do(back{a, h.Owner, h.Names[0]})
	}
}

// Record is a line of what a network's names resolve to.
type Record struct {
	Name      string
	Type      string // A, AAAA
	Addr      netip.Addr
	Owner     string // id of the endpoint
	Container string // its name; left to who knows containers
}

// list is what is known of a network, by name and address.
func (r *Records) list(id string) []Record {
	z, _ := r.zones.get(id)
	var out []Record
	z.names.root.all(func(n named, _ struct{}) bool {
		t := "A"
		if n.addr.Is6() {
			t = "AAAA"
		}
		out = append(out, Record{Name: n.name, Type: t, Addr: n.addr, Owner: n.owner})
		return true
	})
	return out
}
