// Package kernel makes the machine's network what netspec says: it is the
// reconcile.Kernel of the product. It orders and joins; the packages below it
// make the system calls.
//
// What the latency of starting a container hangs on is here: changes that stand
// together become one message. All veths of a container are made by one
// sendmsg(2), with their peers in place; all that is inside its namespace is done
// in one visit, by a second one; all filter changes are one nftables batch. The
// namespace itself was made ahead, while its records were written: see Prepare.
//
// Deleting: with a namespace die its links, addresses, routes and redirects, so
// that changes which delete them in the same call are not sent at all. The
// kernel reaps such links behind our back; whoever needs the name of one
// before that removes it.
//
// Owner marks: links by group and name prefix, addresses and routes by
// protocol number, routes by links of others by that and our group as their metric, the firewall by its table, namespaces by their directory.
//
// What Observe cannot read back: sysctls (only those that were set through this
// Kernel are known) and whether a MAC or an MTU was chosen by the kernel. To set
// again what is there already writes nothing. An Announce is no state of the
// kernel's at all: it says what is to happen when a link gets addresses.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"

	"isle/internal/kernel/bpf"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/nft"
	"isle/internal/kernel/probe"
	"isle/internal/kernel/rtnl"
	"isle/internal/kernel/seat"
	"isle/internal/kernel/tc"
	"isle/internal/kernel/wg"
	"isle/internal/netspec"
)

// Config is what a Kernel needs.
type Config struct {
	Table      string // of nftables; required
	LinkGroup  int    // required
	LinkPrefix string // of the names of our links
	NSDir      string // where namespaces are mounted; required
	BPFDir     string // where eBPF is pinned, below a bpf file system; "" does without eBPF
	CgroupRoot string // a cgroup v2 mount; "" finds or mounts one
	GuardMark  uint32 // bit of packets' marks; 0: nft.DefaultMark
	NoGuard    bool   // no guards on bridges
	Log        *slog.Logger
	// Secret finds the private WireGuard key by the public one. nil: tunnels cannot be
	// encrypted.
	Secret func(public string) (private [wg.KeyLen]byte, err error)
	// UserWireGuard does without the kernel's WireGuard, as where it has none.
	UserWireGuard bool
}

// Kernel works on the network namespace that it was made in, and on those in
// NSDir. Its methods may be called by several goroutines.
type Kernel struct {
	cfg      Config
	log      *slog.Logger
	mark     rtnl.Mark
	host     *os.File
	cookie   uint64 // of host
	ns       netns.Dir
	table    *nft.Table
	redirect *bpf.Redirects // nil: sockets cannot be redirected
	guards   *tc.Guards     // nil: bridges cannot be guarded
	features probe.Features

	mu        sync.Mutex          // one Apply at a time
	rt        *rtnl.Conn          // in host, used under mu
	ending    map[netspec.NS]bool // the namespaces that the Apply that goes on takes away
	flows     forgetter
	reaper    reaper
	announcer announcer
	memory    memory
	watched   ports
	seals     seals
	ahead     ahead
}

// New opens the kernel as the calling thread's network namespace shows it.
// Nothing is changed but for the directories, mounts and programs that Config
// names.
func New(cfg Config) (k *Kernel, err error) {
	if cfg.Table == "" || cfg.LinkGroup == 0 || cfg.NSDir == "" {
		return nil, errors.New("open kernel: table, link group and namespace directory are required")
	}
	k = &Kernel{cfg: cfg, log: cfg.Log, mark: rtnl.Mark{Group: uint32(cfg.LinkGroup), Prefix: cfg.LinkPrefix}, memory: newMemory(), seals: seals{users: map[string]*wg.User{}}, reaper: reaper{stop: make(chan struct{})}, announcer: announcer{stop: make(chan struct{})}}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open kernel: %w", err), k.Close())
			k = nil
		}
	}()
	if k.host, err = netns.Self(); err != nil {
		return k, err
	}
	if k.cookie, err = netns.CookieHere(); err != nil {
		return k, err
	}
	if k.ns, err = netns.Open(cfg.NSDir); err != nil {
		return k, err
	}
	if k.rt, err = rtnl.Open(nil); err != nil {
		return k, err
	}
	if k.table, err = nft.Open(nil, cfg.Table); err != nil {
		return k, err
	}
	k.flows.forget, k.flows.log = k.forgetFlows, k.log
	k.reaper.check, k.reaper.log = k.reapLinks, k.log
	k.announcer.log = k.log
	k.watched.add(k.rt.PortID(), k.table.PortID())
	k.features.IPv6 = probe.IPv6()
	k.table.Mark, k.table.Group, k.table.Prefix = cfg.GuardMark, k.mark.Group, k.mark.Prefix
	if k.features.Sources = nft.KnowsBridges(); !k.features.Sources {
		k.table.NoBridge = true
		k.log.Warn("containers can send with addresses of others: this kernel's nftables know no bridges")
	}
	return k, errors.Join(k.openRedirects(), k.openGuards())
}

// openRedirects takes eBPF where it is to be had; without it there is another
// way for the resolver, and none for loopback ports.
func (k *Kernel) openRedirects() (err error) {
	if k.cfg.BPFDir == "" {
		k.features.SockAddrError = "switched off"
		return nil
	}
	k.redirect, err = bpf.Open(k.cfg.BPFDir, k.cfg.CgroupRoot)
	if probe.NotSupported(err) {
		k.redirect, k.features.SockAddrError = nil, err.Error()
		k.log.Warn("sockets cannot be redirected", "err", err)
		return nil
	}
	k.features.SockAddr = err == nil
	if err == nil {
		k.sweep()
	}
	return err
}

// sweep frees the entries of namespaces that are gone.
func (k *Kernel) sweep() {
	alive := map[uint64]bool{k.cookie: true}
	names, err := k.ns.List()
	for _, n := range names {
		c, cerr := k.ns.Cookie(n)
		err = errors.Join(err, cerr)
		alive[c] = true
	}
	if err != nil { // unsure who is alive: nobody is dead
		k.log.Warn("look for namespaces that are gone", "err", err)
		return
	}
	if err := k.redirect.Keep(func(c uint64) bool { return alive[c] }); err != nil {
		k.log.Warn("free redirects of namespaces that are gone", "err", err)
	}
}

// Seats moves links of others between the host's namespace and containers'. It does
// not take those that are ours.
func (k *Kernel) Seats() (*seat.Seats, error) { return seat.Open(k.mark) }

// Close waits for what goes on in the background and lets go. The machine's
// network stays as it is.
func (k *Kernel) Close() error {
	k.reaper.close()
	k.announcer.close()
	k.flows.wait()
	errs := []error{k.seals.close()}
	for _, c := range []io.Closer{closer(k.host), closer(k.rt), closer(k.table), closer(k.redirect), closer(k.guards)} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// closer makes a nil pointer a nil interface.
func closer[T any, P interface {
	*T
	io.Closer
}](p P) io.Closer {
	if p == nil {
		return nil
	}
	return p
}

// Features says what this kernel can do.
func (k *Kernel) Features() probe.Features { return k.features }

// Path is where a namespace can be opened; "" for the host's.
func (k *Kernel) Path(ns netspec.NS) string {
	if ns == "" {
		return ""
	}
	return k.ns.File(string(ns))
}

// open opens a namespace. The caller closes it.
func (k *Kernel) open(ns netspec.NS) (f *os.File, err error) {
	if ns == "" {
		f, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", k.host.Fd()))
	} else {
		f, err = netns.OpenFile(k.Path(ns))
	}
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", ns, err)
	}
	return f, nil
}

// Do runs fn in a namespace, on a thread that is thrown away.
func (k *Kernel) Do(ns netspec.NS, fn func() error) error {
	f, err := k.open(ns)
	if err != nil {
		return err
	}
	defer f.Close()
	return netns.Do(f, fn)
}

// Listen opens a UDP socket and a listening TCP socket in a namespace. Without MPTCP,
// which costs more and which no resolver's client speaks.
func (k *Kernel) Listen(ctx context.Context, ns netspec.NS, at netip.AddrPort) (udp net.PacketConn, tcp net.Listener, err error) {
	f, err := k.open(ns)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	err = netns.Visit(f, func() (err error) {
		if udp, err = lc.ListenPacket(ctx, "udp", at.String()); err != nil {
			return err
		}
		if tcp, err = lc.Listen(ctx, "tcp", at.String()); err != nil {
			return errors.Join(err, udp.Close())
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return udp, tcp, nil
}

// ListenTCP opens a listening TCP socket in a namespace.
func (k *Kernel) ListenTCP(ctx context.Context, ns netspec.NS, at netip.AddrPort) (l net.Listener, err error) {
	err = k.Do(ns, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
		return err
	})
	return l, err
}
