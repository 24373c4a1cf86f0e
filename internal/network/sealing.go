package network

import (
	"cmp"
	"context"
	"encoding/base64"
	"maps"
	"net/netip"

	"isle/internal/fabric"
	"isle/internal/netspec"
)

// This file is about what encrypts the tunnels of a cluster: one WireGuard link for all
// networks that ask for it, with a peer for each other host that has a key. It is there
// as long as such a network is here, and comes with the first in one transaction: where it
// cannot be, the network cannot either.

// Sealer has this host's WireGuard key. The private half is the kernel's to find.
type Sealer interface {
	// Public is the public key, in base64.
	Public() (string, error)
}

const (
	sealPort    = 51871
	sealing4    = 20 + 8 + 32 // IP, UDP and WireGuard around a packet
	sealing6    = 40 + 8 + 32
	sealKeySize = 32
)

// sealedNet is where all hosts have their addresses of SealedAddr.
var sealedNet = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x69, 0x73, 0x6c, 0x65}), 48)

// sealKey is this host's public key; "": it cannot encrypt.
func (m *Manager) sealKey() string {
	if m.Seal == nil || m.cluster.key != "" {
		return m.cluster.key
	}
	key, err := m.Seal.Public()
	if err != nil {
		m.Log.Error("read the key for encrypted tunnels", "err", err)
		return ""
	}
	m.cluster.key = key
	return key
}

func (m *Manager) sealPort() uint16 { return cmp.Or(m.Config.SealPort, sealPort) }

// publishKey tells the others this host's key.
func (m *Manager) publishKey(ctx context.Context) error {
	v := m.Fabric.View()
	m.op.Lock()
	key, port := m.sealKey(), m.sealPort()
	m.op.Unlock()
	here, ok := v.Hosts[v.Self]
	if key == "" || !v.Known || v.Self == "" || ok && here.Key == key && here.KeyPort == port {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	return m.Fabric.Describe(ctx, func(h *fabric.Host) { h.Key, h.KeyPort = key, port })
}

// sealing reports whether a network that must be encrypted is here.
func (m *Manager) sealing() bool {
	for _, n := range m.x.networks {
		if !n.Global() || n.Idle {
			continue
		}
		if d, err := m.sharedDriver(*n); err == nil && d.Sealed(*n) {
			return true
		}
	}
	return false
}

// sealUnits are the link's and those of its peers, as they are to be now. Without a
// network that needs them they are all to go.
func (m *Manager) sealUnits() map[string]netspec.State {
	units := map[string]netspec.State{}
	if link := m.sealLink(); link != nil || m.units[sealUnit("")] != nil {
		units[sealUnit("")] = link
		for id := range m.cluster.far.hosts {
			if id != m.cluster.far.self {
				units[sealUnit(id)] = m.sealPeer(id)
			}
		}
	}
	return units
}

// sealLink is the link, with this host's address there and the way to the others.
func (m *Manager) sealLink() netspec.State {
	t := m.host.Tunnel
	if t.Seal.Link == "" || !m.sealing() {
		return nil
	}
	mtu := max(t.MTU-sealing4, LeastIPv6MTU)
	if t.Addr.Is6() {
		mtu = max(t.MTU-sealing6, LeastIPv6MTU)
	}
	s := netspec.State{}
	s.Add(
		netspec.WireGuard{Name: t.Seal.Link, Public: m.cluster.key, Port: m.sealPort(), MTU: mtu},
		netspec.Addr{Link: t.Seal.Link, Prefix: netip.PrefixFrom(t.Seal.Addr, t.Seal.Addr.BitLen())},
		netspec.Route{Dst: sealedNet, Dev: t.Seal.Link})
	return s
}

// sealPeer is another host at the other end of the link.
func (m *Manager) sealPeer(host string) netspec.State {
	t := m.host.Tunnel
	h, ok := m.cluster.far.leads(host)
	if !ok || t.Seal.Link == "" || !m.sealing() || h.KeyPort == 0 || !usableKey(h.Key) || h.Key == m.cluster.key {
		return nil
	}
	s := netspec.State{}
	s.Add(netspec.Peer{Link: t.Seal.Link, Public: h.Key, At: netip.AddrPortFrom(h.Addr, h.KeyPort), Allowed: SealedAddr(h.ID)})
	return s
}

func usableKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == sealKeySize && base64.StdEncoding.EncodeToString(b) == key
}

func merged(units, more map[string]netspec.State) map[string]netspec.State {
	maps.Copy(units, more)
	return units
}
