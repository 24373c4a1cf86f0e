package kernel

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// TestNestedTags : the kernel takes off one tag of VLAN 0 after the other, so
// nobody may hide what he sends behind two.
func TestNestedTags(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	gw := gateway(nat2Net).addr(0)
	var attacks []attack
	for _, outer := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
		for _, inner := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
			attacks = append(attacks, attack{
				name: fmt.Sprintf("tags %#x %#x", outer, inner), harm: s.poisoned("c2-2", "eth0", gw),
				frames: just(func(token []byte) []byte {
					return tagged(broadcast, s.mac, etherARP, arpSays(s.mac, gw, token), outer, inner)
				})})
		}
	}
	s.run(t, attacks)
}

// TestNestedTagsOut : nor do they lead out of an internal network while the
// rules are gone.
func TestNestedTagsOut(t *testing.T) {
	t.Parallel()
	p := newFlushed(t)
	for f := range 2 {
		got := passes(p.wires["c3-1"], &p.wires["lan"].ears, func(token []byte) []byte {
			return tagged(netspec.MAC{2, 0, 0, 0, internalNet, 1}, macOf(internalNet, 1), etherOf(lanAt.addr(f)),
				udp(member(internalNet, 1).addr(f), lanAt.addr(f), 9998, token), unix.ETH_P_8021Q, unix.ETH_P_8021Q)
		}, thorough)
		if got != blocked {
			t.Errorf("IPv%d: %s", 4+2*f, got)
		}
	}
}

// TestStolenByLinkLocal : frames that bridges take for themselves teach them
// addresses before any chain sees them.
func TestStolenByLinkLocal(t *testing.T) {
	s := newSpoof(t)
	for _, last := range []byte{0x03, 0x0e} {
		s.reset()
		dst := netspec.MAC{1, 0x80, 0xc2, 0, 0, last}
		if _, err := s.wires["c2-1"].file.Write(eth(dst, s.victim, etherOther, []byte(token()))); err != nil {
			t.Fatal(err)
		}
		if fdb := s.host.Run("bridge", "fdb", "show", "br", "isbr2"); strings.Contains(fdb, hw(s.victim)+" dev isv2-1") {
			t.Errorf("the victim's MAC address is at the attacker's port after a frame to %s", hw(dst))
		}
	}
}

// TestHiddenByFragmentsStops : fragments that hide which message they are do not
// get through.
func TestHiddenByFragmentsStops(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	from, all := ownLinkLocal(s.mac), ip("ff02::1")
	for _, size := range []int{8, 16} {
		got := passes(s.wires["c2-1"], &s.wires["c2-2"].ears, func(token []byte) []byte {
			part := append(behind(unix.IPPROTO_ICMPV6, nil), make([]byte, 24)...)[:size]
			return append(eth(allNodes, s.mac, ether6, ipPacket(from, all, unix.IPPROTO_FRAGMENT, fragment(unix.IPPROTO_DSTOPTS, 0, true, part))), token...)
		}, quick)
		if got != blocked {
			t.Errorf("a first fragment of %d bytes that begins with options: %s", size, got)
		}
	}
}

// TestHiddenBehindTheEnd : bytes behind the end of a packet, or a fragment within
// a fragment, do not make it look harmless.
func TestHiddenBehindTheEnd(t *testing.T) {
	t.Parallel()
	s := newSpoof(t)
	from, all := ownLinkLocal(s.mac), ip("ff02::1")
	options := func(next byte) []byte { return behind(next, nil) }
	for name, frame := range map[string]func() []byte{
		"more options, and behind the end the header of a datagram": func() []byte {
			return append(eth(allNodes, s.mac, ether6, ipPacket(from, all, unix.IPPROTO_FRAGMENT,
				fragment(unix.IPPROTO_DSTOPTS, 0, true, options(unix.IPPROTO_DSTOPTS)))), options(unix.IPPROTO_UDP)...)
		},
		"a fragment within one that is whole": func() []byte {
			return eth(allNodes, s.mac, ether6, ipPacket(from, all, unix.IPPROTO_FRAGMENT,
				fragment(unix.IPPROTO_FRAGMENT, 0, false, fragment(unix.IPPROTO_DSTOPTS, 0, true, options(unix.IPPROTO_ICMPV6)))))
		},
	} {
		got := passes(s.wires["c2-1"], &s.wires["c2-2"].ears, func(token []byte) []byte { return append(frame(), token...) }, quick)
		if got != blocked {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestGuardedHairpin : with br_netfilter, what a container sends to its own
// network's published port passes the bridge once more before the forward
// chain, and so the guard before the mark.
func TestGuardedHairpin(t *testing.T) {
	p := newGuarded(t)
	bridgesCall(p.host, "1")
	hairpins := slices.DeleteFunc(slices.Clone(p.questions), func(q question) bool { return !strings.HasPrefix(q.name, "hairpin") })
	for range 3 {
		p.host.Run("ip", "neigh", "flush", "all")
		for name, got := range wrong(hairpins) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestNotMasqueradedToItself : what the host sends to its own address does not
// leave, so it keeps its address.
func TestNotMasqueradedToItself(t *testing.T) {
	p := newPolicy(t)
	if got, want := p.call(call{from: "host", network: "tcp", to: gateway(natNet).url(0, 22)}, thorough), answer("host", 22, gateway(natNet)[0]); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
