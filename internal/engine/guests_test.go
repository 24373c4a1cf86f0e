package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"isle/internal/cni"
	"isle/internal/network"
)

// fakeGuests has places, as "sandbox network". All namespaces are one.
type fakeGuests struct {
	mu     sync.Mutex
	places map[string]network.JoinRequest
	ports  int // bindings that were asked for last
	fail   error
	record func() // is called before a place is made
}

func (g *fakeGuests) Lent(*os.File) (string, error) { return "lent-7", nil }

func (g *fakeGuests) Join(_ context.Context, req network.JoinRequest) (network.Joined, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.record != nil {
		g.record()
	}
	if g.fail != nil {
		return network.Joined{}, g.fail
	}
	g.places["lent-7 "+req.Place.Network], g.ports = req, len(req.Ports.Bindings)
	return g.joined("lent-7", req.Place.Network)
}

func (g *fakeGuests) joined(sandbox, id string) (network.Joined, error) {
	req, ok := g.places[sandbox+" "+id]
	if !ok {
		return network.Joined{}, errdefs.ErrNotFound
	}
	return network.Joined{Sandbox: sandbox, HostLink: "islev1", Inside: network.Inside{Up: true, MTU: 1500},
		Endpoint: network.Endpoint{Interface: req.Place.Settings.DriverOpts[network.OptIfname], Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}}, nil
}

func (g *fakeGuests) Joined(sandbox, id string) (network.Joined, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.joined(sandbox, id)
}

func (g *fakeGuests) Missing(sandbox, id string) ([]string, error) {
	if _, err := g.Joined(sandbox, id); err != nil {
		return []string{"it is gone"}, nil
	}
	return nil, nil
}

func (g *fakeGuests) Leave(_ context.Context, sandbox, id string, ports network.PortRequest) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.places, sandbox+" "+id)
	g.ports = len(ports.Bindings)
	return nil
}

func (g *fakeGuests) Seats() (out []network.Seat) {
	for at := range g.places {
		sandbox, id, _ := strings.Cut(at, " ")
		out = append(out, network.Seat{Sandbox: sandbox, Network: id})
	}
	return out
}

// withGuests is a world that other runtimes use, too.
func withGuests(t *testing.T) (*world, *fakeGuests) {
	w, g := newWorld(t), &fakeGuests{places: map[string]network.JoinRequest{}}
	w.Guests = g
	return w, g
}

func (w *world) records() (n int) {
	for k := range w.store.m {
		if strings.HasPrefix(k, "cni/") {
			n++
		}
	}
	return n
}

// asks carries a command out for a container. more is put into the configuration.
func (w *world) asks(command, id, more string) ([]byte, error) {
	return w.CNI(w.t.Context(), cni.Request{Command: command, ContainerID: id, NetNS: "/proc/self/ns/net", IfName: "eth0",
		Config: []byte(`{"cniVersion": "1.1.0", "name": "pods", "network": "bridge"` + more + `}`)})
}

// TestGuest: a record, a place and a result; and nothing of them after DEL.
func TestGuest(t *testing.T) {
	w, g := withGuests(t)
	g.record = func() {
		if w.records() != 1 {
			t.Error("the place is made before the record")
		}
	}
	out, err := w.asks(cni.Add, "pod", `, "runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 2}]}`)
	if err != nil || !strings.Contains(string(out), `"name":"eth0","mtu":1500,"sandbox":"/proc/self/ns/net"`) || g.ports != 1 {
		t.Errorf("%s %v, %d ports", out, err, g.ports)
	}
	if _, err := w.asks(cni.Check, "pod", `, "prevResult": `+string(out)); err != nil {
		t.Error(err)
	}
	if _, err := w.asks(cni.Add, "pod", ""); cni.CodeOf(err) != cni.CodeConflict {
		t.Errorf("a second ADD: %v", err)
	}
	if _, err := w.asks(cni.Add, "other", `, "interface": "eth1"`); cni.CodeOf(err) != cni.CodeConflict || len(g.places) != 1 {
		t.Errorf("the same place for another: %v", err)
	}
	if n, err := w.networks.Find(t.Context(), "bridge"); err != nil || !w.usedNetworks()[n.ID] {
		t.Error("the network counts as unused: prune would take it away")
	}
	for range 2 {
		if _, err := w.asks(cni.Del, "pod", ""); err != nil || w.records() != 0 || len(g.places) != 0 {
			t.Errorf("%v, %d records, places %v", err, w.records(), g.places)
		}
	}
	if _, err := w.asks(cni.Check, "pod", `, "prevResult": {}`); cni.CodeOf(err) != cni.CodeUnknown {
		t.Errorf("CHECK of nobody: %v", err)
	}
	if len(w.Engine.guests.busy) != 0 {
		t.Errorf("locks are left: %v", w.Engine.guests.busy)
	}
}

// TestGuestRefused leaves no record.
func TestGuestRefused(t *testing.T) {
	w, g := withGuests(t)
	g.fail = fmt.Errorf("no addresses: %w", errdefs.ErrUnavailable)
	if _, err := w.asks(cni.Add, "pod", ""); cni.CodeOf(err) != cni.CodeAgain || w.records() != 0 {
		t.Errorf("%v, %d records", err, w.records())
	}
	w.store.fail = errors.New("the disk is full")
	if _, err := w.asks(cni.Add, "pod", ""); cni.CodeOf(err) != cni.CodeInternal || len(g.places) != 0 {
		t.Errorf("%v, places %v", err, g.places)
	}
}

// TestGuestsAfterCrash: what a command has begun is finished.
func TestGuestsAfterCrash(t *testing.T) {
	w, g := withGuests(t)
	if _, err := w.asks(cni.Add, "pod", ""); err != nil {
		t.Fatal(err)
	}
	g.places["lent-7 stray"] = network.JoinRequest{} // DEL was at work
	w.Engine.guests = guestbook{}
	if err := w.restoreGuests(t.Context()); err != nil || w.records() != 1 || len(g.places) != 1 {
		t.Errorf("%v, %d records, places %v", err, w.records(), g.places)
	}
	clear(g.places) // ADD was at work
	w.Engine.guests = guestbook{}
	if err := w.restoreGuests(t.Context()); err != nil || w.records() != 0 {
		t.Errorf("%v, %d records", err, w.records())
	}
}

// TestCollect removes what a runtime does not name, of its own configuration.
func TestCollect(t *testing.T) {
	w, g := withGuests(t)
	for _, a := range []attachment{
		{Config: "pods", ContainerID: "keep", IfName: "eth0", Interface: "eth0", Network: "1", Sandbox: "lent-1"},
		{Config: "pods", ContainerID: "keep", IfName: "eth1", Interface: "eth1", Network: "1", Sandbox: "lent-1"},
		{Config: "pods", ContainerID: "drop", IfName: "eth0", Interface: "eth0", Network: "1", Sandbox: "lent-2"},
		{Config: "pods", Runtime: "other", ContainerID: "drop", IfName: "eth0", Interface: "eth0", Network: "1", Sandbox: "lent-3"},
		{Config: "else", ContainerID: "drop", IfName: "eth0", Interface: "eth0", Network: "1", Sandbox: "lent-4"},
	} {
		if err := w.admit(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		g.places[a.Sandbox+" 1"] = network.JoinRequest{}
	}
	if _, err := w.asks(cni.GC, "", ""); cni.CodeOf(err) != cni.CodeConfig || w.records() != 5 {
		t.Errorf("without a list: %v", err)
	}
	if _, err := w.asks(cni.GC, "", `, "cni.dev/valid-attachments": [{"containerID": "keep", "ifname": "eth0"}]`); err != nil || w.records() != 3 {
		t.Errorf("%v, %d records", err, w.records())
	}
	if _, err := w.asks(cni.GC, "", `, "cni.dev/valid-attachments": []`); err != nil || w.records() != 2 {
		t.Errorf("%v, %d records", err, w.records())
	}
}

// TestGuestPorts: those of all attachments of a namespace belong to it.
func TestGuestPorts(t *testing.T) {
	w, _ := withGuests(t)
	one, two := cni.Port{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}, cni.Port{HostPort: 2, ContainerPort: 2, Protocol: "udp", HostIP: "127.0.0.1"}
	a := attachment{Config: "a", ContainerID: "pod", Interface: "eth0", Sandbox: "lent-1", Ports: []cni.Port{one}}
	b := attachment{Config: "b", ContainerID: "pod", Interface: "eth1", Sandbox: "lent-1", Ports: []cni.Port{two}}
	for _, x := range []attachment{a, b} {
		if err := w.admit(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if got := mapped(w.Engine.guests.ports("lent-1", "")); len(got.Bindings) != 2 {
		t.Errorf("%+v", got)
	}
	if got := w.Engine.guests.ports("lent-1", a.key()); len(got) != 1 || got[0] != two {
		t.Errorf("%+v", got)
	}
}

// TestStatus: ADD would find its network.
func TestStatus(t *testing.T) {
	w, _ := withGuests(t)
	if _, err := w.asks(cni.Status, "", ""); err != nil {
		t.Error(err)
	}
	if _, err := w.asks(cni.Status, "", `, "network": "nope"`); cni.CodeOf(err) != cni.CodeUnavailable || !errdefs.IsUnavailable(err) {
		t.Errorf("%v", err)
	}
	if _, err := w.asks(cni.Status, "", `, "network": "nope", "create": {}`); err != nil {
		t.Error(err)
	}
	w.Guests = nil
	if _, err := w.asks(cni.Status, "", ""); cni.CodeOf(err) != cni.CodeUnavailable {
		t.Errorf("%v", err)
	}
}
