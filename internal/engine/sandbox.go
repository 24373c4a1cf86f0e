package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/container"
	"isle/internal/network"
)

// This file is between a container's record and package network: what to ask
// of a sandbox, and what of its answer goes into the record.

// ownSandbox reports whether the container has a network namespace of its own.
func ownSandbox(rec container.Record) bool {
	m := rec.Host.NetworkMode
	return !m.IsHost() && !m.IsContainer() && !isPath(m)
}

// openNetworks makes the container's sandbox with all its endpoints.
func (e *Engine) openNetworks(ctx context.Context, c *entry, rec container.Record) (network.Opened, error) {
	req := network.OpenRequest{ID: rec.ID, Name: rec.Name, Sysctls: netSysctls(rec.Host.Sysctls), Router: routes(rec), DNS: e.upstreams(rec)}
	if !rec.Config.NetworkDisabled {
		for _, name := range endpointOrder(rec) {
			place, err := e.connectRequest(ctx, rec, name)
			if err != nil {
				return network.Opened{}, err
			}
			if place != nil {
				req.Networks = append(req.Networks, *place)
			}
		}
		req.Ports = portRequest(rec)
	}
	return e.enterOwn(ctx, c, req)
}

// routes reports whether the container was given the power over its network: it
// may then be a gateway for others.
func routes(rec container.Record) bool {
	return rec.Host.Privileged || slices.ContainsFunc(rec.Host.CapAdd, func(c string) bool {
		c = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		return c == "ALL" || c == "NET_ADMIN"
	})
}

// connectRequest is nil for the network "none", which has nothing to connect to.
func (e *Engine) connectRequest(ctx context.Context, rec container.Record, name string) (*network.ConnectRequest, error) {
	s := rec.Networks[name]
	n, err := e.networkOf(ctx, name, s)
	if err != nil {
		return nil, err
	}
	if isNone(n) || isHost(n) {
		return nil, nil
	}
	return &network.ConnectRequest{Network: n.ID, ContainerName: rec.Name, ContainerID: rec.ID, Settings: wishes(s, rec.MACs[name])}, nil
}

// networkOf finds the network of an endpoint: by its id, and when it was made
// anew since, by its name.
func (e *Engine) networkOf(ctx context.Context, name string, s *networktypes.EndpointSettings) (network.Network, error) {
	if s != nil && s.NetworkID != "" {
		if n, err := e.Networks.Find(ctx, s.NetworkID); err == nil {
			return n, nil
		}
	}
	return e.Networks.Find(ctx, name)
}

// endpointOrder is the order of interfaces: the network of NetworkMode first,
// the others by name.
func endpointOrder(rec container.Record) []string {
	mode := string(rec.Host.NetworkMode)
	names := slices.Sorted(maps.Keys(rec.Networks))
	slices.SortStableFunc(names, func(a, b string) int {
		return rank(rec, mode, a) - rank(rec, mode, b)
	})
	return names
}

func rank(rec container.Record, mode, name string) int {
	if s := rec.Networks[name]; name == mode || s != nil && s.NetworkID == mode {
		return 0
	}
	return 1
}

// wishes are the configuration fields of s.
func wishes(s *networktypes.EndpointSettings, mac networktypes.HardwareAddr) networktypes.EndpointSettings {
	if s == nil {
		return networktypes.EndpointSettings{MacAddress: mac}
	}
	return networktypes.EndpointSettings{
		IPAMConfig: s.IPAMConfig.Copy(), Links: s.Links, Aliases: s.Aliases,
		DriverOpts: s.DriverOpts, GwPriority: s.GwPriority, MacAddress: mac,
	}
}

// cleared is s without what a run made of it.
func cleared(s *networktypes.EndpointSettings, mac networktypes.HardwareAddr) *networktypes.EndpointSettings {
	w := wishes(s, mac)
	if s != nil {
		w.NetworkID = s.NetworkID
		w.DNSNames = s.DNSNames
	}
	return &w
}

// clearedNetworks is rec as it is when it does not run.
func clearedNetworks(rec container.Record) container.Record {
	out := make(map[string]*networktypes.EndpointSettings, len(rec.Networks))
	for name, s := range rec.Networks {
		out[name] = cleared(s, rec.MACs[name])
	}
	rec.Networks, rec.Ports, rec.NetOwner = out, nil, ""
	return rec
}

// connected puts what became of a sandbox into rec, which is a copy.
func (e *Engine) connected(ctx context.Context, rec *container.Record, opened network.Opened) error {
	out := maps.Clone(rec.Networks)
	if out == nil {
		out = map[string]*networktypes.EndpointSettings{}
	}
	for _, ep := range opened.Endpoints {
		n, err := e.Networks.Find(ctx, ep.Network)
		if err != nil {
			return err
		}
		out[n.Name] = settings(out[n.Name], n, ep)
	}
	rec.Networks, rec.Ports = out, opened.Ports
	return nil
}

// settings is an endpoint as "inspect" shows it.
func settings(want *networktypes.EndpointSettings, n network.Network, ep network.Endpoint) *networktypes.EndpointSettings {
	s := wishes(want, macOf(ep))
	s.NetworkID, s.EndpointID, s.DNSNames = n.ID, ep.ID, ep.Names
	for _, p := range ep.Addrs {
		gw := gateway(n, ep, p.Addr().Is4())
		if p.Addr().Is4() {
			s.IPAddress, s.IPPrefixLen, s.Gateway = p.Addr(), p.Bits(), gw
		} else {
			s.GlobalIPv6Address, s.GlobalIPv6PrefixLen, s.IPv6Gateway = p.Addr(), p.Bits(), gw
		}
	}
	return &s
}

// bindings are the ports to publish: those asked for, and with --publish-all
// every exposed one on a port of our choice.
func bindings(rec container.Record) networktypes.PortMap {
	out := networktypes.PortMap{}
	for p, bs := range rec.Host.PortBindings {
		out[p] = bs
		if len(bs) == 0 {
			out[p] = []networktypes.PortBinding{{}}
		}
	}
	if rec.Host.PublishAllPorts {
		for p := range rec.Config.ExposedPorts {
			if len(out[p]) == 0 {
				out[p] = []networktypes.PortBinding{{}}
			}
		}
	}
	return out
}

func (e *Engine) upstreams(rec container.Record) network.DNSConfig {
	var d network.DNSConfig
	for _, a := range rec.Host.DNS {
		d.Upstreams = append(d.Upstreams, a.String())
	}
	if len(d.Upstreams) == 0 {
		d.Upstreams = e.Config.Network.DNS
	}
	return d
}

// netSysctls are those that belong to the network namespace.
func netSysctls(all map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range all {
		if strings.HasPrefix(k, "net.") {
			out[k] = v
		}
	}
	return out
}

// announceNetworks emits "connect" or "disconnect" for the networks that the
// Manager does not do it for: those without endpoints.
func (e *Engine) announceNetworks(ctx context.Context, rec container.Record, action events.Action) {
	for _, name := range endpointOrder(rec) {
		if n, err := e.networkOf(ctx, name, rec.Networks[name]); err == nil && (isNone(n) || isHost(n)) {
			e.emitNetwork(n, action, rec.ID)
		}
	}
}

// sharer finds the container whose namespace of the given kind ("network",
// "PID", "IPC") rec joins; it runs.
func (e *Engine) sharer(kind, ref string) (container.Record, error) {
	c, err := e.find(ref)
	if err != nil {
		return container.Record{}, err
	}
	rec := c.snapshot()
	switch {
	case rec.State.Status == apitypes.StateRestarting:
		return rec, conflict("Container %s is restarting, wait until the container is running", rec.Name)
	case !rec.State.Alive():
		return rec, conflict("cannot join %s namespace of a non running container: %s", kind, rec.Name)
	}
	return rec, nil
}

// openNS is the path of the namespace that a container which runs is in: its
// file, since a process may end and its number be used again. Only who has none
// of its own, the host's or another container's, is found through its process.
func (e *Engine) openNS(rec container.Record) (string, error) {
	if !ownSandbox(rec) {
		return fmt.Sprintf("/proc/%d/ns/net", rec.State.Pid), nil
	}
	path, err := e.Networks.Path(rec.ID)
	if err != nil {
		return "", fmt.Errorf("the network namespace of container %s: %w", rec.Name, err)
	}
	return path, nil
}

// unplug takes the links of a namespace away that lives on after its sandbox.
// Else they go with the namespace; here they would stay, with addresses that
// others are given.
func (e *Engine) unplug(ctx context.Context, rec container.Record) error {
	var errs []error
	for _, name := range endpointOrder(rec) {
		n, err := e.networkOf(ctx, name, rec.Networks[name])
		if err != nil || isNone(n) || isHost(n) {
			continue
		}
		if err := e.Networks.Disconnect(ctx, rec.ID, n.ID); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// filesOf is the id of the container whose hosts, hostname and resolv.conf are
// mounted: those go with the network.
func (e *Engine) filesOf(rec container.Record) string {
	if rec.NetOwner != "" {
		return rec.NetOwner
	}
	if rec.Host.NetworkMode.IsContainer() {
		if c, err := e.find(rec.Host.NetworkMode.ConnectedContainer()); err == nil {
			return e.filesOf(c.snapshot())
		}
	}
	return rec.ID
}

func gateway(n network.Network, ep network.Endpoint, v4 bool) (a netip.Addr) {
	if ep.Leased() || ep.Result != nil {
		return ep.Gateway(n, v4)
	}
	for _, p := range n.Pools {
		if p.Subnet.Addr().Is4() == v4 && p.Gateway.IsValid() {
			return p.Gateway
		}
	}
	return a
}
