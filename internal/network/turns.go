package network

import "sync"

// turns lets one at a time do something about a thing that has an id.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

type turn struct {
	sync.Mutex
	users int
}

// take waits until nobody else has the turn; done gives it back.
func (t *turns) take(id string) (done func()) {
	t.mu.Lock()
	if t.of == nil {
		t.of = map[string]*turn{}
	}
	one := t.of[id]
	if one == nil {
		one = &turn{}
		t.of[id] = one
	}
	one.users++
	t.mu.Unlock()
	one.Lock()
	return func() { t.give(id, one) }
}

func (t *turns) give(id string, one *turn) {
	one.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(t.of, id)
	}
}
