package kernel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
	"isle/internal/kernel/rtnl"
)

// debounce is how long the machine must have time to finish what it does (a
// reload of a firewall, a link that goes with its routes) before anybody looks.
const debounce = 200 * time.Millisecond

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

// Watch sends on the channel when somebody else has taken away or changed
// something of ours in the host's namespace. Several changes are one signal. The
// channel is closed when ctx ends.
func (k *Kernel) Watch(ctx context.Context) (<-chan struct{}, error) {
	w := &watcher{k: k, out: make(chan struct{}, 1)}
	err := netns.Visit(k.host, func() error {
		return errors.Join(
			w.open(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE),
			w.open(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES))
	})
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
	k     *Kernel
	conns []*nlmsg.Conn
	wake  int
	out   chan struct{}
}

func (w *watcher) open(protocol int, groups ...int) error {
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
	var due time.Time
	for ctx.Err() == nil {
		wait := -1
		if !due.IsZero() {
			wait = int(max(time.Until(due), 0)/time.Millisecond) + 1
		}
		fds := []unix.PollFd{{Fd: int32(w.wake), Events: unix.POLLIN}}
		for _, c := range w.conns {
			fds = append(fds, unix.PollFd{Fd: int32(c.FD()), Events: unix.POLLIN})
		}
		if _, err := unix.Poll(fds, wait); err != nil && err != unix.EINTR {
			w.k.log.Error("watch the kernel", "err", err)
			return
		}
		if w.read(fds[1:]) && due.IsZero() {
			due = time.Now().Add(debounce)
		}
		if !due.IsZero() && !time.Now().Before(due) {
			due = time.Time{}
			select {
			case w.out <- struct{}{}:
			default: // one is waiting already
			}
		}
	}
}

// read reports whether anything of interest was received.
func (w *watcher) read(fds []unix.PollFd) (interesting bool) {
	for i, c := range w.conns {
		if fds[i].Revents == 0 {
			continue
		}
		as, err := c.Receive()
		if err != nil { // events were lost: anything may have happened
			interesting = true
		}
		for _, a := range as {
			if !w.k.watched.ours(a.Port) && w.concerns(i == 0, a) {
				interesting = true
			}
		}
	}
	return interesting
}

func (w *watcher) concerns(route bool, a nlmsg.Answer) bool {
	if !route {
		return a.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN && len(a.Data) > 4 &&
			nlmsg.Str(nlmsg.Find(a.Data[4:], unix.NFTA_TABLE_NAME)) == w.k.cfg.Table
	}
	switch a.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l := rtnl.ParseLink(a.Data)
		gone := a.Type == unix.RTM_DELLINK
		if len(a.Data) == 0 || a.Data[0] != unix.AF_UNSPEC || !w.k.ours(l) || !gone && l.Up {
			return false
		}
		return !w.k.memory.isDying(l.Name, gone)
	case unix.RTM_DELADDR:
		return rtnl.OurAddr(a.Data)
	case unix.RTM_DELROUTE:
		return rtnl.OurRoute(a.Data)
	}
	return false
}
