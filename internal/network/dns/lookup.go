package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Client is who asks: a sandbox.
type Client struct {
	Zones     []string         // ids of the networks that it is on
	Forward   bool             // what is not ours may be asked outside
	Upstreams []netip.AddrPort // whom to ask; empty: those of the host
}

// memory is how long the names of a network are withheld from servers outside
// after the network, or the client's place on it, is gone.
const memory = time.Minute

// departed is such a network.
type departed struct {
	suffix  string
	subnets []netip.Prefix
	until   time.Time
}

func (d departed) owns(name string, now time.Time) bool {
	return now.Before(d.until) && directly(name, d.suffix)
}

// client is a Client with what follows from it and from who it was before.
type client struct {
	Client
	upstreams *upstreams // its own; nil: those of the host
	left      []departed
}

// next is what c is now, after it was old, which may be nil.
func (r *Records) next(old *client, c Client, now time.Time) *client {
	n := &client{Client: c}
	if len(c.Upstreams) > 0 {
		n.upstreams = newUpstreams(c.Upstreams)
	}
	if old == nil {
		return n
	}
	for _, id := range old.Zones {
		if d := r.departed(id, now); now.Before(d.until) && !slices.Contains(c.Zones, id) {
			n.left = append(n.left, d)
		}
	}
	for _, d := range old.left {
		same := func(other departed) bool { return other.suffix == d.suffix }
		if now.Before(d.until) && !slices.ContainsFunc(n.left, same) {
			n.left = append(n.left, d)
		}
	}
	return n
}

// departed is what is remembered of a network from now on. If it is gone
// itself, that is remembered already.
func (r *Records) departed(id string, now time.Time) departed {
	if z, ok := r.zones.get(id); ok {
		return departed{z.suffix, z.Subnets, now.Add(memory)}
	}
	d, _ := r.gone.get(id)
	return d
}

// Answer is what to do with one question.
type Answer struct {
	Addrs   []netip.Addr // for names
	Names   []string     // for addresses
	Found   bool         // the name is ours, though it may have nothing of the kind asked for
	Forward bool         // not ours: ask outside
}

// name answers a question for a name in lower case, given without the last dot.
func (r *Records) name(c *client, name string, now time.Time) Answer {
	if under(name, ".localhost") { // RFC 6761; no container can take it
		return Answer{Found: true, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}}
	}
	a, withheld := r.known(c, name, now)
	a.Forward = !a.Found && c.Forward && !withheld && !reserved(name) && (name == "" || strings.Contains(name, "."))
	return a
}

// known looks a name up in the networks of the client; withheld: it is below
// the name of one, now or a moment ago.
func (r *Records) known(c *client, name string, now time.Time) (a Answer, withheld bool) {
	groups := 0
	for _, id := range c.Zones {
		z, ok := r.zones.get(id)
		if !ok {
			d, _ := r.gone.get(id)
			withheld = withheld || d.owns(name, now)
			continue
		}
		groups += a.add(z, name)
		if short, ok := strings.CutSuffix(name, z.suffix); ok && z.suffix != "" {
			groups += a.add(z, short)
		}
		withheld = withheld || directly(name, z.suffix)
	}
	if groups > 1 { // the same address may be in it twice
		slices.SortFunc(a.Addrs, netip.Addr.Compare)
		a.Addrs = slices.Compact(a.Addrs)
	}
	return a, withheld || slices.ContainsFunc(c.left, func(d departed) bool { return d.owns(name, now) })
}

func (a *Answer) add(z zone, name string) (found int) {
	var last netip.Addr
	z.names.from(named{name: name}, func(n named, _ struct{}) bool {
		if n.name != name {
			return false
		}
		if n.addr != last {
			a.Addrs, last = append(a.Addrs, n.addr), n.addr
		}
		a.Found, found = true, 1
		return true
	})
	return found
}

// directly reports whether name is that of the suffix or one label below it,
// as names of containers are. What is further below is left to the world: a
// network may be called as a domain is, "app" or "dev".
func directly(name, suffix string) bool {
	return under(name, suffix) && strings.Count(name, ".") <= strings.Count(suffix, ".")
}

// under reports whether name is that of the suffix (".app") or below it.
func under(name, suffix string) bool {
	return len(suffix) > 1 && (strings.HasSuffix(name, suffix) || name == suffix[1:])
}

// reserved are names that no server outside should ever be asked for (RFC 6761,
// RFC 7686). With resolver.arpa clients look for a way around us (RFC 9462).
func reserved(name string) bool {
	return under(name, ".invalid") || under(name, ".onion") || under(name, ".resolver.arpa")
}

// addr answers a question for the name of an address. Addresses of our
// networks are nobody else's business.
func (r *Records) addr(c *client, addr netip.Addr, now time.Time) Answer {
	var a Answer
	for _, id := range c.Zones {
		z, ok := r.zones.get(id)
		if !ok {
			continue
		}
		z.ptr.from(back{addr: addr}, func(b back, _ struct{}) bool {
			if b.addr != addr {
				return false
			}
			a.Found, a.Names = true, append(a.Names, b.name+"."+z.Name)
			return true
		})
	}
	if !a.Found && addr.IsLoopback() {
		return Answer{Found: true, Names: []string{"localhost"}}
	}
	a.Forward = !a.Found && c.Forward && !r.withholds(netip.PrefixFrom(addr, addr.BitLen()), now)
	return a
}

// block answers a question for a name above or below those of addresses, as
// they have for whole subnets and for services (RFC 6763).
func (r *Records) block(c *client, p netip.Prefix, below bool, now time.Time) Answer {
	ours := r.withholds(p, now)
	return Answer{Found: ours && !below, Forward: c.Forward && !ours}
}

// withholds reports whether addresses are of a network that is there, or was a
// moment ago.
func (r *Records) withholds(p netip.Prefix, now time.Time) bool {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if r.inside(p) {
		return true
	}
	lately := false
	r.gone.root.all(func(_ string, d departed) bool {
		lately = now.Before(d.until) && slices.ContainsFunc(d.subnets, func(s netip.Prefix) bool { return s.Bits() <= p.Bits() && s.Contains(p.Addr()) })
		return !lately
	})
	return lately
}

// reverse reads a name below in-addr.arpa or ip6.arpa, in lower case and without
// the last dot: the addresses that it stands for, which is one if it is as long
// as can be. below: there are labels before theirs, which say something else.
func reverse(name string) (p netip.Prefix, below, ok bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		return digits(rest, 4, 8, func(label string) (byte, error) {
			n, err := strconv.ParseUint(label, 10, 8)
			if err == nil && label != strconv.Itoa(int(n)) {
				err = strconv.ErrSyntax
			}
			return byte(n), err
		})
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		return digits(rest, 32, 4, func(label string) (byte, error) {
			if len(label) != 1 {
				return 0, strconv.ErrSyntax
			}
			n, err := strconv.ParseUint(label, 16, 4)
			return byte(n), err
		})
	}
	return p, false, false
}

// digits reads labels from the last one on: up to so many, of so many bits each.
func digits(name string, most, bits int, read func(label string) (byte, error)) (p netip.Prefix, below, ok bool) {
	var b [16]byte
	n := 0
	for ; n < most && name != ""; n++ {
		at := strings.LastIndexByte(name, '.') + 1
		digit, err := read(name[at:])
		if err != nil {
			break
		}
		b[n*bits/8] |= digit << (8 - bits - n*bits%8)
		name = name[:max(at-1, 0)]
	}
	a, _ := netip.AddrFromSlice(b[:most*bits/8])
	return netip.PrefixFrom(a, n*bits), name != "", n > 0
}
