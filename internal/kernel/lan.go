package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// parent makes or deletes what links of a LAN are made on.
func (k *Kernel) parent(c reconcile.Change) error {
	gone := []netspec.Link{{Name: c.Key.ID}} // as the owner mark is the same
	if c.New == nil || c.Old != nil && c.Old != c.New {
		if err := k.deleteLinks(gone); err != nil || c.New == nil {
			return err
		}
	}
	made, err := k.makeParent(c.New, c.Key.ID)
	if err == nil {
		err = k.raise(c.Key.ID)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("make interface %s: %w", c.Key.ID, err)
	if made {
		err = errors.Join(err, k.deleteLinks(gone))
	}
	return err
}

// makeParent makes o, unless it is there and ours.
func (k *Kernel) makeParent(o netspec.Object, name string) (made bool, err error) {
	var on string
	var msg nlmsg.Message
	switch o := o.(type) {
	case netspec.Dummy:
		msg = rtnl.NewDummy(o, k.mark)
	case netspec.VLAN:
		on = o.Parent
		index, err := k.parentIndex(on)
		if err != nil {
			return false, err
		}
		k.memory.sawParent(on, index)
		msg = rtnl.NewVLAN(o, k.mark, index)
	}
	err = supported(k.rt.Do(msg), o)
	if !errors.Is(err, unix.EEXIST) {
		return err == nil, err
	}
	have, err := k.rt.Link(name)
	if err != nil || have.Group != k.mark.Group || !have.Parental() || have.Parent(on) != o {
		return false, foreign(name, err)
	}
	return false, nil
}

// raise brings a parent of ours up: the host itself has no use for it, so it gets no
// IPv6. Below a parent that is down it stays down, and comes up with it.
func (k *Kernel) raise(name string) error {
	index, err := k.rt.Index(name)
	if err == nil {
		err = netns.Visit(k.host, func() error { return quiet(name, false) })
	}
	if err == nil {
		err = k.rt.Do(rtnl.Up(index))
	}
	if errors.Is(err, unix.ENETDOWN) {
		return nil
	}
	return err
}

// supported says it in words when the kernel does not know a kind of link.
func supported(err error, o netspec.Object) error {
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	feature := ""
	switch o := o.(type) {
	case netspec.VLAN:
		feature = "an 802.1q interface (module 8021q)"
	case netspec.Dummy:
		feature = "a dummy interface (module dummy)"
	case netspec.LAN:
		feature = "an interface of kind " + o.Kind + " (module " + o.Kind + ")"
	case netspec.VXLAN:
		feature = "a tunnel of kind vxlan (module vxlan)"
	}
	return &probe.NotSupportedError{Feature: feature, Err: err}
}

// parentIndex is the number of the interface that a network knows by name, also when
// it was renamed since we first used it.
func (k *Kernel) parentIndex(name string) (int32, error) {
	index, err := k.rt.Index(name)
	if err == nil || rtnl.Gone(err) != nil {
		return index, err
	}
	if old, ok := k.memory.parent(name); ok {
		if _, err := k.rt.LinkAt(old); err == nil {
			return old, nil
		}
	}
	return 0, fmt.Errorf("parent interface %s is not there: %w", name, errdefs.ErrUnavailable)
}

// newLANs are those at the beginning that are new, in one namespace.
func newLANs(cs []reconcile.Change) (out []netspec.LAN) {
	for _, c := range cs {
		l, ok := c.New.(netspec.LAN)
		if !ok || c.Old != nil || len(out) > 0 && l.NS != out[0].NS {
			break
		}
		out = append(out, l)
	}
	return out
}

// lan makes new links of a LAN with what is inside their namespace, or changes or
// deletes one.
func (k *Kernel) lan(rest []reconcile.Change) (int, error) {
	if lans := newLANs(rest); len(lans) > 0 {
		return k.join(lans, inside(rest[len(lans):], lans[0].NS), rest)
	}
	old, _ := rest[0].Old.(netspec.LAN)
	l, ok := rest[0].New.(netspec.LAN)
	if !ok {
		return one(k.inNamespace(old.NS, func(_ *os.File, c *rtnl.Conn) error { return k.deleteLAN(c, old.Name) }))
	}
	set := old
	set.MAC, set.MTU = l.MAC, l.MTU
	if set == l {
		return one(k.setLAN(l))
	}
	if err := k.inNamespace(old.NS, func(_ *os.File, c *rtnl.Conn) error { return k.deleteLAN(c, old.Name) }); err != nil {
		return 0, err
	}
	return k.join([]netspec.LAN{l}, nil, rest)
}

// join makes links and finishes them in a visit to their namespace.
func (k *Kernel) join(lans []netspec.LAN, in, later []reconcile.Change) (int, error) {
	f, err := k.open(lans[0].NS)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for i, l := range lans {
		if err := k.makeLAN(l, f); err != nil {
			return 0, errors.Join(fmt.Errorf("make link %s on %s: %w", l.Name, l.Parent, err), k.deleteLANs(lans[:i], f))
		}
	}
	v := visit{ns: f, ends: lanEnds(lans), in: in, ipv6: ipv6Links(later)}
	n, err := v.run()
	k.announce(in[:max(n-len(lans), 0)], later)
	if n < len(lans) {
		return n, errors.Join(lanBusy(err, lans[n]), k.deleteLANs(lans[n:], f))
	}
	return n, err
}

func lanEnds(lans []netspec.LAN) []farSide {
	ends := make([]farSide, len(lans))
	for i, l := range lans {
		ends[i] = farSide{l.Name, func(c *rtnl.Conn) ([]nlmsg.Message, error) {
			index, err := c.Index(l.Name)
			return []nlmsg.Message{rtnl.UpLAN(index, l)}, err
		}}
	}
	return ends
}

// makeLAN makes one link. A link of a container that has just ended may still be in
// its way.
func (k *Kernel) makeLAN(l netspec.LAN, ns *os.File) (err error) {
	index, err := k.parentIndex(l.Parent)
	if err != nil {
		return err
	}
	for range remakeTries {
		err = supported(k.rt.Do(rtnl.NewLAN(l, k.mark, index, int(ns.Fd()))), l)
		full := errors.Is(err, unix.EINVAL) && l.Mode == "passthru" // perhaps by this very link
		if full || errors.Is(err, unix.EEXIST) {
			keep, cerr := k.clear(l, index, ns)
			if keep || cerr != nil {
				err = cerr
				break
			}
		} else if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(remakeWait)
	}
	if err == nil {
		k.memory.sawLAN(l, index)
	}
	return lanBusy(err, l)
}

// lanBusy says it in words when a parent is not to be had.
func lanBusy(err error, l netspec.LAN) error {
	switch {
	case errors.Is(err, unix.EINVAL) && l.Mode == "passthru":
		return fmt.Errorf("parent interface %s has other links already, and passthru takes it alone: %w: %w", l.Parent, err, errdefs.ErrConflict)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("parent interface %s is taken: it is a port of a bridge or a bond, or has links of macvlan where ipvlan is wanted, or the other way round: %w: %w",
			l.Parent, err, errdefs.ErrConflict)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("another link on %s has the MAC address %x: %w: %w", l.Parent, l.MAC, err, errdefs.ErrConflict)
	}
	return err
}

// clear looks at what has l's name: the very link is kept, another one of ours goes.
func (k *Kernel) clear(l netspec.LAN, parent int32, ns *os.File) (keep bool, err error) {
	c, err := rtnl.Open(ns)
	if err != nil {
		return false, err
	}
	defer c.Close()
	have, err := c.Link(l.Name)
	switch {
	case err != nil:
		return false, rtnl.Gone(err)
	case have.Group != k.mark.Group || !have.OnLAN():
		return false, foreign(l.Name, nil)
	}
	is := have.LAN(l.NS, l.Parent)
	is.MAC, is.MTU = l.MAC, l.MTU
	if is == l && have.Peer == parent {
		return true, nil
	}
	return false, k.deleteLAN(c, l.Name)
}

func (k *Kernel) setLAN(l netspec.LAN) error {
	return k.inNamespace(l.NS, func(_ *os.File, c *rtnl.Conn) error {
		index, err := c.Index(l.Name)
		if err == nil {
			err = c.Do(rtnl.UpLAN(index, l))
		}
		if err != nil {
			return fmt.Errorf("set link %s: %w", l.Name, err)
		}
		return nil
	})
}

func (k *Kernel) deleteLANs(lans []netspec.LAN, ns *os.File) error {
	c, err := rtnl.Open(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, l := range lans {
		err = errors.Join(err, k.deleteLAN(c, l.Name))
	}
	return err
}

// deleteLAN deletes a link that is there and ours. It does not wait for its namespace
// to end: its address on the LAN may be wanted at once.
func (k *Kernel) deleteLAN(c *rtnl.Conn, name string) error {
	have, err := c.Link(name)
	if err == nil && have.OnLAN() && have.Group == k.mark.Group {
		err = c.Do(rtnl.DelLink(name))
	}
	if err = rtnl.Gone(err); err != nil {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	k.rt.Forget()
	return nil
}

// inNamespace opens a socket in a namespace; there is nothing to do in one that is gone.
func (k *Kernel) inNamespace(ns netspec.NS, do func(*os.File, *rtnl.Conn) error) error {
	f, err := k.open(ns)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := rtnl.Open(f)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(f, c)
}

// parents are the names of the host's links by number, as networks know them.
func (k *Kernel) parents() (map[int32]string, error) {
	c, err := rtnl.Open(k.host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := c.Links(false)
	out := rtnl.Names(links)
	k.memory.knownAs(out)
	return out, err
}

// readLANs adds the links of a namespace that are ours and on a LAN. One that is down
// is not finished.
func (k *Kernel) readLANs(s netspec.State, ns netspec.NS, v rtnl.View, parents func() (map[int32]string, error)) error {
	for _, l := range v.Links {
		if !l.OnLAN() || l.Group != k.mark.Group || !l.Up || ns == "" && !k.ours(l) {
			continue
		}
		names, err := parents()
		if err != nil {
			return fmt.Errorf("read parents of links: %w", err)
		}
		o := l.LAN(ns, names[l.Peer])
		k.memory.sawLAN(o, l.Peer)
		s.Add(o)
	}
	return nil
}

// isUp reports whether a link is as far up as it can be: a VLAN is down with its parent.
func isUp(l rtnl.Info, links map[int32]rtnl.Info) bool {
	return l.Up || l.Parental() && l.Peer != 0 && !links[l.Peer].Up
}

// parentFacts are the interfaces of the host that are not ours, by name. One that was
// renamed is there under the name that networks know it by, too.
func (k *Kernel) parentFacts(v rtnl.View) (out []Parent) {
	now := rtnl.Names(slices.Collect(maps.Values(v.Links)))
	known := maps.Clone(now)
	k.memory.knownAs(known)
	for i, l := range v.Links {
		if l.Loopback || k.ours(l) {
			continue
		}
		p := Parent{Name: l.Name, Master: now[l.Master], MTU: int(l.MTU), MAC: l.MAC, Up: l.Up, Carrier: l.Carrier, Wireless: wireless(l.Name)}
		p.Way = slices.ContainsFunc(v.Routes, func(r rtnl.RouteInfo) bool { return r.Index == i && r.Dst.Bits() == 0 })
		p.Addr4, p.Addr6 = v.Own(i, true), v.Own(i, false)
		out = append(out, p)
		if known[i] != now[i] {
			p.Name, p.Now = known[i], now[i]
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Parent) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// wireless reports whether an interface is a radio: an access point takes frames
// from the address that it knows only.
func wireless(name string) bool {
	_, err := os.Stat("/sys/class/net/" + name + "/phy80211")
	return err == nil
}
