package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// TestDenyByIngress : an address behind a bridge is reached through that bridge
// only, whoever tries: a neighbour on the LAN, a router that traffic comes
// through, a container of another network.
func TestDenyByIngress(t *testing.T) {
	t.Parallel()
	for _, v := range policyVariants {
		t.Run(v.name, func(t *testing.T) {
			p := v.make(t)
			p.questions = nil
			for n := range policyNets {
				for f := range 2 {
					p.askDenied(n, f)
				}
			}
			for name, got := range settled(p.questions) {
				t.Errorf("%s: %q", name, got)
			}
		})
	}
}

// askDenied asks for a port that is neither published nor open. To a routed
// network even those that are trusted come to open ports only; the direct one
// is open to all, which shows that the ways are there.
func (p *policy) askDenied(n, f int) {
	to, victim := member(n, 1), fmt.Sprintf("c%d-1", n)
	for who, at := range map[string]both{"lan": lanAt, "transit": farAt, sibling(n): siblingAt(n)} {
		want, seen := blocked, blocked
		if n == directNet {
			want, seen = answer(victim, 7101, at[f]), heard
		}
		p.calls("denied", call{from: who, network: "tcp", to: to.url(f, 7101)}, want, "")
		for name, packet := range map[string]func(token []byte) []byte{
			"a segment":  func(b []byte) []byte { return segment(at.addr(f), to.addr(f), 7101, syn, b) },
			"a datagram": func(b []byte) []byte { return udp(at.addr(f), to.addr(f), 7101, b) },
		} {
			mac, own := p.wayOut(who)
			p.frame(fmt.Sprintf("denied: %s from %s to %s", name, who, to[f]), who, &p.wires[victim].ears, func(b []byte) []byte {
				return eth(mac, own, etherOf(to.addr(f)), packet(b))
			}, seen, "")
		}
	}
}

func siblingAt(n int) both {
	if n == plainNet {
		return member(nat2Net, 2)
	}
	return member(plainNet, 2)
}

// wayOut are the MAC addresses of somebody's gateway and his own.
func (p *policy) wayOut(who string) (gateway, own netspec.MAC) {
	if m, ok := outsideMAC[who]; ok {
		return m, nobodyMAC
	}
	n := who[1] - '0'
	return netspec.MAC{2, 0, 0, 0, n, 1}, macOf(int(n), 2)
}

// TestDenyNetRaw : nor does a container with NET_RAW get into another network
// by what its IP stack would not send.
func TestDenyNetRaw(t *testing.T) {
	t.Parallel()
	p := newPolicy(t)
	own, gw := macOf(nat2Net, 1), netspec.MAC{2, 0, 0, 0, nat2Net, 1}
	at, to := member(nat2Net, 1), member(natNet, 1)
	try := func(name string, dst netspec.MAC, typ uint16, packet func(token []byte) []byte) {
		t.Helper()
		if got := passes(p.wires["c2-1"], &p.wires["c1-1"].ears, func(b []byte) []byte { return eth(dst, own, typ, packet(b)) }, quick); got != blocked {
			t.Errorf("%s: %s", name, got)
		}
	}
	for f := range 2 {
		plain := func(b []byte) []byte { return udp(at.addr(f), to.addr(f), 90, b) }
		for name, dst := range map[string]netspec.MAC{
			"the gateway": gw, "the other bridge": {2, 0, 0, 0, natNet, 1}, "the victim": macOf(natNet, 1), "all": broadcast,
		} {
			try(fmt.Sprintf("IPv%d by the MAC address of %s", 4+2*f, name), dst, etherOf(at.addr(f)), plain)
		}
		try(fmt.Sprintf("IPv%d in VLAN 0", 4+2*f), gw, unix.ETH_P_8021Q, func(b []byte) []byte {
			return append(binary.BigEndian.AppendUint16([]byte{0, 0}, etherOf(at.addr(f))), plain(b)...)
		})
		try(fmt.Sprintf("IPv%d, an answer to nothing", 4+2*f), gw, etherOf(at.addr(f)), func(b []byte) []byte {
			return segment(at.addr(f), to.addr(f), 90, syn|ack, b)
		})
		try(fmt.Sprintf("IPv%d, in the middle of nothing", 4+2*f), gw, etherOf(at.addr(f)), func(b []byte) []byte {
			return segment(at.addr(f), to.addr(f), 90, ack, b)
		})
	}
	try("by a source route", gw, ether4, func(b []byte) []byte { return sourceRoute(at.addr(0), ip("10.2.0.1"), to.addr(0), b) })
	try("by a routing header", gw, ether6, func(b []byte) []byte {
		route := append([]byte{unix.IPPROTO_NONE, 2, 0, 1, 0, 0, 0, 0}, to.addr(1).AsSlice()...)
		return ipPacket(at.addr(1), ip("fd00:2::1"), unix.IPPROTO_ROUTING, append(route, b...))
	})
	p.host.Run("nft", "flush", "ruleset")
	for f := range 2 {
		got := passes(p.wires["c2-1"], &p.wires["c1-1"].ears, func(b []byte) []byte {
			return eth(gw, own, etherOf(at.addr(f)), udp(at.addr(f), to.addr(f), 90, b))
		}, 5*thorough)
		if got != heard {
			t.Errorf("IPv%d without rules: %s: this test shows nothing", 4+2*f, got)
		}
	}
}

// sourceRoute is a datagram that asks to be sent on to another address.
func sourceRoute(from, by, to netip.Addr, token []byte) []byte {
	b := append([]byte{131, 7, 4}, to.AsSlice()...)
	b = append(append(b, 0), token...)
	p := ipPacket(from, by, unix.IPPROTO_UDP, b)
	p[0] = 0x40 | 7
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], sum(p[:28]))
	return p
}
