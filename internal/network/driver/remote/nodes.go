package remote

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"isle/internal/fabric"
)

// tellAgain is when a plugin is told again that did not take it; watchAgain when the
// cluster is followed again.
const (
	tellAgain  = 30 * time.Second
	watchAgain = time.Second
)

// nodes are the hosts of the cluster, for plugins whose networks reach other hosts.
type nodes struct {
	mu   sync.Mutex
	all  map[netip.Addr]bool // true: this one
	news chan struct{}       // holds one: all has changed
}

func newNodes() *nodes { return &nodes{news: make(chan struct{}, 1)} }

func (n *nodes) set(v fabric.View) {
	if !v.Known {
		return
	}
	all := map[netip.Addr]bool{}
	for id, h := range v.Hosts {
		all[h.Addr] = all[h.Addr] || id == v.Self
	}
	n.mu.Lock()
	n.all = all
	n.mu.Unlock()
	n.tell()
}

// tell has the plugins told.
func (n *nodes) tell() {
	select {
	case n.news <- struct{}{}:
	default:
	}
}

func (n *nodes) get() map[netip.Addr]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all
}

// Follow tells the plugins whose networks reach other hosts which hosts are in the
// cluster, until ctx ends. One that is not in use is told when it is activated, before
// anything else.
func (r *Registry) Follow(ctx context.Context, cluster fabric.Directory, log *slog.Logger) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.nodes.follow(ctx, cluster) })
	for {
		var again <-chan time.Time
		if err := r.tellNodes(ctx); err != nil && ctx.Err() == nil {
			log.Warn("tell plugins which hosts are in the cluster", "err", err, "again in", tellAgain)
			again = time.After(tellAgain)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.nodes.news:
		case <-again:
		}
	}
}

func (n *nodes) follow(ctx context.Context, cluster fabric.Directory) {
	for ctx.Err() == nil {
		if cluster.Watch(ctx, func(fabric.Change) { n.set(cluster.View()) }) == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// tellNodes tells all plugins that are activated. Their errors are each plugin's own.
func (r *Registry) tellNodes(ctx context.Context) (err error) {
	r.mu.Lock()
	all := maps.Clone(r.plugins)
	r.mu.Unlock()
	for _, p := range all {
		if l := p.now.Load(); l != nil && !l.lost.Load() {
			err = errors.Join(err, p.about(l.meet(ctx, p.cfg.Answer, r.nodes.get())))
		}
	}
	return err
}

// meet tells a plugin how the hosts differ from those that it was told of.
func (l *life) meet(ctx context.Context, answer time.Duration, all map[netip.Addr]bool) (err error) {
	if l.bad != nil || l.caps.ConnectivityScope != scopeGlobal {
		return nil
	}
	l.meeting.Lock()
	defer l.meeting.Unlock()
	for a, self := range l.met {
		if now, ok := all[a]; ok && now == self {
			continue
		}
		if terr := l.tell(ctx, answer, "DiscoverDelete", node{a.String(), self}); terr != nil {
			err = errors.Join(err, terr)
			continue
		}
		delete(l.met, a)
	}
	for a, self := range all {
		if _, ok := l.met[a]; ok {
			continue
		}
		if terr := l.tell(ctx, answer, "DiscoverNew", node{a.String(), self}); terr != nil {
			err = errors.Join(err, terr)
			continue
		}
		l.met[a] = self
	}
	return err
}

// tell makes a call. A plugin need not know it.
func (l *life) tell(ctx context.Context, answer time.Duration, method string, n node) error {
	err := l.post(ctx, answer, kindNetwork+"."+method, discovery{discoverNode, n}, &done{})
	if unknownMethod(err) {
		return nil
	}
	return err
}
