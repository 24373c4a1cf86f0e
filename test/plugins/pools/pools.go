// Package pools is a plugin of Docker's protocol that gives out addresses, for tests,
// written with Docker's own library for plugins. It counts up and forgets nothing.
package pools

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	plugin "github.com/docker/go-plugins-helpers/ipam"
)

// Driver is the plugin.
type Driver struct {
	mu    sync.Mutex
	pools map[string]*pool
	calls []string
}

type pool struct {
	subnet, from netip.Prefix
	users        int
	used         map[netip.Addr]bool
}

var _ plugin.Ipam = (*Driver)(nil)

// Serve answers on l until it is closed.
func (d *Driver) Serve(l net.Listener) error { return plugin.NewHandler(d).Serve(l) }

// Calls are those that came, oldest first.
func (d *Driver) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// Used is how many pools and addresses are given out.
func (d *Driver) Used() (pools, addresses int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.pools {
		pools++
		addresses += len(p.used)
	}
	return pools, addresses
}

func (d *Driver) enter(format string, args ...any) func() {
	d.mu.Lock()
	d.calls = append(d.calls, strings.TrimSpace(fmt.Sprintf(format, args...)))
	return d.mu.Unlock
}

// GetCapabilities implements plugin.Ipam.
func (d *Driver) GetCapabilities() (*plugin.CapabilitiesResponse, error) {
	return &plugin.CapabilitiesResponse{RequiresMACAddress: true}, nil
}

// GetDefaultAddressSpaces implements plugin.Ipam.
func (d *Driver) GetDefaultAddressSpaces() (*plugin.AddressSpacesResponse, error) {
	return &plugin.AddressSpacesResponse{LocalDefaultAddressSpace: "test-local", GlobalDefaultAddressSpace: "test-global"}, nil
}

// RequestPool implements plugin.Ipam.
func (d *Driver) RequestPool(r *plugin.RequestPoolRequest) (*plugin.RequestPoolResponse, error) {
	defer d.enter("RequestPool %s %s %s v6=%t %v", r.AddressSpace, r.Pool, r.SubPool, r.V6, r.Options)()
	p := &pool{used: map[netip.Addr]bool{}}
	var err error
	switch {
	case r.Pool != "":
		p.subnet, err = netip.ParsePrefix(r.Pool)
	case r.V6:
		p.subnet = netip.MustParsePrefix(fmt.Sprintf("fd00:200:%x::/64", len(d.pools)+1))
	default:
		p.subnet = netip.MustParsePrefix(fmt.Sprintf("10.200.%d.0/24", len(d.pools)+1))
	}
	if p.from = p.subnet; err == nil && r.SubPool != "" {
		p.from, err = netip.ParsePrefix(r.SubPool)
	}
	if err != nil {
		return nil, err
	}
	id := r.AddressSpace + "/" + p.subnet.String()
	if d.pools == nil {
		d.pools = map[string]*pool{}
	}
	if have, ok := d.pools[id]; ok {
		p = have
	}
	d.pools[id] = p
	p.users++
	return &plugin.RequestPoolResponse{PoolID: id, Pool: p.subnet.String()}, nil
}

// ReleasePool implements plugin.Ipam.
func (d *Driver) ReleasePool(r *plugin.ReleasePoolRequest) error {
	defer d.enter("ReleasePool %s", r.PoolID)()
	p, ok := d.pools[r.PoolID]
	if !ok {
		return fmt.Errorf("pool %s not found", r.PoolID)
	}
	if p.users--; p.users == 0 {
		delete(d.pools, r.PoolID)
	}
	return nil
}

// RequestAddress implements plugin.Ipam.
func (d *Driver) RequestAddress(r *plugin.RequestAddressRequest) (*plugin.RequestAddressResponse, error) {
	defer d.enter("RequestAddress %s %s %v", r.PoolID, r.Address, r.Options)()
	p, ok := d.pools[r.PoolID]
	if !ok {
		return nil, fmt.Errorf("pool %s not found", r.PoolID)
	}
	a := p.from.Addr().Next()
	if r.Address != "" {
		var err error
		if a, err = netip.ParseAddr(r.Address); err != nil {
			return nil, err
		}
		if p.used[a] {
			return nil, fmt.Errorf("address %s is in use", a)
		}
	}
	for p.used[a] {
		a = a.Next()
	}
	if !p.subnet.Contains(a) {
		return nil, fmt.Errorf("address %s is not in pool %s", a, p.subnet)
	}
	p.used[a] = true
	return &plugin.RequestAddressResponse{Address: netip.PrefixFrom(a, p.subnet.Bits()).String()}, nil
}

// ReleaseAddress implements plugin.Ipam.
func (d *Driver) ReleaseAddress(r *plugin.ReleaseAddressRequest) error {
	defer d.enter("ReleaseAddress %s %s", r.PoolID, r.Address)()
	p, ok := d.pools[r.PoolID]
	if !ok {
		return fmt.Errorf("pool %s not found", r.PoolID)
	}
	a, err := netip.ParseAddr(r.Address)
	if err == nil && !p.used[a] {
		err = fmt.Errorf("address %s not found", a)
	}
	delete(p.used, a)
	return err
}
