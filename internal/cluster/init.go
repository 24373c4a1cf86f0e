package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"isle/api"
	"isle/internal/cluster/member"
	"isle/internal/cluster/pki"
	"isle/internal/ids"
	"isle/internal/store"
	"isle/internal/undo"
)

// testNet is where the default route leads (RFC 5737); nothing is sent there.
const testNet = "192.0.2.1:9"

var errNoExternal = fmt.Errorf("no etcd is named (hint: cluster.etcd in isled.toml): %w", errdefs.ErrFailedPrecondition)

// Init makes a cluster of this host alone.
func (c *Cluster) Init(ctx context.Context, req api.ClusterInitRequest) (host api.ClusterHost, err error) {
	c.verb.Lock()
	defer c.verb.Unlock()
	v, err := c.candidate(req.Name, req.Advertise, testNet)
	if err != nil {
		return host, err
	}
	want, err := membersOf(req.Members)
	if err != nil {
		return host, err
	}
	var u undo.Stack
	defer u.Unwind(ctx, &err)
	v.ID, v.Cluster, v.Member, v.Endpoints = ids.New()[:16], ids.New()[:32], true, []string{v.own()}
	ca, cert, err := c.found(v, &u)
	if err != nil {
		return host, err
	}
	s, err := c.begin(ctx, v, &u)
	if err != nil {
		return host, err
	}
	if err := s.foundation(ctx, ca, cert, want); err != nil {
		return host, err
	}
	return s.settle(ctx)
}

// candidate is this host as it could be in a cluster.
func (c *Cluster) candidate(name, advertise, towards string) (v self, err error) {
	if err := c.outside(); err != nil {
		return v, err
	}
	v = self{Ports: c.Ports, External: c.External != nil}
	if v.Name, err = nameOf(name); err != nil {
		return v, err
	}
	v.Addr, err = c.address(advertise, towards)
	return v, err
}

func membersOf(asked int) (int, error) {
	if asked == 0 {
		return 3, nil
	}
	if !slices.Contains([]int{1, 3, 5}, asked) {
		return 0, fmt.Errorf("%d hosts cannot keep the cluster's memory: 1, 3 or 5 can: %w", asked, errdefs.ErrInvalidArgument)
	}
	return asked, nil
}

// found makes the authority and this host's identity.
func (c *Cluster) found(v self, u *undo.Stack) (*pki.CA, *x509.Certificate, error) {
	ca, err := pki.NewCA(v.Cluster)
	if err != nil {
		return nil, nil, err
	}
	key, request, err := pki.NewKey()
	if err != nil {
		return nil, nil, err
	}
	cert, err := ca.Sign(request, pki.Subject{ID: v.ID, Name: v.Name, Addr: v.Addr})
	if err != nil {
		return nil, nil, err
	}
	return ca, cert, c.furnish(ca.Cert, cert, key, pki.NewUnlock(), u)
}

// furnish writes the files of a host that is in a cluster; unlock is for those that have
// a door.
func (c *Cluster) furnish(ca, cert *x509.Certificate, key *ecdsa.PrivateKey, unlock []byte, u *undo.Stack) error {
	if err := c.fresh(); err != nil {
		return err
	}
	u.Push("remove "+c.Dir, func(context.Context) error { return os.RemoveAll(c.Dir) })
	if _, err := pki.Write(c.Dir, ca, cert, key); err != nil {
		return err
	}
	if unlock == nil {
		return nil
	}
	return pki.WriteFile(filepath.Join(c.Dir, unlockFile), unlock)
}

// begin opens a session and has its etcd start.
func (c *Cluster) begin(ctx context.Context, v self, u *undo.Stack) (*session, error) {
	s, err := c.open(v)
	if err != nil {
		return nil, err
	}
	u.Push("end what was started", func(context.Context) error { s.close(); return nil })
	if !v.Member || v.External {
		return s, nil
	}
	m, err := s.startMember()
	if err != nil {
		return nil, err
	}
	timed, cancel := context.WithTimeout(ctx, member.Ready)
	defer cancel()
	return s, m.Await(timed)
}

// foundation writes down what a cluster begins with.
func (s *session) foundation(ctx context.Context, ca *pki.CA, cert *x509.Certificate, want int) error {
	unlock, err := os.ReadFile(s.path(unlockFile))
	if err != nil {
		return err
	}
	sealed, err := ca.Seal(unlock)
	if err != nil {
		return err
	}
	r := record{ID: s.self.ID, Name: s.self.Name, Addr: s.self.Addr, Ports: s.self.Ports, Member: true}
	if err := r.keepCert(cert); err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		if had, err := clusters.Get(tx, aboutKey); err == nil {
			return fmt.Errorf("the etcd has a cluster already: %s (hint: join it, or another cluster.etcd-prefix): %w", had.ID, errdefs.ErrAlreadyExists)
		}
		tx.Put(caCertKey, pki.EncodeCert(ca.Cert))
		tx.Put(caKeyKey, sealed)
		if err := clusters.Put(tx, aboutKey, about{s.self.Cluster, want}); err != nil {
			return err
		}
		return add(tx, r)
	})
}

// settle makes s this host's session, now and after a restart.
func (s *session) settle(ctx context.Context) (api.ClusterHost, error) {
	if err := s.c.setSelf(ctx, s.self); err != nil {
		return api.ClusterHost{}, err
	}
	s.c.enter(s)
	s.awaitDoor(ctx)
	s.awaitNetworks(ctx)
	return s.self.host(), nil
}

// awaitDoor: whoever is told that this host is in may send others here.
func (s *session) awaitDoor(ctx context.Context) {
	if !s.self.Member {
		return
	}
	select {
	case <-s.opened:
	case <-ctx.Done():
	case <-time.After(shortly):
	}
}

func (s *session) awaitNetworks(ctx context.Context) {
	if s.c.Met == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, shortly)
	defer cancel()
	s.c.Met(ctx, s.self.ID)
}

func (v self) host() api.ClusterHost {
	return api.ClusterHost{ID: v.ID, Name: v.Name, Addr: v.Addr.String(), Member: v.Member, Alive: true, Self: true}
}
