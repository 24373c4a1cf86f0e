package publish

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// lets reports whether peer may have what is published. Packets that the kernel
// redirects are asked by its own rules; this is for what arrives at our sockets.
func (w *Way) lets(peer netip.Addr) bool {
	peer = peer.Unmap().WithZone("")
	return !w.Limited || peer.IsLoopback() || slices.ContainsFunc(w.From, func(p netip.Prefix) bool { return p.Contains(peer) }) || own.has(peer)
}

// own is what addresses this host has, as of a moment ago: datagrams that are
// refused must not cost a question to the kernel each.
var own hostAddrs

const ownFor = time.Second

type hostAddrs struct {
	mu    sync.Mutex
	at    time.Time
	addrs map[netip.Addr]struct{}
}

func (h *hostAddrs) has(a netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addrs == nil || time.Since(h.at) > ownFor {
		h.at, h.addrs = time.Now(), map[netip.Addr]struct{}{}
		all, err := net.InterfaceAddrs()
		if err != nil {
			return false
		}
		for _, n := range all {
			if p, err := netip.ParsePrefix(n.String()); err == nil {
				h.addrs[p.Addr().Unmap()] = struct{}{}
			}
		}
	}
	_, ok := h.addrs[a]
	return ok
}
