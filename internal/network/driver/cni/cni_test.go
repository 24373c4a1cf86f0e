package cni_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/driver/cni"
	"isle/internal/network/driver/drivertest"
)

// lab is a driver with plugins of the test's.
type lab struct {
	*cni.Driver
	t   *testing.T
	dir string
	log string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir, log: filepath.Join(dir, "log")}
	for _, sub := range []string{"bin", "net.d"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name := range fakes {
		if err := os.Symlink(self, filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	l.restart()
	return l
}

// restart is another isled on the same directories.
func (l *lab) restart() {
	l.Driver = cni.New(cni.Config{
		PluginDirs: []string{filepath.Join(l.dir, "none"), filepath.Join(l.dir, "bin")}, ConfDirs: []string{filepath.Join(l.dir, "net.d")},
		StateDir: filepath.Join(l.dir, "state"), Limit: 20 * time.Second,
	})
}

// write writes a file below the lab's directory.
func (l *lab) write(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// list is a configuration with these plugins; each may have more fields behind a blank.
func (l *lab) list(version, name string, plugins ...string) string {
	var all []string
	for _, p := range plugins {
		typ, more, _ := strings.Cut(p, " ")
		if more != "" {
			more = "," + more
		}
		all = append(all, fmt.Sprintf(`{"type":%q,"log":%q%s}`, typ, l.log, more))
	}
	return fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[%s]}`, version, name, strings.Join(all, ","))
}

// network is a network of these plugins that is made.
func (l *lab) network(version string, plugins ...string) network.Network {
	l.t.Helper()
	n := l.draft(l.write("conf.conflist", l.list(version, "lab", plugins...)))
	if err := l.Validate(n); err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.Make(l.t.Context(), n); err != nil {
		l.t.Fatal(err)
	}
	l.calls()
	return n
}

func (l *lab) draft(conf string, opts ...string) network.Network {
	n := network.Network{ID: strings.Repeat("ab", 32), Name: "app", Driver: "cni", IPv4: true, Options: map[string]string{"isle.cni.conf": conf}}
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		n.Options[k] = v
	}
	return n
}

func place(n network.Network) network.Attachment {
	return network.Attachment{Network: n, NS: "c1", NSPath: "/ns", Hostname: "web",
		Endpoint: network.Endpoint{ID: "e1", Network: n.ID, Sandbox: strings.Repeat("c1", 32), ContainerName: "web", Interface: "eth0"}}
}

// calls are what plugins were called with since the last time, one line each.
func (l *lab) calls() []string {
	b, _ := os.ReadFile(l.log)
	os.Remove(l.log)
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// pids are the processes that plugins have told of.
func pids(lines []string) (out []int) {
	for _, line := range lines {
		if s, ok := strings.CutPrefix(line, "pid "); ok {
			pid, _ := strconv.Atoi(s)
			out = append(out, pid)
		}
	}
	return out
}

func isPID(line string) bool { return strings.HasPrefix(line, "pid ") }

func (l *lab) want(what string, want ...string) {
	l.t.Helper()
	got := slices.DeleteFunc(l.calls(), isPID)
	if !slices.Equal(got, want) {
		l.t.Errorf("%s: the plugins were called with\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestLife : all verbs, in their order, and what the plugins are told.
func TestLife(t *testing.T) {
	t.Setenv("ISLE_SECRET", "1")
	l := newLab(t)
	n := l.network("1.1.0", `first "capabilities":{"mac":true}`, "second")
	a := place(n)
	a.Endpoint.Wish = &network.Wish{MAC: netspec.MAC{2, 0, 0, 0, 0, 9}}
	res, err := l.Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	l.want("ADD", `first ADD /ns eth0 {"mac":"02:00:00:00:00:09"}`, "second ADD /ns eth0")
	if want := []netip.Prefix{netip.MustParsePrefix("10.9.0.7/24")}; !slices.Equal(res.Addrs, want) || res.Routed ||
		!slices.Equal(res.Gateways, []netip.Addr{netip.MustParseAddr("10.9.0.1")}) || !slices.Equal(res.Links, []string{"hostside"}) || res.MAC != (netspec.MAC{2, 0, 0, 0, 0, 7}) {
		t.Errorf("%+v", res)
	}
	if err := l.Check(t.Context(), a); err != nil {
		t.Error(err)
	}
	l.want("CHECK", `first CHECK /ns eth0 {"mac":"02:00:00:00:00:09"}`, "second CHECK /ns eth0")
	if err := l.Keep(t.Context(), n, []network.Attachment{a}); err != nil {
		t.Error(err)
	}
	valid := fmt.Sprintf(`[{"containerID":%q,"ifname":"eth0"}]`, a.Endpoint.Sandbox)
	l.want("GC", "first GC    "+valid, "second GC    "+valid)
	a.NSPath, a.Endpoint.Wish = "", nil
	own := `first DEL  eth0 {"mac":"5a:19:13:c2:7e:d7"}` // nobody remembers what ADD was told
	for _, want := range [][]string{{"second DEL  eth0", `first DEL  eth0 {"mac":"02:00:00:00:00:09"}`}, {"second DEL  eth0", own}} {
		if err := l.Detach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		l.want("DEL", want...)
	}
	if err := l.Unmake(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	l.want("GC without any", "first GC    []", "second GC    []")
	for range 2 { // what is not there is no error
		if err := l.Unmake(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if err := l.Detach(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(l.dir, "state", "networks", "*")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// TestBadPlugins : what a plugin in the middle does, what is said of it, and that what
// the others have made is taken away.
func TestBadPlugins(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		is   func(error) bool
	}{
		"hang":      {"did not end within 5s and was killed (hint: -o isle.cni.timeout", errdefs.IsUnavailable},
		"rubbish":   {"hello, world", errdefs.IsUnavailable},
		"number":    {"cannot unmarshal number", errdefs.IsUnavailable},
		"otherjson": {"9.9.9", errdefs.IsUnavailable},
		"silent":    {"it has printed no result", errdefs.IsUnavailable},
		"coded":     {"no address is left: of 10.9.0.0/24 (code 11) (hint: try again later)", errdefs.IsUnavailable},
		"badconf":   {"field x is missing (code 7) (hint: correct the configuration", errdefs.IsInvalidArgument},
		"stderr":    {`exit status 2; it said "panic: [31m all is lost"`, errdefs.IsUnavailable},
		"mute":      {"exit status 3", errdefs.IsUnavailable},
		"killed":    {"signal: killed", errdefs.IsUnavailable},
		"flood":     {"printed more than 1048576 bytes and was killed", errdefs.IsUnavailable},
		"loud":      {`it said "yyyy`, errdefs.IsUnavailable},
		"daemon":    {"a process that it started holds its output open", errdefs.IsUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			n := l.network("1.0.0", "first", name, "last")
			if n.Options["isle.cni.timeout"] = "20s"; name == "hang" {
				n.Options["isle.cni.timeout"] = "5s"
			}
			_, err := l.Attach(t.Context(), place(n))
			if err == nil || !c.is(err) || !strings.Contains(err.Error(), "plugin "+name+": ADD: ") || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %q", err, c.text)
			}
			if err != nil && len(err.Error()) > 3000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			calls := l.calls()
			for _, pid := range pids(calls) {
				if !gone(pid) {
					t.Errorf("process %d is left", pid)
				}
			}
			calls = slices.DeleteFunc(calls, isPID)
			want := []string{"first ADD /ns eth0", name + " ADD /ns eth0", "last DEL /ns eth0", name + " DEL /ns eth0", "first DEL /ns eth0"}
			if !slices.Equal(calls, want) {
				t.Errorf("called: %q, want %q", calls, want)
			}
		})
	}
}

// TestDaemonIsLeft : a plugin may leave a daemon behind that has closed its output.
func TestDaemonIsLeft(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", "service")
	if _, err := l.Attach(t.Context(), place(n)); err != nil {
		t.Fatal(err)
	}
	left := pids(l.calls())
	if len(left) != 1 || syscall.Kill(left[0], 0) != nil {
		t.Fatalf("the daemon %v is gone", left)
	}
	if err := syscall.Kill(left[0], syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestCancelled : who waits no longer ends the plugin, and all is undone.
func TestCancelled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", "first", "hang")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(pids(l.peek())) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	if _, err := l.Attach(ctx, place(n)); err == nil || !strings.Contains(err.Error(), "plugin hang: ADD: it was killed: context canceled") {
		t.Error(err)
	}
	l.want("the end", "first ADD /ns eth0", "hang ADD /ns eth0", "hang DEL /ns eth0", "first DEL /ns eth0")
}

func (l *lab) peek() []string {
	b, _ := os.ReadFile(l.log)
	return strings.Split(string(b), "\n")
}

// TestOthersAreAskedAllTheSame : DEL of one plugin fails; the others are called, and the
// next try is made with what ADD was given.
func TestOthersAreAskedAllTheSame(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", "first", `second "fail":["DEL"]`, "last")
	a := place(n)
	if _, err := l.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	l.calls()
	for range 2 {
		err := l.Detach(t.Context(), a)
		if err == nil || !strings.Contains(err.Error(), "plugin second: DEL: DEL is refused (code 50)") {
			t.Fatal(err)
		}
		l.want("DEL", "last DEL  eth0", "second DEL  eth0", "first DEL  eth0")
	}
}

// TestFileChanges : a network goes on with the configuration that it was made with,
// also after a restart, and when the file is gone.
func TestFileChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", "first")
	a := place(n)
	if _, err := l.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	l.write("conf.conflist", l.list("1.0.0", "other", "second"))
	l.restart()
	if _, err := l.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(n.Options["isle.cni.conf"]); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	l.calls()
	if err := l.Detach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	l.want("DEL", "first DEL  eth0")
}

// TestOwed : an ADD fails and its DEL too. It is asked again, also after a restart, and
// the network does not go before.
func TestOwed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", `first "fail":["ADD","DEL"]`)
	if _, err := l.Attach(t.Context(), place(n)); err == nil || !strings.Contains(err.Error(), "take away what it has left: plugin first: DEL: DEL is refused") {
		t.Error(err)
	}
	l.want("ADD", "first ADD /ns eth0", "first DEL /ns eth0")
	l.restart()
	if err := l.Unmake(t.Context(), n); err == nil || !strings.Contains(err.Error(), "DEL is refused") || !strings.Contains(err.Error(), "hint: correct what keeps the plugin from it") {
		t.Error(err)
	}
	l.want("DEL", "first DEL  eth0")
	kept := filepath.Join(l.dir, "state", "networks", n.ID, "conf.json")
	b, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, []byte(strings.Replace(string(b), `"fail"`, `"never"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	l.restart()
	if err := l.Unmake(t.Context(), n); err != nil {
		t.Error(err)
	}
	l.want("DEL", "first DEL  eth0")
}

// TestKeep : what no record knows goes, also after a restart; what was attached just now
// stays, whoever knows of it.
func TestKeep(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", `first "capabilities":{"mac":true}`)
	a := place(n)
	a.Endpoint.Wish = &network.Wish{MAC: netspec.MAC{2, 9}}
	if _, err := l.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	l.calls()
	if err := l.Keep(t.Context(), n, nil); err != nil {
		t.Fatal(err)
	}
	l.want("attached by this process")
	l.restart()
	if err := l.Keep(t.Context(), n, []network.Attachment{a}); err != nil {
		t.Fatal(err)
	}
	l.want("known")
	for _, want := range [][]string{{`first DEL  eth0 {"mac":"02:09:00:00:00:00"}`}, nil} {
		if err := l.Keep(t.Context(), n, nil); err != nil {
			t.Fatal(err)
		}
		l.want("unknown", want...)
	}
}

// TestGC : whose GC it is. A configuration that other runtimes may share is theirs too.
func TestGC(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		where, version, more string
		opts                 []string
		called               bool
	}{
		"a file":               {"conf.conflist", "1.1.0", "", nil, true},
		"an old one":           {"conf.conflist", "1.0.0", "", nil, false},
		"a shared one":         {"net.d/conf.conflist", "1.1.0", "", nil, false},
		"shared, but ours":     {"net.d/conf.conflist", "1.1.0", "", []string{"isle.cni.gc=true"}, true},
		"a file, not wanted":   {"conf.conflist", "1.1.0", "", []string{"isle.cni.gc=false"}, false},
		"forbidden by itself":  {"conf.conflist", "1.1.0", `,"disableGC":true`, []string{"isle.cni.gc=true"}, false},
		"forbidden, as a text": {"conf.conflist", "1.1.0", `,"disableGC":"true"`, nil, false},
	} {
		l := newLab(t)
		text := strings.TrimSuffix(l.list(c.version, "lab", "first"), "}") + c.more + "}"
		n := l.draft(l.write(c.where, text), c.opts...)
		made, err := l.Make(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		l.calls()
		if err := l.Keep(t.Context(), n, nil); err != nil {
			t.Fatal(err)
		}
		if called := len(l.calls()) > 0; called != c.called {
			t.Errorf("%s: GC was called: %v", what, called)
		}
		told := slices.ContainsFunc(made.Warnings, func(w string) bool { return strings.HasPrefix(w, "GC is not used") })
		if want := c.version == "1.1.0" && !c.called && c.more == ""; told != want {
			t.Errorf("%s: warnings %q", what, made.Warnings)
		}
	}
}

// TestMake : what keeps a network from being made, and what is only said.
func TestMake(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for text, c := range map[string]struct {
		version, plugin string
		is              func(error) bool
	}{
		"plugin old: it does not know cniVersion 1.0.0 of the configuration, but 0.3.0, 0.3.1": {"1.0.0", "old", errdefs.IsInvalidArgument},
		"plugin first: STATUS: STATUS is refused (code 50) (hint: look whether the daemon":     {"1.1.0", `first "fail":["STATUS"]`, errdefs.IsUnavailable},
	} {
		n := l.draft(l.write("conf.conflist", l.list(c.version, "lab", c.plugin)))
		_, err := l.Make(t.Context(), n)
		if err == nil || !c.is(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
		if _, err := os.Stat(filepath.Join(l.dir, "state", "networks", n.ID)); err == nil {
			t.Errorf("%s: something was kept", text)
		}
	}
	n := l.network("0.3.1", "first")
	n.Internal = true
	made, err := l.Make(t.Context(), n)
	if err != nil || len(made.Warnings) != 4 {
		t.Errorf("%q %v", made.Warnings, err)
	}
	other := n
	other.ID = strings.Repeat("cd", 32)
	if _, err := l.Make(t.Context(), other); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "has the CNI name lab already") {
		t.Error(err)
	}
	if l.CapsOf(n).Publish || l.CapsOf(other).Publish {
		t.Error("ports can be published")
	}
}

// TestNotReadyLater : a network that is there stays when its plugins are not ready.
func TestNotReadyLater(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.1.0", "first")
	kept := filepath.Join(l.dir, "state", "networks", n.ID, "conf.json")
	b, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	b = []byte(strings.Replace(string(b), `"type":"first"`, `"fail":["STATUS"],"type":"first"`, 1))
	if err := os.WriteFile(kept, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l.restart()
	made, err := l.Make(t.Context(), n)
	if err != nil || !slices.ContainsFunc(made.Warnings, func(w string) bool { return strings.Contains(w, "STATUS is refused") }) {
		t.Errorf("%q %v", made.Warnings, err)
	}
}

// TestArguments : what the user asks for and what the plugins are told.
func TestArguments(t *testing.T) {
	t.Parallel()
	const all = `first "capabilities":{"portMappings":true,"bandwidth":true,"ips":true,"aliases":true,"dns":true,"other":true}`
	mac, addr := netspec.MAC{2, 1, 2, 3, 4, 5}, netip.MustParseAddr("10.9.0.50")
	ports := []network.Publish{{Proto: "tcp", HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080, ContainerPort: 80, Count: 2}}
	for what, c := range map[string]struct {
		set  func(a *network.Attachment)
		args string // with all capabilities
		text string // the error without any; "": none, nobody is told
	}{
		"nothing": {func(*network.Attachment) {}, "", ""},
		"ports": {func(a *network.Attachment) { a.Publish = ports },
			`{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"},{"hostPort":8081,"containerPort":81,"protocol":"tcp","hostIP":"127.0.0.1"}]}`, ""},
		"aliases": {func(a *network.Attachment) { a.Endpoint.Names = []string{"web", "www"} }, `{"aliases":["web","www"]}`, ""},
		"mac": {func(a *network.Attachment) { a.Endpoint.Wish = &network.Wish{MAC: mac} }, `{"mac":"02:01:02:03:04:05"}`,
			`MAC address 02:01:02:03:04:05: no plugin of the configuration lab has the capability "mac"`},
		"address": {func(a *network.Attachment) { a.Endpoint.Wish = &network.Wish{Addrs: []netip.Addr{addr}} }, `{"ips":["10.9.0.50/24"]}`, `no plugin of the configuration lab has the capability "ips" (hint:`},
		"address of no subnet": {func(a *network.Attachment) {
			a.Endpoint.Wish = &network.Wish{Addrs: []netip.Addr{netip.MustParseAddr("10.8.0.5")}}
		}, `{"ips":["10.8.0.5"]}`, `has the capability "ips"`},
		"dns": {func(a *network.Attachment) {
			a.Endpoint.Wish = &network.Wish{DNS: network.ResultDNS{Servers: []netip.Addr{addr}, Search: []string{"lan"}, Options: []string{"ndots:2"}}}
		}, `{"dns":{"servers":["10.9.0.50"],"searches":["lan"],"options":["ndots:2"]}}`, ""},
		"rate": {func(a *network.Attachment) {
			a.Endpoint.Options = map[string]string{"isle.cni.egress_rate": "100M", "isle.cni.ingress_rate": "1M", "isle.cni.ingress_burst": "9M"}
		},
			`{"bandwidth":{"ingressRate":1000000,"ingressBurst":9000000,"egressRate":100000000,"egressBurst":10000000}}`, `limit the rate: no plugin`},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for _, able := range []bool{true, false} {
				l := newLab(t)
				plugin := all
				if what == "mac" { // there is always one to tell
					plugin = strings.Replace(all, `"dns":true`, `"mac":true`, 1)
				}
				if !able {
					plugin = strings.ReplaceAll(plugin, "true", "false")
				}
				n := l.network("1.0.0", plugin)
				n.Options["isle.cni.subnet"] = "10.9.0.0/24"
				if l.CapsOf(n).Publish != able {
					t.Error("ports can be published: ", !able)
				}
				a := place(n)
				c.set(&a)
				_, err := l.Attach(t.Context(), a)
				switch {
				case able:
					l.want("able", strings.TrimSpace("first ADD /ns eth0 "+c.args))
				case c.text != "":
					l.want("unable")
				default:
					l.want("unable", "first ADD /ns eth0")
				}
				if fails := !able && c.text != ""; fails != (err != nil) || fails && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text)) {
					t.Errorf("able %v: %v, want %q", able, err, c.text)
				}
			}
		})
	}
}

// TestCannotBeTold : what no plugin can be told about a port is an error.
func TestCannotBeTold(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", `first "capabilities":{"portMappings":true}`)
	for _, p := range []network.Publish{{HostPort: 1, ContainerPort: 80, Iface: "eth1"}, {HostPort: 1, ContainerPort: 80, From: "10.0.0.0/8"}} {
		a := place(n)
		a.Publish = []network.Publish{p}
		if _, err := l.Attach(t.Context(), a); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "neither an interface nor who may connect") {
			t.Error(err)
		}
	}
}

// TestUnread : a plugin that does not read its configuration, however long that is.
func TestUnread(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	n := l.network("1.0.0", `picky "pad":"`+strings.Repeat("x", 900<<10)+`"`)
	if res, err := l.Attach(t.Context(), place(n)); err != nil || len(res.Addrs) != 1 {
		t.Error(res, err)
	}
}

// configured is a driver whose networks have a configuration.
type configured struct {
	*cni.Driver
	conf string
}

func (c configured) Validate(n network.Network) error {
	n.Options = maps.Clone(n.Options)
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	n.Options["isle.cni.conf"] = c.conf
	return c.Driver.Validate(n)
}

func TestConformance(t *testing.T) {
	l := newLab(t)
	conf := l.write("conf.conflist", l.list("1.0.0", "lab", "first"))
	drivertest.Run(t, configured{l.Driver, conf}, map[string]string{"isle.cni.timeout": "3s", "isle.cni.ingress_rate": "10M"})
}

// TestPlan : Isle adds the settings of the interface once it is there.
func TestPlan(t *testing.T) {
	t.Parallel()
	ep := network.Endpoint{Sandbox: "c1", Interface: "eth0", Options: map[string]string{network.OptSysctls: "net.ipv4.conf.IFNAME.log_martians=1"}}
	s := netspec.State{}
	if err := (&cni.Driver{}).Plan(s, network.Network{}, []network.Endpoint{ep}, drivertest.Host); err != nil || len(s) != 0 {
		t.Error(s, err)
	}
	ep.Result = &network.Result{}
	if err := (&cni.Driver{}).Plan(s, network.Network{}, []network.Endpoint{ep}, drivertest.Host); err != nil || len(s) != 1 {
		t.Error(s, err)
	}
}

// TestRecord : a result is the same after it has been in the record.
func TestRecord(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	res, err := l.Attach(t.Context(), place(l.network("1.0.0", "first")))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var back network.Result
	if err := json.Unmarshal(b, &back); err != nil || !slices.Equal(back.Addrs, res.Addrs) || string(back.Raw) != string(res.Raw) {
		t.Errorf("%s: %+v %v", b, back, err)
	}
}
