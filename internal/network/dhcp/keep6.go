package dhcp

import (
	"context"
	"errors"
	"fmt"
	"time"

	v6 "github.com/insomniacslk/dhcp/dhcpv6"
)

// Times of RFC 8415 7.6, and of ours.
const (
	renewFirst = 10 * time.Second
	renewMost  = 600 * time.Second
	// calm is between two changes that routers make: a flood of advertisements
	// does not become one of changes.
	calm = time.Second
)

// keep holds the addresses until something is other than in l.
func (d *dhcp6) keep(ctx context.Context, l Lease, ask <-chan struct{}) (Lease, error) {
	d.last, d.told = l, time.Now()
	for {
		if err := d.wait(ctx, ask); err != nil {
			return Lease{}, err
		}
		now := time.Now()
		next := d.compose(now)
		if len(next.Addresses) == 0 {
			return Lease{}, fmt.Errorf("the addresses of %s ended: neither a router nor a DHCPv6 server prolonged them", l)
		}
		if d.worth(next, now) {
			return next, nil
		}
	}
}

// worth reports whether the caller should hear of a lease: it is another, or its
// addresses live much longer than the caller knows.
func (d *dhcp6) worth(next Lease, now time.Time) bool {
	l := d.last
	if !next.Same(l) {
		return now.Sub(d.told) >= calm
	}
	if !next.Renew.Equal(l.Renew) {
		return true
	}
	for i, a := range next.Addresses {
		known := l.Addresses[i].Valid
		if later(a.Valid, known) && (a.Valid.IsZero() || known.Sub(now) < a.Valid.Sub(now)/2) {
			return true
		}
	}
	return false
}

// wait does the next thing that is to be done.
func (d *dhcp6) wait(ctx context.Context, ask <-chan struct{}) error {
	if d.s == nil {
		return d.reopen(ctx)
	}
	due, stop := at(d.due(time.Now()))
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ask:
		return d.passed(ctx, d.verify(ctx))
	case <-due:
		return d.passed(ctx, d.work(ctx, time.Now()))
	case f, open := <-d.s.frames():
		if !open {
			_ = d.failed() // wait opens it again
			return nil
		}
		d.see(f)
		return nil
	}
}

// passed leaves only errors that end the client: what failed is tried again.
func (d *dhcp6) passed(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		d.cfg.Log.Debug("dhcp: IPv6", "interface", d.cfg.Interface, "err", err)
	}
	return ctx.Err()
}

// reopen waits for an interface that failed, for as long as the lease lasts, and
// asks whether the LAN is still the same.
func (d *dhcp6) reopen(ctx context.Context) error {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if !d.last.Expire.IsZero() {
		waiting, cancel = context.WithDeadline(ctx, d.last.Expire)
	}
	defer cancel()
	if err := d.ready(waiting); err != nil {
		return d.passed(ctx, err)
	}
	return d.passed(ctx, d.verify(ctx))
}

// due is when something is to be done; zero is never.
func (d *dhcp6) due(now time.Time) time.Time {
	due := d.routers.next(now)
	soonest := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	switch {
	case d.grant != nil:
		soonest(d.grant.t1)
		soonest(d.grant.end)
	case d.routers.managed():
		soonest(d.nextTry(now))
	case d.info != nil:
		soonest(d.info.refresh)
	case d.routers.other():
		soonest(d.nextTry(now))
	}
	if !d.compose(now).Same(d.last) {
		soonest(d.told.Add(calm))
	}
	return due
}

// nextTry is when a server that did not answer is looked for again.
func (d *dhcp6) nextTry(now time.Time) time.Time {
	if d.retry.IsZero() {
		d.tries = growing(4*firstWait, mostSolicit, -1)
		long, _ := d.tries()
		d.retry = now.Add(long)
	}
	return d.retry
}

// work does what the time has come for.
func (d *dhcp6) work(ctx context.Context, now time.Time) error {
	switch {
	case d.grant != nil:
		if over(d.grant.end, now) {
			d.grant = nil
		} else if over(d.grant.t1, now) {
			return d.prolong(ctx)
		}
	case d.routers.managed() && over(d.retry, now):
		return d.again(ctx, func() error { return d.solicit(ctx, nil, growing(firstWait, firstWait, 1)) })
	case d.info != nil && over(d.info.refresh, now), d.info == nil && d.routers.other() && over(d.retry, now):
		return d.again(ctx, func() error { return d.others(ctx) })
	}
	return nil
}

// again tries something, and plans the next time if that comes to nothing.
func (d *dhcp6) again(ctx context.Context, try func() error) error {
	err := try()
	if err == nil {
		d.retry = time.Time{}
		return nil
	}
	if d.info != nil {
		d.info.refresh = time.Now().Add(mostSolicit)
	}
	if d.tries == nil {
		d.tries = growing(4*firstWait, mostSolicit, -1)
	}
	long, _ := d.tries()
	d.retry = time.Now().Add(long)
	return errors.Join(err, ctx.Err())
}

// prolong asks the server from T1 on, and every server from T2 on. When routers
// say something, they are heard first.
func (d *dhcp6) prolong(ctx context.Context) error {
	g := d.grant
	news := func() bool { return d.worth(d.compose(time.Now()), time.Now()) }
	m := newMessage6(v6.MessageTypeRenew)
	m.server, m.ia, m.addrs = g.server, true, g.hosts()
	err := d.replied(ctx, m, growing(renewFirst, renewMost, -1).within(g.t2), news)
	if errors.Is(err, errNoAnswer) {
		m = newMessage6(v6.MessageTypeRebind)
		m.ia, m.addrs = true, g.hosts()
		err = d.replied(ctx, m, growing(renewFirst, renewMost, -1).within(g.end), news)
	}
	switch {
	case errors.Is(err, errRefused):
		d.grant = nil
		if d.request(ctx, g) != nil { // it may only have forgotten (RFC 8415 18.2.10.1)
			d.grant = nil
		}
	case errors.Is(err, errNoAnswer):
		d.grant = nil
	}
	return err
}

// verify asks routers to speak, and whether DHCPv6's addresses are of this link.
func (d *dhcp6) verify(ctx context.Context) error {
	if err := d.sendRS(); err != nil {
		return err
	}
	g := d.grant
	if g == nil {
		return nil
	}
	err := d.confirm(ctx, g)
	if errors.Is(err, errRefused) {
		d.grant = nil
	}
	return err
}

// release tells the DHCPv6 server, and waits a little for its word.
func (d *dhcp6) release(ctx context.Context, l Lease) error {
	g := grantOf(l, time.Now())
	if g == nil {
		return nil
	}
	err := d.ready(ctx)
	if err == nil {
		m := newMessage6(v6.MessageTypeRelease)
		m.server, m.ia, m.addrs = g.server, true, g.hosts()
		err = d.ask(ctx, m, growing(firstWait, firstWait, 3), isReply, never)
	}
	if err != nil {
		return fmt.Errorf("dhcp: give back %s: %w", l, err)
	}
	return nil
}
