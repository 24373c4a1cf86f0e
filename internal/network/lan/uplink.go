package lan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/ids"
	"isle/internal/netspec"
	"isle/internal/network"
)

// uplink is what the links of a network are made on, on one host.
type uplink struct {
	network.Parent                // or what the VLANs are on
	name           string         // of the interface itself
	vlans          []netspec.VLAN // to be made, from below
	dummy          bool           // to be made
}

// find looks for the parent: an interface of that name, or else a VLAN, "eth0.50",
// on one. What another made is used as it is. err says what is missing.
func (o Options) find(n network.Network, host network.Host) (uplink, error) {
	if o.Parent == "" {
		name := "dm-" + ids.Short(n.ID)
		return uplink{Parent: network.Parent{Name: name, MTU: 1500, Up: true, Carrier: true}, name: name, dummy: true}, nil
	}
	return find(o.Parent, host)
}

func find(name string, host network.Host) (uplink, error) {
	if p, ok := host.Parent(name); ok {
		return uplink{Parent: p, name: name}, nil
	}
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return uplink{}, fmt.Errorf("parent interface %s is not there: %w", name, errdefs.ErrUnavailable)
	}
	id, err := strconv.ParseUint(name[i+1:], 10, 16)
	if err != nil || id < 1 || id > 4094 {
		return uplink{}, fmt.Errorf("parent interface %s is not there, and is no VLAN on %s either: a VLAN id is from 1 to 4094, as in eth0.10: %w",
			name, name[:i], errdefs.ErrInvalidArgument)
	}
	u, err := find(name[:i], host)
	if err != nil {
		return u, fmt.Errorf("make VLAN interface %s: %w", name, err)
	}
	u.name, u.vlans = name, append(u.vlans, netspec.VLAN{Name: name, Parent: name[:i], ID: uint16(id)})
	return u, nil
}

// Ready reports why a container, one more than those on n, cannot be there now.
func Ready(kind string, n network.Network, users int, host network.Host) error {
	o, err := Parse(kind, n.Options)
	if err != nil {
		return err
	}
	u, err := o.find(n, host)
	switch {
	case err != nil:
		return err
	case u.Master != "" && len(u.vlans) == 0:
		return fmt.Errorf("parent interface %s is a port of %s (hint: -o parent=%s): %w", u.name, u.Master, u.Master, errdefs.ErrConflict)
	case o.Mode == "passthru" && users > 0:
		return fmt.Errorf("in mode passthru one container has the parent interface %s for itself, and there is one: %w", u.name, errdefs.ErrConflict)
	}
	return nil
}

// Uplink says what n is on and how that is.
func Uplink(kind string, n network.Network, host network.Host) string {
	o, err := Parse(kind, n.Options)
	if err != nil || o.Parent == "" {
		return ""
	}
	u, err := o.find(n, host)
	if err != nil {
		return fmt.Sprintf("%s: missing: %v", o.Parent, err)
	}
	text := o.Parent + ": " + state(u.Parent)
	if len(u.vlans) > 0 {
		text = fmt.Sprintf("%s: VLAN on %s: %s", o.Parent, u.Parent.Name, state(u.Parent))
	}
	if u.Now != "" {
		text += ", renamed to " + u.Now
	}
	return text
}

func state(p network.Parent) string {
	switch {
	case !p.Up:
		return "down"
	case !p.Carrier:
		return "up, but without carrier"
	}
	return "up"
}
