package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/sysctl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// attach makes new veths and, in one visit, what is inside their peers'
// namespace; without veths it is just the visit. later are all changes to come:
// they tell whether a link will have an IPv6 address.
func (k *Kernel) attach(veths, in, later []reconcile.Change) (done int, err error) {
	ns := object(append(veths[:len(veths):len(veths)], in...)[0])
	name := ns.Key().NS
	links := make([]netspec.Link, len(veths))
	for i, c := range veths {
		links[i] = c.New.(netspec.Link)
		name = links[i].PeerNS
	}
	f, err := k.open(name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) && allDeleted(in) && len(veths) == 0 {
			return len(in), nil
		}
		return 0, err
	}
	defer f.Close()
	if n, err := k.makeVeths(links, f); err != nil {
		return n, err
	}
	v := visit{ns: f, ends: peers(links), in: in, ipv6: ipv6Links(later), mark: k.mark}
	n, err := v.run()
	k.announce(in[:max(n-len(links), 0)], later)
	if n < len(links) { // a peer could not be finished: the link is not what it should be
		return n, errors.Join(err, k.deleteLinks(links[n:]))
	}
	return n, err
}

// farSide is a link that was made in a namespace, and what finishes it there.
type farSide struct {
	name   string
	finish func(*rtnl.Conn) ([]nlmsg.Message, error)
}

func peers(links []netspec.Link) []farSide {
	ends := make([]farSide, len(links))
	for i, l := range links {
		ends[i] = farSide{l.Peer, func(c *rtnl.Conn) ([]nlmsg.Message, error) { return finish(c, l) }}
	}
	return ends
}

// finish are the messages that make a veth's peer what it should be, on a socket
// of its namespace.
func finish(c *rtnl.Conn, l netspec.Link) ([]nlmsg.Message, error) {
	index, err := c.Index(l.Peer)
	if err != nil || l.PeerMaster == "" {
		return []nlmsg.Message{rtnl.UpPeer(index, 0, l)}, err
	}
	master, err := c.Index(l.PeerMaster)
	end := netspec.Link{Isolated: l.PeerIsolated}
	return []nlmsg.Message{rtnl.UpPeer(index, master, l), rtnl.SetPort(index, end)}, err
}

func allDeleted(cs []reconcile.Change) bool {
	for _, c := range cs {
		if c.New != nil {
			return false
		}
	}
	return true
}

// ipv6Links are the names of links that get an IPv6 address.
func ipv6Links(cs []reconcile.Change) map[string]bool {
	m := map[string]bool{}
	for _, c := range cs {
		if a, ok := c.New.(netspec.Addr); ok && a.Prefix.Addr().Is6() {
			m[a.Link] = true
		}
	}
	return m
}

// visit is what happens in one namespace: first the sysctls, for which a thread
// goes there, then everything else by one sendmsg on a socket opened there.
// Results are counted over ends and in, one behind the other.
type visit struct {
	ns   *os.File
	ends []farSide // to be finished
	in   []reconcile.Change
	ipv6 map[string]bool
	mark rtnl.Mark

	conn *rtnl.Conn
	ops  []visitOp
}

type visitOp struct {
	index int // in ends and in
	del   bool
	keeps bool   // what is there already is as good
	v6    string // the link that gets an IPv6 address
	msg   nlmsg.Message
}

func (v *visit) run() (done int, err error) {
	failed := error(nil)
	if err := netns.Visit(v.ns, func() (err error) {
		if v.conn, err = rtnl.Open(nil); err != nil {
			return err
		}
		failed = v.sysctls()
		return nil
	}); err != nil {
		return 0, err
	}
	defer v.conn.Close()
	for i, end := range v.ends {
		msgs, err := end.finish(v.conn)
		if err != nil {
			return i, err
		}
		for _, m := range msgs {
			v.ops = append(v.ops, visitOp{index: i, msg: m})
		}
	}
	for i, c := range v.in {
		ops, err := v.change(len(v.ends)+i, c)
		if err != nil { // what is before it can still be made
			v.in, failed = v.in[:i], err
			break
		}
		v.ops = append(v.ops, ops...)
	}
	if n, err := v.send(true); err != nil {
		return n, err
	}
	return len(v.ends) + len(v.in), failed
}

// sysctls writes those of in; in is cut off before one that fails. Links that
// get no IPv6 address are to have no IPv6 at all, the others take addresses
// from us only.
func (v *visit) sysctls() error {
	for _, end := range v.ends {
		if err := quiet(end.name, v.ipv6[end.name]); err != nil {
			return v.cut(0, err)
		}
	}
	for i, c := range v.in {
		if s, ok := c.New.(netspec.Sysctl); ok {
			if _, err := sysctl.Write(s.Name, s.Value); err != nil {
				return v.cut(i, err)
			}
		}
	}
	return nil
}

func (v *visit) cut(i int, err error) error {
	v.in = v.in[:i]
	return err
}

// quiet sets a link's IPv6 before it comes up.
func quiet(link string, ipv6 bool) error {
	settings := [][2]string{{"disable_ipv6", "1"}}
	if ipv6 {
		settings = [][2]string{{"accept_ra", "0"}, {"accept_dad", "0"}}
	}
	for _, s := range settings {
		_, err := sysctl.Write("ipv6/conf/"+link+"/"+s[0], s[1])
		if errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// change turns one change into messages.
func (v *visit) change(i int, c reconcile.Change) (ops []visitOp, err error) {
	if o := c.Old; o != nil && o != c.New && !mends(c) {
		msgs, err := v.remove(o)
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if !replaces(c) {
				ops = append(ops, visitOp{index: i, del: true, msg: m})
			}
		}
	}
	var index int32
	switch o := c.New.(type) {
	case netspec.Addr:
		if index, err = v.conn.Index(o.Link); err != nil {
			return nil, err
		}
		op := visitOp{index: i, msg: rtnl.AddAddr(index, o.Prefix)}
		if mends(c) {
			op = visitOp{index: i, keeps: true, msg: rtnl.AddConnected(index, o.Prefix)}
		}
		if o.Prefix.Addr().Is6() {
			op.v6 = o.Link
		}
		ops = append(ops, op)
	case netspec.Neigh:
		if index, err = v.conn.Index(o.Link); err != nil {
			return nil, err
		}
		ops = append(ops, visitOp{index: i, msg: rtnl.AddNeigh(index, o)})
	case netspec.FDB:
		index, via, err := v.across(o.Link, o.Via)
		if err != nil {
			return nil, err
		}
		ops = append(ops, visitOp{index: i, msg: rtnl.AddFDB(index, via, o)})
	case netspec.Flood:
		index, via, err := v.across(o.Link, o.Via)
		if err != nil {
			return nil, err
		}
		ops = append(ops, visitOp{index: i, msg: rtnl.AddFlood(index, via, o)})
	case netspec.Rule:
		ops = append(ops, visitOp{index: i, keeps: true, msg: rtnl.AddRule(o)})
	case netspec.Route:
		if o.Dev != "" {
			if index, err = v.conn.Index(o.Dev); err != nil {
				return nil, err
			}
		}
		ops = append(ops, visitOp{index: i, msg: rtnl.AddRoute(index, o)})
	case netspec.Hop:
		if index, err = v.conn.Index(o.Dev); err != nil {
			return nil, err
		}
		ops = append(ops, visitOp{index: i, msg: rtnl.AddRoute(index, v.mark.Route(o))})
	}
	return ops, nil
}

// across are the numbers of a tunnel's link, and of the one that its frames leave by.
func (v *visit) across(tunnel, by string) (index, via int32, err error) {
	if index, err = v.conn.Index(tunnel); err == nil {
		via, err = v.conn.Exit(by)
	}
	return index, via, err
}

// replaces reports whether adding the new object takes the old one's place.
func replaces(c reconcile.Change) bool {
	switch c.New.(type) {
	case netspec.Neigh, netspec.FDB, netspec.Hop:
		return true
	}
	old, ok1 := c.Old.(netspec.Route)
	now, ok2 := c.New.(netspec.Route)
	return ok1 && ok2 && old.Metric == now.Metric
}

// mends reports whether an address is there and lacks its route alone.
func mends(c reconcile.Change) bool {
	old, ok1 := c.Old.(netspec.Addr)
	_, ok2 := c.New.(netspec.Addr)
	return ok1 && ok2 && old.Cut
}

// remove are the messages that delete o; there are none when its link is gone.
func (v *visit) remove(o netspec.Object) ([]nlmsg.Message, error) {
	on := func(link string, msgs func(index int32) []nlmsg.Message) ([]nlmsg.Message, error) {
		index, err := v.conn.Index(link)
		if err != nil {
			return nil, rtnl.Gone(err)
		}
		return msgs(index), nil
	}
	one := func(m nlmsg.Message) []nlmsg.Message { return []nlmsg.Message{m} }
	switch o := o.(type) {
	case netspec.Addr:
		return on(o.Link, func(i int32) []nlmsg.Message { return one(rtnl.DelAddr(i, o.Prefix)) })
	case netspec.Neigh:
		return on(o.Link, func(i int32) []nlmsg.Message { return one(rtnl.DelNeigh(i, o)) })
	case netspec.FDB:
		return on(o.Link, func(i int32) []nlmsg.Message { return rtnl.DelFDB(i, o) })
	case netspec.Flood:
		i, via, err := v.across(o.Link, o.Via)
		if err != nil {
			return nil, rtnl.Gone(err)
		}
		return one(rtnl.DelFlood(i, via, o)), nil
	case netspec.Rule:
		return one(rtnl.DelRule(o)), nil
	case netspec.Route:
		return on(o.Dev, func(i int32) []nlmsg.Message { return one(rtnl.DelRoute(i, o)) })
	case netspec.Hop:
		return on(o.Dev, func(i int32) []nlmsg.Message { return one(rtnl.DelRoute(i, v.mark.Route(o))) })
	}
	return nil, nil
}

// send sends all messages. When one fails, those behind it that the kernel has
// made nevertheless are taken back.
func (v *visit) send(again bool) (done int, err error) {
	msgs := make([]nlmsg.Message, len(v.ops))
	for i, o := range v.ops {
		msgs[i] = o.msg
	}
	errs, err := v.conn.Execute(msgs...)
	if err != nil {
		return 0, err
	}
	for i, o := range v.ops {
		if o.del {
			errs[i] = rtnl.Gone(errs[i])
		}
		if o.keeps && errors.Is(errs[i], unix.EEXIST) {
			errs[i] = nil
		}
		if again && o.v6 != "" && errs[i] != nil {
			if err := v.enableIPv6(o.v6); err == nil {
				return v.send(false)
			}
		}
		if errs[i] != nil {
			return o.index, errors.Join(fmt.Errorf("namespace %s: %w", v.ns.Name(), errs[i]), v.takeBack(o.index, i, errs))
		}
	}
	return 0, nil
}

// enableIPv6 undoes what quiet did to a link that had no IPv6 address then.
func (v *visit) enableIPv6(link string) error {
	return netns.Visit(v.ns, func() error {
		if err := quiet(link, true); err != nil {
			return err
		}
		_, err := sysctl.Write("ipv6/conf/"+link+"/disable_ipv6", "0")
		return err
	})
}

// takeBack undoes the changes from first on, as far as they were made.
func (v *visit) takeBack(first, at int, errs []error) error {
	made := map[int]bool{}
	for i, o := range v.ops {
		if errs[i] == nil && (i > at || o.index == first) {
			made[o.index] = true
		}
	}
	var back []nlmsg.Message
	for i := len(v.ends) + len(v.in) - 1; i >= max(first, len(v.ends)); i-- {
		if !made[i] {
			continue
		}
		ops, err := v.change(i, v.in[i-len(v.ends)].Undo())
		if err != nil {
			return err
		}
		for _, o := range ops {
			back = append(back, o.msg)
		}
	}
	results, err := v.conn.Execute(back...)
	for _, e := range results {
		err = errors.Join(err, rtnl.Gone(e))
	}
	if err != nil {
		return fmt.Errorf("take back: %w", err)
	}
	return nil
}

// makeVeths makes links by one sendmsg, and brings them into their bridges by
// another: what goes by a name must not meet somebody else's link.
// It returns how many there are.
func (k *Kernel) makeVeths(links []netspec.Link, peer *os.File) (int, error) {
	msgs := make([]nlmsg.Message, len(links))
	for i, l := range links {
		if _, err := k.master(l); err != nil {
			return 0, err
		}
		msgs[i] = rtnl.NewLink(l, k.mark, int(peer.Fd()))
	}
	errs, err := k.rt.Execute(msgs...)
	if err != nil {
		return 0, err
	}
	n := 0
	for ; n < len(links) && err == nil; n++ {
		if err = errs[n]; errors.Is(err, unix.EEXIST) {
			err = k.remake(links[n], peer)
		}
		if err != nil {
			err = errors.Join(fmt.Errorf("make link %s: %w", links[n].Name, err), k.deleteLinks(links[n:]))
			break
		}
	}
	made, perr := k.plugIn(links[:n])
	if perr != nil {
		return made, errors.Join(perr, err, k.deleteLinks(links[made:n]))
	}
	return n, err
}

// plugIn brings the near ends of veths up, as ports of their bridges. It returns how
// many of links are as they should be.
func (k *Kernel) plugIn(links []netspec.Link) (int, error) {
	var msgs []nlmsg.Message
	var of []int
	for i, l := range links {
		index, err := k.rt.Index(l.Name)
		if err != nil {
			return 0, err
		}
		master, err := k.master(l)
		if err != nil {
			return 0, err
		}
		if master != 0 {
			msgs, of = append(msgs, rtnl.NoLinkLocal(index)), append(of, i)
		}
		msgs, of = append(msgs, rtnl.UpIn(index, master)), append(of, i)
		if l.Hairpin || l.Isolated {
			msgs, of = append(msgs, rtnl.SetPort(index, l)), append(of, i)
		}
	}
	errs, err := k.rt.Execute(msgs...)
	if err != nil {
		return 0, err
	}
	for m, i := range of {
		if errs[m] != nil && !errors.Is(errs[m], unix.EAFNOSUPPORT) { // it has no IPv6 at all
			return i, fmt.Errorf("set port %s of bridge %s: %w", links[i].Name, links[i].Master, errs[m])
		}
	}
	return len(links), nil
}

func (k *Kernel) master(l netspec.Link) (int32, error) {
	if l.Master == "" {
		return 0, nil
	}
	i, err := k.rt.Index(l.Master)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", l.Name, err)
	}
	return i, nil
}
