package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// Parent is an interface of the host that networks can be on, as it is now.
type Parent struct {
	Name                  string // that networks know it by
	Now                   string // its name, when somebody has changed it since
	Master                string // what it is a port of
	MTU                   int
	MAC                   netspec.MAC
	Up, Carrier, Wireless bool
	Way                   bool       // out of the host
	Addr4, Addr6          netip.Addr // the host's own there; invalid: none
}

// Parents writes interfaces as Host.Parents has them.
func Parents(list []Parent) string {
	var b strings.Builder
	for _, p := range list {
		text, err := json.Marshal(p)
		if err != nil { // it has no field that could fail
			panic(err)
		}
		b.WriteString(p.Name + "\t" + string(text) + "\n")
	}
	return b.String()
}

// Parent finds an interface of the host that is not one of ours.
func (h Host) Parent(name string) (p Parent, ok bool) {
	for line := range strings.Lines(h.Parents) {
		if text, found := strings.CutPrefix(line, name+"\t"); found {
			return p, json.Unmarshal([]byte(text), &p) == nil
		}
	}
	return p, false
}

// own are the host's addresses on such interfaces.
func (h Host) own() (out []netip.Addr) {
	for line := range strings.Lines(h.Parents) {
		name, _, _ := strings.Cut(line, "\t")
		p, _ := h.Parent(name)
		for _, a := range []netip.Addr{p.Addr4, p.Addr6} {
			if a.IsValid() {
				out = append(out, a)
			}
		}
	}
	return out
}

// only is h without the interfaces that no network is on: those of others come and
// go all the time.
func (h Host) only(used map[string]bool) Host {
	var b strings.Builder
	for line := range strings.Lines(h.Parents) {
		if name, _, _ := strings.Cut(line, "\t"); used[name] {
			b.WriteString(line)
		}
	}
	h.Parents = b.String()
	return h
}

// OnLAN reports whether containers of n are on the LAN of the host: others give out
// addresses there, and nothing stands between them and a container's ports.
func (n Network) OnLAN() bool {
	return (n.onParent() || n.IPAMDriver == IPAMDHCP) && !n.ConfigOnly
}

// onParent reports whether n is on an interface of the host by its driver's nature.
func (n Network) onParent() bool {
	return n.Driver == DriverMacvlan || n.Driver == DriverIPvlan
}

// usedParents are the names of interfaces that networks are on: with eth0.50 that
// is eth0 too.
func (m *Manager) usedParents() map[string]bool {
	used := map[string]bool{}
	for _, n := range m.x.networks {
		if !n.OnLAN() {
			continue
		}
		name := n.Options[OptParent]
		for i, c := range name + "." {
			if c == '.' {
				used[name[:i]] = true
			}
		}
	}
	return used
}

// same reports whether plans made for one host hold for the other.
func (m *Manager) same(a, b Host) bool {
	used := m.usedParents()
	return a.only(used) == b.only(used)
}

// ready reports why n cannot have one more container now. The host is looked at
// again before that is said: it may have been told of late.
func (m *Manager) ready(ctx context.Context, n Network) error {
	d, err := m.planner().driver(n)
	if err != nil || !n.OnLAN() {
		return err
	}
	if d.Ready(n, len(m.x.users[n.ID]), m.host) == nil {
		return nil
	}
	if err := m.relook(ctx); err != nil {
		return err
	}
	return inNetwork(n, d.Ready(n, len(m.x.users[n.ID]), m.host))
}

// hanging leaves out removals of what may hang on a parent that is not there: it may
// be there still, under a name that we do not know, and in use.
func (m *Manager) hanging(changes []reconcile.Change) []reconcile.Change {
	links, away := m.waiting()
	if !away {
		return changes
	}
	return slices.DeleteFunc(changes, func(c reconcile.Change) bool {
		if c.New != nil {
			return false
		}
		switch o := c.Old.(type) {
		case netspec.VLAN, netspec.LAN, netspec.Neigh:
			return true
		case netspec.Addr:
			return links[netspec.LAN{NS: o.NS, Name: o.Link}.Key()]
		case netspec.Route: // of the host's there are none but to such links
			return o.NS == "" || links[netspec.LAN{NS: o.NS, Name: o.Dev}.Key()]
		}
		return false
	})
}

// waiting are the links of containers whose parent is away.
func (m *Manager) waiting() (links map[netspec.Key]bool, away bool) {
	links = map[netspec.Key]bool{}
	for id, n := range m.x.networks {
		d, ok := m.Drivers[n.Driver]
		if !ok || !n.OnLAN() || !m.planner().away(d, *n) {
			continue
		}
		away = true
		for _, pl := range m.x.users[id] {
			links[netspec.LAN{NS: pl.NS(), Name: pl.Interface}.Key()] = true
		}
	}
	return links, away
}

// Uplink says which interface of the host a network is on, and how that is; "" when
// it is on none.
func (m *Manager) Uplink(ctx context.Context, id string) (string, error) {
	m.mu.RLock()
	n, ok := m.x.networks[id]
	m.mu.RUnlock()
	if !ok || !n.OnLAN() {
		return "", nil
	}
	h, err := m.Machine.Host(ctx)
	if err != nil {
		return "", fmt.Errorf("look at this host's network: %w", err)
	}
	return m.Drivers[n.Driver].Uplink(*n, h), nil
}

// tellUplinks logs what has become of what networks are on.
func (m *Manager) tellUplinks(before Host) {
	for _, n := range m.x.networks {
		if d, ok := m.Drivers[n.Driver]; ok && n.OnLAN() {
			if was, now := d.Uplink(*n, before), d.Uplink(*n, m.host); was != now {
				m.Log.Warn("the interface that a network is on has changed", "network", n.Name, "now", now, "before", was)
			}
		}
	}
}

// beside reports why n cannot be on this host with the networks that are there.
func (m *Manager) beside(n Network, d Driver) error {
	for _, id := range m.x.sorted {
		if err := d.Beside(n, *m.x.networks[id]); err != nil {
			return inNetwork(n, err)
		}
	}
	return nil
}

// shared reports whether several units may have an object: what networks on one
// parent have in common, or tunnels at one port.
func shared(o netspec.Object) bool {
	switch o := o.(type) {
	case netspec.VLAN, netspec.Tunnel:
		return true
	case netspec.LAN:
		return o.NS == ""
	case netspec.Sysctl:
		return o.NS == ""
	}
	return false
}

// keep leaves alone what other units have too: it is there before a change of some
// units, and stays.
func (m *Manager) keep(units map[string]netspec.State, have, want netspec.State) {
	for _, part := range []netspec.State{have, want} {
		for k, o := range part {
			if shared(o) && m.others(units, o) {
				have[k], want[k] = o, o
			}
		}
	}
}

// others reports whether a unit besides those has o.
func (m *Manager) others(units map[string]netspec.State, o netspec.Object) bool {
	for u, s := range m.units {
		if _, changes := units[u]; !changes && s[o.Key()] == o {
			return true
		}
	}
	return false
}
