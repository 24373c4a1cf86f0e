package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"isle/internal/fabric"
	"isle/internal/fabric/fabrictest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/driver/drivertest"
	"isle/internal/network/driver/remote"
	"isle/internal/reconcile"
)

var update = flag.Bool("update", false, "write what was said into testdata")

// golden compares what was said with a page of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got)\n%s", name, d)
	}
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, remote.New(remote.Config{}).Driver("x"), map[string]string{"any": "thing"})
}

// TestConversation : what a plugin is told in the life of a network, word for word.
func TestConversation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		caps   string
		change func(*network.Network, *network.Attachment)
	}{
		"local.txt":    {`{"Scope":"local"}`, func(*network.Network, *network.Attachment) {}},
		"global.txt":   {`{"Scope":"global","ConnectivityScope":"global","GwAllocChecker":true}`, func(*network.Network, *network.Attachment) {}},
		"nothing.txt":  {`{"Scope":"local"}`, bare},
		"internal.txt": {`{"Scope":"local"}`, func(n *network.Network, _ *network.Attachment) { n.Internal = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			f := answering("NetworkDriver", map[string]any{
				"NetworkDriver.GetCapabilities": c.caps, "NetworkDriver.Join": goodJoin,
				"NetworkDriver.AllocateNetwork":  `{"Options":{"vni":"42"}}`,
				"NetworkDriver.EndpointOperInfo": `{"Value":{"bridge":"br-x"}}`,
			})
			s.run("x", f)
			r := s.registry()
			d := s.lookUp(r, "x")
			n := app()
			a := web(n)
			c.change(&n, &a)
			a.Network = n
			live(t, d, n, a)
			if !s.seats.empty() {
				t.Error("a link was not returned")
			}
			golden(t, name, strings.NewReplacer(n.ID, "NETWORK", a.Endpoint.ID, "ENDPOINT").Replace(strings.Join(f.heard, "\n"))+"\n")
		})
	}
}

// bare is a network without addresses, and an endpoint with nothing but a MAC address.
func bare(n *network.Network, a *network.Attachment) {
	n.Pools, n.IPAMDriver, n.Options = nil, "null", nil
	a.Endpoint.Addrs, a.Endpoint.Options, a.Publish = nil, nil, nil
	a.Endpoint.MAC = netspec.MAC{2, 0, 0, 0, 0, 1}
}

// live is a network's whole life.
func live(t *testing.T, d network.External, n network.Network, a network.Attachment) {
	t.Helper()
	if _, err := d.Make(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	res, err := d.Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	a.Endpoint.Result = &res
	if err := errors.Join(d.Check(t.Context(), a), d.Keep(t.Context(), n, []network.Attachment{a}), d.Detach(t.Context(), a), d.Unmake(t.Context(), n)); err != nil {
		t.Fatal(err)
	}
}

// TestResult : what Isle makes of good answers.
func TestResult(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("NetworkDriver", map[string]any{
		"NetworkDriver.CreateEndpoint": `{"Interface":{"MacAddress":"02:00:00:00:00:aa","AddressIPv6":"fd00:9::5/64"}}`,
		"NetworkDriver.Join": `{"InterfaceName":{"SrcName":"p0"},"Gateway":"169.254.1.1","StaticRoutes":[
			{"Destination":"169.254.1.1/32","RouteType":1},{"Destination":"10.20.3.4/16","NextHop":"10.9.0.9"},
			{"Destination":"10.9.0.0/24","RouteType":1},{"Destination":"::/0","NextHop":"fe80::9"}]}`,
		"NetworkDriver.EndpointOperInfo": `{"Value":{"bridge":"br-x"}}`,
	})
	s.run("x", f)
	d := s.lookUp(s.registry(), "x")
	a := web(app())
	a.Endpoint.Addrs = a.Endpoint.Addrs[:1]
	res, err := d.Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.MarshalIndent(res, "", "  ")
	state := netspec.State{}
	a.Endpoint.Result = &res
	if err := d.Plan(state, a.Network, []network.Endpoint{a.Endpoint}, drivertest.Host); err != nil {
		t.Fatal(err)
	}
	golden(t, "result.txt", string(got)+"\n\n"+reconcile.Dump(state))
	if w := s.seats.took[0]; w.Source != "p0" || w.Name != "eth0" || w.MAC != (netspec.MAC{2, 0, 0, 0, 0, 0xaa}) || !w.IPv6 || w.NSPath != a.NSPath || w.Owner != a.Endpoint.ID || len(w.Addrs) != 2 {
		t.Errorf("seat %+v", w)
	}
}

// TestNoLink : a plugin may leave a container without a link of its network.
func TestNoLink(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run("x", answering("NetworkDriver", nil))
	d := s.lookUp(s.registry(), "x")
	a := web(app())
	res, err := d.Attach(t.Context(), a)
	if err != nil || len(res.Addrs) != 0 || len(s.seats.took) != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	a.Endpoint.Result = &res
	state := netspec.State{}
	if err := d.Plan(state, a.Network, []network.Endpoint{a.Endpoint}, drivertest.Host); err != nil || len(state) != 0 {
		t.Errorf("%v, %v", state, err)
	}
	if err := errors.Join(d.Check(t.Context(), a), d.Detach(t.Context(), a)); err != nil {
		t.Error(err)
	}
}

// TestAttachRefused : each thing that can go wrong on the way has its text, and leaves
// nothing behind.
func TestAttachRefused(t *testing.T) {
	t.Parallel()
	// A plugin that takes away what it refuses to make may have had it.
	again := "CreateEndpoint RevokeExternalConnectivity Leave DeleteEndpoint CreateEndpoint"
	endpoint := func(v string) map[string]any {
		return map[string]any{"NetworkDriver.CreateEndpoint": `{"Interface":` + v + `}`}
	}
	join := func(v string) map[string]any { return map[string]any{"NetworkDriver.Join": v} }
	named := func(rest string) map[string]any {
		return join(`{"InterfaceName":{"SrcName":"p0"},` + rest + `}`)
	}
	for text, c := range map[string]struct {
		answers map[string]any
		after   string // the calls that take back
	}{
		"plugin x: remote: no more ports":                                               {map[string]any{"NetworkDriver.CreateEndpoint": `{"Err":"no more ports"}`}, again},
		"plugin x: NetworkDriver.CreateEndpoint: no more ports":                         {map[string]any{"NetworkDriver.CreateEndpoint": failure{500, `{"Err":"no more ports"}`}}, again},
		"plugin x: NetworkDriver.CreateEndpoint: <h1>broken</h1>":                       {map[string]any{"NetworkDriver.CreateEndpoint": failure{502, "<h1>broken</h1>\n"}}, again},
		"plugin x: NetworkDriver.CreateEndpoint: the answer is not understood":          {map[string]any{"NetworkDriver.CreateEndpoint": "hello"}, "CreateEndpoint DeleteEndpoint"},
		"plugin x: NetworkDriver.CreateEndpoint: the answer is empty":                   {map[string]any{"NetworkDriver.CreateEndpoint": ""}, "CreateEndpoint DeleteEndpoint"},
		"endpoint interface IP present (10.9.0.2/24). Cannot be modified with 10.9.0.3": {endpoint(`{"Address":"10.9.0.3/24"}`), "CreateEndpoint DeleteEndpoint"},
		"invalid CIDR address: 10.9.0.3":                                                {endpoint(`{"Address":"10.9.0.3"}`), "CreateEndpoint DeleteEndpoint"},
		"invalid address fd00::1/64":                                                    {endpoint(`{"Address":"fd00::1/64"}`), "CreateEndpoint DeleteEndpoint"},
		"invalid address 127.0.0.1/8":                                                   {endpoint(`{"Address":"127.0.0.1/8"}`), "CreateEndpoint DeleteEndpoint"},
		"invalid address ::ffff:10.0.0.1/100":                                           {endpoint(`{"AddressIPv6":"::ffff:10.0.0.1/100"}`), "CreateEndpoint DeleteEndpoint"},
		`invalid MAC address "01:00:00:00:00:01"`:                                       {endpoint(`{"MacAddress":"01:00:00:00:00:01"}`), "CreateEndpoint DeleteEndpoint"},
		`invalid MAC address "x"`:                                                       {endpoint(`{"MacAddress":"x"}`), "CreateEndpoint DeleteEndpoint"},
		"remote: not today":                                                             {join(`{"Err":"not today"}`), "CreateEndpoint Join DeleteEndpoint"},
		"NetworkDriver.Join: the answer is not understood":                              {join(`[]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		`unable to parse Gateway "10.9.0"`:                                              {named(`"Gateway":"10.9.0"`), "CreateEndpoint Join Leave DeleteEndpoint"},
		`unable to parse Gateway "fe80::1"`:                                             {named(`"Gateway":"fe80::1"`), "CreateEndpoint Join Leave DeleteEndpoint"},
		`unable to parse GatewayIPv6 "fe80::1%eth0"`:                                    {named(`"GatewayIPv6":"fe80::1%eth0"`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"failed to parse nexthop IP x":                                                  {named(`"StaticRoutes":[{"Destination":"10.0.0.0/8","NextHop":"x"}]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		`static route to "10.0.0.0/33": invalid CIDR`:                                   {named(`"StaticRoutes":[{"Destination":"10.0.0.0/33","NextHop":"10.9.0.1"}]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"unknown RouteType 7":                                                           {named(`"StaticRoutes":[{"Destination":"10.0.0.0/8","RouteType":7}]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"a default route without a next hop":                                            {named(`"StaticRoutes":[{"Destination":"0.0.0.0/0","RouteType":1}]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"the gateway is 10.9.0.1 and 10.9.0.2":                                          {named(`"Gateway":"10.9.0.1","StaticRoutes":[{"Destination":"0.0.0.0/0","NextHop":"10.9.0.2"}]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"it is there twice, by 10.9.0.1 and by 10.9.0.2":                                {named(`"StaticRoutes":[{"Destination":"10.0.0.0/8","NextHop":"10.9.0.1"},{"Destination":"10.1.0.0/8","NextHop":"10.9.0.2"}]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"no packets are routed there":                                                   {named(`"StaticRoutes":[{"Destination":"224.0.0.0/4","NextHop":"10.9.0.1"}]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"257 static routes for one endpoint":                                            {named(`"StaticRoutes":[{}` + strings.Repeat(",{}", 256) + `]`), "CreateEndpoint Join Leave DeleteEndpoint"},
		"NetworkDriver.ProgramExternalConnectivity: port 8080 is in use": {map[string]any{"NetworkDriver.Join": goodJoin, "NetworkDriver.ProgramExternalConnectivity": failure{500, `{"Err":"port 8080 is in use"}`}},
			"CreateEndpoint Join ProgramExternalConnectivity Leave DeleteEndpoint"},
		"NetworkDriver.ProgramExternalConnectivity: the answer is empty": {map[string]any{"NetworkDriver.Join": goodJoin, "NetworkDriver.ProgramExternalConnectivity": ""},
			"CreateEndpoint Join ProgramExternalConnectivity RevokeExternalConnectivity Leave DeleteEndpoint"},
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			f := answering("NetworkDriver", c.answers)
			s.run("x", f)
			d := s.lookUp(s.registry(), "x")
			if _, err := d.Make(t.Context(), app()); err != nil {
				t.Fatal(err)
			}
			f.forget()
			if _, err := d.Attach(t.Context(), web(app())); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v, want %q", err, text)
			}
			if f.calls() != c.after {
				t.Errorf("calls %s, want %s", f.calls(), c.after)
			}
			if !s.seats.empty() {
				t.Error("the link is still in the container")
			}
		})
	}
}

// TestLinkRefused : what the kernel's side says of a link ends the operation.
func TestLinkRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("NetworkDriver", map[string]any{"NetworkDriver.Join": goodJoin})
	s.run("x", f)
	s.seats.error = fmt.Errorf("move link eth0: a default route of the host leads over it: %w", errdefs.ErrPermissionDenied)
	_, err := s.lookUp(s.registry(), "x").Attach(t.Context(), web(app()))
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "plugin x: move link eth0") {
		t.Error(err)
	}
	if f.calls() != "CreateEndpoint Join Leave DeleteEndpoint" {
		t.Error(f.calls())
	}
}

// TestDetach : all is attempted, and what is not there is no error.
func TestDetach(t *testing.T) {
	t.Parallel()
	all := "RevokeExternalConnectivity Leave DeleteEndpoint"
	for name, c := range map[string]struct {
		answers map[string]any
		text    string // "": no error
	}{
		"good":                {nil, ""},
		"nothing is there":    {map[string]any{"NetworkDriver.RevokeExternalConnectivity": failure{404, "404 page not found"}, "NetworkDriver.Leave": `{"Err":"no such endpoint"}`, "NetworkDriver.DeleteEndpoint": failure{500, `{"Err":"endpoint x not found"}`}}, ""},
		"only the end counts": {map[string]any{"NetworkDriver.RevokeExternalConnectivity": `{"Err":"never programmed"}`, "NetworkDriver.Leave": `{"Err":"never joined"}`}, ""},
		"refused":             {map[string]any{"NetworkDriver.Leave": `{"Err":"busy"}`, "NetworkDriver.DeleteEndpoint": `{"Err":"locked"}`}, "plugin x: remote: busy\nplugin x: remote: locked"},
		"rubbish":             {map[string]any{"NetworkDriver.Leave": "x"}, "NetworkDriver.Leave: the answer is not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			f := answering("NetworkDriver", c.answers)
			s.run("x", f)
			d := s.lookUp(s.registry(), "x")
			for range 2 {
				f.forget()
				err := d.Detach(t.Context(), web(app()))
				if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("%v, want %q", err, c.text)
				}
				if f.calls() != all {
					t.Error(f.calls())
				}
			}
		})
	}
}

// TestDetachAfterCrash : without a result the link is looked for all the same.
func TestDetachAfterCrash(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run("x", answering("NetworkDriver", nil))
	a := web(app())
	s.seats.in[a.Endpoint.ID] = "p0"
	if err := s.lookUp(s.registry(), "x").Detach(t.Context(), a); err != nil || !s.seats.empty() {
		t.Error(err, s.seats.in)
	}
	s.seats.stuck = errors.New("the kernel says no")
	if err := s.registry().Driver("x").Detach(t.Context(), a); err == nil || !strings.Contains(err.Error(), "the kernel says no") {
		t.Error(err)
	}
	a.NSPath = ""
	if err := s.registry().Driver("x").Detach(t.Context(), a); err != nil {
		t.Error("the namespace is gone:", err)
	}
}

// TestNotActive : one that refuses to be activated has not said that an endpoint is gone.
func TestNotActive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run("x", answering("NetworkDriver", map[string]any{"Plugin.Activate": failure{404, "404 page not found"}}))
	d := s.registry().Driver("x")
	if err := d.Detach(t.Context(), web(app())); err == nil || !strings.Contains(err.Error(), "plugin x: Plugin.Activate: 404 page not found") {
		t.Error(err)
	}
	if err := d.Unmake(t.Context(), app()); err == nil {
		t.Error("a network is gone that nobody was asked for")
	}
}

// TestMakeFails : a network that may be there is taken back.
func TestMakeFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		caps   string
		answer any
		calls  string
	}{
		"refused":         {`{"Scope":"local"}`, `{"Err":"no"}`, "CreateNetwork"},
		"rubbish":         {`{"Scope":"local"}`, "rubbish", "CreateNetwork DeleteNetwork"},
		"refused, global": {`{"Scope":"global"}`, `{"Err":"no"}`, "AllocateNetwork CreateNetwork FreeNetwork"},
		"rubbish, global": {`{"Scope":"global"}`, "rubbish", "AllocateNetwork CreateNetwork DeleteNetwork FreeNetwork"},
	} {
		s := newSite(t)
		f := answering("NetworkDriver", map[string]any{"NetworkDriver.GetCapabilities": c.caps, "NetworkDriver.CreateNetwork": c.answer})
		s.run("x", f)
		if _, err := s.lookUp(s.registry(), "x").Make(t.Context(), app()); err == nil || f.calls() != c.calls {
			t.Errorf("%s: %v, calls %s", name, err, f.calls())
		}
	}
}

// TestWarnings : what cannot be enforced is said when a network is made.
func TestWarnings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run("x", answering("NetworkDriver", nil))
	n := app()
	n.Internal = true
	made, err := s.lookUp(s.registry(), "x").Make(t.Context(), n)
	if err != nil || len(made.Warnings) != 2 || !strings.Contains(made.Warnings[0], "plugin x moves the packets of network app") {
		t.Error(made, err)
	}
}

// TestMakeAgain : a network that an isled before this one made is not made twice, but
// its plugin must be there; who waits for nobody.
func TestMakeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	n := app()
	n.Created = time.Now().Add(-time.Hour)
	f := answering("NetworkDriver", nil)
	stop := s.run("x", f)
	if _, err := s.registry().Driver("x").Make(t.Context(), n); err != nil || f.calls() != "" {
		t.Error(err, f.calls())
	}
	stop()
	for _, created := range []time.Time{n.Created, app().Created} { // neither waits
		n.Created = created
		if _, err := s.registry().Driver("x").Make(t.Context(), n); !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	}
}

// TestNames : who asks for a driver of a name gets one, unless no plugin can have it.
func TestNames(t *testing.T) {
	t.Parallel()
	r := newSite(t).registry()
	for name, want := range map[string]bool{"weave": true, "vieux/net:v1": true, "../x": false, "": false} {
		_, driver := r.Outside(name)
		if _, lender := r.OutsideIPAM(name); driver != want || lender != want {
			t.Errorf("%q: driver %t, lender %t", name, driver, lender)
		}
	}
	d, _ := r.Outside("vieux/net:v1")
	_, err := d.(network.External).Make(t.Context(), app())
	if err := errors.Join(d.Validate(app()), err); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "hint: managed plugins") {
		t.Error(err)
	}
}

// TestForgetful : a plugin that was restarted and forgot a network is told of it again,
// when an endpoint shows that; one that knows it is never told twice.
func TestForgetful(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var known atomic.Bool
	f := answering("NetworkDriver", map[string]any{"NetworkDriver.Join": goodJoin})
	f.set("NetworkDriver.CreateNetwork", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		known.Store(true)
		fmt.Fprint(w, "{}")
	}))
	f.set("NetworkDriver.CreateEndpoint", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !known.Load() {
			fmt.Fprint(w, `{"Err":"what network?"}`)
			return
		}
		fmt.Fprint(w, "{}")
	}))
	stop := s.run("x", f)
	r := s.registry()
	f.set("NetworkDriver.DeleteEndpoint", `{"Err":"what endpoint?"}`)
	d := s.lookUp(r, "x")
	if _, err := d.Make(t.Context(), app()); err != nil {
		t.Fatal(err)
	}
	stop()
	known.Store(false)
	s.run("x", f)
	f.forget()
	if _, err := d.Attach(t.Context(), web(app())); err != nil {
		t.Fatal(err)
	}
	if got := f.calls(); !strings.HasPrefix(got, "CreateEndpoint RevokeExternalConnectivity Leave DeleteEndpoint CreateNetwork CreateEndpoint Join") {
		t.Error(got)
	}
	f.set("NetworkDriver.CreateEndpoint", `{"Err":"full"}`)
	f.forget()
	if _, err := d.Attach(t.Context(), web(app())); err == nil || f.calls() != "CreateEndpoint RevokeExternalConnectivity Leave DeleteEndpoint" {
		t.Errorf("it was told in this life: %v, calls %s", err, f.calls())
	}
}

// TestNeverForgets : the "no" of a plugin that takes a network twice for a mistake is
// its word on the endpoint.
func TestNeverForgets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("NetworkDriver", map[string]any{"NetworkDriver.CreateNetwork": `{"Err":"network exists"}`, "NetworkDriver.CreateEndpoint": `{"Err":"full"}`, "NetworkDriver.DeleteEndpoint": `{"Err":"no such endpoint"}`})
	s.run("x", f)
	d := s.registry().Driver("x")
	for range 2 {
		if _, err := d.Attach(t.Context(), web(app())); err == nil || !strings.Contains(err.Error(), "remote: full") {
			t.Error(err)
		}
	}
	asked := "CreateEndpoint RevokeExternalConnectivity Leave DeleteEndpoint"
	if f.calls() != asked+" CreateNetwork "+asked {
		t.Error(f.calls())
	}
}

// TestAttachAfterCrash : an endpoint that was made before its result was written down is
// made anew, and its link is not in the way.
func TestAttachAfterCrash(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	f := answering("NetworkDriver", map[string]any{"NetworkDriver.Join": goodJoin})
	var there atomic.Bool
	f.set("NetworkDriver.CreateEndpoint", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if there.Swap(true) {
			fmt.Fprint(w, `{"Err":"endpoint exists"}`)
			return
		}
		fmt.Fprint(w, "{}")
	}))
	f.set("NetworkDriver.DeleteEndpoint", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		there.Store(false)
		fmt.Fprint(w, "{}")
	}))
	s.run("x", f)
	for range 2 {
		if _, err := s.registry().Driver("x").Attach(t.Context(), web(app())); err != nil {
			t.Fatal(err)
		}
	}
	s.seats.stuck = errors.New("the kernel says no")
	if _, err := s.registry().Driver("x").Attach(t.Context(), web(app())); err == nil {
		t.Error("a link of before is in the way")
	}
}

// TestNodes : a plugin whose networks reach other hosts is told of them before anything
// else, and of each change; one that is started again is told anew; others never.
func TestNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const global = `{"Scope":"local","ConnectivityScope":"global"}`
	f, local := answering("NetworkDriver", map[string]any{"NetworkDriver.GetCapabilities": global}), answering("NetworkDriver", nil)
	s.run("x", f)
	s.run("y", local)
	r, c := s.registry(), &fabrictest.Cluster{}
	dir := c.Join(fabric.Host{ID: "a", Addr: addr("10.1.1.1")})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Follow(ctx, dir, slog.New(slog.DiscardHandler)) }()
	told := func(f *fake, want ...string) {
		t.Helper()
		slices.Sort(want)
		var got []string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if got = f.nodes(); slices.Equal(got, want) {
				return
			}
		}
		t.Fatalf("told of %q, want %q", got, want)
	}
	self, b1, b2 := `New {"Address":"10.1.1.1","Self":true}`, `New {"Address":"10.1.1.2","Self":false}`, `New {"Address":"10.1.1.3","Self":false}`
	for r.Nodes() == 0 {
		time.Sleep(time.Millisecond)
	}
	for _, name := range []string{"x", "y"} {
		if _, err := r.Driver(name).Make(t.Context(), app()); err != nil {
			t.Fatal(err)
		}
	}
	if calls := f.calls(); strings.Index(calls, "DiscoverNew") > strings.Index(calls, "CreateNetwork") {
		t.Errorf("told of the hosts after it had a network: %s", calls)
	}
	told(f, self)
	other := c.Join(fabric.Host{ID: "b", Addr: addr("10.1.1.2")})
	told(f, self, b1)
	if err := other.Describe(t.Context(), func(h *fabric.Host) { h.Addr = addr("10.1.1.3") }); err != nil {
		t.Fatal(err)
	}
	told(f, self, b1, `Delete {"Address":"10.1.1.2","Self":false}`, b2)
	again := answering("NetworkDriver", map[string]any{"NetworkDriver.GetCapabilities": global})
	if err := os.Remove(s.socket("x")); err != nil {
		t.Fatal(err)
	}
	s.run("x", again)
	if err := r.Driver("x").Unmake(t.Context(), app()); err != nil {
		t.Fatal(err)
	}
	told(again, self, b2)
	c.Expire("b")
	told(again, self, b2, `Delete {"Address":"10.1.1.3","Self":false}`)
	if strings.Contains(local.calls(), "Discover") {
		t.Errorf("a plugin for one host: %s", local.calls())
	}
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Error(err)
	}
}

// TestBadEndpointOptions : a setting that is none is refused before anybody is asked.
func TestBadEndpointOptions(t *testing.T) {
	t.Parallel()
	a := web(app())
	a.Endpoint.Options = map[string]string{network.OptSysctls: "net.ipv4.ip_forward=1"}
	err := remote.New(remote.Config{}).Driver("x").Plan(netspec.State{}, a.Network, []network.Endpoint{a.Endpoint}, drivertest.Host)
	if !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

// TestCancel : who no longer waits is not kept waiting.
func TestCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := s.registry().Driver("x").Attach(ctx, web(app())); err == nil || ctx.Err() == nil {
		t.Errorf("%v before it was ended", err)
	}
}
