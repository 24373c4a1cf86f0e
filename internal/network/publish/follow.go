package publish

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"
)

// Asked is what is to be published, in the two forms in which it is kept.
type Asked struct {
	Bindings network.PortMap
	Specs    []Spec
}

// Follow is a after its container's ports have become settled: what is not there
// any more is left out, and what came is added, by its host port. Of removed,
// which were settled before, wishes that named no address lose all addresses:
// those that are still settled are then named.
func (a Asked) Follow(settled, removed []Mapping) Asked {
	f := follower{order: single(settled), removed: single(removed)}
	f.left = make([]bool, len(f.order))
	for i := range f.left {
		f.left[i] = true
	}
	out := Asked{Bindings: f.bindings(a.Bindings), Specs: f.specs(a.Specs)}
	f.bring(&out)
	return out
}

// follower keeps which settled ports no wish has been found for yet.
type follower struct {
	order   []Mapping // the settled ports, sorted
	left    []bool    // which of them
	removed []Mapping // sorted
	leads   map[portOf][]int
}

// portOf is a port of a protocol, of the host or of the container.
type portOf struct {
	proto string
	port  uint16
}

// single is the ports of ms one by one, sorted.
func single(ms []Mapping) []Mapping {
	out := slices.Collect(Each(ms))
	slices.SortFunc(out, compare)
	return out
}

func find(sorted []Mapping, m Mapping) (int, bool) {
	i, ok := slices.BinarySearchFunc(sorted, m, compare)
	return i, ok && sorted[i] == m
}

// find finds a settled port that nobody has taken yet.
func (f *follower) find(m Mapping) (int, bool) {
	i, ok := find(f.order, m)
	return i, ok && f.left[i]
}

// gone: m was there and is not any more.
func (f *follower) gone(m Mapping) bool {
	if _, was := find(f.removed, m); !was {
		return false
	}
	_, is := find(f.order, m)
	return !is
}

// leading are the settled ports that lead to a port of the container. Few ask.
func (f *follower) leading(w wish) []int {
	if f.leads == nil {
		f.leads = map[portOf][]int{}
		for i, m := range f.order {
			to := portOf{m.Proto, m.ContainerPort}
			f.leads[to] = append(f.leads[to], i)
		}
	}
	return f.leads[portOf{w.Proto, w.ContainerPort}]
}

func (f *follower) bindings(ports network.PortMap) network.PortMap {
	out := network.PortMap{}
	for _, fixed := range []bool{true, false} { // a fixed wish must not be robbed by a free one
		for p, bs := range ports {
			for _, b := range bs {
				w := wish{Spec: Spec{Proto: string(p.Proto()), HostIP: b.HostIP.Unmap(), ContainerPort: p.Num(), Count: 1}}
				w.HostPort, w.last, _ = hostPorts(b.HostPort)
				if w.fixed() == fixed && f.fulfil(w) {
					out[p] = append(out[p], b)
				}
			}
		}
	}
	return out
}

func (f *follower) specs(specs []Spec) []Spec {
	var out []Spec
	for _, s := range specs {
		var left []Mapping
		for i := range max(s.Count, 1) {
			one := s
			one.Count, one.ContainerPort = 1, s.ContainerPort+i
			if s.HostPort != 0 {
				one.HostPort += i
			}
			if f.fulfil(wish{one, one.HostPort}) {
				left = append(left, Mapping(one))
			}
		}
		for _, m := range Join(left) {
			out = append(out, Spec(m))
		}
	}
	return out
}

// wish is one port that was asked for; with another last there is a choice.
type wish struct {
	Spec
	last uint16
}

func (w wish) fixed() bool { return w.HostPort != 0 && w.HostPort == w.last }

// fulfil finds the settled ports that w became and takes them; false: there is
// none.
func (f *follower) fulfil(w wish) bool {
	port := w.HostPort
	if !w.fixed() {
		if port = f.choice(w); port == 0 {
			return false
		}
	}
	var mine []int
	for _, ip := range w.addrs() {
		m := Mapping{w.Proto, ip, w.Iface, port, 1, w.ContainerPort, w.From}
		if f.gone(m) {
			return false
		}
		if i, ok := f.find(m); ok {
			mine = append(mine, i)
		}
	}
	if len(mine) == 0 && !w.HostIP.IsValid() { // a network may have an address of its own for such ports
		mine = f.anywhere(w, port)
	}
	for _, i := range mine {
		f.left[i] = false
	}
	return len(mine) > 0
}

func (w wish) addrs() []netip.Addr {
	if w.HostIP.IsValid() {
		return []netip.Addr{w.HostIP}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// choice is the host port that a free wish became.
func (f *follower) choice(w wish) uint16 {
	for _, i := range f.leading(w) {
		m := f.order[i]
		if f.left[i] && w.matches(m) && (w.HostPort == 0 || w.HostPort <= m.HostPort && m.HostPort <= w.last) {
			return m.HostPort
		}
	}
	return 0
}

func (f *follower) anywhere(w wish, port uint16) (out []int) {
	for _, i := range f.leading(w) {
		if m := f.order[i]; f.left[i] && w.matches(m) && m.HostPort == port {
			out = append(out, i)
		}
	}
	return out
}

func (w wish) matches(m Mapping) bool {
	return m.Iface == w.Iface && m.From == w.From && (!w.HostIP.IsValid() || w.HostIP == m.HostIP)
}

// bring adds the settled ports that nobody had asked for before.
func (f *follower) bring(out *Asked) {
	var specs []Mapping
	for i := range f.order {
		if !f.left[i] {
			continue
		}
		w := f.named(i)
		if w.Plain() {
			if p, ok := network.PortFrom(w.ContainerPort, network.IPProtocol(w.Proto)); ok {
				out.Bindings[p] = append(out.Bindings[p], network.PortBinding{HostIP: w.HostIP, HostPort: fmt.Sprint(w.HostPort)})
			}
			continue
		}
		specs = append(specs, Mapping(w))
	}
	for _, m := range Join(specs) {
		out.Specs = append(out.Specs, Spec(m))
	}
}

// named is m as a person would write it: a port on every address of both
// families names none.
func (f *follower) named(i int) Spec {
	m := f.order[i]
	other := m
	if m.HostIP == netip.IPv4Unspecified() {
		other.HostIP = netip.IPv6Unspecified()
	} else if m.HostIP == netip.IPv6Unspecified() {
		other.HostIP = netip.IPv4Unspecified()
	}
	f.left[i] = false
	if k, ok := f.find(other); ok {
		f.left[k] = false
		m.HostIP = netip.Addr{}
	}
	return Spec(m)
}

// Edit adds wishes to a and takes away what is selected, of a container that
// does not run. Missing are the selectors that nothing matched.
func (a Asked) Edit(add []Spec, remove []Selector) (out Asked, missing []Selector) {
	out = Asked{Bindings: network.PortMap{}, Specs: slices.Clone(a.Specs)}
	for p, bs := range a.Bindings {
		out.Bindings[p] = slices.Clone(bs)
	}
	for _, s := range remove {
		if !out.remove(s) {
			missing = append(missing, s)
		}
	}
	for _, s := range add {
		out.add(s)
	}
	return out, missing
}

// Check reports whether all of a can be had at once; owner is for the error.
func (a Asked) Check(owner string) error {
	_, err := a.alone(owner)
	return err
}

// alone is what a would become if nobody else published anything.
func (a Asked) alone(owner string) ([]Mapping, error) {
	reqs, err := Parse(a.Bindings, a.Specs, Defaults{})
	if err != nil {
		return nil, err
	}
	return (&Table{}).Claim(owner, reqs, func(string) string { return owner })
}

// Lose is Follow of a container whose ports nobody has settled any more. What
// named no address is lost when one of its addresses is.
func (a Asked) Lose(lost []Mapping) (Asked, error) {
	for i := range lost {
		if lost[i].HostIP == netip.IPv6Unspecified() {
			lost = append(lost, lost[i])
			lost[len(lost)-1].HostIP = netip.IPv4Unspecified()
		}
	}
	had, err := a.alone("")
	if err != nil {
		return a, err
	}
	return a.Follow(Without(had, lost), nil), nil
}

func (a *Asked) add(s Spec) {
	if !s.Plain() {
		if !slices.Contains(a.Specs, s) {
			a.Specs = append(a.Specs, s)
		}
		return
	}
	for i := range max(s.Count, 1) {
		b := network.PortBinding{HostIP: s.HostIP}
		if s.HostPort != 0 {
			b.HostPort = strconv.Itoa(int(s.HostPort + i))
		}
		p, ok := network.PortFrom(s.ContainerPort+i, network.IPProtocol(s.Proto))
		if ok && (b.HostPort == "" || !slices.Contains(a.Bindings[p], b)) {
			a.Bindings[p] = append(a.Bindings[p], b)
		}
	}
}

func (a *Asked) remove(s Selector) bool {
	found := false
	for p, bs := range a.Bindings {
		a.Bindings[p] = slices.DeleteFunc(bs, func(b network.PortBinding) bool {
			first, last, _ := hostPorts(b.HostPort)
			m := Mapping{Proto: string(p.Proto()), HostIP: b.HostIP.Unmap(), HostPort: first, Count: 1}
			hit := first != 0 && first == last && len(s.Select([]Mapping{m})) > 0
			found = found || hit
			return hit
		})
		if len(bs) > 0 && len(a.Bindings[p]) == 0 {
			delete(a.Bindings, p)
		}
	}
	var specs []Spec
	for _, spec := range a.Specs {
		ms := []Mapping{Mapping(spec)}
		hit := s.Select(ms)
		found = found || len(hit) > 0
		for _, m := range Without(ms, hit) {
			specs = append(specs, Spec(m))
		}
	}
	a.Specs = specs
	return found
}

// Fixed are the wishes that name a host port, as mappings: one that names no
// address has none.
func (a Asked) Fixed() []Mapping {
	var out []Mapping
	for p, bs := range a.Bindings {
		for _, b := range bs {
			if first, last, _ := hostPorts(b.HostPort); first != 0 && first == last {
				out = append(out, Mapping{Proto: string(p.Proto()), HostIP: b.HostIP.Unmap(), HostPort: first, Count: 1, ContainerPort: p.Num()})
			}
		}
	}
	for _, s := range a.Specs {
		if s.HostPort != 0 {
			out = append(out, Mapping(s))
		}
	}
	return Join(out)
}
