package network_test

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/kernel/kerneltest"
	"isle/internal/netspec"
	"isle/internal/network"
	"isle/internal/network/ipam"
	"isle/internal/reconcile"
)

// TestOverlaps: a VPN whose route comes later than the network is told of once,
// and shown as long as it is there.
func TestOverlaps(t *testing.T) {
	w := newWorld()
	m := w.manager()
	var log bytes.Buffer
	m.Log = slog.New(slog.NewTextHandler(&log, nil))
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	bridge, err := m.Find(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	overlaps := func() []ipam.Foreign {
		t.Helper()
		if err := m.Repair(t.Context(), reconcile.Alarm{Scope: reconcile.Scope{Facts: true}}); err != nil {
			t.Fatal(err)
		}
		all, err := m.Overlaps(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[bridge.ID]
	}
	told := func() int { return strings.Count(log.String(), "used by something else") }
	vpn := ipam.Foreign{Prefix: netip.PrefixFrom(bridge.Pools[0].Subnet.Addr(), 12).Masked(), What: "route", Dev: "tun0"}
	w.machine.foreign = []ipam.Foreign{{Prefix: netip.MustParsePrefix("0.0.0.0/1"), What: "route"}, {Prefix: netip.MustParsePrefix("10.0.0.0/8"), What: "route"}}
	if got := overlaps(); len(got) != 0 {
		t.Errorf("without any: %v", got)
	}
	w.machine.foreign = append(w.machine.foreign, vpn)
	for range 3 {
		if got := overlaps(); len(got) != 1 || got[0] != vpn {
			t.Errorf("%v, want %v", got, vpn)
		}
	}
	if told() != 1 {
		t.Errorf("told %d times:\n%s", told(), &log)
	}
	w.machine.foreign = nil
	if got := overlaps(); len(got) != 0 {
		t.Errorf("after it has gone: %v", got)
	}
	w.machine.foreign = []ipam.Foreign{vpn}
	if overlaps(); told() != 2 {
		t.Error("not told again when it came again")
	}
}

// TestOwnNameServer: the host may ask a container of ours for names, or itself at the
// address that it has on a network.
func TestOwnNameServer(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	create(t, m, api.CreateRequest{Name: "app", IPAM: config("10.1.0.0/24")})
	open(t, m, "dns", "app")
	for other, overlaps := range map[ipam.Foreign]int{
		{Prefix: prefix("10.1.0.1/32"), What: ipam.NameServer}:      0,
		{Prefix: prefix("10.1.0.2/32"), What: ipam.NameServer}:      0,
		{Prefix: prefix("10.1.0.3/32"), What: ipam.NameServer}:      1,
		{Prefix: prefix("10.1.0.2/32"), What: "route", Dev: "tun0"}: 1,
	} {
		w.machine.foreign = []ipam.Foreign{other}
		if all, err := m.Overlaps(t.Context()); err != nil || len(all) != overlaps {
			t.Errorf("%s: %v, %v", other, all, err)
		}
	}
}

// TestHostChangesLive: a new MTU of the way out is followed without a look at
// everything.
func TestHostChangesLive(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "c1", "bridge")
	w.machine.host = network.Host{MTU: 1380, IPv6: true, SockAddr: true}
	if err := m.Repair(t.Context(), reconcile.Alarm{Scope: reconcile.Scope{Facts: true}}); err != nil {
		t.Fatal(err)
	}
	if !w.kernel.State.Equal(w.want(t)) {
		t.Error("the kernel is not what a fresh process wants")
	}
}

// TestRepairOfAContainer: an alarm may be about one namespace alone.
func TestRepairOfAContainer(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	open(t, m, "c1", "bridge")
	want := maps.Clone(w.kernel.State)
	maps.DeleteFunc(w.kernel.State, func(k netspec.Key, _ netspec.Object) bool { return k.NS == "c1" && k.Rank == netspec.RankAddr })
	if w.kernel.State.Equal(want) {
		t.Fatal("there was no address to take")
	}
	if err := m.Repair(t.Context(), reconcile.Alarm{Scope: reconcile.Scope{Namespaces: []netspec.NS{"c1"}}}); err != nil || !w.kernel.State.Equal(want) {
		t.Errorf("%v, %v", err, reconcile.Diff(w.kernel.State, want))
	}
}

// told is who wants to know our bridges.
type told map[string]bool

func (b told) Add(name string)    { b[name] = true }
func (b told) Remove(name string) { delete(b, name) }

// TestBridgesAreTold: whoever wants to know learns of each bridge as long as it is
// there, also from a new process.
func TestBridgesAreTold(t *testing.T) {
	w := newWorld()
	start := func() (*network.Manager, told) {
		m, b := w.manager(), told{}
		m.Bridges = b
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return m, b
	}
	m, b := start()
	if _, err := m.Create(t.Context(), api.CreateRequest{Name: "app", Options: map[string]string{"com.docker.network.bridge.name": "br-app"}}); err != nil {
		t.Fatal(err)
	}
	open(t, m, "c1", "app")
	if !maps.Equal(b, told{"isle0": true, "br-app": true}) {
		t.Errorf("told %v", b)
	}
	m, b = start()
	if !maps.Equal(b, told{"isle0": true, "br-app": true}) {
		t.Errorf("a new process told %v", b)
	}
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(b, told{"isle0": true}) {
		t.Errorf("after the network is gone: told %v", b)
	}
}

// stubborn is a kernel that refuses all changes for a while.
type stubborn struct {
	*kerneltest.Fake
	until time.Time
}

func (k *stubborn) Apply(ctx context.Context, changes []reconcile.Change) (int, error) {
	if time.Now().Before(k.until) {
		return 0, kerneltest.ErrRefused
	}
	return k.Fake.Apply(ctx, changes)
}

// TestRepairIsTriedAgain: what cannot be put right now is put right later, long
// before the timer; so is what follows from new facts.
func TestRepairIsTriedAgain(t *testing.T) {
	t.Run("damage", func(t *testing.T) {
		triedAgain(t, reconcile.Scope{Host: true}, func(w *world) { w.kernel.Flush() })
	})
	t.Run("facts", func(t *testing.T) {
		triedAgain(t, reconcile.Scope{Facts: true}, func(w *world) { w.machine.host.MTU = 1380 })
	})
}

func triedAgain(t *testing.T, scope reconcile.Scope, harm func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		changed := make(chan reconcile.Alarm)
		k := &stubborn{Fake: w.kernel}
		m := w.manager()
		m.Kernel, m.Changed, m.Config.Resync = k, changed, time.Hour
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx) }()
		k.until = time.Now().Add(10 * time.Second)
		harm(w)
		changed <- reconcile.Alarm{Scope: scope}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if s, want := w.kernel.State, w.want(t); !s.Equal(want) {
			t.Errorf("not repaired: %v", reconcile.Diff(s, want))
		}
	})
}
