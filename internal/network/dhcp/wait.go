package dhcp

import (
	"context"
	"math/rand/v2"
	"time"
)

// waits says how long to wait for an answer to each try; false: no more tries.
type waits func() (time.Duration, bool)

// doubling waits from first to at most longest, as RFC 2131 4.1 has it, with a
// quarter more or less, but never more than a second.
func doubling(first, longest time.Duration, tries int) waits {
	next := first
	return func() (time.Duration, bool) {
		if tries == 0 {
			return 0, false
		}
		tries--
		d := next
		next = min(2*next, longest)
		spread := min(d/4, time.Second)
		return d - spread + rand.N(2*spread+1), true
	}
}

// halving waits half of what is left until end, but not less than least.
func halving(end time.Time, least time.Duration) waits {
	return func() (time.Duration, bool) {
		if end.IsZero() {
			return least, true
		}
		left := time.Until(end)
		return min(max(left/2, least), left), left > 0
	}
}

// growing waits as RFC 8415 15 has it: doubled, with a tenth more or less.
func growing(first, longest time.Duration, tries int) waits {
	var last time.Duration
	return func() (time.Duration, bool) {
		if tries == 0 {
			return 0, false
		}
		tries--
		if last == 0 {
			last = jitter(first)
			return last, true
		}
		last = last + jitter(last)
		if last > longest {
			last = jitter(longest)
		}
		return last, true
	}
}

// within ends waits at a time; zero is no end.
func (w waits) within(end time.Time) waits {
	return func() (time.Duration, bool) {
		d, ok := w()
		if end.IsZero() || !ok {
			return d, ok
		}
		left := time.Until(end)
		return min(d, left), left > 0
	}
}

func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// sleep waits, or says why not.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// at is a channel that says when a time has come: never for zero.
func at(t time.Time) (<-chan time.Time, func() bool) {
	if t.IsZero() {
		return nil, func() bool { return false }
	}
	timer := time.NewTimer(time.Until(t))
	return timer.C, timer.Stop
}
