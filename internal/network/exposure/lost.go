package exposure

import (
	"fmt"
	"net/netip"
	"slices"

	"isle/internal/netspec"
)

// cut is why nobody gets an answer from an address of the container, or "": inside
// of its namespace something that answers need is gone. Near says that who asks is
// on the container's own network.
func (c Container) cut(to netip.Addr, near bool) string {
	iface := c.holder(to)
	for _, o := range c.Lost {
		switch o := o.(type) {
		case netspec.Link:
			if o.Peer == iface {
				return fmt.Sprintf("the container's interface %s is down or gone", iface)
			}
		case netspec.Addr:
			if o.Link == iface && o.Prefix.Addr() == to && !o.Cut { // without its subnet's route the default route serves
				return fmt.Sprintf("the container has lost its address %s on %s", to, iface)
			}
		case netspec.Route:
			if o.Dev == iface && o.Dst.Bits() == 0 && o.Dst.Addr().Is4() == to.Is4() && !near {
				return fmt.Sprintf("the container has lost its way back, the default route over %s", iface)
			}
		}
	}
	return ""
}

// holder is the container's interface that an address is planned on.
func (c Container) holder(to netip.Addr) string {
	for _, o := range c.State {
		if a, ok := o.(netspec.Addr); ok && a.Prefix.Addr() == to {
			return a.Link
		}
	}
	return ""
}

// Damage is in words what of the container's namespace is not as planned, in order.
func (c Container) Damage() (words []string) {
	for _, o := range c.Lost {
		switch o := o.(type) {
		case netspec.Link:
			words = append(words, fmt.Sprintf("interface %s is down or gone", o.Peer))
		case netspec.Addr:
			what := "address " + o.Prefix.String()
			if o.Cut {
				what = "the kernel's route to " + o.Prefix.Masked().String()
			}
			words = append(words, fmt.Sprintf("%s on %s is gone", what, o.Link))
		case netspec.Route:
			words = append(words, fmt.Sprintf("route to %s over %s is gone", o.Dst, o.Dev))
		case netspec.Sysctl:
			words = append(words, fmt.Sprintf("setting net/%s is not %s", o.Name, o.Value))
		default:
			words = append(words, fmt.Sprintf("%v is gone", o.Key()))
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}
