package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/sysctl"
	"isle/internal/kernel/wg"
	"isle/internal/netspec"
)

// readers is how many namespaces are read at a time: each holds the kernel's
// network lock for a moment that others wait for.
const readers = 4

// Observe implements reconcile.Kernel.
func (k *Kernel) Observe(ctx context.Context) (netspec.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.observe(ctx)
}

func (k *Kernel) observe(ctx context.Context) (netspec.State, error) {
	s := netspec.State{}
	names, err := k.ns.List()
	if err != nil {
		return nil, err
	}
	peers, err := k.readNamespaces(ctx, s, names)
	if err != nil {
		return nil, err
	}
	if _, err := k.readHost(s, peers, true); err != nil {
		return nil, err
	}
	if err := k.readTable(s); err != nil || k.redirect == nil {
		return s, err
	}
	los, err := k.redirect.Loopbacks(k.cookie)
	for _, o := range los {
		s.Add(o)
	}
	return s, err
}

func (k *Kernel) readTable(s netspec.State) error {
	filters, err := k.table.Read()
	if err != nil {
		return fmt.Errorf("read nftables table %s: %w", k.cfg.Table, err)
	}
	for _, o := range filters {
		s.Add(o)
	}
	return nil
}

// readHost adds what is in the host's namespace. When peers are not all that there
// are, where veths lead is remembered; unknown is how many of them lead where nobody
// knows.
func (k *Kernel) readHost(s netspec.State, peers map[int32]rtnl.Peer, all bool) (unknown int, err error) {
	c, err := rtnl.Open(k.host)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	v, err := c.Read()
	if err != nil {
		return 0, fmt.Errorf("read links, addresses and routes: %w", err)
	}
	names := rtnl.Names(slices.Collect(maps.Values(v.Links)))
	k.memory.knownAs(names)
	if err := k.readLANs(s, "", v, func() (map[int32]string, error) { return names, nil }); err != nil {
		return 0, err
	}
	for _, l := range v.Links {
		// A link that is down is not what anybody wants: to Sync it is
		// missing, and making it again brings it up. One whose namespace is
		// ending is as good as gone; the reaper sees to it.
		if !k.ours(l) || l.OnLAN() || !isUp(l, v.Links) || k.memory.isDying(l.Name, false) {
			continue
		}
		if l.Parental() {
			s.Add(l.Parent(names[l.Peer]))
			continue
		}
		if l.Kind == wg.Kind || l.Kind == wg.KindUser {
			if err := k.readWireGuard(s, l); err != nil {
				return 0, err
			}
			continue
		}
		if l.Kind == netspec.KindVXLAN {
			if err := readVXLAN(s, c, l, names); err != nil {
				return 0, err
			}
			continue
		}
		o, up := v.Object(l, "", peers)
		switch {
		case !up:
			continue
		case o.Peer != "":
			k.memory.saw(l.Index, o)
		case !all && o.Kind == netspec.Veth && l.PeerNS >= 0:
			known := false
			if o, known = k.memory.behind(l.Index, o); !known {
				unknown++
			}
		}
		s.Add(k.memory.wished(o))
	}
	v.Of(k.ours).Objects(s, "")
	k.readHops(s, v)
	if err := k.readShapes(s, "", c, v); err != nil {
		return unknown, err
	}
	if err := k.readGuards(s, c, v); err != nil {
		return unknown, fmt.Errorf("read guards: %w", err)
	}
	return unknown, netns.Visit(k.host, func() error { return k.readSysctls(s, "") })
}

// readNamespaces adds what is in each namespace and returns the views of them
// by the numbers under which the host knows them.
func (k *Kernel) readNamespaces(ctx context.Context, s netspec.State, names []string) (map[int32]rtnl.Peer, error) {
	var mu sync.Mutex
	peers := map[int32]rtnl.Peer{}
	parents := sync.OnceValues(k.parents)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, n := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			part, id, view, err := k.readNamespace(netspec.NS(n), parents)
			if errors.Is(err, os.ErrNotExist) {
				return nil // ended meanwhile
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range part {
				s.Add(o)
			}
			if id >= 0 {
				peers[id] = rtnl.Peer{NS: netspec.NS(n), View: view}
			}
			return err
		})
	}
	return peers, g.Wait()
}

func (k *Kernel) readNamespace(ns netspec.NS, parents func() (map[int32]string, error)) (s netspec.State, id int32, v rtnl.View, err error) {
	s = netspec.State{}
	s.Add(netspec.Namespace{NS: ns})
	f, err := k.open(ns)
	if err != nil {
		return nil, -1, v, err
	}
	defer f.Close()
	var c *rtnl.Conn
	var cookie uint64
	err = netns.Visit(f, func() (err error) {
		if c, err = rtnl.Open(nil); err != nil {
			return err
		}
		if cookie, err = netns.CookieHere(); err != nil {
			return err
		}
		return k.readSysctls(s, ns)
	})
	if c != nil {
		defer c.Close()
	}
	if err != nil {
		return nil, -1, v, err
	}
	k.memory.setCookie(ns, cookie)
	if v, err = c.Read(); err != nil {
		return nil, -1, v, fmt.Errorf("read namespace %s: %w", ns, err)
	}
	if err := k.readLANs(s, ns, v, parents); err != nil {
		return nil, -1, v, fmt.Errorf("read namespace %s: %w", ns, err)
	}
	v.Objects(s, ns)
	if err := k.readShapes(s, ns, c, v); err != nil {
		return nil, -1, v, fmt.Errorf("read namespace %s: %w", ns, err)
	}
	for _, a := range k.memory.announcements(ns) {
		s.Add(a)
	}
	port, err := k.dnsPort(f, cookie)
	if err != nil {
		return nil, -1, v, fmt.Errorf("read namespace %s: %w", ns, err)
	}
	if port != 0 {
		s.Add(netspec.DNSRedirect{NS: ns, Port: port})
	}
	id, err = k.nsid(f)
	return s, id, v, err
}

func (k *Kernel) nsid(f *os.File) (int32, error) {
	c, err := rtnl.Open(k.host)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	return c.NSID(int(f.Fd()))
}

// readSysctls reads, in the calling thread's namespace, those that were set
// there through this Kernel.
func (k *Kernel) readSysctls(s netspec.State, ns netspec.NS) error {
	for _, o := range k.memory.ourSysctls(ns) {
		v, err := sysctl.Read(o.Name)
		if errors.Is(err, os.ErrNotExist) {
			continue // its link is gone
		}
		if err != nil {
			return err
		}
		o.Value = v
		s.Add(o)
	}
	return nil
}
