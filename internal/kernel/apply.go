package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// Apply implements reconcile.Kernel.
func (k *Kernel) Apply(ctx context.Context, changes []reconcile.Change) (done int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rt.Forget()
	ending := endingNamespaces(changes)
	k.ending = ending
	for done < len(changes) {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		rest := changes[done:]
		if k.diesWithNamespace(rest[0], ending) {
			done++
			continue
		}
		n, err := k.run(ctx, rest)
		k.remember(rest[:n])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// run makes the first of rest and those behind it that go with it.
func (k *Kernel) run(ctx context.Context, rest []reconcile.Change) (n int, err error) {
	if isFilter(rest[0].Key.Rank) {
		return k.filter(ctx, filters(rest))
	}
	switch o := object(rest[0]).(type) {
	case netspec.Namespace:
		return one(k.namespace(rest[0]))
	case netspec.Link:
		if links := newVeths(rest); links > 0 {
			return k.attach(rest[:links], inside(rest[links:], o.PeerNS), rest)
		}
		if moved := movedEnds(rest); len(moved) > 0 {
			return k.moveEnds(moved)
		}
		return one(k.link(rest[0], rest))
	case netspec.VLAN, netspec.Dummy:
		return one(k.parent(rest[0]))
	case netspec.LAN:
		return k.lan(rest)
	case netspec.VXLAN:
		return one(k.vxlan(rest[0]))
	case netspec.WireGuard:
		return one(k.wireguard(rest[0]))
	case netspec.Peer:
		return one(k.peer(rest[0]))
	case netspec.Announce:
		return 1, nil // remembered: no address comes with it
	case netspec.Sysctl, netspec.Addr, netspec.Neigh, netspec.FDB, netspec.Flood, netspec.Rule, netspec.Route, netspec.Hop:
		return k.attach(nil, inside(rest, rest[0].Key.NS), rest)
	case netspec.Guard:
		return one(k.guard(rest[0]))
	case netspec.Shape:
		return one(k.shape(rest[0]))
	default:
		return 0, fmt.Errorf("kernel objects of type %T are not known", o)
	}
}

func one(err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return 1, nil
}

// object is the newer one.
func object(c reconcile.Change) netspec.Object {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// newVeths counts the veths at the beginning that are new and lead into one
// namespace.
func newVeths(cs []reconcile.Change) (n int) {
	var ns netspec.NS
	for _, c := range cs {
		l, ok := c.New.(netspec.Link)
		if !ok || c.Old != nil || l.Kind != netspec.Veth || l.NS != "" || n > 0 && l.PeerNS != ns {
			break
		}
		ns = l.PeerNS
		n++
	}
	return n
}

// inside are the changes at the beginning that one visit to ns makes.
func inside(cs []reconcile.Change, ns netspec.NS) []reconcile.Change {
	for i, c := range cs {
		switch object(c).(type) {
		case netspec.Sysctl, netspec.Addr, netspec.Neigh, netspec.FDB, netspec.Flood, netspec.Rule, netspec.Route, netspec.Hop, netspec.Announce:
			if c.Key.NS == ns {
				continue
			}
		}
		return cs[:i]
	}
	return cs
}

func isFilter(r netspec.Rank) bool { return r == netspec.RankFilter || r == netspec.RankTunnel }

func filters(cs []reconcile.Change) []reconcile.Change {
	for i, c := range cs {
		if c.Key.Rank != cs[0].Key.Rank {
			return cs[:i]
		}
	}
	return cs
}

func endingNamespaces(cs []reconcile.Change) map[netspec.NS]bool {
	m := map[netspec.NS]bool{}
	for _, c := range cs {
		if n, ok := c.Old.(netspec.Namespace); ok && c.New == nil && !n.NS.Lent() {
			m[n.NS] = true
		}
	}
	return m
}

// diesWithNamespace reports whether c deletes what ends by itself with a
// namespace that is deleted in the same call. A resolver's redirect by eBPF is
// not in the namespace, so it does not.
func (k *Kernel) diesWithNamespace(c reconcile.Change, ending map[netspec.NS]bool) bool {
	if c.New != nil || len(ending) == 0 {
		return false
	}
	switch o := c.Old.(type) {
	case netspec.Link:
		if ending[o.PeerNS] && o.Kind == netspec.Veth {
			k.memory.die(o)
			k.silence(o)
			k.reaper.add(o.Name)
			return true
		}
		return ending[o.NS]
	case netspec.Shape, netspec.Sysctl, netspec.Addr, netspec.Neigh, netspec.Rule, netspec.Route, netspec.Announce:
		return ending[c.Key.NS]
	}
	return false
}

// silence takes a port of a bridge out at once whose link goes behind our back: in a
// namespace that lives on for a while there is still somebody who answers, with an
// address that another container may have by now. To take it off the bridge would wait
// for the kernel as long as to delete it.
func (k *Kernel) silence(l netspec.Link) {
	if l.Master == "" {
		return
	}
	index, err := k.rt.Index(l.Name)
	if err == nil {
		err = k.rt.Do(rtnl.ClosePort(index))
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		k.log.Warn("a link that is to go is still heard", "link", l.Name, "err", err)
	}
}

func (k *Kernel) remember(cs []reconcile.Change) {
	for _, c := range cs {
		k.memory.note(c.Key, c.New)
	}
}

func (k *Kernel) namespace(c reconcile.Change) error {
	n := object(c).(netspec.Namespace)
	if c.New != nil {
		cookie, err := k.found(n.NS)
		if err == nil {
			k.memory.setCookie(n.NS, cookie)
			k.memory.begins(n.NS)
		}
		return err
	}
	var err error
	if k.redirect != nil {
		err = k.redirectDNS(netspec.DNSRedirect{NS: n.NS}, nil)
	}
	k.memory.forget(n.NS)
	return errors.Join(err, k.ns.Delete(string(n.NS)))
}
