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
	optMode4      = "com.docker.network.bridge.gateway_mode_ipv4"
	optMode6      = "com.docker.network.bridge.gateway_mode_ipv6"
	optTrusted    = "com.docker.network.bridge.trusted_host_interfaces"
	optMTU        = "com.docker.network.driver.mtu"
	optSysctls    = "com.docker.network.endpoint.sysctls"
)

// options are a network's, read.
type options struct {
	Name        string // of the bridge; "": made from the network's id
	ICC         bool   // containers may talk to each other
	Masquerade  bool
	InhibitIPv4 bool // the bridge gets no IPv4 address
	MTU         int  // 0: the host's
	addressing
}

// parse reads the options of a network. Options that are not ours are left
// alone, as Docker does; ours with a meaning that we do not have are refused.
func parse(opts map[string]string) (options, error) {
	o := options{ICC: true, Masquerade: true, addressing: defaultAddressing}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		if err := o.set(k, opts[k]); err != nil {
			return o, fmt.Errorf("option %s=%s: %w: %w", k, opts[k], err, errdefs.ErrInvalidArgument)
		}
	}
	return o, nil
}

func (o *options) set(k, v string) (err error) {
	switch k {
	case optAdvertise, optAdvertiseEvery, optMode:
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
		if o.MTU, err = strconv.Atoi(v); err == nil && (o.MTU < 68 || o.MTU > 65535) && o.MTU != 0 {
			err = fmt.Errorf("must be from 68 to 65535")
		}
	case optMode4, optMode6:
		if v != "" && v != "nat" {
			err = fmt.Errorf("only the gateway mode \"nat\" is known to this version")
		}
	case optTrusted:
		if v != "" {
			err = fmt.Errorf("not known to this version")
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

// endpointSysctls reads "net.ipv4.conf.IFNAME.log_martians=1,…". Only settings
// of the endpoint's own interface may be changed here.
func endpointSysctls(v, ifname string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range strings.Split(v, ",") {
		if kv = strings.TrimSpace(kv); kv == "" {
			continue
		}
		k, val, ok := strings.Cut(kv, "=")
		part := strings.Split(k, ".")
		if !ok || len(part) != 5 || part[0] != "net" || part[3] != "IFNAME" || strings.ContainsAny(k, "/") ||
			!slices.Contains([]string{"ipv4", "ipv6", "mpls"}, part[1]) || !slices.Contains([]string{"conf", "neigh"}, part[2]) || part[4] == "" {
			return nil, fmt.Errorf("option %s: %q is not of the form net.ipv4.conf.IFNAME.setting=value: %w", optSysctls, kv, errdefs.ErrInvalidArgument)
		}
		out[part[1]+"/"+part[2]+"/"+ifname+"/"+part[4]] = val
	}
	return out, nil
}
