// Package etcdtest starts an etcd inside of a test.
package etcdtest

import (
	"net"
	"net/url"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"isle/internal/store/etcd"
)

// Server is an etcd of one member on loopback, without TLS.
type Server struct {
	*embed.Etcd
	URL string
	cfg *embed.Config
}

// Start starts one that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	client, peer := loopback(t), loopback(t)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.GRPCKeepAliveMinTime = 0
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 20, 200
	cfg.UnsafeNoFsync = true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	s := &Server{URL: client.String(), cfg: cfg}
	s.Resume(t)
	t.Cleanup(func() { s.Etcd.Close() })
	return s
}

// Resume starts it again after a Close, with all that it had.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	e, err := embed.StartEtcd(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Etcd = e
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		t.Fatal("the etcd of the test does not get ready")
	}
}

// Crash ends it at once, as far as its clients see.
func (s *Server) Crash() {
	s.Server.HardStop()
	s.Etcd.Close()
}

// Client is a client of it that ends with the test.
func (s *Server) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := etcd.Dial{Endpoints: []string{s.URL}}.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func loopback(t testing.TB) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}
