package directory

import (
	"context"

	"isle/internal/fabric"
)

// maxPending is how many changes are kept for a reader that is slow; after that it is
// told to read everything.
const maxPending = 4096

// reader is a call of Watch. What it has not read yet is guarded by the state's lock.
type reader struct {
	pending []fabric.Change
	more    chan struct{} // holds one
}

func (s *state) watch(ctx context.Context, fn func(fabric.Change)) error {
	r := s.join()
	defer s.leave(r)
	for {
		for _, c := range s.read(r) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			fn(c)
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
	r := &reader{more: make(chan struct{}, 1), pending: []fabric.Change{{Reset: true, Revision: s.revision}}}
	s.readers[r] = struct{}{}
	return r
}

func (s *state) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, r)
}

func (s *state) read(r *reader) []fabric.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := r.pending
	r.pending = nil
	return all
}

func (s *state) tellLocked(c fabric.Change) {
	for r := range s.readers {
		if len(r.pending) >= maxPending || c.Reset {
			r.pending = []fabric.Change{{Reset: true, Revision: c.Revision}}
		} else {
			r.pending = append(r.pending, c)
		}
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
