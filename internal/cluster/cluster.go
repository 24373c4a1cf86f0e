// Package cluster makes this host one of several: it brings hosts together, keeps what
// they have in common, and takes them apart again.
//
//	Init, Join ──► session ──► member     an etcd inside of isled, on the first hosts
//	               │           door       lets others in, on the same hosts
//	               │           directory  fabric.Directory: what the networks use
//	               └─────────  pki        who is who
//
// A host that is in no cluster has none of these: its only cost is one look into its
// records at the start. Nothing here waits for the other hosts at a start: what they say
// comes when they are there.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/cluster/door"
	"isle/internal/fabric"
	"isle/internal/store"
	"isle/internal/store/etcd"
)

// Config is what a Cluster is made of.
type Config struct {
	Dir       string      // required: for certificates and the memory
	Records   store.Store // required: of this host
	Advertise netip.Addr  // invalid: found out
	Ports     door.Ports  // required
	Lease     time.Duration
	External  *External    // an etcd that others run; nil: it is inside of isled
	Log       *slog.Logger // required
	Fast      bool         // for tests: the memory does not wait for the disk
	// Tunnels are how those to other hosts are, by the ids of these. nil: nobody knows.
	Tunnels func() map[string]Tunnel
	// Met waits until the networks know that this host is id, or ctx ends: who has just
	// joined makes one at once. nil: there are none.
	Met func(ctx context.Context, id string)
}

// External is an etcd that others run.
type External struct {
	etcd.Dial
	Prefix string // of all keys
}

// Cluster is this host's part in a cluster. Safe for concurrent use.
type Cluster struct {
	Config
	life    context.Context // of the sessions; set by Start
	verb    sync.Mutex      // Init, Join and Leave: one at a time
	session atomic.Pointer[session]
	broken  atomic.Pointer[error] // why the session of the record cannot be; nil: it can
	growing sync.WaitGroup
	movedMu sync.Mutex
	moved   chan struct{} // see moves
}

// New returns one that has not started.
func New(c Config) *Cluster { return &Cluster{Config: c} }

var errNone = fmt.Errorf("this host is in no cluster (hint: isle cluster init, or isle cluster join TOKEN HOST): %w", errdefs.ErrFailedPrecondition)

// Start goes on where this host was when isled ended, until ctx ends. It does not wait
// for other hosts. That its files are damaged does not keep isled from starting: every
// use of the cluster says so then.
func (c *Cluster) Start(ctx context.Context) error {
	c.verb.Lock()
	defer c.verb.Unlock()
	c.life = ctx
	self, err := c.self(ctx)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := c.open(self)
	if err != nil {
		err = fmt.Errorf("this host is in a cluster, as %s, and cannot take part: %w (hint: isle cluster leave --force, then join again)", self.Name, err)
		c.Log.Error("the cluster is not started", "error", err)
		c.broken.Store(&err)
		return nil
	}
	s.settled = true
	c.enter(s)
	return nil
}

// Close ends what Start, Init and Join have begun, and waits for it.
func (c *Cluster) Close() error {
	for s := c.session.Load(); s != nil; {
		s.close()
		c.growing.Wait()
		now := c.session.Load()
		if now == s {
			break
		}
		s = now // it became a member in this very moment
	}
	return nil
}

// Directory is that of the cluster that this host is in now; nil: this host is in no cluster.
func (c *Cluster) Directory() fabric.Directory {
	if s := c.session.Load(); s != nil {
		return s.directory
	}
	return nil
}

// enter makes s the session.
func (c *Cluster) enter(s *session) {
	ctx := s.start(c.life)
	c.move(s)
	c.growing.Go(func() { c.grow(ctx, s) })
}

// current is the session; the error is of class FailedPrecondition when there is none.
func (c *Cluster) current() (*session, error) {
	if s := c.session.Load(); s != nil {
		return s, nil
	}
	if b := c.broken.Load(); b != nil {
		return nil, *b
	}
	return nil, errNone
}

// outside is of class FailedPrecondition when this host is in a cluster.
func (c *Cluster) outside() error {
	if s := c.session.Load(); s != nil {
		return fmt.Errorf("this host is already in a cluster, as %s (hint: isle cluster leave): %w", s.self.Name, errdefs.ErrFailedPrecondition)
	}
	if b := c.broken.Load(); b != nil {
		return *b
	}
	return nil
}

// fresh makes an empty directory: what is in there is of an attempt that failed.
func (c *Cluster) fresh() error {
	return errors.Join(os.RemoveAll(c.Dir), os.MkdirAll(c.Dir, 0o700))
}
