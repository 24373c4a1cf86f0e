package bridged

import (
	"cmp"
	"fmt"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

// Addressing is how the network's endpoints tell their neighbours of them.
type Addressing struct {
	Times int // how often
	Every int // milliseconds
}

// DefaultAddressing : Docker says it three times. Every one goes to all containers of the network.
var DefaultAddressing = Addressing{Times: 1, Every: 1000}

// announce tells the neighbours of an endpoint's addresses when it gets them.
func (p plan) announce(s netspec.State, ep network.Endpoint) {
	if p.o.Times > 0 {
		s.Add(netspec.Announce{NS: ep.NS(), Link: ep.Interface, Times: p.o.Times, Every: p.o.Every})
	}
}

// endpointMTU is the network's, or less where the endpoint says so. More than a
// network has that follows the host is no mistake: the host may have changed.
func (p plan) endpointMTU(ep network.Endpoint) (int, error) {
	if lan := ep.LeaseMTU(); lan != 0 && (p.mtu == 0 || lan < p.mtu) {
		p.mtu = lan
	}
	v := ep.Options[OptEndpointMTU]
	if v == "" {
		return p.mtu, nil
	}
	least, most := 68, cmp.Or(p.o.MTU, 65535)
	if p.IPv6 {
		least = network.LeastIPv6MTU
	}
	n, err := Number(v, least, most)
	if err != nil {
		return 0, fmt.Errorf("option %s=%s: %w: %w", OptEndpointMTU, v, err, errdefs.ErrInvalidArgument)
	}
	if p.mtu != 0 {
		n = min(n, p.mtu)
	}
	return n, nil
}
