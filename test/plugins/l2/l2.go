// Package l2 is a network plugin of Docker's protocol for tests, written with Docker's
// own library for plugins: each network is a bridge, each endpoint a veth on it.
//
// It is strict where plugins in the field are: it knows only what it was told since it
// was started, it takes a network twice for a mistake, and it deletes an endpoint only
// when its link is back on the host.
package l2

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/vishvananda/netlink"
)

// Driver is the plugin.
type Driver struct {
	Links *netlink.Handle // in the host's namespace
	Scope string          // "": local

	mu       sync.Mutex
	networks map[string]*state
	calls    []string
}

type state struct {
	bridge    string
	gateway   string
	route     string
	endpoints map[string]bool // whether each has joined
	ports     map[string]any  // by endpoint, as they were asked for
}

var _ plugin.Driver = (*Driver)(nil)

// Serve answers on l until it is closed.
func (d *Driver) Serve(l net.Listener) error { return plugin.NewHandler(d).Serve(l) }

// Calls are those that came, oldest first.
func (d *Driver) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// Ports are those that were asked for an endpoint of a network, in JSON.
func (d *Driver) Ports(network, endpoint string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.networks[network]
	if !ok {
		return ""
	}
	b, _ := json.Marshal(n.ports[endpoint]) // it came as JSON
	return string(b)
}

// enter is called first by each call.
func (d *Driver) enter(call string) func() {
	d.mu.Lock()
	d.calls = append(d.calls, call)
	return d.mu.Unlock
}

func (d *Driver) network(id string) (*state, error) {
	n, ok := d.networks[id]
	if !ok {
		return nil, fmt.Errorf("network %s not found", id)
	}
	return n, nil
}

func (d *Driver) endpoint(network, id string) (*state, error) {
	n, err := d.network(network)
	if err != nil {
		return nil, err
	}
	if _, ok := n.endpoints[id]; !ok {
		return nil, fmt.Errorf("endpoint %s not found", id)
	}
	return n, nil
}

// GetCapabilities implements plugin.Driver.
func (d *Driver) GetCapabilities() (*plugin.CapabilitiesResponse, error) {
	defer d.enter("GetCapabilities")()
	if d.Scope != "" {
		return &plugin.CapabilitiesResponse{Scope: d.Scope, ConnectivityScope: d.Scope}, nil
	}
	return &plugin.CapabilitiesResponse{Scope: plugin.LocalScope, ConnectivityScope: plugin.LocalScope}, nil
}

// AllocateNetwork implements plugin.Driver.
func (d *Driver) AllocateNetwork(r *plugin.AllocateNetworkRequest) (*plugin.AllocateNetworkResponse, error) {
	defer d.enter("AllocateNetwork")()
	return &plugin.AllocateNetworkResponse{Options: map[string]string{"tag": "7"}}, nil
}

// FreeNetwork implements plugin.Driver.
func (d *Driver) FreeNetwork(*plugin.FreeNetworkRequest) error {
	defer d.enter("FreeNetwork")()
	return nil
}

// CreateNetwork implements plugin.Driver. Its option "route" is a static route of all
// endpoints.
func (d *Driver) CreateNetwork(r *plugin.CreateNetworkRequest) error {
	defer d.enter("CreateNetwork")()
	if _, ok := d.networks[r.NetworkID]; ok {
		return fmt.Errorf("network %s already exists", r.NetworkID)
	}
	n := &state{bridge: "l2b" + r.NetworkID[:8], endpoints: map[string]bool{}, ports: map[string]any{}}
	if generic, ok := r.Options["com.docker.network.generic"].(map[string]any); ok {
		n.route, _ = generic["route"].(string)
	}
	if err := d.bridge(n, r); err != nil {
		return err
	}
	if d.networks == nil {
		d.networks = map[string]*state{}
	}
	d.networks[r.NetworkID] = n
	return nil
}

// bridge makes a network's bridge with its gateways, or takes the one that was left by
// a plugin before this one.
func (d *Driver) bridge(n *state, r *plugin.CreateNetworkRequest) error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.bridge}}
	if _, err := d.Links.LinkByName(n.bridge); err != nil {
		if err := d.Links.LinkAdd(br); err != nil {
			return err
		}
	}
	link, err := d.Links.LinkByName(n.bridge)
	if err != nil {
		return err
	}
	for _, p := range slices.Concat(r.IPv4Data, r.IPv6Data) {
		if p.Gateway == "" {
			continue
		}
		a, err := netlink.ParseAddr(p.Gateway)
		if err != nil {
			return err
		}
		if a.IP.To4() != nil {
			n.gateway = a.IP.String()
		}
		if err := d.Links.AddrReplace(link, a); err != nil {
			return err
		}
	}
	return d.Links.LinkSetUp(link)
}

// DeleteNetwork implements plugin.Driver.
func (d *Driver) DeleteNetwork(r *plugin.DeleteNetworkRequest) error {
	defer d.enter("DeleteNetwork")()
	n, err := d.network(r.NetworkID)
	if err != nil {
		return err
	}
	if len(n.endpoints) > 0 {
		return fmt.Errorf("network has endpoints: %v", slices.Sorted(maps.Keys(n.endpoints)))
	}
	link, err := d.Links.LinkByName(n.bridge)
	if err == nil {
		err = d.Links.LinkDel(link)
	}
	delete(d.networks, r.NetworkID)
	return err
}

func hostEnd(id string) string      { return "l2h" + id[:8] }
func containerEnd(id string) string { return "l2c" + id[:8] }

// CreateEndpoint implements plugin.Driver.
func (d *Driver) CreateEndpoint(r *plugin.CreateEndpointRequest) (*plugin.CreateEndpointResponse, error) {
	defer d.enter("CreateEndpoint")()
	n, err := d.network(r.NetworkID)
	if err != nil {
		return nil, err
	}
	br, err := d.Links.LinkByName(n.bridge)
	if err != nil {
		return nil, err
	}
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: hostEnd(r.EndpointID), MasterIndex: br.Attrs().Index}, PeerName: containerEnd(r.EndpointID)}
	if err := d.Links.LinkAdd(v); err != nil {
		return nil, err
	}
	n.endpoints[r.EndpointID] = false
	answer := &plugin.EndpointInterface{}
	if r.Interface.MacAddress == "" {
		answer.MacAddress = "02:1a:00:00:00:" + r.EndpointID[:2]
	}
	return &plugin.CreateEndpointResponse{Interface: answer}, d.Links.LinkSetUp(v)
}

// DeleteEndpoint implements plugin.Driver.
func (d *Driver) DeleteEndpoint(r *plugin.DeleteEndpointRequest) error {
	defer d.enter("DeleteEndpoint")()
	n, err := d.endpoint(r.NetworkID, r.EndpointID)
	if err != nil {
		return err
	}
	host, err := d.Links.LinkByName(hostEnd(r.EndpointID))
	if err == nil {
		if _, err := d.Links.LinkByName(containerEnd(r.EndpointID)); err != nil {
			return fmt.Errorf("link %s of the endpoint is not back on the host", containerEnd(r.EndpointID))
		}
		if err := d.Links.LinkDel(host); err != nil {
			return err
		}
	}
	delete(n.endpoints, r.EndpointID)
	return nil
}

// EndpointInfo implements plugin.Driver.
func (d *Driver) EndpointInfo(r *plugin.InfoRequest) (*plugin.InfoResponse, error) {
	defer d.enter("EndpointOperInfo")()
	n, err := d.endpoint(r.NetworkID, r.EndpointID)
	if err != nil {
		return nil, err
	}
	return &plugin.InfoResponse{Value: map[string]string{"bridge": n.bridge}}, nil
}

// Join implements plugin.Driver.
func (d *Driver) Join(r *plugin.JoinRequest) (*plugin.JoinResponse, error) {
	defer d.enter("Join")()
	n, err := d.endpoint(r.NetworkID, r.EndpointID)
	if err != nil {
		return nil, err
	}
	n.endpoints[r.EndpointID] = true
	out := &plugin.JoinResponse{InterfaceName: plugin.InterfaceName{SrcName: containerEnd(r.EndpointID), DstPrefix: "eth"}, Gateway: n.gateway}
	if n.route != "" {
		out.StaticRoutes = []*plugin.StaticRoute{{Destination: n.route, NextHop: n.gateway}}
	}
	return out, nil
}

// Leave implements plugin.Driver.
func (d *Driver) Leave(r *plugin.LeaveRequest) error {
	defer d.enter("Leave")()
	n, err := d.endpoint(r.NetworkID, r.EndpointID)
	if err != nil {
		return err
	}
	if !n.endpoints[r.EndpointID] {
		return fmt.Errorf("endpoint %s has not joined", r.EndpointID)
	}
	n.endpoints[r.EndpointID] = false
	return nil
}

// DiscoverNew implements plugin.Driver.
func (d *Driver) DiscoverNew(r *plugin.DiscoveryNotification) error {
	defer d.enter(fmt.Sprintf("DiscoverNew %v", r.DiscoveryData))()
	return nil
}

// DiscoverDelete implements plugin.Driver.
func (d *Driver) DiscoverDelete(r *plugin.DiscoveryNotification) error {
	defer d.enter(fmt.Sprintf("DiscoverDelete %v", r.DiscoveryData))()
	return nil
}

// ProgramExternalConnectivity implements plugin.Driver.
func (d *Driver) ProgramExternalConnectivity(r *plugin.ProgramExternalConnectivityRequest) error {
	defer d.enter("ProgramExternalConnectivity")()
	n, err := d.endpoint(r.NetworkID, r.EndpointID)
	if err == nil {
		n.ports[r.EndpointID] = r.Options["com.docker.network.portmap"]
	}
	return err
}

// RevokeExternalConnectivity implements plugin.Driver.
func (d *Driver) RevokeExternalConnectivity(r *plugin.RevokeExternalConnectivityRequest) error {
	defer d.enter("RevokeExternalConnectivity")()
	n, err := d.endpoint(r.NetworkID, r.EndpointID)
	if err != nil {
		return err
	}
	if _, ok := n.ports[r.EndpointID]; !ok {
		return fmt.Errorf("endpoint %s has no external connectivity", r.EndpointID)
	}
	delete(n.ports, r.EndpointID)
	return nil
}
