package network

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/network/dhcp"
)

// Options of the IPAM driver IPAMDHCP, for a network and for an endpoint.
const (
	optDHCPTimeout   = "isle.dhcp.timeout"
	optDHCPVendor    = "isle.dhcp.vendor_class"
	optDHCPUserClass = "isle.dhcp.user_class"

	optDHCPHostname = "isle.dhcp.hostname"
	optDHCPClientID = "isle.dhcp.client_id"
	optDHCPFQDN     = "isle.dhcp.fqdn"
)

const (
	leastDHCPTimeout = time.Second
	mostDHCPTimeout  = 10 * time.Minute
)

// leaseOptions reads those of a network and of an endpoint into c.
func leaseOptions(c *dhcp.Config, n Network, e Endpoint) error {
	c.Hostname = e.ContainerName
	for _, opts := range []map[string]string{n.IPAMOptions, e.Options} {
		for _, k := range slices.Sorted(maps.Keys(opts)) {
			if err := leaseOption(c, k, opts[k]); err != nil {
				return fmt.Errorf("option %s=%s: %w: %w", k, opts[k], err, errdefs.ErrInvalidArgument)
			}
		}
	}
	return nil
}

func leaseOption(c *dhcp.Config, k, v string) (err error) {
	switch k {
	case optDHCPTimeout:
		c.Limit, err = time.ParseDuration(v)
		if err == nil && (c.Limit < leastDHCPTimeout || c.Limit > mostDHCPTimeout) {
			err = fmt.Errorf("must be from %s to %s", leastDHCPTimeout, mostDHCPTimeout)
		}
	case optDHCPVendor:
		c.Vendor = v
	case optDHCPUserClass:
		c.UserClass = v
	case optDHCPHostname:
		c.Hostname = v
	case optDHCPFQDN:
		c.FQDN = v
	case optDHCPClientID:
		c.ClientID, err = clientID(v)
	default:
		if strings.HasPrefix(k, "isle.dhcp.") {
			err = fmt.Errorf("there is no such option (hint: of networks %s, %s, %s; of endpoints %s, %s, %s)",
				optDHCPTimeout, optDHCPVendor, optDHCPUserClass, optDHCPHostname, optDHCPFQDN, optDHCPClientID)
		}
	}
	return err
}

// clientID is a type and an id: bytes, as in "01:02:42:ac:11:00:02", or text, whose
// type is 0 (RFC 2132 9.14).
func clientID(v string) ([]byte, error) {
	if strings.Contains(v, ":") {
		b, err := hex.DecodeString(strings.ReplaceAll(v, ":", ""))
		if err != nil || len(b) < 2 {
			return nil, fmt.Errorf("must be text, or at least two bytes as in 01:02:42:ac:11:00:02")
		}
		return b, nil
	}
	return append([]byte{0}, v...), nil
}

// leaseConfig is how an endpoint asks for its addresses. Who it is does not change
// from one start of its container to the next.
func (m *Manager) leaseConfig(pl place, f Family) (dhcp.Config, error) {
	c := dhcp.Config{
		Do:        func(fn func() error) error { return m.Machine.Do(pl.NS(), fn) },
		Interface: pl.Interface, Endpoint: pl.Sandbox + "/" + pl.net.ID,
		Previous: pl.Leases[f], Log: m.Log.With("container", pl.ContainerName, "network", pl.net.Name),
	}
	if err := leaseOptions(&c, *pl.net, pl.Endpoint); err != nil {
		return c, err
	}
	c.SharedMAC = m.Drivers[pl.net.Driver].Caps().OneMAC
	var err error
	c.MAC, err = m.Machine.MAC(pl.NS(), pl.Interface)
	return c, err
}

// leasable reports why n cannot have its addresses from the LAN.
func (m *Manager) leasable(n Network, d Driver) error {
	switch {
	case m.Lease == nil || !d.Caps().DHCP:
		return fmt.Errorf("ipam driver %s: networks of driver %s are not on a LAN that gives out addresses (hint: -d macvlan or -d ipvlan with -o parent=eth0, or -d bridge): %w", n.IPAMDriver, n.Driver, errdefs.ErrInvalidArgument)
	case n.Internal:
		return fmt.Errorf("ipam driver %s: on an internal network there is nobody to ask for addresses (hint: leave out --internal): %w", n.IPAMDriver, errdefs.ErrInvalidArgument)
	case n.onParent() && n.Options[OptParent] == "":
		return fmt.Errorf("ipam driver %s: without a parent there is nobody to ask for addresses (hint: -o parent=eth0): %w", n.IPAMDriver, errdefs.ErrInvalidArgument)
	}
	var c dhcp.Config
	return leaseOptions(&c, n, Endpoint{})
}

// noChoice refuses subnets where addresses are not chosen by us.
func (n Network) noChoice() error {
	if n.IPAMDriver == IPAMDHCP {
		return fmt.Errorf("ipam driver %s: the DHCP server says which subnet it is (hint: leave out --subnet, --gateway, --ip-range and --aux-address): %w", n.IPAMDriver, errdefs.ErrInvalidArgument)
	}
	if n.given() {
		return fmt.Errorf("driver %s chooses the addresses itself (hint: leave out --subnet, --gateway, --ip-range and --aux-address): %w", n.Driver, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("driver %s has no addresses to configure: %w", n.Driver, errdefs.ErrInvalidArgument)
}
