package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"isle/internal/cluster/directory"
	"isle/internal/cluster/door"
	"isle/internal/cluster/pki"
	"isle/internal/ids"
	"isle/internal/store"
	"isle/internal/store/etcd"
)

var _ door.Clerk = (*session)(nil)

var (
	errToken = fmt.Errorf("the join token is wrong or has expired (hint: isle cluster token on a host of the cluster prints a new one): %w", errdefs.ErrPermissionDenied)
	errNext  = fmt.Errorf("another host is just becoming a member (hint: isle cluster rm NAME, if it never came): %w", errdefs.ErrAborted)
)

// Admitted implements door.Clerk.
func (s *session) Admitted(host string) error { return s.refuse(host) }

// authority is the cluster's, opened with this host's key.
func (s *session) authority(ctx context.Context) (*pki.CA, error) {
	unlock, err := os.ReadFile(s.path(unlockFile))
	if err != nil {
		return nil, fmt.Errorf("the key to the authority: %w", err)
	}
	var sealed []byte
	err = s.store.View(ctx, func(tx store.Tx) error {
		b, ok := tx.Get(caKeyKey)
		if !ok {
			return fmt.Errorf("the cluster has no authority: %w", errdefs.ErrDataLoss)
		}
		sealed = slices.Clone(b)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return pki.Unseal(s.identity.CA(), sealed, unlock)
}

// Join implements door.Clerk.
func (s *session) Join(ctx context.Context, req door.JoinRequest) (ans door.JoinAnswer, err error) {
	if err := s.checkJoin(req); err != nil {
		return ans, err
	}
	s.doorMu.Lock()
	defer s.doorMu.Unlock()
	ca, err := s.authority(ctx)
	if err != nil {
		return ans, err
	}
	r := record{ID: ids.New()[:16], Name: req.Name, Addr: req.Addr, Ports: req.Ports}
	cert, err := ca.Sign(req.Request, pki.Subject{ID: r.ID, Name: r.Name, Addr: r.Addr})
	if err != nil {
		return ans, err
	}
	if err := r.keepCert(cert); err != nil {
		return ans, err
	}
	if r.Member, err = s.admit(ctx, req.Secret, r); err != nil {
		return ans, err
	}
	ans = door.JoinAnswer{Cluster: s.self.Cluster, ID: r.ID, CA: pki.EncodeCert(ca.Cert), Cert: pki.EncodeCert(cert),
		External: s.self.External, Member: r.Member, Endpoints: s.client.Endpoints()}
	if r.Member {
		err = s.invite(ctx, r, &ans)
	}
	if err != nil {
		return ans, errors.Join(err, s.withdraw(context.WithoutCancel(ctx), r.ID))
	}
	return ans, nil
}

func (s *session) checkJoin(req door.JoinRequest) error {
	switch {
	case !hostName.MatchString(req.Name) || strings.ToLower(req.Name) != req.Name:
		return fmt.Errorf("%q is not the name of a host: %w", req.Name, errdefs.ErrInvalidArgument)
	case !req.Addr.IsValid() || req.Addr.IsUnspecified() || req.Addr.IsMulticast() || req.Addr.Zone() != "":
		return fmt.Errorf("address %s is not one that hosts have: %w", req.Addr, errdefs.ErrInvalidArgument)
	case req.Addr.IsLoopback() && !s.self.Addr.IsLoopback(), req.Addr.Is6() && req.Addr.IsLinkLocalUnicast():
		return fmt.Errorf("no other host reaches this one at %s (hint: --advertise ADDR): %w", req.Addr, errdefs.ErrInvalidArgument)
	case req.Ports.Client == 0 || req.Ports.Peer == 0 || req.Ports.Door == 0:
		return fmt.Errorf("a port is missing: %w", errdefs.ErrInvalidArgument)
	case req.External != s.self.External:
		return fmt.Errorf("one of the two hosts uses an etcd of others and the other does not (hint: cluster.etcd in isled.toml): %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// admit writes a host down, if it was invited, and says whether it keeps the memory.
func (s *session) admit(ctx context.Context, secret string, r record) (isMember bool, err error) {
	token := tokenTable + pki.Key(secret)
	err = s.store.Update(ctx, func(tx store.Tx) error {
		etcd.Prefetch(tx, token, "about/"+aboutKey, hostNameKey(r.Name))
		if _, ok := tx.Get(token); !ok {
			return errToken
		}
		a, err := clusters.Get(tx, aboutKey)
		if err != nil {
			return err
		}
		if p, n, ok := directory.Within(tx, r.Addr); ok {
			return fmt.Errorf("address %s is in subnet %s of network %s of the cluster (hint: --advertise another address, or remove the network): %w", r.Addr, p, n, errdefs.ErrConflict)
		}
		r.Member = memberCount(tx) < a.Members
		isMember = r.Member
		return add(tx, r)
	})
	return isMember, err
}

func memberCount(tx store.Tx) (n int) {
	for r, err := range hosts.All(tx) {
		if err == nil && r.Member {
			n++
		}
	}
	return n
}

// invite makes a host a member that has no say until it is there.
func (s *session) invite(ctx context.Context, r record, ans *door.JoinAnswer) (err error) {
	if ans.Unlock, err = os.ReadFile(s.path(unlockFile)); err != nil || s.self.External {
		return err
	}
	added, err := s.client.MemberAddAsLearner(ctx, []string{r.peer()})
	switch {
	case errors.Is(err, rpctypes.ErrTooManyLearners), errors.Is(err, rpctypes.ErrUnhealthy):
		return fmt.Errorf("%w: %w", err, errNext)
	case errors.Is(err, rpctypes.ErrMemberNotFound): // one with this address was removed in this very second
		return fmt.Errorf("%w: %w", err, errNext)
	}
	if err != nil {
		return fmt.Errorf("add a member: %w: %w", err, errdefs.ErrUnavailable)
	}
	var peers []string
	for _, m := range added.Members {
		name := m.Name
		if m.ID == added.Member.ID {
			name = r.ID
		}
		for _, u := range m.PeerURLs {
			peers = append(peers, name+"="+u)
		}
	}
	ans.Peers = strings.Join(peers, ",")
	return nil
}

// withdraw takes back that a host was let in, as if it had never called.
func (s *session) withdraw(ctx context.Context, id string) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		r, err := hosts.Get(tx, id)
		if err != nil {
			return err
		}
		hosts.Delete(tx, id)
		tx.Delete(hostNameKey(r.Name))
		return nil
	})
}

// Renew implements door.Clerk.
func (s *session) Renew(ctx context.Context, host string, request []byte) ([]byte, error) {
	ca, err := s.authority(ctx)
	if err != nil {
		return nil, err
	}
	var out []byte
	err = s.store.Update(ctx, func(tx store.Tx) error {
		r, err := hosts.Get(tx, host)
		if errdefs.IsNotFound(err) {
			return fmt.Errorf("host %s is not in the cluster: %w", host, errdefs.ErrPermissionDenied)
		}
		if err != nil {
			return err
		}
		cert, err := ca.Sign(request, pki.Subject{ID: r.ID, Name: r.Name, Addr: r.Addr})
		if err != nil {
			return err
		}
		if err := r.keepCert(cert); err != nil {
			return err
		}
		out = pki.EncodeCert(cert)
		return hosts.Put(tx, r.ID, r)
	})
	return out, err
}
