package seat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/sysctl"
	"isle/internal/netspec"
)

// usable refuses a link that is not for a container: one that the host uses, or that
// others are on. What a plugin makes for a container has no address on the host, no
// route of the host leads over it, and it is a port of nothing.
func (v *visit) usable(l rtnl.Info) error {
	switch {
	case l.Loopback:
		return refuse("it is the loopback device")
	case v.mark.Ours(l.Group, l.Name):
		return refuse("it is one of Isle's own")
	case l.Kind == netspec.Bridge:
		return refuse("it is a bridge, not a port of one")
	case l.Master != 0:
		return refuse("it is a port of another link of the host")
	}
	if err := v.unaddressed(l); err != nil {
		return err
	}
	if err := v.noUplink(l); err != nil {
		return err
	}
	return v.carriesNothing(l)
}

func refuse(why string) error {
	return fmt.Errorf("%s (hint: the plugin must name a link that it made for the container): %w", why, errdefs.ErrPermissionDenied)
}

func (v *visit) unaddressed(l rtnl.Info) error {
	addrs, err := v.out.AddrsOf(l.Index)
	if err != nil {
		return fmt.Errorf("read its addresses: %w", err)
	}
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		if a.Index == l.Index && !ip.IsLinkLocalUnicast() && !slices.ContainsFunc(v.Addrs, func(p netip.Prefix) bool { return p.Addr() == ip }) {
			return refuse(fmt.Sprintf("the host has the address %s on it", ip))
		}
	}
	return nil
}

// somewhere are addresses that nobody has (RFC 5737, RFC 3849): the way to them is the
// default route.
var somewhere = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

func (v *visit) noUplink(l rtnl.Info) error {
	for _, a := range somewhere {
		way, ok, err := v.out.WayTo(a)
		if err != nil {
			return err
		}
		if ok && slices.Contains(way.Links, l.Index) {
			return refuse("a default route of the host leads over it")
		}
	}
	return nil
}

// alone are the kinds of links that carry no others: what plugins make. All links are
// read for the rest only, most of which are devices of the machine.
var alone = []string{netspec.Veth, netspec.Macvlan, netspec.IPvlan, "macvtap", "ipvtap", "tun", "netkit"}

func (v *visit) carriesNothing(l rtnl.Info) error {
	if slices.Contains(alone, l.Kind) {
		return nil
	}
	links, err := v.out.Links(false)
	if err != nil {
		return fmt.Errorf("read the host's links: %w", err)
	}
	for _, o := range links {
		if o.Index != l.Index && (o.Master == l.Index || o.Peer == l.Index && o.PeerNS < 0) {
			return refuse(fmt.Sprintf("link %s of the host is on it", o.Name))
		}
	}
	return nil
}

// validName reports whether the kernel takes a name as it is: '%' is a pattern to it.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) < unix.IFNAMSIZ && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r)
	})
}

// quiet sets a link's IPv6 before it comes up, in the calling thread's namespace: it
// has addresses from us only, or no IPv6.
func quiet(link string, ipv6 bool) error {
	settings := [][2]string{{"disable_ipv6", "1"}}
	if ipv6 {
		settings = [][2]string{{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"accept_dad", "0"}}
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
