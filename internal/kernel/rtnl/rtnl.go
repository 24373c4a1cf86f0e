// Package rtnl writes and reads links, addresses and routes.
//
// It turns objects of netspec into rtnetlink messages, many of which travel in
// one sendmsg(2); what to send when, and what to do when one fails, is decided
// in package kernel.
//
// Traps. rtnetlink has no transactions: after a message that failed the kernel
// goes on with the next. Moving a link into a namespace costs 19 ms and waiting
// for the end of one 27 ms, so a veth's peer is made in place and dies with its
// namespace. The peer cannot be created up. IFLA_GROUP is kept by the creating
// message, IFLA_IFALIAS is not: the group and the name's prefix are our mark.
package rtnl

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/nlmsg"
)

// Proto marks our routes and addresses ("proto 73" in ip route).
const Proto = 73

// Mark is how our links are known.
type Mark struct {
	Group  uint32
	Prefix string
}

// Ours reports whether a link carries the mark.
func (m Mark) Ours(group uint32, name string) bool {
	return group == m.Group && strings.HasPrefix(name, m.Prefix)
}

// Conn is a socket of one namespace with what was learned about it.
type Conn struct {
	*nlmsg.Conn
	index   map[string]int32
	learned bool // index has all links
}

// Open opens a socket in ns; nil is the calling thread's.
func Open(ns *os.File) (c *Conn, err error) {
	open := func() error {
		nl, err := nlmsg.Open(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		if err := nl.Strict(); err != nil {
			nl.Close()
			return fmt.Errorf("set up netlink socket: %w", err)
		}
		c = &Conn{Conn: nl, index: map[string]int32{}}
		return nil
	}
	if ns == nil {
		return c, open()
	}
	return c, netns.Visit(ns, open)
}

// Index finds the number of a link. It is remembered until Forget: names are
// used again.
func (c *Conn) Index(name string) (int32, error) {
	if i, ok := c.index[name]; ok {
		return i, nil
	}
	b, err := c.Get(nlmsg.Message{Type: unix.RTM_GETLINK, Data: linkHeader(0, 0).
		Str(unix.IFLA_IFNAME, name).U32(unix.IFLA_EXT_MASK, skipStats).Data()})
	if err != nil {
		return 0, fmt.Errorf("find link %s: %w", name, err)
	}
	l := ParseLink(b)
	c.index[name] = l.Index
	return l.Index, nil
}

// Learn finds the numbers of all links at once. Where many are wanted, that costs
// less than to ask for each.
func (c *Conn) Learn() error {
	if c.learned {
		return nil
	}
	links, err := c.Links(false)
	if err != nil {
		return fmt.Errorf("find all links: %w", err)
	}
	for _, l := range links {
		c.index[l.Name] = l.Index
	}
	c.learned = true
	return nil
}

// Forget drops what is known of links.
func (c *Conn) Forget() {
	clear(c.index)
	c.learned = false
}

// gone are the errors of deleting what is not there.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// Gone turns "was not there" into success.
func Gone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// skipStats is RTEXT_FILTER_SKIP_STATS: counters make most of a link's message.
const skipStats = 1 << 3
