package network

import (
	"crypto/sha256"
	"net/netip"
	"slices"

	"isle/internal/fabric"
	"isle/internal/netspec"
)

// far is what the cluster says of its hosts and of the endpoints on its networks, with
// those of this host. It is memory only: nothing in it is in our records.
type far struct {
	self      string
	hosts     map[string]fabric.Host
	endpoints map[string]fabric.Endpoint
	of        map[string]map[string]bool // network → endpoints
	counts    map[seat]int               // endpoints of a host on a network
	claims    map[claim]map[string]bool  // who says that it has an address, or a MAC
}

// seat is a host's place on a network.
type seat struct{ network, host string }

// trace is where an endpoint is, or was.
type trace struct{ id, network, host string }

// news is what is to be planned again.
type news struct {
	endpoints map[trace]bool
	hosts     map[string]bool
}

func newNews() news { return news{map[trace]bool{}, map[string]bool{}} }

// endpoint notes one. Of one that is gone nobody knows where it was.
func (n news) endpoint(t trace) {
	if t.host != "" {
		n.endpoints[t] = true
	}
}

// touch notes a host, with its endpoints.
func (f *far) touch(host string, n news) {
	n.hosts[host] = true
	for network := range f.of {
		for _, e := range f.at(network, host) {
			n.endpoint(f.trace(e))
		}
	}
}

func (f *far) trace(id string) trace {
	e := f.endpoints[id]
	return trace{id, e.Network, e.Host}
}

// claim is something that one endpoint of a network has.
type claim struct {
	network string
	addr    netip.Addr
	mac     netspec.MAC
}

func newFar() far {
	return far{
		hosts: map[string]fabric.Host{}, endpoints: map[string]fabric.Endpoint{}, of: map[string]map[string]bool{},
		counts: map[seat]int{}, claims: map[claim]map[string]bool{},
	}
}

// addressMAC is the MAC address of an endpoint that asks for none: it follows from the
// address, so that who gets an address after another has the same.
func addressMAC(network string, a netip.Addr) (m netspec.MAC) {
	h := sha256.Sum256([]byte(network + "/" + a.String()))
	copy(m[1:], h[:])
	m[0] = 0x02 // locally administered, unicast
	return m
}

// macOf is e's MAC address.
func macOf(e fabric.Endpoint) netspec.MAC {
	if e.MAC == [6]byte{} && len(e.Addrs) > 0 {
		return addressMAC(e.Network, e.Addrs[0].Addr())
	}
	return e.MAC
}

func claimsOf(e fabric.Endpoint) []claim {
	out := []claim{{network: e.Network, mac: macOf(e)}}
	for _, a := range e.Addrs {
		out = append(out, claim{network: e.Network, addr: a.Addr()})
	}
	return out
}

// put notes an endpoint as it is now; nil: it is gone. What it says counts for, or
// against, all that are returned.
func (f *far) put(id string, now *fabric.Endpoint) (touched []string) {
	old, had := f.endpoints[id]
	if had {
		touched = append(touched, f.rivals(old)...)
		f.count(old, false)
		delete(f.endpoints, id)
	}
	if now != nil {
		f.endpoints[id] = *now
		f.count(*now, true)
		touched = append(touched, f.rivals(*now)...)
	}
	slices.Sort(touched)
	return slices.Compact(touched)
}

func (f *far) count(e fabric.Endpoint, in bool) {
	s := seat{e.Network, e.Host}
	if in {
		f.counts[s]++
		enter(f.of, e.Network, e.ID)
	} else {
		f.counts[s]--
		leave(f.of, e.Network, e.ID)
	}
	if f.counts[s] == 0 {
		delete(f.counts, s)
	}
	for _, c := range claimsOf(e) {
		if in {
			enter(f.claims, c, e.ID)
		} else {
			leave(f.claims, c, e.ID)
		}
	}
}

func enter[K comparable](m map[K]map[string]bool, k K, id string) {
	if m[k] == nil {
		m[k] = map[string]bool{}
	}
	m[k][id] = true
}

func leave[K comparable](m map[K]map[string]bool, k K, id string) {
	if delete(m[k], id); len(m[k]) == 0 {
		delete(m, k)
	}
}

// rivals are the endpoints that say that they have something of what e has, e too.
func (f *far) rivals(e fabric.Endpoint) (ids []string) {
	for _, c := range claimsOf(e) {
		for id := range f.claims[c] {
			ids = append(ids, id)
		}
	}
	return ids
}

// wins reports whether nobody with a better right has something of what e has. The later
// one is right: the other's host has not been heard of since.
func (f *far) wins(e fabric.Endpoint) bool {
	return !slices.ContainsFunc(f.rivals(e), func(id string) bool {
		o := f.endpoints[id]
		return id != e.ID && (o.Generation > e.Generation || o.Generation == e.Generation && o.ID < e.ID)
	})
}

// at are the endpoints of a host on a network.
func (f *far) at(network, host string) (ids []string) {
	if f.counts[seat{network, host}] == 0 {
		return nil
	}
	for id := range f.of[network] {
		if f.endpoints[id].Host == host {
			ids = append(ids, id)
		}
	}
	return ids
}

// like are the other hosts that have something of what h has: for a while a host that
// joined anew is there twice, and there may be mistakes.
func (f *far) like(h fabric.Host) (ids []string) {
	for id, o := range f.hosts {
		if id != h.ID && (o.Addr == h.Addr || sharesKey(o, h)) {
			ids = append(ids, id)
		}
	}
	return ids
}

func sharesKey(a, b fabric.Host) bool {
	return slices.ContainsFunc([]string{a.Key, a.OldKey}, func(k string) bool { return k != "" && (k == b.Key || k == b.OldKey) })
}

// leads is a host that is alive and can be reached. Of those that are alike one is.
func (f *far) leads(id string) (h fabric.Host, ok bool) {
	h, ok = f.hosts[id]
	if !ok || !usableHost(h) {
		return h, false
	}
	return h, !slices.ContainsFunc(f.like(h), func(other string) bool { return other < id && usableHost(f.hosts[other]) })
}

// plausible reports whether what others wrote down can be on n: they may be mistaken.
func (n Network) plausible(e fabric.Endpoint) bool {
	mac := macOf(e)
	if len(e.Addrs) == 0 || mac[0]&1 != 0 || mac == (netspec.MAC{}) || mac == GatewayMAC(n.ID) {
		return false
	}
	for _, a := range e.Addrs {
		i := slices.IndexFunc(n.Pools, func(p Pool) bool { return p.Subnet.Contains(a.Addr()) })
		if i < 0 || n.Pools[i].Gateway == a.Addr() || n.Pools[i].reserved(a.Addr()) {
			return false
		}
	}
	return true
}

// usableHost reports whether a host says where a tunnel to it can end.
func usableHost(h fabric.Host) bool {
	a := h.Addr
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.Zone() == "" && !a.Is4In6()
}
