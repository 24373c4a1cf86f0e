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

	"isle/internal/event"
	"isle/internal/fabric"
	"isle/internal/netspec"
	"isle/internal/network/pulse"
)

// ways are what a host was told to try.
type ways struct {
	mu    sync.Mutex
	now   []pulse.Way
	known map[string]pulse.Contact // "way host"
}

func (w *ways) Set(all []pulse.Way) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = all
}

func (w *ways) Contact(way, host string) (pulse.Contact, bool) {
	c, ok := w.known[way+" "+host]
	return c, ok
}

// String is what is tried: "link MTU: host!, host", with ! for those that are near.
func (w *ways) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, v := range w.now {
		var peers []string
		for _, p := range v.Peers {
			peers = append(peers, p.ID+map[bool]string{true: "!"}[p.Near])
		}
		all = append(all, fmt.Sprintf("%s %d: %s", v.Link, v.MTU, strings.Join(peers, ", ")))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// TestTrials: what is tried is what networks here go, and what they would go: with one
// tunnel for each way, however many networks there are.
func TestTrials(t *testing.T) {
	c, all := gather(t, 3)
	for _, h := range all {
		h.seal, h.machine.host.IPv6 = newSealer(h.id, time.Now), true
		h.begin(t)
	}
	hear(t, all)
	a := all[0]
	running(t, a)
	is := func(when, want string) {
		t.Helper()
		rightAll(t, all)
		if !soonIs(a.pulse.String, want) {
			t.Errorf("%s: tried is %s, want %s", when, a.pulse.String(), want)
		}
	}
	is("asleep", "islep4789 1450: b, c")
	for i, name := range []string{"one", "two"} {
		create(t, a.m, api.CreateRequest{Name: name, Driver: "overlay", IPAM: pool(i)})
	}
	create(t, a.m, api.CreateRequest{Name: "secret", Driver: "overlay", IPAM: pool(2), Options: map[string]string{"encrypted": ""}})
	hear(t, all)
	for _, name := range []string{"one", "two", "secret"} {
		open(t, a.m, "a-"+name, name)
		open(t, all[1].m, "b-"+name, name)
	}
	is("with networks", "islep4789 1450: b!, c; islep4790 1370: b!")
	if n := len(only[netspec.VXLAN](a, true)); n != 2 {
		t.Errorf("there are %d tunnels for trials", n)
	}
	create(t, a.m, api.CreateRequest{Name: "small", Driver: "overlay", IPAM: pool(3), Options: map[string]string{"isle.overlay.port": "8472", "com.docker.network.driver.mtu": "1300"}})
	hear(t, all)
	open(t, a.m, "a-small", "small")
	is("with one that is small", "islep4789 1450: b!, c; islep4790 1370: b!; islep8472 1300: ")
	must(t, a.m.Close(t.Context(), "a-small"))
	must(t, a.m.Close(t.Context(), "a-secret"))
	is("without what is encrypted", "islep4789 1450: b!, c")
	all[2].dir.Cut(false)
	c.Expire("c")
	all = all[:2]
	is("one is gone", "islep4789 1450: b!")
	for _, name := range []string{"one", "two"} {
		must(t, a.m.Close(t.Context(), "a-"+name))
	}
	is("asleep again", "islep4789 1450: b")
}

func pool(i int) *api.IPAM {
	return &api.IPAM{Config: []api.IPAMConfig{{Subnet: prefix(fmt.Sprintf("10.%d.0.0/24", 30+i))}}}
}

// TestTrialLeft: a host that is in no cluster any more tries nothing.
func TestTrialLeft(t *testing.T) {
	_, all := gather(t, 2)
	a := all[0]
	if len(only[netspec.VXLAN](a, true)) != 1 || len(only[netspec.FDB](a, true)) != 1 {
		t.Fatalf("the kernel has %v", a.kernel.State)
	}
	a.m.Fabric = nowhere{}
	a.m.Heard(t.Context(), fabric.Change{Reset: true})
	for _, o := range a.kernel.State {
		if trial(o) {
			t.Errorf("%v is left", o)
		}
	}
}

// nowhere is what a host sees that is in no cluster.
type nowhere struct{ fabric.Directory }

func (nowhere) View() fabric.View { return fabric.View{Known: true} }

// TestOneWay: of one port there is one way on a host, or what is to be encrypted could go
// another.
func TestOneWay(t *testing.T) {
	_, all := gather(t, 2)
	for _, h := range all {
		h.seal, h.machine.host.IPv6 = newSealer(h.id, time.Now), true
		h.begin(t)
	}
	hear(t, all)
	a := all[0]
	create(t, a.m, api.CreateRequest{Name: "plain", Driver: "overlay", IPAM: pool(0)})
	create(t, a.m, api.CreateRequest{Name: "secret", Driver: "overlay", IPAM: pool(1), Options: map[string]string{"encrypted": "", "isle.overlay.port": "4789"}})
	hear(t, all)
	open(t, a.m, "first", "plain")
	if _, err := a.m.Open(t.Context(), request("second", nil, "secret")); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "plain") {
		t.Errorf("a second way of one port: %v", err)
	}
	rightAll(t, all)
	must(t, a.m.Close(t.Context(), "first"))
	open(t, a.m, "second", "secret")
	rightAll(t, all)
	if got := only[netspec.VXLAN](a, true); len(got) != 1 || got[0].Via == "" {
		t.Errorf("tried is %v", got)
	}
}

// TestTold: a way that is other than it was is told of as Docker tells of nodes, and shown
// with the network that goes it.
func TestTold(t *testing.T) {
	_, all := gather(t, 2)
	a := all[0]
	a.m.Events = &event.Bus{}
	_, live, cancel := a.m.Events.Subscribe(time.Time{})
	defer cancel()
	overlay(t, all, "app")
	open(t, a.m, "one", "app")
	open(t, all[1].m, "two", "app")
	hear(t, all)
	narrow := pulse.Contact{State: pulse.Narrow, Fit: 1400, MTU: 1450, There: true}
	a.m.TellWay(pulse.Report{Way: "UDP port 4789", Peer: pulse.Peer{ID: "b", Name: "host-b", Addr: netip.MustParseAddr("192.0.2.2")}, Old: pulse.Up, Contact: narrow})
	for e := range live {
		if e.Type == "node" {
			if at := e.Actor.Attributes; e.Action != "update" || e.Actor.ID != "b" || at["name"] != "host-b" || at["state.old"] != "up" || at["state.new"] != "narrow" {
				t.Errorf("told is %+v", e)
			}
			break
		}
	}
	a.pulse.known = map[string]pulse.Contact{"UDP port 4789 b": narrow}
	s, err := a.m.Span(t.Context(), "app")
	must(t, err)
	for _, h := range s.Hosts {
		if want := map[string]pulse.Contact{"a": {State: pulse.Unknown}, "b": narrow}[h.ID]; h.Contact != want {
			t.Errorf("host %s is shown as %+v", h.ID, h.Contact)
		}
	}
}

// soonIs waits for something that goes on by itself.
func soonIs(get func() string, want string) bool {
	for end := time.Now().Add(10 * time.Second); get() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// running runs what a Manager does by itself.
func running(t *testing.T, h *member) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}
