package bridge

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/network"
)

const (
	optName       = "com.docker.network.bridge.name"
	optICC        = "com.docker.network.bridge.enable_icc"
	optMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optInhibit    = "com.docker.network.bridge.inhibit_ipv4"
	optMode4      = network.OptGatewayMode4
	optMode6      = network.OptGatewayMode6
	optTrusted    = "com.docker.network.bridge.trusted_host_interfaces"
	optMTU        = network.OptMTU
	optGuard      = "isle.bridge.source_guard"
	optMode       = "isle.bridge.mode"
	optSources    = "isle.endpoint.sources"
)

// mode is how a family of a network is joined to the world outside.
type mode string

const (
	nat         mode = "nat"             // published ports of the host; what leaves gets the host's address
	unprotected mode = "nat-unprotected" // as nat, and everybody who routes here reaches all ports of containers
	routed      mode = "routed"          // no translation: published ports are open at the containers' own addresses
	isolated    mode = "isolated"        // the host has no address there; internal networks only
)

// options are a network's, read.
type options struct {
	Name        string // of the bridge; "": made from the network's id
	ICC         bool   // containers may talk to each other
	Masquerade  bool
	InhibitIPv4 bool // the bridge gets no IPv4 address
	MTU         int  // 0: the host's
	Mode4       mode
	Mode6       mode
	Trusted     []string // interfaces of the host from which published ports are reached at the containers' addresses
	Guard       bool     // containers send with their own addresses only
	addressing
}

func (o options) mode(v4 bool) mode {
	if v4 {
		return o.Mode4
	}
	return o.Mode6
}

// parse reads the options of a network. Options that are not ours are left
// alone, as Docker does; ours with a meaning that we do not have are refused.
func parse(opts map[string]string) (options, error) {
	o := options{ICC: true, Masquerade: true, Mode4: nat, Mode6: nat, Guard: true, addressing: defaultAddressing}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if err := o.set(k, opts[k]); err != nil {
			return o, fmt.Errorf("option %s=%s: %w: %w", k, opts[k], err, errdefs.ErrInvalidArgument)
		}
	}
	return o, nil
}

// known refuses options with a name of ours that there is not. It is asked when a
// network is made: what was made before stays.
func known(opts map[string]string) error {
	ours := []string{optGuard, optMode}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if !strings.HasPrefix(k, "isle.") || slices.Contains(ours, k) {
			continue
		}
		if k == optSources || k == optEndpointMTU {
			return fmt.Errorf("option %s is for a container's place on a network (hint: isle run --network name=…,driver-opt=%s=%s): %w", k, k, opts[k], errdefs.ErrInvalidArgument)
		}
		near := slices.MinFunc(ours, func(a, b string) int { return distance(k, a) - distance(k, b) })
		return fmt.Errorf("option %s is not known (hint: did you mean %s?): %w", k, near, errdefs.ErrInvalidArgument)
	}
	return nil
}

// distance is how many letters must be added, left out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func (o *options) set(k, v string) (err error) {
	switch k {
	case optAdvertise, optAdvertiseEvery:
		err = o.addressing.set(k, v)
	case optName:
		if o.Name = v; v != "" {
			err = network.CheckInterface(v)
		}
	case optICC:
		o.ICC, err = parseBool(v)
	case optMasquerade:
		o.Masquerade, err = parseBool(v)
	case optInhibit:
		o.InhibitIPv4, err = parseBool(v)
	case optMTU:
		if v != "" && v != "0" {
			o.MTU, err = number(v, 68, 65535)
		}
	case optMode4:
		o.Mode4, err = parseMode(v)
	case optMode6:
		o.Mode6, err = parseMode(v)
	case optTrusted:
		o.Trusted, err = parseTrusted(v)
	case optGuard:
		o.Guard, err = parseBool(v)
	case optMode:
		if v != "" && v != "bridge" {
			err = fmt.Errorf("there is only one (hint: leave it out; a network grows beyond 1,023 containers by itself)")
		}
	case network.OptHostBinding:
		if v != "" {
			_, err = netip.ParseAddr(v)
		}
	case network.OptIfacePrefix:
		if v != "" {
			err = network.CheckInterface(v + "0")
		}
	}
	return err
}

func parseMode(v string) (mode, error) {
	switch m := mode(v); m {
	case "":
		return nat, nil
	case nat, unprotected, routed, isolated:
		return m, nil
	}
	return "", fmt.Errorf("must be nat, nat-unprotected, routed or isolated")
}

func parseTrusted(v string) (names []string, err error) {
	for name := range strings.SplitSeq(v, ":") {
		if name == "" {
			continue
		}
		if err := network.CheckInterface(name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// sources reads what an endpoint may send from besides its own addresses:
// prefixes with commas between them, or "any" for everything.
func sources(v string) (prefixes []netip.Prefix, all bool, err error) {
	for s := range strings.SplitSeq(v, ",") {
		switch s = strings.TrimSpace(s); s {
		case "":
		case "any":
			all = true
		default:
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, false, fmt.Errorf("option %s: %q is neither a prefix nor \"any\": %w", optSources, s, errdefs.ErrInvalidArgument)
			}
			prefixes = append(prefixes, p.Masked())
		}
	}
	return prefixes, all, nil
}

func parseBool(s string) (bool, error) {
	if s == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("must be true or false")
	}
	return b, nil
}
