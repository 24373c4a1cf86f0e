package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"isle/api"
	"isle/internal/cluster"
	"isle/internal/cluster/door"
	"isle/internal/config"
	"isle/internal/kernel"
	"isle/internal/network"
	"isle/internal/network/pulse"
	"isle/internal/store"
	"isle/internal/store/etcd"
)

// newCluster is this host's part in a cluster, which is nothing until it is in one.
func newCluster(c config.Config, records store.Store, log *slog.Logger) (*cluster.Cluster, error) {
	conf := cluster.Config{
		Dir: filepath.Join(c.DataDir, "cluster"), Records: records, Lease: time.Duration(c.Cluster.LeaseSeconds) * time.Second, Log: log,
		Ports: door.Ports{Door: c.Cluster.Port, Client: c.Cluster.ClientPort, Peer: c.Cluster.PeerPort},
	}
	var err error
	if c.Cluster.Advertise != "" {
		if conf.Advertise, err = netip.ParseAddr(c.Cluster.Advertise); err != nil {
			return nil, fmt.Errorf("configuration: cluster.advertise: %w", err)
		}
	}
	if len(c.Cluster.Etcd) > 0 {
		if conf.External, err = external(c.Cluster); err != nil {
			return nil, err
		}
	}
	return cluster.New(conf), nil
}

// newProber tries the ways to the other hosts.
func newProber(k *kernel.Kernel, log *slog.Logger) *pulse.Prober {
	return &pulse.Prober{Log: log, Open: func(link string) (pulse.Wire, error) {
		w, err := k.Wire(link)
		if err != nil {
			return nil, err
		}
		return w, nil
	}}
}

// tunnels are the ways as the cluster wants to see them.
func tunnels(p *pulse.Prober) func() map[string]cluster.Tunnel {
	return func() map[string]cluster.Tunnel {
		out := map[string]cluster.Tunnel{}
		for id, r := range p.Reports() {
			out[id] = cluster.Tunnel{State: string(r.State), Last: r.Last, Problem: r.Problem(), Tried: r.Tried}
		}
		return out
	}
}

// external is an etcd that others run.
func external(c config.Cluster) (*cluster.External, error) {
	e := &cluster.External{Dial: etcd.Dial{Endpoints: c.Etcd, User: c.EtcdUser}, Prefix: c.EtcdPrefix}
	if c.EtcdPassword != "" {
		b, err := os.ReadFile(c.EtcdPassword)
		if err != nil {
			return nil, fmt.Errorf("configuration: cluster.etcd-password-file: %w", err)
		}
		e.Password = strings.TrimSpace(string(b))
	}
	e.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.EtcdCA != "" {
		b, err := os.ReadFile(c.EtcdCA)
		if err != nil {
			return nil, fmt.Errorf("configuration: cluster.etcd-ca: %w", err)
		}
		if e.TLS.RootCAs = x509.NewCertPool(); !e.TLS.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("configuration: cluster.etcd-ca: %s has no certificate", c.EtcdCA)
		}
	}
	if c.EtcdCert != "" {
		pair, err := tls.LoadX509KeyPair(c.EtcdCert, c.EtcdKey)
		if err != nil {
			return nil, fmt.Errorf("configuration: cluster.etcd-cert: %w", err)
		}
		e.TLS.Certificates = []tls.Certificate{pair}
	}
	return e, nil
}

// keys are this host's for encrypted networks.
type keys struct{ *network.Manager }

// ClusterKey implements server.Keys.
func (k keys) ClusterKey(ctx context.Context, req api.ClusterKeyRequest) (api.ClusterKey, error) {
	if req.Rotate {
		if err := k.RotateKey(ctx); err != nil {
			return api.ClusterKey{}, err
		}
	}
	s, err := k.KeyState()
	return api.ClusterKey{Public: s.Public, Made: s.Made, Port: int(s.Port), Old: s.Old, Coming: s.Coming}, err
}
