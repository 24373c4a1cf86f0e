package bridge

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/network"
	"isle/internal/network/bridged"
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

	optAdvertise      = "com.docker.network.bridge.advertise_addr_nmsgs"
	optAdvertiseEvery = "com.docker.network.bridge.advertise_addr_ms"
)

// parse reads the options of a network. Options that are not ours are left
// alone, as Docker does; ours with a meaning that we do not have are refused.
func parse(opts map[string]string) (bridged.Options, error) {
	o := bridged.Options{ICC: true, Masquerade: true, Mode4: bridged.NAT, Mode6: bridged.NAT, Guard: true, Addressing: bridged.DefaultAddressing}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if err := set(&o, k, opts[k]); err != nil {
			return o, fmt.Errorf("option %s=%s: %w: %w", k, opts[k], err, errdefs.ErrInvalidArgument)
		}
	}
	return o, nil
}

func set(o *bridged.Options, k, v string) (err error) {
	switch k {
	case optAdvertise, optAdvertiseEvery:
		err = setAddressing(&o.Addressing, k, v)
	case optName:
		if o.Link = v; v != "" {
			err = network.CheckInterface(v)
		}
	case optICC:
		o.ICC, err = bridged.Bool(v)
	case optMasquerade:
		o.Masquerade, err = bridged.Bool(v)
	case optInhibit:
		o.InhibitIPv4, err = bridged.Bool(v)
	case optMTU:
		if v != "" && v != "0" {
			o.MTU, err = bridged.Number(v, 68, 65535)
		}
	case optMode4:
		o.Mode4, err = parseMode(v)
	case optMode6:
		o.Mode6, err = parseMode(v)
	case optTrusted:
		o.Trusted, err = parseTrusted(v)
	case optGuard:
		o.Guard, err = bridged.Bool(v)
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

func parseMode(v string) (bridged.Mode, error) {
	switch m := bridged.Mode(v); m {
	case "":
		return bridged.NAT, nil
	case bridged.NAT, bridged.Unprotected, bridged.Routed, bridged.Isolated:
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

func setAddressing(a *bridged.Addressing, k, v string) (err error) {
	switch {
	case v == "":
	case k == optAdvertise:
		a.Times, err = bridged.Number(v, 0, 3)
	case k == optAdvertiseEvery:
		a.Every, err = bridged.Number(v, 100, 2000)
	}
	return err
}
