package remote

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
)

// plugin is one by its name, whatever becomes of the program behind it.
type plugin struct {
	name  string
	cfg   Config
	hosts *nodes
	turn  chan struct{} // held while it is activated
	now   atomic.Pointer[life]
}

// life is a plugin from one start of it to the next.
type life struct {
	where
	*client
	kinds   []string
	caps    capabilities
	bad     error // why it is no driver of networks although it says so
	needs   ipamNeeds
	meeting sync.Mutex
	met     map[netip.Addr]bool // hosts that it was told of, under meeting
	lost    atomic.Bool         // it could not be reached: it may have been restarted
}

// alive finds the plugin and activates it, unless it is the one that was activated.
func (p *plugin) alive(ctx context.Context) (*life, error) {
	at, err := p.cfg.find(p.name)
	if err != nil {
		return nil, err
	}
	if l := p.now.Load(); l != nil && l.where == at && !l.lost.Load() {
		return l, nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if l := p.now.Load(); l != nil && l.where == at && !l.lost.Load() { // somebody else was first
		return l, nil
	}
	l, err := p.activate(ctx, at)
	if err == nil {
		if l.meet(ctx, p.cfg.Answer, p.hosts.get()) != nil { // no reason not to use it: Follow tells it again
			p.hosts.tell()
		}
		p.now.Store(l)
	}
	return l, err
}

func (p *plugin) activate(ctx context.Context, at where) (*life, error) {
	c, err := newClient(at, p.cfg.Size)
	if err != nil {
		return nil, err
	}
	var m manifest
	if err := c.post(ctx, p.cfg.Answer, "Plugin.Activate", nil, &m); err != nil {
		return nil, err
	}
	l := &life{where: at, client: c, kinds: m.Implements, met: map[netip.Addr]bool{}}
	if slices.Contains(l.kinds, kindNetwork) {
		if err := c.post(ctx, p.cfg.Answer, kindNetwork+".GetCapabilities", nil, &l.caps); err != nil {
			return nil, err
		}
		l.bad = l.caps.check()
	}
	if slices.Contains(l.kinds, kindIPAM) {
		err := c.post(ctx, p.cfg.Answer, kindIPAM+".GetCapabilities", nil, &l.needs)
		if err != nil && !refused(err) { // it need not have the call
			return nil, err
		}
	}
	return l, nil
}

func (c *capabilities) check() error {
	if c.ConnectivityScope == "" {
		c.ConnectivityScope = c.Scope
	}
	for _, s := range []string{c.Scope, c.ConnectivityScope} {
		if s != scopeLocal && s != scopeGlobal {
			return fmt.Errorf("invalid capability: expecting 'local' or 'global', got %s", plain(s))
		}
	}
	return nil
}

func (l *life) is(kind string) error {
	if !slices.Contains(l.kinds, kind) {
		return fmt.Errorf("plugin does not implement the requested driver (%s): %w", kind, errdefs.ErrNotFound)
	}
	if kind == kindNetwork {
		return l.bad
	}
	return nil
}

// patience is how long one operation waits for a plugin that is not there, over all
// its calls, and how long for an answer. After a call without an answer the next,
// which mostly take back what was done, get less. It is for one goroutine.
type patience struct {
	known  bool // the plugin was there once: no file of it means that it restarts
	until  time.Time
	pause  time.Duration
	answer time.Duration
}

// begin is the patience for an operation. Docker's waits 1, 2, 4 and 8 seconds.
func (p *plugin) begin(known bool) *patience {
	return &patience{known: known, until: time.Now().Add(p.cfg.Wait), pause: p.cfg.Pause, answer: p.cfg.Answer}
}

// again waits before the next try, and says whether there is one.
func (w *patience) again(ctx context.Context, err error) bool {
	if !errors.As(err, new(*unreachableError)) && !(w.known && missing(err)) {
		return false
	}
	pause := w.pause
	w.pause *= 2
	if time.Now().Add(pause).After(w.until) {
		return false
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hurry makes the calls short that follow one without an answer.
func (w *patience) hurry() { w.answer = min(w.answer, max(w.answer/10, time.Second)) }

// reach waits until the plugin is there and is of a kind.
func (p *plugin) reach(ctx context.Context, w *patience, kind string) (*life, error) {
	for {
		l, err := p.alive(ctx)
		if err == nil {
			return l, p.about(l.is(kind))
		}
		if !w.again(ctx, err) {
			return nil, p.about(err)
		}
	}
}

// ask makes a call. It is made again only as long as nothing was sent: a plugin that
// dies in the middle may have done what it was asked for. The life is the one that was
// asked.
func (p *plugin) ask(ctx context.Context, w *patience, kind, method string, arg any, ret answer) (*life, error) {
	for {
		l, err := p.try(ctx, w, kind, method, arg, ret)
		if err == nil || !w.again(ctx, err) {
			return l, p.about(err)
		}
	}
}

func (p *plugin) try(ctx context.Context, w *patience, kind, method string, arg any, ret answer) (*life, error) {
	l, err := p.alive(ctx)
	if err == nil {
		err = l.is(kind)
	}
	if err != nil {
		return l, &unsentError{err}
	}
	start := time.Now()
	err = l.post(ctx, w.answer, kind+"."+method, arg, ret)
	if errors.As(err, new(*unreachableError)) {
		l.lost.Store(true)
	}
	if err != nil && time.Since(start) >= w.answer {
		w.hurry()
	}
	return l, err
}

// about names the plugin in an error, unless it is named there.
func (p *plugin) about(err error) error {
	if err == nil || missing(err) {
		return err
	}
	return fmt.Errorf("plugin %s: %w", p.name, err)
}
