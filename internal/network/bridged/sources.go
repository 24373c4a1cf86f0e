package bridged

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
)

// sources hold an endpoint to its own addresses. One that routes for others
// (NET_ADMIN was given to it) may send on what comes from elsewhere, but from no
// address of a network of ours that is not its own.
func (p plan) sources(s netspec.State, ep network.Endpoint) error {
	more, all, err := parseSources(ep.Options[OptSources])
	if err != nil || all || !p.o.Guard || !p.host.Sources {
		return err
	}
	for _, a := range p.own(ep) {
		more = append(more, netip.PrefixFrom(a, a.BitLen()))
	}
	if ep.Router {
		more = append(more, netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	if p.IPv6 && p.host.IPv6 && p.host.Guard {
		s.Add(netspec.PortGuard{NS: ep.NS(), Link: ep.HostInterface})
	}
	for _, from := range more {
		s.Add(netspec.Source{Link: ep.HostInterface, MAC: ep.MAC, Addr: from})
	}
	return nil
}

// own are all addresses of the endpoint's interface, with the one that the
// kernel gives it by itself.
func (p plan) own(ep network.Endpoint) (out []netip.Addr) {
	for _, a := range ep.Addrs {
		out = append(out, a.Addr())
	}
	for _, a := range ep.LinkLocal {
		out = append(out, a.Addr())
	}
	if ep.Later() { // it is held to what others gave it, also when that is nothing
		out = append(out, netip.IPv4Unspecified())
	}
	if p.IPv6 && p.host.IPv6 {
		out = append(out, linkLocal(ep.MAC))
	}
	return out
}

// linkLocal is fe80:: and the modified EUI-64 of m (RFC 4291, appendix A).
func linkLocal(m netspec.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// parseSources reads what an endpoint may send from besides its own addresses:
// prefixes with commas between them, or "any" for everything.
func parseSources(v string) (prefixes []netip.Prefix, all bool, err error) {
	for s := range strings.SplitSeq(v, ",") {
		switch s = strings.TrimSpace(s); s {
		case "":
		case "any":
			all = true
		default:
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, false, fmt.Errorf("option %s: %q is neither a prefix nor \"any\": %w", OptSources, s, errdefs.ErrInvalidArgument)
			}
			prefixes = append(prefixes, p.Masked())
		}
	}
	return prefixes, all, nil
}
