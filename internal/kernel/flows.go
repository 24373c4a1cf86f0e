package kernel

import (
	"log/slog"
	"sync"
	"time"

	"isle/internal/kernel/conntrack"
	"isle/internal/netspec"
	"isle/internal/reconcile"
)

// forgetter deletes flows behind the back of those who change ports: one worker
// at a time, which does together what has come up meanwhile.
type forgetter struct {
	forget func(conntrack.Stale) error
	log    *slog.Logger

	mu      sync.Mutex
	running bool
	stale   conntrack.Stale
	wg      sync.WaitGroup
}

func (f *forgetter) add(s conntrack.Stale) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stale = f.stale.And(s)
	if !f.running {
		f.running = true
		f.wg.Go(f.work)
	}
}

// gather is how long changes are collected: to look for flows costs the kernel
// some 15 ms, however few there are.
const gather = 20 * time.Millisecond

func (f *forgetter) work() {
	for {
		time.Sleep(gather)
		f.mu.Lock()
		s := f.stale
		f.stale = conntrack.Stale{}
		f.running = !s.Empty()
		f.mu.Unlock()
		if s.Empty() {
			return
		}
		if err := f.forget(s); err != nil {
			f.log.Warn("forget flows of changed ports", "err", err)
		}
	}
}

// wait waits until nothing is left to do.
func (f *forgetter) wait() { f.wg.Wait() }

// forget looks after the flows of published ports that changed. Connections of
// a container that ends need no looking after: nobody is left to answer them.
func (k *Kernel) forget(cs []reconcile.Change) {
	var s conntrack.Stale
	var now []netspec.Publish
	for _, c := range cs {
		if p, ok := c.New.(netspec.Publish); ok {
			now = append(now, p)
			if p.Proto == "udp" {
				s.Come = append(s.Come, p)
			}
		}
	}
	for _, c := range cs {
		if p, ok := c.Old.(netspec.Publish); ok && (p.Proto == "udp" || len(k.ending) == 0) {
			s.Gone = append(s.Gone, gone(p, now)...)
		}
	}
	if len(k.ending) == 0 {
		s.Limited, s.Closed = k.limits(cs), closed(cs)
	}
	k.flows.back(now)
	if !s.Empty() {
		k.flows.add(s)
	}
}

// limits are the ports whose allow-lists changed and that stay, with the lists
// that they have now. One that is for everybody now cuts nobody.
func (k *Kernel) limits(cs []reconcile.Change) (out []conntrack.Limit) {
	seen := map[netspec.Key]bool{}
	for _, c := range cs { // what comes or goes as a whole is looked after as such
		if _, ok := object(c).(netspec.Publish); ok {
			seen[c.Key] = true
		}
	}
	for _, c := range cs {
		a, ok := object(c).(netspec.Allow)
		port := netspec.Publish{Proto: a.Proto, HostIP: a.HostIP, Iface: a.Iface, HostPort: a.HostPort, Count: a.Count}
		if !ok || seen[port.Key()] {
			continue
		}
		seen[port.Key()] = true
		if list := k.table.Allowed(a); len(list) > 0 {
			out = append(out, conntrack.Limit{Port: port, Allowed: list})
		}
	}
	return out
}

func closed(cs []reconcile.Change) (out []netspec.Open) {
	for _, c := range cs {
		if o, ok := c.Old.(netspec.Open); ok && c.New == nil {
			out = append(out, o)
		}
	}
	return out
}

// back takes out of what is to be forgotten what leads to the same container
// again.
func (f *forgetter) back(now []netspec.Publish) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range now {
		var left []netspec.Publish
		for _, p := range f.stale.Gone {
			left = append(left, less(p, n, false)...)
		}
		f.stale.Gone = left
	}
}

// gone are the ports of old whose flows end: those that are not in now with the
// same target. Where another container has taken a port over, connections go on
// with the one they began with; datagrams have no end to wait for.
func gone(old netspec.Publish, now []netspec.Publish) []netspec.Publish {
	out := []netspec.Publish{old}
	for _, n := range now {
		var left []netspec.Publish
		for _, p := range out {
			left = append(left, less(p, n, old.Proto != "udp")...)
		}
		out = left
	}
	return out
}

// less is p without the ports of n that lead where p's do, or anywhere.
func less(p, n netspec.Publish, anywhere bool) []netspec.Publish {
	same := p.Proto == n.Proto && p.HostIP == n.HostIP && p.Iface == n.Iface
	first, last := max(int(p.HostPort), int(n.HostPort)), min(int(p.HostPort)+int(p.Count), int(n.HostPort)+int(n.Count))-1
	if !same || first > last || !anywhere && (p.To != n.To || p.ToPort-p.HostPort != n.ToPort-n.HostPort) {
		return []netspec.Publish{p}
	}
	var out []netspec.Publish
	if before := first - int(p.HostPort); before > 0 {
		q := p
		q.Count = uint16(before)
		out = append(out, q)
	}
	if skip := last + 1 - int(p.HostPort); skip < int(p.Count) {
		q := p
		q.HostPort, q.ToPort, q.Count = p.HostPort+uint16(skip), p.ToPort+uint16(skip), p.Count-uint16(skip)
		out = append(out, q)
	}
	return out
}

func (k *Kernel) forgetFlows(s conntrack.Stale) error {
	if s.Come != nil {
		addrs, err := k.hostAddrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			s.Local = append(s.Local, a.Addr())
		}
	}
	return conntrack.Forget(k.host, s)
}
