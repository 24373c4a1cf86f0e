// Package member is a member of a cluster's memory: an etcd inside of isled.
//
// It talks TLS only, to hosts of the cluster only, and asks at every call whether the
// caller has been removed: a connection that a host had before it was removed is of no
// use to it. Hosts that are not in a cluster never start one.
package member

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"isle/internal/cluster/pki"
)

// Config is what a Member is made of.
type Config struct {
	Dir        string        // of the etcd's data
	Name       string        // required: the host's id
	Identity   *pki.Identity // required
	Revoked    string        // file with the certificates that hold no more
	Addr       netip.Addr    // required: where it listens, and is found
	ClientPort uint16
	PeerPort   uint16
	// Peers are the members that it joins, itself among them, as etcd's initial-cluster;
	// empty for the first one. It counts at the first start only.
	Peers string
	// Refuse is of class PermissionDenied for hosts that were removed. nil: there are none.
	Refuse func(host string) error
	Log    *slog.Logger
	// Fast has it notice in tenths of the time that another one is gone; for tests.
	Fast bool
	// Quota is how large the file may become; for tests. 0: as etcd takes it, 2 GiB.
	Quota int64
}

// Member is a running etcd.
type Member struct {
	etcd  *embed.Etcd
	calls *calls
	quota int64
}

// Ready is how long an etcd may take to start that needs nobody else.
const Ready = 30 * time.Second

// Start starts it, and does not wait for the others: Ready is closed when there is a
// quorum.
func Start(c Config) (*Member, error) {
	calls := newCalls(c.Refuse)
	e, err := start(c.settings(calls))
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w: %w", c.Dir, err, errdefs.ErrUnavailable)
	}
	return &Member{e, calls, cmp.Or(c.Quota, quota)}, nil
}

// start takes that etcd panics when its files are damaged.
func start(s *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its data is damaged: %v: %w", r, errdefs.ErrDataLoss)
		}
	}()
	return embed.StartEtcd(s)
}

// settings are etcd's.
func (c Config) settings(calls *calls) *embed.Config {
	s := embed.NewConfig()
	s.Name, s.Dir = c.Name, c.Dir
	client, peer := []url.URL{URL(c.Addr, c.ClientPort)}, []url.URL{URL(c.Addr, c.PeerPort)}
	s.ListenClientUrls, s.AdvertiseClientUrls = client, client
	s.ListenPeerUrls, s.AdvertisePeerUrls = peer, peer
	s.ClientTLSInfo, s.PeerTLSInfo = c.tls(), c.tls()
	s.InitialCluster, s.ClusterState = c.Peers, embed.ClusterStateFlagExisting
	if c.Peers == "" {
		s.InitialCluster, s.ClusterState = s.InitialClusterFromName(c.Name), embed.ClusterStateFlagNew
	}
	s.EnableGRPCGateway = false
	s.AutoCompactionMode, s.AutoCompactionRetention = "periodic", "10m"
	s.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainUnaryInterceptor(calls.unary), grpc.ChainStreamInterceptor(calls.stream)}
	s.GRPCKeepAliveMinTime = time.Second
	s.QuotaBackendBytes = c.Quota
	s.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger(c.Log))
	if c.Fast {
		s.TickMs, s.ElectionMs, s.UnsafeNoFsync = 20, 200, true
	}
	return s
}

func (c Config) tls() transport.TLSInfo {
	host := c.Identity.Path(pki.HostFile)
	return transport.TLSInfo{
		CertFile: host, KeyFile: host, TrustedCAFile: c.Identity.Path(pki.CAFile), CRLFile: c.Revoked,
		ClientCertAuth: true, SkipClientSANVerify: true,
	}
}

// URL is where a member is found.
func URL(a netip.Addr, port uint16) url.URL {
	return url.URL{Scheme: "https", Host: net.JoinHostPort(a.String(), strconv.Itoa(int(port)))}
}

// Ready is closed when the member can serve.
func (m *Member) Ready() <-chan struct{} { return m.etcd.Server.ReadyNotify() }

// Done is closed when the member has ended, also by itself: after it was removed.
func (m *Member) Done() <-chan struct{} { return m.etcd.Server.StopNotify() }

// ID is the member's number among the etcds.
func (m *Member) ID() uint64 { return uint64(m.etcd.Server.MemberID()) }

// Await waits until the member can serve.
func (m *Member) Await(ctx context.Context) error {
	select {
	case <-m.Ready():
		return nil
	case <-m.Done():
		return fmt.Errorf("etcd has ended while it started: %w", errdefs.ErrUnavailable)
	case <-ctx.Done():
		return fmt.Errorf("etcd does not get ready: %w: %w", context.Cause(ctx), errdefs.ErrUnavailable)
	}
}

// Close ends it. Its callers are cut off: they go on with another member.
func (m *Member) Close() {
	m.calls.end()
	m.etcd.Close()
}

// DataDir is where a member's etcd keeps what it has, below the cluster's directory.
func DataDir(cluster string) string { return filepath.Join(cluster, "etcd") }
