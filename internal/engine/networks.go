package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/api"
	"isle/internal/container"
	"isle/internal/filters"
	"isle/internal/network"
)

// maxNetworkName is as long as a file's name may be.
const maxNetworkName = 255

// NetworkCreate makes a network.
func (e *Engine) NetworkCreate(ctx context.Context, req networktypes.CreateRequest) (networktypes.CreateResponse, error) {
	if err := e.mayCreate(req); err != nil {
		return networktypes.CreateResponse{}, err
	}
	n, err := e.Networks.Create(ctx, req)
	if err != nil {
		return networktypes.CreateResponse{}, err
	}
	return networktypes.CreateResponse{ID: n.ID, Warning: strings.Join(n.Warnings, "\n")}, nil
}

func (e *Engine) mayCreate(req networktypes.CreateRequest) error {
	switch d := or(req.Driver, "default"); {
	case network.Predefined(req.Name) || req.Name == "default":
		return forbidden("operation is not permitted on predefined %s network ", req.Name)
	case len(req.Name) > maxNetworkName:
		return invalid("invalid network name: it has %d characters, at most %d are allowed", len(req.Name), maxNetworkName)
	case !req.ConfigOnly && d != "default" && !e.Networks.KnowsDriver(d):
		return notFound("could not find plugin %s in v1 plugin registry: plugin not found (hint: the drivers of this isled are %s)", d, strings.Join(e.Networks.DriverNames(), ", "))
	}
	return nil
}

// NetworkList lists networks by name.
func (e *Engine) NetworkList(ctx context.Context, f filters.Args) ([]networktypes.Summary, error) {
	if err := f.Validate("dangling", "driver", "id", "label", "label!", "name", "scope", "type"); err != nil {
		return nil, err
	}
	for _, t := range f.Get("type") {
		if t != "custom" && t != "builtin" {
			return nil, invalid("invalid filter: 'type'='%s'", t)
		}
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	all, err := e.Networks.List(ctx)
	if err != nil {
		return nil, err
	}
	used := e.usedNetworks()
	out := []networktypes.Summary{}
	for _, n := range all {
		if f.Has("dangling") && dangling == (used[n.ID] || network.Predefined(n.Name)) {
			continue
		}
		if picksNetwork(f, n) {
			out = append(out, networktypes.Summary{Network: apiNetwork(n)})
		}
	}
	slices.SortFunc(out, func(a, b networktypes.Summary) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

func picksNetwork(f filters.Args, n network.Network) bool {
	kind := "custom"
	if network.Predefined(n.Name) {
		kind = "builtin"
	}
	return f.Exact("driver", n.Driver) && f.Prefix("id", n.ID) && f.Substring("name", n.Name) && f.Exact("scope", scope(n)) &&
		f.Exact("type", kind) && f.Labels("label", n.Labels)
}

// usedNetworks are the ids of networks that some container is on, running or not, or
// one of another runtime.
func (e *Engine) usedNetworks() map[string]bool {
	used := e.guests.networks()
	for _, c := range e.all() {
		for _, s := range c.snapshot().Networks {
			if s != nil {
				used[s.NetworkID] = true
			}
		}
	}
	return used
}

// scope is where a network is. One that its cluster has removed is on this host only.
func scope(n network.Network) string {
	if n.Removed {
		return "local"
	}
	return or(n.Scope, "local")
}

func apiNetwork(n network.Network) networktypes.Network {
	a := networktypes.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: scope(n), Driver: n.Driver, EnableIPv4: n.IPv4, EnableIPv6: n.IPv6,
		IPAM: networktypes.IPAM{Driver: or(n.IPAMDriver, "default"), Options: n.IPAMOptions, Config: []networktypes.IPAMConfig{}}, Internal: n.Internal,
		Attachable: n.Attachable, ConfigOnly: n.ConfigOnly, ConfigFrom: networktypes.ConfigReference{Network: n.ConfigFrom}, Options: n.Options, Labels: n.Labels,
	}
	if a.Options == nil {
		a.Options = map[string]string{}
	}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	for _, p := range n.Pools {
		a.IPAM.Config = append(a.IPAM.Config, networktypes.IPAMConfig{Subnet: p.Subnet, IPRange: p.Range, Gateway: p.Gateway, AuxAddress: p.Aux})
	}
	return a
}

// NetworkInspect shows a network with the running containers on it.
func (e *Engine) NetworkInspect(ctx context.Context, ref string, _ bool) (networktypes.Inspect, error) {
	n, err := e.Networks.Find(ctx, ref)
	if err != nil {
		return networktypes.Inspect{}, err
	}
	eps, err := e.Networks.Endpoints(ctx)
	if err != nil {
		return networktypes.Inspect{}, err
	}
	in := networktypes.Inspect{Network: apiNetwork(n), Containers: map[string]networktypes.EndpointResource{}}
	for _, ep := range eps {
		if ep.Network == n.ID {
			in.Containers[ep.Sandbox] = endpointResource(ep)
		}
	}
	for _, c := range e.all() { // networks without endpoints: host and none
		rec := c.snapshot()
		if s := rec.Networks[n.Name]; s != nil && rec.State.Alive() && (isHost(n) || isNone(n)) {
			in.Containers[rec.ID] = networktypes.EndpointResource{Name: rec.Name}
		}
	}
	if in.Peers, err = e.peers(ctx, n); err != nil {
		return in, err
	}
	in.Status, err = e.ipamStatus(ctx, n)
	return in, err
}

// peers are the hosts of the cluster that have containers on n.
func (e *Engine) peers(ctx context.Context, n network.Network) (out []networktypes.PeerInfo, err error) {
	s, err := e.Networks.Span(ctx, n.ID)
	for _, h := range s.Hosts {
		out = append(out, networktypes.PeerInfo{Name: h.Name, IP: h.Addr})
	}
	return out, err
}

// NetworkSpan says where in its cluster a network is; nil for one of this host.
func (e *Engine) NetworkSpan(ctx context.Context, id string) (*api.NetworkSpan, error) {
	s, err := e.Networks.Span(ctx, id)
	if err != nil || s.VNI == 0 && !s.Removed {
		return nil, err
	}
	out := &api.NetworkSpan{VNI: s.VNI, Here: s.Here, Removed: s.Removed, Known: s.Known, Revision: s.Revision, Hosts: []api.SpanHost{}, Endpoints: []api.SpanEndpoint{}}
	for _, h := range s.Hosts {
		out.Hosts = append(out.Hosts, spanHost(h))
	}
	for _, ep := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, api.SpanEndpoint{Endpoint: ep.Endpoint, Container: ep.Container, Host: ep.Host, Addresses: ep.Addrs, MAC: net.HardwareAddr(ep.MAC[:]).String()})
	}
	return out, nil
}

func spanHost(h network.SpanHost) api.SpanHost {
	out := api.SpanHost{ID: h.ID, Name: h.Name, Address: h.Addr, Containers: h.Containers, Self: h.Self, Way: h.Way}
	if !h.Self {
		out.State, out.LastContact, out.Fit = string(h.Contact.State), h.Contact.Last, h.Contact.Fit
	}
	return out
}

// NetworkOverlaps says what else on this host uses addresses of a network: what
// came after it, since a network is not made over what is there.
func (e *Engine) NetworkOverlaps(ctx context.Context, id string) ([]string, error) {
	all, err := e.Networks.Overlaps(ctx)
	var out []string
	for _, f := range all[id] {
		out = append(out, f.String())
	}
	return out, err
}

// NetworkUplink says which interface of the host a network is on, and how that is; ""
// when it is on none.
func (e *Engine) NetworkUplink(ctx context.Context, id string) (string, error) {
	return e.Networks.Uplink(ctx, id)
}

// NetworkResults is what plug-ins that make a network said of its containers.
func (e *Engine) NetworkResults(ctx context.Context, id string) (map[string]json.RawMessage, error) {
	eps, err := e.Networks.Endpoints(ctx)
	out := map[string]json.RawMessage{}
	for _, ep := range eps {
		if ep.Network == id && ep.Result != nil && len(ep.Result.Raw) > 0 {
			out[ep.Sandbox] = ep.Result.Raw
		}
	}
	return out, err
}

// macOf is nothing where an endpoint has the MAC address of what it is on.
func macOf(ep network.Endpoint) networktypes.HardwareAddr {
	if ep.MAC == [6]byte{} {
		return nil
	}
	return ep.MAC[:]
}

func endpointResource(ep network.Endpoint) networktypes.EndpointResource {
	r := networktypes.EndpointResource{Name: ep.ContainerName, EndpointID: ep.ID, MacAddress: macOf(ep)}
	for _, p := range ep.Addrs {
		if p.Addr().Is4() {
			r.IPv4Address = p
		} else {
			r.IPv6Address = p
		}
	}
	return r
}

// ipamStatus is nil for a network without addresses.
func (e *Engine) ipamStatus(ctx context.Context, n network.Network) (*networktypes.Status, error) {
	if len(n.Pools) == 0 || n.ConfigOnly {
		return nil, nil
	}
	usage, err := e.Networks.Usage(ctx, n.ID)
	subnets := networktypes.SubnetStatuses{}
	for subnet, u := range usage {
		subnets[subnet] = networktypes.SubnetStatus{IPsInUse: u.InUse, DynamicIPsAvailable: u.Available}
	}
	return &networktypes.Status{IPAM: networktypes.IPAMStatus{Subnets: subnets}}, err
}

// NetworkRemove removes a network that no running container is on.
func (e *Engine) NetworkRemove(ctx context.Context, ref string) error {
	n, err := e.Networks.Find(ctx, ref)
	if err != nil {
		return err
	}
	if network.Predefined(n.Name) {
		return forbidden("%s is a pre-defined network and cannot be removed", n.Name)
	}
	_, err = e.Networks.Remove(ctx, n.ID)
	return err
}

// NetworksPrune removes the networks that no container is on, running or not.
func (e *Engine) NetworksPrune(ctx context.Context, f filters.Args) (networktypes.PruneReport, error) {
	report := networktypes.PruneReport{NetworksDeleted: []string{}}
	if err := f.Validate("label", "label!", "until"); err != nil {
		return report, err
	}
	until, err := untilFilter(f)
	if err != nil {
		return report, err
	}
	all, err := e.Networks.List(ctx)
	if err != nil {
		return report, err
	}
	used := e.usedNetworks()
	for _, n := range all {
		// Of a network of the cluster it is not known here whether a container elsewhere
		// that does not run is to be on it, or one of a host that is away.
		if network.Predefined(n.Name) || n.Global() || used[n.ID] || !f.Labels("label", n.Labels) || !until.IsZero() && n.Created.After(until) {
			continue
		}
		if err := e.NetworkRemove(ctx, n.ID); err != nil {
			e.Log.Warn("could not remove network", "network", n.Name, "error", err)
			continue
		}
		report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
	}
	return report, nil
}

// NetworkConnect puts a container on a network: a running one at once, another
// at its next start.
func (e *Engine) NetworkConnect(ctx context.Context, ref string, req networktypes.ConnectRequest) error {
	n, c, err := e.networkAndContainer(ctx, ref, req.Container)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.settled(ctx); err != nil { // the namespace of its last run may be about to go
		return err
	}
	rec := c.snapshot()
	if err := mayConnect(rec, n, req.EndpointConfig); err != nil {
		return err
	}
	var mac networktypes.HardwareAddr
	if req.EndpointConfig != nil {
		mac = req.EndpointConfig.MacAddress
	}
	s := cleared(req.EndpointConfig, mac)
	s.NetworkID, s.DNSNames = n.ID, nil
	if e.hasNetwork(c) {
		live, err := e.connectLive(ctx, rec, n, s)
		if err != nil {
			return e.named(err)
		}
		if rec.State.Alive() {
			s = live
		}
	}
	err = e.update(ctx, c, func(rec *container.Record) error {
		rec.Networks, rec.MACs = maps.Clone(rec.Networks), maps.Clone(rec.MACs)
		if rec.MACs == nil {
			rec.MACs = map[string]networktypes.HardwareAddr{}
		}
		rec.Networks[n.Name] = s
		if len(mac) > 0 {
			rec.MACs[n.Name] = mac
		}
		e.showPorts(rec)
		return nil
	})
	if err != nil {
		return errors.Join(err, e.disconnectLive(context.WithoutCancel(ctx), c, n))
	}
	return nil
}

func (e *Engine) networkAndContainer(ctx context.Context, netRef, ref string) (network.Network, *entry, error) {
	n, err := e.Networks.Find(ctx, netRef)
	if err != nil {
		return n, nil, err
	}
	c, err := e.find(ref)
	return n, c, err
}

func mayConnect(rec container.Record, n network.Network, s *networktypes.EndpointSettings) error {
	switch {
	case rec.Host.NetworkMode.IsContainer():
		return forbidden("container sharing network namespace with another container or host cannot be connected to any other network")
	case isPath(rec.Host.NetworkMode):
		return forbidden("container %s is in a network namespace that is not Isle's: nothing is changed there", rec.Name)
	case rec.Host.NetworkMode.IsHost():
		return forbidden("cannot connect container to host network or out of it: container %s is on the host's network", rec.Name)
	case isHost(n):
		return forbidden("cannot connect container to host network - container must be created in host network mode")
	case isNone(n):
		return forbidden("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case n.ConfigOnly:
		return forbidden("network %s is a config-only network and cannot be used directly to run containers", n.Name)
	}
	if _, on := rec.Networks[n.Name]; on {
		return forbidden("endpoint with name %s already exists in network %s", rec.Name, n.Name)
	}
	if err := checkEndpoint(n, s); err != nil || s == nil {
		return err
	}
	return n.Takes(s.IPAMConfig)
}

func (e *Engine) connectLive(ctx context.Context, rec container.Record, n network.Network, s *networktypes.EndpointSettings) (*networktypes.EndpointSettings, error) {
	ep, err := e.Networks.Connect(ctx, rec.ID, network.ConnectRequest{
		Network: n.ID, ContainerName: rec.Name, ContainerID: rec.ID, Settings: wishes(s, s.MacAddress),
	})
	if err != nil {
		return nil, err
	}
	return settings(s, n, ep), nil
}

func (e *Engine) disconnectLive(ctx context.Context, c *entry, n network.Network) error {
	if !e.hasNetwork(c) || isNone(n) { // of which the Manager has no endpoint
		return nil
	}
	return e.Networks.Disconnect(ctx, c.snapshot().ID, n.ID)
}

// NetworkDisconnect takes a container off a network, also off one that has gone.
// With force also a container that is not known any more.
func (e *Engine) NetworkDisconnect(ctx context.Context, ref, containerRef string, force bool) error {
	n, c, err := e.networkAndContainer(ctx, ref, containerRef)
	switch {
	case err == nil:
	case errdefs.IsNotFound(err) && n.ID == "":
		return e.disconnectGone(ctx, ref, containerRef, err)
	case errdefs.IsNotFound(err) && force:
		return e.disconnectLost(ctx, n, containerRef)
	default:
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.settled(ctx); err != nil {
		return err
	}
	rec := c.snapshot()
	if rec.Host.NetworkMode.IsHost() {
		return forbidden("container cannot be disconnected from host network - container was created in host network mode")
	}
	if _, on := rec.Networks[n.Name]; !on {
		return forbidden("container %s is not connected to network %s", rec.Name, n.Name)
	}
	if err := e.disconnectLive(ctx, c, n); err != nil && !(force && errdefs.IsNotFound(err)) {
		return err
	}
	err = e.offNetwork(ctx, c, n.Name)
	if err == nil && isNone(n) { // of others the Manager tells
		e.emitNetwork(n, events.ActionDisconnect, rec.ID)
	}
	return err
}

// offNetwork records that c is on network name no more.
func (e *Engine) offNetwork(ctx context.Context, c *entry, name string) error {
	return e.update(ctx, c, func(rec *container.Record) error {
		rec.Networks, rec.MACs = maps.Clone(rec.Networks), maps.Clone(rec.MACs)
		delete(rec.Networks, name)
		delete(rec.MACs, name)
		e.showPorts(rec)
		return nil
	})
}

// disconnectGone takes a container off a network that was removed, which it would
// otherwise look for at every start. absent is the error without such a one.
func (e *Engine) disconnectGone(ctx context.Context, ref, containerRef string, absent error) error {
	c, err := e.find(containerRef)
	if err != nil {
		return absent
	}
	c.op.Lock()
	defer c.op.Unlock()
	for name, s := range c.snapshot().Networks {
		if name == ref || ref != "" && s != nil && strings.HasPrefix(s.NetworkID, ref) {
			return e.offNetwork(ctx, c, name)
		}
	}
	return absent
}

// disconnectLost removes an endpoint whose container we do not know.
func (e *Engine) disconnectLost(ctx context.Context, n network.Network, ref string) error {
	eps, err := e.Networks.Endpoints(ctx)
	if err != nil {
		return err
	}
	for _, ep := range eps {
		if ep.Network == n.ID && (ep.ContainerName == ref || ref != "" && strings.HasPrefix(ep.Sandbox, ref)) {
			return e.Networks.Disconnect(ctx, ep.Sandbox, n.ID)
		}
	}
	return notFound("No such container: %s", fmt.Sprint(ref))
}
