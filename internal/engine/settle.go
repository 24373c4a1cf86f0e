package engine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode"

	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/container"
	"isle/internal/network"
)

// settleNetworks fills rec.Networks: keys become the networks' names,
// NetworkMode is among them, and "container:NAME" becomes "container:ID".
func (e *Engine) settleNetworks(ctx context.Context, rec *container.Record, given *networktypes.NetworkingConfig) error {
	rec.Networks, rec.MACs = map[string]*networktypes.EndpointSettings{}, map[string]networktypes.HardwareAddr{}
	if err := e.resolveModes(rec); err != nil {
		return err
	}
	mode := rec.Host.NetworkMode
	if mode.IsContainer() {
		return sharedAlone(given)
	}
	if isPath(mode) {
		return pathAlone(*rec, given)
	}
	asked := map[string]*networktypes.EndpointSettings{string(mode): nil}
	if given != nil {
		for ref, s := range given.EndpointsConfig {
			if ref == "default" {
				ref = "bridge"
			}
			asked[ref] = s
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(asked)) {
		if err := e.settleNetwork(ctx, rec, ref, asked[ref]); err != nil {
			return err
		}
	}
	return alone(*rec)
}

// sharedAlone: of another container's network nothing can be chosen.
func sharedAlone(given *networktypes.NetworkingConfig) error {
	if given == nil || len(given.EndpointsConfig) == 0 {
		return nil
	}
	for _, s := range given.EndpointsConfig {
		switch {
		case s != nil && len(s.MacAddress) > 0:
			return invalid("conflicting options: mac-address and the network mode")
		case s != nil && hasAddress(s):
			return invalid("conflicting options: IP address and the container type network mode")
		}
	}
	return invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
}

func hasAddress(s *networktypes.EndpointSettings) bool {
	return s.IPAMConfig != nil && (s.IPAMConfig.IPv4Address.IsValid() || s.IPAMConfig.IPv6Address.IsValid())
}

// settleNetwork adds one network. Two references to one network are one.
func (e *Engine) settleNetwork(ctx context.Context, rec *container.Record, ref string, s *networktypes.EndpointSettings) error {
	n, err := e.Networks.Find(ctx, ref)
	if err != nil {
		return err
	}
	if n.ConfigOnly {
		return forbidden("network %s is a config-only network and cannot be used directly to run containers", n.Name)
	}
	if err := checkEndpoint(n, s); err != nil {
		return err
	}
	if old, ok := rec.Networks[n.Name]; ok && s == nil {
		s = old
	}
	var mac networktypes.HardwareAddr
	if s != nil {
		mac = s.MacAddress
	}
	settled := cleared(s, mac)
	settled.NetworkID, settled.DNSNames = n.ID, nil
	rec.Networks[n.Name] = settled
	if len(mac) > 0 {
		rec.MACs[n.Name] = mac
	}
	return nil
}

// alone: the namespaces of "host" and "none" are of no other network.
func alone(rec container.Record) error {
	if len(rec.Networks) < 2 {
		return nil
	}
	for _, special := range []string{"host", "none"} {
		if _, ok := rec.Networks[special]; ok && special == "host" {
			return invalid("container cannot be connected to multiple networks with one of the networks in host mode")
		} else if ok && string(rec.Host.NetworkMode) != special {
			return invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

// checkEndpoint refuses what the default network does not do, and addresses
// that cannot be. A static address is allowed on every network.
func checkEndpoint(n network.Network, s *networktypes.EndpointSettings) error {
	if s == nil {
		return nil
	}
	if err := checkAddresses(n, s.IPAMConfig); err != nil {
		return err
	}
	if isHost(n) || isNone(n) {
		return checkAddressless(n, s)
	}
	for _, a := range s.Aliases {
		if !askable(a) {
			return invalid("invalid config for network %s: invalid alias %q: nobody can ask for it (hint: letters, digits, '-', '_' and '.', at most 63 between dots)", n.Name, a)
		}
	}
	if isDefault(n) && len(s.Aliases) > 0 {
		return invalid("invalid config for network %s: network-scoped aliases are only supported for user-defined networks", n.Name)
	}
	if len(s.MacAddress) != 0 && len(s.MacAddress) != 6 {
		return invalid("invalid MAC address: %s", s.MacAddress)
	}
	return nil
}

func checkAddresses(n network.Network, ipam *networktypes.EndpointIPAMConfig) error {
	if ipam == nil {
		return nil
	}
	if a := ipam.IPv4Address; a.IsValid() && (!a.Is4() || a.IsUnspecified()) {
		return invalid("invalid config for network %s: invalid IPv4 address: %s", n.Name, a)
	}
	if a := ipam.IPv6Address; a.IsValid() && (!a.Is6() || a.IsUnspecified()) {
		return invalid("invalid config for network %s: invalid IPv6 address: %s", n.Name, a)
	}
	for _, a := range ipam.LinkLocalIPs {
		if !a.IsLinkLocalUnicast() {
			return invalid("invalid config for network %s: invalid link-local IP address: %s", n.Name, a)
		}
	}
	return nil
}

// checkAddressless is about the networks "host" and "none".
func checkAddressless(n network.Network, s *networktypes.EndpointSettings) error {
	switch {
	case hasAddress(s):
		return invalid("invalid config for network %s: user specified IP address is supported on user defined networks only", n.Name)
	case len(s.MacAddress) > 0:
		return invalid("conflicting options: mac-address and the network mode")
	case len(s.Aliases) > 0:
		return invalid("invalid config for network %s: network-scoped aliases are only supported for user-defined networks", n.Name)
	}
	return nil
}

// askable: a question of the DNS has room for the name, and a program can say it.
func askable(name string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) && r != '-' && r != '_' }) {
			return false
		}
	}
	return len(name) <= 253
}

func isDefault(n network.Network) bool { return n.Name == network.NameBridge }
func isHost(n network.Network) bool    { return n.Driver == network.DriverHost }
func isNone(n network.Network) bool    { return n.Driver == network.DriverNone }

// resolveModes makes ids of the containers that modes name, so that a rename
// changes nothing.
func (e *Engine) resolveModes(rec *container.Record) error {
	h := rec.Host
	for _, m := range []struct {
		is  bool
		ref string
		set func(id string)
	}{
		{h.NetworkMode.IsContainer(), h.NetworkMode.ConnectedContainer(), func(id string) { h.NetworkMode = modeOf[apitypes.NetworkMode](id) }},
		{h.PidMode.IsContainer(), h.PidMode.Container(), func(id string) { h.PidMode = modeOf[apitypes.PidMode](id) }},
		{h.IpcMode.IsContainer(), h.IpcMode.Container(), func(id string) { h.IpcMode = modeOf[apitypes.IpcMode](id) }},
	} {
		if !m.is {
			continue
		}
		c, err := e.find(m.ref)
		if err != nil {
			return err
		}
		m.set(c.snapshot().ID)
	}
	return nil
}

func modeOf[M ~string](id string) M { return M("container:" + id) }
