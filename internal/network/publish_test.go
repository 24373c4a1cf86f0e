package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/doctor"
	"isle/internal/network/publish"
	"isle/internal/reconcile"
)

func wish(t *testing.T, text string) network.PortRequest {
	t.Helper()
	specs, err := publish.ParseSpecs(text)
	if err != nil {
		t.Fatal(err)
	}
	return network.PortRequest{Specs: specs}
}

func selectors(t *testing.T, texts ...string) (out []publish.Selector) {
	t.Helper()
	for _, text := range texts {
		s, err := publish.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// tcp4 is what the kernel does with TCP ports that are published on IPv4.
func (w *world) tcp4() string {
	var out []string
	for _, o := range w.kernel.State {
		switch o := o.(type) {
		case netspec.Publish:
			if o.HostIP.Is4() {
				out = append(out, fmt.Sprintf("%s%s:%d+%d>%d", o.HostIP, o.Iface, o.HostPort, o.Count, o.ToPort))
			}
		case netspec.Allow:
			out = append(out, fmt.Sprintf("%d from %s", o.HostPort, o.From))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestPublishLive: what a sandbox that is open is given, and what is taken back.
func TestPublishLive(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "web", "bridge")
	before := w.kernel.State
	_, live, cancel := w.events.Subscribe(time.Time{})
	defer cancel()
	got, err := m.Publish(t.Context(), "web", wish(t, "8000-8009:80-89 if=eth9:81:81 90:90;from=10.0.0.0/8"))
	if err != nil || len(got.Added) != 6 || len(got.Removed) != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if is := w.tcp4(); is != "0.0.0.0:8000+10>80 0.0.0.0:90+1>90 0.0.0.0eth9:81+1>81 90 from 10.0.0.0/8" {
		t.Errorf("in the kernel: %s", is)
	}
	if again, err := m.Publish(t.Context(), "web", wish(t, "8000-8009:80-89")); err != nil || len(again.Added) != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if more, err := m.Publish(t.Context(), "web", wish(t, "8005-8010:85-90")); err != nil || fmt.Sprint(more.Added[0].HostPort, more.Added[0].Count) != "8010 1" {
		t.Errorf("what was missing of a row: %+v, %v", more, err)
	}
	if _, err := m.Unpublish(t.Context(), "web", selectors(t, "8003-8009", "8010", "if=eth9:81", "90")); err != nil {
		t.Fatal(err)
	}
	if is := w.tcp4(); is != "0.0.0.0:8000+3>80" {
		t.Errorf("a part of the row was taken back; in the kernel: %s", is)
	}
	if _, err := m.Unpublish(t.Context(), "web", selectors(t, "8000-8002")); err != nil || !w.kernel.State.Equal(before) || len(w.keys("publish/")) != 0 {
		t.Errorf("left: %v, %v", reconcile.Diff(before, w.kernel.State), err)
	}
	var heard []string
	for len(live) > 0 {
		e := <-live
		if e.Type != events.NetworkEventType || e.Actor.Attributes["container"] != "web" {
			t.Errorf("event %+v", e)
		}
		heard = append(heard, string(e.Action)+" "+e.Actor.Attributes["hostPort"]+"+"+e.Actor.Attributes["count"])
	}
	if !slices.Contains(heard, "publish 8000+10") || !slices.Contains(heard, "unpublish 8003+8") {
		t.Errorf("events: %q", heard)
	}
}

// TestPublishRefused: in whose words, and that nothing changes.
func TestPublishRefused(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "web", "bridge")
	open(t, m, "hostly", "host")
	if _, err := m.Publish(t.Context(), "web", wish(t, "8080:80")); err != nil {
		t.Fatal(err)
	}
	open(t, m, "other", "bridge")
	before, keys := w.kernel.State, len(w.keys(""))
	try := func(verb func() (network.Ports, error)) error { _, err := verb(); return err }
	for what, c := range map[string]struct {
		err  error
		is   func(error) bool
		text string
	}{
		"a port of another":    {try(func() (network.Ports, error) { return m.Publish(t.Context(), "other", wish(t, "9000:90 8080:80")) }), errdefs.IsConflict, "container web has 0.0.0.0:8080/tcp"},
		"a row with it":        {try(func() (network.Ports, error) { return m.Publish(t.Context(), "other", wish(t, "8000-8100:1-101")) }), errdefs.IsConflict, "Bind for 0.0.0.0:8080 failed"},
		"every port of it":     {try(func() (network.Ports, error) { return m.SetPorts(t.Context(), "other", wish(t, "8080:80")) }), errdefs.IsConflict, "container web has"},
		"one address of it":    {try(func() (network.Ports, error) { return m.Replace(t.Context(), "other", wish(t, "127.0.0.1:8080:80")) }), errdefs.IsConflict, "container web has"},
		"no such port":         {try(func() (network.Ports, error) { return m.Unpublish(t.Context(), "web", selectors(t, "8080", "8081")) }), errdefs.IsNotFound, "container web does not publish 8081/tcp"},
		"the host's namespace": {try(func() (network.Ports, error) { return m.Publish(t.Context(), "hostly", wish(t, "9000:90")) }), errdefs.IsInvalidArgument, "host's network"},
		"not open":             {try(func() (network.Ports, error) { return m.Publish(t.Context(), "gone", wish(t, "9000:90")) }), errdefs.IsNotFound, "is not open"},
	} {
		t.Run(what, func(t *testing.T) { refused(t, c.err, c.is, c.text) })
	}
	if !w.kernel.State.Equal(before) || len(w.keys("")) != keys {
		t.Errorf("changed: %v", reconcile.Diff(before, w.kernel.State))
	}
}

// TestReplace: a port changes hands in one change of the kernel, in which it is
// never without a container; when that fails nobody notices.
func TestReplace(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "blue", "bridge")
	open(t, m, "green", "bridge")
	if _, err := m.Publish(t.Context(), "blue", wish(t, "8000-8009:80-89")); err != nil {
		t.Fatal(err)
	}
	before := w.kernel.State
	for n := 1; ; n++ {
		w.kernel.N, w.kernel.FailAt = 0, n
		batches := w.kernel.Batches
		got, err := m.Replace(t.Context(), "green", wish(t, "8000-8009:80-89"))
		w.kernel.FailAt = 0
		if err != nil {
			if !w.kernel.State.Equal(before) || len(w.published("blue")) != 2 || len(w.published("green")) != 0 {
				t.Fatalf("failed at change %d: %v", n, reconcile.Diff(before, w.kernel.State))
			}
			continue
		}
		if n == 1 {
			t.Error("the kernel was asked for nothing")
		}
		if w.kernel.Batches != batches+1 {
			t.Errorf("%d changes of the kernel", w.kernel.Batches-batches)
		}
		if len(got.Added) != 2 || len(got.Lost["blue"]) != 2 {
			t.Errorf("%+v", got)
		}
		break
	}
	for _, c := range reconcile.Diff(before, w.kernel.State) {
		if c.Old == nil || c.New == nil {
			t.Errorf("%v: the port was nobody's in between", c)
		}
	}
	if len(w.published("blue")) != 0 || len(w.published("green")) != 2 {
		t.Errorf("records: blue %v, green %v", w.published("blue"), w.published("green"))
	}
	if again, err := m.Replace(t.Context(), "green", wish(t, "8000-8009:80-89")); err != nil || len(again.Added)+len(again.Lost) != 0 {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if _, err := m.Replace(t.Context(), "green", wish(t, "8004:99")); err != nil || !strings.Contains(w.tcp4(), "0.0.0.0:8004+1>99") {
		t.Errorf("to another port of its own: %v, %s", err, w.tcp4())
	}
	if _, err := m.Replace(t.Context(), "blue", wish(t, "8002:70")); err != nil || w.tcp4() != "0.0.0.0:8000+2>80 0.0.0.0:8002+1>70 0.0.0.0:8003+1>83 0.0.0.0:8004+1>99 0.0.0.0:8005+5>85" {
		t.Errorf("one port of a row: %v, %s", err, w.tcp4())
	}
}

// TestReplaceKeepsTheList: a port that changes hands is not opened to others,
// unless that is asked for.
func TestReplaceKeepsTheList(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "blue", "bridge")
	open(t, m, "green", "bridge")
	if _, err := m.Publish(t.Context(), "blue", wish(t, "9301:80;from=10.77.0.0/16")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ who, want, kernel string }{
		{"green", "9301:80", "0.0.0.0:9301+1>80 9301 from 10.77.0.0/16"},
		{"green", "9301:81", "0.0.0.0:9301+1>81 9301 from 10.77.0.0/16"},
		{"blue", "9301:80;from=10.88.0.0/16", "0.0.0.0:9301+1>80 9301 from 10.88.0.0/16"},
		{"blue", "9301:80;from=0.0.0.0/0,::/0", "0.0.0.0:9301+1>80 9301 from 0.0.0.0/0"},
	} {
		if _, err := m.Replace(t.Context(), c.who, wish(t, c.want)); err != nil || w.tcp4() != c.kernel {
			t.Errorf("%s to %s: %s, %v; want %s", c.want, c.who, w.tcp4(), err, c.kernel)
		}
	}
}

// TestReplaceCrash: wherever the process dies, the port is one container's.
func TestReplaceCrash(t *testing.T) {
	for n := 1; n < 8; n++ {
		w := newWorld()
		m := w.start(t)
		open(t, m, "blue", "bridge")
		open(t, m, "green", "bridge")
		if _, err := m.Publish(t.Context(), "blue", wish(t, "8000-8009:80-89")); err != nil {
			t.Fatal(err)
		}
		w.kernel.N, w.kernel.CrashAt = 0, n
		func() {
			defer func() {
				if p := recover(); p != nil && p != any(kerneltest.ErrCrash) {
					panic(p)
				}
			}()
			_, _ = m.Replace(t.Context(), "green", wish(t, "8002-8003:80-81"))
		}()
		w.kernel.CrashAt = 0
		w.start(t)
		if is := w.tcp4(); is != "0.0.0.0:8000+2>80 0.0.0.0:8002+2>80 0.0.0.0:8004+6>84" {
			t.Errorf("dead at change %d: %s", n, is)
		}
	}
}

// TestSetPorts: what was there before and is wanted is not touched.
func TestSetPorts(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "web", "bridge")
	if _, err := m.SetPorts(t.Context(), "web", wish(t, "8080:80 81 9000:90")); err != nil {
		t.Fatal(err)
	}
	chosen := w.published("web")
	w.kernel.N = 0
	if got, err := m.SetPorts(t.Context(), "web", wish(t, "8080:80 81 9000:90")); err != nil || w.kernel.N != 0 || len(got.Added)+len(got.Removed) != 0 {
		t.Errorf("the same once more: %+v, %v, %d changes of the kernel", got, err, w.kernel.N)
	}
	got, err := m.SetPorts(t.Context(), "web", wish(t, "8080:82 81"))
	if err != nil || len(got.Added) != 2 || len(got.Removed) != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, p := range w.published("web") {
		if p.ContainerPort == 81 && !slices.Contains(chosen, p) {
			t.Errorf("the port that we chose has become %v; it was one of %v", p, chosen)
		}
	}
	if got, err := m.SetPorts(t.Context(), "web", network.PortRequest{}); err != nil || len(w.published("web")) != 0 || len(w.keys("publish/")) != 0 {
		t.Errorf("none: %+v, %v", got, err)
	}
}

// TestPortsOffTheNetwork: a sandbox without a network keeps its ports, but shows
// none, and nothing leads anywhere.
func TestPortsOffTheNetwork(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "web", "bridge")
	if _, err := m.Publish(t.Context(), "web", wish(t, "8080:80")); err != nil {
		t.Fatal(err)
	}
	n, err := m.Find(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Disconnect(t.Context(), "web", n.ID); err != nil {
		t.Fatal(err)
	}
	if all, shown, err := m.Published("web"); err != nil || len(all) != 2 || len(shown) != 0 || w.tcp4() != "" {
		t.Errorf("%v, shown %v, %v; in the kernel: %s", all, shown, err, w.tcp4())
	}
	if got, err := m.Publish(t.Context(), "web", wish(t, "8081:81")); err != nil || len(got.Warnings) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := m.Connect(t.Context(), "web", network.ConnectRequest{Network: n.ID, ContainerName: "web"}); err != nil {
		t.Fatal(err)
	}
	if _, shown, err := m.Published("web"); err != nil || len(shown) != 2 || w.tcp4() != "0.0.0.0:8080+2>80" {
		t.Errorf("shown %v, %v; in the kernel: %s", shown, err, w.tcp4())
	}
}

// TestPortEventsHaveAnActor: the network that carries the port, or one that the
// sandbox is on, or the container.
func TestPortEventsHaveAnActor(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	inner := create(t, m, api.CreateRequest{Name: "inner", Internal: true})
	bridge, err := m.Find(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	open(t, m, "on", "bridge")
	open(t, m, "in", "inner")
	open(t, m, "off")
	for who, want := range map[string]string{"on": "network " + bridge.ID, "in": "network " + inner.ID, "off": "container off"} {
		_, live, cancel := w.events.Subscribe(time.Time{})
		if _, err := m.Publish(t.Context(), who, wish(t, "80")); err != nil {
			t.Error(err)
		}
		if e := <-live; fmt.Sprint(e.Type, " ", e.Actor.ID) != want {
			t.Errorf("%s: %+v, want %s", who, e, want)
		}
		cancel()
	}
}

// TestRoutedTakesNoPort: without NAT a port is open at the container's own address,
// and none of the host is taken: as many containers as like can have it. It is taken
// when the container comes to where it is needed, unless another has it.
func TestRoutedTakesNoPort(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	all := doors{}
	m.Ports.Holder = all
	no := false
	rt := create(t, m, api.CreateRequest{Name: "rt", EnableIPv6: &no, Options: map[string]string{network.OptGatewayMode4: "routed"}})
	bridge, err := m.Find(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	shown := func(id string) (out string) {
		t.Helper()
		_, ports, err := m.Published(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range ports[api.MustParsePort("80/tcp")] {
			out += b.HostIP.String() + "=" + b.HostPort + " "
		}
		return out
	}
	is := func(when, a, b, c string, sockets int) {
		t.Helper()
		if is := []string{shown("a"), shown("b"), shown("c")}; is[0] != a || is[1] != b || is[2] != c || len(all) != sockets {
			t.Errorf("%s: shown %q, %d sockets", when, is, len(all))
		}
	}
	for id, net := range map[string]string{"a": "rt", "b": "rt", "c": "bridge"} {
		req := request(id, nil, net)
		req.Ports = wish(t, "8080:80")
		if _, err := m.Open(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	is("at first", "0.0.0.0= ", "0.0.0.0= ", "0.0.0.0=8080 ::=8080 ", 2)
	if _, err := m.Publish(t.Context(), "a", wish(t, "8080:81")); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "itself") {
		t.Errorf("one port twice: %v", err)
	}
	if got, err := m.Replace(t.Context(), "b", wish(t, "8080:80")); err != nil || len(got.Lost) != 0 {
		t.Errorf("there is nothing to take over: %+v, %v", got, err)
	}
	again := func() {
		t.Helper()
		m = w.manager()
		clear(all)
		m.Ports.Holder = all
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	again()
	is("after a start", "0.0.0.0= ", "0.0.0.0= ", "0.0.0.0=8080 ::=8080 ", 2)
	join := func(id string, n network.Network) error {
		_, err := m.Connect(t.Context(), id, network.ConnectRequest{Network: n.ID, ContainerName: id})
		return err
	}
	before := w.kernel.State
	if err := join("a", bridge); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "container c has 0.0.0.0:8080/tcp") || !w.kernel.State.Equal(before) {
		t.Errorf("to where the port is another's: %v", err)
	}
	if _, err := m.Unpublish(t.Context(), "c", selectors(t, "8080")); err != nil {
		t.Fatal(err)
	}
	w.kernel.N, w.kernel.FailAt = 0, 1
	if err := join("a", bridge); err == nil {
		t.Error("the kernel refused, and nobody said so")
	}
	w.kernel.FailAt = 0
	is("after the kernel refused", "0.0.0.0= ", "0.0.0.0= ", "", 0)
	if err := join("a", bridge); err != nil {
		t.Fatal(err)
	}
	is("on both networks", "0.0.0.0=8080 ::=8080 ", "0.0.0.0= ", "", 2)
	again()
	is("on both networks, after a start", "0.0.0.0=8080 ::=8080 ", "0.0.0.0= ", "", 2)
	if err := join("b", bridge); !errdefs.IsConflict(err) {
		t.Errorf("the second: %v", err)
	}
	if err := m.Disconnect(t.Context(), "a", bridge.ID); err != nil {
		t.Fatal(err)
	}
	is("back", "0.0.0.0= ", "0.0.0.0= ", "", 0)
	for _, id := range []string{"a", "b"} {
		if err := m.Disconnect(t.Context(), id, rt.ID); err != nil {
			t.Fatal(err)
		}
	}
	is("off all networks", "", "", "", 0)
	if keys := w.keys("publish/"); len(keys) != 0 {
		t.Errorf("taken: %v", keys)
	}
	if err := join("b", bridge); err != nil {
		t.Fatal(err)
	}
	is("the second", "", "0.0.0.0=8080 ::=8080 ", "", 2)
	for _, id := range []string{"a", "b", "c"} {
		if err := m.Close(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if keys := w.keys("publish/"); len(keys) != 0 || len(all) != 0 {
		t.Errorf("left: %v, %v", keys, all)
	}
}

// TestPortWarnings: the same for a container that is to be and for one that runs.
func TestPortWarnings(t *testing.T) {
	m := newWorld().start(t)
	create(t, m, api.CreateRequest{Name: "inner", Internal: true})
	yes := true
	create(t, m, api.CreateRequest{Name: "six", EnableIPv6: &yes, Options: map[string]string{network.OptGatewayMode6: "routed"}})
	create(t, m, api.CreateRequest{Name: "routed", EnableIPv6: &yes, Options: map[string]string{network.OptGatewayMode4: "routed", network.OptGatewayMode6: "routed"}})
	for _, c := range []struct {
		networks []string
		want     string
	}{
		{nil, "on no network"}, {[]string{"inner"}, "internal networks only"}, {[]string{"bridge"}, ""}, {[]string{"inner", "bridge"}, ""},
		{[]string{"six"}, "only for IPv6"}, {[]string{"routed"}, "own addresses only"}, {[]string{"bridge", "routed"}, "only for IPv6"},
	} {
		id := "on-" + strings.Join(c.networks, "-")
		open(t, m, id, c.networks...)
		live, err := m.Publish(t.Context(), id, wish(t, "80"))
		if err != nil {
			t.Fatal(err)
		}
		for what, got := range map[string][]string{"to be": m.PortWarnings(c.networks), "runs": live.Warnings} {
			if is := strings.Join(got, "\n"); !strings.Contains(is, c.want) || (is == "") != (c.want == "") {
				t.Errorf("%s on %v: %q, want %q", what, c.networks, is, c.want)
			}
		}
	}
}

// doors are sockets in memory: at which port, and where it leads.
type doors map[netip.AddrPort]*door

type door struct {
	all doors
	at  netip.AddrPort
	way publish.Way
}

func (d doors) Hold(_ string, at netip.AddrPort) (publish.Held, error) {
	for other := range d {
		if other.Port() == at.Port() && other.Addr().Is4() == at.Addr().Is4() {
			return nil, errdefs.ErrConflict
		}
	}
	d[at] = &door{all: d, at: at}
	return d[at], nil
}
func (doors) Check(publish.Mapping) error { return nil }
func (doors) Close()                      {}
func (d *door) Forward(w publish.Way)     { d.way = w }
func (d *door) Close() error              { delete(d.all, d.at); return nil }
func (d doors) leadsTo(at string) netip.AddrPort {
	if d := d[netip.MustParseAddrPort(at)]; d != nil {
		return d.way.To
	}
	return netip.AddrPort{}
}

// TestHeldAtLast: a port that another program has when isled starts is told of, and
// is held and leads to the container when the other is gone.
func TestHeldAtLast(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "web", "bridge")
	if _, err := m.Publish(t.Context(), "web", wish(t, "127.0.0.1:8080:80")); err != nil {
		t.Fatal(err)
	}
	all := doors{}
	other, err := all.Hold("tcp", netip.MustParseAddrPort("127.0.0.1:8080"))
	if err != nil {
		t.Fatal(err)
	}
	m = w.manager()
	m.Ports.Holder, m.Surroundings = all, func(context.Context) (doctor.Host, error) { return doctor.Host{}, nil }
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := func() bool {
		found, err := m.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Subject == "port 8080/tcp of container web" })
	}
	if !told() {
		t.Error("the doctor is silent")
	}
	other.Close()
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if is := all.leadsTo("127.0.0.1:8080"); is.Port() != 80 || told() {
		t.Errorf("leads to %v, told of: %t", is, told())
	}
}

// TestSocketsComeBack: a port that was to move to another address, and did not,
// is held where it was and leads where it did.
func TestSocketsComeBack(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	all := doors{}
	m.Ports.Holder = all
	open(t, m, "web", "bridge")
	if _, err := m.Publish(t.Context(), "web", wish(t, "127.0.0.1:8080:80")); err != nil {
		t.Fatal(err)
	}
	to := all.leadsTo("127.0.0.1:8080")
	if to.Port() != 80 {
		t.Fatalf("leads to %v", to)
	}
	w.kernel.N, w.kernel.FailAt = 0, 1
	if _, err := m.SetPorts(t.Context(), "web", wish(t, "0.0.0.0:8080:80")); err == nil {
		t.Error("the kernel refused, and nobody said so")
	}
	w.kernel.FailAt = 0
	if is := all.leadsTo("127.0.0.1:8080"); is != to || len(all) != 1 {
		t.Errorf("after the kernel refused: leads to %v, want %v; %d sockets", is, to, len(all))
	}
	if _, err := m.Publish(t.Context(), "web", wish(t, "9000:90")); err != nil {
		t.Fatal(err)
	}
	open(t, m, "other", "bridge")
	if _, err := m.Publish(t.Context(), "other", wish(t, "9001:90")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.SetPorts(t.Context(), "web", wish(t, "0.0.0.0:8080:80 9001:90")); !errdefs.IsConflict(err) {
		t.Errorf("one of them is another's: %v", err)
	}
	if is := all.leadsTo("127.0.0.1:8080"); is != to {
		t.Errorf("after a conflict: leads to %v, want %v", is, to)
	}
	if _, err := m.SetPorts(t.Context(), "web", wish(t, "0.0.0.0:8080:80")); err != nil || all.leadsTo("0.0.0.0:8080") != to {
		t.Errorf("leads to %v, want %v: %v", all.leadsTo("0.0.0.0:8080"), to, err)
	}
}
