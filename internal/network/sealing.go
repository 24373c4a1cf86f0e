package network

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"

	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network/seal"
)

// This file is about what encrypts the tunnels of a cluster: a WireGuard link for all
// networks that ask for it, with a peer for each other host that has a key. It is there
// as long as such a network is here, and comes with the first in one transaction: where it
// cannot be, the network cannot either. While a key is changed for another there are two
// links here, and two peers of whoever else does that (rotation.go).

// Sealer has this host's WireGuard keys. The private halves are the kernel's to find.
type Sealer interface {
	// Keys are those that there are, the newest first: one, or two for different links.
	Keys() ([]seal.Key, error)
	// Renew makes one beside the one that there is. Class Conflict: there are two already.
	Renew() error
	// Forget ends one. The last one stays.
	Forget(public string) error
}

const (
	sealPort    = 51871
	sealing4    = 20 + 8 + 32 // IP, UDP and WireGuard around a packet
	sealing6    = 40 + 8 + 32
	sealKeySize = 32
)

// sealedNet is where all hosts have their addresses of SealedAddr.
var sealedNet = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x69, 0x73, 0x6c, 0x65}), 48)

// sealKeys are this host's keys, the newest first; without one it cannot encrypt.
func (m *Manager) sealKeys() []seal.Key {
	c := &m.cluster.seals
	if m.Seal == nil || c.keys != nil {
		return c.keys
	}
	keys, err := m.Seal.Keys()
	if err != nil {
		m.Log.Error("read the keys for encrypted tunnels", "err", err)
		return nil
	}
	c.keys = keys
	return keys
}

// linkOf is the link with a key, and portOf its UDP port.
func (m *Manager) linkOf(k seal.Key) string { return fmt.Sprint(m.Config.LinkPrefix, "w", k.Link) }
func (m *Manager) portOf(k seal.Key) uint16 {
	return cmp.Or(m.Config.SealPort, sealPort) + uint16(k.Link)
}

// seal is what encrypts the tunnels of this host.
func (m *Manager) seal() (s Seal) {
	switch keys := m.sealKeys(); len(keys) {
	case 0:
		return s
	case 1:
		return Seal{Link: m.linkOf(keys[0])}
	default:
		return Seal{Link: m.linkOf(keys[0]), Old: m.linkOf(keys[1])}
	}
}

// described is this host with its keys, as the others are to see it.
func (m *Manager) described(h fabric.Host) fabric.Host {
	keys := m.sealKeys()
	if len(keys) == 0 {
		return h
	}
	h.Key, h.KeyPort, h.OldKey, h.OldPort = keys[0].Public, m.portOf(keys[0]), "", 0
	if len(keys) > 1 && m.cluster.seals.left.IsZero() {
		h.OldKey, h.OldPort = keys[1].Public, m.portOf(keys[1])
	}
	return h
}

// publishKey tells the others this host's keys.
func (m *Manager) publishKey(ctx context.Context) error {
	v := m.Fabric.View()
	here, ok := v.Hosts[v.Self]
	m.op.Lock()
	want := m.described(here)
	m.op.Unlock()
	if want.Key == "" || !v.Known || v.Self == "" || ok && here == want {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	return m.Fabric.Describe(ctx, func(h *fabric.Host) {
		h.Key, h.KeyPort, h.OldKey, h.OldPort = want.Key, want.KeyPort, want.OldKey, want.OldPort
	})
}

// sealing reports whether a network that must be encrypted is here, of which it is true.
func (m *Manager) sealing(is func(network string) bool) bool {
	for id, n := range m.x.networks {
		if !n.Global() || n.Idle || !is(id) {
			continue
		}
		if d, err := m.sharedDriver(*n); err == nil && d.Sealed(*n) {
			return true
		}
	}
	return false
}

func anyNetwork(string) bool { return true }

// meets reports whether there may be something to say to a host that must be encrypted.
func (m *Manager) meets(host string) bool {
	return m.sealing(func(network string) bool { return m.cluster.far.counts[seat{network, host}] > 0 })
}

// sealUnits are the links' and those of their peers, as they are to be now. Without a
// network that needs them they are all to go.
func (m *Manager) sealUnits() map[string]netspec.State {
	units := map[string]netspec.State{}
	if links := m.sealLinks(); links != nil || m.units[sealUnit("")] != nil {
		units[sealUnit("")] = links
		for id := range m.cluster.far.hosts {
			if id != m.cluster.far.self {
				units[sealUnit(id)] = m.sealPeer(id)
			}
		}
	}
	return units
}

// sealLinks are the links, with this host's addresses there and the ways to the others.
func (m *Manager) sealLinks() netspec.State {
	t := m.host.Tunnel
	if t.Seal.Link == "" || !m.sealing(anyNetwork) {
		return nil
	}
	mtu := max(t.MTU-sealing4, LeastIPv6MTU)
	if t.Addr.Is6() {
		mtu = max(t.MTU-sealing6, LeastIPv6MTU)
	}
	s := netspec.State{}
	for _, k := range m.sealKeys() {
		link, addr := m.linkOf(k), SealedAddr(m.cluster.here.ID, k.Public)
		s.Add(
			netspec.WireGuard{Name: link, Public: k.Public, Port: m.portOf(k), MTU: mtu},
			netspec.Addr{Link: link, Prefix: netip.PrefixFrom(addr, addr.BitLen())},
			netspec.Route{Dst: sealedNet, Dev: link, Src: addr, Metric: 1 + k.Link})
	}
	return s
}

// sealPeer is another host at the other ends of the links.
func (m *Manager) sealPeer(host string) netspec.State {
	h, ok := m.cluster.far.leads(host)
	theirs := m.keysOf(h)
	if !ok || len(theirs) == 0 || m.host.Tunnel.Seal.Link == "" || !m.sealing(anyNetwork) {
		return nil
	}
	s, keys, meets := netspec.State{}, m.sealKeys(), m.meets(host)
	for i, mine := range keys {
		awake := meets && m.begins(host, i == len(keys)-1)
		for _, k := range theirs {
			s.Add(netspec.Peer{Link: m.linkOf(mine), Public: k.public, At: netip.AddrPortFrom(h.Addr, k.port), Allowed: SealedAddr(h.ID, k.public), Awake: awake})
		}
	}
	return s
}

// begins reports whether this host shakes hands with another one when there is nothing to
// send yet, by the link of the key that was there before, or of the new one. One of two
// does: where both do at once, neither succeeds, and WireGuard in a process may think that
// both have (measured: one direction is dead then for 15 s). By the link of a new key it
// does when the others have had the time to hear of it.
func (m *Manager) begins(host string, before bool) bool {
	return m.cluster.far.self < host && (before || m.cluster.seals.open)
}

// farKey is one of another host.
type farKey struct {
	public string
	port   uint16
}

// keysOf are the keys of another host that can be, the newest first.
func (m *Manager) keysOf(h fabric.Host) (keys []farKey) {
	for _, k := range []farKey{{h.Key, h.KeyPort}, {h.OldKey, h.OldPort}} {
		if k.port != 0 && usableKey(k.public) && !m.isMine(k.public) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (m *Manager) isMine(public string) bool {
	for _, k := range m.sealKeys() {
		if k.Public == public {
			return true
		}
	}
	return false
}

func usableKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == sealKeySize && base64.StdEncoding.EncodeToString(b) == key
}

func merged(units, more map[string]netspec.State) map[string]netspec.State {
	maps.Copy(units, more)
	return units
}
