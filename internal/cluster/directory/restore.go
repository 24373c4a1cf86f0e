package directory

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"isle/internal/fabric"
)

// restoring is how many endpoints are written at a time.
const restoring = 16

// Restore implements fabric.Directory. What is there already under the lease of now is
// not written again.
func (d *Directory) Restore(ctx context.Context, mine []fabric.Endpoint) (lost []fabric.Endpoint, err error) {
	if err := d.awaitKnown(ctx); err != nil {
		return nil, err
	}
	if err := d.removeOthers(ctx, mine); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(restoring)
	for _, e := range mine {
		g.Go(func() error {
			err := d.restore(ctx, e)
			if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
				mu.Lock()
				defer mu.Unlock()
				lost = append(lost, e)
				return nil
			}
			return err
		})
	}
	err = g.Wait()
	return lost, err
}

// removeOthers takes away what this host has not any more.
func (d *Directory) removeOthers(ctx context.Context, mine []fabric.Endpoint) error {
	keep := map[string]bool{}
	for _, e := range mine {
		keep[e.ID] = true
	}
	for id, e := range d.View().Endpoints {
		if e.Host != d.Self.ID || keep[id] {
			continue
		}
		if err := d.Disconnect(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) restore(ctx context.Context, e fabric.Endpoint) error {
	e.Host = d.Self.ID
	if err := checkEndpoint(e); err != nil {
		return err
	}
	d.doubts.drop(e.ID)
	return d.write(ctx, "restore endpoint "+e.ID, func(ctx context.Context, id clientv3.LeaseID) error {
		if d.state.stands(e, int64(id)) {
			return nil
		}
		_, err := d.put(ctx, id, e, e)
		return err
	})
}

// stands: e is there as it is, under the lease.
func (s *state) stands(e fabric.Endpoint, lease int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	had, ok := s.endpoints.now[e.ID]
	return ok && s.under[e.ID] == lease && had.Network == e.Network && had.Host == e.Host && had.Container == e.Container &&
		had.MAC == e.MAC && slices.Equal(had.Addrs, e.Addrs) && slices.Equal(had.Names, e.Names)
}

// awaitKnown waits until the store has been read.
func (d *Directory) awaitKnown(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	for {
		d.state.mu.Lock()
		known, news := d.state.known, d.state.news
		d.state.mu.Unlock()
		if known {
			return nil
		}
		select {
		case <-news:
		case <-timed.Done():
			return d.unavailable(ctx, "read the cluster's memory", errNeverRead)
		}
	}
}

var errNeverRead = errors.New("it was never read")
