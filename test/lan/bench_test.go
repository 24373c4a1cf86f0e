package lan

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/probe"
	"isle/test/lab"
)

func TestMain(m *testing.M) {
	flag.Parse()
	lab.Main(m, nil)
}

// bench is the LAN of a test, and the isled on the host.
type bench struct {
	*lab.Isled
	t                *testing.T
	sw, near, router kerneltest.NS
	wire             *witness // of lan0's port
}

// TestLAN shares one isled: each scenario has a LAN of its own and leaves nothing.
func TestLAN(t *testing.T) {
	d := lab.Run(t, "")
	for _, s := range []struct {
		name string
		ask  func(*bench)
	}{
		{"MacvlanModes", testMacvlanModes}, {"PrivateLeaks", testPrivateLeaks}, {"Passthru", testPassthru}, {"IPvlanModes", testIPvlanModes},
		{"Announced", testAnnounced}, {"Lease", testLease}, {"Duplicate", testDuplicate}, {"IPvlanLeases", testIPvlanLeases}, {"Advertised", testAdvertised},
		{"Parent", testParent}, {"HostAccess", testHostAccess}, {"VLAN", testVLAN},
	} {
		t.Run(s.name, func(t *testing.T) { s.ask(newBench(t, d)) })
	}
}

func newBench(t *testing.T, d *lab.Isled) *bench {
	t.Helper()
	b := &bench{Isled: d, t: t, sw: kerneltest.NewNS(t), near: kerneltest.NewNS(t), router: kerneltest.NewNS(t)}
	b.sw.IP(`link add sw type bridge mcast_snooping 0 stp_state 0
		link set sw up`)
	b.plug(b.near, "near")
	b.near.IP(`addr add 10.88.0.2/24 dev eth0
		addr add fd88::2/64 dev eth0 nodad`)
	b.plug(b.router, "router")
	b.router.IP(`addr add 10.88.0.254/24 dev eth0
		addr add fd88::fe/64 dev eth0 nodad
		addr add 198.51.100.1/32 dev lo`)
	b.uplink()
	b.wire = watch(t, b.sw, "p-lan0")
	t.Cleanup(func() {
		b.t = t
		b.tidy()
		lab.Check(t)
	})
	return b
}

// vlan gives the router a leg in VLAN 50; the test is skipped where the kernel has none.
func (b *bench) vlan() {
	b.t.Helper()
	if out, err := b.router.Try("ip", "link", "add", "link", "eth0", "name", "eth0.50", "type", "vlan", "id", "50"); err != nil {
		b.t.Skip(&probe.NotSupportedError{Feature: "an 802.1q interface", Err: errors.New(strings.TrimSpace(out))})
	}
	b.router.IP(`addr add 10.89.0.254/24 dev eth0.50
		link set eth0.50 up`)
	b.sw.IP("link set sw type bridge vlan_filtering 1")
	for _, port := range []string{"p-lan0", "p-router"} {
		b.sw.Run("bridge", "vlan", "add", "dev", port, "vid", "50")
	}
}

// tidy takes away what a scenario has left, as one that failed does.
func (b *bench) tidy() {
	b.t.Helper()
	for _, c := range strings.Fields(b.Isle(b.t, "ps", "-aq")) {
		b.Isle(b.t, "rm", "-f", c)
	}
	if _, err := b.Try("network", "inspect", "wire"); err == nil {
		b.Isle(b.t, "network", "rm", "wire")
	}
}

// plug joins a machine to the switch by its eth0.
func (b *bench) plug(ns kerneltest.NS, name string) {
	b.t.Helper()
	ns.IP("link add eth0 type veth peer name p-" + name + " netns " + file(b.sw))
	b.sw.IP("link set p-" + name + " master sw up")
	ns.IP("link set eth0 up")
}

// uplink joins the host to the switch by lan0.
func (b *bench) uplink() {
	b.t.Helper()
	b.host(`link add lan0 type veth peer name p-lan0 netns ` + file(b.sw))
	b.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "lan0").Run() })
	b.sw.IP("link set p-lan0 master sw up")
	b.host(`addr add 10.88.0.1/24 dev lan0
		addr add fd88::1/64 dev lan0 nodad
		link set lan0 up`)
}

// host runs "ip" commands on the host, one a line.
func (b *bench) host(commands string) {
	b.t.Helper()
	for l := range strings.Lines(commands) {
		if out, err := exec.Command("ip", strings.Fields(l)...).CombinedOutput(); err != nil {
			b.t.Fatalf("ip %s: %v\n%s", l, err, out)
		}
	}
}

// file is how ip names a namespace that this process has open.
func file(ns kerneltest.NS) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.File.Fd()) }

// network makes a network.
func (b *bench) network(name string, args ...string) {
	b.t.Helper()
	b.Isle(b.t, append(append([]string{"network", "create"}, args...), name)...)
}

// on are the arguments of a network with static addresses on lan0.
func on(driver string, opts ...string) []string {
	args := []string{"-d", driver, "-o", "parent=lan0", "--subnet", "10.88.0.0/24", "--ip-range", "10.88.0.128/25", "--gateway", "10.88.0.254",
		"--ipv6", "--subnet", "fd88::/64", "--ip-range", "fd88::8000/113", "--gateway", "fd88::fe"}
	for _, o := range opts {
		args = append(args, "-o", o)
	}
	return args
}

// run starts a container that serves on port 80; the test is skipped where the kernel
// has no such links.
func (b *bench) run(name, network string, args ...string) {
	b.t.Helper()
	out, err := b.Try(append(append([]string{"run", "-d", "--name", name, "--network", network}, args...), "isle/toolbox", "serve", ":80")...)
	if err != nil && strings.Contains(out, "is not supported by this kernel") {
		b.clear(network, name)
		_, why, _ := strings.Cut(out, "daemon: ")
		why, _, _ = strings.Cut(why, "\n")
		b.t.Skip(&probe.NotSupportedError{Feature: "an interface for network " + network, Err: errors.New(why)})
	}
	if err != nil {
		b.t.Fatalf("run %s on %s: %v\n%s\n--- isled:\n%s", name, network, err, out, b.Tail())
	}
}

// address is what isle says a container has on a network, without the mask.
func (b *bench) address(name, network, field string) string {
	b.t.Helper()
	return b.Isle(b.t, "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, field), name)
}

// reaches checks whether a container gets an echo from an address.
func (b *bench) reaches(name, to string, want bool) {
	b.t.Helper()
	patience := map[bool]string{true: "10", false: "1"}[want]
	out, err := b.Try("exec", name, "ping", "-c", "1", "-W", patience, to)
	if (err == nil) != want || !want && !strings.Contains(out, "no answer") {
		b.t.Errorf("%s reaches %s: %v, want %t\n%s", name, to, err, want, out)
	}
}

// reached checks that a machine of the LAN gets an answer of a container.
func (b *bench) reached(from kerneltest.NS, at string) {
	b.t.Helper()
	b.eventually("hello", func() (string, error) { return from.Try("curl", "-sg", "--max-time", "2", "http://"+at+"/") })
}

// toolbox runs a program of the toolbox on a machine of the LAN.
func toolbox(from kerneltest.NS, args ...string) (string, error) {
	return from.Try(filepath.Join(lab.Bin(), "isle-toolbox"), args...)
}

// eventually asks until the answer has the text.
func (b *bench) eventually(text string, ask func() (string, error)) {
	b.t.Helper()
	var got string
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got, err = ask(); err == nil && strings.Contains(got, text) {
			return
		}
	}
	b.t.Fatalf("never %q; last: %q, %v\n--- isled:\n%s", text, got, err, b.Tail())
}

// dnsmasq serves DHCP on an interface of the router; its end ends it.
func (b *bench) dnsmasq(iface string, args ...string) (stop func()) {
	b.t.Helper()
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		b.t.Skip(&probe.NotSupportedError{Feature: "running dnsmasq", Err: err})
	}
	dir := b.t.TempDir()
	log := filepath.Join(dir, "log")
	cmd := exec.Command(path, append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=root", "--port=0", "--interface=" + iface, "--bind-interfaces", "--log-dhcp", "--no-ping",
		"--dhcp-authoritative", "--dhcp-sequential-ip", "--pid-file=" + filepath.Join(dir, "pid"), "--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--log-facility=" + log,
	}, args...)...)
	b.router.Do(cmd.Start)
	stop = func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	b.t.Cleanup(func() {
		stop()
		if said, err := os.ReadFile(log); err == nil && b.t.Failed() {
			b.t.Logf("dnsmasq on %s:\n%s", iface, said)
		}
	})
	b.eventually("started", func() (string, error) { said, err := os.ReadFile(log); return string(said), err })
	return stop
}
