package cluster

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"isle/api"
	"isle/internal/cluster/door"
	"isle/internal/cluster/pki"
	"isle/internal/undo"
)

// patience is how long a host waits for others that join at the same time, and then for
// having caught up with the members.
const patience = time.Minute

// Join brings this host into the cluster of a token, and tries the ways to the others.
func (c *Cluster) Join(ctx context.Context, req api.ClusterJoinRequest) (host api.ClusterHost, err error) {
	if host, err = c.join(ctx, req); err == nil {
		host.Warnings = c.tried(ctx)
	}
	return host, err
}

func (c *Cluster) join(ctx context.Context, req api.ClusterJoinRequest) (host api.ClusterHost, err error) {
	c.verb.Lock()
	defer c.verb.Unlock()
	token, err := pki.ParseToken(req.Token)
	if err != nil {
		return host, err
	}
	doors, err := c.doors(req.Hosts)
	if err != nil {
		return host, err
	}
	v, err := c.candidate(req.Name, req.Advertise, doors[0])
	if err != nil {
		return host, err
	}
	key, request, err := pki.NewKey()
	if err != nil {
		return host, err
	}
	ans, err := knock(ctx, doors, token, door.JoinRequest{Name: v.Name, Addr: v.Addr, Request: request, Ports: v.Ports, External: v.External})
	if err != nil {
		return host, fmt.Errorf("join the cluster: %w", err)
	}
	v.ID, v.Cluster, v.Member, v.Peers, v.Endpoints = ans.ID, ans.Cluster, ans.Member, ans.Peers, ans.Endpoints
	return c.moveIn(ctx, v, ans, key)
}

// doors are the hosts as "address:port".
func (c *Cluster) doors(hosts []string) (all []string, err error) {
	for _, h := range hosts {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), strconv.Itoa(int(c.Ports.Door)))
		}
		all = append(all, h)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no host is named that lets this one in: %w", errdefs.ErrInvalidArgument)
	}
	return all, nil
}

// knock asks one door after another.
func knock(ctx context.Context, doors []string, t pki.Token, r door.JoinRequest) (door.JoinAnswer, error) {
	for end := time.Now().Add(patience); ; {
		ans, err := knockOnce(ctx, doors, t, r)
		if err == nil || !errdefs.IsAborted(err) && !errdefs.IsResourceExhausted(err) || time.Now().After(end) {
			return ans, err
		}
		select {
		case <-ctx.Done():
			return ans, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func knockOnce(ctx context.Context, doors []string, t pki.Token, r door.JoinRequest) (ans door.JoinAnswer, err error) {
	var failed []error
	for _, d := range doors {
		if ans, err = door.Join(ctx, d, t, r); err == nil {
			return ans, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", d, err))
		if !errdefs.IsUnavailable(err) {
			break // the others would say the same
		}
	}
	return ans, errors.Join(failed...)
}

// moveIn makes what a host of the cluster has. When it fails the others forget this host.
func (c *Cluster) moveIn(ctx context.Context, v self, ans door.JoinAnswer, key *ecdsa.PrivateKey) (host api.ClusterHost, err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)
	ca, err := pki.DecodeCert(ans.CA)
	if err != nil {
		return host, err
	}
	cert, err := pki.DecodeCert(ans.Cert)
	if err != nil {
		return host, err
	}
	if err := c.furnish(ca, cert, key, ans.Unlock, &u); err != nil {
		return host, err
	}
	u.Push("take this host out of the cluster again", func(ctx context.Context) error { return c.moveOut(ctx, v) })
	s, err := c.begin(ctx, v, &u)
	if err != nil {
		return host, err
	}
	if err := s.promote(ctx); err != nil {
		return host, err
	}
	return s.settle(ctx)
}

// promote waits until the etcd of this host has caught up, and gives it its say.
func (s *session) promote(ctx context.Context) error {
	if s.member == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := s.client.MemberPromote(ctx, s.member.ID())
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the etcd of this host does not catch up with the others: %w: %w", err, errdefs.ErrUnavailable)
		case <-time.After(100 * time.Millisecond):
		}
	}
	s.self.Endpoints = append(slices.Clone(s.self.Endpoints), s.self.own())
	return nil
}

// moveOut is called when this host could not move in.
func (c *Cluster) moveOut(ctx context.Context, v self) error {
	s, err := c.open(v)
	if err != nil {
		return err
	}
	defer s.close()
	return s.retire(ctx, v.ID)
}
