package cni_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/kernel"
	"isle/internal/kernel/kerneltest"
	"isle/internal/kernel/netns"
	"isle/internal/kernel/probe"
	"isle/internal/network"
	"isle/internal/network/driver/cni"
)

// These tests run the plugins of the CNI project, Debian's containernetworking-plugins.
// The host is the namespace of the test process, which kerneltest.Main has made.

var pluginDirs = []string{"/opt/cni/bin", "/usr/lib/cni"}

// needPlugins skips a test where plugins are not installed.
func needPlugins(t *testing.T, names ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip(&probe.NotSupportedError{Feature: "a network namespace without root"})
	}
	for _, name := range names {
		if !slices.ContainsFunc(pluginDirs, func(dir string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }) {
			t.Skip(&probe.NotSupportedError{Feature: "running CNI plugin " + name, Err: errors.New("it is not installed (hint: apt-get install containernetworking-plugins)")})
		}
	}
	private()
}

// needLink skips a test where the kernel cannot make links of a kind.
func needLink(t *testing.T, args ...string) {
	t.Helper()
	ns := kerneltest.NewNS(t)
	ns.IP("link add up0 type veth peer name up1")
	if out, err := ns.Try("ip", slices.Concat([]string{"link", "add", "probe0"}, args)...); strings.Contains(out, "Unknown device type") || strings.Contains(out, "not supported") {
		t.Skipf("this kernel has no links of that kind: %s", out)
	} else if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// private keeps what iptables and plugins write (locks, what they remember) away from
// the machine.
var private = sync.OnceFunc(func() {
	for _, err := range []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, ""),
		unix.Mount("tmpfs", "/var/lib", "tmpfs", 0, ""),
	} {
		if err != nil {
			panic(err)
		}
	}
})

// machine is a driver with the reference plugins, and containers.
type machine struct {
	*lab
	dir netns.Dir
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	l := newLab(t)
	path := filepath.Join(l.dir, "ns")
	dir, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	m := &machine{lab: l, dir: dir}
	m.restart()
	return m
}

func (m *machine) restart() {
	m.Driver = cni.New(cni.Config{
		PluginDirs: append([]string{filepath.Join(m.lab.dir, "bin")}, pluginDirs...), StateDir: filepath.Join(m.lab.dir, "state"),
		Limit: 20 * time.Second, Inside: kernel.Visitor{},
	})
}

// made is a network of this configuration, given as the list of its plugins. LEASES is
// where host-local writes.
func (m *machine) made(name, version, plugins string, opts ...string) network.Network {
	m.t.Helper()
	plugins = strings.ReplaceAll(plugins, "LEASES", filepath.Join(m.lab.dir, "leases"))
	text := fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[%s]}`, version, name, plugins)
	n := m.draft(m.write(name+".conflist", text), opts...)
	if err := m.Validate(n); err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.Make(m.t.Context(), n); err != nil {
		m.t.Fatal(err)
	}
	return n
}

// container is a namespace with its place on n.
func (m *machine) container(n network.Network, name string) (network.Attachment, kerneltest.NS) {
	m.t.Helper()
	if _, err := m.dir.New(name); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = m.dir.Delete(name) })
	f, err := netns.OpenFile(m.dir.File(name))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { f.Close() })
	a := place(n)
	a.NSPath, a.Endpoint.Sandbox = m.dir.File(name), strings.Repeat(name, 8)
	return a, kerneltest.Wrap(m.t, f)
}

// attach is Attach that works, with what CHECK says then.
func (m *machine) attach(a network.Attachment) network.Result {
	m.t.Helper()
	res, err := m.Attach(m.t.Context(), a)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.Check(m.t.Context(), a); err != nil {
		m.t.Error(err)
	}
	return res
}

func (m *machine) detach(a network.Attachment) {
	m.t.Helper()
	for range 2 { // the second finds nothing
		if err := m.Detach(m.t.Context(), a); err != nil {
			m.t.Error(err)
		}
	}
}

// leases are the addresses that host-local has given out.
func (m *machine) leases() (out []string) {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(m.lab.dir, "leases", "*", "*[0-9a-f]"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range files {
		if name := filepath.Base(f); !strings.HasPrefix(name, "last_reserved") {
			out = append(out, name)
		}
	}
	return out
}

// nothing reports what a container has left.
func (m *machine) nothing(ns kerneltest.NS, addrs ...netip.Prefix) {
	m.t.Helper()
	if out := ns.Run("ip", "-o", "link"); strings.Count(out, "\n") > 1 {
		m.t.Errorf("links are left in the container: %s", out)
	}
	if left := m.leases(); len(left) > 0 {
		m.t.Errorf("addresses are left: %q", left)
	}
	rules := ""
	if _, err := exec.LookPath("iptables-save"); err == nil { // else no plugin has made any
		rules = run(m.t, "iptables-save")
	}
	for _, a := range addrs {
		if strings.Contains(rules, a.Addr().String()+"/") {
			m.t.Errorf("rules for %s are left:\n%s", a, rules)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// serve says its name to whoever connects to port 80 of a container.
func serve(t *testing.T, ns kerneltest.NS, name string) {
	t.Helper()
	var l net.Listener
	ns.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err })
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(name))
			c.Close()
		}
	}()
}

// dial is what answers at addr; it is called in the namespace that asks.
func dial(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := make([]byte, 16)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// reaches reports whether somebody in ns reaches name at addr.
func reaches(t *testing.T, ns kerneltest.NS, addr, name string) {
	t.Helper()
	ns.Do(func() error {
		if got, err := dial(addr); err != nil || got != name {
			return fmt.Errorf("%s answers %q: %w", addr, got, err)
		}
		return nil
	})
}

const hostLocal = `"ipam":{"type":"host-local","dataDir":"LEASES","ranges":[[{"subnet":"%s"}]],"routes":[{"dst":"0.0.0.0/0"}]}`

func bridge(name, subnet string) string {
	return fmt.Sprintf(`{"type":"bridge","bridge":%q,"isGateway":true,"capabilities":{"ips":true,"mac":true},`+hostLocal+`}`, name, subnet)
}

// TestBridge : two containers reach each other; CHECK sees what somebody takes away; an
// address that is asked for is given; all is gone in the end, also without a namespace.
func TestBridge(t *testing.T) {
	needPlugins(t, "bridge", "host-local")
	m := newMachine(t)
	n := m.made("br", "1.0.0", bridge("tbr0", "10.70.0.0/24"))
	a, ns := m.container(n, "c1")
	b, other := m.container(n, "c2")
	b.Endpoint.Wish = &network.Wish{Addrs: []netip.Addr{netip.MustParseAddr("10.70.0.99")}}
	res, res2 := m.attach(a), m.attach(b)
	if res2.Addrs[0] != netip.MustParsePrefix("10.70.0.99/24") || res.Gateways[0] != netip.MustParseAddr("10.70.0.1") || res.MAC[0]&3 != 2 || len(res.Links) != 2 {
		t.Errorf("%+v %+v", res, res2)
	}
	serve(t, other, "c2")
	reaches(t, ns, "10.70.0.99:80", "c2")
	if out := ns.Run("ip", "route"); !strings.Contains(out, "default via 10.70.0.1 dev eth0 metric 32768") {
		t.Error(out) // behind Isle's, which is not there without the Manager
	}
	ns.IP("addr flush dev eth0")
	if err := m.Check(t.Context(), a); err == nil || !strings.Contains(err.Error(), "plugin bridge: CHECK: ") {
		t.Error(err)
	}
	if _, err := m.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), "interface eth0 is in the container already") {
		t.Error(err)
	}
	m.detach(a)
	b.NSPath = ""
	m.detach(b)
	m.nothing(ns, append(res.Addrs, res2.Addrs...)...)
}

// TestVersions : results of all versions that Debian's plugins know.
func TestVersions(t *testing.T) {
	needPlugins(t, "bridge", "host-local")
	for i, v := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"} {
		m := newMachine(t)
		subnet := fmt.Sprintf("10.71.%d.0/24", i)
		n := m.made("br", v, bridge(fmt.Sprint("tver", i), subnet))
		a, ns := m.container(n, "c1")
		res := m.attach(a)
		if len(res.Addrs) != 1 || !netip.MustParsePrefix(subnet).Contains(res.Addrs[0].Addr()) || len(res.Gateways) != 1 {
			t.Errorf("version %s: %+v", v, res)
		}
		m.detach(a)
		m.nothing(ns, res.Addrs...)
	}
}

// TestPTP : the host reaches a container on a link of its own.
func TestPTP(t *testing.T) {
	needPlugins(t, "ptp", "host-local")
	m := newMachine(t)
	n := m.made("p", "1.0.0", `{"type":"ptp",`+fmt.Sprintf(hostLocal, "10.72.0.0/24")+`}`)
	a, ns := m.container(n, "c1")
	res := m.attach(a)
	serve(t, ns, "c1")
	if got, err := dial(res.Addrs[0].Addr().String() + ":80"); err != nil || got != "c1" {
		t.Error(got, err)
	}
	m.detach(a)
	m.nothing(ns, res.Addrs...)
}

// parent is an interface of the host with a wire in it.
func parent(t *testing.T, name string) {
	t.Helper()
	run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", name+"x")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	run(t, "ip", "link", "set", name, "up")
	run(t, "ip", "link", "set", name+"x", "up")
}

// onParent are the networks that are on an interface: two containers reach each other.
func onParent(t *testing.T, name, plugin string) {
	t.Helper()
	parent(t, name)
	m := newMachine(t)
	n := m.made("on", "1.0.0", plugin)
	a, ns := m.container(n, "c1")
	b, other := m.container(n, "c2")
	res, res2 := m.attach(a), m.attach(b)
	serve(t, other, "c2")
	reaches(t, ns, res2.Addrs[0].Addr().String()+":80", "c2")
	m.detach(a)
	m.detach(b)
	m.nothing(ns, res.Addrs...)
}

func TestMacvlan(t *testing.T) {
	needPlugins(t, "macvlan", "host-local")
	onParent(t, "tmac0", `{"type":"macvlan","master":"tmac0",`+fmt.Sprintf(hostLocal, "10.73.0.0/24")+`}`)
}

func TestIPvlan(t *testing.T) {
	needPlugins(t, "ipvlan", "host-local")
	needLink(t, "link", "up0", "type", "ipvlan")
	onParent(t, "tipv0", `{"type":"ipvlan","master":"tipv0",`+fmt.Sprintf(hostLocal, "10.74.0.0/24")+`}`)
}

// alone is a network of links of a kind that not every kernel has: the interface is
// there with its address, and gone in the end.
func alone(t *testing.T, plugin string) {
	t.Helper()
	m := newMachine(t)
	n := m.made("alone", "1.0.0", plugin+fmt.Sprintf(hostLocal, "10.75.0.0/24")+`}`)
	a, ns := m.container(n, "c1")
	res := m.attach(a)
	if out := ns.Run("ip", "addr", "show", "eth0"); !strings.Contains(out, res.Addrs[0].String()) {
		t.Error(out)
	}
	m.detach(a)
	m.nothing(ns, res.Addrs...)
}

func TestVLAN(t *testing.T) {
	needPlugins(t, "vlan", "host-local")
	needLink(t, "link", "up0", "type", "vlan", "id", "7")
	parent(t, "tlnk0")
	alone(t, `{"type":"vlan","master":"tlnk0","vlanId":7,`)
}

// TestDummy : Debian 12 has no such plugin.
func TestDummy(t *testing.T) {
	needPlugins(t, "dummy", "host-local")
	needLink(t, "type", "dummy")
	alone(t, `{"type":"dummy",`)
}

// TestVRF : a plugin that puts the interface of another one into a VRF.
func TestVRF(t *testing.T) {
	needPlugins(t, "bridge", "host-local", "vrf")
	needLink(t, "type", "vrf", "table", "7")
	m := newMachine(t)
	n := m.made("vrf", "1.0.0", bridge("tvrf0", "10.76.0.0/24")+`,{"type":"vrf","vrfname":"red"}`)
	a, ns := m.container(n, "c1")
	res, err := m.Attach(t.Context(), a) // no CHECK: bridge looks for its routes in the main table
	if err != nil {
		t.Fatal(err)
	}
	if out := ns.Run("ip", "link", "show", "eth0"); !strings.Contains(out, "master red") {
		t.Error(out)
	}
	m.detach(a)
	m.nothing(ns, res.Addrs...)
}

// TestStatic : addresses that the configuration or the user says.
func TestStatic(t *testing.T) {
	needPlugins(t, "bridge", "static")
	m := newMachine(t)
	n := m.made("st", "1.0.0", `{"type":"bridge","bridge":"tst0","capabilities":{"ips":true},"ipam":{"type":"static","routes":[{"dst":"0.0.0.0/0","gw":"10.77.0.1"}]}}`, "isle.cni.subnet=10.77.0.0/24")
	a, ns := m.container(n, "c1")
	a.Endpoint.Wish = &network.Wish{Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.8")}}
	res := m.attach(a)
	if want := netip.MustParsePrefix("10.77.0.8/24"); !slices.Equal(res.Addrs, []netip.Prefix{want}) || !strings.Contains(ns.Run("ip", "addr", "show", "eth0"), want.String()) {
		t.Errorf("%+v", res)
	}
	m.detach(a)
	m.nothing(ns, res.Addrs...)
}

// TestLoopback : a chain of a plugin that makes no interface of its own.
func TestLoopback(t *testing.T) {
	needPlugins(t, "loopback")
	m := newMachine(t)
	n := m.made("lo", "1.0.0", `{"type":"loopback"}`)
	a, ns := m.container(n, "c1")
	ns.IP("link set lo down")
	if res := m.attach(a); len(res.Addrs) > 0 {
		t.Errorf("%+v", res)
	}
	if out := ns.Run("ip", "link", "show", "lo"); !strings.Contains(out, "UP") {
		t.Error(out)
	}
	m.detach(a)
	m.nothing(ns)
}

// TestFive : a chain of five, with a published port, a rate and a MTU; after the end of
// the namespace nothing is left of it.
func TestFive(t *testing.T) {
	needPlugins(t, "bridge", "host-local", "tuning", "bandwidth", "firewall", "portmap")
	m := newMachine(t)
	n := m.made("five", "1.0.0", bridge("tfive0", "10.78.0.0/24")+`,
		{"type":"tuning","mtu":1400,"sysctl":{"net.ipv4.conf.eth0.log_martians":"1"}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}},
		{"type":"firewall","backend":"iptables"},
		{"type":"portmap","capabilities":{"portMappings":true},"snat":true}`)
	if !m.CapsOf(n).Publish {
		t.Error("no ports can be published")
	}
	a, ns := m.container(n, "c1")
	a.Publish = []network.Publish{{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 8087, ContainerPort: 80, Count: 1}}
	a.Endpoint.Options = map[string]string{"isle.cni.egress_rate": "50M", "isle.cni.ingress_rate": "50M"}
	res, err := m.Attach(t.Context(), a) // no CHECK: portmap 1.1.1 misses the rules of IPv6, which it has not made
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ns, "c1")
	if got, err := dial("10.78.0.1:8087"); err != nil || got != "c1" {
		t.Error(got, err)
	}
	if out := ns.Run("ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1400") {
		t.Error(out)
	}
	if out := run(t, "tc", "qdisc"); !strings.Contains(out, "tbf") || !strings.Contains(out, "rate 50Mbit") {
		t.Error(out)
	}
	if rules := run(t, "iptables-save"); !strings.Contains(rules, res.Addrs[0].Addr().String()+"/32") || !strings.Contains(rules, "8087") {
		t.Error(rules)
	}
	if err := m.dir.Delete("c1"); err != nil {
		t.Fatal(err)
	}
	m.restart()
	a.NSPath, a.Publish = "", nil
	if err := m.Detach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if left := m.leases(); len(left) > 0 {
		t.Errorf("addresses are left: %q", left)
	}
	if rules := run(t, "iptables-save"); strings.Contains(rules, res.Addrs[0].Addr().String()) || strings.Contains(rules, "8087") {
		t.Errorf("rules are left:\n%s", rules)
	}
}

// TestSeveral : two networks of one container; one goes without the other.
func TestSeveral(t *testing.T) {
	needPlugins(t, "bridge", "host-local")
	m := newMachine(t)
	n := m.made("one", "1.0.0", bridge("tone0", "10.79.0.0/24"))
	n2 := n
	n2.ID = strings.Repeat("cd", 32)
	n2.Options = map[string]string{"isle.cni.conf": m.write("two.conflist", strings.ReplaceAll(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"two","plugins":[%s]}`, bridge("ttwo0", "10.80.0.0/24")), "LEASES", filepath.Join(m.lab.dir, "leases")))}
	if _, err := m.Make(t.Context(), n2); err != nil {
		t.Fatal(err)
	}
	a, ns := m.container(n, "c1")
	b := a
	b.Network, b.Endpoint.Network, b.Endpoint.Interface = n2, n2.ID, "eth1"
	res, res2 := m.attach(a), m.attach(b)
	m.detach(a)
	if out := ns.Run("ip", "addr"); strings.Contains(out, "eth0") || !strings.Contains(out, res2.Addrs[0].String()) {
		t.Error(out)
	}
	m.detach(b)
	m.nothing(ns, append(res.Addrs, res2.Addrs...)...)
}

// TestFailsBehind : a plugin fails behind one that has worked: its address and its
// interface are gone.
func TestFailsBehind(t *testing.T) {
	needPlugins(t, "bridge", "host-local")
	m := newMachine(t)
	n := m.made("fb", "1.0.0", bridge("tfb0", "10.81.0.0/24")+`,{"type":"coded"}`)
	a, ns := m.container(n, "c1")
	if _, err := m.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), "plugin coded: ADD: no address is left") {
		t.Error(err)
	}
	m.nothing(ns)
}

// TestLitter : a plugin leaves its interface in the namespace, after a failing ADD and
// after a DEL that says that all is well; another says so of an ADD that made nothing.
func TestLitter(t *testing.T) {
	needPlugins(t)
	m := newMachine(t)
	a, ns := m.container(m.made("l1", "1.0.0", `{"type":"litter","fail":["ADD"]}`), "c1")
	if _, err := m.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), "plugin litter: ADD: ADD is refused") {
		t.Error(err)
	}
	m.nothing(ns)
	n := m.draft(m.write("l2.conflist", `{"cniVersion":"1.0.0","name":"l2","plugins":[{"type":"litter"}]}`))
	n.ID = strings.Repeat("cd", 32)
	a.Network, a.Endpoint.Network = n, n.ID
	if _, err := m.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	m.attach(a)
	m.detach(a)
	m.nothing(ns)
	n = m.draft(m.write("l3.conflist", `{"cniVersion":"1.0.0","name":"l3","plugins":[{"type":"first"}]}`))
	n.ID = strings.Repeat("ef", 32)
	a.Network, a.Endpoint.Network = n, n.ID
	if _, err := m.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Attach(t.Context(), a); err == nil || !strings.Contains(err.Error(), "plugin first: ADD: it says that all is well, but interface eth0 is not in the container") {
		t.Error(err)
	}
}

// TestIsledDies : a plugin does not outlive who has started it: nobody would undo what
// it does later.
func TestIsledDies(t *testing.T) {
	if os.Getenv("ISLE_TEST_DIES") != "" {
		l := newLab(t)
		go func() {
			for len(pids(l.peek())) < 2 {
				time.Sleep(10 * time.Millisecond)
			}
			fmt.Println("PIDS", pids(l.peek())[0])
			os.Exit(0)
		}()
		_, err := l.Attach(t.Context(), place(l.network("1.0.0", "hang")))
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe", "-test.run=^TestIsledDies$")
	c.Env = append(os.Environ(), "ISLE_TEST_DIES=1", "TMPDIR="+t.TempDir())
	out, err := c.Output()
	var pid int
	if _, serr := fmt.Sscanf(string(out), "PIDS %d", &pid); err != nil || serr != nil {
		t.Fatalf("%v %v: %s", err, serr, out)
	}
	if !gone(pid) {
		t.Errorf("process %d is left", pid)
	}
}

// litter makes an interface and forgets about it.
func litter(c call) int {
	if c.verb == "ADD" {
		out, err := exec.Command("nsenter", "--net="+c.netns, "ip", "link", "add", c.ifname, "type", "veth", "peer", "name", "behind").CombinedOutput()
		if err != nil {
			fmt.Fprintln(os.Stderr, errors.Join(err, errors.New(string(out))))
			return 1
		}
	}
	return answer(c)
}
