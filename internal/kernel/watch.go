package kernel

import (
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
	"isle/internal/reconcile"
)

// breath is how long one act of somebody's has time to be told in full: a link goes
// with its routes, and the name of who changed a table comes last.
const breath = 2 * time.Millisecond

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
)

// Watch sends on the channel when somebody else has taken away or changed
// something of ours in the host's namespace, or what plans depend on. It comes
// within milliseconds; alarms that nobody takes become one. The channel is closed
// when ctx ends.
func (k *Kernel) Watch(ctx context.Context) (<-chan reconcile.Alarm, error) {
	w := &watcher{k: k, out: make(chan reconcile.Alarm, 1), links: map[int32]known{}}
	err := netns.Visit(k.host, func() error {
		return errors.Join(w.open(unix.NETLINK_ROUTE, routeGroups), w.open(unix.NETLINK_NETFILTER, tableGroups))
	})
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
	k       *Kernel
	conns   []*nlmsg.Conn // of routes, of tables
	wake    int
	links   map[int32]known
	pending reconcile.Alarm
	due     time.Time // when pending is told; zero: there is none
	out     chan reconcile.Alarm
}

// known is what is remembered of a link.
type known struct {
	name     string
	ours, up bool
	mtu      uint32
}

func (w *watcher) known(l rtnl.Info) known {
	return known{l.Name, w.k.ours(l), l.Up, l.MTU}
}

func (w *watcher) open(protocol int, groups []int) error {
	c, err := nlmsg.Open(protocol)
	if err != nil {
		return err
	}
	w.conns = append(w.conns, c)
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
	clear(w.links)
	for _, l := range links {
		w.links[l.Index] = w.known(l)
	}
	return err
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
		fds := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}}
		for _, c := range w.conns {
			fds = append(fds, unix.PollFd{Fd: int32(c.FD()), Events: unix.POLLIN})
		}
		if _, err := unix.Poll(fds, w.patience()); err != nil && err != unix.EINTR {
			w.k.log.Error("watch the kernel", "err", err)
			return
		}
		w.read(fds[1:])
		if !w.due.IsZero() && !time.Now().Before(w.due) {
			w.tell()
		}
	}
}

// patience is for how many milliseconds nothing is to be told.
func (w *watcher) patience() int {
	if w.due.IsZero() {
		return -1
	}
	return int((max(time.Until(w.due), 0) + time.Millisecond - 1) / time.Millisecond)
}

// tell sends what is pending, together with what nobody has taken yet.
func (w *watcher) tell() {
	select {
	case waiting := <-w.out:
		w.pending = waiting.And(w.pending)
	default:
	}
	w.out <- w.pending // there is room: nobody else sends
	w.pending, w.due = reconcile.Alarm{}, time.Time{}
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
	for i, c := range w.conns {
		if fds[i].Revents == 0 {
			continue
		}
		as, err := c.Receive()
		if err != nil { // messages were lost: anything may have happened
			w.alarm(reconcile.Alarm{Scope: reconcile.Scope{Filter: i == 1, Host: i == 0, Facts: i == 0}})
			w.relearn(i)
		}
		for _, a := range as {
			if i == 1 {
				w.table(a)
			} else {
				w.route(a)
			}
		}
	}
}

func (w *watcher) relearn(conn int) {
	if conn != 0 {
		return
	}
	if err := w.learn(); err != nil {
		w.k.log.Warn("read the links again", "err", err)
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
	s := w.concerns(a)
	if s.Empty() || w.k.watched.ours(a.Port) {
		return
	}
	w.alarm(reconcile.Alarm{Scope: s, By: owner(a.Port)})
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

// concerns is what a message may mean to us.
func (w *watcher) concerns(a nlmsg.Answer) (s reconcile.Scope) {
	switch a.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(a.Data, a.Type == unix.RTM_DELLINK)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		s.Host = a.Type == unix.RTM_DELADDR && rtnl.OurAddr(a.Data)
		s.Facts = !s.Host && !w.links[rtnl.LinkOf(a.Data)].ours
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		s.Host = a.Type == unix.RTM_DELROUTE && rtnl.OurRoute(a.Data)
		link, matters := rtnl.RouteLink(a.Data)
		s.Facts = !s.Host && matters && !w.links[link].ours
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		s.Facts = true
	case unix.RTM_DELQDISC, unix.RTM_DELTFILTER: // where guards are
		s.Host = w.links[rtnl.LinkOf(a.Data)].ours
	case unix.RTM_NEWNETCONF:
		s.Host = rtnl.StopsForwarding(a.Data)
	}
	return s
}

// link is what a message about a link means: ours that is gone, down or not
// as it was made, or a foreign one with another MTU, or whose routes have gone
// with it: for those of IPv4 there are no messages.
func (w *watcher) link(b []byte, gone bool) (s reconcile.Scope) {
	if len(b) == 0 || b[0] != unix.AF_UNSPEC {
		return s
	}
	l := rtnl.ParseLink(b)
	was, seen := w.links[l.Index]
	now := w.known(l)
	if gone {
		delete(w.links, l.Index)
	} else {
		w.links[l.Index] = now
	}
	if !now.ours {
		s.Facts = seen && (gone && was.up || !gone && (was.mtu != now.mtu || was.up != now.up))
		return s
	}
	s.Host = (gone || !l.Up || w.k.memory.differs(l, w.links[l.Master].name)) && !w.k.memory.isDying(l.Name, gone)
	return s
}
