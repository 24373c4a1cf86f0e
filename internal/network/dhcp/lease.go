package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Lease is what a LAN gave to an endpoint, for a time. As JSON it is what the
// caller keeps; nothing that it points to is ever changed.
type Lease struct {
	Interface string
	Addresses []Address // one with DHCPv4
	// Routes are all that are to be set, the default one too.
	Routes  []Route
	Routers []netip.Addr `json:",omitempty"` // as the LAN named them, for people
	DNS     []netip.Addr `json:",omitempty"`
	Domain  string       `json:",omitempty"`
	Search  []string     `json:",omitempty"`
	NTP     []netip.Addr `json:",omitempty"`
	MTU     int          `json:",omitempty"` // 0: not said

	Server     netip.Addr // DHCPv4's; of IPv6 the first router's
	ServerDUID []byte     `json:",omitempty"` // DHCPv6's

	// When it was given, and when to ask its server (T1) and every server (T2)
	// to prolong it. Zero: never.
	Obtained, Renew, Rebind time.Time
	// Expire is when nothing of it may be used any more. Zero: never.
	Expire time.Time

	// Options are the server's, as they came, by number.
	Options []Option `json:",omitempty"`
	// Ignored says what of the answer was not believed, and why.
	Ignored []string `json:",omitempty"`
}

// Address is one address and how long it may be used. Zero times mean for ever.
type Address struct {
	Prefix    netip.Prefix // DHCPv6 gives a /128, others an address in its subnet
	Source    Source
	Preferred time.Time `json:",omitzero"` // until then for new connections
	Valid     time.Time `json:",omitzero"`
}

// Source is by what means an address came.
type Source string

// The sources.
const (
	DHCP4 Source = "dhcp4"
	DHCP6 Source = "dhcp6"
	SLAAC Source = "slaac"
)

// Route is one route. An invalid Via means that Dest is on the link.
type Route struct {
	Dest   netip.Prefix
	Via    netip.Addr `json:",omitzero"`
	Expire time.Time  `json:",omitzero"` // zero: with the lease
}

// Option is one option of a message as it came.
type Option struct {
	Code uint16
	Data []byte
}

// Address is the first address; invalid when there is none.
func (l Lease) Address() netip.Prefix {
	if len(l.Addresses) == 0 {
		return netip.Prefix{}
	}
	return l.Addresses[0].Prefix
}

// Valid reports whether the lease may be used at a time.
func (l Lease) Valid(now time.Time) bool {
	return len(l.Addresses) > 0 && (l.Expire.IsZero() || now.Before(l.Expire))
}

// Same reports whether two leases configure an interface alike: times and what is
// for people only do not count.
func (l Lease) Same(o Lease) bool {
	return slices.EqualFunc(l.Addresses, o.Addresses, func(a, b Address) bool { return a.Prefix == b.Prefix }) &&
		slices.EqualFunc(l.Routes, o.Routes, func(a, b Route) bool { return a.Dest == b.Dest && a.Via == b.Via }) &&
		slices.Equal(l.DNS, o.DNS) && slices.Equal(l.Search, o.Search) && slices.Equal(l.NTP, o.NTP) &&
		l.Domain == o.Domain && l.MTU == o.MTU
}

// String is for people and logs.
func (l Lease) String() string {
	var s []string
	for _, a := range l.Addresses {
		s = append(s, a.Prefix.String())
	}
	return fmt.Sprintf("%s on %s from %s", strings.Join(s, ", "), l.Interface, l.Server)
}
