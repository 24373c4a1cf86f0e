package kernel

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
)

// memory is what the kernel cannot tell: which sysctls are ours, what was left
// to its choice, what is to be announced, and which links it has yet to reap.
type memory struct {
	mu      sync.Mutex
	sysctls byNS[netspec.Sysctl]
	links   map[netspec.Key]netspec.Link
	ends    map[string]end // where the veths lead, by the names of their host ends
	tell    byNS[netspec.Announce]
	dying   map[string]struct{} // names of host ends
	cookies map[netspec.NS]uint64
	shapes  map[netspec.NS]map[string]bool // links that are held back, where it is known which
	owners  map[uint64]netspec.NS          // cookies, the other way round
	lans    map[netspec.Key]int32          // links on a LAN, with the numbers of their parents
	hops    map[netspec.Key]string         // the links of others that our routes lead by
	parents map[string]int32               // by the names that they had when they were first used
}

// byNS is so made that to forget a namespace costs the same however many there are.
type byNS[T any] map[netspec.NS]map[netspec.Key]T

func (m byNS[T]) set(key netspec.Key, v T) {
	if m[key.NS] == nil {
		m[key.NS] = map[netspec.Key]T{}
	}
	m[key.NS][key] = v
}

func (m byNS[T]) drop(key netspec.Key) {
	delete(m[key.NS], key)
	if len(m[key.NS]) == 0 {
		delete(m, key.NS)
	}
}

func newMemory() memory {
	return memory{
		sysctls: byNS[netspec.Sysctl]{}, links: map[netspec.Key]netspec.Link{},
		ends: map[string]end{}, tell: byNS[netspec.Announce]{},
		dying: map[string]struct{}{}, cookies: map[netspec.NS]uint64{}, owners: map[uint64]netspec.NS{}, shapes: map[netspec.NS]map[string]bool{},
		lans: map[netspec.Key]int32{}, hops: map[netspec.Key]string{}, parents: map[string]int32{},
	}
}

// note records that o is in force, or with nil that key is not.
func (m *memory) note(key netspec.Key, o netspec.Object) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch o := o.(type) {
	case netspec.Sysctl:
		m.sysctls.set(key, o)
	case netspec.Link:
		m.links[key] = o
		delete(m.dying, o.Name)
	case netspec.Announce:
		m.tell.set(key, o)
	case netspec.Hop:
		m.hops[key] = o.Dev
	case netspec.Shape:
		m.shaped(o.NS)[o.Link] = true
	case nil:
		m.sysctls.drop(key)
		delete(m.links, key)
		delete(m.lans, key)
		delete(m.hops, key)
		if link, ok := strings.CutPrefix(key.ID, "shape "); ok {
			delete(m.shaped(key.NS), link)
		}
		if key.Rank == netspec.RankLink {
			delete(m.ends, key.ID)
		}
		m.tell.drop(key)
	}
}

// forget drops all that is known of a namespace.
func (m *memory) forget(ns netspec.NS) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.shapes, ns)
	delete(m.owners, m.cookies[ns])
	delete(m.cookies, ns)
	delete(m.sysctls, ns)
	delete(m.tell, ns)
}

func (m *memory) die(link netspec.Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, link.Key())
	delete(m.ends, link.Name)
	m.dying[link.Name] = struct{}{}
}

// isDying reports whether the end of a link is expected; gone says that it
// has come.
func (m *memory) isDying(name string, gone bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.dying[name]
	if gone {
		delete(m.dying, name)
	}
	return ok
}

// wished is l with what was left to the kernel as it was wished.
func (m *memory) wished(l netspec.Link) netspec.Link {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w, ok := m.links[l.Key()]; ok {
		return blank(l, w)
	}
	return l
}

// differs reports whether a link of ours is not as it was made: another MTU, not a
// port of its bridge, or a port with other flags.
func (m *memory) differs(l rtnl.Info, master string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.links[netspec.Link{Name: l.Name}.Key()]
	return ok && (w.MTU != 0 && w.MTU != int(l.MTU) || w.Master != master || w.Hairpin != l.Hairpin || w.Isolated != l.Isolated)
}

// hopsBy are our routes that lead by a link of somebody else.
func (m *memory) hopsBy(link string) (keys []netspec.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, l := range m.hops {
		if l == link {
			keys = append(keys, k)
		}
	}
	return keys
}

// named reports whether a link of that name on the host was made by us.
func (m *memory) named(link string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.links[netspec.Link{Name: link}.Key()]
	return ok
}

// blank is l without what w leaves to the kernel.
func blank(l, w netspec.Link) netspec.Link {
	if w.MTU == 0 {
		l.MTU = 0
	}
	if w.MAC == (netspec.MAC{}) {
		l.MAC = w.MAC
	}
	if w.PeerMAC == (netspec.MAC{}) {
		l.PeerMAC = w.PeerMAC
	}
	return l
}

// end is the veth that had this number when it was seen, with its far end.
type end struct {
	index int32
	netspec.Link
}

// saw notes where the veth with this number leads.
func (m *memory) saw(index int32, l netspec.Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends[l.Name] = end{index, l}
}

// behind is l, the veth with this number, with where it leads: as it was seen
// before, or made by us. A far end cannot leave without its veth but by somebody
// who moves it, and then the next look at everything shows it. known is false when
// nothing says.
func (m *memory) behind(index int32, l netspec.Link) (_ netspec.Link, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.ends[l.Name]; ok && e.index == index {
		return joined(l, e.Link), true
	}
	made, ok := m.links[l.Key()]
	return joined(l, made), ok
}

// joined is the near end of one and the far end of another.
func joined(near, far netspec.Link) netspec.Link {
	near.PeerNS, near.Peer, near.PeerMAC = far.PeerNS, far.Peer, far.PeerMAC
	near.PeerMaster, near.PeerIsolated = far.PeerMaster, far.PeerIsolated
	return near
}

func (m *memory) ourSysctls(ns netspec.NS) []netspec.Sysctl {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.sysctls[ns]))
}

func (m *memory) announcement(k netspec.Key) (netspec.Announce, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.tell[k.NS][k]
	return a, ok
}

// announcements are those of the links of a namespace.
func (m *memory) announcements(ns netspec.NS) []netspec.Announce {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.tell[ns]))
}

// shaped are the links of a namespace that are held back. mu is held.
func (m *memory) shaped(ns netspec.NS) map[string]bool {
	if m.shapes[ns] == nil {
		m.shapes[ns] = map[string]bool{}
	}
	return m.shapes[ns]
}

// mayBeShaped is false where it is known that no link is held back.
func (m *memory) mayBeShaped(ns netspec.NS) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	links, known := m.shapes[ns]
	return !known || len(links) > 0
}

// sawShapes notes that all of a namespace were read.
func (m *memory) sawShapes(ns netspec.NS) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shaped(ns)
}

// begins is for a namespace that is new, unless it is somebody else's.
func (m *memory) begins(ns netspec.NS) {
	if !ns.Lent() {
		m.sawShapes(ns)
	}
}

func (m *memory) setCookie(ns netspec.NS, c uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cookies[ns], m.owners[c] = c, ns
}

// owner is the namespace of ours that has a cookie.
func (m *memory) owner(cookie uint64) (netspec.NS, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ns, ok := m.owners[cookie]
	return ns, ok
}

func (m *memory) cookie(ns netspec.NS) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cookies[ns]
	return c, ok
}

// sawLAN notes which interface of the host a link on a LAN is on.
func (m *memory) sawLAN(l netspec.LAN, parent int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lans[l.Key()] = parent
	m.parents[l.Parent] = parent
}

func (m *memory) sawParent(name string, index int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parents[name] = index
}

// parent is the number of the interface that had this name when it was used.
func (m *memory) parent(name string) (index int32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	index, ok = m.parents[name]
	return index, ok
}

// knownAs gives links that were renamed the names back that networks know them by,
// unless another link has such a name by now.
func (m *memory) knownAs(names map[int32]string) {
	taken := map[string]bool{}
	for _, name := range names {
		taken[name] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, index := range m.parents {
		if _, there := names[index]; there && !taken[name] {
			names[index] = name
		}
	}
}

// onParent are the links that are on an interface of the host.
func (m *memory) onParent(index int32) (out []netspec.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, parent := range m.lans {
		if parent == index {
			out = append(out, key)
		}
	}
	return out
}
