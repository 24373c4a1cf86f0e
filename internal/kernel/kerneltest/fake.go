// Package kerneltest has a kernel in memory that can fail and crash. It checks
// references as the real one does, so a plan in the wrong order is found here.
package kerneltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// ErrCrash is what a crash panics with: the process has died, nothing after it
// runs.
var ErrCrash = errors.New("crash")

// ErrRefused is the error of the change that fails.
var ErrRefused = errors.New("invalid argument")

// Fake is a kernel that can refuse, or take the process down, at the nth
// change. The zero value is an empty kernel. It may be used concurrently; its
// fields are to be set and read while it is not.
type Fake struct {
	State   netspec.State
	FailAt  int                         // this change fails; 0: none
	CrashAt int                         // the process dies before this change, with those before it in the batch made; 0: never
	N       int                         // changes made or refused so far
	Batches int                         // calls of Apply
	Refuses func(reconcile.Change) bool // changes that are never made; nil: there are none such
	Parents []string                    // interfaces of the host that are nobody's of ours

	mu sync.Mutex
}

var _ reconcile.Kernel = (*Fake)(nil)

// Observe implements reconcile.Kernel.
func (f *Fake) Observe(context.Context) (netspec.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.State), nil
}

// Flush is somebody else who takes everything away.
func (f *Fake) Flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.State)
}

// Unplug is somebody else who takes the interfaces of the host away, and the kernel
// with them what is on them.
func (f *Fake) Unplug() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Parents = nil
	for before := -1; before != len(f.State); {
		before = len(f.State)
		maps.DeleteFunc(f.State, func(_ netspec.Key, o netspec.Object) bool { return f.lost(o) })
	}
}

// lost reports whether something that o refers to is not there. A setting of a link is
// gone with it.
func (f *Fake) lost(o netspec.Object) bool {
	keys := needs(o)
	if s, ok := o.(netspec.Sysctl); ok {
		if part := strings.Split(s.Name, "/"); len(part) == 4 && part[2] != "all" {
			keys = append(keys, netspec.Link{NS: s.NS, Name: part[2]}.Key())
		}
	}
	return slices.ContainsFunc(keys, func(k netspec.Key) bool { return !f.has(k) })
}

// Apply implements reconcile.Kernel.
func (f *Fake) Apply(_ context.Context, changes []reconcile.Change) (done int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Batches++
	for i, c := range changes {
		if err := f.apply(c); err != nil {
			return i, err
		}
	}
	return len(changes), nil
}

func (f *Fake) apply(c reconcile.Change) error {
	f.N++
	switch {
	case f.N == f.CrashAt:
		panic(ErrCrash)
	case f.N == f.FailAt, f.Refuses != nil && f.Refuses(c):
		return ErrRefused
	}
	if f.State == nil {
		f.State = netspec.State{}
	}
	if c.New == nil {
		if by := f.usedBy(c.Key); by != nil {
			return fmt.Errorf("%v is in use by %v", c.Key, by.Key())
		}
		delete(f.State, c.Key)
		return nil
	}
	if c.New.Key() != c.Key {
		return fmt.Errorf("change of %v makes %v", c.Key, c.New.Key())
	}
	for _, need := range needs(c.New) {
		if !f.has(need) {
			return fmt.Errorf("%v needs %v: no such device", c.Key, need)
		}
	}
	f.State[c.Key] = c.New
	return nil
}

// needs are the keys of what o refers to. A link in a namespace is there also
// as the peer of a veth.
func needs(o netspec.Object) []netspec.Key {
	ns := func(n netspec.NS) netspec.Key { return netspec.Namespace{NS: n}.Key() }
	parent := func(name string) netspec.Key { return netspec.VLAN{Name: name}.Key() }
	link := func(n netspec.NS, name string) netspec.Key { return netspec.Link{NS: n, Name: name}.Key() }
	var keys []netspec.Key
	switch o := o.(type) {
	case netspec.VLAN:
		keys = append(keys, parent(o.Parent))
	case netspec.LAN:
		keys = append(keys, ns(o.NS), parent(o.Parent))
	case netspec.VXLAN:
		if o.Master != "" {
			keys = append(keys, link("", o.Master))
		}
		if o.Via != "" {
			keys = append(keys, link("", o.Via))
		}
	case netspec.Peer:
		keys = append(keys, link("", o.Link))
	case netspec.FDB:
		keys = append(keys, link("", o.Link), link("", cmp.Or(o.Via, o.Link)))
	case netspec.Flood:
		keys = append(keys, link("", o.Link), link("", cmp.Or(o.Via, o.Link)))
	case netspec.Neigh:
		keys = append(keys, link(o.NS, o.Link))
	case netspec.Link:
		keys = append(keys, ns(o.NS), ns(o.PeerNS))
		if o.Master != "" {
			keys = append(keys, link(o.NS, o.Master))
		}
		if o.PeerMaster != "" {
			keys = append(keys, link(o.PeerNS, o.PeerMaster))
		}
	case netspec.Addr:
		keys = append(keys, link(o.NS, o.Link))
	case netspec.Rule:
		keys = append(keys, ns(o.NS))
	case netspec.Route:
		keys = append(keys, link(o.NS, o.Dev))
	case netspec.Hop:
		keys = append(keys, link("", o.Dev))
	case netspec.Announce:
		keys = append(keys, link(o.NS, o.Link))
	case netspec.Sysctl:
		keys = append(keys, ns(o.NS))
	case netspec.DNSRedirect:
		keys = append(keys, ns(o.NS))
	case netspec.Publish:
		keys = append(keys, link("", o.Link))
	case netspec.Segment:
		keys = append(keys, link("", o.Link))
	case netspec.Entrance:
		keys = append(keys, link("", o.Link))
	case netspec.Open:
		keys = append(keys, link("", o.Link))
	case netspec.Across:
		keys = append(keys, link("", o.Link), parent(o.Way))
	case netspec.Shortcut:
		keys = append(keys, link("", o.Link))
	case netspec.Source:
		keys = append(keys, link("", o.Link))
	case netspec.Guard:
		keys = append(keys, link("", o.Link))
	case netspec.Shape:
		keys = append(keys, ns(o.NS), link(o.NS, o.Link))
	case netspec.PortGuard:
		keys = append(keys, ns(o.NS), link("", o.Link))
	}
	return keys
}

func (f *Fake) has(k netspec.Key) bool {
	if k.Rank == netspec.RankNamespace && k.NS == "" {
		return true
	}
	if _, ok := f.State[k]; ok {
		return true
	}
	if k.NS == "" && slices.Contains(f.Parents, k.ID) && (k.Rank == netspec.RankParent || k.Rank == netspec.RankLink) {
		return true
	}
	return k.Rank == netspec.RankLink && f.peer(k) != nil
}

// peer is the veth whose other end is k.
func (f *Fake) peer(k netspec.Key) netspec.Object {
	for _, o := range f.State {
		if l, ok := o.(netspec.Link); ok && l.Kind == netspec.Veth && (netspec.Link{NS: l.PeerNS, Name: l.Peer}).Key() == k {
			return l
		}
	}
	return nil
}

// usedBy is an object that would be left in the air without k. The kernel
// would take most of them along; that would hide a wrong order.
func (f *Fake) usedBy(k netspec.Key) netspec.Object {
	gone := map[netspec.Key]bool{k: true}
	if l, ok := f.State[k].(netspec.Link); ok && l.Kind == netspec.Veth {
		gone[netspec.Link{NS: l.PeerNS, Name: l.Peer}.Key()] = true
	}
	for ok, o := range f.State {
		if ok == k {
			continue
		}
		for _, need := range needs(o) {
			if gone[need] {
				return o
			}
		}
	}
	return nil
}
