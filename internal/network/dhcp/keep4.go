package dhcp

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// leastWait is between two tries to prolong a lease (RFC 2131 4.4.5).
const leastWait = time.Minute

// keep is BOUND, RENEWING and REBINDING.
func (d *dhcp4) keep(ctx context.Context, l Lease, ask <-chan struct{}) (Lease, error) {
	due, stop := at(l.Renew)
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return Lease{}, ctx.Err()
		case <-due:
			return d.prolong(ctx, l)
		case <-ask:
			if next, err := d.verify(ctx, l); err == nil || errors.Is(err, errRefused) || errors.Is(err, errInUse) {
				return next, err
			}
		}
	}
}

// verify asks everybody at once. No answer changes nothing.
func (d *dhcp4) verify(ctx context.Context, l Lease) (Lease, error) {
	asking, cancel := context.WithTimeout(ctx, 7*time.Second)
	defer cancel()
	return d.more(asking, l, doubling(firstWait, lastWait, reboots), true)
}

// prolong asks the lease's server from T1 on, and every server from T2 on.
func (d *dhcp4) prolong(ctx context.Context, l Lease) (Lease, error) {
	next, err := d.until(ctx, l, l.Rebind, false)
	if errors.Is(err, errNoAnswer) {
		next, err = d.until(ctx, l, l.Expire, true)
	}
	if errors.Is(err, errNoAnswer) {
		err = fmt.Errorf("the lease of %s ended: no server answered since %s", l.Address().Addr(), l.Renew.Format(time.TimeOnly))
	}
	return next, err
}

// until asks up to a time, whatever the interface does.
func (d *dhcp4) until(ctx context.Context, l Lease, end time.Time, everyone bool) (Lease, error) {
	asking, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	for {
		next, err := d.more(asking, l, halving(end, leastWait), everyone)
		switch {
		case ctx.Err() != nil:
			return Lease{}, ctx.Err()
		case asking.Err() != nil && err != nil:
			return Lease{}, errNoAnswer
		case !errors.Is(err, errInterface):
			return next, err
		}
		if sleep(asking, retryOpen) != nil {
			return Lease{}, errNoAnswer
		}
	}
}

// more asks for more time. A server that gives another address is believed, once
// that is known not to be in use.
func (d *dhcp4) more(ctx context.Context, l Lease, w waits, everyone bool) (Lease, error) {
	s, err := d.open(ctx, answers4(d.cfg.MAC))
	if err != nil {
		return Lease{}, err
	}
	defer s.close()
	g := newDialogue()
	q := question{m: d.cfg.requestMore(g, l.Address().Addr()), dialogue: g, to: all, waits: w}
	if !everyone {
		q.to, q.only = d.server(ctx, l), l.Server
	}
	next, err := d.confirm(ctx, s, q)
	if err != nil || next.Address().Addr() == l.Address().Addr() {
		return next, err
	}
	return next, d.probe(ctx, s, next)
}

// server is the way to the lease's server: on the link, or by the router.
func (d *dhcp4) server(ctx context.Context, l Lease) target {
	own, hop := l.Address(), l.Server
	if !own.Contains(hop) && len(l.Routers) > 0 {
		hop = l.Routers[0]
	}
	return target{d.cfg.find(ctx, own.Addr(), hop), l.Server}
}

// release tells the server. There is no answer to it.
func (d *dhcp4) release(ctx context.Context, l Lease) error {
	s, err := d.cfg.open(answers4(d.cfg.MAC))
	if err != nil {
		return fmt.Errorf("dhcp: give back %s: %w", l, err)
	}
	defer s.close()
	m := d.cfg.giveBack(newDialogue(), l.Address().Addr(), l.Server)
	if err := s.send(d.frame(m, d.server(ctx, l))); err != nil {
		return fmt.Errorf("dhcp: give back %s: %w", l, err)
	}
	return nil
}
