package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/door"
	"isle/internal/cluster/member"
	"isle/internal/store"
)

// self is what this host knows of its own place in a cluster: a record of this host.
type self struct {
	Cluster, ID, Name string
	Addr              netip.Addr
	Ports             door.Ports
	Member, External  bool
	Peers             string   `json:",omitempty"` // for the first start of its etcd
	Endpoints         []string // of the etcd, as far as known
	Lease             int64    // directory.Config.Lease
	Learning          bool     `json:",omitempty"` // a member without a say, yet
}

var selves = store.NewTable[self]("cluster")

const selfKey = "self"

func (c *Cluster) self(ctx context.Context) (v self, err error) {
	err = c.Records.View(ctx, func(tx store.Tx) (err error) {
		v, err = selves.Get(tx, selfKey)
		return err
	})
	return v, err
}

func (c *Cluster) setSelf(ctx context.Context, v self) error {
	return c.Records.Update(ctx, func(tx store.Tx) error { return selves.Put(tx, selfKey, v) })
}

// changeSelf changes the record, if there still is one.
func (c *Cluster) changeSelf(ctx context.Context, change func(*self)) error {
	return c.Records.Update(ctx, func(tx store.Tx) error {
		v, err := selves.Get(tx, selfKey)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		change(&v)
		return selves.Put(tx, selfKey, v)
	})
}

func (c *Cluster) dropSelf(ctx context.Context) error {
	return c.Records.Update(ctx, func(tx store.Tx) error { selves.Delete(tx, selfKey); return nil })
}

// own is where its own etcd is found.
func (s self) own() string {
	u := member.URL(s.Addr, s.Ports.Client)
	return u.String()
}

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$`)

// nameOf is the name that was asked for, or the machine's.
func nameOf(asked string) (string, error) {
	name := asked
	if name == "" {
		name, _ = os.Hostname()
	}
	if !hostName.MatchString(name) {
		return "", fmt.Errorf("host name %q is not 1 to 63 letters, digits, '-' and '.' (hint: --name): %w", name, errdefs.ErrInvalidArgument)
	}
	return strings.ToLower(name), nil
}

// address is where others reach this host: what was asked for, what is configured, or the
// address that packets to towards have.
func (c *Cluster) address(asked, towards string) (netip.Addr, error) {
	if asked != "" {
		a, err := netip.ParseAddr(asked)
		if err != nil || a.Zone() != "" {
			return a, fmt.Errorf("%q is not an IP address: %w", asked, errdefs.ErrInvalidArgument)
		}
		return a.Unmap(), isOurs(a.Unmap())
	}
	if c.Advertise.IsValid() {
		return c.Advertise, isOurs(c.Advertise)
	}
	conn, err := net.Dial("udp", towards) // sends nothing
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return netip.Addr{}, fmt.Errorf("find host %s: %w: %w", dns.Name, err, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no address is found that other hosts could reach this one at: %w: %w (hint: --advertise ADDR)", err, errdefs.ErrInvalidArgument)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// isOurs is of class InvalidArgument for an address that this host has not.
func isOurs(a netip.Addr) error {
	l, err := net.Listen("tcp", netip.AddrPortFrom(a, 0).String())
	if err != nil || a.IsUnspecified() {
		return fmt.Errorf("%s is not an address of this host: %w", a, errdefs.ErrInvalidArgument)
	}
	return l.Close()
}
