package dns

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Client is who asks: a sandbox.
type Client struct {
	Zones     []string         // ids of the networks that it is on
	Forward   bool             // what is not ours may be asked outside
	Upstreams []netip.AddrPort // whom to ask; empty: those of the host
}

// Answer is what to do with one question.
type Answer struct {
	Addrs   []netip.Addr // for names
	Names   []string     // for addresses
	Found   bool         // the name is ours, though it may have nothing of the kind asked for
	Forward bool         // not ours: ask outside
}

// Name answers a question for a name, given without the last dot.
func (r *Records) Name(c Client, name string) Answer {
	name = strings.ToLower(name)
	var a Answer
	for _, id := range c.Zones {
		z, ok := r.zones.get(id)
		if !ok {
			continue
		}
		a.add(z, name)
		if short, ok := strings.CutSuffix(name, "."+strings.ToLower(z.Name)); ok {
			a.add(z, short)
		}
	}
	a.Forward = !a.Found && c.Forward && strings.Contains(name, ".")
	return a
}

func (a *Answer) add(z zone, name string) {
	es, ok := z.names.get(name)
	a.Found = a.Found || ok
	for _, e := range es {
		if !slices.Contains(a.Addrs, e.addr) {
			a.Addrs = append(a.Addrs, e.addr)
		}
	}
}

// Addr answers a question for the name of an address. Addresses of the
// client's own networks are nobody else's business.
func (r *Records) Addr(c Client, addr netip.Addr) Answer {
	var a Answer
	inside := addr.IsLoopback()
	for _, id := range c.Zones {
		z, ok := r.zones.get(id)
		if !ok {
			continue
		}
		inside = inside || slices.ContainsFunc(z.Subnets, func(p netip.Prefix) bool { return p.Contains(addr) })
		bs, ok := z.ptr.get(addr)
		a.Found = a.Found || ok
		for _, b := range bs {
			a.Names = append(a.Names, b.name+"."+z.Name)
		}
	}
	a.Forward = !a.Found && c.Forward && !inside
	return a
}

// reverse reads the name that stands for an address below in-addr.arpa and
// ip6.arpa. The last dot is gone.
func reverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
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
