package publish

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Sources reads an allow-list, prefixes and addresses joined by commas, and
// gives it in the one form in which equal lists are equal. An empty list is none.
func Sources(s string) (string, error) {
	var all []netip.Prefix
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		p, err := source(part)
		if err != nil {
			return "", fmt.Errorf("invalid source %q: it must be an address or a prefix such as 10.0.0.0/8: %w", part, errdefs.ErrInvalidArgument)
		}
		all = append(all, p)
	}
	if len(all) > maxSources {
		return "", fmt.Errorf("%d sources for one port: at most %d are allowed: %w", len(all), maxSources, errdefs.ErrInvalidArgument)
	}
	return joinSources(all), nil
}

// maxSources bounds what one port costs in the kernel.
const maxSources = 256

func source(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("address %q: %w", s, errdefs.ErrInvalidArgument)
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("prefix %q: %w", s, errdefs.ErrInvalidArgument)
	}
	return p.Masked(), nil
}

// joinSources leaves out what another prefix has in it: the kernel's sets take
// no prefix twice.
func joinSources(all []netip.Prefix) string {
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var kept []string
	var last netip.Prefix
	for _, p := range all {
		if last.IsValid() && last.Overlaps(p) {
			continue
		}
		last = p
		kept = append(kept, p.String())
	}
	return strings.Join(kept, ",")
}

// prefixes are those of a list that Sources has made.
func prefixes(from string) []netip.Prefix {
	var out []netip.Prefix
	for s := range strings.SplitSeq(from, ",") {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// sources are the prefixes of m's list that are of its family; limited: it has a
// list.
func (m Mapping) sources() (of []netip.Prefix, limited bool) {
	for _, p := range prefixes(m.From) {
		if p.Addr().Is4() == m.HostIP.Is4() {
			of = append(of, p)
		}
	}
	return of, m.From != ""
}
