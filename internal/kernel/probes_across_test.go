package kernel

import (
	"fmt"

	"isle/internal/netspec"
)

// Some networks have a container at host "lan", to which there is no tunnel. One of them
// has a container that may send from any address, one is open to "transit" a little.
const farAway = 8

var acrossNets = []int{plainNet, directNet, natNet}

func (p *policy) across() {
	for _, n := range acrossNets {
		for f := range 2 {
			link, at := fmt.Sprintf("isbr%d", n), member(n, farAway).addr(f)
			p.want.Add(netspec.Across{Link: link, Addr: at, Way: "up2"}, netspec.Hop{To: at, Via: lanAt.addr(f), Dev: "up2"},
				netspec.Shortcut{Link: link, Addr: at, MAC: macOf(n, farAway), Gateway: netspec.MAC{2, 0, 0, 0, byte(n), 1}})
		}
	}
}

// hops is a packet that has so many left.
func hops(packet []byte, n byte) []byte {
	if packet[0]>>4 == 6 {
		packet[7] = n
		return packet
	}
	packet[8], packet[10], packet[11] = n, 0, 0
	copy(packet[10:], []byte{byte(sum(packet[:20]) >> 8), byte(sum(packet[:20]))})
	return packet
}

// askAcross : what comes from a container of another host past the tunnel, and goes there.
func (p *policy) askAcross(f int, s string) {
	typ := etherOf(lanAt.addr(f))
	for _, n := range acrossNets {
		x, one := member(n, farAway).addr(f), member(n, 1).addr(f)
		mac, near := macOf(n, farAway), fmt.Sprintf("c%d-1", n)
		touches := fmt.Sprintf("across%s shortcuts%s shortcut %s isbr%d up2", s, s, x, n)
		for what, q := range map[string]struct {
			mac  netspec.MAC
			hops byte
			want string
		}{
			"it":              {mac, 64, heard},
			"it, three hops":  {mac, 3, heard},
			"it, two hops":    {mac, 2, blocked},
			"it, 254 hops":    {mac, 254, heard},
			"a neighbour":     {mac, 255, blocked},
			"another with it": {nobodyMAC, 64, blocked},
		} {
			p.frame(fmt.Sprintf("across, to %s, %s", x, what), near, &p.wires["lan"].ears, func(token []byte) []byte {
				return eth(q.mac, macOf(n, 1), typ, hops(segment(one, x, 80, syn|ack, token), q.hops))
			}, q.want, touches)
		}
		p.frame(fmt.Sprintf("across, to %s, for another address", x), near, &p.wires["lan"].ears, func(token []byte) []byte {
			return eth(mac, macOf(n, 1), typ, hops(udp(one, lanAt.addr(f), 9998, token), 64))
		}, blocked, touches)
		p.frame(fmt.Sprintf("across, from %s", x), "lan", &p.wires[near].ears, func(token []byte) []byte {
			return eth(outsideMAC["lan"], nobodyMAC, typ, segment(x, one, 80, syn|ack, token))
		}, heard, touches+" ingress forward by the way")
	}
	x := member(plainNet, farAway).addr(f)
	for what, q := range map[string]struct {
		from string
		to   both
		on   *ears
	}{
		"by another way":       {"transit", member(plainNet, 1), &p.wires["c6-1"].ears},
		"into another network": {"lan", member(nat2Net, 1), &p.wires["c2-1"].ears},
		"to the host":          {"lan", gateway(plainNet), p.atHost},
	} {
		p.frame(fmt.Sprintf("across, from %s, %s", x, what), q.from, q.on, func(token []byte) []byte {
			return eth(outsideMAC[q.from], nobodyMAC, typ, udp(x, q.to.addr(f), 9999, token))
		}, blocked, "across"+s+" ingress forward by the way")
	}
	trusted := member(natNet, farAway).addr(f)
	p.frame(fmt.Sprintf("across, from %s, by an interface that is trusted", trusted), "transit", &p.wires["c1-1"].ears, func(token []byte) []byte {
		return eth(outsideMAC["transit"], nobodyMAC, typ, segment(trusted, member(natNet, 1).addr(f), 80, syn, token))
	}, blocked, "forward across"+s+" from a container")
	p.pretend(f, s)
}

// pretend sends from another host's container, from within.
func (p *policy) pretend(f int, s string) {
	x, typ, gate := member(directNet, farAway).addr(f), etherOf(lanAt.addr(f)), netspec.MAC{2, 0, 0, 0, directNet, 1}
	p.frame(fmt.Sprintf("across, %s from within, to an open port", x), "c5-2", &p.wires["c1-1"].ears, func(token []byte) []byte {
		return eth(gate, macOf(directNet, 2), typ, segment(x, member(natNet, 1).addr(f), 90, syn, token))
	}, blocked, "across"+s+" ingress by the way")
	p.frame(fmt.Sprintf("across, %s from within, out", x), "c5-2", &p.wires["lan"].ears, func(token []byte) []byte {
		return eth(gate, macOf(directNet, 2), typ, segment(x, lanAt.addr(f), 80, syn|ack, token))
	}, blocked, "across"+s+" from a container")
}
