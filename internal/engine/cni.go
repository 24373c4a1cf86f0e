package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/cni"
	"isle/internal/ids"
	"isle/internal/network"
)

// This file has the commands of CNI: other runtimes put their namespaces on Isle's
// networks. guests.go keeps what they have asked for.

// CNI carries out what a runtime asks of the plugin isle-cni. The answer goes to its
// standard output as it is; nil is none.
func (e *Engine) CNI(ctx context.Context, req cni.Request) ([]byte, error) {
	c, err := cni.Parse(req)
	if err != nil {
		return nil, err
	}
	if e.Guests == nil {
		return nil, cni.With(cni.CodeUnavailable, fmt.Errorf("this isled serves no runtimes: %w", errdefs.ErrUnavailable))
	}
	switch c.Command {
	case cni.Add:
		return e.cniAdd(ctx, c)
	case cni.Del:
		return nil, e.cniDel(ctx, c)
	case cni.Check:
		return nil, e.cniCheck(c)
	case cni.GC:
		return nil, e.cniGC(ctx, c)
	}
	return nil, e.cniStatus(ctx, c)
}

func (e *Engine) cniAdd(ctx context.Context, c cni.Call) ([]byte, error) {
	defer e.guests.lock(c.ContainerID)()
	if _, err := e.guest(c); err == nil {
		return nil, conflict("container %s is attached as %s already", c.ContainerID, c.Interface)
	}
	ns, err := e.openGuest(c)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	n, err := e.guestNetwork(ctx, c)
	if err != nil {
		return nil, err
	}
	a := attachmentOf(c)
	a.Network = n.ID
	if a.Sandbox, err = e.Guests.Lent(ns); err != nil {
		return nil, cni.With(cni.CodeEnvironment, err)
	}
	return e.cniAttach(ctx, c, a, ns)
}

// cniAttach writes the attachment down, and then makes it.
func (e *Engine) cniAttach(ctx context.Context, c cni.Call, a attachment, ns *os.File) ([]byte, error) {
	if e.seated(a) {
		return nil, conflict("container %s is on network %s already, by another interface", a.ContainerID, c.Network)
	}
	if err := e.admit(ctx, a); err != nil {
		return nil, err
	}
	joined, err := e.Guests.Join(ctx, e.joinRequest(c, a, ns))
	if err != nil {
		return nil, errors.Join(err, e.dismiss(ctx, a))
	}
	out, err := c.Prev.With(c.Version, made(c, joined))
	if err != nil {
		return nil, errors.Join(err, e.dismiss(ctx, a))
	}
	return out, nil
}

// seated reports whether another attachment has what a is to be: the place of its
// sandbox on its network.
func (e *Engine) seated(a attachment) bool {
	return slices.ContainsFunc(e.guests.of(a.Sandbox), func(b attachment) bool { return b.Network == a.Network })
}

// openGuest opens the namespace. When it is not there, there is nothing to clean up.
func (e *Engine) openGuest(c cni.Call) (*os.File, error) {
	f, err := openPath(apitypes.NetworkMode("ns:" + c.NetNS))
	switch {
	case err == nil:
		return f, nil
	case missing(c.NetNS):
		return nil, cni.With(cni.CodeUnknown, notFound("network namespace %s is not there", c.NetNS))
	}
	return nil, cni.With(cni.CodeEnvironment, err)
}

func missing(file string) bool {
	_, err := os.Lstat(file)
	return errors.Is(err, fs.ErrNotExist)
}

// guestNetwork is the network that a configuration names. It is made when it is not
// there and the configuration says how.
func (e *Engine) guestNetwork(ctx context.Context, c cni.Call) (network.Network, error) {
	n, err := e.Networks.Find(ctx, c.Network)
	if err == nil && (isNone(n) || isHost(n)) {
		return n, invalid("network %s gives no interface to a namespace", n.Name)
	}
	if !errdefs.IsNotFound(err) {
		return n, err
	}
	if c.Create == nil {
		return n, fmt.Errorf("network %s not found (hint: isle network create %s): %w", c.Network, c.Network, err)
	}
	req := *c.Create
	req.Name = c.Network
	if _, err := e.NetworkCreate(ctx, req); err != nil && !errdefs.IsConflict(err) && !errdefs.IsAlreadyExists(err) {
		return n, fmt.Errorf("create network %s: %w", c.Network, err)
	}
	return e.Networks.Find(ctx, c.Network)
}

// joinRequest is what the network part is asked for.
func (e *Engine) joinRequest(c cni.Call, a attachment, ns *os.File) network.JoinRequest {
	name := or(c.Name, ids.Short(c.ContainerID))
	s := networktypes.EndpointSettings{
		Aliases: c.Aliases, MacAddress: networktypes.HardwareAddr(c.MAC), DriverOpts: map[string]string{network.OptIfname: c.Interface},
		IPAMConfig: &networktypes.EndpointIPAMConfig{},
	}
	limit(s.DriverOpts, network.OptIngress, c.Bandwidth.IngressRate, c.Bandwidth.IngressBurst)
	limit(s.DriverOpts, network.OptEgress, c.Bandwidth.EgressRate, c.Bandwidth.EgressBurst)
	for _, ip := range c.IPs {
		if ip.Is4() {
			s.IPAMConfig.IPv4Address = ip
		} else {
			s.IPAMConfig.IPv6Address = ip
		}
	}
	servers := c.DNS.Nameservers
	if len(servers) == 0 {
		servers = e.Config.Network.DNS
	}
	return network.JoinRequest{
		NS: ns, Name: name, DNS: network.DNSConfig{Upstreams: servers}, WayOut: c.WayOut, Ports: mapped(e.guests.ports(a.Sandbox, "")),
		Place: network.ConnectRequest{Network: a.Network, ContainerName: name, ContainerID: c.ContainerID, Settings: s},
	}
}

// limit writes a rate, and what may come at once, as the option that it is.
func limit(opts map[string]string, option string, rate, burst uint64) {
	switch {
	case rate > 0 && burst > 0:
		opts[option] = fmt.Sprintf("%d/%d", rate, min(burst, network.MostBurst))
	case rate > 0:
		opts[option] = strconv.FormatUint(rate, 10)
	}
}

func mapped(list []cni.Port) network.PortRequest {
	out := networktypes.PortMap{}
	for _, p := range list {
		port, ok := networktypes.PortFrom(uint16(p.ContainerPort), networktypes.IPProtocol(p.Protocol))
		if !ok {
			continue // Parse lets none through
		}
		ip, _ := netip.ParseAddr(p.HostIP) // likewise; invalid: everywhere
		out[port] = append(out[port], networktypes.PortBinding{HostIP: ip, HostPort: strconv.Itoa(int(p.HostPort))})
	}
	return network.PortRequest{Bindings: out}
}

// made is what ADD says of a place. The name server is Isle's, in the namespace.
func made(c cni.Call, j network.Joined) (m cni.Made) {
	if j.HostLink != "" {
		m.Interfaces = append(m.Interfaces, cni.Interface{Name: j.HostLink, MAC: macText(j.HostMAC[:])})
	}
	m.Interfaces = append(m.Interfaces, cni.Interface{Name: c.Interface, MAC: macText(j.Inside.MAC[:]), MTU: j.Inside.MTU, Sandbox: c.NetNS})
	for _, a := range j.Endpoint.Addrs {
		m.Addresses = append(m.Addresses, cni.Address{Prefix: a, Gateway: gateway(j.Network, j.Endpoint, a.Addr().Is4())})
	}
	for _, r := range j.Routes {
		m.Routes = append(m.Routes, cni.Route{Dst: r.Dst, GW: r.Via})
	}
	m.DNS = c.DNS
	m.DNS.Nameservers = []string{network.ResolverAddr.String()}
	return m
}

func macText(mac []byte) string {
	if net.HardwareAddr(mac).String() == "00:00:00:00:00:00" {
		return ""
	}
	return net.HardwareAddr(mac).String()
}

// cniDel: what is not attached is no error. The namespace may be gone.
func (e *Engine) cniDel(ctx context.Context, c cni.Call) error {
	defer e.guests.lock(c.ContainerID)()
	a, err := e.guest(c)
	if err != nil {
		return nil
	}
	return e.dismiss(ctx, a)
}

func (e *Engine) cniCheck(c cni.Call) error {
	defer e.guests.lock(c.ContainerID)()
	a, err := e.guest(c)
	if err != nil {
		return cni.With(cni.CodeUnknown, err)
	}
	lacks, err := e.Guests.Missing(a.Sandbox, a.Network)
	if err != nil {
		return err
	}
	if j, err := e.Guests.Joined(a.Sandbox, a.Network); err == nil {
		addrs := j.Endpoint.Addrs
		if j.Endpoint.Leased() { // the LAN may have given others since
			addrs = nil
		}
		lacks = append(lacks, c.Prev.Lacks(cni.Interface{Name: c.Interface, Sandbox: c.NetNS}, addrs)...)
	}
	if len(lacks) > 0 {
		return cni.With(cni.CodeCheck, fmt.Errorf("container %s: %s: %w", c.ContainerID, strings.Join(lacks, "; "), errdefs.ErrFailedPrecondition))
	}
	return nil
}

// cniGC removes the attachments of one configuration that the runtime does not name.
func (e *Engine) cniGC(ctx context.Context, c cni.Call) error {
	keep := map[cni.Attachment]bool{}
	for _, v := range c.Valid {
		keep[v] = true
	}
	var errs []error
	for _, a := range e.guests.all() {
		if a.Config == c.Config && a.Runtime == c.Runtime && !keep[cni.Attachment{ContainerID: a.ContainerID, IfName: a.IfName}] {
			errs = append(errs, e.collect(ctx, a))
		}
	}
	return errors.Join(errs...)
}

// collect removes an attachment, unless DEL was faster.
func (e *Engine) collect(ctx context.Context, a attachment) error {
	defer e.guests.lock(a.ContainerID)()
	if _, ok := e.guests.get(a.key()); !ok {
		return nil
	}
	return e.dismiss(ctx, a)
}

// cniStatus: ADD would find its network, or could make it.
func (e *Engine) cniStatus(ctx context.Context, c cni.Call) error {
	_, err := e.Networks.Find(ctx, c.Network)
	if err != nil && (c.Create == nil || !errdefs.IsNotFound(err)) {
		return cni.With(cni.CodeUnavailable, fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable))
	}
	return nil
}
