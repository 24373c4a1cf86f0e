package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"isle/internal/netspec"
	"isle/internal/network/dns"
	"isle/internal/store"
)

// Rename changes a container's names in DNS.
func (m *Manager) Rename(ctx context.Context, sandboxID, from, to string) error {
	m.op.Lock()
	defer m.op.Unlock()
	old := m.x.sandboxes[sandboxID]
	if old == nil {
		return nil // not running: nothing answers to its name
	}
	rec := old.Sandbox
	rec.Name = to
	places := slices.Clone(old.places)
	for i := range places {
		places[i].ContainerName = to
		places[i].Names = renamed(places[i].Names, from, to)
	}
	sb := &sandbox{rec, places}
	err := m.commit(ctx, func(tx store.Tx) (map[string]netspec.State, error) {
		for _, pl := range places {
			if err := endpoints.Put(tx, pl.ID, pl.Endpoint); err != nil {
				return nil, err
			}
		}
		return nil, sandboxes.Put(tx, rec.ID, rec)
	})
	if err != nil {
		return fmt.Errorf("rename container %s: %w", from, err)
	}
	m.became(sandboxID, sb)
	return nil
}

// renamed puts to where from was, at the front: it gives the PTR record.
func renamed(names []string, from, to string) []string {
	out := []string{to}
	for i, n := range names {
		if (i == 0 && n == from) || n == to {
			continue
		}
		out = append(out, n)
	}
	return out
}

// zone tells the resolver of a network.
func (m *Manager) zone(n Network) {
	if m.DNS == nil || n.ConfigOnly {
		return
	}
	z := dns.Zone{Name: n.Name}
	for _, p := range n.Pools {
		z.Subnets = append(z.Subnets, p.Subnet)
	}
	m.DNS.SetZone(n.ID, z)
}

// name makes the resolver answer for sb's endpoints as they are now, instead
// of old's. Either may be nil.
func (m *Manager) name(sb, old *sandbox) {
	if m.DNS == nil {
		return
	}
	var drop, add []dns.Host
	if old != nil {
		drop = hosts(old)
	}
	if sb != nil {
		add = hosts(sb)
	}
	m.DNS.Change(drop, add)
}

func hosts(sb *sandbox) []dns.Host {
	var out []dns.Host
	for _, pl := range sb.places {
		h := dns.Host{Zone: pl.net.ID, Owner: pl.ID, Names: pl.Names}
		for _, a := range pl.Addrs {
			h.Addrs = append(h.Addrs, a.Addr())
		}
		if len(h.Addrs) > 0 {
			out = append(out, h)
		}
	}
	return out
}

// resolve makes a sandbox's resolver answer, in its namespace, or stop.
func (m *Manager) resolve(ctx context.Context, sb *sandbox) error {
	if m.DNS == nil || sb.NS == "" {
		return nil
	}
	if !m.planner().resolves(sb.places) {
		m.DNS.Detach(sb.ID)
		return nil
	}
	ups, err := upstreams(sb.DNS)
	if err != nil {
		return err
	}
	c := dns.Client{Upstreams: ups}
	for _, pl := range sb.places {
		c.Zones = append(c.Zones, pl.net.ID)
		// A container that is on internal networks only must not get a word out
		// of them, not even a question.
		c.Forward = c.Forward || (!pl.net.Internal && len(pl.Addrs) > 0)
	}
	if m.DNS.SetClient(sb.ID, c) {
		return nil
	}
	udp, tcp, err := m.listen(ctx, sb)
	if err != nil {
		return fmt.Errorf("answer names in the namespace of container %s: %w", sb.Name, err)
	}
	m.DNS.Attach(sb.ID, udp, tcp, c)
	return nil
}

// listen opens a resolver's sockets. While isled was away the container may
// have taken the port: then the resolver moves to another one.
func (m *Manager) listen(ctx context.Context, sb *sandbox) (net.PacketConn, net.Listener, error) {
	rec := sb.Sandbox
	for try := 0; ; try++ {
		udp, tcp, err := m.Machine.Listen(ctx, rec.NS, rec.DNSPort)
		if err == nil || try == 16 || !errors.Is(err, syscall.EADDRINUSE) {
			return udp, tcp, err
		}
		rec.DNSPort = dnsFirst + (rec.DNSPort-dnsFirst+1)%dnsCount
		if _, err := m.write(ctx, rec, sb.places, nil); err != nil {
			return nil, nil, err
		}
	}
}

// Names is what the names of a network resolve to, by name and address. ref is
// what Find takes.
func (m *Manager) Names(ctx context.Context, ref string) ([]dns.Record, error) {
	n, err := m.Find(ctx, ref)
	if err != nil || m.DNS == nil {
		return nil, err
	}
	list := m.DNS.List(n.ID)
	far := m.farNames(n)
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := range list {
		list[i].Container = cmp.Or(m.x.users[n.ID][list[i].Owner].ContainerName, far[list[i].Owner].Container)
	}
	return list, nil
}

// upstreams reads the user's name servers: "address" or "address:port".
func upstreams(c DNSConfig) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, s := range c.Upstreams {
		ap, err := dns.ParseServer(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		out = append(out, ap)
	}
	return out, nil
}

// tell publishes an event in Docker's shape.
func (m *Manager) tell(a events.Action, n Network, container string) {
	if m.Events == nil {
		return
	}
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	if container != "" {
		attrs["container"] = container
	}
	m.Events.Publish(events.Message{Type: events.NetworkEventType, Action: a, Actor: events.Actor{ID: n.ID, Attributes: attrs}})
}
