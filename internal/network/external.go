package network

import (
	"context"
	"encoding/json"
	"net/netip"

	"isle/internal/netspec"
)

// External is what a Driver is besides when others do its work: programs that are
// started, servers that are asked. Its Plan gives what Isle itself adds, from the
// Result that is in the endpoint.
//
// The records come first here too: an endpoint is written down, then attached, then
// its Result is written down. So whatever happens in between, Detach is called for all
// that may be there, also after a crash, and must take that some or all of it is not.
//
// All calls take their time and are made while other operations go on; ctx ends them.
// Errors name the plugin and say what it said.
type External interface {
	Driver
	// Make makes n with the others, before anything is connected to it, and says what
	// they have chosen. Called again after a restart of isled for one that is there: it
	// is made good then.
	Make(ctx context.Context, n Network) (Made, error)
	// Unmake takes it away. One that is not there is no error.
	Unmake(ctx context.Context, n Network) error
	// Attach gives an endpoint its interface. After an error nothing of it is left, as
	// far as the others can be brought to that.
	Attach(ctx context.Context, a Attachment) (Result, error)
	// Check reports what is no longer as Attach left it; nil when the driver cannot say.
	Check(ctx context.Context, a Attachment) error
	// Detach takes the interface away. The namespace may be gone (NSPath is "").
	Detach(ctx context.Context, a Attachment) error
	// Keep tells the others which attachments of n there are: what else they have of
	// ours may go.
	Keep(ctx context.Context, n Network, all []Attachment) error
}

// Particular is a Driver whose networks differ in what they can do. For a network that
// is not made yet CapsOf tells no more than Caps.
type Particular interface {
	Driver
	CapsOf(n Network) Caps
}

// Made is what others said of a network that they made.
type Made struct {
	Warnings []string // for the person: what cannot be enforced, what was not understood
}

// Attachment is an endpoint of an External driver's network.
type Attachment struct {
	Network  Network
	Endpoint Endpoint // its Result is nil before it is attached
	NSPath   string   // of its namespace; "": there is none any more
	NS       netspec.NS
	Publish  []Publish // the ports of the sandbox that it carries
	Hostname string    // the container's name
	portless bool      // there are ports, and others carry them
}

// Result is what others gave an endpoint. It is part of its record.
type Result struct {
	Addrs    []netip.Prefix  `json:",omitempty"` // in the container
	Gateways []netip.Addr    `json:",omitempty"` // ways out, at most one for each family
	Routes   []ResultRoute   `json:",omitempty"` // other routes
	MAC      netspec.MAC     // zero: the interface has none
	MTU      int             `json:",omitempty"` // 0: not told
	Links    []string        `json:",omitempty"` // interfaces on the host that its packets pass
	DNS      ResultDNS       // how names are resolved there
	Routed   bool            `json:",omitempty"` // the others have set the routes, the default one too
	Raw      json.RawMessage `json:",omitempty"` // in their own words, for inspect
	// Portless is the Manager's: another endpoint carried the sandbox's ports when the
	// others were told of this one. They cannot be told later.
	Portless bool `json:",omitempty"`
}

func (r *Result) gateway(v4 bool) netip.Addr {
	for _, g := range r.Gateways {
		if g.Is4() == v4 {
			return g
		}
	}
	return netip.Addr{}
}

// ResultRoute is a route. Without Via it is on the link.
type ResultRoute struct {
	Dst netip.Prefix
	Via netip.Addr
}

// ResultDNS is the servers and domains that others name.
type ResultDNS struct {
	Servers []netip.Addr `json:",omitempty"`
	Search  []string     `json:",omitempty"`
	Options []string     `json:",omitempty"`
}

// ExternalIPAM gives out addresses in Isle's stead. The same holds for its calls as
// for those of External.
type ExternalIPAM interface {
	// RequestPool takes a subnet; an invalid one leaves the choice to the others.
	RequestPool(ctx context.Context, want PoolWish) (PoolGrant, error)
	ReleasePool(ctx context.Context, pool string) error
	// RequestAddress takes an address of a pool; an invalid one leaves the choice.
	// gateway says that it is to be the network's gateway.
	RequestAddress(ctx context.Context, pool string, want netip.Addr, gateway bool, mac netspec.MAC) (netip.Prefix, error)
	ReleaseAddress(ctx context.Context, pool string, a netip.Addr) error
}

// PoolWish is what is wanted of a pool.
type PoolWish struct {
	Subnet, Range netip.Prefix
	IPv6          bool
	Options       map[string]string
}

// PoolGrant is a pool that was given.
type PoolGrant struct {
	ID      string // the others' name of it
	Subnet  netip.Prefix
	Gateway netip.Addr // invalid: they do not say
	Data    map[string]string
}
