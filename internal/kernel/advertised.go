package kernel

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/sysctl"
)

// advertised are the uplinks that take router advertisements, by name. With
// accept_ra=1, the kernel's default, they do so only while IPv6 is not forwarded;
// with 2 always. A link that forwards and has 1 takes none: that is left so.
func (k *Kernel) advertised(v rtnl.View) (names []string, err error) {
	if !k.features.IPv6 {
		return nil, nil
	}
	err = netns.Visit(k.host, func() error {
		for _, l := range v.Links {
			if k.ours(l) || !uplink(v, l) {
				continue
			}
			takes, err := takesAdvertisements(l.Name)
			if err != nil {
				return err
			}
			if takes {
				names = append(names, l.Name)
			}
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// uplink is a network card, or something else that a default route leads over.
// Bridges and veths of others are not: containers could be behind them.
func uplink(v rtnl.View, l rtnl.Info) bool {
	if l.Loopback || l.Master != 0 {
		return false
	}
	return l.Kind == "" || slices.ContainsFunc(v.Routes, func(r rtnl.RouteInfo) bool {
		return r.Index == l.Index && r.Dst.Bits() == 0 && r.Type == unix.RTN_UNICAST
	})
}

func takesAdvertisements(link string) (bool, error) {
	accept, err := sysctl.Read("ipv6/conf/" + link + "/accept_ra")
	if err != nil || accept == "0" {
		return false, missing(err)
	}
	forwards, err := sysctl.Read("ipv6/conf/" + link + "/forwarding")
	return accept == "2" || forwards == "0", missing(err)
}

// missing forgives a link without IPv6, or one that is gone.
func missing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
