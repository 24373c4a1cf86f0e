package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/dhcp"
)

// lan is the servers of a LAN: 192.0.2.10, .11, … and 2001:db8::10, …
type lan struct {
	mu      sync.Mutex
	silent  bool
	process int
	asked   []dhcp.Config
	numbers map[string]int // by endpoint
	clients []*tenant
}

type tenant struct {
	lan    *lan
	family network.Family
	conf   dhcp.Config
	now    *dhcp.Lease
	end    string // how it was ended
	renews int
}

// lessor is for one process: when it is dead it gets nothing any more.
func (l *lan) lessor() network.Lessor {
	l.mu.Lock()
	defer l.mu.Unlock()
	process := l.process
	return func(_ context.Context, f network.Family, c dhcp.Config) (network.Lessee, dhcp.Lease, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if process != l.process {
			return nil, dhcp.Lease{}, context.Canceled
		}
		return l.lease(f, c)
	}
}

func (l *lan) lease(f network.Family, c dhcp.Config) (network.Lessee, dhcp.Lease, error) {
	l.asked = append(l.asked, c)
	if l.silent {
		return nil, dhcp.Lease{}, fmt.Errorf("no DHCP server answered: %w", errdefs.ErrUnavailable)
	}
	if l.numbers == nil {
		l.numbers = map[string]int{}
	}
	if l.numbers[c.Endpoint] == 0 {
		l.numbers[c.Endpoint] = 10 + len(l.numbers)
	}
	one := &tenant{lan: l, family: f, conf: c}
	one.now = one.gives(l.numbers[c.Endpoint])
	l.clients = append(l.clients, one)
	return one, *one.now, nil
}

// gives is the lease of a number.
func (c *tenant) gives(number int) *dhcp.Lease {
	all, router, a := "0.0.0.0/0", "192.0.2.1", fmt.Sprintf("192.0.2.%d/24", number)
	if c.family == network.IPv6 {
		all, router, a = "::/0", "fe80::1", fmt.Sprintf("2001:db8::%d/64", number)
	}
	return &dhcp.Lease{
		Interface: c.conf.Interface, Addresses: []dhcp.Address{{Prefix: prefix(a)}}, MTU: 1400,
		Routes:   []dhcp.Route{{Dest: prefix(all), Via: addr(router)}},
		Obtained: time.Now(), Expire: time.Now().Add(time.Hour),
	}
}

// say has the LAN give another address than before; 0: none.
func (c *tenant) say(number int, k dhcp.Kind) {
	c.lan.mu.Lock()
	if c.now = nil; number > 0 {
		c.now = c.gives(number)
	}
	c.lan.mu.Unlock()
	c.conf.Changed(dhcp.Change{Kind: k, Reason: "the test says so"})
}

func (c *tenant) Lease() (l dhcp.Lease, ok bool) {
	c.lan.mu.Lock()
	defer c.lan.mu.Unlock()
	if c.now == nil {
		return l, false
	}
	return *c.now, true
}

func (c *tenant) Renew()                        { c.renews++ }
func (c *tenant) Release(context.Context) error { c.ended("released"); return nil }
func (c *tenant) Close()                        { c.ended("closed") }

func (c *tenant) ended(how string) {
	c.lan.mu.Lock()
	defer c.lan.mu.Unlock()
	c.end = how
}

// holding is how many clients have not ended.
func (l *lan) holding() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.clients {
		if c.end == "" {
			n++
		}
	}
	return n
}

// forget is for clients whose process has died.
func (l *lan) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clients = nil
	l.process++
}

// leased is a world with a network "home" whose addresses the LAN gives out.
func leased(t *testing.T, v6 bool) (*world, *network.Manager) {
	w := wired()
	m := w.start(t)
	create(t, m, api.CreateRequest{Name: "home", Driver: "macvlan", EnableIPv6: &v6, Options: map[string]string{"parent": "eth0"},
		IPAM: &api.IPAM{Driver: "dhcp", Options: map[string]string{"isle.dhcp.vendor_class": "box", "isle.dhcp.timeout": "7s"}}})
	return w, m
}

func (w *world) has(ns netspec.NS, a string) bool {
	_, ok := w.kernel.State[netspec.Addr{NS: ns, Link: "eth0", Prefix: prefix(a)}.Key()]
	return ok
}

// inStep checks that the kernel is what the records say.
func (w *world) inStep(t *testing.T) {
	t.Helper()
	if want := w.want(t); !w.kernel.State.Equal(want) {
		t.Errorf("the kernel lacks %v and has %v", want.Without(w.kernel.State), w.kernel.State.Without(want))
	}
}

func TestLease(t *testing.T) {
	w, m := leased(t, true)
	out := open(t, m, "c1", "home")
	if got := fmt.Sprint(out.Endpoints[0].Addrs); got != "[192.0.2.10/24 2001:db8::10/64]" {
		t.Errorf("it has %s", got)
	}
	w.inStep(t)
	for _, want := range []netspec.Object{
		netspec.Route{NS: "c1", Dst: prefix("0.0.0.0/0"), Via: addr("192.0.2.1"), Dev: "eth0"},
		netspec.Route{NS: "c1", Dst: prefix("::/0"), Via: addr("fe80::1"), Dev: "eth0"},
		netspec.Sysctl{NS: "c1", Name: "ipv6/conf/eth0/disable_ipv6", Value: "0"},
		netspec.Sysctl{NS: "c1", Name: "ipv4/conf/eth0/promote_secondaries", Value: "1"},
	} {
		if got := w.kernel.State[want.Key()]; got != want {
			t.Errorf("%v: %v, want %v", want.Key(), got, want)
		}
	}
	if l, _ := w.kernel.State[netspec.LAN{NS: "c1", Name: "eth0"}.Key()].(netspec.LAN); l.MTU != 1400 {
		t.Errorf("MTU %d, the LAN says 1400", l.MTU)
	}
	for _, c := range w.lan.asked {
		if c.Vendor != "box" || c.Limit != 7*time.Second || c.Hostname != "c1" || c.Previous != nil || c.SharedMAC {
			t.Errorf("asked with %+v", c)
		}
	}
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range w.lan.clients {
		if c.end != "released" {
			t.Errorf("the lease of %s was %q at the end", c.family, c.end)
		}
	}
	again := open(t, m, "c1", "home")
	if got := again.Endpoints[0].Addr(true); got != addr("192.0.2.10") {
		t.Errorf("started again it is another client to the LAN: %s", got)
	}
}

// TestLeaseRefused: nothing is left of a container that got no address.
func TestLeaseRefused(t *testing.T) {
	w, m := leased(t, false)
	before, records := w.kernel.State, w.keys("")
	w.lan.silent = true
	_, err := m.Open(t.Context(), request("c1", nil, "home"))
	refused(t, err, errdefs.IsUnavailable, "network home: no DHCP server answered")
	if !w.kernel.State.Equal(before) || !slices.Equal(w.keys(""), records) {
		t.Errorf("left: %v, %v", w.kernel.State.Without(before), w.keys(""))
	}
	w.lan.silent = false
	open(t, m, "c1", "bridge")
	before, records = w.kernel.State, w.keys("")
	w.lan.silent = true
	_, err = m.Connect(t.Context(), "c1", network.ConnectRequest{Network: "home", ContainerName: "c1", ContainerID: "c1"})
	refused(t, err, errdefs.IsUnavailable, "no DHCP server answered")
	if !w.kernel.State.Equal(before) || !slices.Equal(w.keys(""), records) {
		t.Errorf("left of a connect: %v, %v", w.kernel.State.Without(before), w.keys(""))
	}
	static := network.ConnectRequest{Network: "home", ContainerName: "c1", ContainerID: "c1", Settings: api.EndpointSettings{
		IPAMConfig: &api.EndpointIPAMConfig{IPv4Address: addr("192.0.2.9")}}}
	_, err = m.Connect(t.Context(), "c1", static)
	refused(t, err, errdefs.IsInvalidArgument, "the DHCP server of the LAN gives out the addresses")
}

// TestLeaseChanges: what the LAN says later is followed and told.
func TestLeaseChanges(t *testing.T) {
	w, m := leased(t, false)
	_, events, cancel := w.events.Subscribe(time.Time{})
	defer cancel()
	var moved []string
	m.Moved = func(_ context.Context, e network.Endpoint, before []netip.Prefix) {
		moved = append(moved, fmt.Sprint(before, e.Addrs))
	}
	open(t, m, "c1", "home")
	m.FollowLeases(t.Context()) // of the first lease, which all know of
	client := w.lan.clients[0]
	client.say(10, dhcp.Renewed)
	m.FollowLeases(t.Context())
	if len(moved) != 0 {
		t.Errorf("a lease that lasts longer has moved it: %q", moved)
	}
	client.say(77, dhcp.Altered)
	m.FollowLeases(t.Context())
	w.inStep(t)
	if !w.has("c1", "192.0.2.77/24") || w.has("c1", "192.0.2.10/24") {
		t.Error("the address in the container did not follow")
	}
	client.say(0, dhcp.Lost)
	m.FollowLeases(t.Context())
	w.inStep(t)
	if w.has("c1", "192.0.2.77/24") {
		t.Error("it has an address that it lost")
	}
	client.say(78, dhcp.Acquired)
	m.FollowLeases(t.Context())
	if want := []string{"[192.0.2.10/24] [192.0.2.77/24]", "[192.0.2.77/24] []", "[] [192.0.2.78/24]"}; !slices.Equal(moved, want) {
		t.Errorf("moved %q, want %q", moved, want)
	}
	var told []string
	for len(told) < 3 {
		select {
		case e := <-events:
			if e.Action == network.ActionAddressChanged {
				told = append(told, e.Actor.Attributes["before"]+" → "+e.Actor.Attributes["now"])
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("told of %q only", told)
		}
	}
	if told[0] != "192.0.2.10/24 → 192.0.2.77/24" {
		t.Errorf("told %q", told)
	}
}

// TestLeaseAfterRestart: another isled asks for the same again, and until it knows
// more, the container keeps what it has.
func TestLeaseAfterRestart(t *testing.T) {
	w, m := leased(t, false)
	open(t, m, "c1", "home")
	before := w.kernel.State
	w.lan.silent = true
	m = w.start(t)
	w.lan.wait(t, 2)
	if c := w.lan.asked[1]; c.Previous == nil || c.Previous.Address() != prefix("192.0.2.10/24") {
		t.Errorf("asked for %+v", c.Previous)
	}
	m.FollowLeases(t.Context())
	if !w.kernel.State.Equal(before) {
		t.Errorf("the kernel has changed: %v", w.kernel.State.Without(before))
	}
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Error(err)
	}
	if _, ok := w.kernel.State[netspec.Namespace{NS: "c1"}.Key()]; ok {
		t.Error("it is there still")
	}
}

// wait is for the LAN to have been asked n times.
func (l *lan) wait(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		got := len(l.asked)
		l.mu.Unlock()
		if got >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the LAN was asked %d times, want %d", got, n)
		}
	}
}

// TestLeaseIsConfirmedWithTheWire: a parent whose carrier is back may be on another LAN.
func TestLeaseIsConfirmedWithTheWire(t *testing.T) {
	w, m := leased(t, false)
	open(t, m, "c1", "home")
	up := w.machine.host.Parents
	w.machine.host.Parents = strings.Replace(up, `"Carrier":true`, `"Carrier":false`, 1)
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.lan.clients[0].renews; n != 0 {
		t.Errorf("asked %d times without a wire", n)
	}
	w.machine.host.Parents = up
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.lan.clients[0].renews; n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

// TestLeasedRoutes: routes of a LAN do not get in the way of others.
func TestLeasedRoutes(t *testing.T) {
	w, m := leased(t, false)
	create(t, m, api.CreateRequest{Name: "red", IPAM: config("10.5.0.0/24")})
	open(t, m, "c1", "home", "red")
	l := w.lan.clients[0].gives(10)
	l.Routes = append(l.Routes, dhcp.Route{Dest: prefix("10.5.0.0/24"), Via: addr("192.0.2.3")}, dhcp.Route{Dest: prefix("10.6.0.0/16"), Via: addr("203.0.113.1")},
		dhcp.Route{Dest: prefix("192.0.2.0/24")})
	w.lan.clients[0].now = l
	w.lan.clients[0].conf.Changed(dhcp.Change{Kind: dhcp.Altered})
	m.FollowLeases(t.Context())
	w.inStep(t)
	far := netspec.Route{NS: "c1", Dst: prefix("10.6.0.0/16"), Via: addr("203.0.113.1"), Dev: "eth0", OnLink: true}
	if got := w.kernel.State[far.Key()]; got != far {
		t.Errorf("route of the LAN: %+v, want %+v", got, far)
	}
	if r, ok := w.kernel.State[netspec.Route{NS: "c1", Dst: prefix("192.0.2.0/24")}.Key()]; ok {
		t.Errorf("the kernel makes %v by itself", r)
	}
}

func TestLeaseOptionsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		req  api.CreateRequest
		text string
	}{
		"subnet":         {api.CreateRequest{IPAM: &api.IPAM{Driver: "dhcp", Config: config("10.1.0.0/24").Config}}, "leave out --subnet"},
		"no parent":      {api.CreateRequest{Options: map[string]string{"parent": ""}}, "nobody to ask"},
		"internal":       {api.CreateRequest{Internal: true}, "nobody to ask"},
		"l3":             {api.CreateRequest{Driver: "ipvlan", Options: map[string]string{"parent": "eth0", "ipvlan_mode": "l3"}}, "ipvlan_mode=l2"},
		"timeout":        {api.CreateRequest{IPAM: &api.IPAM{Driver: "dhcp", Options: map[string]string{"isle.dhcp.timeout": "forever"}}}, "isle.dhcp.timeout=forever"},
		"unknown option": {api.CreateRequest{IPAM: &api.IPAM{Driver: "dhcp", Options: map[string]string{"isle.dhcp.vendor": "x"}}}, "isle.dhcp.vendor_class"},
	} {
		r := c.req
		r.Name = "home"
		if r.Driver == "" {
			r.Driver = "macvlan"
		}
		if r.Options == nil {
			r.Options = map[string]string{"parent": "eth0"}
		}
		if r.IPAM == nil {
			r.IPAM = &api.IPAM{Driver: "dhcp"}
		}
		t.Run(name, func(t *testing.T) {
			_, err := wired().start(t).Create(t.Context(), r)
			refused(t, err, errdefs.IsInvalidArgument, c.text)
		})
	}
}
