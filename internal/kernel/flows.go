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
	f.stale.Gone = append(f.stale.Gone, s.Gone...)
	f.stale.Come = append(f.stale.Come, s.Come...)
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
		f.running = s.Gone != nil || s.Come != nil
		f.mu.Unlock()
		if s.Gone == nil && s.Come == nil {
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
	for _, c := range cs {
		if p, ok := c.Old.(netspec.Publish); ok && (p.Proto == "udp" || len(k.ending) == 0) {
			s.Gone = append(s.Gone, p)
		}
		if p, ok := c.New.(netspec.Publish); ok && p.Proto == "udp" {
			s.Come = append(s.Come, p)
		}
	}
	if s.Gone != nil || s.Come != nil {
		k.flows.add(s)
	}
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
