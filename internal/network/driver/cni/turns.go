package cni

import (
	"sync"

	"github.com/containernetworking/cni/pkg/types"
)

// turns lets one verb after the other run on a container, as the specification asks.
type turns struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	sync.Mutex
	waiting int
}

// take waits for the container's turn; done ends it.
func (t *turns) take(container string) (done func()) {
	t.mu.Lock()
	one := t.held[container]
	if one == nil {
		if t.held == nil {
			t.held = map[string]*turn{}
		}
		one = &turn{}
		t.held[container] = one
	}
	one.waiting++
	t.mu.Unlock()
	one.Lock()
	return func() { t.give(container, one) }
}

func (t *turns) give(container string, one *turn) {
	one.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.waiting--; one.waiting == 0 {
		delete(t.held, container)
	}
}

// alive are the attachments that this process has made, by network. Whoever says what
// is to be kept may have looked before they were there.
type alive struct {
	mu  sync.Mutex
	all map[string]map[types.GCAttachment]bool
}

func (l *alive) add(network string, a types.GCAttachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string]map[types.GCAttachment]bool{}
	}
	if l.all[network] == nil {
		l.all[network] = map[types.GCAttachment]bool{}
	}
	l.all[network][a] = true
}

func (l *alive) remove(network string, a types.GCAttachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if delete(l.all[network], a); len(l.all[network]) == 0 {
		delete(l.all, network)
	}
}

func (l *alive) of(network string) map[types.GCAttachment]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[types.GCAttachment]bool{}
	for a := range l.all[network] {
		out[a] = true
	}
	return out
}
