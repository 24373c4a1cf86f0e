package dhcp

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what happened to a lease.
type Kind string

// The kinds.
const (
	// Renewed: the same for longer. Only to be kept for the next start.
	Renewed Kind = "renewed"
	// Altered: addresses, routes or names are other ones now.
	Altered Kind = "altered"
	// Lost: nothing of it may be used any more. The client asks for another.
	Lost Kind = "lost"
	// Acquired: there is one again, after Lost.
	Acquired Kind = "acquired"
	// Trouble: the interface is down or gone; the lease still holds.
	Trouble Kind = "trouble"
	// Healed: the interface can be used again.
	Healed Kind = "healed"
)

// Change is something that happened to a lease.
type Change struct {
	Kind   Kind
	Lease  Lease // what holds now; with Lost, what did
	Reason string
}

// protocol is one family's way to get a lease, to hold and to return it. Its
// calls come one after another.
type protocol interface {
	// obtain asks until it has a lease or ctx ends. previous may be nil.
	obtain(ctx context.Context, previous *Lease) (Lease, error)
	// keep holds a lease until the server or the time makes another of it. An
	// error says why it is lost. ask makes it ask now.
	keep(ctx context.Context, l Lease, ask <-chan struct{}) (Lease, error)
	release(ctx context.Context, l Lease) error
	// failure is the sentence of what was tried, cause being why it ended.
	failure(cause error) error
	close()
}

// Client holds the lease of one endpoint. Its methods may be called from
// anywhere, but not from within Config.Changed.
type Client struct {
	cfg    Config
	p      protocol
	lease  atomic.Pointer[Lease]
	lost   atomic.Bool
	ask    chan struct{}
	cancel context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup
}

// Acquire gets a DHCPv4 lease and holds it until Release or Close. It waits for
// as long as cfg.Limit, and then says what was tried: errdefs.ErrUnavailable if
// nobody gave one, ErrConflict if all addresses were in use, ErrNotFound if there
// is no such interface.
func Acquire(ctx context.Context, cfg Config) (*Client, Lease, error) {
	cfg, err := cfg.checked(false)
	if err != nil {
		return nil, Lease{}, err
	}
	return start(ctx, cfg, func(r reporter) protocol { return newV4(cfg, r) })
}

func start(ctx context.Context, cfg Config, family func(reporter) protocol) (*Client, Lease, error) {
	c := &Client{cfg: cfg, ask: make(chan struct{}, 1)}
	c.p = family(reporter{c})
	limited, cancel := context.WithTimeout(ctx, cfg.Limit)
	defer cancel()
	l, err := c.p.obtain(limited, cfg.Previous)
	if err != nil {
		c.p.close()
		return nil, Lease{}, c.p.failure(err)
	}
	c.lease.Store(&l)
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.wg.Go(func() { c.run(ctx) })
	return c, l, nil
}

// run holds the lease. Without one it asks for as long as it takes.
func (c *Client) run(ctx context.Context) {
	for ctx.Err() == nil {
		old := *c.lease.Load()
		l, err := c.p.keep(ctx, old, c.ask)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			c.take(l, change(old, l), "")
		default:
			c.lost.Store(true)
			c.tell(Change{Lost, old, err.Error()})
			if l, err = c.p.obtain(ctx, &old); err == nil {
				c.take(l, Acquired, "")
			}
		}
	}
}

func change(old, l Lease) Kind {
	if l.Same(old) {
		return Renewed
	}
	return Altered
}

func (c *Client) take(l Lease, k Kind, reason string) {
	c.lease.Store(&l)
	c.lost.Store(false)
	c.tell(Change{k, l, reason})
}

func (c *Client) tell(ch Change) {
	c.cfg.Log.Debug("dhcp", "interface", c.cfg.Interface, "change", ch.Kind, "lease", ch.Lease.String(), "reason", ch.Reason)
	c.cfg.Changed(ch)
}

// reporter is how a protocol says that the interface fails.
type reporter struct{ c *Client }

// report is false while there is no lease, and nobody to be told.
func (r reporter) report(k Kind, reason string) bool {
	l := r.c.lease.Load()
	if l == nil || r.c.lost.Load() {
		return false
	}
	r.c.tell(Change{k, *l, reason})
	return true
}

// Lease is what holds now. ok is false while there is none.
func (c *Client) Lease() (l Lease, ok bool) { return *c.lease.Load(), !c.lost.Load() }

// Renew asks the LAN at once whether the lease is still good, as after the
// interface's cable was away. It does not wait for the answer.
func (c *Client) Renew() {
	select {
	case c.ask <- struct{}{}:
	default:
	}
}

// Close ends the client and leaves the lease to a later one.
func (c *Client) Close() {
	c.once.Do(func() {
		c.cancel()
		c.wg.Wait()
		c.p.close()
	})
	c.wg.Wait()
}

// releaseLimit is how long a stop may wait for a server.
const releaseLimit = 3 * time.Second

// Release ends the client and gives the lease back, if there is one. Call it
// while the interface still has its address.
func (c *Client) Release(ctx context.Context) (err error) {
	c.once.Do(func() {
		c.cancel()
		c.wg.Wait()
		if l, ok := c.Lease(); ok && l.Valid(time.Now()) {
			limited, cancel := context.WithTimeout(ctx, releaseLimit)
			defer cancel()
			err = c.p.release(limited, l)
		}
		c.p.close()
	})
	c.wg.Wait()
	return err
}

// link opens sockets for a protocol, and says once when that fails and once when
// it works again.
type link struct {
	cfg Config
	r   reporter
	t   *tally

	troubled bool // Trouble was reported, and not Healed
}

// retryOpen is how often an interface that fails is looked at.
const retryOpen = time.Second

// open waits until the interface can be used.
func (k *link) open(ctx context.Context, f filter) (socket, error) {
	for {
		s, err := k.cfg.open(f)
		if err == nil {
			return s, nil // it works once something could be sent
		}
		k.state(err)
		if err := sleep(ctx, retryOpen); err != nil {
			return nil, err
		}
	}
}

// send sends, and takes note of whether that works.
func (k *link) send(s socket, b []byte) error {
	if err := s.send(b); err != nil {
		k.state(fmt.Errorf("send on %s: %w", k.cfg.Interface, err))
		return errInterface
	}
	k.state(nil)
	return nil
}

// state takes note of whether the interface works.
func (k *link) state(err error) {
	if err != nil && k.t.link == nil {
		k.cfg.Log.Warn("dhcp: the interface fails", "interface", k.cfg.Interface, "err", err)
	}
	k.t.link = err
	if err != nil && !k.troubled {
		k.troubled = k.r.report(Trouble, err.Error())
	}
	if err == nil && k.troubled {
		k.troubled = false
		k.r.report(Healed, "")
	}
}
