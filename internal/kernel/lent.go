package kernel

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
)

// This file is about namespaces that somebody else made and lends us. We hold one by
// a mount of our own, as those that we make: so it is found again after a restart, and
// what is ours in it can be taken away also when its maker has let go of it.

// Lent is the name of the namespace that f is. The host's own, and those of our
// containers, are not to be lent: class InvalidArgument.
func (k *Kernel) Lent(f *os.File) (netspec.NS, error) {
	var cookie uint64
	err := netns.Visit(f, func() (err error) { cookie, err = netns.CookieHere(); return err })
	if err != nil {
		return "", fmt.Errorf("network namespace %s: %w", f.Name(), err)
	}
	if cookie == k.cookie || netns.Same(f, "/proc/1/ns/net") {
		return "", fmt.Errorf("%s is the network namespace of the host: %w", f.Name(), errdefs.ErrInvalidArgument)
	}
	if ns, ours := k.memory.owner(cookie); ours && !ns.Lent() {
		return "", fmt.Errorf("%s is the network namespace of container %s (hint: isle network connect): %w", f.Name(), ns, errdefs.ErrInvalidArgument)
	}
	return netspec.Lent(cookie), nil
}

// Borrow holds the namespace that f is, and that Lent calls ns. One that is held
// already stays so. Its loopback device is brought up: the resolver listens there.
func (k *Kernel) Borrow(ns netspec.NS, f *os.File) error {
	if err := netns.Visit(f, netns.RaiseLo); err != nil {
		return fmt.Errorf("network namespace %s: %w", f.Name(), err)
	}
	return k.ns.Hold(string(ns), f)
}

// Held reports whether a namespace is there.
func (k *Kernel) Held(ns netspec.NS) bool { return netns.IsNS(k.Path(ns)) }

// found makes a namespace. One that was lent is not ours to make.
func (k *Kernel) found(ns netspec.NS) (cookie uint64, err error) {
	if ns.Lent() {
		return k.ns.Cookie(string(ns))
	}
	return k.ns.Name(string(ns), k.ahead.take)
}

// Inside is an interface as it is seen in a namespace.
type Inside struct {
	MTU   int
	MAC   netspec.MAC
	Up    bool
	Addrs []netip.Prefix
}

// Inside looks at an interface in a namespace that is held. Class NotFound.
func (k *Kernel) Inside(ns netspec.NS, link string) (in Inside, err error) {
	f, err := k.open(ns)
	if err != nil {
		return in, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	defer f.Close()
	v, err := view(f)
	if err != nil {
		return in, err
	}
	for _, l := range v.Links {
		if l.Name == link {
			return Inside{int(l.MTU), l.MAC, l.Up, v.on(l.Index)}, nil
		}
	}
	return in, fmt.Errorf("there is no interface %s in namespace %s: %w", link, ns, errdefs.ErrNotFound)
}

// Taken says what somebody else has put into a namespace: an interface of that name,
// and a default route.
func (k *Kernel) Taken(f *os.File, link string) (there, leadsOut bool, err error) {
	v, err := view(f)
	if err != nil {
		return false, false, err
	}
	for _, l := range v.Links {
		there = there || l.Name == link
	}
	for _, r := range v.Routes {
		leadsOut = leadsOut || r.Dst.Bits() == 0 && r.Proto != rtnl.Proto && r.Type == unix.RTN_UNICAST
	}
	return there, leadsOut, nil
}

type seen struct{ rtnl.View }

func view(f *os.File) (seen, error) {
	c, err := rtnl.Open(f)
	if err != nil {
		return seen{}, err
	}
	defer c.Close()
	v, err := c.Read()
	return seen{v}, err
}

func (v seen) on(index int32) (out []netip.Prefix) {
	for _, a := range v.Addrs {
		if a.Index == index {
			out = append(out, a.Prefix)
		}
	}
	return out
}
