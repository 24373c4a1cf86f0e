package kernel

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// firstWait is how long the bridge needs until it passes on what a new port
// sends: the kernel tells it of the carrier behind our back.
const firstWait = 10 * time.Millisecond

// announcer tells neighbours of new addresses, behind the back of those who
// attach containers.
type announcer struct {
	log  *slog.Logger
	stop chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

func (a *announcer) close() {
	a.once.Do(func() { close(a.stop) })
	a.wg.Wait()
}

// announce begins what a visit to a namespace calls for: in are the changes that
// were made there, later those and all that follow them.
func (k *Kernel) announce(in, later []reconcile.Change) {
	wishes := map[netspec.Key]netspec.Announce{}
	for _, c := range later {
		if a, ok := c.New.(netspec.Announce); ok {
			wishes[a.Key()] = a
		}
	}
	news := map[netspec.Announce][]netip.Addr{}
	for _, c := range in {
		a, ok := c.New.(netspec.Addr)
		if !ok || a.NS == "" {
			continue
		}
		key := netspec.Announce{NS: a.NS, Link: a.Link}.Key()
		w, ok := wishes[key]
		if !ok {
			w, ok = k.memory.announcement(key)
		}
		if ok && w.Times > 0 {
			news[w] = append(news[w], a.Prefix.Addr())
		}
	}
	for w, addrs := range news {
		k.announcer.wg.Go(func() { k.tell(w, addrs) })
	}
}

// movedTimes is how often it is told that a wire is back: a switch takes a second or
// more until it passes on what a port sends.
const movedTimes = 4

// announceOn tells of all addresses of the links that are on an interface of the host:
// its wire is at another place of the LAN, perhaps.
func (k *Kernel) announceOn(parent int32) {
	for _, link := range k.memory.onParent(parent) {
		if w, ok := k.memory.announcement(netspec.Announce{NS: link.NS, Link: link.ID}.Key()); ok {
			w.Times, w.Every = max(w.Times, movedTimes), max(w.Every, 1000)
			k.announcer.wg.Go(func() { k.tellAll(w) })
		}
	}
}

// tellAll is tell with the addresses that the link has.
func (k *Kernel) tellAll(w netspec.Announce) {
	var addrs []netip.Addr
	err := k.inNamespace(w.NS, func(_ *os.File, c *rtnl.Conn) error {
		all, err := c.Addrs()
		index, ierr := c.Index(w.Link)
		for _, a := range all {
			if a.Index == index && a.Proto == rtnl.Proto {
				addrs = append(addrs, a.Prefix.Addr())
			}
		}
		return errors.Join(err, rtnl.Gone(ierr))
	})
	if err != nil {
		k.announcer.log.Warn("tell the LAN where a container is", "namespace", w.NS, "link", w.Link, "err", err)
	}
	if len(addrs) > 0 {
		k.tell(w, addrs)
	}
}

func (k *Kernel) tell(w netspec.Announce, addrs []netip.Addr) {
	wait := firstWait
	for range w.Times {
		select {
		case <-time.After(wait):
		case <-k.announcer.stop:
			return
		}
		err := k.tellOnce(w, addrs)
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
			return // it has gone meanwhile
		case err != nil:
			k.announcer.log.Warn("tell neighbours of new addresses", "namespace", w.NS, "link", w.Link, "err", err)
			return
		}
		wait = time.Duration(w.Every) * time.Millisecond
	}
}

// tellOnce opens what it needs anew: a socket that is held would keep the
// namespace from ending.
func (k *Kernel) tellOnce(w netspec.Announce, addrs []netip.Addr) error {
	f, err := k.open(w.NS)
	if err != nil {
		return err
	}
	defer f.Close()
	var c *rtnl.Conn
	var fd int
	if err := netns.Visit(f, func() (err error) {
		if c, err = rtnl.Open(nil); err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // receives nothing
		return err
	}); err != nil {
		if c != nil {
			c.Close()
		}
		return err
	}
	defer unix.Close(fd)
	defer c.Close()
	l, err := c.Link(w.Link)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range addrs {
		frame := gratuitousARP(l.MAC, a)
		if a.Is6() {
			frame = unsolicitedNA(l.MAC, a)
		}
		to := &unix.SockaddrLinklayer{Ifindex: int(l.Index), Halen: 6}
		errs = append(errs, unix.Sendto(fd, frame, 0, to))
	}
	return errors.Join(errs...)
}

var everybody = netspec.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// gratuitousARP says to everybody that ip is at mac (RFC 5227).
func gratuitousARP(mac netspec.MAC, ip netip.Addr) []byte {
	b := ethernet(everybody, mac, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
	b = append(append(b, mac[:]...), ip.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), ip.AsSlice()...)
}

// unsolicitedNA says to all nodes that ip is at mac, instead of where they
// believe it to be (RFC 4861, 7.2.6).
func unsolicitedNA(mac netspec.MAC, ip netip.Addr) []byte {
	nodes := netip.IPv6LinkLocalAllNodes()
	icmp := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, ip.AsSlice()...)
	icmp = append(append(icmp, 2, 1), mac[:]...)
	pseudo := append(append(append([]byte(nil), ip.AsSlice()...), nodes.AsSlice()...), 0, 0, 0, byte(len(icmp)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))
	b := ethernet(netspec.MAC{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255)
	return append(append(append(b, ip.AsSlice()...), nodes.AsSlice()...), icmp...)
}

func ethernet(to, from netspec.MAC, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte(nil), to[:]...), from[:]...), kind)
}

// checksum is that of the internet protocols, over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
