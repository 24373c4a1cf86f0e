package dhcp

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/netspec"
)

// arp is a message of ARP for IPv4 on Ethernet.
type arp struct {
	op               uint16
	from             netspec.MAC
	sender, wantedIP netip.Addr
}

const (
	arpRequest = 1
	arpReply   = 2
)

func (a arp) frame() []byte {
	b := ethernet(everybody, a.from, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, byte(a.op))
	b = append(append(b, a.from[:]...), a.sender.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), a.wantedIP.AsSlice()...)
}

func readARP(f frame) (a arp, ok bool) {
	b := f.data
	if len(b) < ethernetLen+28 || be.Uint16(b[12:]) != unix.ETH_P_ARP || string(b[14:20]) != "\x00\x01\x08\x00\x06\x04" {
		return a, false
	}
	return arp{
		be.Uint16(b[20:]), netspec.MAC(b[22:28]), netip.AddrFrom4([4]byte(b[28:])), netip.AddrFrom4([4]byte(b[38:])),
	}, true
}

// probes is how often an address is asked for before it is used (RFC 5227).
const probes = 3

// usedBy looks for somebody with the address, for the time of the probe. In use
// is also what another host probes for at this moment.
func (c Config) usedBy(ctx context.Context, a netip.Addr) (mac netspec.MAC, used bool, err error) {
	if c.Probe < 0 {
		return mac, false, nil
	}
	s, err := c.open(arpOf(a))
	if err != nil {
		return mac, false, err
	}
	defer s.close()
	ask := arp{arpRequest, c.MAC, netip.IPv4Unspecified(), a}.frame()
	return listen(ctx, s, c.Probe, ask, func(f frame) (netspec.MAC, bool) {
		m, ok := readARP(f)
		return m.from, ok && m.from != c.MAC && (m.sender == a || m.op == arpRequest && m.sender.IsUnspecified() && m.wantedIP == a)
	})
}

// listen asks several times over a while and returns the first that fits.
func listen(ctx context.Context, s socket, long time.Duration, ask []byte, fits func(frame) (netspec.MAC, bool)) (netspec.MAC, bool, error) {
	for range probes {
		if err := s.send(ask); err != nil {
			return netspec.MAC{}, false, err
		}
		mac, ok, err := hear(ctx, s, long/probes, fits)
		if ok || err != nil {
			return mac, ok, err
		}
	}
	return netspec.MAC{}, false, nil
}

func hear(ctx context.Context, s socket, long time.Duration, fits func(frame) (netspec.MAC, bool)) (netspec.MAC, bool, error) {
	end := time.NewTimer(long)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return netspec.MAC{}, false, ctx.Err()
		case <-end.C:
			return netspec.MAC{}, false, nil
		case f, open := <-s.frames():
			if !open {
				return netspec.MAC{}, false, errInterface
			}
			if mac, ok := fits(f); ok {
				return mac, true, nil
			}
		}
	}
}

// findWait is how long a server's MAC is asked for. Without an answer messages
// go to everybody, who drop them, but for the server.
const findWait = 600 * time.Millisecond

// find is the MAC that leads to a server, asked for from an address of ours.
func (c Config) find(ctx context.Context, from, server netip.Addr) netspec.MAC {
	s, err := c.open(arpOf(server))
	if err != nil {
		return everybody
	}
	defer s.close()
	ask := arp{arpRequest, c.MAC, from, server}.frame()
	mac, ok, err := listen(ctx, s, findWait, ask, func(f frame) (netspec.MAC, bool) {
		m, ok := readARP(f)
		return m.from, ok && m.sender == server && m.from != c.MAC && m.op == arpReply
	})
	if !ok || err != nil {
		return everybody
	}
	return mac
}

func hardware(m netspec.MAC) net.HardwareAddr { return m[:] }
