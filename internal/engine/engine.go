package engine

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/config"
	"isle/internal/container"
	"isle/internal/event"
	"isle/internal/ids"
	"isle/internal/runtime/spec"
	"isle/internal/store"
)

// Engine is the product without HTTP. Make it with its fields set, call
// Restore once, then Run.
type Engine struct {
	Config   config.Config
	Store    store.Store  // required
	Images   Images       // required
	Runtime  Runtime      // required
	Networks Networks     // required
	Volumes  Volumes      // required
	Guests   Guests       // nil: no other runtime is served
	Bus      *event.Bus   // required; Events is the method of the API
	Log      *slog.Logger // required
	Host     spec.Host    // required: what spec.DetectHost found
	Init     string       // program for --init, on the host; "": there is none
	Reports  Reports
	// Probes are what was found out about this kernel, by name, for people.
	Probes map[string]string

	mu     sync.RWMutex      // guards the two indexes, never held while waiting
	byID   map[string]*entry // every container
	byName map[string]string // name → id; reserved before the record is committed

	sessions sessions // exec sessions by id
	guests   guestbook
	versions runtimeVersions

	life context.Context // of background work
	end  context.CancelFunc
	work sync.WaitGroup
}

// entry is one container: its record and who waits for it.
type entry struct {
	op sync.Mutex // held during a verb: one at a time for each container

	mu  sync.Mutex // guards all below, held briefly
	rec container.Record

	waiters []*waiter
	gone    bool          // removed
	gate    chan struct{} // closed when the start in flight has been recorded or has failed; nil: none in flight
	torn    chan struct{} // closed when what the last run left has been taken down; nil: nothing to wait for
	ended   chan struct{} // closed when the exit of this run has been recorded
	manual  bool          // a person ended this run: no restart policy
	held    bool          // "restart" is at work: neither restart policy nor automatic removal
	retry   *retry        // a restart that the policy has planned
	backoff time.Duration // before the last of them

	net   sync.Mutex          // guards users, held while it is decided whether the namespace lives
	users map[string]struct{} // the containers that are in this one's namespace, itself among them

	dirty bool          // the teardown left something
	freed chan struct{} // closed when the runtime has forgotten the last run; nil: nothing to wait for
	stuck bool          // it has not forgotten it

	removing atomic.Bool        // a removal is in progress
	up       bool               // the runtime has a process: clients can be joined to it
	pending  []*joiner          // clients that attached before the start
	watch    context.CancelFunc // ends the health check
	watching chan struct{}      // closed when it has ended
}

// snapshot is a copy of the record; what its pointers lead to is never changed
// in place (see update).
func (c *entry) snapshot() container.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

var containers = store.NewTable[container.Record]("container")

// update changes a record on disk and then in memory. fn gets a copy and
// replaces, rather than changes, what pointers and maps lead to.
func (e *Engine) update(ctx context.Context, c *entry, fn func(*container.Record) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	rec := c.rec
	if err := fn(&rec); err != nil {
		return err
	}
	if err := e.write(ctx, rec); err != nil {
		return err
	}
	c.rec = rec
	return nil
}

// write commits a record, whatever becomes of the client.
func (e *Engine) write(ctx context.Context, rec container.Record) error {
	err := e.Store.Update(context.WithoutCancel(ctx), func(tx store.Tx) error { return containers.Put(tx, rec.ID, rec) })
	if err != nil {
		return fmt.Errorf("container %s: %w", ids.Short(rec.ID), err)
	}
	return nil
}

// find returns the container that ref means: a name, an id, or a prefix of
// exactly one id.
func (e *Engine) find(ref string) (*entry, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if c, ok := e.byID[ref]; ok {
		return c, nil
	}
	if c, ok := e.byID[e.byName[strings.TrimPrefix(ref, "/")]]; ok {
		return c, nil
	}
	var found *entry
	for id, c := range e.byID {
		if ref == "" || !strings.HasPrefix(id, ref) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("multiple IDs found with provided prefix: %s: %w", ref, errdefs.ErrInvalidArgument)
		}
		found = c
	}
	if found == nil {
		return nil, fmt.Errorf("No such container: %s: %w", ref, errdefs.ErrNotFound)
	}
	return found, nil
}

// all are the containers, in no order.
func (e *Engine) all() []*entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Collect(maps.Values(e.byID))
}
