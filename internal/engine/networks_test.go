package engine

import (
	"context"
	"maps"
	"slices"
	"testing"

	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/container"
)

func (w *world) connect(network, ref string) {
	w.t.Helper()
	if err := w.NetworkConnect(w.t.Context(), network, networktypes.ConnectRequest{Container: ref}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) disconnect(network, ref string) {
	w.t.Helper()
	if err := w.NetworkDisconnect(w.t.Context(), network, ref, false); err != nil {
		w.t.Fatal(err)
	}
}

// shown is what "port" and "ps" are told: null for what is exposed only.
func (w *world) shown(ref string) networktypes.PortMap {
	w.t.Helper()
	in, err := w.ContainerInspect(w.t.Context(), ref, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return in.NetworkSettings.Ports
}

// TestPortsFollowNetworks: off its last network a container that runs shows no
// port, published or exposed; back on one, it shows them again.
func TestPortsFollowNetworks(t *testing.T) {
	w := newWorld(t)
	web, dns := networktypes.MustParsePort("80/tcp"), networktypes.MustParsePort("53/udp")
	w.create("web", publishing("8080:80"), func(o *container.CreateOptions) { o.Config.ExposedPorts = networktypes.PortSet{dns: {}} })
	w.start("web")
	check := func(when string, want ...networktypes.Port) {
		t.Helper()
		got := w.shown("web")
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
		for _, p := range want {
			if bs, ok := got[p]; !ok || (len(bs) > 0) != (p == web) {
				t.Errorf("%s: %s is %v", when, p, bs)
			}
		}
	}
	check("it runs", web, dns)
	w.connect("app", "web")
	w.disconnect("bridge", "web")
	check("moved", web, dns)
	w.disconnect("app", "web")
	check("on no network")
	w.stop()
	w.boot()
	check("on no network, after a restart of isled")
	w.connect("app", "web")
	check("back", web, dns)
}

// TestFromNone: a container without a network is given one while it runs, and
// may leave "none", of which the Manager has no endpoint.
func TestFromNone(t *testing.T) {
	w := newWorld(t)
	w.create("one", in("none"))
	w.start("one")
	w.disconnect("none", "one")
	w.connect("app", "one")
	in, err := w.ContainerInspect(t.Context(), "one", false)
	if err != nil || len(in.NetworkSettings.Networks) != 1 || !in.NetworkSettings.Networks["app"].IPAddress.IsValid() {
		t.Errorf("%v, %v", slices.Collect(maps.Keys(in.NetworkSettings.Networks)), err)
	}
	w.stopNow("one")
	w.start("one")
	if got := w.state("one").Status; got != apitypes.StateRunning {
		t.Errorf("it is %s", got)
	}
}

// TestUpdateGoesThrough: a client that goes leaves no half of a change.
func TestUpdateGoesThrough(t *testing.T) {
	w := newWorld(t)
	w.create("web", publishing("8080:80"))
	w.start("web")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.ContainerUpdate(gone, "web", container.UpdateOptions{PortBindings: networktypes.PortMap{networktypes.MustParsePort("81/tcp"): {{HostPort: "8081"}}}})
	if got := w.kept("web"); err != nil || got != "8081:81||1" {
		t.Errorf("%s, %v", got, err)
	}
}
