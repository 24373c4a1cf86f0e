package image

import (
	"context"
	"sync"
)

// keyedLock is one lock for each key. The zero value is ready.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// Lock waits until nobody holds key, or ctx is done.
func (l *keyedLock) Lock(ctx context.Context, key string) error {
	for {
		l.mu.Lock()
		wait, taken := l.held[key]
		if !taken {
			if l.held == nil {
				l.held = map[string]chan struct{}{}
			}
			l.held[key] = make(chan struct{})
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unlock lets the next one have key.
func (l *keyedLock) Unlock(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[key])
	delete(l.held, key)
}
