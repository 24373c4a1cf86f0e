package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// link makes, changes or deletes one link of the host.
func (k *Kernel) link(c reconcile.Change, later []reconcile.Change) error {
	old, hadOld := c.Old.(netspec.Link)
	l, ok := c.New.(netspec.Link)
	switch {
	case object(c).(netspec.Link).NS != "":
		return fmt.Errorf("link %s: links are made in the host's namespace only: %w", object(c).(netspec.Link).Name, errdefs.ErrNotImplemented)
	case !ok:
		return k.deleteLinks([]netspec.Link{old})
	case hadOld && blank(old, l) == l:
		return nil // the difference was left to the kernel
	case hadOld && (old.Kind != l.Kind || old.PeerNS != l.PeerNS || old.Peer != l.Peer):
		if err := k.deleteLinks([]netspec.Link{old}); err != nil {
			return err
		}
	case hadOld:
		return k.setLink(l)
	}
	if l.Kind == netspec.Veth {
		n, err := k.attach([]reconcile.Change{{Key: c.Key, New: l}}, nil, later)
		if n == 1 {
			return nil
		}
		return err
	}
	return k.makeBridge(l, ipv6Links(later)[l.Name])
}

func (k *Kernel) makeBridge(l netspec.Link, ipv6 bool) error {
	if err := k.nameAgain(l); err != nil {
		return fmt.Errorf("make link %s: %w", l.Name, err)
	}
	err := k.rt.Do(rtnl.NewLink(beforeMTU(l), k.mark, -1))
	made := err == nil
	switch {
	case made && l.MTU != 0:
		err = k.setLink(l)
	case errors.Is(err, unix.EEXIST):
		if err = k.takeBack(l); err == nil {
			err = k.setLink(l)
		}
	}
	if err == nil {
		err = netns.Visit(k.host, func() error { return quiet(l.Name, ipv6) })
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("make link %s: %w", l.Name, err)
	if made {
		err = errors.Join(err, k.deleteLinks([]netspec.Link{l}))
	}
	return err
}

// takeBack is for a bridge that is there: it is ours by its group, or, when somebody
// has changed that, by the MAC address that is this bridge's alone.
func (k *Kernel) takeBack(l netspec.Link) error {
	have, err := k.rt.Link(l.Name)
	switch {
	case err != nil || have.Kind != l.Kind:
		return foreign(l.Name, err)
	case have.Group == k.mark.Group:
		return nil
	case have.MAC != l.MAC || l.MAC == (netspec.MAC{}):
		return foreign(l.Name, nil)
	}
	k.log.Warn("a bridge of ours had been put into another group: it is in ours again", "bridge", l.Name, "was", have.Group)
	return k.rt.Do(k.mark.Set(have.Index))
}

// nameAgain gives a bridge that somebody renamed its name back: it has our group and
// the MAC address that is this bridge's alone, and its ports are in it.
func (k *Kernel) nameAgain(l netspec.Link) error {
	bridges, err := k.rt.LinksOf(netspec.Bridge)
	if err != nil || l.MAC == (netspec.MAC{}) || slices.ContainsFunc(bridges, func(b rtnl.Info) bool { return b.Name == l.Name }) {
		return err
	}
	i := slices.IndexFunc(bridges, func(b rtnl.Info) bool { return b.Kind == l.Kind && b.Group == k.mark.Group && b.MAC == l.MAC })
	if i < 0 {
		return nil
	}
	k.rt.Forget()
	err = k.rt.Do(rtnl.Rename(bridges[i].Index, l.Name))
	if errors.Is(err, unix.EBUSY) { // before Linux 6.2 it must be down
		err = errors.Join(k.rt.Do(rtnl.DownLink(bridges[i].Index)), k.rt.Do(rtnl.Rename(bridges[i].Index, l.Name)))
	}
	if errors.Is(err, unix.EEXIST) { // somebody else has it
		return nil
	}
	k.log.Warn("a bridge of ours had been renamed: it has its name again", "bridge", l.Name, "was", bridges[i].Name, "err", err)
	return err
}

// beforeMTU is a bridge as it is made, before it gets its MTU: one that is set later
// stays, one that is given at once follows the ports. So does one that was there
// when it was set.
func beforeMTU(l netspec.Link) netspec.Link {
	if l.MTU == defaultMTU {
		l.MTU--
	} else {
		l.MTU = 0
	}
	return l
}

// ours reports whether a link that was found is ours: it has our group, and our
// prefix or a name that the user chose for it, as a VLAN always has.
func (k *Kernel) ours(l rtnl.Info) bool {
	return k.mark.Ours(l.Group, l.Name) || l.Group == k.mark.Group && (l.Parental() || k.memory.named(l.Name))
}

// foreign is a link of somebody else that has the name of one of ours.
func foreign(name string, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("link %s exists and is not ours (hint: take another name for the bridge: -o com.docker.network.bridge.name=…, or network.bridge in isled.toml): %w", name, errdefs.ErrAlreadyExists)
}

// setLink changes a link, and with a veth its far end too.
func (k *Kernel) setLink(l netspec.Link) error {
	if err := k.setEnd(l); err != nil || l.Kind != netspec.Veth {
		return err
	}
	return k.setPeer(l)
}

func (k *Kernel) setEnd(l netspec.Link) error {
	_, err := k.setEnds([]netspec.Link{l})
	return err
}

// setEnds changes links all together and leaves far ends alone: to go there costs
// more than all the rest. done is how many are what they should be.
func (k *Kernel) setEnds(links []netspec.Link) (done int, err error) {
	msgs, of, err := k.endMessages(links)
	if err != nil {
		return 0, err
	}
	errs, err := k.rt.Execute(msgs...)
	if err != nil {
		return 0, fmt.Errorf("set link %s: %w", links[0].Name, err)
	}
	for m, i := range of {
		if errs[m] != nil {
			return i, fmt.Errorf("set link %s: %w", links[i].Name, errs[m])
		}
	}
	return len(links), nil
}

// few is how many links are asked for one by one.
const few = 8

// endMessages are what changes links, and which of them each message is about.
func (k *Kernel) endMessages(links []netspec.Link) (msgs []nlmsg.Message, of []int, err error) {
	if len(links) > few {
		if err := k.rt.Learn(); err != nil {
			return nil, nil, err
		}
	}
	for i, l := range links {
		master, err := k.master(l)
		if err != nil {
			return nil, nil, err
		}
		msgs, of = append(msgs, rtnl.SetLink(l, master)), append(of, i)
		if master == 0 {
			continue
		}
		index, err := k.rt.Index(l.Name)
		if err != nil {
			return nil, nil, err
		}
		msgs, of = append(msgs, rtnl.SetPort(index, l)), append(of, i)
	}
	return msgs, of, nil
}

// movedMost is how many links are changed by one message: more answers would not
// fit into the socket's buffer.
const movedMost = 50

// movedEnds are the changes at the beginning of links whose far ends stay as they
// are: ports whose bridge is another, or was made anew.
func movedEnds(cs []reconcile.Change) []reconcile.Change {
	for i, c := range cs {
		old, ok := c.Old.(netspec.Link)
		l, ok2 := c.New.(netspec.Link)
		if i == movedMost || !ok || !ok2 || l.NS != "" || blank(old, l) == l || farEnd(old) != farEnd(l) {
			return cs[:i]
		}
	}
	return cs
}

// moveEnds makes those changes. The kernel goes on after one that failed, so what
// is behind it is taken back.
func (k *Kernel) moveEnds(cs []reconcile.Change) (done int, err error) {
	before, after := make([]netspec.Link, len(cs)), make([]netspec.Link, len(cs))
	for i, c := range cs {
		before[i], after[i] = c.Old.(netspec.Link), c.New.(netspec.Link)
	}
	done, err = k.setEnds(after)
	if err != nil && done+1 < len(cs) {
		_, uerr := k.setEnds(before[done+1:])
		err = errors.Join(err, uerr)
	}
	return done, err
}

// farEnd is what of a link is not the host's end alone.
func farEnd(l netspec.Link) netspec.Link {
	return joined(netspec.Link{Kind: l.Kind, MTU: l.MTU}, l)
}

func (k *Kernel) setPeer(l netspec.Link) error {
	f, err := k.open(l.PeerNS)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := rtnl.Open(f)
	if err != nil {
		return err
	}
	defer c.Close()
	msgs, err := finish(c, l)
	if err != nil {
		return err
	}
	errs, err := c.Execute(msgs...)
	if err = errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("set peer %s of link %s: %w", l.Peer, l.Name, err)
	}
	return nil
}

// deleteLinks deletes those that are there and ours. It waits for the kernel:
// 20 ms a link, or nearly nothing when the whole namespace goes, see Apply.
func (k *Kernel) deleteLinks(links []netspec.Link) error {
	var errs []error
	for _, l := range links {
		have, err := k.rt.Link(l.Name)
		if err == nil && have.Group != k.mark.Group {
			continue // not ours: ours is not there
		}
		if err == nil {
			err = k.rt.Do(rtnl.DelLink(l.Name))
		}
		if err = rtnl.Gone(err); err != nil {
			errs = append(errs, fmt.Errorf("delete link %s: %w", l.Name, err))
		}
	}
	k.rt.Forget()
	return errors.Join(errs...)
}

const (
	remakeTries = 50
	remakeWait  = 5 * time.Millisecond
)

// remake makes a veth whose name is taken: it keeps the very link, takes the
// place of one of ours that leads elsewhere (the kernel may not have reaped it
// yet) and leaves a foreign one alone.
func (k *Kernel) remake(l netspec.Link, peer *os.File) error {
	for range remakeTries {
		have, err := k.rt.Link(l.Name)
		if err == nil {
			if !k.mark.Ours(have.Group, have.Name) {
				return foreign(l.Name, nil)
			}
			if same, err := k.leadsTo(have, l, peer); err != nil || same {
				return errors.Join(err, k.setIf(same, l))
			}
			err = k.rt.Do(rtnl.DelLink(l.Name))
			k.rt.Forget()
		}
		if err = rtnl.Gone(err); err != nil {
			return err
		}
		if err = k.rt.Do(rtnl.NewLink(l, k.mark, int(peer.Fd()))); !errors.Is(err, unix.EEXIST) {
			return err
		}
		time.Sleep(remakeWait)
	}
	return fmt.Errorf("name stays taken by a link that is ending: %w", errdefs.ErrUnavailable)
}

func (k *Kernel) setIf(same bool, l netspec.Link) error {
	if !same {
		return nil
	}
	return k.setLink(l)
}

// leadsTo reports whether have is a veth whose peer is the one of l.
func (k *Kernel) leadsTo(have rtnl.Info, l netspec.Link, peer *os.File) (bool, error) {
	id, err := int32(-1), error(nil) // both ends in one namespace
	if l.PeerNS != "" {
		id, err = k.rt.NSID(int(peer.Fd()))
	}
	if err != nil || id < 0 && l.PeerNS != "" || id != have.PeerNS || have.Kind != l.Kind {
		return false, err
	}
	c, err := rtnl.Open(peer)
	if err != nil {
		return false, err
	}
	defer c.Close()
	end, err := c.Link(l.Peer)
	return err == nil && end.Index == have.Peer, rtnl.Gone(err)
}
