package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/reconcile"
	"isle/internal/undo"
)

// This file is about sandboxes in namespaces that somebody else made: a Kubernetes
// runtime, say. Such a sandbox is there as long as it is on a network. What is in the
// namespace besides our interfaces is not touched.

// Lender holds namespaces that somebody else made.
type Lender interface {
	// Lent names the namespace that f is. Class InvalidArgument: it is not to be lent.
	Lent(f *os.File) (netspec.NS, error)
	// Borrow holds it, also over a restart, until it is deleted. Idempotent.
	Borrow(ns netspec.NS, f *os.File) error
	// Held reports whether a namespace is there.
	Held(ns netspec.NS) bool
	// Inside looks at an interface in a namespace that is held or open; class NotFound.
	Inside(ns netspec.NS, link string) (Inside, error)
	// Taken says what others have put into a namespace: an interface of that name, and
	// a default route.
	Taken(f *os.File, link string) (there, leadsOut bool, err error)
}

// Inside is an interface as it is seen in its namespace.
type Inside struct {
	MTU   int
	MAC   netspec.MAC
	Up    bool
	Addrs []netip.Prefix
}

// OptDefaultRoute, an option of endpoints: "false" keeps default routes off it.
const OptDefaultRoute = "isle.default_route"

// JoinRequest is a place wanted for a namespace that somebody else made.
type JoinRequest struct {
	NS    *os.File
	Name  string // of the sandbox, when it is made
	DNS   DNSConfig
	Place ConnectRequest
	// WayOut: nil leads the default routes over this place unless there are others.
	WayOut *bool
	Ports  PortRequest // all that the sandbox is to have
}

// Joined is a place that a lent namespace has.
type Joined struct {
	Sandbox  string
	Endpoint Endpoint
	Network  Network
	Inside   Inside
	HostLink string      // the other end, on the host; "": there is none
	HostMAC  netspec.MAC // zero: the kernel chose it
	Routes   []Hop
}

// Hop is a route. Without Via, Dst is on the link.
type Hop struct {
	Dst netip.Prefix
	Via netip.Addr
}

// IsLent reports whether a sandbox is no container's.
func IsLent(sandboxID string) bool { return netspec.NS(sandboxID).Lent() }

// Lent is the id of the sandbox that a namespace is, or would be.
func (m *Manager) Lent(f *os.File) (string, error) {
	if m.Lender == nil {
		return "", fmt.Errorf("network namespace %s: others' cannot be joined here: %w", f.Name(), errdefs.ErrNotImplemented)
	}
	ns, err := m.Lender.Lent(f)
	return string(ns), err
}

// Join puts a namespace on a network, and leaves it as it was when it cannot.
func (m *Manager) Join(ctx context.Context, req JoinRequest) (Joined, error) {
	id, err := m.Lent(req.NS)
	if err == nil {
		err = m.joinable(ctx, req.Place.Network)
	}
	if err != nil {
		return Joined{}, err
	}
	sb, err := m.sandbox(id)
	if errdefs.IsNotFound(err) {
		sb = &sandbox{}
	}
	if err := m.prefer(sb, &req); err != nil {
		return Joined{}, err
	}
	if err := m.bring(ctx, id, len(sb.places) > 0, req); err != nil {
		return Joined{}, err
	}
	out, err := m.Joined(id, req.Place.Network)
	if err != nil {
		return Joined{}, errors.Join(err, m.Leave(context.WithoutCancel(ctx), id, req.Place.Network, PortRequest{}))
	}
	return out, nil
}

// joinable: what others make of a network (External) they make for containers of ours.
func (m *Manager) joinable(ctx context.Context, networkID string) error {
	n, err := m.Find(ctx, networkID)
	if err != nil {
		return err
	}
	if _, others := m.external(&n); others {
		return fmt.Errorf("network %s is of driver %s, which is not Isle's own: namespaces of others cannot join it: %w", n.Name, n.Driver, errdefs.ErrNotImplemented)
	}
	return nil
}

// prefer settles which way the default routes lead: over what came first.
func (m *Manager) prefer(sb *sandbox, req *JoinRequest) error {
	link := req.Place.Settings.DriverOpts[OptIfname]
	there, others, err := m.Lender.Taken(req.NS, link)
	if err != nil {
		return err
	}
	if len(sb.places) > 0 {
		req.Place.Settings.GwPriority = sb.places[len(sb.places)-1].GwPriority - 1
	}
	switch {
	case there:
		return fmt.Errorf("namespace %s has an interface %s already: %w", req.NS.Name(), link, errdefs.ErrAlreadyExists)
	case req.WayOut == nil && others, req.WayOut != nil && !*req.WayOut:
		req.Place.Settings.DriverOpts[OptDefaultRoute] = "false"
	case others:
		return fmt.Errorf("namespace %s has a default route already (hint: \"defaultRoute\": false): %w", req.NS.Name(), errdefs.ErrConflict)
	}
	return nil
}

func (m *Manager) bring(ctx context.Context, id string, open bool, req JoinRequest) error {
	if !open {
		_, err := m.Open(ctx, OpenRequest{ID: id, Name: req.Name, DNS: req.DNS, Networks: []ConnectRequest{req.Place}, Ports: req.Ports, From: req.NS})
		return err
	}
	if _, err := m.Connect(ctx, id, req.Place); err != nil {
		return err
	}
	if _, err := m.SetPorts(ctx, id, req.Ports); err != nil {
		_, undo := m.disconnect(context.WithoutCancel(ctx), id, req.Place.Network)
		return errors.Join(err, undo)
	}
	return nil
}

// borrow holds the namespace that a sandbox is to be made in.
func (m *Manager) borrow(req OpenRequest, u *undo.Stack) error {
	if req.From == nil {
		return nil
	}
	ns := netspec.Namespace{NS: netspec.NS(req.ID)}
	if err := m.Lender.Borrow(ns.NS, req.From); err != nil {
		return err
	}
	u.Push("give namespace back", func(ctx context.Context) error {
		return reconcile.Apply(ctx, m.Kernel, []reconcile.Change{{Key: ns.Key(), Old: ns}})
	})
	return nil
}

// Joined is the place of a lent namespace on a network. Class NotFound: it has none, or
// its interface is not there.
func (m *Manager) Joined(sandboxID, networkID string) (Joined, error) {
	m.op.Lock()
	defer m.op.Unlock()
	sb, err := m.sandboxLocked(sandboxID)
	if err != nil {
		return Joined{}, err
	}
	i := slices.IndexFunc(sb.places, func(pl place) bool { return pl.net.ID == networkID })
	switch {
	case i >= 0:
	case slices.ContainsFunc(m.cluster.waiting[sandboxID], func(ep Endpoint) bool { return ep.Network == networkID }):
		return Joined{}, unheard(networkID)
	default:
		return Joined{}, fmt.Errorf("%s is not on network %s: %w", sb.Name, m.networkName(networkID), errdefs.ErrNotFound)
	}
	out := Joined{Sandbox: sandboxID, Endpoint: sb.places[i].Endpoint, Network: *sb.places[i].net}
	m.describe(&out, m.units[sandboxUnit(sandboxID)])
	out.Inside, err = m.Lender.Inside(sb.NS, out.Endpoint.Interface)
	return out, err
}

// describe fills in what follows from the plan.
func (m *Manager) describe(j *Joined, s netspec.State) {
	for _, o := range s {
		switch o := o.(type) {
		case netspec.Link:
			if o.Peer == j.Endpoint.Interface {
				j.HostLink, j.HostMAC = o.Name, o.MAC
			}
		case netspec.Route:
			if o.Dev == j.Endpoint.Interface && o.Table == 0 && o.NS != "" {
				j.Routes = append(j.Routes, Hop{o.Dst, o.Via})
			}
		}
	}
	slices.SortFunc(j.Routes, func(a, b Hop) int { return strings.Compare(a.Dst.String(), b.Dst.String()) })
}

// Missing says what a place lacks in the kernel, and has it put right.
func (m *Manager) Missing(sandboxID, networkID string) (lacks []string, err error) {
	j, err := m.Joined(sandboxID, networkID)
	if errdefs.IsNotFound(err) {
		lacks = append(lacks, err.Error())
	} else if err != nil {
		return nil, err
	} else {
		lacks = j.lacks()
	}
	if len(lacks) > 0 {
		m.resync()
	}
	return lacks, nil
}

func (j Joined) lacks() (out []string) {
	name := j.Endpoint.Interface
	if !j.Inside.Up {
		out = append(out, "interface "+name+" is down")
	}
	if j.Endpoint.MAC != (netspec.MAC{}) && j.Endpoint.MAC != j.Inside.MAC {
		out = append(out, fmt.Sprintf("interface %s has not the MAC address %s", name, net.HardwareAddr(j.Endpoint.MAC[:])))
	}
	for _, a := range j.Endpoint.Addrs {
		if !slices.Contains(j.Inside.Addrs, a) {
			out = append(out, fmt.Sprintf("interface %s lacks address %s", name, a))
		}
	}
	return out
}

// Leave takes a lent namespace off a network; ports are those that it keeps. With its
// last network the sandbox goes. What is not there is no error.
func (m *Manager) Leave(ctx context.Context, sandboxID, networkID string, ports PortRequest) error {
	seats := m.SeatsOf(sandboxID)
	switch {
	case !slices.ContainsFunc(seats, func(s Seat) bool { return s.Network != networkID }):
		return m.Close(ctx, sandboxID)
	case slices.Contains(seats, Seat{sandboxID, networkID, true}):
		return unheard(networkID)
	}
	if err := m.Disconnect(ctx, sandboxID, networkID); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	_, err := m.SetPorts(ctx, sandboxID, ports)
	return err
}

func unheard(networkID string) error {
	return fmt.Errorf("network %s is a cluster's, which has not been heard of yet: %w", ids.Short(networkID), errdefs.ErrUnavailable)
}

// Seat is a place of a sandbox. Awaited: on a network of a cluster that has not
// been heard of since the start.
type Seat struct {
	Sandbox, Network string
	Awaited          bool
}

// Seats are all that lent namespaces have.
func (m *Manager) Seats() (list []Seat) {
	for _, id := range m.lodgers() {
		list = append(list, m.SeatsOf(id)...)
	}
	return list
}

// lodgers are the sandboxes in lent namespaces.
func (m *Manager) lodgers() (ids []string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for id, sb := range m.x.sandboxes {
		if sb.NS.Lent() {
			ids = append(ids, id)
		}
	}
	return ids
}

// SeatsOf are those of one sandbox.
func (m *Manager) SeatsOf(sandboxID string) (list []Seat) {
	m.op.Lock()
	defer m.op.Unlock()
	sb := m.x.sandboxes[sandboxID]
	if sb == nil {
		return nil
	}
	for _, pl := range sb.places {
		list = append(list, Seat{sandboxID, pl.net.ID, false})
	}
	for _, ep := range m.cluster.waiting[sandboxID] {
		list = append(list, Seat{sandboxID, ep.Network, true})
	}
	return list
}

// ended are the sandboxes whose namespaces are gone, as all are after a boot: nobody
// could make them again.
func (m *Manager) ended() (list []*sandbox) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, sb := range m.x.sandboxes {
		if sb.NS.Lent() && (m.Lender == nil || !m.Lender.Held(sb.NS)) {
			list = append(list, sb)
		}
	}
	return list
}

// forsake takes those out of the records, each by itself.
func (m *Manager) forsake(ctx context.Context, end func(context.Context, *sandbox) error) {
	for _, sb := range m.ended() {
		m.Log.Info("a network namespace of others is gone", "name", sb.Name)
		if err := end(ctx, sb); err != nil {
			m.Log.Error("forget a network namespace of others", "name", sb.Name, "err", err)
		}
	}
}
