package dns

import (
	"encoding/hex"
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
	suffix string
	until  time.Time
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
	for _, d := range old.left {
		if now.Before(d.until) {
			n.left = append(n.left, d)
		}
	}
	for _, id := range old.Zones {
		if z, ok := r.zones.get(id); ok && !slices.Contains(c.Zones, id) {
			n.left = append(n.left, departed{z.suffix, now.Add(memory)})
		}
	}
	return n
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
func (r *Records) addr(c *client, addr netip.Addr) Answer {
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
	a.Forward = !a.Found && c.Forward && !r.inside(addr)
	return a
}

// reverse reads the name that stands for an address below in-addr.arpa and
// ip6.arpa. It is in lower case, and the last dot is gone.
func reverse(name string) (netip.Addr, bool) {
	if !strings.HasSuffix(name, ".arpa") {
		return netip.Addr{}, false
	}
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(v4, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(v6) != 63 {
		return netip.Addr{}, false
	}
	digits := strings.Split(v6, ".")
	slices.Reverse(digits)
	b, err := hex.DecodeString(strings.Join(digits, ""))
	if err != nil || len(b) != 16 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(b)), true
}
