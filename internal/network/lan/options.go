package lan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

const (
	optMacvlanMode = "macvlan_mode"
	optIPvlanMode  = "ipvlan_mode"
	optIPvlanFlag  = "ipvlan_flag"
	optEndpointMTU = "isle.endpoint.mtu"
)

// Options are a network's, read.
type Options struct {
	Kind       string // netspec.Macvlan or netspec.IPvlan
	Parent     string // "": none, the containers are among themselves
	Mode       string
	Flag       string // of ipvlan
	HostAccess bool   // the host and the containers reach each other
	MTU        int    // 0: the parent's
}

// routes reports whether the kernel routes between the containers and the parent:
// there is no ARP, and no other router.
func (o Options) routes() bool { return o.Kind == netspec.IPvlan && o.Mode != "l2" }

// Parse reads the options of a network of a kind. Options that are not ours are left
// alone, as Docker does; ours with a meaning that we do not have are refused.
func Parse(kind string, opts map[string]string) (Options, error) {
	o := Options{Kind: kind, Mode: "bridge"}
	if kind == netspec.IPvlan {
		o.Mode, o.Flag = "l2", "bridge"
	}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if err := o.set(k, opts[k]); err != nil {
			return o, fmt.Errorf("option %s=%s: %w: %w", k, opts[k], err, errdefs.ErrInvalidArgument)
		}
	}
	return o, nil
}

func (o *Options) set(k, v string) (err error) {
	if v == "" {
		return nil
	}
	switch k {
	case network.OptParent:
		err = o.parent(v)
	case optMacvlanMode:
		if o.Kind == netspec.Macvlan {
			o.Mode, err = v, one("macvlan mode", v, "bridge", "private", "vepa", "passthru")
		}
	case optIPvlanMode:
		if o.Kind == netspec.IPvlan {
			o.Mode, err = v, one("ipvlan mode", v, "l2", "l3", "l3s")
		}
	case optIPvlanFlag:
		if o.Kind == netspec.IPvlan {
			o.Flag, err = v, one("ipvlan flag", v, "bridge", "private", "vepa")
		}
	case network.OptHostAccess:
		if o.HostAccess, err = strconv.ParseBool(v); err != nil {
			err = fmt.Errorf("must be true or false")
		}
	case network.OptMTU:
		o.MTU, err = number(v, 0, 65535)
		if err == nil && o.MTU > 0 && o.MTU < 68 {
			err = fmt.Errorf("must be at least 68")
		}
	case network.OptIfacePrefix:
		err = network.CheckInterface(v + "0")
	}
	return err
}

func (o *Options) parent(v string) error {
	if v == "lo" {
		return fmt.Errorf("loopback interface is not a valid %s parent link", o.Kind)
	}
	o.Parent = v
	return network.CheckInterface(v)
}

// one checks a choice, in Docker's words; the first is the default.
func one(what, v string, choices ...string) error {
	if slices.Contains(choices, v) {
		return nil
	}
	return fmt.Errorf("requested %s '%s' is not valid, '%s' is the default (hint: one of %q)", what, v, choices[0], choices)
}

func number(v string, least, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("must be a number from %d to %d", least, most)
	}
	return n, nil
}

// Validate reports whether n is well formed.
func Validate(kind string, n network.Network) error {
	o, err := Parse(kind, n.Options)
	if err != nil {
		return err
	}
	if err := o.access(n); err != nil {
		return fmt.Errorf("option %s=true: %w: %w", network.OptHostAccess, err, errdefs.ErrInvalidArgument)
	}
	switch {
	case n.IPAMDriver == network.IPAMDHCP && o.routes():
		return fmt.Errorf("ipvlan_mode=%s: the kernel passes on no DHCP in it (hint: ipvlan_mode=l2, or give --subnet): %w", o.Mode, errdefs.ErrInvalidArgument)
	case len(n.Pools) == 0 && n.IPAMDriver != network.IPAMDHCP:
		return fmt.Errorf("ipv4 pool is empty (hint: give --subnet, that of the LAN, or --ipam-driver dhcp): %w", errdefs.ErrInvalidArgument)
	case o.Parent == "" && o.Mode == "passthru":
		return fmt.Errorf("option %s=passthru: there is no parent to pass through (hint: -o parent=…): %w", optMacvlanMode, errdefs.ErrInvalidArgument)
	case n.IPv6 && o.MTU != 0 && o.MTU < network.LeastIPv6MTU:
		return fmt.Errorf("option %s=%d: IPv6 needs at least %d (hint: --ipv6=false): %w", network.OptMTU, o.MTU, network.LeastIPv6MTU, errdefs.ErrInvalidArgument)
	}
	for _, p := range n.Pools {
		if p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) {
			return fmt.Errorf("gateway %s is not in subnet %s: %w", p.Gateway, p.Subnet, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// access reports why the host cannot have a way to the containers of n.
func (o Options) access(n network.Network) error {
	switch {
	case !o.HostAccess:
		return nil
	case n.Internal, o.Parent == "":
		return fmt.Errorf("the containers are to be among themselves (hint: leave out --internal, and give -o parent=…)")
	case o.Mode == "passthru":
		return fmt.Errorf("in mode passthru the container has the parent for itself")
	case o.Mode == "vepa", o.Flag == "vepa":
		return fmt.Errorf("in vepa the switch sends back what is for the host")
	case o.Mode == "private", o.Flag == "private":
		return fmt.Errorf("private is to keep the containers from each other and from the host")
	}
	return nil
}

// Beside reports why a network with these options cannot be on one host with other.
func Beside(kind string, n, other network.Network) error {
	if other.Driver != netspec.Macvlan && other.Driver != netspec.IPvlan || other.ConfigOnly {
		return nil
	}
	o, err := Parse(kind, n.Options)
	if err != nil {
		return err
	}
	have, err := Parse(other.Driver, other.Options)
	if err != nil || o.Parent == "" || o.Parent != have.Parent {
		return nil // what is there and cannot be read is on nothing
	}
	why := ""
	switch {
	case o.Kind != have.Kind:
		why = fmt.Sprintf("it is of %s, and the kernel has macvlan or ipvlan on an interface, not both", have.Kind)
	case o.Mode == "passthru", have.Mode == "passthru":
		why = "in mode passthru a network has the interface for itself"
	case o.Kind == netspec.IPvlan && (o.Mode != have.Mode || o.Flag != have.Flag):
		why = fmt.Sprintf("it has ipvlan_mode=%s and ipvlan_flag=%s, and all of an interface have the same", have.Mode, have.Flag)
	default:
		return nil
	}
	return fmt.Errorf("network %s is already using parent interface %s: %s: %w", other.Name, o.Parent, why, errdefs.ErrConflict)
}
