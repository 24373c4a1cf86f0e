package network_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/fabric"
	"isle/internal/fabric/fabrictest"
	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/dns"
	"isle/internal/network/doctor"
	"isle/internal/network/seal"
	"isle/internal/reconcile"
)

// member is a host of a cluster. Its news come when the test says so.
type member struct {
	*world
	id    string
	dir   *fabrictest.Directory
	feed  *fabrictest.Feed
	m     *network.Manager
	dns   *dns.Server
	seal  *sealer
	life  time.Duration // of its keys
	pulse ways
	found *[]string // hosts that are reached without a tunnel, as the file says that outlives isled
}

// scout is one that the test speaks for.
type scout struct{ found *[]string }

func (s scout) Proven() []string                                             { return slices.Clone(*s.found) }
func (scout) Run(context.Context, func() network.Errand, func(string, bool)) {}

// tell says to the host whether another one is reached without a tunnel.
func (h *member) tell(t testing.TB, host string, gets bool) {
	*h.found = slices.DeleteFunc(*h.found, func(o string) bool { return o == host })
	if gets {
		*h.found = append(*h.found, host)
	}
	h.m.Gets(t.Context(), host, gets)
}

// gather is a cluster of hosts a, b, c, … whose tunnels begin at 192.0.2.1, .2, …
func gather(t testing.TB, n int) (*fabrictest.Cluster, []*member) {
	t.Helper()
	c := &fabrictest.Cluster{}
	var all []*member
	for i := range n {
		id := string(rune('a' + i))
		h := &member{world: newWorld(), id: id, found: &[]string{}}
		h.kernel.Parents = []string{"eth0"}
		h.machine.host.Sources = true
		h.machine.host.Parents = network.Parents([]network.Parent{{Name: "eth0", MTU: 1500, Up: true, Carrier: true, Addr4: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}})
		h.dir = c.Join(fabric.Host{ID: id, Name: "host-" + id, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})})
		h.begin(t)
		all = append(all, h)
	}
	hear(t, all)
	return c, all
}

// process is a new isled of the host.
func (h *member) process(w *world) *network.Manager {
	m := w.manager()
	if m.Fabric, m.Pulse, m.Scout = h.dir, &h.pulse, (scout{h.found}); h.seal != nil {
		m.Seal, m.Now, m.Config.KeyLife = h.seal, h.seal.now, h.life
	}
	return m
}

// begin starts isled, as after a crash.
func (h *member) begin(t testing.TB) {
	t.Helper()
	if h.feed != nil {
		h.feed.Close()
	}
	h.m = h.process(h.world)
	h.dns = &dns.Server{Log: h.m.Log}
	h.m.DNS = h.dns
	h.machine.listen = (&resolvers{at: map[netspec.NS]string{}, ports: map[netspec.NS][]uint16{}}).listen
	if err := h.m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.dns.Close)
	h.feed = h.dir.Feed()
}

// hear has all hosts follow the news, until there are none.
func hear(t testing.TB, all []*member) {
	t.Helper()
	for again := true; again; {
		again = false
		for _, h := range all {
			for ch, ok := h.feed.Next(); ok; ch, ok = h.feed.Next() {
				h.m.Heard(t.Context(), ch)
				again = true
			}
			_ = h.m.Restore(t.Context()) // the store may be out of reach
		}
	}
}

// right checks that the kernel is what a fresh machine would be given for the records
// and for what the cluster says.
func (h *member) right(t *testing.T) {
	t.Helper()
	fresh := *h.world
	fresh.lan, fresh.outside, fresh.kernel = &lan{}, newOutside(), &kerneltest.Fake{Parents: h.kernel.Parents}
	if err := h.process(&fresh).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := fresh.kernel.State; !h.kernel.State.Equal(want) {
		t.Errorf("host %s: the kernel lacks %v and has %v", h.id, want.Without(h.kernel.State), h.kernel.State.Without(want))
	}
}

func rightAll(t *testing.T, all []*member) {
	t.Helper()
	hear(t, all)
	for _, h := range all {
		h.right(t)
	}
}

// overlay makes a network and waits until all know it.
func overlay(t *testing.T, all []*member, name string) network.Network {
	t.Helper()
	n := create(t, all[0].m, api.CreateRequest{Name: name, Driver: "overlay", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.20.0.0/24")}}}})
	hear(t, all)
	return n
}

// of are the objects of a type that the kernel has for networks.
func of[T netspec.Object](h *member) []T { return only[T](h, false) }

// only are those by which ways to other hosts are tried, or all others.
func only[T netspec.Object](h *member, trials bool) (out []T) {
	for _, o := range h.kernel.State {
		if o, ok := o.(T); ok && trial(o) == trials {
			out = append(out, o)
		}
	}
	return out
}

func trial(o netspec.Object) bool {
	switch o := o.(type) {
	case netspec.VXLAN:
		return o.Master == ""
	case netspec.FDB:
		return o.Alone
	}
	return false
}

func (h *member) resolves(n network.Network, name string) (addrs []netip.Addr) {
	for _, r := range h.dns.List(n.ID) {
		if r.Name == name || strings.HasPrefix(r.Name, name+".") {
			addrs = append(addrs, r.Addr)
		}
	}
	return addrs
}

func TestNoCluster(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	_, err := m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay"})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "isle cluster init") {
		t.Error(err)
	}
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "app", Scope: "swarm"}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

// TestOverlay: containers of two hosts know each other, and a host on which the network
// has no container has nothing of it.
func TestOverlay(t *testing.T) {
	_, all := gather(t, 3)
	a, b, c := all[0], all[1], all[2]
	n := overlay(t, all, "app")
	if n.Scope != "global" || n.Options["com.docker.network.driver.overlay.vxlanid_list"] == "" {
		t.Errorf("%+v", n)
	}
	for _, h := range all {
		if got, err := h.m.Find(t.Context(), "app"); err != nil || got.ID != n.ID || len(h.keys("network/"+n.ID)) > 0 || len(of[netspec.VXLAN](h)) > 0 {
			t.Errorf("host %s: %v %v", h.id, got, err)
		}
	}
	one, two := open(t, a.m, "c1", "app"), open(t, b.m, "c2", "app")
	rightAll(t, all)
	if one.Endpoints[0].Addrs[0] != prefix("10.20.0.2/24") || two.Endpoints[0].Addrs[0] != prefix("10.20.0.3/24") {
		t.Errorf("%v and %v", one.Endpoints[0].Addrs, two.Endpoints[0].Addrs)
	}
	tunnel := of[netspec.VXLAN](a)[0]
	for _, want := range []netspec.Object{
		netspec.FDB{Link: tunnel.Name, MAC: two.Endpoints[0].MAC, Dst: addr("192.0.2.2")},
		netspec.Neigh{Link: tunnel.Master, Addr: addr("10.20.0.3"), MAC: two.Endpoints[0].MAC},
		netspec.Flood{Link: tunnel.Name, Dst: addr("192.0.2.2")}, netspec.TunnelPeer{Addr: addr("192.0.2.2")}, netspec.TunnelPeer{Addr: addr("192.0.2.3")},
		netspec.Tunnel{Port: 4789}, netspec.Route{NS: "c1", Dst: prefix("0.0.0.0/0"), Via: addr("10.20.0.1"), Dev: "eth0"},
	} {
		if got := a.kernel.State[want.Key()]; got != want {
			t.Errorf("%v: %v, want %v", want.Key(), got, want)
		}
	}
	if got := a.resolves(n, "c2"); !slices.Equal(got, []netip.Addr{addr("10.20.0.3")}) {
		t.Errorf("a resolves c2 to %v", got)
	}
	span, err := a.m.Span(t.Context(), "app")
	if err != nil || span.VNI == 0 || !span.Here || len(span.Hosts) != 2 || span.Hosts[1].Name != "host-b" || len(span.Endpoints) != 2 || span.Endpoints[1].MAC != two.Endpoints[0].MAC {
		t.Errorf("%+v, %v", span, err)
	}
	names, err := a.m.Names(t.Context(), "app")
	if err != nil || !slices.ContainsFunc(names, func(r dns.Record) bool { return r.Container == "c2" }) {
		t.Errorf("%+v, %v", names, err)
	}
	if len(of[netspec.VXLAN](c))+len(of[netspec.FDB](c)) > 0 || len(c.resolves(n, "c2")) > 0 {
		t.Error("host c has a part of a network that no container there is on")
	}
	if err := b.m.Close(t.Context(), "c2"); err != nil {
		t.Fatal(err)
	}
	rightAll(t, all)
	if left := len(of[netspec.FDB](a)) + len(of[netspec.Flood](a)) + len(of[netspec.VXLAN](b)) + len(a.resolves(n, "c2")); left > 0 {
		t.Errorf("%d things are left of a container that is gone", left)
	}
}

// TestOverlayPublished: ports lead to the container on the host that it is on.
func TestOverlayPublished(t *testing.T) {
	_, all := gather(t, 2)
	overlay(t, all, "app")
	if _, err := all[0].m.Open(t.Context(), request("web", ports("80/tcp", ":8080"), "app")); err != nil {
		t.Fatal(err)
	}
	rightAll(t, all)
	pub := of[netspec.Publish](all[0])
	if len(pub) == 0 || pub[0].To != addr("10.20.0.2") || pub[0].HostPort != 8080 || len(of[netspec.Publish](all[1])) > 0 {
		t.Errorf("%v and %v", pub, of[netspec.Publish](all[1]))
	}
}

// TestOverlaySame: who gets an address after another, wherever, has the same MAC: the
// caches of the others are right.
func TestOverlaySame(t *testing.T) {
	_, all := gather(t, 2)
	overlay(t, all, "app")
	first := open(t, all[0].m, "c1", "app").Endpoints[0]
	if err := all[0].m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if second := open(t, all[1].m, "c2", "app").Endpoints[0]; second.MAC != first.MAC || second.Addrs[0] != first.Addrs[0] {
		t.Errorf("%v %v, then %v %v", first.Addrs, first.MAC, second.Addrs, second.MAC)
	}
	rightAll(t, all)
}

// TestOverlayWishes: what a user wants of a place is had, or refused, in the whole cluster.
func TestOverlayWishes(t *testing.T) {
	_, all := gather(t, 2)
	overlay(t, all, "app")
	wish := func(id, a string, mac api.HardwareAddr) network.OpenRequest {
		req := request(id, nil, "app")
		req.Networks[0].Settings.MacAddress = mac
		if a != "" {
			req.Networks[0].Settings.IPAMConfig = &api.EndpointIPAMConfig{IPv4Address: addr(a)}
		}
		return req
	}
	out, err := all[0].m.Open(t.Context(), wish("c1", "10.20.0.77", api.HardwareAddr{2, 7, 7, 7, 7, 7}))
	if err != nil || out.Endpoints[0].Addrs[0] != prefix("10.20.0.77/24") || out.Endpoints[0].MAC != (netspec.MAC{2, 7, 7, 7, 7, 7}) {
		t.Fatalf("%v: %v", out, err)
	}
	hear(t, all)
	for what, req := range map[string]network.OpenRequest{
		"an address that another host's has": wish("c2", "10.20.0.77", nil), "its MAC": wish("c2", "", api.HardwareAddr{2, 7, 7, 7, 7, 7}),
		"the gateway": wish("c2", "10.20.0.1", nil), "another subnet": wish("c2", "10.99.0.1", nil), "the broadcast address": wish("c2", "10.20.0.255", nil),
	} {
		_, err := all[1].m.Open(t.Context(), req)
		if !errdefs.IsConflict(err) && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", what, err)
		}
		rightAll(t, all)
		if len(all[1].keys("endpoint/"))+len(of[netspec.VXLAN](all[1])) > 0 {
			t.Errorf("%s: something is left", what)
		}
	}
}

// TestHostDies: with a host its containers are gone everywhere.
func TestHostDies(t *testing.T) {
	c, all := gather(t, 3)
	n := overlay(t, all, "app")
	for i, h := range all {
		open(t, h.m, fmt.Sprint("c", i), "app")
	}
	rightAll(t, all)
	if len(of[netspec.FDB](all[0])) != 2 {
		t.Fatalf("%v", of[netspec.FDB](all[0]))
	}
	all[2].dir.Cut(false)
	c.Expire("c")
	rightAll(t, all[:2])
	if fdb := of[netspec.FDB](all[0]); len(fdb) != 1 || fdb[0].Dst != addr("192.0.2.2") || len(all[0].resolves(n, "c2")) > 0 {
		t.Errorf("a still has %v", fdb)
	}
	for _, p := range of[netspec.TunnelPeer](all[0]) {
		if p.Addr == addr("192.0.2.3") {
			t.Error("a still hears a host that is gone")
		}
	}
	if len(of[netspec.FDB](all[2])) != 2 {
		t.Error("flows of the host that is not heard of do not go on")
	}
	all[2].dir.Heal()
	rightAll(t, all)
	if len(of[netspec.FDB](all[0])) != 2 {
		t.Error("a host that is back is not taken up again")
	}
}

// TestNoQuorum: while the store cannot be reached what is there goes on, changes are
// refused and leave nothing, and what goes is gone in the end.
func TestNoQuorum(t *testing.T) {
	_, all := gather(t, 2)
	a := all[0]
	n := overlay(t, all, "app")
	create(t, a.m, api.CreateRequest{Name: "local"})
	open(t, a.m, "c1", "app")
	open(t, a.m, "c2", "app")
	open(t, all[1].m, "c3", "app")
	hear(t, all)
	a.dir.Cut(false)
	for what, err := range map[string]error{
		"connect": func() error { _, err := a.m.Open(t.Context(), request("c4", nil, "app")); return err }(),
		"create": func() error {
			_, err := a.m.Create(t.Context(), api.CreateRequest{Name: "more", Driver: "overlay"})
			return err
		}(),
		"remove": func() error {
			must(t, a.m.Close(t.Context(), "c1"))
			must(t, a.m.Close(t.Context(), "c2"))
			_, err := a.m.Remove(t.Context(), "app")
			return err
		}(),
	} {
		if !errdefs.IsUnavailable(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := a.m.Find(t.Context(), n.ID); err != nil || got.Name != "app" {
		t.Errorf("%v, %v", got, err)
	}
	open(t, a.m, "c5", "local")
	a.dir.Heal()
	rightAll(t, all)
	if v := a.dir.View(); len(v.Endpoints) != 1 {
		t.Errorf("the cluster has %v", v.Endpoints)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStartWithoutStore: isled that starts while the store cannot be reached leaves all
// as it is, and takes it up again when it can.
func TestStartWithoutStore(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	n := overlay(t, all, "app")
	create(t, a.m, api.CreateRequest{Name: "local"})
	open(t, a.m, "c1", "app", "local")
	open(t, a.m, "c2", "app")
	open(t, b.m, "c3", "app")
	rightAll(t, all)
	before := netspec.State{}
	for k, o := range a.kernel.State {
		before[k] = o
	}
	a.dir.Cut(true)
	a.begin(t)
	for range 2 {
		if missing := before.Without(a.kernel.State); len(missing) > 0 {
			t.Errorf("it took away %v", missing)
		}
		must(t, a.m.Sync(t.Context()))
	}
	if _, err := a.m.Open(t.Context(), request("c4", nil, n.ID)); err == nil {
		t.Error("a container was connected to a network that nobody knows")
	}
	must(t, a.m.Close(t.Context(), "c2")) // before anybody knows what it was on
	open(t, b.m, "c5", "app")             // meanwhile
	a.dir.Heal()
	hear(t, all)
	must(t, a.m.Sync(t.Context()))
	rightAll(t, all)
	if got := a.resolves(n, "c5"); len(got) != 1 {
		t.Errorf("it does not know what was new meanwhile: %v", got)
	}
	if v := a.dir.View(); len(v.Endpoints) != 3 || len(a.keys("endpoint/")) != 2 {
		t.Errorf("the cluster has %v, the records %v", v.Endpoints, a.keys("endpoint/"))
	}
}

// TestRestartWritesNothing: a host on which nothing has changed writes nothing when isled
// starts, however much there is on the others, and when it learns of it; what went
// meanwhile is taken away.
func TestRestartWritesNothing(t *testing.T) {
	_, all := gather(t, 3)
	a, b, c := all[0], all[1], all[2]
	a.seal, b.seal = newSealer("a", time.Now), newSealer("b", time.Now)
	a.begin(t)
	b.begin(t)
	n := overlay(t, all, "app")
	v6 := true
	create(t, a.m, api.CreateRequest{Name: "sealed", Driver: "overlay", EnableIPv6: &v6, Options: map[string]string{"encrypted": ""}})
	create(t, a.m, api.CreateRequest{Name: "local"})
	hear(t, all)
	open(t, a.m, "a1", "app", "local")
	open(t, a.m, "a2", "app", "sealed")
	open(t, b.m, "b0", "sealed")
	const remote = 40
	for i := range remote {
		open(t, all[1+i%2].m, fmt.Sprint("r", i), "app")
	}
	rightAll(t, all)
	if got := len(of[netspec.FDB](a)); got != remote+1 {
		t.Fatalf("%d stations", got)
	}
	restart := func(meanwhile func()) {
		a.kernel.N = 0
		a.dir.Cut(true)
		a.begin(t)
		meanwhile()
		must(t, a.m.Sync(t.Context()))
		a.dir.Heal()
		hear(t, all)
		must(t, a.m.Sync(t.Context()))
	}
	restart(func() {})
	if a.kernel.N != 0 {
		t.Errorf("%d changes of the kernel at a restart", a.kernel.N)
	}
	restart(func() {
		must(t, b.m.Close(t.Context(), "r0"))
		must(t, c.m.Close(t.Context(), "r1"))
	})
	if got := len(of[netspec.FDB](a)); got != remote-1 || a.kernel.N != 4 || len(a.resolves(n, "r0")) > 0 {
		t.Errorf("%d stations after two have gone, %d changes", got, a.kernel.N)
	}
	rightAll(t, all)
}

// TestStationsReturned: of what was deleted, what is wanted is made again, and nothing else
// is looked at or touched.
func TestStationsReturned(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	overlay(t, all, "app")
	open(t, a.m, "c1", "app")
	open(t, b.m, "c2", "app")
	rightAll(t, all)
	var lost reconcile.Scope
	for k, o := range a.kernel.State {
		if k.Rank == netspec.RankNeigh && k.NS == "" && !trial(o) {
			lost.Lost = append(lost.Lost, k)
		}
	}
	if len(lost.Lost) != 3 {
		t.Fatalf("%v", lost.Lost)
	}
	strange := netspec.FDB{Link: of[netspec.VXLAN](a)[0].Name, MAC: netspec.MAC{2, 9}, Dst: addr("192.0.2.9")}
	for _, k := range lost.Lost {
		delete(a.kernel.State, k)
	}
	lost.Lost = append(lost.Lost, strange.Key())
	a.kernel.N = 0
	must(t, a.m.Repair(t.Context(), reconcile.Alarm{Scope: lost}))
	if a.right(t); a.kernel.N != 3 || a.m.Alarms() != 1 {
		t.Errorf("%d changes, %d alarms", a.kernel.N, a.m.Alarms())
	}
	must(t, b.m.Close(t.Context(), "c2"))
	hear(t, all)
	a.kernel.N = 0
	must(t, a.m.Repair(t.Context(), reconcile.Alarm{Scope: lost}))
	if a.right(t); a.kernel.N != 0 || a.m.Alarms() != 1 {
		t.Errorf("%d changes, %d alarms for what we deleted", a.kernel.N, a.m.Alarms())
	}
}

// lagging is a Directory that does not tell of this host itself.
type lagging struct{ *fabrictest.Directory }

func (l lagging) View() fabric.View {
	v := l.Directory.View()
	v.Hosts = maps.Clone(v.Hosts)
	delete(v.Hosts, v.Self)
	return v
}

// TestRestartAfterLease: when isled starts after its lease has ended, its host is not among
// the hosts until it is written down anew. What is there goes on meanwhile.
func TestRestartAfterLease(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	overlay(t, all, "app")
	open(t, a.m, "c1", "app")
	open(t, b.m, "c2", "app")
	rightAll(t, all)
	a.dir.Cut(true)
	a.begin(t)
	a.dir.Heal()
	a.kernel.N = 0
	whole := a.m.Fabric
	a.m.Fabric = lagging{a.dir}
	a.m.Heard(t.Context(), fabric.Change{Reset: true})
	must(t, a.m.Restore(t.Context()))
	must(t, a.m.Sync(t.Context()))
	if v := a.dir.View(); a.kernel.N != 0 || len(v.Endpoints) != 2 {
		t.Errorf("%d changes of the kernel, %d endpoints in the cluster", a.kernel.N, len(v.Endpoints))
	}
	a.m.Fabric = whole
	a.m.Heard(t.Context(), fabric.Change{Hosts: map[string]*fabric.Host{"a": new(a.dir.View().Hosts["a"])}})
	rightAll(t, all)
	if a.kernel.N != 0 {
		t.Errorf("%d changes of the kernel", a.kernel.N)
	}
}

// TestAddressTaken: a host that was not heard of for too long finds that others have its
// containers' addresses: they get others.
func TestAddressTaken(t *testing.T) {
	c, all := gather(t, 2)
	a, b := all[0], all[1]
	overlay(t, all, "app")
	open(t, a.m, "c1", "app")
	hear(t, all)
	a.dir.Cut(false)
	c.Expire("a")
	hear(t, all)
	if out := open(t, b.m, "c2", "app"); out.Endpoints[0].Addrs[0] != prefix("10.20.0.2/24") {
		t.Fatalf("%v", out.Endpoints[0].Addrs)
	}
	a.dir.Heal()
	rightAll(t, all)
	eps, err := a.m.Endpoints(t.Context())
	if err != nil || len(eps) != 1 || eps[0].Addrs[0] == prefix("10.20.0.2/24") || !prefix("10.20.0.0/24").Contains(eps[0].Addrs[0].Addr()) {
		t.Errorf("%v, %v", eps, err)
	}
	if fdb := of[netspec.FDB](b); len(fdb) != 1 || fdb[0].MAC != eps[0].MAC {
		t.Errorf("b has %v, want %v", fdb, eps[0].MAC)
	}
}

// TestForged: what cannot be is ignored, whoever wrote it down.
func TestForged(t *testing.T) {
	c, all := gather(t, 2)
	a := all[0]
	n := overlay(t, all, "app")
	open(t, a.m, "c1", "app")
	rightAll(t, all)
	before := len(a.kernel.State)
	good := func(change func(*fabric.Endpoint)) fabric.Endpoint {
		e := fabric.Endpoint{ID: "e", Network: n.ID, Host: "b", Container: "x", Names: []string{"x"}, Addrs: []netip.Prefix{prefix("10.20.0.9/24")}, MAC: [6]byte{2, 9}}
		change(&e)
		return e
	}
	gw := network.GatewayMAC(n.ID)
	for what, e := range map[string]fabric.Endpoint{
		"no addresses":       good(func(e *fabric.Endpoint) { e.Addrs = nil }),
		"another subnet":     good(func(e *fabric.Endpoint) { e.Addrs = []netip.Prefix{prefix("10.99.0.1/24")} }),
		"no address":         good(func(e *fabric.Endpoint) { e.Addrs = []netip.Prefix{{}} }),
		"the gateway":        good(func(e *fabric.Endpoint) { e.Addrs = []netip.Prefix{prefix("10.20.0.1/24")} }),
		"the network itself": good(func(e *fabric.Endpoint) { e.Addrs = []netip.Prefix{prefix("10.20.0.0/24")} }),
		"the gateway's MAC":  good(func(e *fabric.Endpoint) { e.MAC = gw }),
		"a group's MAC":      good(func(e *fabric.Endpoint) { e.MAC[0] = 3 }),
		"no such network":    good(func(e *fabric.Endpoint) { e.Network = "nothing" }),
		"no such host":       good(func(e *fabric.Endpoint) { e.Host = "nobody" }),
	} {
		c.Forge(e)
		hear(t, all[:1])                                      // host b would take it back
		if extra := len(a.kernel.State) - before; extra > 1 { // a copy goes to a host that says it has an endpoint
			t.Errorf("%s: %d objects more", what, extra)
		}
		if len(of[netspec.FDB](a)) > 0 || len(a.resolves(n, "x")) > 0 {
			t.Errorf("%s: it is believed", what)
		}
	}
	c.Forge(good(func(*fabric.Endpoint) {}))
	hear(t, all[:1])
	if len(of[netspec.FDB](a)) != 1 {
		t.Error("one that can be is not believed")
	}
	rightAll(t, all)
	if len(of[netspec.FDB](a)) > 0 {
		t.Error("its host does not take back what it has not written")
	}
}

// TestForgedNetworks: records of networks that cannot be are ignored.
func TestForgedNetworks(t *testing.T) {
	_, all := gather(t, 1)
	a := all[0]
	good := network.Network{ID: "n1", Name: "x", Driver: "overlay", IPv4: true, Pools: []network.Pool{{Subnet: prefix("10.30.0.0/24"), Gateway: addr("10.30.0.1")}}}
	for what, change := range map[string]func(*fabric.Network, *network.Network){
		"no record":          func(f *fabric.Network, _ *network.Network) { f.Record = []byte("{") },
		"another id":         func(_ *fabric.Network, n *network.Network) { n.ID = "n2" },
		"a driver of a host": func(_ *fabric.Network, n *network.Network) { n.Driver = "bridge" },
		"no such driver":     func(_ *fabric.Network, n *network.Network) { n.Driver = "magic" },
		"a name":             func(f *fabric.Network, _ *network.Network) { f.Name = "../x" },
		"no subnet":          func(_ *fabric.Network, n *network.Network) { n.Pools = []network.Pool{{}} },
		"a gateway outside":  func(_ *fabric.Network, n *network.Network) { n.Pools[0].Gateway = addr("10.31.0.1") },
		"a bad option":       func(_ *fabric.Network, n *network.Network) { n.Options = map[string]string{"encrypted": "perhaps"} },
	} {
		n := good
		n.Pools = slices.Clone(good.Pools)
		f := fabric.Network{ID: "n1", Name: "x", VNI: 5}
		change(&f, &n)
		if f.Record == nil {
			f.Record, _ = json.Marshal(n)
		}
		a.m.Heard(t.Context(), fabric.Change{Networks: map[string]*fabric.Network{"n1": &f}})
		if _, err := a.m.Find(t.Context(), "n1"); !errdefs.IsNotFound(err) {
			t.Errorf("%s: it is believed (%v)", what, err)
		}
	}
	a.right(t)
}

// sealer has the keys of a host, as a file has them: they outlive its processes.
type sealer struct {
	host string
	made int
	keys []seal.Key
	now  func() time.Time
}

func newSealer(host string, now func() time.Time) *sealer {
	s := &sealer{host: host, now: now}
	s.keys = []seal.Key{s.key(0)}
	return s
}

func (s *sealer) key(link int) seal.Key {
	s.made++
	h := sha256.Sum256(fmt.Append(nil, s.host, s.made))
	return seal.Key{Public: base64.StdEncoding.EncodeToString(h[:]), Link: link, Made: s.now()}
}

func (s *sealer) Keys() ([]seal.Key, error) { return slices.Clone(s.keys), nil }

func (s *sealer) Renew() error {
	if len(s.keys) > 1 {
		return errdefs.ErrConflict
	}
	s.keys = []seal.Key{s.key(1 - s.keys[0].Link), s.keys[0]}
	return nil
}

func (s *sealer) Forget(public string) error {
	s.keys = slices.DeleteFunc(s.keys, func(k seal.Key) bool { return k.Public == public })
	return nil
}

func (s *sealer) public() string { return s.keys[0].Public }

// TestOverlayEncrypted: a host that cannot encrypt has no part in a network that must be,
// and there is no way to a host that cannot.
func TestOverlayEncrypted(t *testing.T) {
	_, all := gather(t, 3)
	a, b, c := all[0], all[1], all[2]
	sealed := api.CreateRequest{Name: "app", Driver: "overlay", Options: map[string]string{"encrypted": ""}}
	if _, err := a.m.Create(t.Context(), sealed); !errdefs.IsUnavailable(err) {
		t.Errorf("a host without a key makes an encrypted network: %v", err)
	}
	a.seal, b.seal = newSealer("a", time.Now), newSealer("b", time.Now)
	a.begin(t)
	b.begin(t)
	hear(t, all)
	create(t, a.m, sealed)
	hear(t, all)
	if _, err := c.m.Open(t.Context(), request("c3", nil, "app")); !errdefs.IsUnavailable(err) {
		t.Errorf("a host without a key is on an encrypted network: %v", err)
	}
	open(t, a.m, "c1", "app")
	open(t, b.m, "c2", "app")
	rightAll(t, all)
	public := b.seal.public()
	link := of[netspec.VXLAN](a)[0]
	want := netspec.Peer{Link: link.Via, Public: public, At: netip.MustParseAddrPort("192.0.2.2:51871"), Allowed: network.SealedAddr("b", public), Awake: true}
	if got := of[netspec.Peer](a); len(got) != 1 || got[0] != want || link.Via == "" || len(of[netspec.WireGuard](a)) != 1 {
		t.Errorf("%v, want %v; %v", got, want, link)
	}
	if fdb := of[netspec.FDB](a); len(fdb) != 1 || fdb[0].Dst != network.SealedAddr("b", public) || fdb[0].Via != link.Via {
		t.Errorf("%v", fdb)
	}
	must(t, b.dir.Describe(t.Context(), func(h *fabric.Host) { h.Key = "" })) // as isled does that has just started
	rightAll(t, all)
	if got := of[netspec.Peer](a); len(got) != 1 || got[0] != want {
		t.Errorf("after a host was written down anew: %v", got)
	}
	must(t, a.m.Close(t.Context(), "c1"))
	rightAll(t, all)
	if len(of[netspec.WireGuard](a))+len(of[netspec.Peer](a)) > 0 {
		t.Error("what encrypts is left when nothing is to be encrypted")
	}
	a.kernel.N, a.kernel.FailAt = 0, 1
	if _, err := a.m.Open(t.Context(), request("c1", nil, "app")); err == nil {
		t.Error("what the kernel refuses is no matter")
	}
	a.kernel.FailAt = 0
	rightAll(t, all)
}

// TestTwins: a host that joined anew is there twice until its first lease ends.
func TestTwins(t *testing.T) {
	cl, all := gather(t, 2)
	a, b := all[0], all[1]
	n := overlay(t, all, "app")
	open(t, a.m, "c1", "app")
	open(t, b.m, "c2", "app")
	rightAll(t, all)
	twin := cl.Join(fabric.Host{ID: "z", Name: "host-b", Addr: addr("192.0.2.2")})
	if _, err := twin.Connect(t.Context(), fabric.Endpoint{ID: "e", Network: n.ID, Host: "z"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	rightAll(t, all[:1])
	cl.Expire("b")
	rightAll(t, all[:1])
	if got := of[netspec.TunnelPeer](a); len(got) != 1 || got[0].Addr != addr("192.0.2.2") {
		t.Errorf("with the first the second is gone: %v", got)
	}
}

// TestOverlayRemoved: a network is removed everywhere, and by nobody while a container
// of any host is on it.
func TestOverlayRemoved(t *testing.T) {
	_, all := gather(t, 2)
	overlay(t, all, "app")
	open(t, all[1].m, "c1", "app")
	hear(t, all)
	if _, err := all[0].m.Remove(t.Context(), "app"); !errdefs.IsConflict(err) {
		t.Errorf("%v", err)
	}
	must(t, all[1].m.Close(t.Context(), "c1"))
	hear(t, all)
	if _, err := all[0].m.Remove(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	rightAll(t, all)
	for _, h := range all {
		if _, err := h.m.Find(t.Context(), "app"); !errdefs.IsNotFound(err) {
			t.Errorf("host %s: %v", h.id, err)
		}
		if len(h.keys("number/")) > 0 {
			t.Errorf("host %s keeps %v", h.id, h.keys("number/"))
		}
		create(t, h.m, api.CreateRequest{Name: "again", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.20.0.0/24")}}}}) // its subnet is free
	}
}

// TestRemovedElsewhere: a network that was removed while a host could not be reached stays
// there with its containers, as it is, also over a restart, and says so; it goes with the
// last of them, and what has its name and its subnet by then is free for use.
func TestRemovedElsewhere(t *testing.T) {
	cl, all := gather(t, 2)
	a, b := all[0], all[1]
	old := overlay(t, all, "app")
	one := open(t, a.m, "c1", "app").Endpoints[0]
	open(t, b.m, "b1", "app")
	rightAll(t, all)
	a.dir.Cut(false)
	cl.Expire("a")
	hear(t, all)
	must(t, b.m.Close(t.Context(), "b1"))
	if _, err := b.m.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(a.kernel.State)
	maps.DeleteFunc(before, func(_ netspec.Key, o netspec.Object) bool { // the network's number may be another's by now
		switch o.(type) {
		case netspec.VXLAN, netspec.Tunnel, netspec.FDB, netspec.Flood, netspec.Neigh:
			return true
		}
		return false
	})
	check := func(when string) {
		t.Helper()
		n, err := a.m.Find(t.Context(), old.ID)
		eps, eerr := a.m.Endpoints(t.Context())
		if err != nil || eerr != nil || !n.Removed || len(eps) != 1 || !slices.Equal(eps[0].Addrs, one.Addrs) {
			t.Errorf("%s: %+v, %v; %v, %v", when, n, err, eps, eerr)
		}
		if missing := before.Without(a.kernel.State); len(missing) > 0 {
			t.Errorf("%s: the container lost %v", when, missing)
		}
		if len(of[netspec.VXLAN](a)) > 0 {
			t.Errorf("%s: there is still a tunnel", when)
		}
		span, err := a.m.Span(t.Context(), old.ID)
		if err != nil || !span.Removed || !span.Here {
			t.Errorf("%s: %+v, %v", when, span, err)
		}
		found, err := a.m.Doctor(t.Context())
		if err != nil || !slices.ContainsFunc(found, func(f doctor.Finding) bool {
			return f.Subject == "network app" && strings.Contains(f.Problem, "removed") && strings.Contains(f.Hint, "c1")
		}) {
			t.Errorf("%s: the doctor finds %+v, %v", when, found, err)
		}
		if _, err := a.m.Open(t.Context(), request("c2", nil, old.ID)); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "removed") {
			t.Errorf("%s: one more container: %v", when, err)
		}
	}
	var log bytes.Buffer
	healthy := func(context.Context) (doctor.Host, error) { return doctor.Host{}, nil }
	a.m.Surroundings = healthy
	a.m.Log = slog.New(slog.NewTextHandler(&log, nil))
	a.dir.Heal()
	hear(t, all)
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("%s", &log)
	}
	check("when it is heard of")
	for _, away := range []bool{false, true} {
		if away {
			a.dir.Cut(true)
		}
		a.kernel.N = 0
		a.begin(t)
		a.m.Surroundings = healthy
		a.dir.Heal()
		hear(t, all)
		must(t, a.m.Sync(t.Context()))
		if a.kernel.N != 0 {
			t.Errorf("%d changes of the kernel at a restart", a.kernel.N)
		}
		check("after a restart")
	}
	now := create(t, b.m, api.CreateRequest{Name: "app", Driver: "overlay", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.20.0.0/24")}}}})
	hear(t, all)
	open(t, b.m, "c2", "app")
	hear(t, all)
	if n, err := a.m.Find(t.Context(), "app"); err != nil || n.ID != now.ID {
		t.Errorf("the name is that of %v, %v", n, err)
	}
	if _, err := a.m.Open(t.Context(), request("c3", nil, "app")); !errdefs.IsConflict(err) {
		t.Errorf("a container on two networks of one subnet: %v", err)
	}
	must(t, a.m.Close(t.Context(), "c1"))
	if _, err := a.m.Find(t.Context(), old.ID); !errdefs.IsNotFound(err) || len(a.keys("foothold/")) > 0 || len(a.keys("number/")) != 1 {
		t.Errorf("it stays without containers: %v, %v, %v", err, a.keys("foothold/"), a.keys("number/"))
	}
	if got := open(t, a.m, "c3", "app").Endpoints[0]; got.Network != now.ID || got.Addrs[0] != prefix("10.20.0.3/24") {
		t.Errorf("%+v", got)
	}
	use, err := a.m.Usage(t.Context(), now.ID)
	if err != nil || use[prefix("10.20.0.0/24")].InUse != 5 { // network, broadcast, gateway, c2, c3
		t.Errorf("%v, %v", use, err)
	}
	rightAll(t, all)
}

// TestOverlaySubnets: a subnet is one network's, of this host or of the cluster.
func TestOverlaySubnets(t *testing.T) {
	_, all := gather(t, 2)
	create(t, all[1].m, api.CreateRequest{Name: "mine", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.20.0.0/16")}}}})
	n := overlay(t, all, "app")
	if _, err := all[1].m.Open(t.Context(), request("c1", nil, "app")); !errdefs.IsConflict(err) {
		t.Errorf("a container on two networks of one subnet: %v", err)
	}
	open(t, all[0].m, "c1", "app")
	if _, err := all[0].m.Create(t.Context(), api.CreateRequest{Name: "other", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix("10.20.0.0/25")}}}}); err == nil {
		t.Error("a network of this host has a subnet of the cluster's")
	}
	if _, err := all[0].m.Create(t.Context(), api.CreateRequest{Name: "app"}); !errdefs.IsConflict(err) {
		t.Errorf("a network of this host has a name of the cluster's: %v", err)
	}
	use, err := all[0].m.Usage(t.Context(), n.ID)
	if err != nil || use[prefix("10.20.0.0/24")].InUse != 4 { // network, broadcast, gateway, c1
		t.Errorf("%v, %v", use, err)
	}
	rightAll(t, all)
}

// TestSubnetOfHost: no network has an address where a tunnel ends, on whichever host.
func TestSubnetOfHost(t *testing.T) {
	t.Parallel()
	_, all := gather(t, 3)
	for _, h := range all {
		_, err := h.m.Create(t.Context(), api.CreateRequest{Name: "under", Driver: "overlay", IPAM: &api.IPAM{Config: []api.IPAMConfig{{Subnet: netip.MustParsePrefix("192.0.2.0/28")}}}})
		if err == nil || !strings.Contains(err.Error(), "of host host-") {
			t.Errorf("%s: %v", h.id, err)
		}
	}
}

// TestMet: it is waited for until the networks know which host this is.
func TestMet(t *testing.T) {
	_, all := gather(t, 1)
	all[0].m.Met(t.Context(), "a")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if all[0].m.Met(ctx, "b"); ctx.Err() == nil {
		t.Error("it did not wait for what it was not told of")
	}
}

// TestOnlyForItself: who has an address in the cluster that no other host can reach is told
// so, and not that it is in no cluster.
func TestOnlyForItself(t *testing.T) {
	h := &member{world: newWorld(), id: "a", found: &[]string{}}
	h.dir = (&fabrictest.Cluster{}).Join(fabric.Host{ID: "a", Name: "host-a", Addr: netip.MustParseAddr("127.0.0.1")})
	h.begin(t)
	hear(t, []*member{h})
	_, err := h.m.Create(t.Context(), api.CreateRequest{Name: "app", Driver: "overlay"})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "127.0.0.1") || !strings.Contains(err.Error(), "--advertise") {
		t.Errorf("err = %v", err)
	}
}
