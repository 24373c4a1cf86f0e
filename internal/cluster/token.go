package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/api"
	"isle/internal/cluster/pki"
)

// tokenValid is how long a token holds; the memory's members count it, not the hosts.
const tokenValid = time.Hour

// Token makes a join token. With Rotate those from before hold no more.
func (c *Cluster) Token(ctx context.Context, req api.ClusterTokenRequest) (t api.ClusterToken, err error) {
	s, err := c.current()
	if err != nil {
		return t, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if req.Rotate {
		if err := s.dropTokens(ctx); err != nil {
			return t, fmt.Errorf("end the join tokens of before: %w: %w", err, errdefs.ErrUnavailable)
		}
	}
	token := pki.NewToken(pki.Hash(s.identity.CA()))
	lease, err := s.client.Grant(ctx, int64(tokenValid/time.Second))
	if err == nil {
		_, err = s.client.Put(ctx, s.store.Prefix+tokenTable+pki.Key(token.Shown()), "", clientv3.WithLease(lease.ID))
	}
	if err != nil {
		return t, fmt.Errorf("write the join token down: %w: %w", err, errdefs.ErrUnavailable)
	}
	return api.ClusterToken{Token: token.String(), Seconds: int(tokenValid / time.Second), Hosts: s.openDoors()}, nil
}

func (s *session) dropTokens(ctx context.Context) error {
	_, err := s.client.Delete(ctx, s.store.Prefix+tokenTable, clientv3.WithPrefix())
	return err
}

// openDoors are the hosts that let others in, this one first: it knows so before it has
// read of any.
func (s *session) openDoors() (all []string) {
	if s.self.Member {
		all = append(all, record{Addr: s.self.Addr, Ports: s.self.Ports}.door())
	}
	hosts := s.known.Load().hosts
	for _, id := range slices.Sorted(maps.Keys(hosts)) {
		if r := hosts[id]; r.Member && id != s.self.ID {
			all = append(all, r.door())
		}
	}
	return all
}
