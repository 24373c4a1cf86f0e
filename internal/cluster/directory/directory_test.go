package directory_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	clientv3 "go.etcd.io/etcd/client/v3"

	"isle/internal/cluster/directory"
	"isle/internal/fabric"
	"isle/internal/store/etcd"
	"isle/internal/store/etcd/etcdtest"
)

const prefix = "/isle/"

// lab is an etcd with hosts around it.
type lab struct {
	*testing.T
	etcd   *etcdtest.Server
	client *clientv3.Client
	n      int
}

func newLab(t *testing.T) *lab {
	srv := etcdtest.Start(t)
	return &lab{T: t, etcd: srv, client: srv.Client(t)}
}

type host struct {
	*directory.Directory
	lab  *lab
	stop func()
}

// host starts the directory of a host; change is what is special about it.
func (l *lab) host(change ...func(*directory.Config)) *host {
	l.Helper()
	l.n++
	c := directory.Config{
		Store: etcd.Store{Client: l.client, Prefix: prefix}, TTL: 2 * time.Second, Timeout: 3 * time.Second,
		Self: fabric.Host{ID: fmt.Sprintf("h%d", l.n), Name: fmt.Sprintf("host%d", l.n), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(l.n)})},
	}
	for _, f := range change {
		f(&c)
	}
	h := &host{Directory: directory.New(c), lab: l}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	h.stop = func() { cancel(); <-done }
	l.Cleanup(h.stop)
	h.eventually("itself", func(v fabric.View) bool { return v.Hosts[c.Self.ID].Name == c.Self.Name })
	return h
}

func (h *host) eventually(what string, ok func(fabric.View) bool) {
	h.lab.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		v := h.View()
		if ok(v) {
			return
		}
		if time.Now().After(end) {
			h.lab.Fatalf("%s does not see %s: %+v", h.Self.Name, what, v)
		}
	}
}

// network makes one with a subnet and the VNI range.
func (h *host) network(name, subnet string, vnis ...fabric.Range) (fabric.Network, error) {
	if vnis == nil {
		vnis = []fabric.Range{{First: 100, Last: 200}}
	}
	rec, _ := json.Marshal(map[string]any{"Pools": []any{map[string]any{"Subnet": subnet}}})
	return h.CreateNetwork(context.Background(), fabric.Network{ID: "n-" + name, Name: name, Record: rec}, vnis)
}

func (h *host) must(err error) {
	h.lab.Helper()
	if err != nil {
		h.lab.Fatal(err)
	}
}

func (h *host) connect(id, network string, addrs ...string) (fabric.Endpoint, error) {
	e := fabric.Endpoint{ID: id, Network: "n-" + network, Container: "c-" + id, MAC: [6]byte{2, 0, 0, 0, 0, 1}, Names: []string{id}}
	var pools []netip.Prefix
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		e.Addrs = append(e.Addrs, p)
		pools = append(pools, p.Masked())
		if p.Addr() == p.Masked().Addr() { // the subnet: an address of it is to be chosen
			e.Addrs[len(e.Addrs)-1] = netip.PrefixFrom(unspecified(p), p.Bits())
		}
	}
	return h.Connect(context.Background(), e, pools, []netip.Addr{netip.MustParseAddr("10.1.0.1")})
}

func unspecified(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// TestHosts: hosts see each other, and what each says of itself.
func TestHosts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := l.host(), l.host()
	a.eventually("the other", func(v fabric.View) bool { return len(v.Hosts) == 2 && v.Known && v.Self == "h1" })
	key := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	a.must(a.Describe(t.Context(), func(h *fabric.Host) { h.Key, h.ID, h.Name = key, "x", "x" }))
	b.eventually("its key", func(v fabric.View) bool { return v.Hosts["h1"].Key == key && v.Hosts["h1"].Name == "host1" })
	if err := a.Describe(t.Context(), func(h *fabric.Host) { h.Key = "x" }); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	b.must(b.Leave(t.Context()))
	a.eventually("that it left", func(v fabric.View) bool { return len(v.Hosts) == 1 })
	b.Stay()
	a.eventually("that it stays", func(v fabric.View) bool { return len(v.Hosts) == 2 })
}

// TestNetworks: names, subnets and VNIs are each given once.
func TestNetworks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := l.host(), l.host()
	n, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	if n.VNI != 100 {
		t.Errorf("VNI %d, want the first", n.VNI)
	}
	b.eventually("the network", func(v fabric.View) bool { return v.Networks["n-one"].VNI == 100 })
	again, err := a.network("one", "10.1.0.0/24")
	if err != nil || again.VNI != n.VNI {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	_, err = b.CreateNetwork(t.Context(), fabric.Network{ID: "other", Name: "one"}, []fabric.Range{{First: 1, Last: 9}})
	if !errdefs.IsAlreadyExists(err) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err = b.network("two", "10.1.0.128/25"); !errdefs.IsConflict(err) {
		t.Errorf("an overlap: %v", err)
	}
	if _, err = b.network("two", "10.2.0.0/24", fabric.Range{First: 100, Last: 100}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("no VNI: %v", err)
	}
	_, err = b.CreateNetwork(t.Context(), fabric.Network{ID: "other", Name: "two", VNI: 100}, nil)
	if !errdefs.IsConflict(err) {
		t.Errorf("a VNI that is taken: %v", err)
	}
	if _, err = b.network("a/b", "10.2.0.0/24"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a bad name: %v", err)
	}
	testRemoveNetwork(t, a, b)
}

func testRemoveNetwork(t *testing.T, a, b *host) {
	_, err := a.connect("e1", "one", "10.1.0.0/24")
	a.must(err)
	if err := b.RemoveNetwork(t.Context(), "n-one"); !errdefs.IsConflict(err) {
		t.Errorf("a network in use: %v", err)
	}
	a.must(a.Disconnect(t.Context(), "e1"))
	b.must(b.RemoveNetwork(t.Context(), "n-one"))
	b.must(b.RemoveNetwork(t.Context(), "n-one"))
	_, err = b.network("uno", "10.1.0.0/24", fabric.Range{First: 100, Last: 100})
	b.must(err) // subnet, VNI and name are free again
	a.eventually("that it is gone", func(v fabric.View) bool { return len(v.Networks) == 1 })
}

// TestManyNetworksAtOnce: hosts that make networks at the same time get different VNIs.
func TestManyNetworksAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	all := []*host{l.host(), l.host(), l.host()}
	var wg sync.WaitGroup
	for i, h := range all {
		for j := range 5 {
			wg.Go(func() {
				if _, err := h.network(fmt.Sprintf("n%d-%d", i, j), fmt.Sprintf("10.%d.%d.0/24", i, j)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	all[0].eventually("all networks", func(v fabric.View) bool { return len(v.Networks) == 15 })
	vnis := map[uint32]bool{}
	for _, n := range all[0].View().Networks {
		vnis[n.VNI] = true
	}
	if len(vnis) != 15 {
		t.Errorf("%d VNIs of 15 networks", len(vnis))
	}
}

// TestConnect: addresses are chosen or taken as asked, and each once in the cluster.
func TestConnect(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, b := l.host(), l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	e, err := a.connect("e1", "one", "10.1.0.0/24", "fd00:1::/64")
	a.must(err)
	if len(e.Addrs) != 2 || !netip.MustParsePrefix("10.1.0.0/24").Contains(e.Addrs[0].Addr()) || e.Addrs[1].Bits() != 64 || e.Host != "h1" || e.Generation == 0 {
		t.Fatalf("%+v", e)
	}
	b.eventually("the endpoint", func(v fabric.View) bool {
		got := v.Endpoints["e1"]
		return slices.Equal(got.Addrs, e.Addrs) && got.Generation == e.Generation && got.Names[0] == "e1"
	})
	again, err := a.connect("e1", "one", "10.1.0.0/24", "fd00:1::/64")
	if err != nil || !slices.Equal(again.Addrs, e.Addrs) {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	if _, err := b.connect("e2", "one", e.Addrs[0].String()); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "e1") {
		t.Errorf("an address that is taken: %v", err)
	}
	if _, err := b.connect("e1", "one", "10.1.0.0/24"); !errdefs.IsConflict(err) {
		t.Errorf("an endpoint of another host: %v", err)
	}
	if _, err := b.connect("e2", "nowhere", "10.1.0.0/24"); !errdefs.IsNotFound(err) {
		t.Errorf("a network that is not there: %v", err)
	}
	b.must(b.Disconnect(t.Context(), "e1")) // it is not b's
	b.must(a.Disconnect(t.Context(), "e1"))
	b.must(a.Disconnect(t.Context(), "e1"))
	got, err := b.connect("e2", "one", e.Addrs[0].String())
	if err != nil || got.Generation <= e.Generation {
		t.Errorf("an address that was given back: %+v, %v", got, err)
	}
	a.eventually("who has it now", func(v fabric.View) bool { return len(v.Endpoints) == 1 && v.Endpoints["e2"].Host == "h2" })
}

// TestFixedAddressChanges: an endpoint that is connected with another address gives its
// first one back.
func TestFixedAddressChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	for _, addr := range []string{"10.1.0.5/24", "10.1.0.6/24"} {
		e, err := a.connect("e1", "one", addr)
		if err != nil || e.Addrs[0].String() != addr {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	_, err = a.connect("e2", "one", "10.1.0.5/24")
	a.must(err)
}

// TestConnectAtOnce: hosts that fill a subnet together get every address of it once.
func TestConnectAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	all := []*host{l.host(), l.host(), l.host(), l.host()}
	_, err := all[0].network("one", "10.1.0.0/25")
	all[0].must(err)
	var wg sync.WaitGroup
	for i := range 125 { // 128 less the network, the broadcast and the reserved address
		wg.Go(func() {
			if _, err := all[i%4].connect(fmt.Sprintf("e%d", i), "one", "10.1.0.0/25"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all[0].eventually("all endpoints", func(v fabric.View) bool { return len(v.Endpoints) == 125 })
	addrs := map[netip.Addr]bool{}
	for _, e := range all[0].View().Endpoints {
		addrs[e.Addrs[0].Addr()] = true
	}
	if len(addrs) != 125 {
		t.Errorf("%d addresses of 125 endpoints", len(addrs))
	}
	if _, err := all[1].connect("more", "one", "10.1.0.0/25"); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a full subnet: %v", err)
	}
}

// TestLeaseLost: a host that was thought dead comes back, and is told which of its
// addresses others have by now.
func TestLeaseLost(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var lease int64
	a, b := l.host(func(c *directory.Config) { c.Remember = func(id int64) error { lease = id; return nil } }), l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	var mine []fabric.Endpoint
	for _, addr := range []string{"10.1.0.5/24", "10.1.0.6/24", "10.1.0.7/24"} {
		e, err := a.connect("e"+addr[7:8], "one", addr)
		a.must(err)
		mine = append(mine, e)
	}
	resets := make(chan struct{}, 100)
	go a.Watch(t.Context(), func(c fabric.Change) {
		if c.Reset {
			resets <- struct{}{}
		}
	})
	<-resets
	_, err = l.client.Revoke(t.Context(), clientv3.LeaseID(lease))
	a.must(err)
	b.eventually("that all of it is gone", func(v fabric.View) bool { return len(v.Endpoints) == 0 })
	_, err = b.connect("thief", "one", "10.1.0.6/24")
	a.must(err)
	<-resets // the lease is back
	lost, err := a.Restore(t.Context(), mine[:2])
	if err != nil || len(lost) != 1 || lost[0].ID != "e6" {
		t.Errorf("lost %+v, %v", lost, err)
	}
	b.eventually("what is restored", func(v fabric.View) bool {
		return v.Endpoints["e5"].Host == "h1" && v.Hosts["h1"].Name != "" && len(v.Endpoints) == 2
	})
}

// TestRestoreRemoves: what a host has not any more goes, and what stands is not written
// again.
func TestRestoreRemoves(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	stays, err := a.connect("stays", "one", "10.1.0.0/24")
	a.must(err)
	_, err = a.connect("goes", "one", "10.1.0.0/24")
	a.must(err)
	a.eventually("both", func(v fabric.View) bool { return len(v.Endpoints) == 2 })
	lost, err := a.Restore(t.Context(), []fabric.Endpoint{stays})
	if err != nil || len(lost) > 0 {
		t.Fatal(lost, err)
	}
	a.eventually("one", func(v fabric.View) bool { return len(v.Endpoints) == 1 })
	if got := a.View().Endpoints["stays"].Generation; got != stays.Generation {
		t.Errorf("it was written again: %d, was %d", got, stays.Generation)
	}
}

// TestRestart: while isled is started anew, nobody sees anything go.
func TestRestart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var lease int64
	remember := func(c *directory.Config) { c.Remember = func(id int64) error { lease = id; return nil } }
	a, b := l.host(remember), l.host()
	_, err := a.network("one", "10.1.0.0/24")
	a.must(err)
	e, err := a.connect("e1", "one", "10.1.0.0/24")
	a.must(err)
	b.eventually("the endpoint", func(v fabric.View) bool { return len(v.Endpoints) == 1 })
	gone := make(chan string, 100)
	go b.Watch(t.Context(), func(c fabric.Change) {
		for id, h := range c.Hosts {
			if h == nil {
				gone <- id
			}
		}
		for id, e := range c.Endpoints {
			if e == nil {
				gone <- id
			}
		}
	})
	key := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	a.must(a.Describe(t.Context(), func(h *fabric.Host) { h.Key, h.KeyPort = key, 51871 }))
	a.stop()
	before := lease
	l.n = 0 // the same host again
	again := l.host(remember, func(c *directory.Config) { c.Lease = lease })
	if lost, err := again.Restore(t.Context(), []fabric.Endpoint{e}); err != nil || len(lost) > 0 {
		t.Fatal(lost, err)
	}
	time.Sleep(3 * time.Second) // longer than the lease
	if len(gone) > 0 || lease != before || b.View().Endpoints["e1"].Generation != e.Generation {
		t.Errorf("%d were gone; lease %x, was %x", len(gone), lease, before)
	}
	if h := b.View().Hosts[again.View().Self]; h.Key != key || h.KeyPort != 51871 {
		t.Errorf("the host lost its key: %+v", h)
	}
}
