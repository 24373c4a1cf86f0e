package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// A malicious container with NET_RAW, c2-1, and its victims: c2-2 behind the
// same bridge, and the host's address there. Every attack is made twice: while
// the container is held to its addresses, and while it is not, which shows
// that the attack works.

type attack struct {
	name   string
	frames func(token []byte) [][]byte
	// harm is what is seen of it, "" when there is none. nil: the token is heard.
	harm func() string
	// hardened: the victim's kernel sees through it, so the control is heard only.
	hardened bool
}

type spoof struct {
	*policy
	mac, victim, gateway netspec.MAC
	at, local            [2]netip.Addr // the attacker's addresses; local[1] is its link-local one
}

func newSpoof(t *testing.T) *spoof {
	p := newPolicy(t, withBPF)
	p.guardPorts()
	s := &spoof{policy: p, mac: macOf(nat2Net, 1), victim: macOf(nat2Net, 2), gateway: netspec.MAC{2, 0, 0, 0, nat2Net, 1}}
	s.at = [2]netip.Addr{member(nat2Net, 1).addr(0), member(nat2Net, 1).addr(1)}
	s.local[1] = ownLinkLocal(s.mac)
	return s
}

// reset makes the victims know whom they talk to, and the bridge where they are.
func (s *spoof) reset() {
	for f := range 2 {
		s.ns["c2-2"].Run("ip", "neigh", "replace", gateway(nat2Net)[f], "lladdr", hw(s.gateway), "dev", "eth0", "nud", "reachable")
		s.host.Run("ip", "neigh", "replace", member(nat2Net, 2)[f], "lladdr", hw(s.victim), "dev", "isbr2", "nud", "reachable")
	}
	s.host.Run("bridge", "fdb", "replace", hw(s.victim), "dev", "isv2-2", "master", "dynamic")
}

// free lets the attacker send anything.
func (s *spoof) free() {
	held := state(netspec.PortGuard{NS: "c2-1", Link: "isv2-1"})
	for _, o := range s.want {
		if src, ok := o.(netspec.Source); ok && src.Link == "isv2-1" {
			held.Add(src)
		}
	}
	s.remove(held)
}

// neighbour is the MAC address that somebody has for an address, or "".
func (s *spoof) neighbour(who, dev string, a netip.Addr) string {
	f := strings.Fields(s.ns[who].Run("ip", "neigh", "show", "to", a.String(), "dev", dev))
	if i := slices.Index(f, "lladdr"); i >= 0 {
		return f[i+1]
	}
	return ""
}

// poisoned reports whether a victim has the attacker's MAC address for another's.
func (s *spoof) poisoned(who, dev string, a netip.Addr) func() string {
	return func() string {
		if m := s.neighbour(who, dev, a); m == hw(s.mac) {
			return fmt.Sprintf("%s has %s at %s", who, a, m)
		}
		return ""
	}
}

// run makes attacks held and free.
func (s *spoof) run(t *testing.T, attacks []attack) {
	t.Helper()
	for _, a := range attacks {
		s.reset()
		if seen := s.try(a, quick); seen != "" {
			t.Errorf("%s: %s", a.name, seen)
		}
	}
	s.free()
	for _, a := range attacks {
		s.reset()
		if a.hardened {
			a.harm = nil
		}
		if s.try(a, thorough) == "" {
			t.Errorf("%s: does nothing even where nothing holds it: this shows nothing", a.name)
		}
	}
}

// try makes an attack and waits for its harm.
func (s *spoof) try(a attack, patience time.Duration) string {
	t := token()
	c := s.wires["c2-2"].expect(t)
	for _, f := range a.frames([]byte(t)) {
		if _, err := s.wires["c2-1"].file.Write(f); err != nil {
			return err.Error()
		}
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(patience / 20) {
		select {
		case <-c:
			if a.harm == nil {
				return heard
			}
		default:
		}
		if a.harm != nil {
			if seen := a.harm(); seen != "" {
				return seen
			}
		}
	}
	return ""
}

func just(frame func(token []byte) []byte) func(token []byte) [][]byte {
	return func(token []byte) [][]byte { return [][]byte{frame(token)} }
}

// TestSpoofedSource : nobody sends with another's MAC, IPv4 or IPv6 address.
func TestSpoofedSource(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	attacks := []attack{{name: "the victim's MAC address", frames: just(says(s.victim, s.at[0]))}}
	for f := range 2 {
		for _, whose := range []both{member(nat2Net, 2), gateway(nat2Net), member(natNet, 1), lanAt, nobodyAt} {
			attacks = append(attacks, attack{name: "from " + whose[f], frames: just(says(s.mac, whose.addr(f)))})
		}
	}
	s.run(t, attacks)
}

// TestSpoofedSourceToHost : nor to the host and beyond it.
func TestSpoofedSourceToHost(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	for f := range 2 {
		for _, to := range []struct {
			at      both
			witness *ears
		}{{gateway(nat2Net), s.atHost}, {lanAt, &s.wires["lan"].ears}} {
			send := func(from netip.Addr, patience time.Duration) string {
				return passes(s.wires["c2-1"], to.witness, func(token []byte) []byte {
					return eth(s.gateway, s.mac, etherOf(from), udp(from, to.at.addr(f), 9999, token))
				}, patience)
			}
			for _, from := range []both{member(nat2Net, 2), member(natNet, 1), nobodyAt} {
				if got := send(from.addr(f), quick); got != blocked {
					t.Errorf("from %s to %s: %s", from[f], to.at[f], got)
				}
			}
			if got := send(s.at[f], 5*thorough); got != heard {
				t.Errorf("from its own address to %s: %s", to.at[f], got)
			}
		}
	}
}

// TestARPPoisoning : a victim's table of neighbours stays right, and the host's.
func TestARPPoisoning(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	gw, victim := gateway(nat2Net).addr(0), member(nat2Net, 2).addr(0)
	arp := func(a netip.Addr, tags ...uint16) func(token []byte) [][]byte {
		return just(func(token []byte) []byte {
			return tagged(broadcast, s.mac, etherARP, arpSays(s.mac, a, token), tags...)
		})
	}
	s.run(t, []attack{
		{name: "the gateway is here", frames: arp(gw), harm: s.poisoned("c2-2", "eth0", gw)},
		{name: "the victim is here, to the host", frames: arp(victim), harm: s.poisoned("host", "isbr2", victim)},
		{name: "with a tag of VLAN 0", frames: arp(gw, unix.ETH_P_8021Q), harm: s.poisoned("c2-2", "eth0", gw)},
		{name: "with a tag of VLAN 0 (802.1ad)", frames: arp(gw, unix.ETH_P_8021AD), harm: s.poisoned("c2-2", "eth0", gw)},
	})
}

// tagged is a frame with tags of VLAN 0 before its protocol.
func tagged(to, from netspec.MAC, typ uint16, payload []byte, tags ...uint16) []byte {
	for _, tag := range slices.Backward(tags) {
		payload = append(binary.BigEndian.AppendUint16([]byte{0, 0}, typ), payload...)
		typ = tag
	}
	return eth(to, from, typ, payload)
}

// TestNDPoisoning : the same by neighbour discovery.
func TestNDPoisoning(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	gw, victim, all := gateway(nat2Net).addr(1), member(nat2Net, 2).addr(1), ip("ff02::1")
	override := []byte{0x20, 0, 0, 0}
	says := func(from, target netip.Addr) func(token []byte) [][]byte {
		return just(func(token []byte) []byte {
			return eth(allNodes, s.mac, ether6, nd(from, all, icmpNA, override, target.AsSlice(), linkOption(2, s.mac), tokenOption(token)))
		})
	}
	s.run(t, []attack{
		{name: "the gateway is here", frames: says(s.local[1], gw), harm: s.poisoned("c2-2", "eth0", gw)},
		{name: "the gateway is here, it says itself", frames: says(gw, gw), harm: s.poisoned("c2-2", "eth0", gw)},
		{name: "the victim is here, to the host", frames: says(s.at[1], victim), harm: s.poisoned("host", "isbr2", victim)},
		{name: "the gateway asks", harm: s.poisoned("c2-2", "eth0", gw), frames: just(func(token []byte) []byte {
			return eth(s.victim, s.mac, ether6, nd(gw, victim, icmpNS, make([]byte, 4), victim.AsSlice(), linkOption(1, s.mac), tokenOption(token)))
		})},
		{name: "with a tag of VLAN 0", harm: s.poisoned("c2-2", "eth0", gw), frames: just(func(token []byte) []byte {
			advert := nd(s.local[1], all, icmpNA, override, gw.AsSlice(), linkOption(2, s.mac), tokenOption(token))
			return tagged(allNodes, s.mac, ether6, advert, unix.ETH_P_8021Q)
		})},
		{name: "behind a hop-by-hop header", harm: s.poisoned("c2-2", "eth0", gw), frames: just(func(token []byte) []byte {
			icmp := icmp6(s.local[1], all, icmpNA, override, gw.AsSlice(), linkOption(2, s.mac), tokenOption(token))
			return eth(allNodes, s.mac, ether6, ipPacket(s.local[1], all, unix.IPPROTO_HOPOPTS, behind(unix.IPPROTO_ICMPV6, icmp)))
		})},
	})
}

// behind puts a header of options before what is of a protocol.
func behind(proto byte, payload []byte) []byte {
	return append([]byte{proto, 0, 1, 4, 0, 0, 0, 0}, payload...)
}

// TestCVE_2020_10749 (and CVE-2020-13401): a container cannot make itself its
// neighbours' router, nor the host's, even where they would believe it.
func TestCVE_2020_10749(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	s.ns["c2-2"].Run("sysctl", "-w", "net/ipv6/conf/eth0/accept_ra=2")
	s.host.Run("sysctl", "-w", "net/ipv6/conf/isbr2/accept_ra=2")
	from, all := s.local[1], ip("ff02::1")
	advert := func(token []byte) []byte {
		life := []byte{64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
		return icmp6(from, all, icmpRA, life, linkOption(1, s.mac), tokenOption(token))
	}
	by := func(who, dev string) func() string {
		return func() string {
			r := s.ns[who].Run("ip", "-6", "route", "show", "default", "dev", dev)
			if !strings.Contains(r, from.String()) {
				return ""
			}
			s.ns[who].Run("ip", "-6", "route", "del", "default", "via", from.String(), "dev", dev)
			return r
		}
	}
	routed := by("c2-2", "eth0")
	in := func(proto byte, packet func(icmp []byte) []byte) func(token []byte) [][]byte {
		return just(func(token []byte) []byte {
			return eth(allNodes, s.mac, ether6, ipPacket(from, all, proto, packet(advert(token))))
		})
	}
	s.run(t, []attack{
		{name: "plain", harm: routed, frames: in(unix.IPPROTO_ICMPV6, func(icmp []byte) []byte { return icmp })},
		{name: "plain, to the host", harm: by("host", "isbr2"), frames: in(unix.IPPROTO_ICMPV6, func(icmp []byte) []byte { return icmp })},
		{name: "behind a hop-by-hop header", harm: routed, frames: in(unix.IPPROTO_HOPOPTS, func(icmp []byte) []byte { return behind(unix.IPPROTO_ICMPV6, icmp) })},
		{name: "behind destination options", harm: routed, frames: in(unix.IPPROTO_DSTOPTS, func(icmp []byte) []byte { return behind(unix.IPPROTO_ICMPV6, icmp) })},
		{name: "as a fragment that is whole", hardened: true, frames: in(unix.IPPROTO_FRAGMENT, func(icmp []byte) []byte {
			return fragment(unix.IPPROTO_ICMPV6, 0, false, icmp)
		})},
		{name: "with a tag of VLAN 0", harm: routed, frames: just(func(token []byte) []byte {
			return tagged(allNodes, s.mac, ether6, ipPacket(from, all, unix.IPPROTO_ICMPV6, advert(token)), unix.ETH_P_8021Q)
		})},
	})
}

// fragment is a header of a fragment and what is in it.
func fragment(proto byte, offset int, more bool, payload []byte) []byte {
	at := uint16(offset)
	if more {
		at |= 1
	}
	b := binary.BigEndian.AppendUint16([]byte{proto, 0}, at)
	return append(append(b, 0, 0, 0x15, 1), payload...)
}

// TestHiddenByFragments : a message whose type only its second fragment shows
// does no harm, even where the victim's kernel takes such messages in fragments.
func TestHiddenByFragments(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	s.ns["c2-2"].Run("sysctl", "-w", "net/ipv6/conf/eth0/accept_ra=2", "net/ipv6/conf/eth0/suppress_frag_ndisc=0")
	from, all := s.local[1], ip("ff02::1")
	hidden := func(first int) func(token []byte) [][]byte {
		return func(token []byte) [][]byte {
			life := []byte{64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
			whole := behind(unix.IPPROTO_ICMPV6, icmp6(from, all, icmpRA, life, linkOption(1, s.mac), tokenOption(token)))
			part := func(offset int, more bool, b []byte) []byte {
				return eth(allNodes, s.mac, ether6, ipPacket(from, all, unix.IPPROTO_FRAGMENT, fragment(unix.IPPROTO_DSTOPTS, offset, more, b)))
			}
			return [][]byte{part(0, true, whole[:first]), part(first, false, whole[first:])}
		}
	}
	routed := func() string {
		if r := s.ns["c2-2"].Run("ip", "-6", "route", "show", "default"); strings.Contains(r, from.String()) {
			return r
		}
		return ""
	}
	s.run(t, []attack{
		{name: "after the options", harm: routed, hardened: true, frames: hidden(8)},
		{name: "within the message", harm: routed, hardened: true, frames: hidden(16)},
	})
}

// TestRouterImpersonates : a container that routes sends on what comes from
// elsewhere, and speaks for nobody who is here.
func TestRouterImpersonates(t *testing.T) {
	t.Parallel()
	p := newPolicy(t)
	p.askSources(0, "4")
	p.askSources(1, "6")
	p.questions = slices.DeleteFunc(p.questions, func(q question) bool {
		return !strings.Contains(q.name, "router") && !strings.Contains(q.name, router)
	})
	for name, got := range settled(p.questions) {
		t.Errorf("%s: %q", name, got)
	}
	for f := range 2 {
		for _, whose := range []both{member(natNet, 1), gateway(natNet), member(nat2Net, 1), {"10.1.0.9", ownLinkLocal(macOf(natNet, 1)).String()}} {
			if got := passes(p.wires[router], &p.wires["c1-1"].ears, says(macOf(natNet, 4), whose.addr(f)), quick); got != blocked {
				t.Errorf("a router sends from %s: %s", whose[f], got)
			}
		}
	}
}

// TestStolenMAC : the bridge goes on sending to a victim what is for it.
func TestStolenMAC(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	fdb := func() string {
		for l := range strings.Lines(s.host.Run("bridge", "fdb", "show", "br", "isbr2")) {
			if strings.HasPrefix(l, hw(s.victim)+" dev isv2-1") {
				return l
			}
		}
		return ""
	}
	to := func(dst netspec.MAC) func(token []byte) [][]byte {
		return just(func(token []byte) []byte { return eth(dst, s.victim, etherOther, token) })
	}
	s.run(t, []attack{
		{name: "by a broadcast", frames: to(broadcast), harm: fdb},
	})
}
