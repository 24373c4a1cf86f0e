package bridge

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

// Options that say how endpoints take their addresses.
const (
	optAdvertise      = "com.docker.network.bridge.advertise_addr_nmsgs"
	optAdvertiseEvery = "com.docker.network.bridge.advertise_addr_ms"
	optEndpointMTU    = "isle.endpoint.mtu"
)

// addressing is how the network's endpoints tell their neighbours of them.
type addressing struct {
	Times int // how often
	Every int // milliseconds
}

// Docker says it three times. Every one goes to all containers of the network.
var defaultAddressing = addressing{Times: 1, Every: 1000}

func (a *addressing) set(k, v string) (err error) {
	switch {
	case v == "":
	case k == optAdvertise:
		a.Times, err = number(v, 0, 3)
	case k == optAdvertiseEvery:
		a.Every, err = number(v, 100, 2000)
	}
	return err
}

func number(v string, least, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("must be a number from %d to %d", least, most)
	}
	return n, nil
}

// announce tells the neighbours of an endpoint's addresses when it gets them.
func (p plan) announce(s netspec.State, ep network.Endpoint) {
	if p.o.addressing.Times > 0 {
		s.Add(netspec.Announce{NS: ep.NS(), Link: ep.Interface, Times: p.o.addressing.Times, Every: p.o.addressing.Every})
	}
}

// endpointMTU is the network's, or less where the endpoint says so. More than a
// network has that follows the host is no mistake: the host may have changed.
func (p plan) endpointMTU(ep network.Endpoint) (int, error) {
	if lan := ep.LeaseMTU(); lan != 0 && (p.mtu == 0 || lan < p.mtu) {
		p.mtu = lan
	}
	v := ep.Options[optEndpointMTU]
	if v == "" {
		return p.mtu, nil
	}
	least, most := 68, cmp.Or(p.o.MTU, 65535)
	if p.IPv6 {
		least = network.LeastIPv6MTU
	}
	n, err := number(v, least, most)
	if err != nil {
		return 0, fmt.Errorf("option %s=%s: %w: %w", optEndpointMTU, v, err, errdefs.ErrInvalidArgument)
	}
	if p.mtu != 0 {
		n = min(n, p.mtu)
	}
	return n, nil
}
