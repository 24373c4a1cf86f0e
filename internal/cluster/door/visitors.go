package door

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxPeers bounds what is remembered of who has called.
const maxPeers = 4096

// visitors counts who calls how often. A peer is an IPv4 address or an IPv6 /64. The
// zero value is ready.
type visitors struct {
	mu    sync.Mutex
	open  map[netip.Prefix]int
	total int
	tries map[netip.Prefix]int
	since time.Time // when counting of tries began
}

// mayTry counts a request.
func (v *visitors) mayTry(remote string, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.since) > triesWindow || v.tries == nil {
		v.tries, v.since = map[netip.Prefix]int{}, now
	}
	p := peerOf(remote)
	if len(v.tries) >= maxPeers && v.tries[p] == 0 {
		return false
	}
	v.tries[p]++
	return v.tries[p] <= tries
}

func (v *visitors) enter(p netip.Prefix) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.total >= maxConns || v.open[p] >= maxPerPeer {
		return false
	}
	if v.open == nil {
		v.open = map[netip.Prefix]int{}
	}
	v.open[p]++
	v.total++
	return true
}

func (v *visitors) leave(p netip.Prefix) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.total--
	if v.open[p]--; v.open[p] <= 0 {
		delete(v.open, p)
	}
}

func peerOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// limit is l without those who have too many connections already.
func (v *visitors) limit(l net.Listener) net.Listener { return &limited{l, v} }

type limited struct {
	net.Listener
	v *visitors
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := peerOf(c.RemoteAddr().String())
		if l.v.enter(p) {
			return &visit{Conn: c, leave: func() { l.v.leave(p) }}, nil
		}
		c.Close()
	}
}

type visit struct {
	net.Conn
	once  sync.Once
	leave func()
}

func (c *visit) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}
