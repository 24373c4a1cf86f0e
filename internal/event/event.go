// Package event tells whoever listens what happened, in Docker's event types.
//
// A Bus keeps the last events so that a listener can ask for those since a
// moment and then go on live, with none lost and none twice. A listener that
// does not read is cut off rather than waited for: publishing never blocks.
package event

import (
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

const (
	kept   = 1024 // events remembered
	behind = 1024 // events a listener may be behind
)

// Bus is ready to use when it is zero. All methods may be called concurrently.
type Bus struct {
	mu   sync.Mutex
	last int64
	ring []events.Message
	subs map[chan events.Message]struct{}
}

// Publish gives m to every listener. It sets m's time when it has none, and
// makes TimeNano larger than that of every event before it.
func (b *Bus) Publish(m events.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.TimeNano == 0 {
		m.TimeNano = time.Now().UnixNano()
	}
	m.TimeNano = max(m.TimeNano, b.last+1)
	b.last, m.Time = m.TimeNano, m.TimeNano/int64(time.Second)
	if m.Scope == "" {
		m.Scope = "local"
	}
	b.ring = append(b.ring, m)
	if len(b.ring) > 2*kept {
		b.ring = append([]events.Message(nil), b.ring[len(b.ring)-kept:]...)
	}
	for ch := range b.subs {
		select {
		case ch <- m:
		default:
			delete(b.subs, ch)
			close(ch)
		}
	}
}

// Subscribe returns the remembered events at or after since (none when since
// is zero), and a channel of all that follow. The channel is closed by cancel,
// or when its reader is too slow. cancel may be called more than once.
func (b *Bus) Subscribe(since time.Time) (past []events.Message, live <-chan events.Message, cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !since.IsZero() {
		for _, m := range b.ring {
			if m.TimeNano >= since.UnixNano() {
				past = append(past, m)
			}
		}
	}
	ch := make(chan events.Message, behind)
	if b.subs == nil {
		b.subs = map[chan events.Message]struct{}{}
	}
	b.subs[ch] = struct{}{}
	return past, ch, func() { b.drop(ch) }
}

func (b *Bus) drop(ch chan events.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.subs[ch]; ok {
		delete(b.subs, ch)
		close(ch)
	}
}

// Listeners is how many listen.
func (b *Bus) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}
