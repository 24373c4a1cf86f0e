package kernel

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

const (
	// breath is how long one act of somebody's has time to be told in full: a link
	// goes with its routes, and the name of who changed a table comes last.
	breath = 2 * time.Millisecond
	// most is how many messages are read before anything else is done.
	most = 1 << 10
	// backlog is the room, in bytes, for messages that have not been read: a bridge
	// that is deleted with a thousand ports, or put right, fills it half.
	backlog = 8 << 20
)

// ports are the port numbers of our own sockets.
type ports struct {
	mu  sync.Mutex
	ids map[uint32]bool
}

func (p *ports) add(ids ...uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids == nil {
		p.ids = map[uint32]bool{}
	}
	for _, id := range ids {
		p.ids[id] = true
	}
}

func (p *ports) ours(id uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return id != 0 && p.ids[id]
}

// Groups of notifications that are watched.
var (
	routeGroups = []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF,
	}
	tableGroups = []int{unix.NFNLGRP_NFTABLES}
	neighGroups = []int{unix.RTNLGRP_NEIGH}
)

// The sockets of a watcher.
const (
	ofRoutes = iota
	ofTables
	ofNeighs // deletions only: stations and neighbours come by the thousand, and all the time
)

// lostMost is how many objects are told of one by one; of more, that the host is to be
// looked at.
const lostMost = 100

// Watch sends on the channel when somebody else has taken away or changed
// something of ours in the host's namespace, or what plans depend on. It comes
// within milliseconds; alarms that nobody takes become one. The channel is closed
// when ctx ends.
func (k *Kernel) Watch(ctx context.Context) (<-chan reconcile.Alarm, error) {
	w := &watcher{k: k, out: make(chan reconcile.Alarm, 1), links: map[int32]rtnl.Info{}, suspects: map[int32]string{}, lost: map[netspec.Key]bool{}}
	err := netns.Visit(k.host, func() error {
		return errors.Join(w.open(unix.NETLINK_ROUTE, routeGroups), w.open(unix.NETLINK_NETFILTER, tableGroups), w.open(unix.NETLINK_ROUTE, neighGroups))
	})
	if err == nil {
		err = w.conns[ofNeighs].Only(unix.RTM_DELNEIGH)
	}
	if err == nil {
		err = w.learn()
	}
	if err == nil {
		w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("watch the kernel: %w", err)
	}
	go w.run(ctx)
	return w.out, nil
}

type watcher struct {
	k        *Kernel
	conns    []*nlmsg.Conn
	wake     int
	links    map[int32]rtnl.Info
	suspects map[int32]string     // links of ours that may have been changed, and by whom
	lost     map[netspec.Key]bool // deleted since the last alarm
	stale    bool                 // links could not be read when messages were lost
	rested   time.Time            // routes are not read before
	pending  reconcile.Alarm
	due      time.Time // when pending is told; zero: there is none
	out      chan reconcile.Alarm
}

func (w *watcher) open(protocol int, groups []int) error {
	c, err := nlmsg.Open(protocol)
	if err != nil {
		return err
	}
	w.conns = append(w.conns, c)
	if err := c.Buffer(backlog); err != nil {
		w.k.log.Debug("watch the kernel with a small buffer", "err", err) // what is lost then is noticed
	}
	for _, g := range groups {
		err = errors.Join(err, c.Join(g))
	}
	return err
}

// learn remembers the links: messages about addresses and routes only have their
// numbers.
func (w *watcher) learn() error {
	c, err := rtnl.Open(w.k.host)
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := c.Links(false)
	if w.stale = err != nil; w.stale {
		return err
	}
	clear(w.links)
	for _, l := range links {
		w.links[l.Index] = l
	}
	return nil
}

func (w *watcher) close() {
	for _, c := range w.conns {
		c.Close()
	}
	if w.wake > 0 {
		unix.Close(w.wake)
	}
	close(w.out)
}

func (w *watcher) run(ctx context.Context) {
	defer w.close()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-woken // before the descriptor can become another one
		}
	}()
	for ctx.Err() == nil {
		now := time.Now()
		fds := w.awaited(now)
		if _, err := unix.Poll(fds, w.patience(now)); err != nil && err != unix.EINTR {
			w.k.log.Error("watch the kernel", "err", err)
			return
		}
		w.read(fds[1:])
		w.judge()
		if !w.due.IsZero() && !time.Now().Before(w.due) {
			w.tell()
		}
	}
}

// awaited are the descriptors that may have something to say. Of routes there are
// messages by the hundred when a bridge goes, and while we put it right: whoever sent
// them does not get on while each is read as it comes.
func (w *watcher) awaited(now time.Time) []unix.PollFd {
	fds := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}}
	for i, c := range w.conns {
		p := unix.PollFd{Fd: int32(c.FD()), Events: unix.POLLIN}
		if i != ofTables && now.Before(w.rested) {
			p.Fd = -1
		}
		fds = append(fds, p)
	}
	return fds
}

// patience is for how many milliseconds nothing is to be told, and nothing read that
// is there.
func (w *watcher) patience(now time.Time) int {
	next := w.due
	if now.Before(w.rested) && (next.IsZero() || w.rested.Before(next)) {
		next = w.rested
	}
	if next.IsZero() {
		return -1
	}
	return int((max(next.Sub(now), 0) + time.Millisecond - 1) / time.Millisecond)
}

// tell sends what is pending, together with what nobody has taken yet.
func (w *watcher) tell() {
	select {
	case waiting := <-w.out:
		w.pending = waiting.And(w.pending)
	default:
	}
	if len(w.pending.Lost) > lostMost {
		w.pending.Host, w.pending.Lost = true, nil
	}
	w.out <- w.pending // there is room: nobody else sends
	w.pending, w.due = reconcile.Alarm{}, time.Time{}
	clear(w.lost)
}

func (w *watcher) alarm(a reconcile.Alarm) {
	if a.Empty() {
		return
	}
	w.pending = w.pending.And(a)
	if w.due.IsZero() {
		w.due = time.Now().Add(breath)
	}
}

func (w *watcher) read(fds []unix.PollFd) {
	for i := range w.conns {
		if fds[i].Revents != 0 {
			w.drain(i)
		}
	}
}

// drain takes what has come.
func (w *watcher) drain(conn int) {
	w.relearn()
	for range most {
		as, err := w.conns[conn].Ready()
		if err != nil { // messages were lost: anything may have happened
			w.alarm(reconcile.Alarm{Scope: reconcile.Scope{Filter: conn == ofTables, Host: conn != ofTables, Facts: conn == ofRoutes}})
			w.stale = w.stale || conn == ofRoutes
		} else if len(as) == 0 {
			break
		}
		for _, a := range as {
			switch conn {
			case ofRoutes:
				w.route(a)
			case ofTables:
				w.table(a)
			case ofNeighs:
				w.neigh(a)
			}
		}
	}
	w.relearn() // after what is older
	if conn != ofTables {
		w.rest()
	}
}

// judge looks at what has become of links that somebody may have changed, while no
// Apply goes on: on the way to what they are to be they are something else.
func (w *watcher) judge() {
	if len(w.suspects) == 0 {
		return
	}
	if !w.k.mu.TryLock() {
		w.rest()
		return
	}
	defer w.k.mu.Unlock()
	w.drain(ofRoutes)
	for index, by := range w.suspects {
		l := w.links[index]
		if w.k.ours(l) && !w.k.memory.isDying(l.Name, false) && (!isUp(l, w.links) || w.k.memory.differs(l, w.links[l.Master].Name)) {
			w.alarm(reconcile.Alarm{Scope: reconcile.Scope{Host: true}, By: by})
		}
	}
	clear(w.suspects)
}

// relearn reads the links when messages about them were lost, until that succeeds.
func (w *watcher) relearn() {
	if !w.stale {
		return
	}
	if err := w.learn(); err != nil {
		w.k.log.Warn("read the links again", "err", err)
	}
}

// rest leaves routes alone until there is something to tell.
func (w *watcher) rest() {
	w.rested = time.Now().Add(breath)
	if !w.due.IsZero() {
		w.rested = w.due
	}
}

// table takes a message of nftables. What is ours is told when it is known who did
// it, which the message of the new generation says.
func (w *watcher) table(a nlmsg.Answer) {
	if len(a.Data) < 4 || w.k.watched.ours(a.Port) {
		return
	}
	if a.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		if w.pending.Filter {
			w.pending.By, w.due = generationBy(a.Data[4:]), time.Now()
		}
		return
	}
	if nlmsg.Str(nlmsg.Find(a.Data[4:], unix.NFTA_TABLE_NAME)) == w.k.cfg.Table {
		w.alarm(reconcile.Alarm{Scope: reconcile.Scope{Filter: true}})
	}
}

func generationBy(b []byte) string {
	pid := nlmsg.Find(b, unix.NFTA_GEN_PROC_PID)
	if len(pid) < 4 {
		return ""
	}
	return fmt.Sprintf("%s (pid %d)", nlmsg.Str(nlmsg.Find(b, unix.NFTA_GEN_PROC_NAME)), binary.BigEndian.Uint32(pid))
}

func (w *watcher) route(a nlmsg.Answer) {
	if h, ok := w.k.mark.HopIn(a); ok {
		if a.Type == unix.RTM_DELROUTE {
			w.loses(h)
		}
		return
	}
	s, suspect := w.concerns(a)
	if w.k.watched.ours(a.Port) || s.Empty() && suspect == 0 {
		return
	}
	by := owner(a.Port)
	if suspect != 0 {
		w.suspects[suspect] = cmp.Or(w.suspects[suspect], by)
	}
	w.alarm(reconcile.Alarm{Scope: s, By: by})
}

// neigh takes that an entry is gone. Who did it the kernel does not say, so whether it is
// wanted still is for others to know.
func (w *watcher) neigh(a nlmsg.Answer) {
	k, ok := rtnl.Lost(a.Data, func(index int32) string {
		if l := w.links[index]; w.k.ours(l) && (l.Kind == netspec.KindVXLAN || a.Data[0] != unix.AF_BRIDGE) {
			return l.Name
		}
		return ""
	}, func(index int32) string { return w.links[index].Name })
	if ok {
		w.loses(k)
	}
}

// loses tells of objects of ours that are gone, whoever took them.
func (w *watcher) loses(keys ...netspec.Key) {
	for _, k := range keys {
		if !w.lost[k] && len(w.lost) <= lostMost {
			w.lost[k] = true
			w.alarm(reconcile.Alarm{Scope: reconcile.Scope{Lost: []netspec.Key{k}}})
		}
	}
}

// owner names the process behind a netlink port, if it is still there: the port of
// a process's first socket is its own number.
func owner(port uint32) string {
	if port == 0 {
		return ""
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", port))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), port)
}

// concerns is what a message may mean to us, and the link of ours, if any, that has
// to be looked at.
func (w *watcher) concerns(a nlmsg.Answer) (s reconcile.Scope, suspect int32) {
	switch a.Type {
	case unix.RTM_NEWLINK:
		return w.link(a.Data)
	case unix.RTM_DELLINK:
		return w.gone(a.Data), 0
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		s.Host = a.Type == unix.RTM_DELADDR && rtnl.OurAddr(a.Data)
		s.Facts = !s.Host && !w.ours(rtnl.LinkOf(a.Data))
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		s.Host = a.Type == unix.RTM_DELROUTE && (rtnl.OurRoute(a.Data) || w.connected(a.Data))
		link, matters := rtnl.RouteLink(a.Data)
		s.Facts = !s.Host && matters && !w.ours(link)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		s.Facts = true
	case unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER: // where guards are
		s.Host = w.ours(rtnl.LinkOf(a.Data))
	case unix.RTM_NEWNETCONF:
		s.Host = rtnl.StopsForwarding(a.Data)
	}
	return s, 0
}

func (w *watcher) ours(index int32) bool { return w.k.ours(w.links[index]) }

// connected reports whether a route is one that the kernel made with an address of
// a link of ours.
func (w *watcher) connected(b []byte) bool {
	index, ok := rtnl.ConnectedTo(b)
	return ok && w.ours(index)
}

// link is what a message about a link means: ours has to be looked at, and what was
// ours and is not any more has to be made again. Of a foreign one the MTU matters, and
// whether it is up: for the IPv4 routes that go with it, ours too, there are no messages;
// and what networks on it hang on.
func (w *watcher) link(b []byte) (s reconcile.Scope, suspect int32) {
	if index, hairpin, isolated, ok := rtnl.PortFlags(b); ok {
		return s, w.port(index, hairpin, isolated)
	}
	if len(b) == 0 || b[0] != unix.AF_UNSPEC {
		return s, 0
	}
	now := rtnl.ParseLink(b)
	was, seen := w.links[now.Index]
	w.links[now.Index] = now
	if seen && now.Carrier && !was.Carrier {
		w.k.announceOn(now.Index)
	}
	if w.k.ours(now) {
		s.Host = seen && w.k.ours(was) && was.Name != now.Name
		return s, now.Index
	}
	if seen && now.Up && !was.Up {
		w.loses(w.k.memory.hopsBy(now.Name)...)
	}
	s.Host = seen && w.k.ours(was)
	s.Facts = !s.Host && (!seen || otherParent(was, now))
	return s, 0
}

// otherParent reports whether what networks on an interface hang on has changed.
func otherParent(was, now rtnl.Info) bool {
	return was.MTU != now.MTU || was.Up != now.Up || was.Carrier != now.Carrier || was.Name != now.Name || was.MAC != now.MAC || was.Master != now.Master
}

// port notes the flags of a bridge's port.
func (w *watcher) port(index int32, hairpin, isolated bool) (suspect int32) {
	l, ok := w.links[index]
	if !ok {
		return 0
	}
	l.Hairpin, l.Isolated = hairpin, isolated
	w.links[index] = l
	if !w.k.ours(l) {
		return 0
	}
	return index
}

// gone is what the end of a link means.
func (w *watcher) gone(b []byte) (s reconcile.Scope) {
	if len(b) == 0 || b[0] != unix.AF_UNSPEC { // it has left a bridge only
		return s
	}
	l := rtnl.ParseLink(b)
	_, seen := w.links[l.Index]
	delete(w.links, l.Index)
	delete(w.suspects, l.Index)
	s.Host = w.k.ours(l) && !w.k.memory.isDying(l.Name, true)
	s.Facts = !w.k.ours(l) && seen
	return s
}
