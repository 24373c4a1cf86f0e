// Package directory is fabric.Directory in the etcd of a cluster: which hosts are alive,
// which networks there are, and which container is where.
//
//	fabric/host/<id>        fabric.Host      goes with the host's lease
//	fabric/network/<id>     fabric.Network   stays
//	fabric/endpoint/<id>    fabric.Endpoint  goes with the lease of its host
//	addr/<network>/<addr>   id of the endpoint; goes with the same lease
//	vni/<number>            id of the network
//	subnet/<network>        its subnets
//	name/network/<name>     id of the network
//
// One key for each address makes addresses unique: who writes an endpoint down compares
// that the keys of its addresses are not there. docs/design/0012-cluster.md says why there
// are no blocks of addresses.
//
// What is known is kept in memory and follows the store by a watch. While the store
// cannot be reached it stays as it was. No clock of a host is compared with another's:
// leases are counted by the store.
package directory

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"isle/internal/fabric"
	"isle/internal/store"
	"isle/internal/store/etcd"
)

// Defaults of Config.
const (
	TTL     = 10 * time.Second
	Timeout = 5 * time.Second
)

// Config is what a Directory is made of.
type Config struct {
	Store etcd.Store  // required; without a lease
	Self  fabric.Host // required: ID, Name, Addr
	TTL   time.Duration
	// Timeout is how long a call that writes may take.
	Timeout time.Duration
	// Lease is the one that this host had before isled was started; 0: none. What is
	// under it is still there when isled comes back within TTL.
	Lease int64
	// Remember writes down which lease is this host's. nil: it is not kept.
	Remember func(lease int64) error
	Log      *slog.Logger // nil: nothing is logged
}

// Directory implements fabric.Directory. Make it with New, and call Run.
type Directory struct {
	Config
	state  state
	lease  lease
	doubts doubts
	choose chooser

	describing sync.Mutex // one Describe after another
	selfMu     sync.Mutex
	self       fabric.Host // guarded by selfMu
}

var _ fabric.Directory = (*Directory)(nil)

// New returns a Directory that knows nothing yet.
func New(c Config) *Directory {
	if c.TTL == 0 {
		c.TTL = TTL
	}
	if c.Timeout == 0 {
		c.Timeout = Timeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	d := &Directory{Config: c, self: c.Self}
	d.state.init(c.Self.ID, c.Log)
	d.lease.init(c.Lease)
	return d
}

// Run keeps the host's lease and follows the store until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.keepLease(ctx) })
	g.Go(func() error { return d.follow(ctx) })
	g.Go(func() error { return d.doubts.run(ctx) })
	return g.Wait()
}

// follow keeps the state in step with the store.
func (d *Directory) follow(ctx context.Context) error {
	for pause := time.Duration(0); ; pause = min(2*pause+50*time.Millisecond, 2*time.Second) {
		err := d.Store.Watch(ctx, root, d.state.following(), func(b etcd.Batch) error {
			d.state.apply(b)
			pause = 0
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.Log.Debug("the cluster's memory is not followed", "error", err)
		if !sleep(ctx, pause/2+rand.N(pause/2+1)) { // all hosts lost it at the same time
			return ctx.Err()
		}
	}
}

// View implements fabric.Directory.
func (d *Directory) View() fabric.View { return d.state.view() }

// Watch implements fabric.Directory.
func (d *Directory) Watch(ctx context.Context, fn func(fabric.Change)) error {
	return d.state.watch(ctx, fn)
}

// Describe implements fabric.Directory. Who the host is cannot be changed.
func (d *Directory) Describe(ctx context.Context, set func(*fabric.Host)) error {
	d.describing.Lock()
	defer d.describing.Unlock()
	h := d.host()
	set(&h)
	h.ID, h.Name = d.Self.ID, d.Self.Name
	if err := checkHost(h); err != nil {
		return err
	}
	err := d.write(ctx, "describe host "+h.Name, func(ctx context.Context, id clientv3.LeaseID) error {
		return d.putHost(ctx, id, func(store.Tx) fabric.Host { return h })
	})
	if err == nil || errdefs.IsUnavailable(err) { // it may have been done: the next lease settles it
		d.selfMu.Lock()
		d.self = h
		d.selfMu.Unlock()
	}
	return err
}

func (d *Directory) host() fabric.Host {
	d.selfMu.Lock()
	defer d.selfMu.Unlock()
	return d.self
}

func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// CatchUp waits a moment for what the store has by now, so that a View tells how far
// behind it is and not how long nothing has changed.
func (d *Directory) CatchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	d.state.mu.Lock()
	news := d.state.news
	d.state.mu.Unlock()
	if err := d.Store.Progress(ctx); err != nil {
		return
	}
	select {
	case <-news:
	case <-ctx.Done():
	}
}
