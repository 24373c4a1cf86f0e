package network_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
)

// outside are plug-ins, in one: what they have outlives the Manager. whim is asked
// before and after each thing that they do.
type outside struct {
	networks map[string]bool
	seats    map[string]network.Attachment // by endpoint
	pools    map[string]netip.Prefix
	lent     map[netip.Addr]bool
	whim     func() error
	calls    []string
}

func newOutside() *outside {
	return &outside{networks: map[string]bool{}, seats: map[string]network.Attachment{}, pools: map[string]netip.Prefix{}, lent: map[netip.Addr]bool{}}
}

func (o *outside) do(what string, fn func()) error {
	o.calls = append(o.calls, what)
	if o.whim == nil {
		fn()
		return nil
	}
	if err := o.whim(); err != nil {
		return err
	}
	fn()
	return o.whim()
}

// outer is a driver of theirs. One that is half leaves the addresses to Isle.
type outer struct {
	*outside
	half bool
}

var _ network.External = outer{}

func (o outer) Validate(network.Network) error                  { return nil }
func (o outer) Beside(_, _ network.Network) error               { return nil }
func (o outer) Ready(network.Network, int, network.Host) error  { return nil }
func (o outer) Uplink(network.Network, network.Host) string     { return "" }
func (o outer) Caps() network.Caps                              { return network.Caps{IPAM: o.half, Publish: true, Gateway: true} }
func (o outer) Check(context.Context, network.Attachment) error { return o.do("check", func() {}) }
func (o outer) Plan(netspec.State, network.Network, []network.Endpoint, network.Host) error {
	return nil
}

func (o outer) Make(_ context.Context, n network.Network) (network.Made, error) {
	made := network.Made{Warnings: []string{"no isolation"}}
	return made, o.do("make", func() { o.networks[n.ID] = true })
}

func (o outer) Unmake(_ context.Context, n network.Network) error {
	return o.do("unmake", func() { delete(o.networks, n.ID) })
}

func (o outer) Attach(_ context.Context, a network.Attachment) (network.Result, error) {
	r := network.Result{Addrs: a.Endpoint.Addrs, MAC: netspec.MAC{2, 9}, Routed: true, Raw: json.RawMessage(`{}`)}
	if len(r.Addrs) == 0 || r.Addrs[0].IsSingleIP() {
		r.Addrs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200, 0, byte(2 + len(o.seats))}), 24)}
	}
	err := o.do("attach", func() { o.seats[a.Endpoint.ID] = a })
	if err != nil {
		delete(o.seats, a.Endpoint.ID)
	}
	return r, err
}

func (o outer) Detach(_ context.Context, a network.Attachment) error {
	return o.do("detach", func() { delete(o.seats, a.Endpoint.ID) })
}

func (o outer) Keep(_ context.Context, n network.Network, all []network.Attachment) error {
	return o.do("keep", func() {})
}

// addresser is an IPAM driver of theirs.
type addresser struct{ *outside }

var _ network.ExternalIPAM = addresser{}

func (l addresser) RequestPool(_ context.Context, w network.PoolWish) (network.PoolGrant, error) {
	if w.IPv6 {
		return network.PoolGrant{}, fmt.Errorf("no IPv6: %w", errdefs.ErrInvalidArgument)
	}
	p := w.Subnet
	if !p.IsValid() {
		p = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 210, byte(len(l.pools)), 0}), 24)
	}
	err := l.do("pool", func() { l.pools[p.String()] = p })
	return network.PoolGrant{ID: p.String(), Subnet: p}, err
}

func (l addresser) ReleasePool(_ context.Context, id string) error {
	return l.do("give pool", func() { delete(l.pools, id) })
}

func (l addresser) RequestAddress(_ context.Context, id string, want netip.Addr, _ bool, _ netspec.MAC) (netip.Prefix, error) {
	p := l.pools[id]
	for a := p.Addr().Next(); !want.IsValid() && p.Contains(a); a = a.Next() {
		if !l.lent[a] {
			want = a
		}
	}
	if l.lent[want] {
		return p, fmt.Errorf("%s is taken: %w", want, errdefs.ErrConflict)
	}
	return netip.PrefixFrom(want, p.Bits()), l.do("address", func() { l.lent[want] = true })
}

func (l addresser) ReleaseAddress(_ context.Context, _ string, a netip.Addr) error {
	return l.do("give address", func() { delete(l.lent, a) })
}

// plug gives a Manager the plug-ins.
func (o *outside) plug(m *network.Manager) *network.Manager {
	m.Outside = func(name string) (network.Driver, bool) {
		return outer{o, name == "half"}, name == "outer" || name == "half"
	}
	m.OutsideIPAM = func(name string) (network.ExternalIPAM, bool) { return addresser{o}, name == "lender" }
	return m
}

func (w *world) debts() (ids []string) {
	for _, k := range w.keys("debt/") {
		ids = append(ids, strings.TrimPrefix(k, "debt/"))
	}
	return ids
}

func (w *world) retired() (ids []string) {
	for _, k := range w.keys("debt-network/") {
		ids = append(ids, strings.TrimPrefix(k, "debt-network/"))
	}
	return ids
}

// checkOutside: what plug-ins have is in the records, and what the records say that
// they gave they have.
func (w *world) checkOutside(t *testing.T, m *network.Manager, at string) {
	t.Helper()
	eps, _ := m.Endpoints(t.Context())
	nets, _ := m.List(t.Context())
	var seats, ready, all []string
	for _, ep := range eps {
		all = append(all, ep.ID)
		if ep.Result != nil {
			seats = append(seats, ep.ID)
		}
	}
	for id := range w.outside.seats {
		if !slices.Contains(all, id) && !slices.Contains(w.debts(), id) {
			t.Errorf("%s\na plug-in has endpoint %s, which is in no record", at, id)
		}
	}
	for _, id := range seats {
		if _, ok := w.outside.seats[id]; !ok {
			t.Errorf("%s\nendpoint %s has a result of nobody", at, id)
		}
	}
	for _, n := range nets {
		ready = append(ready, n.ID)
		if outside := n.Driver == "outer" || n.Driver == "half"; outside && !n.Unready && !w.outside.networks[n.ID] {
			t.Errorf("%s\nnetwork %s is ready, and its plug-in has it not", at, n.Name)
		}
	}
	for id := range w.outside.networks {
		if !slices.Contains(append(ready, w.retired()...), id) {
			t.Errorf("%s\na plug-in has network %s, which is in no record", at, id)
		}
	}
}

func outerNetwork(t *testing.T, m *network.Manager) network.Network {
	t.Helper()
	n := create(t, m, api.CreateRequest{Name: "far", Driver: "outer"})
	if !slices.Equal(n.Warnings, []string{"no isolation"}) || n.IPAMDriver != "outer" {
		t.Errorf("warnings %q, addresses by %q", n.Warnings, n.IPAMDriver)
	}
	return n
}

// TestOutside: the life of a network that others make.
func TestOutside(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	n := outerNetwork(t, m)
	opened := open(t, m, "c1", "far")
	ep := opened.Endpoints[0]
	if ep.Result == nil || ep.Addr(true) != addr("10.200.0.2") || ep.MAC != (netspec.MAC{2, 9}) || ep.Interface != "eth0" {
		t.Fatalf("got %+v", ep)
	}
	if a := w.outside.seats[ep.ID]; a.NSPath == "" || a.Hostname != "c1" || a.Network.ID != n.ID {
		t.Errorf("the plug-in was told %+v", a)
	}
	refused(t, second(m.Remove(t.Context(), "far")), errdefs.IsPermissionDenied, "active endpoints")
	m = w.start(t) // a restart changes nothing
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), "far"); err != nil {
		t.Fatal(err)
	}
	if len(w.outside.seats)+len(w.outside.networks)+len(w.keys("endpoint/"))+len(w.debts()) != 0 {
		t.Errorf("left: %v", w.outside)
	}
}

func second[T any](_ T, err error) error { return err }

// TestOutsidePorts: a plug-in is told of the ports that its endpoint is to carry.
func TestOutsidePorts(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	outerNetwork(t, m)
	if _, err := m.Open(t.Context(), request("c1", ports("80/tcp", ":8080"), "far")); err != nil {
		t.Fatal(err)
	}
	for _, a := range w.outside.seats {
		if len(a.Publish) != 2 || a.Publish[0].HostPort != 8080 { // of IPv4 and of IPv6
			t.Errorf("ports %+v", a.Publish)
		}
	}
}

// TestOutsideWishes: an address and a MAC address that the user asks for go to others.
func TestOutsideWishes(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	outerNetwork(t, m)
	req := request("c1", nil, "far")
	req.Networks[0].Settings.IPAMConfig = &api.EndpointIPAMConfig{IPv4Address: addr("10.200.0.77")}
	req.Networks[0].Settings.MacAddress = api.HardwareAddr{2, 0, 0, 0, 0, 7}
	req.DNS.Upstreams = []string{"10.200.0.53", "10.200.0.54:5353"}
	if _, err := m.Open(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for _, a := range w.outside.seats {
		want := &network.Wish{Addrs: []netip.Addr{addr("10.200.0.77")}, MAC: netspec.MAC{2, 0, 0, 0, 0, 7}}
		if dns := a.Endpoint.Wish.DNS.Servers; !slices.Equal(dns, []netip.Addr{addr("10.200.0.53")}) {
			t.Errorf("told of the name servers %v", dns)
		}
		if a.Endpoint.Wish.MAC != want.MAC || !slices.Equal(a.Endpoint.Wish.Addrs, want.Addrs) || a.Endpoint.Addrs[0] != netip.MustParsePrefix("10.200.0.77/32") {
			t.Errorf("told %+v of %v", a.Endpoint.Wish, a.Endpoint.Addrs)
		}
	}
}

// TestOutsideRefuses: what a plug-in refuses leaves nothing behind, and what it does
// not take back is asked of it again.
func TestOutsideRefuses(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	no := func() error { return fmt.Errorf("not now: %w", errdefs.ErrUnavailable) }
	w.outside.whim = no
	refused(t, second(m.Create(t.Context(), api.CreateRequest{Name: "far", Driver: "outer"})), errdefs.IsUnavailable, "network far: not now")
	w.outside.whim = nil
	outerNetwork(t, m)
	w.outside.whim = no
	refused(t, second(m.Open(t.Context(), request("c1", nil, "far"))), errdefs.IsUnavailable, "container c1: network far: not now")
	w.outside.whim = nil
	open(t, m, "c2", "far")
	w.outside.whim = no
	if err := m.Close(t.Context(), "c2"); err != nil {
		t.Fatalf("a container cannot stop: %v", err)
	}
	w.checkOutside(t, m, "closed")
	if len(w.outside.seats) != 1 || len(w.debts()) == 0 {
		t.Fatalf("%d seats, %d debts", len(w.outside.seats), len(w.debts()))
	}
	w.outside.whim = nil
	m = w.start(t)
	m.Visit(t.Context())
	if len(w.outside.seats)+len(w.debts()) != 0 {
		t.Errorf("%d seats, %d debts", len(w.outside.seats), len(w.debts()))
	}
}

// TestOutsideIPAM: addresses that others give out, on a network of Isle's own.
func TestOutsideIPAM(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	n := create(t, m, api.CreateRequest{Name: "lent", IPAM: &api.IPAM{Driver: "lender"}})
	if n.Pools[0].Subnet != netip.MustParsePrefix("10.210.0.0/24") || n.Pools[0].Gateway != addr("10.210.0.1") {
		t.Fatalf("pools %+v", n.Pools)
	}
	if ep := open(t, m, "c1", "lent").Endpoints[0]; ep.Addr(true) != addr("10.210.0.2") {
		t.Errorf("got %v", ep.Addrs)
	}
	w.outside.whim = func() error { return fmt.Errorf("full: %w", errdefs.ErrUnavailable) }
	refused(t, second(m.Open(t.Context(), request("c2", nil, "lent"))), errdefs.IsUnavailable, "container c2: network lent: full")
	w.outside.whim = nil
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), "lent"); err != nil {
		t.Fatal(err)
	}
	if len(w.outside.lent)+len(w.outside.pools) != 0 {
		t.Errorf("left: %v %v", slices.Collect(maps.Keys(w.outside.lent)), w.outside.pools)
	}
	refused(t, second(m.Create(t.Context(), api.CreateRequest{Name: "x", IPAM: &api.IPAM{Driver: "nobody"}})), errdefs.IsNotFound, "nobody")
}

// crashing has the process die while a plug-in is asked, once.
func crashing() func() error {
	return func() error { panic(kerneltest.ErrCrash) }
}

// TestOutsideCrash: a crash in the middle of anything is made good.
func TestOutsideCrash(t *testing.T) {
	steps := map[string]func(m *network.Manager) error{
		"make": func(m *network.Manager) error {
			return second(m.Create(t.Context(), api.CreateRequest{Name: "more", Driver: "outer"}))
		},
		"attach": func(m *network.Manager) error { return second(m.Open(t.Context(), request("c2", nil, "far"))) },
		"detach": func(m *network.Manager) error { return m.Close(t.Context(), "c1") },
		"unmake": func(m *network.Manager) error { return second(m.Remove(t.Context(), "empty")) },
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			m := w.start(t)
			outerNetwork(t, m)
			create(t, m, api.CreateRequest{Name: "empty", Driver: "outer"})
			open(t, m, "c1", "far")
			w.outside.whim = crashing()
			func() {
				defer func() { recover() }()
				t.Error("no crash", step(m))
			}()
			w.outside.whim = nil
			m = w.start(t)
			m.Visit(t.Context())
			w.checkOutside(t, m, name)
			for _, c := range []string{"c1", "c2"} {
				if err := m.Close(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
			if len(w.outside.seats) != 0 {
				t.Errorf("left: %v", w.outside.seats)
			}
		})
	}
}

// TestPortsOfOthers: others are told of a container's ports when it is attached, and of
// no change; who was not told carries none, also when it becomes the way out.
func TestPortsOfOthers(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	outerNetwork(t, m)
	create(t, m, api.CreateRequest{Name: "near"})
	told := func(id string) (n int) {
		eps, err := m.Endpoints(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ep := range eps {
			if ep.Sandbox == id && ep.Result != nil {
				n = len(w.outside.seats[ep.ID].Publish)
			}
		}
		return n
	}
	if _, err := m.Open(t.Context(), request("web", ports("80/tcp", "0.0.0.0:8080"), "far")); err != nil || told("web") != 1 {
		t.Fatalf("told of %d ports, %v", told("web"), err)
	}
	_, err := m.Publish(t.Context(), "web", wish(t, "9000:90"))
	refused(t, err, errdefs.IsConflict, "those who make network far publish the ports of container web, and are told of them when it starts (hint: stop it")
	if got, _, err := m.Published("web"); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
	open(t, m, "bare", "far")
	_, err = m.Publish(t.Context(), "bare", wish(t, "9000:90"))
	refused(t, err, errdefs.IsConflict, "container bare")
	open(t, m, "taker", "near")
	_, err = m.Replace(t.Context(), "taker", wish(t, "8080:80"))
	refused(t, err, errdefs.IsConflict, "the ports of container web")
	if err := m.Close(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), request("web", ports("80/tcp", "0.0.0.0:8080"), "near")); err != nil {
		t.Fatal(err)
	}
	far, err := m.Find(t.Context(), "far")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Connect(t.Context(), "web", network.ConnectRequest{Network: far.ID, ContainerName: "web", ContainerID: "web", Settings: api.EndpointSettings{GwPriority: 9}}); err != nil {
		t.Fatal(err)
	}
	if told("web") != 0 || w.tcp4() != "0.0.0.0:8080+1>80" {
		t.Errorf("others were told of %d ports; ours are %q", told("web"), w.tcp4())
	}
	if _, err := m.Publish(t.Context(), "web", wish(t, "9000:90")); err != nil {
		t.Error(err)
	}
}
