package firewalldoc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"isle/internal/config"
	"isle/internal/kernel"
	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/dns"
	"isle/internal/network/driver/builtin"
	"isle/internal/network/ipam"
	"isle/internal/network/machine"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
	"isle/internal/store/storetest"
)

// host is the machine that the pages speak of: isled's network manager in the
// test's own namespace, with a neighbour on either of two wires.
type host struct {
	t       testing.TB
	kernel  *kernel.Kernel
	manager *network.Manager
	names   *names
	others  map[string]kerneltest.NS // neighbours
	base    elements                 // what there is when nothing runs
	port    int                      // the last port that a question was sent from
	arrived arrivals
}

// arrivals are the questions that came to a server, by what they said.
type arrivals struct{ sync.Map }

// alone is a machine beside whose networks there are no others, whatever the test
// puts there.
type alone struct{ machine.Machine }

func (alone) Foreign(context.Context) ([]ipam.Foreign, error) { return nil, nil }

func onlyOurs(k *kernel.Kernel) alone {
	return alone{machine.Machine{Kernel: k, Servers: func() []netip.AddrPort { return nil }}}
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, names: newNames(), others: map[string]kerneltest.NS{}, port: firstPort}
	h.run("nft", "flush", "ruleset") // of another page
	h.others["lan"] = h.wire("eth0", 77)
	h.others["office"] = h.wire("eth1", 88)
	h.setting("bridge/bridge-nf-call-iptables", "0") // else what stays on a bridge is routed on some machines
	h.setting("bridge/bridge-nf-call-ip6tables", "0")
	h.serve("lan", "tcp", ":80")
	h.serve("lan", "udp", ":53")
	h.open()
	h.start()
	h.base = h.elements()
	return h
}

// wire is an interface of the host's, 10.n.0.1 and 2001:db8:n::1, and the
// neighbour behind it, who ends in 2 and routes everything through us.
func (h *host) wire(ifname string, n int) kerneltest.NS {
	h.t.Helper()
	ns := kerneltest.NewNS(h.t)
	h.run("ip", "link", "set", "lo", "up")
	h.run("ip", "link", "add", ifname, "type", "veth", "peer", "name", "wire", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File.Fd()))
	h.t.Cleanup(func() { h.run("ip", "link", "del", ifname) })
	h.setting("ipv6/conf/"+ifname+"/accept_dad", "0")
	for _, args := range []string{"addr add 10.%d.0.1/24 dev " + ifname, "addr add 2001:db8:%d::1/64 nodad dev " + ifname} {
		h.run("ip", strings.Fields(fmt.Sprintf(args, n))...)
	}
	h.run("ip", "link", "set", ifname, "up")
	ns.IP(fmt.Sprintf(`link set wire up
		addr add 10.%[1]d.0.2/24 dev wire
		addr add 2001:db8:%[1]d::2/64 nodad dev wire
		route add default via 10.%[1]d.0.1
		route add default via 2001:db8:%[1]d::1`, n))
	return ns
}

// setting is one of the namespace's, where the machine has it.
func (h *host) setting(name, value string) {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
}

func (h *host) open() {
	h.t.Helper()
	dir, n := h.t.TempDir(), config.Default().Network
	cfg := kernel.Config{
		Table: n.Table, LinkGroup: n.LinkGroup, LinkPrefix: n.LinkPrefix,
		NSDir: filepath.Join(dir, "netns"), BPFDir: filepath.Join(dir, "bpf", "isle"),
	}
	k, err := kernel.New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.kernel = k
	h.t.Cleanup(func() {
		err := reconcile.Apply(context.Background(), k, reconcile.Diff(h.observe(), nil))
		err = errors.Join(err, k.Close(), os.RemoveAll(cfg.BPFDir))
		_ = exec.Command("umount", filepath.Dir(cfg.BPFDir)).Run()
		_ = exec.Command("umount", "-l", cfg.NSDir).Run()
		if err != nil {
			h.t.Error(err)
		}
	})
	if can := k.Features(); !can.SockAddr || !can.Guard || !can.Sources {
		h.t.Skip(&probe.NotSupportedError{Feature: "all of eBPF and nftables that the pages show", Err: errors.New(can.SockAddrError)})
	}
}

func (h *host) observe() netspec.State {
	s, err := h.kernel.Observe(context.Background())
	if err != nil {
		h.t.Error(err)
	}
	return s
}

// start is isled's start, with the settings it has when nobody changed them.
func (h *host) start() {
	h.t.Helper()
	log, conf := slog.New(slog.DiscardHandler), config.Default().Network
	sources := []ipam.Source{{Base: ipam.ULA("docs"), Size: 64}}
	for _, p := range conf.Pools {
		sources = append(sources, ipam.Source{Base: p.Base, Size: p.Size})
	}
	h.manager = &network.Manager{
		Store: &storetest.Mem{}, Kernel: h.kernel, Machine: onlyOurs(h.kernel), Drivers: builtin.Drivers(),
		IPAM: &ipam.Allocator{Sources: sources}, Ports: &publish.Table{Holder: &publish.Sockets{Log: log}},
		DNS: &dns.Server{Log: log}, Log: log, Config: network.Config{LinkPrefix: conf.LinkPrefix, Bridge: conf.Bridge, IPv6: conf.IPv6},
	}
	if err := h.manager.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.manager.DNS.Close(); h.manager.Ports.Close() })
}

// run runs a program on the host: a witness, or somebody else.
func (h *host) run(name string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// in runs fn where somebody is: the host, a neighbour or a container.
func (h *host) in(who string, fn func() error) error {
	if who == "host" {
		return h.kernel.Do("", fn)
	}
	if ns, ok := h.others[who]; ok {
		return netns.Do(ns.File, fn)
	}
	return h.kernel.Do(netspec.NS(who), fn)
}

// serve answers as "serve" of isle/toolbox does: who we are and who asks.
func (h *host) serve(who, network, at string) {
	h.t.Helper()
	err := h.in(who, func() error {
		if network == "udp" {
			u, err := net.ListenPacket("udp", at)
			if err == nil {
				h.t.Cleanup(func() { u.Close() })
				go h.answerUDP(who, u)
			}
			return err
		}
		l, err := net.Listen("tcp", at)
		if err == nil {
			h.t.Cleanup(func() { l.Close() })
			go answerTCP(who, l)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func answerTCP(who string, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, answer(who, c.RemoteAddr()))
		c.Close()
	}
}

func (h *host) answerUDP(who string, u net.PacketConn) {
	b := make([]byte, 100)
	for {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		h.arrived.Store(string(b[:n]), answer(who, from))
		_, _ = u.WriteTo([]byte(answer(who, from)), from)
	}
}

func answer(who string, client net.Addr) string {
	a, _, _ := net.SplitHostPort(client.String())
	return who + ", which sees " + strings.TrimPrefix(a, "::ffff:")
}
