package network

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network/doctor"
	"isle/internal/store"
)

// The tables; store/schema.go draws them.
var (
	networks  = store.NewTable[Network]("network")
	sandboxes = store.NewTable[Sandbox]("sandbox")
	endpoints = store.NewTable[Endpoint]("endpoint")
	holds     = store.NewTable[string]("publish")
)

// holdKey is of a whole row: that no two rows overlap is the Table's to see to.
func holdKey(p Publish) string {
	where := p.HostIP.String()
	if p.Iface != "" {
		where += "%" + p.Iface
	}
	return fmt.Sprintf("%s/%s/%d", p.Proto, where, p.HostPort)
}

// index is the records in memory, so that no operation reads more of the store
// than it changes. It is rebuilt from the store at start.
type index struct {
	networks  map[string]*Network         // by id; a Network in here is never changed
	names     map[string]string           // name → id
	sorted    []string                    // ids, for prefixes
	numbers   map[int]struct{}            // in use as Network.Index
	free      int                         // no number below it is free
	ipv6      int                         // networks with IPv6
	devices   map[netspec.Key]string      // what networks have on the host → network id
	users     map[string]map[string]place // network id → endpoint id
	sandboxes map[string]*sandbox         // by the container's id
	hostIfs   map[string]struct{}         // the veths' names
	leaves    map[string][]int            // network id → how many endpoints each leaf has
}

// sandbox is a Sandbox and its endpoints, in the order of sorted, with the
// ports assigned. It is replaced, never changed.
type sandbox struct {
	Sandbox
	places []place
}

func newIndex() index {
	return index{
		networks: map[string]*Network{}, names: map[string]string{}, numbers: map[int]struct{}{}, free: 1,
		devices: map[netspec.Key]string{}, users: map[string]map[string]place{},
		sandboxes: map[string]*sandbox{}, hostIfs: map[string]struct{}{}, leaves: map[string][]int{},
	}
}

func (x *index) addNetwork(n *Network, s netspec.State) {
	x.networks[n.ID] = n
	if other, taken := x.names[n.Name]; !taken || x.networks[other].Removed { // a network of the cluster may have the name of one of ours
		x.names[n.Name] = n.ID
	}
	i, _ := slices.BinarySearch(x.sorted, n.ID)
	x.sorted = slices.Insert(x.sorted, i, n.ID)
	x.numbers[n.Index] = struct{}{}
	for _, used := x.numbers[x.free]; used; _, used = x.numbers[x.free] {
		x.free++
	}
	if n.IPv6 {
		x.ipv6++
	}
	x.occupy(n.ID, s)
}

// occupy notes that the objects of s are a network's.
func (x *index) occupy(id string, s netspec.State) {
	for k, o := range s {
		if !shared(o) {
			x.devices[k] = id
		}
	}
}

// nameAnew gives a name to one of the networks that have it: of one that was removed
// nobody speaks when there is another.
func (x *index) nameAnew(name string) {
	delete(x.names, name)
	for _, id := range x.sorted {
		if n := x.networks[id]; n.Name == name && (x.names[name] == "" || !n.Removed) {
			x.names[name] = id
		}
	}
}

func (x *index) dropNetwork(n *Network, s netspec.State) {
	delete(x.networks, n.ID)
	if i, ok := slices.BinarySearch(x.sorted, n.ID); ok {
		x.sorted = slices.Delete(x.sorted, i, i+1)
	}
	if x.names[n.Name] == n.ID {
		x.nameAnew(n.Name)
	}
	delete(x.numbers, n.Index)
	x.free = min(x.free, n.Index)
	if n.IPv6 {
		x.ipv6--
	}
	delete(x.leaves, n.ID)
	for k := range s {
		delete(x.devices, k)
	}
}

// setSandbox replaces what is known of a sandbox; nil: it is gone.
func (x *index) setSandbox(id string, sb *sandbox) {
	if old := x.sandboxes[id]; old != nil {
		for _, pl := range old.places {
			delete(x.users[pl.net.ID], pl.ID)
			delete(x.hostIfs, pl.HostInterface)
			x.sit(pl, -1)
		}
	}
	if sb == nil {
		delete(x.sandboxes, id)
		return
	}
	x.sandboxes[id] = sb
	for _, pl := range sb.places {
		if x.users[pl.net.ID] == nil {
			x.users[pl.net.ID] = map[string]place{}
		}
		x.users[pl.net.ID][pl.ID] = pl
		x.hostIfs[pl.HostInterface] = struct{}{}
		x.sit(pl, 1)
	}
}

// leaf is the first leaf of a network with fewer endpoints than room: that many
// fit on each, so it is found after few.
func (x *index) leaf(id string, room int) int {
	for i, n := range x.leaves[id] {
		if n < room || room == 0 {
			return i
		}
	}
	return len(x.leaves[id])
}

// sit counts an endpoint in or out. A leaf that the network did not have was
// committed together with the endpoint.
func (x *index) sit(pl place, by int) {
	id := pl.net.ID
	for len(x.leaves[id]) <= pl.Leaf {
		x.leaves[id] = append(x.leaves[id], 0)
	}
	x.leaves[id][pl.Leaf] += by
	if n := x.networks[id]; n != nil && n.Leaves < pl.Leaf {
		grown := *n
		grown.Leaves = pl.Leaf
		x.networks[id] = &grown
	}
}

// find is the network that ref means. A name goes before the prefix of an id.
func (x *index) find(ref string) (*Network, error) {
	if n, ok := x.networks[ref]; ok {
		return n, nil
	}
	if n, ok := x.networks[x.names[ref]]; ok {
		return n, nil
	}
	i, _ := slices.BinarySearch(x.sorted, ref)
	begins := func(i int) bool { return ref != "" && i < len(x.sorted) && strings.HasPrefix(x.sorted[i], ref) }
	switch {
	case !begins(i):
		return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("network %s not found", ref))
	case begins(i + 1):
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("network %s is ambiguous (more than one match found on ID prefix)", ref))
	}
	return x.networks[x.sorted[i]], nil
}

// active names the endpoints on a network, as Docker does.
func (x *index) active(id string) string {
	users := slices.SortedFunc(maps.Values(x.users[id]), func(a, b place) int { return strings.Compare(a.ContainerName, b.ContainerName) })
	var names []string
	for _, pl := range users {
		names = append(names, fmt.Sprintf("name:%q id:%q", pl.ContainerName, ids.Short(pl.ID)))
	}
	return strings.Join(names, ", ")
}

// removed are the networks that are gone in the cluster, by name.
func (x *index) removed() map[string]doctor.Removed {
	out := map[string]doctor.Removed{}
	for id, n := range x.networks {
		if !n.Removed {
			continue
		}
		r := doctor.Removed{ID: ids.Short(id)}
		for _, pl := range x.users[id] {
			r.Containers = append(r.Containers, pl.ContainerName)
		}
		slices.Sort(r.Containers)
		out[n.Name] = r
	}
	return out
}

func (x *index) containerName(id string) string {
	if sb, ok := x.sandboxes[id]; ok && sb.Name != "" {
		return sb.Name
	}
	return ids.Short(id)
}
