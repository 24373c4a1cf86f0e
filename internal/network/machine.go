package network

import (
	"context"
	"net"
	"net/netip"
	"time"

	"isle/internal/netspec"
	"isle/internal/network/ipam"
)

// Machine is what the Manager asks of the machine besides the Kernel that it
// writes: facts, and doors into namespaces.
type Machine interface {
	// Host is what drivers may know. LinkPrefix is filled in by the Manager.
	Host(ctx context.Context) (Host, error)
	// NextTo are those of addrs that packets from a link of the host reach without being
	// routed.
	NextTo(ctx context.Context, link string, addrs []netip.Addr) ([]netip.Addr, error)
	// Foreign are the prefixes that routes, addresses and name servers of the
	// host use. Our own devices may be among them.
	Foreign(ctx context.Context) ([]ipam.Foreign, error)
	// Path is where the namespace can be opened; "" for the host's.
	Path(ns netspec.NS) string
	// Do runs fn on a thread in the namespace.
	Do(ns netspec.NS, fn func() error) error
	// MAC is that of a link in the namespace.
	MAC(ns netspec.NS, link string) (netspec.MAC, error)
	// Prepare begins to make the namespace of the sandbox that is opened next, while
	// its records are written. drop lets go of one that was not needed.
	Prepare() (drop func())
	// Listen opens UDP and TCP on 127.0.0.11:port in the namespace.
	Listen(ctx context.Context, ns netspec.NS, port uint16) (net.PacketConn, net.Listener, error)
	// Handshakes says when the last one was with each peer of a link that encrypts, by its
	// public key. A link that is not there has none.
	Handshakes(ctx context.Context, link string) (map[string]time.Time, error)
	// Counters reads the links of a namespace, by name.
	Counters(ctx context.Context, ns netspec.NS) (map[string]Counters, error)
}
