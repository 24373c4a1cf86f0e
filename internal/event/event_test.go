package event_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"isle/internal/event"
)

// TestNothingLostNothingTwice: what was before and what comes live join without
// a gap, however many publish meanwhile.
func TestNothingLostNothingTwice(t *testing.T) {
	var b event.Bus
	begin := time.Now().Add(-time.Second)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 100 {
				b.Publish(events.Message{Action: events.Action(fmt.Sprint(i, " ", n))})
			}
		})
	}
	past, live, cancel := b.Subscribe(begin)
	wg.Wait()
	cancel()
	cancel()
	seen := map[events.Action]int{}
	last := int64(0)
	check := func(m events.Message) {
		seen[m.Action]++
		if m.TimeNano <= last || m.Time != m.TimeNano/1e9 || m.Scope != "local" {
			t.Errorf("%+v after %d", m, last)
		}
		last = m.TimeNano
	}
	for _, m := range past {
		check(m)
	}
	for m := range live {
		check(m)
	}
	if len(seen) != 400 {
		t.Errorf("%d of 400 events", len(seen))
	}
	for a, n := range seen {
		if n != 1 {
			t.Errorf("%q came %d times", a, n)
		}
	}
}

func TestSince(t *testing.T) {
	var b event.Bus
	at := time.Unix(1000, 0)
	for i := range 3 {
		b.Publish(events.Message{Action: events.Action(fmt.Sprint(i)), TimeNano: at.Add(time.Duration(i) * time.Second).UnixNano()})
	}
	past, _, cancel := b.Subscribe(at.Add(time.Second))
	defer cancel()
	if len(past) != 2 || past[0].Action != "1" {
		t.Errorf("since: %+v", past)
	}
	if past, _, cancel := b.Subscribe(time.Time{}); len(past) != 0 {
		t.Errorf("none were asked for: %+v", past)
	} else {
		cancel()
	}
	if n := b.Listeners(); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

// TestSlowListener: publishing never waits; who does not read is cut off.
func TestSlowListener(t *testing.T) {
	var b event.Bus
	_, live, _ := b.Subscribe(time.Time{})
	for range 5000 {
		b.Publish(events.Message{Action: "x"})
	}
	n := 0
	for range live {
		n++
	}
	if n == 0 || n >= 5000 || b.Listeners() != 0 {
		t.Errorf("%d events, %d listeners", n, b.Listeners())
	}
	past, _, cancel := b.Subscribe(time.Unix(1, 0))
	defer cancel()
	if len(past) < 1024 || len(past) > 2048 {
		t.Errorf("%d events remembered", len(past))
	}
}
