package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"isle/internal/cluster"
	"isle/internal/config"
	"isle/internal/engine"
	"isle/internal/event"
	"isle/internal/firewalld"
	"isle/internal/image"
	"isle/internal/kernel"
	"isle/internal/kernel/probe"
	"isle/internal/kernel/sockdiag"
	"isle/internal/kernel/sysctl"
	"isle/internal/network"
	"isle/internal/network/dns"
	"isle/internal/network/driver/builtin"
	"isle/internal/network/ipam"
	"isle/internal/network/machine"
	"isle/internal/network/publish"
	"isle/internal/network/pulse"
	"isle/internal/network/scout"
	"isle/internal/network/seal"
	"isle/internal/runtime"
	"isle/internal/runtime/cgroup"
	"isle/internal/runtime/spec"
	"isle/internal/server"
	"isle/internal/store/bolt"
	"isle/internal/version"
	"isle/internal/volume"
)

// house is everything that isled consists of.
type house struct {
	config   config.Config
	log      *slog.Logger
	kernel   *kernel.Kernel
	networks *network.Manager
	prober   *pulse.Prober
	zones    *firewalld.Zones
	engine   *engine.Engine
	cluster  *cluster.Cluster
	follow   func(context.Context) error // has plugins told of the cluster's hosts
	closers  []func() error              // in the order in which they were opened
}

// build makes the parts and joins them. It changes nothing on the machine yet.
func build(c config.Config, log *slog.Logger) (*house, error) {
	h := &house{config: c, log: log}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *house) open() error {
	c, log := h.config, h.log
	records, err := bolt.Open(filepath.Join(c.DataDir, "isle.db"))
	if err != nil {
		return err
	}
	h.closers = append(h.closers, records.Close)
	images, err := image.Open(image.Config{
		Dir: c.DataDir, RunDir: c.RunDir, StorageDriver: c.StorageDriver, Registries: c.Registries,
		Toolbox: beside("isle-toolbox"), Log: log.With("part", "image"),
	})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, images.Close)
	volumes, err := volume.Open(volume.Config{Dir: c.DataDir, Store: records, Log: log.With("part", "volume")})
	if err != nil {
		return err
	}
	host, err := detect()
	if err != nil {
		return err
	}
	runtimes, err := newRuntime(c, host, log)
	if err != nil {
		return err
	}
	initPath, err := runtimes.InitPath()
	if err != nil {
		return err
	}
	bus := &event.Bus{}
	if err := h.buildNetworks(records, bus); err != nil {
		return err
	}
	h.engine = &engine.Engine{
		Config: c, Store: records, Images: images, Runtime: runtimes, Networks: h.networks, Volumes: volumes, Guests: h.networks,
		Bus: bus, Log: log.With("part", "engine"), Host: host, Init: cmp.Or(c.Init, initPath),
		Reports: reports(h.networks), Probes: probes(h.kernel.Features(), host),
	}
	h.networks.Moved = h.engine.Moved
	if h.cluster, err = newCluster(c, records, log.With("part", "cluster")); err != nil {
		return err
	}
	h.networks.Fabric, h.cluster.Tunnels, h.cluster.Met = h.cluster.Fabric(), tunnels(h.prober), h.networks.Met
	return nil
}

func (h *house) buildNetworks(records *bolt.Store, bus *event.Bus) error {
	n := h.config.Network
	keys := &seal.Keys{Path: filepath.Join(h.config.DataDir, "wireguard.key")}
	k, err := kernel.New(kernel.Config{
		Table: n.Table, LinkGroup: n.LinkGroup, LinkPrefix: n.LinkPrefix,
		NSDir:     filepath.Join(h.config.RunDir, "netns"),
		GuardMark: n.GuardMark, NoGuard: n.GuardMark == 0,
		BPFDir: "/sys/fs/bpf/" + n.Table,
		Secret: keys.Private,
		Log:    h.log.With("part", "kernel"),
	})
	if err != nil {
		return err
	}
	h.kernel = k
	h.closers = append(h.closers, k.Close)
	c := h.config.Cluster
	conf := network.Config{
		LinkPrefix: n.LinkPrefix, Bridge: n.Bridge, IPv6: n.IPv6, Resync: time.Duration(n.ResyncSeconds) * time.Second,
		SealPort: c.SealPort, KeyLife: time.Duration(c.KeyDays) * 24 * time.Hour, HostLease: time.Duration(c.LeaseSeconds) * time.Second,
	}
	if conf.Subnet, err = prefix(n.Subnet); err != nil {
		return fmt.Errorf("configuration: network.subnet: %w", err)
	}
	if n.HostBinding != "" {
		if conf.HostBinding, err = netip.ParseAddr(n.HostBinding); err != nil {
			return fmt.Errorf("configuration: network.host-binding: %w", err)
		}
	}
	sources, err := poolSources(n)
	if err != nil {
		return err
	}
	seats, err := k.Seats()
	if err != nil {
		return err
	}
	h.closers = append(h.closers, seats.Close)
	plugins := builtin.Plugins(seats)
	h.follow = func(ctx context.Context) error {
		return plugins.Follow(ctx, h.cluster.Fabric(), h.log.With("part", "plugins"))
	}
	log, resolver := h.log.With("part", "network"), &dns.HostConfig{}
	h.zones = firewalld.New(h.log.With("part", "firewalld"))
	host := machine.Machine{Kernel: k, Servers: resolver.Servers}
	h.prober = newProber(k, log)
	h.networks = &network.Manager{
		Store: records, Kernel: k, Drivers: h.drivers(), Outside: plugins.Outside, OutsideIPAM: plugins.OutsideIPAM, IPAM: &ipam.Allocator{Sources: sources},
		Machine: host, Lender: host, Ports: &publish.Table{Holder: &publish.Sockets{Log: log, InUse: sockdiag.InUse}, Sysctl: sysctl.Read},
		DNS: &dns.Server{Log: log, Host: resolver}, Events: bus, Log: log, Config: conf,
		Bridges: h.zones, Surroundings: host.Surroundings, Lease: network.AskLAN, Seal: keys, Pulse: h.prober,
		Scout: &scout.Scout{Open: frames(k), Path: filepath.Join(h.config.RunDir, "direct"), Log: log},
	}
	h.prober.Tell = h.networks.TellWay
	return nil
}

// frames opens sockets past the routes of the host.
func frames(k *kernel.Kernel) func(string, bool, uint16) (scout.Wire, error) {
	return func(link string, v6 bool, port uint16) (scout.Wire, error) {
		f, err := k.Frames(link, v6, port)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}

// drivers are those of networks.
func (h *house) drivers() map[string]network.Driver {
	all := builtin.Drivers()
	all[network.DriverCNI] = builtin.CNI(h.config.Network, filepath.Join(h.config.DataDir, "cni"), kernel.Visitor{})
	return all
}

func prefix(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	return netip.ParsePrefix(s)
}

// poolSources are the configured pools, and a ULA of this machine's own.
func poolSources(n config.Network) ([]ipam.Source, error) {
	var list []ipam.Source
	for _, p := range n.Pools {
		list = append(list, ipam.Source{Base: p.Base, Size: p.Size})
	}
	v6, err := prefix(n.PoolV6)
	if err != nil {
		return nil, fmt.Errorf("configuration: network.pool-v6: %w", err)
	}
	if v6.IsValid() && (!v6.Addr().Is6() || v6.Bits() > 64) {
		return nil, fmt.Errorf("configuration: network.pool-v6 is %s, and must be an IPv6 prefix of at most 64 bits, such as fd00:5::/48", v6)
	}
	if !v6.IsValid() {
		v6 = ipam.ULA(machineID())
	}
	return append(list, ipam.Source{Base: v6, Size: 64}), nil
}

// machineID is the same after every boot of this machine, as far as it can be.
func machineID() string {
	for _, f := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 {
			return strings.TrimSpace(string(b))
		}
	}
	name, _ := os.Hostname()
	return name
}

// beside is the path of a program that was installed with this one.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// probes puts what was found out into words for "isle info".
func probes(f probe.Features, host spec.Host) map[string]string {
	found := map[string]string{"cgroup": host.Cgroup.Mode.String(), "ipv6": yesNo(f.IPv6), "socket-redirect-ebpf": yesNo(f.SockAddr),
		"bridge-guard-ebpf": yesNo(f.Guard), "source-guard": yesNo(f.Sources)}
	if f.SockAddrError != "" {
		found["socket-redirect-ebpf"] = "no: " + f.SockAddrError
	}
	return found
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// detect asks the machine what containers can be given.
func detect() (spec.Host, error) {
	groups, err := cgroup.Detect()
	if err != nil {
		return spec.Host{}, err
	}
	return spec.DetectHost(groups)
}

func newRuntime(c config.Config, host spec.Host, log *slog.Logger) (*runtime.Client, error) {
	more := map[string]runtime.Runtime{}
	for name, r := range c.Runtimes {
		more[name] = runtime.Runtime{Name: name, Path: r.Path, Args: r.Args}
	}
	return runtime.New(runtime.Config{
		RunDir: c.RunDir, ShimPath: beside("isle-shim"), Runtimes: more, Default: c.Runtime,
		SystemdCgroup: cmp.Or(c.CgroupDriver, host.Cgroup.DefaultDriver()) == cgroup.Systemd, Log: log.With("part", "runtime"),
	})
}

// run brings the machine in step with the records and serves until ctx is done.
func (h *house) run(ctx context.Context) error {
	srv := server.New(server.Config{Backend: h.engine, Cluster: h.cluster, Keys: keys{h.networks}, Log: h.log.With("part", "api"), Version: version.Version})
	listeners, err := srv.Listen(h.config.Hosts, h.config.Group)
	if err != nil {
		return err
	}
	if h.networks.Changed, err = h.kernel.Watch(ctx); err != nil {
		return err
	}
	if err := h.cluster.Start(ctx); err != nil {
		return err
	}
	h.closers = append(h.closers, h.cluster.Close)
	if err := h.networks.Start(ctx); err != nil {
		return err
	}
	if err := h.engine.Restore(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.networks.Run(ctx) })
	g.Go(func() error { return h.prober.Run(ctx) })
	g.Go(func() error { return h.follow(ctx) })
	g.Go(func() error { return h.zones.Run(ctx) })
	g.Go(func() error { return h.engine.Run(ctx) })
	g.Go(func() error { return srv.Serve(ctx, listeners) })
	h.log.Info("isled is ready", "version", version.Version, "listening", h.config.Hosts)
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// close lets everything go, last opened first. Containers are left alone.
func (h *house) close() (err error) {
	for i := len(h.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, h.closers[i]())
	}
	return err
}
