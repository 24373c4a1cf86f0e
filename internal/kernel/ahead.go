package kernel

import (
	"sync/atomic"

	"isle/internal/kernel/netns"
)

// ahead makes a namespace before it is asked for.
type ahead struct{ next atomic.Pointer[making] }

type making struct {
	done chan struct{}
	ns   netns.Unnamed
	err  error
}

// Prepare begins to make the namespace that an Apply which follows asks for, while
// its caller goes on. It has no name: when we are killed, nothing is left of it. drop
// lets it go if it was not taken.
func (k *Kernel) Prepare() (drop func()) {
	m := &making{done: make(chan struct{})}
	if !k.ahead.next.CompareAndSwap(nil, m) {
		return func() {}
	}
	go func() {
		m.ns, m.err = netns.Make()
		close(m.done)
	}()
	return func() {
		if k.ahead.next.CompareAndSwap(m, nil) {
			<-m.done
			_ = m.ns.Close() // nothing was written to it
		}
	}
}

// take is the namespace that was made ahead, or else a new one.
func (a *ahead) take() (netns.Unnamed, error) {
	m := a.next.Swap(nil)
	if m == nil {
		return netns.Make()
	}
	<-m.done
	return m.ns, m.err
}
