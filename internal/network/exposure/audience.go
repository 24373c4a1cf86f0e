package exposure

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// far are addresses of somebody far away.
var far = map[bool]netip.Addr{true: netip.MustParseAddr("198.41.0.4"), false: netip.MustParseAddr("2001:503:ba3e::2:30")}

// client is somebody, for all who are in a prefix.
type client struct {
	of netip.Prefix
	at netip.Addr
}

// audience tries from those who are allowed to, or else from far away and then from
// the networks of the host's addresses there. who is "" for everybody.
func audience(from []netip.Prefix, v4 bool, near []netip.Prefix, try func(src netip.Addr) (verdict, reason string)) (who, verdict, reason string) {
	if len(from) > 0 {
		return among(from, member, try)
	}
	verdict, reason = try(far[v4])
	if verdict == Blocked && len(near) > 0 {
		if who, v, _ := among(near, neighbour, try); v == Reachable {
			return who, v, "from elsewhere: " + reason
		}
	}
	return "", verdict, reason
}

// among tries from each of some prefixes. who are those who get furthest.
func among(ps []netip.Prefix, as func(netip.Prefix) client, try func(netip.Addr) (verdict, reason string)) (who, verdict, reason string) {
	in, why := map[string][]string{}, map[string]string{}
	for _, p := range ps {
		c := as(p)
		v, r := try(c.at)
		in[v], why[v] = append(in[v], c.of.String()), cmp.Or(why[v], r)
	}
	order := slices.DeleteFunc([]string{Reachable, Uncertain, Blocked}, func(v string) bool { return in[v] == nil })
	verdict = order[0]
	if reason = why[verdict]; len(order) > 1 && reason == "" {
		reason = "from the others: " + why[order[1]]
	}
	return strings.Join(in[verdict], ", "), verdict, reason
}

// member is one of a prefix.
func member(p netip.Prefix) client {
	if next := p.Addr().Next(); p.Contains(next) {
		return client{p, next}
	}
	return client{p, p.Addr()}
}

// neighbour is somebody else in the network of an address.
func neighbour(p netip.Prefix) client {
	if next := p.Addr().Next(); p.Contains(next) {
		return client{p.Masked(), next}
	}
	return client{p.Masked(), p.Addr().Prev()}
}
