package directory

import (
	"context"
	"maps"

	"isle/internal/fabric"
)

// reader is a call of Watch. What it has not read yet is guarded by the state's lock, and
// is one change, however slow the reader is: what it would have had to do twice it does once.
type reader struct {
	pending *fabric.Change
	more    chan struct{} // holds one
}

// add notes what is new.
func (r *reader) add(c fabric.Change) {
	switch {
	case c.Reset || r.pending != nil && r.pending.Reset: // what came since is in the View that it will read
		r.pending = &fabric.Change{Reset: true, Revision: c.Revision}
		return
	case r.pending == nil:
		r.pending = newChange(c.Revision)
	}
	r.pending.Revision = c.Revision
	maps.Copy(r.pending.Hosts, c.Hosts)
	maps.Copy(r.pending.Networks, c.Networks)
	maps.Copy(r.pending.Endpoints, c.Endpoints)
}

func newChange(revision int64) *fabric.Change {
	return &fabric.Change{Revision: revision, Hosts: map[string]*fabric.Host{}, Networks: map[string]*fabric.Network{}, Endpoints: map[string]*fabric.Endpoint{}}
}

func (s *state) watch(ctx context.Context, fn func(fabric.Change)) error {
	r := s.join()
	defer s.leave(r)
	for {
		if c := s.read(r); c != nil && ctx.Err() == nil {
			fn(*c)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.more:
		}
	}
}

func (s *state) join() *reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &reader{more: make(chan struct{}, 1), pending: &fabric.Change{Reset: true, Revision: s.revision}}
	s.readers[r] = struct{}{}
	return r
}

func (s *state) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, r)
}

func (s *state) read(r *reader) *fabric.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.pending
	r.pending = nil
	return c
}

func (s *state) tellLocked(c fabric.Change) {
	for r := range s.readers {
		r.add(c)
		select {
		case r.more <- struct{}{}:
		default:
		}
	}
}

// reset tells all readers that anything may have changed.
func (s *state) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked(fabric.Change{Reset: true, Revision: s.revision})
}
