// Package live_test runs the Manager on a real kernel, in namespaces of its own.
package live_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel"
	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/dns"
	"isle/internal/network/driver/bridge"
	"isle/internal/network/driver/builtin"
	"isle/internal/network/driver/overlay"
	"isle/internal/network/ipam"
	"isle/internal/network/machine"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
	"isle/internal/store"
	"isle/internal/store/storetest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// alone is a machine beside whose networks there are no others, whatever the test
// puts there.
type alone struct{ machine.Machine }

func (alone) Foreign(context.Context) ([]ipam.Foreign, error) { return nil, nil }

func onlyOurs(k *kernel.Kernel) alone {
	return alone{machine.Machine{Kernel: k, Servers: func() []netip.AddrPort { return nil }}}
}

// counting is a kernel whose changes are counted.
type counting struct {
	*kernel.Kernel
	n    int
	done atomic.Int64 // when the last of them was in force
}

func (c *counting) Apply(ctx context.Context, changes []reconcile.Change) (int, error) {
	c.n += len(changes)
	defer func() { c.done.Store(time.Now().UnixNano()) }()
	return c.Kernel.Apply(ctx, changes)
}

type host struct {
	t      testing.TB
	config kernel.Config
	kernel *kernel.Kernel
	count  *counting
	store  store.Store
	room   int // containers on one bridge; 0: as many as the driver says
}

// narrow is a bridge with few ports.
type narrow struct {
	bridge.Driver
	room int
}

func (n narrow) Caps() network.Caps {
	c := n.Driver.Caps()
	if n.room > 0 {
		c.Room = n.room
	}
	return c
}

// narrowShared is an overlay of bridges with few ports.
type narrowShared struct {
	overlay.Driver
	room int
}

func (n narrowShared) Caps() network.Caps {
	c := n.Driver.Caps()
	if n.room > 0 {
		c.Room = n.room
	}
	return c
}

func newHost(t testing.TB, bpf bool) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not supported: network namespaces without root")
	}
	run(t, "ip", "link", "set", "lo", "up")
	dir := t.TempDir()
	cfg := kernel.Config{Table: "isle", LinkGroup: 4712, LinkPrefix: "isle", NSDir: filepath.Join(inMemory(t), "netns")}
	if bpf {
		cfg.BPFDir = filepath.Join(dir, "bpf", "isle")
	}
	k, err := kernel.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = reconcile.Apply(context.Background(), k, reconcile.Diff(observe(t, k), nil))
		if cfg.BPFDir != "" {
			_ = os.RemoveAll(cfg.BPFDir)
			_ = exec.Command("umount", filepath.Dir(cfg.BPFDir)).Run()
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		_ = exec.Command("umount", "-l", cfg.NSDir).Run()
	})
	if bpf && !k.Features().SockAddr {
		t.Skip("not supported:", k.Features().SockAddrError)
	}
	return &host{t: t, config: cfg, kernel: k, count: &counting{Kernel: k}, store: &storetest.Mem{}}
}

// inMemory is a directory like /run, where namespaces are mounted.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "isle-live-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func observe(t testing.TB, k *kernel.Kernel) netspec.State {
	s, err := k.Observe(context.Background())
	if err != nil {
		t.Error(err)
	}
	return s
}

// start is another process on the host.
func (h *host) start() *network.Manager {
	h.t.Helper()
	m := h.manager()
	if err := m.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return m
}

// manager is one that has not started.
func (h *host) manager() *network.Manager {
	log := slog.New(slog.DiscardHandler)
	drivers := builtin.Drivers()
	drivers[network.DriverBridge], drivers["overlay"] = narrow{room: h.room}, narrowShared{room: h.room}
	return &network.Manager{
		Store: h.store, Kernel: h.count, Machine: onlyOurs(h.kernel), Drivers: drivers,
		IPAM: &ipam.Allocator{Sources: []ipam.Source{
			{Base: netip.MustParsePrefix("10.66.0.0/16"), Size: 24}, {Base: ipam.ULA("live"), Size: 64},
		}},
		Ports: &publish.Table{Holder: &publish.Sockets{Log: log}}, DNS: &dns.Server{Log: log}, Log: log,
		Config: network.Config{LinkPrefix: "isle", Bridge: "isle0"},
	}
}

func stop(m *network.Manager) { m.DNS.Close(); m.Ports.Close() }

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (h *host) open(m *network.Manager, id string, ports api.PortMap, networks ...string) network.Opened {
	h.t.Helper()
	req := network.OpenRequest{ID: id, Name: id, Ports: network.PortRequest{Bindings: ports}}
	for _, n := range networks {
		req.Networks = append(req.Networks, network.ConnectRequest{Network: n, ContainerName: id, ContainerID: id})
	}
	out, err := m.Open(h.t.Context(), req)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// serve answers TCP connections in a container with the peer's address.
func (h *host) serve(ns netspec.NS, at string) {
	h.t.Helper()
	l, err := h.kernel.ListenTCP(h.t.Context(), ns, netip.MustParseAddrPort(at))
	if err != nil {
		h.t.Fatal(err)
	}
	h.answer(l)
}

// serveIn is serve in a namespace that is not a container's.
func (h *host) serveIn(ns kerneltest.NS, at string) {
	h.t.Helper()
	ns.Do(func() error {
		l, err := net.Listen("tcp", at)
		if err == nil {
			h.answer(l)
		}
		return err
	})
}

func (h *host) answer(l net.Listener) {
	h.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr())
			c.Close()
		}
	}()
}

// get is what comes back from a TCP connection made in ns.
func (h *host) get(ns netspec.NS, at string, patience time.Duration) (string, error) {
	var got string
	err := h.kernel.Do(ns, func() error {
		c, err := net.DialTimeout("tcp", at, patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		got = string(b[:n])
		return err
	})
	return got, err
}

// lookup asks the container's resolver, as a container would: 127.0.0.11:53.
func (h *host) lookup(ns netspec.NS, network, name string) (string, error) {
	var got []string
	err := h.kernel.Do(ns, func() error {
		q := new(miekg.Msg).SetQuestion(miekg.Fqdn(name), miekg.TypeA)
		conn, err := net.DialTimeout(network, "127.0.0.11:53", 3*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		m, _, err := (&miekg.Client{Net: network, Timeout: 3 * time.Second}).ExchangeWithConn(q, &miekg.Conn{Conn: conn})
		if err != nil {
			return err
		}
		got = append(got, miekg.RcodeToString[m.Rcode])
		for _, rr := range m.Answer {
			got = append(got, rr.(*miekg.A).A.String())
		}
		return nil
	})
	return strings.Join(got, " "), err
}

// TestWayThrough is the main road: two networks, names, ports, a restart.
func TestWayThrough(t *testing.T) {
	for name, bpf := range map[string]bool{"with eBPF": true, "without": false} {
		t.Run(name, func(t *testing.T) { wayThrough(t, newHost(t, bpf)) })
	}
}

func wayThrough(t *testing.T, h *host) {
	m := h.start()
	yes := true
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "app", EnableIPv6: &yes}); err != nil {
		t.Fatal(err)
	}
	web := h.open(m, "web", api.PortMap{api.MustParsePort("80/tcp"): {{HostPort: "8080"}}}, "app")
	h.open(m, "db", nil, "app")
	h.open(m, "other", nil, "bridge")
	addr := web.Endpoints[0].Addr(true).String()
	h.serve("web", "0.0.0.0:80")

	check := func(when string) {
		t.Helper()
		for _, c := range []struct {
			what, from, to string
			reach          bool
		}{
			{"a neighbour on the network", "db", addr + ":80", true},
			{"the host", "", addr + ":80", true},
			{"localhost", "", "127.0.0.1:8080", true},
			{"localhost, IPv6", "", "[::1]:8080", true},
			{"another network", "other", addr + ":80", false},
			{"another network by the published port", "other", "10.66.0.1:8080", true},
			{"itself by the published port", "web", "10.66.1.1:8080", true},
		} {
			patience := 10 * time.Second
			if !c.reach {
				patience = time.Second
			}
			got, err := h.get(netspec.NS(c.from), c.to, patience)
			if (err == nil && got != "") != c.reach {
				t.Errorf("%s: %s to %s: %q, %v; want to get through: %t", when, c.what, c.to, got, err, c.reach)
			}
		}
		for _, network := range []string{"udp", "tcp"} {
			if got, err := h.lookup("db", network, "web"); err != nil || got != "NOERROR "+addr {
				t.Errorf("%s: db asks for web over %s: %s, %v", when, network, got, err)
			}
			if got, err := h.lookup("other", network, "web"); err != nil || got != "NXDOMAIN" {
				t.Errorf("%s: other asks for web over %s: %s, %v", when, network, got, err)
			}
		}
	}
	check("at first")

	if l, err := net.Listen("tcp4", "0.0.0.0:8080"); err == nil {
		l.Close()
		t.Error("another program could take the published port")
	}
	stop(m)
	h.count.n = 0
	m = h.start()
	defer stop(m)
	if h.count.n != 0 {
		t.Errorf("%d kernel changes at a restart", h.count.n)
	}
	check("after a restart")

	if c, err := m.Counters(t.Context(), "web"); err != nil || c["eth0"].RxPackets == 0 {
		t.Errorf("counters %v, %v", c, err)
	}
	for _, id := range []string{"web", "db", "other"} {
		if err := m.Close(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := h.get("", "127.0.0.1:8080", time.Second); err == nil {
		t.Error("the port answers after the container is gone")
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	if err := m.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	left := run(t, "ip", "-o", "link") // a link goes with its namespace, which the kernel ends beside us
	for end := time.Now().Add(10 * time.Second); strings.Count(left, "\n") != 2 && time.Now().Before(end); left = run(t, "ip", "-o", "link") {
		time.Sleep(10 * time.Millisecond)
	}
	if strings.Count(left, "\n") != 2 { // lo, isle0
		t.Errorf("left over:\n%s", left)
	}
}
