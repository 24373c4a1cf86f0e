// Package conntrack forgets flows that a change of published ports made wrong.
// Where a flow goes is settled by its first packet: without this, a client that
// goes on sending would reach a container whose port is no longer published, or
// that is gone, and its datagrams would pass one that has just come.
package conntrack

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/mdlayher/netlink"
	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// Stale are the published ports whose flows are looked at.
type Stale struct {
	Gone  []netspec.Publish // flows to their containers end
	Come  []netspec.Publish // flows that passed them by end; of UDP, which has no end of its own
	Local []netip.Addr      // addresses of the host: only what was sent there passed by
	// Limited are ports with other allow-lists than before: flows of who is not in
	// the list end.
	Limited []Limit
	// Closed are ports of containers that are not open any more, at their own
	// addresses.
	Closed []netspec.Open
}

// Empty reports whether there is nothing to look for.
func (s Stale) Empty() bool { return len(s.Gone)+len(s.Come)+len(s.Limited)+len(s.Closed) == 0 }

// And is what both look for.
func (s Stale) And(t Stale) Stale {
	s.Gone, s.Come = append(s.Gone, t.Gone...), append(s.Come, t.Come...)
	s.Limited, s.Closed = append(s.Limited, t.Limited...), append(s.Closed, t.Closed...)
	return s
}

// Limit is a port and whom it is for.
type Limit struct {
	Port    netspec.Publish // without its target
	Allowed []netip.Prefix
}

func (l Limit) cuts(f ct.Flow) bool {
	in := func(p netip.Prefix) bool { return p.Contains(f.TupleOrig.IP.SourceAddress) }
	translated := f.TupleReply.IP.SourceAddress != f.TupleOrig.IP.DestinationAddress
	return translated && covers(l.Port, f.TupleOrig) && !slices.ContainsFunc(l.Allowed, in)
}

func closes(o netspec.Open, to ct.Tuple) bool {
	port := netspec.Publish{Proto: o.Proto, HostIP: o.To, HostPort: o.Port, Count: o.Count}
	return covers(port, to) && (!o.From.IsValid() || o.From.Contains(to.IP.SourceAddress))
}

// Forget deletes stale flows in a namespace. It reads the whole table: not for
// a path that somebody waits on.
func Forget(ns *os.File, s Stale) error {
	c, err := ct.Dial(&netlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return fmt.Errorf("open conntrack: %w", err)
	}
	defer c.Close()
	flows, err := s.dump(c)
	if err != nil {
		return fmt.Errorf("read conntrack: %w", err)
	}
	var errs []error
	for _, f := range flows {
		if !s.stale(f) {
			continue
		}
		if err := c.Delete(f); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete flow %v: %w", f.TupleOrig, err))
		}
	}
	return errors.Join(errs...)
}

// dump lets the kernel leave out flows that were not redirected, when only such
// are wanted.
func (s Stale) dump(c *ct.Conn) ([]ct.Flow, error) {
	if len(s.Come)+len(s.Closed) > 0 {
		return c.Dump(nil)
	}
	return c.DumpFilter(ct.NewFilter().Status(ct.StatusDstNAT), nil)
}

func (s Stale) stale(f ct.Flow) bool {
	to, by := f.TupleOrig, f.TupleReply.IP.SourceAddress
	for _, p := range s.Gone {
		if covers(p, to) && by == p.To {
			return true
		}
	}
	for _, p := range s.Come {
		if covers(p, to) && by == to.IP.DestinationAddress && s.local(by) {
			return true
		}
	}
	return slices.ContainsFunc(s.Limited, func(l Limit) bool { return l.cuts(f) }) ||
		slices.ContainsFunc(s.Closed, func(o netspec.Open) bool { return closes(o, to) })
}

var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

func (s Stale) local(a netip.Addr) bool {
	for _, l := range s.Local {
		if l == a {
			return true
		}
	}
	return false
}

func covers(p netspec.Publish, to ct.Tuple) bool {
	a := to.IP.DestinationAddress
	offset := int(to.Proto.DestinationPort) - int(p.HostPort)
	return protocols[p.Proto] == to.Proto.Protocol && offset >= 0 && offset < int(max(p.Count, 1)) &&
		a.Is4() == p.HostIP.Is4() && (p.HostIP.IsUnspecified() || p.HostIP == a)
}
