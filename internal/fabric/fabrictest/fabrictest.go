// Package fabrictest is a cluster's memory in the memory of one process: every host has
// its Directory, and a test can cut one off, let its lease end, and heal it.
package fabrictest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"isle/internal/fabric"
)

// Cluster is the store. The zero value is empty.
type Cluster struct {
	mu        sync.Mutex
	revision  int64
	hosts     map[string]fabric.Host
	networks  map[string]fabric.Network
	endpoints map[string]fabric.Endpoint
	members   []*Directory
}

// Directory is how one host sees the cluster.
type Directory struct {
	c     *Cluster
	self  string
	host  fabric.Host // as it describes itself
	cut   bool
	view  fabric.View
	feeds []*Feed
}

// Feed is the changes that a watcher has not seen yet.
type Feed struct {
	d    *Directory
	list []fabric.Change
	news chan struct{}
}

var _ fabric.Directory = (*Directory)(nil)

// Join adds a host.
func (c *Cluster) Join(h fabric.Host) *Directory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hosts == nil {
		c.hosts, c.networks, c.endpoints = map[string]fabric.Host{}, map[string]fabric.Network{}, map[string]fabric.Endpoint{}
	}
	d := &Directory{c: c, self: h.ID, host: h, view: fabric.View{Self: h.ID}}
	c.members = append(c.members, d)
	c.commit(func(ch *fabric.Change) { c.hosts[h.ID] = h; ch.Hosts[h.ID] = &h })
	d.reset()
	return d
}

// commit makes a change and tells everybody who is not cut off. mu is held.
func (c *Cluster) commit(fn func(ch *fabric.Change)) {
	c.revision++
	ch := fabric.Change{Hosts: map[string]*fabric.Host{}, Networks: map[string]*fabric.Network{}, Endpoints: map[string]*fabric.Endpoint{}, Revision: c.revision}
	fn(&ch)
	for _, d := range c.members {
		if !d.cut && d.view.Known {
			d.view = c.viewOf(d.self)
			d.tell(ch)
		}
	}
}

func (c *Cluster) viewOf(self string) fabric.View {
	return fabric.View{
		Self: self, Hosts: maps.Clone(c.hosts), Networks: maps.Clone(c.networks), Endpoints: maps.Clone(c.endpoints),
		Revision: c.revision, Known: true,
	}
}

func (d *Directory) reset() {
	d.view = d.c.viewOf(d.self)
	d.tell(fabric.Change{Reset: true, Revision: d.c.revision})
}

func (d *Directory) tell(ch fabric.Change) {
	for _, f := range d.feeds {
		f.list = append(f.list, ch)
		select {
		case f.news <- struct{}{}:
		default:
		}
	}
}

// Feed begins to watch; a test takes the changes when it wants to.
func (d *Directory) Feed() *Feed {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	f := &Feed{d: d, news: make(chan struct{}, 1)}
	d.feeds = append(d.feeds, f)
	if d.view.Known {
		f.list = append(f.list, fabric.Change{Reset: true, Revision: d.view.Revision})
	}
	return f
}

// Next takes the next change, if there is one.
func (f *Feed) Next() (ch fabric.Change, ok bool) {
	f.d.c.mu.Lock()
	defer f.d.c.mu.Unlock()
	if len(f.list) == 0 {
		return ch, false
	}
	ch, f.list = f.list[0], f.list[1:]
	return ch, true
}

// Pending reports whether there is one.
func (f *Feed) Pending() bool {
	f.d.c.mu.Lock()
	defer f.d.c.mu.Unlock()
	return len(f.list) > 0
}

// Close ends it.
func (f *Feed) Close() {
	f.d.c.mu.Lock()
	defer f.d.c.mu.Unlock()
	f.d.feeds = slices.DeleteFunc(f.d.feeds, func(o *Feed) bool { return o == f })
}

// Cut has a host not reach the store, as when it restarts while that is away: it knows
// nothing with forgets.
func (d *Directory) Cut(forgets bool) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.cut = true
	if forgets {
		d.view = fabric.View{Self: d.self}
	}
}

// Heal has it reach the store again.
func (d *Directory) Heal() {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	if d.cut = false; d.c.hosts[d.self].ID == "" {
		h := d.host
		d.c.commit(func(ch *fabric.Change) { d.c.hosts[d.self] = h; ch.Hosts[d.self] = &h })
	}
	d.reset()
}

// Expire ends a host's lease: all that it wrote is gone.
func (c *Cluster) Expire(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commit(func(ch *fabric.Change) {
		delete(c.hosts, host)
		ch.Hosts[host] = nil
		for id, e := range c.endpoints {
			if e.Host == host {
				delete(c.endpoints, id)
				ch.Endpoints[id] = nil
			}
		}
	})
}

// Forge writes down what no Directory would.
func (c *Cluster) Forge(e fabric.Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(e)
}

func (c *Cluster) put(e fabric.Endpoint) fabric.Endpoint {
	c.commit(func(ch *fabric.Change) {
		e.Generation = c.revision
		c.endpoints[e.ID] = e
		ch.Endpoints[e.ID] = &e
	})
	return e
}

// View implements fabric.Directory.
func (d *Directory) View() fabric.View {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	return d.view
}

// Watch implements fabric.Directory.
func (d *Directory) Watch(ctx context.Context, fn func(fabric.Change)) error {
	f := d.Feed()
	defer f.Close()
	for {
		for ch, ok := f.Next(); ok; ch, ok = f.Next() {
			fn(ch)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.news:
		}
	}
}

// write runs fn unless the store is out of reach.
func (d *Directory) write(fn func(c *Cluster) error) error {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	if d.cut {
		return fmt.Errorf("the cluster's store cannot be reached: %w", errdefs.ErrUnavailable)
	}
	return fn(d.c)
}

// Describe implements fabric.Directory.
func (d *Directory) Describe(_ context.Context, set func(*fabric.Host)) error {
	return d.write(func(c *Cluster) error {
		h := d.host
		set(&h)
		d.host = h
		c.commit(func(ch *fabric.Change) { c.hosts[d.self] = h; ch.Hosts[d.self] = &h })
		return nil
	})
}

// CreateNetwork implements fabric.Directory.
func (d *Directory) CreateNetwork(_ context.Context, n fabric.Network, vnis []fabric.Range) (fabric.Network, error) {
	err := d.write(func(c *Cluster) error {
		taken := map[uint32]bool{}
		for _, other := range c.networks {
			if other.Name == n.Name {
				return fmt.Errorf("network %s: %w", n.Name, errdefs.ErrAlreadyExists)
			}
			taken[other.VNI] = true
		}
		for _, r := range vnis {
			for v := r.First; v <= r.Last && n.VNI == 0; v++ {
				if !taken[v] {
					n.VNI = v
				}
			}
		}
		if n.VNI == 0 {
			return fmt.Errorf("no VNI is left: %w", errdefs.ErrConflict)
		}
		c.commit(func(ch *fabric.Change) { c.networks[n.ID] = n; ch.Networks[n.ID] = &n })
		return nil
	})
	return n, err
}

// RemoveNetwork implements fabric.Directory.
func (d *Directory) RemoveNetwork(_ context.Context, id string) error {
	return d.write(func(c *Cluster) error {
		for _, e := range c.endpoints {
			if e.Network == id {
				return fmt.Errorf("container %s is on it: %w", e.Container, errdefs.ErrConflict)
			}
		}
		c.commit(func(ch *fabric.Change) { delete(c.networks, id); ch.Networks[id] = nil })
		return nil
	})
}

// Connect implements fabric.Directory.
func (d *Directory) Connect(_ context.Context, e fabric.Endpoint, pools []netip.Prefix, reserved []netip.Addr) (fabric.Endpoint, error) {
	e.Addrs = slices.Clone(e.Addrs)
	err := d.write(func(c *Cluster) error {
		if _, ok := c.networks[e.Network]; !ok {
			return fmt.Errorf("there is no network %s in the cluster: %w", e.Network, errdefs.ErrNotFound)
		}
		taken := c.taken(e.Network, e.ID)
		for _, a := range reserved {
			taken[a] = "nobody"
		}
		for i, a := range e.Addrs {
			got, err := choose(a.Addr(), pools[i], taken)
			if err != nil {
				return err
			}
			e.Addrs[i] = netip.PrefixFrom(got, a.Bits())
		}
		e = c.put(e)
		return nil
	})
	return e, err
}

func (c *Cluster) taken(network, besides string) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for id, e := range c.endpoints {
		for _, a := range e.Addrs {
			if e.Network == network && id != besides {
				out[a.Addr()] = e.Container
			}
		}
	}
	return out
}

func choose(want netip.Addr, pool netip.Prefix, taken map[netip.Addr]string) (netip.Addr, error) {
	if !want.IsUnspecified() {
		if by, ok := taken[want]; ok {
			return want, fmt.Errorf("address %s is in use by %s: %w", want, cmp.Or(by, "somebody"), errdefs.ErrConflict)
		}
		return want, nil
	}
	for a := pool.Masked().Addr(); pool.Contains(a); a = a.Next() {
		if _, ok := taken[a]; !ok {
			return a, nil
		}
	}
	return want, fmt.Errorf("no address of %s is left: %w", pool, errdefs.ErrResourceExhausted)
}

// Disconnect implements fabric.Directory.
func (d *Directory) Disconnect(_ context.Context, id string) error {
	return d.write(func(c *Cluster) error {
		if _, ok := c.endpoints[id]; ok {
			c.commit(func(ch *fabric.Change) { delete(c.endpoints, id); ch.Endpoints[id] = nil })
		}
		return nil
	})
}

// Restore implements fabric.Directory.
func (d *Directory) Restore(_ context.Context, mine []fabric.Endpoint) (lost []fabric.Endpoint, err error) {
	err = d.write(func(c *Cluster) error {
		keep := map[string]bool{}
		for _, e := range mine {
			taken := c.taken(e.Network, e.ID)
			if _, ok := c.networks[e.Network]; !ok || slices.ContainsFunc(e.Addrs, func(a netip.Prefix) bool { return taken[a.Addr()] != "" }) {
				lost = append(lost, e)
				continue
			}
			keep[e.ID] = true
			c.put(e)
		}
		for id, e := range c.endpoints {
			if e.Host == d.self && !keep[id] {
				c.commit(func(ch *fabric.Change) { delete(c.endpoints, id); ch.Endpoints[id] = nil })
			}
		}
		return nil
	})
	return lost, err
}
