// Package etcd is the Store of a cluster: keys of an etcd, below a prefix.
//
// An Update reads at one revision and writes in one etcd transaction, which compares
// what was read with what is there then; when somebody was faster, fn is run again.
// Watch tells what others have written.
//
//	<prefix><key>         a record
//	<root>!/<first part>  written with each Delete, so that who has scanned notices that
//	                      something is gone. Outside of the prefix: no Scan finds it
//
// Keys that go with a lease leave no such trace, whether they are deleted or the lease
// ends: a transaction that has scanned one may commit after it went, as if it had run before.
package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/store"
)

const (
	// Timeout is how long an Update or View may take when Store does not say.
	Timeout = 10 * time.Second
	// perRequest is how long one member may take for one of its requests: members that are
	// far from each other and from here need more than a second, one that says nothing is
	// not waited for.
	perRequest = 2 * time.Second
)

// errConflict: what was read is no longer so. errCompacted: the revision that is being
// read is gone, or has not come to the member that was asked. Both end in another try.
var (
	errConflict  = errors.New("somebody else was faster")
	errCompacted = errors.New("the revision is gone")
)

// Store is a store.Store in an etcd. Safe for concurrent use.
type Store struct {
	Client  *clientv3.Client // required
	Prefix  string           // of every key; ends in "/"
	Lease   clientv3.LeaseID // what is put goes with it, and Delete is for such keys; 0: it stays
	Timeout time.Duration    // 0: Timeout
}

var _ store.Store = Store{}

// View implements store.Store. The error is of class Unavailable when the etcd cannot be
// reached or has no quorum.
func (s Store) View(ctx context.Context, fn func(store.Tx) error) error {
	return s.repeat(ctx, func(t *tx) error { return t.call(fn) })
}

// Update implements store.Store. After an error of class Unavailable it is open whether
// it was done: who tries again must take that it was.
func (s Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	_, err := s.Commit(ctx, fn)
	return err
}

// Commit is Update, and says at which revision it was written.
func (s Store) Commit(ctx context.Context, fn func(store.Tx) error) (rev int64, err error) {
	err = s.repeat(ctx, func(t *tx) (err error) {
		if err = t.call(fn); err == nil {
			rev, err = t.commit()
		}
		return err
	})
	return rev, err
}

// repeat tries until there is no conflict.
func (s Store) repeat(ctx context.Context, try func(*tx) error) error {
	limit := s.Timeout
	if limit == 0 {
		limit = Timeout
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := try(&tx{ctx: timed, s: s, read: map[string]int64{}, values: map[string][]byte{}, writes: map[string][]byte{}})
		if !errors.Is(err, errConflict) && !errors.Is(err, errCompacted) {
			return err
		}
		select {
		case <-timed.Done():
			return classify(ctx, timed.Err())
		case <-time.After(rand.N(pause)):
		}
	}
}

// gone is the key that a Delete of key leaves its trace in.
func (s Store) gone(key string) string {
	first, _, _ := strings.Cut(key, "/")
	return strings.TrimSuffix(s.Prefix, "/") + "!/" + first
}
