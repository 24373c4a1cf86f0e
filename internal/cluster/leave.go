package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/api"
	"isle/internal/store"
)

// farewell is how long telling the others may take; shortly is enough for who goes
// whatever they say.
const (
	farewell = 20 * time.Second
	shortly  = 5 * time.Second
)

// Leave takes this host out of its cluster. With force it goes also when nobody can be
// told, and whatever is still on the cluster's networks.
func (c *Cluster) Leave(ctx context.Context, req api.ClusterLeaveRequest) error {
	c.verb.Lock()
	defer c.verb.Unlock()
	if c.broken.Load() != nil && req.Force {
		return c.forget(ctx)
	}
	s, err := c.current()
	if err != nil {
		return err
	}
	if err := s.sayGoodbye(ctx, req.Force); err != nil && !req.Force {
		return fmt.Errorf("leave the cluster: %w (hint: --force leaves all the same; isle cluster rm on another host then tells the others)", err)
	} else if err != nil {
		s.log.Warn("the other hosts do not know that this one has left", "error", err)
	}
	c.move(nil)
	s.close()
	return c.forget(ctx)
}

// forget drops all that this host has of its cluster.
func (c *Cluster) forget(ctx context.Context) error {
	if err := c.dropSelf(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if c.broken.Swap(nil) != nil {
		c.move(nil)
	}
	return os.RemoveAll(c.Dir)
}

func (s *session) sayGoodbye(ctx context.Context, force bool) error {
	if err := s.awaitLeave(ctx); err != nil && !force {
		return err
	}
	last := len(s.known.Load().hosts) == 1
	if last && !s.self.External {
		return nil // with the last host all of it ends
	}
	limit := farewell
	if force {
		limit = shortly
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := s.directory.Leave(ctx)
	if err == nil {
		err = s.retire(ctx, s.self.ID)
	}
	if err == nil && last {
		err = s.dissolve(ctx)
	}
	if err != nil {
		s.directory.Stay()
	}
	return err
}

// dissolve takes all that is of the cluster out of an etcd that others run.
func (s *session) dissolve(ctx context.Context) error {
	if _, err := s.client.Delete(ctx, s.store.Prefix, clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("take the cluster out of the etcd: %w: %w", err, errdefs.ErrUnavailable)
	}
	return nil
}

// awaitLeave is mayLeave, which may know only in a moment of a container that has gone.
func (s *session) awaitLeave(ctx context.Context) error {
	err := s.mayLeave()
	for try := 0; errdefs.IsConflict(err) && try < 3; try++ {
		s.directory.CatchUp(ctx)
		err = s.mayLeave()
	}
	return err
}

// mayLeave is of class Conflict while others need this host, or containers on it the
// cluster.
func (s *session) mayLeave() error {
	v := s.directory.View()
	for _, e := range v.Endpoints {
		if e.Host == s.self.ID {
			return fmt.Errorf("container %s is on network %s of the cluster: %w", e.Container, cmp.Or(v.Networks[e.Network].Name, e.Network), errdefs.ErrConflict)
		}
	}
	all := s.known.Load().hosts
	members := 0
	for _, r := range all {
		if r.Member {
			members++
		}
	}
	if s.self.Member && members == 1 && len(all) > 1 && !s.self.External {
		return fmt.Errorf("this host alone keeps the memory of a cluster of %d hosts: %w", len(all), errdefs.ErrConflict)
	}
	return nil
}

// Remove takes another host out, by its name or id. It is not let in any more.
func (c *Cluster) Remove(ctx context.Context, ref string) error {
	s, err := c.current()
	if err != nil {
		return err
	}
	r, err := s.find(ref)
	if err != nil {
		return err
	}
	if r.ID == s.self.ID {
		return fmt.Errorf("%s is this host (hint: isle cluster leave): %w", r.Name, errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if err := s.endLease(ctx, r.ID); err != nil {
		return err
	}
	if err := s.retire(ctx, r.ID); err != nil {
		return fmt.Errorf("remove host %s: %w", r.Name, err)
	}
	return s.endLease(ctx, r.ID) // it may have come back before it was refused
}

// find is a host by name or by the beginning of its id.
func (s *session) find(ref string) (record, error) {
	all := s.known.Load().hosts
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if r := all[id]; ref != "" && (r.Name == strings.ToLower(ref) || strings.HasPrefix(id, ref) && len(ref) >= 4) {
			return r, nil
		}
	}
	return record{}, fmt.Errorf("there is no host %q in the cluster (hint: isle cluster ls): %w", ref, errdefs.ErrNotFound)
}

// endLease ends what a host has in the directory.
func (s *session) endLease(ctx context.Context, host string) error {
	resp, err := s.client.Get(ctx, s.store.Prefix+"fabric/host/"+host)
	if err != nil {
		return fmt.Errorf("end the lease of host %s: %w: %w", host, err, errdefs.ErrUnavailable)
	}
	for _, kv := range resp.Kvs {
		if _, err := s.client.Revoke(ctx, clientv3.LeaseID(kv.Lease)); err != nil {
			return fmt.Errorf("end the lease of host %s: %w: %w", host, err, errdefs.ErrUnavailable)
		}
	}
	return nil
}

// retire takes a host out of the members, and then out of the cluster.
func (s *session) retire(ctx context.Context, host string) error {
	if !s.self.External {
		if err := s.removeMember(ctx, host); err != nil {
			return err
		}
	}
	return s.patient(ctx, func() error {
		return s.store.Update(ctx, func(tx store.Tx) error { return retire(tx, host) })
	})
}

// removeMember tries until the members are content: for some seconds after one of them
// has started they take no other change.
func (s *session) removeMember(ctx context.Context, host string) error {
	peer := s.peerOf(host)
	return s.patient(ctx, func() error {
		list, err := s.client.MemberList(ctx)
		if err != nil {
			return fmt.Errorf("ask for the members: %w: %w", err, errdefs.ErrUnavailable)
		}
		for _, m := range list.Members {
			if m.Name != host && (m.Name != "" || !slices.Contains(m.PeerURLs, peer)) {
				continue
			}
			s.giveAway(ctx, m.ID, list.Members)
			if _, err := s.client.MemberRemove(ctx, m.ID); err != nil {
				return fmt.Errorf("remove a member: %w: %w", err, errdefs.ErrUnavailable)
			}
		}
		return nil
	})
}

// peerOf is where the members find a host; "": it is not known.
func (s *session) peerOf(host string) string {
	if host == s.self.ID {
		return record{Addr: s.self.Addr, Ports: s.self.Ports}.peer()
	}
	if r, ok := s.known.Load().hosts[host]; ok {
		return r.peer()
	}
	return ""
}

// giveAway has another member lead than one that goes: its end would be missed. Whether
// it works out is seen by what follows.
func (s *session) giveAway(ctx context.Context, leaving uint64, all []*etcdserverpb.Member) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for _, m := range all {
		if m.ID != leaving || len(m.ClientURLs) == 0 {
			continue
		}
		st, err := s.client.Status(ctx, m.ClientURLs[0])
		if err != nil || st.Leader != leaving {
			return
		}
		s.moveLeader(ctx, m.ClientURLs[0], leaving, all)
	}
}

func (s *session) moveLeader(ctx context.Context, leader string, leaving uint64, all []*etcdserverpb.Member) {
	v := s.self
	v.Endpoints = []string{leader}
	c, err := s.c.dial(v, s.identity) // only the leader takes this
	if err != nil {
		return
	}
	defer c.Close()
	for _, m := range all {
		if m.ID == leaving || m.IsLearner {
			continue
		}
		if _, err := c.MoveLeader(ctx, m.ID); err == nil {
			return
		}
	}
}

// patient tries again while the members are busy with themselves.
func (s *session) patient(ctx context.Context, try func() error) error {
	for {
		err := try()
		if !errdefs.IsUnavailable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(300 * time.Millisecond):
		}
	}
}
