package dhcp

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"time"
)

// How much of what routers say is kept.
const (
	mostRouters  = 8
	mostPrefixes = 16
	// twoHours is how far an advertisement, which anybody can send, may shorten
	// the life of an address (RFC 4862 5.5.3).
	twoHours = 2 * time.Hour
)

// routers is what routers advertised, each thing until its end. A later
// advertisement adds to it; what it does not mention stays.
type routers struct {
	routers  []router
	prefixes []known[prefix]
	dns      []known[netip.Addr]
	search   []known[string]
	mtu      int
}

type router struct {
	advert
	end time.Time
}

// known is something until its end; zero is no end.
type known[T any] struct {
	v         T
	preferred time.Time
	end       time.Time
}

// ending is when a lifetime ends that begins now.
func ending(now time.Time, long time.Duration) time.Time {
	if long >= endless {
		return time.Time{}
	}
	return now.Add(long)
}

// over reports whether a time has come.
func over(end, now time.Time) bool { return !end.IsZero() && !end.After(now) }

// later reports whether a ends later than b.
func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

// take adds an advertisement.
func (r *routers) take(a advert, now time.Time) {
	r.forget(now)
	r.router(a, now)
	if a.mtu > 0 {
		r.mtu = a.mtu
	}
	for _, p := range a.prefixes {
		r.prefix(p, now)
	}
	for _, d := range a.dns {
		r.dns = remember(r.dns, d, now, mostAddrs)
	}
	for _, d := range a.search {
		r.search = remember(r.search, d, now, mostNames)
	}
}

// router keeps one that does not route, too: what it says of DHCPv6 counts.
func (r *routers) router(a advert, now time.Time) {
	n := router{a, now.Add(a.lifetime)}
	if i := slices.IndexFunc(r.routers, func(o router) bool { return o.advert.router == a.router }); i >= 0 {
		r.routers[i] = n
		return
	}
	if len(r.routers) < mostRouters {
		r.routers = append(r.routers, n)
	}
}

func (r *routers) prefix(p prefix, now time.Time) {
	n := known[prefix]{p, ending(now, p.preferred), ending(now, p.valid)}
	i := slices.IndexFunc(r.prefixes, func(o known[prefix]) bool { return o.v.Prefix == p.Prefix })
	switch {
	case i >= 0:
		n.end = r.shortened(r.prefixes[i].end, n.end, now)
		r.prefixes[i] = n
	case p.valid > 0 && len(r.prefixes) < mostPrefixes:
		r.prefixes = append(r.prefixes, n)
	}
}

// shortened is the end of a prefix that was known with an end of before.
func (r *routers) shortened(before, end, now time.Time) time.Time {
	limit := now.Add(twoHours)
	switch {
	case !later(before, end), later(end, limit):
		return end
	case later(limit, before):
		return before
	}
	return limit
}

// remember adds a thing, or changes its end. One without a life is forgotten.
func remember[T comparable](all []known[T], t timed[T], now time.Time, most int) []known[T] {
	all = slices.DeleteFunc(slices.Clone(all), func(k known[T]) bool { return k.v == t.v && t.long == 0 })
	if i := slices.IndexFunc(all, func(k known[T]) bool { return k.v == t.v }); i >= 0 {
		all[i].end = ending(now, t.long)
	} else if t.long > 0 && len(all) < most {
		all = append(all, known[T]{v: t.v, end: ending(now, t.long)})
	}
	return all
}

// seed is what a lease of before says of routers, until one speaks.
func (r *routers) seed(l Lease, now time.Time) {
	managed := false
	for _, a := range l.Addresses {
		managed = managed || a.Source == DHCP6
		if a.Source == SLAAC && !over(a.Valid, now) {
			p := netip.PrefixFrom(a.Prefix.Addr(), 64).Masked()
			r.prefixes = append(r.prefixes, known[prefix]{prefix{Prefix: p, auto: true, onLink: a.Prefix.Bits() != 128}, a.Preferred, a.Valid})
		}
	}
	if len(r.prefixes) == 0 {
		return
	}
	for _, t := range l.Routes {
		if t.Via.IsValid() && t.Dest.Bits() == 0 && t.Expire.After(now) {
			r.routers = append(r.routers, router{advert{router: t.Via, managed: managed}, t.Expire})
		}
	}
	for _, d := range l.DNS {
		r.dns = append(r.dns, known[netip.Addr]{v: d, end: l.Expire})
	}
	r.mtu = l.MTU
}

// forget drops what has ended.
func (r *routers) forget(now time.Time) {
	r.prefixes = slices.DeleteFunc(r.prefixes, func(k known[prefix]) bool { return over(k.end, now) })
	r.dns = slices.DeleteFunc(r.dns, func(k known[netip.Addr]) bool { return over(k.end, now) })
	r.search = slices.DeleteFunc(r.search, func(k known[string]) bool { return over(k.end, now) })
}

// next is when something ends; zero is never.
func (r *routers) next(now time.Time) (next time.Time) {
	soonest := func(t time.Time) {
		if !t.IsZero() && t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, o := range r.routers {
		soonest(o.end)
	}
	for _, p := range r.prefixes {
		soonest(p.end)
	}
	for _, d := range r.dns {
		soonest(d.end)
	}
	for _, s := range r.search {
		soonest(s.end)
	}
	return next
}

func (r *routers) known() bool { return len(r.routers) > 0 }
func (r *routers) managed() bool {
	return slices.ContainsFunc(r.routers, func(o router) bool { return o.managed })
}
func (r *routers) other() bool {
	return slices.ContainsFunc(r.routers, func(o router) bool { return o.other })
}

// best is the router to go by: the preferred one, and of several such the lowest,
// so that two with the same word do not take turns.
func (r *routers) best(now time.Time) (best router, ok bool) {
	for _, o := range r.routers {
		if o.end.After(now) && (!ok || o.preference > best.preference ||
			o.preference == best.preference && o.advert.router.Less(best.advert.router)) {
			best, ok = o, true
		}
	}
	return best, ok
}

// fill puts into a lease what routers say.
func (r *routers) fill(l *Lease, c Config, now time.Time) {
	r.forget(now)
	for _, p := range r.prefixes {
		if p.v.auto {
			l.Addresses = append(l.Addresses, Address{c.own(p.v), SLAAC, earlier(p.preferred, p.end), p.end})
		}
		if p.v.onLink {
			l.Routes = append(l.Routes, Route{Dest: p.v.Prefix, Expire: p.end})
		}
	}
	if b, ok := r.best(now); ok {
		l.Server = b.advert.router
		l.Routers = []netip.Addr{b.advert.router}
		l.Routes = append(l.Routes, Route{Dest: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: b.advert.router, Expire: b.end})
	}
	for _, d := range r.dns {
		l.DNS = addOnce(l.DNS, d.v)
	}
	for _, s := range r.search {
		l.Search = addOnce(l.Search, s.v)
	}
	l.MTU = r.mtu
}

func addOnce[T comparable](all []T, v T) []T {
	if slices.Contains(all, v) {
		return all
	}
	return append(all, v)
}

func earlier(a, b time.Time) time.Time {
	if later(a, b) {
		return b
	}
	return a
}

// own is the endpoint's address in a prefix: of its MAC, and with a shared one of
// the endpoint's name.
func (c Config) own(p prefix) netip.Prefix {
	a := withMAC(p.Prefix, c.MAC)
	if c.SharedMAC {
		sum := sha256.Sum256([]byte("isle slaac\x00" + p.String() + "\x00" + c.Endpoint))
		b := p.Addr().As16()
		copy(b[8:], sum[:8])
		a = netip.AddrFrom16(b)
	}
	if !p.onLink {
		return netip.PrefixFrom(a, 128)
	}
	return netip.PrefixFrom(a, p.Bits())
}
