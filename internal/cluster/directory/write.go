package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/store/etcd"
)

// write runs a change under this host's lease, again while the store cannot be reached,
// for as long as Timeout says. The change takes that an earlier try of it was done.
func (d *Directory) write(ctx context.Context, what string, change func(context.Context, clientv3.LeaseID) error) error {
	timed, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		id, err := d.lease.await(timed)
		if err == nil {
			err = change(timed, id)
		}
		if errors.Is(err, etcd.ErrLeaseGone) {
			d.lease.lost(id)
		} else if !errdefs.IsUnavailable(err) {
			return wrap(what, err)
		}
		if !sleep(timed, pause) {
			return d.unavailable(ctx, what, err)
		}
	}
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// unavailable says why nothing was changed. What the caller's ctx ended is theirs.
func (d *Directory) unavailable(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return wrap(what, ctx.Err())
	}
	return fmt.Errorf("%s: the cluster cannot be changed now: its memory is not reached or has no quorum: %w: %w (hint: what runs goes on; isle cluster status shows who is missing)",
		what, err, errdefs.ErrUnavailable)
}

// doubts are changes of which it is open whether they were done. They are taken back,
// for a while again and again: what was on its way may still come.
type doubts struct {
	mu   sync.Mutex
	open map[string]*doubt
}

type doubt struct {
	undo  func(context.Context) error
	until time.Time // zero: it was not taken back yet
}

// doubtFor is longer than any request is on its way.
const doubtFor = 30 * time.Second

func (d *doubts) add(key string, undo func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[string]*doubt{}
	}
	d.open[key] = &doubt{undo: undo}
}

// undoWithin is how long taking back may take.
const undoWithin = 4 * time.Second

// drop is called when the same is wanted again.
func (d *doubts) drop(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, key)
}

func (d *doubts) run(ctx context.Context) error {
	for sleep(ctx, time.Second) {
		d.mu.Lock()
		var keys []string
		for k := range d.open {
			keys = append(keys, k)
		}
		d.mu.Unlock()
		for _, k := range keys {
			d.settle(ctx, k)
		}
	}
	return ctx.Err()
}

// settle holds the lock while it takes back, so that who wants the same again comes after.
func (d *doubts) settle(ctx context.Context, key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.open[key]
	if x == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, undoWithin)
	defer cancel()
	switch err := x.undo(ctx); {
	case err != nil:
	case x.until.IsZero():
		x.until = time.Now().Add(doubtFor)
	case time.Now().After(x.until):
		delete(d.open, key)
	}
}
