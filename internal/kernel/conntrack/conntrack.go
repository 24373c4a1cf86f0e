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
	if len(s.Come) > 0 {
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
	return false
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
