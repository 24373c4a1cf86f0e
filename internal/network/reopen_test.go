package network_test

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/network"
	"isle/internal/reconcile"
)

// TestReopen: who comes back to a sandbox that others kept finds it as it was,
// with what was changed meanwhile.
func TestReopen(t *testing.T) {
	w := newWorld()
	m := w.start(t)
	app := create(t, m, api.CreateRequest{Name: "app", IPAM: config("10.1.0.0/24")})
	req := request("web", ports("80/tcp", ":8080", ":0"), "bridge", "app")
	first, err := m.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	before := w.kernel.State
	w.kernel.N = 0
	same, err := m.Reopen(t.Context(), req)
	if err != nil || w.kernel.N != 0 {
		t.Errorf("nothing was changed, and the kernel was %d times: %v", w.kernel.N, reconcile.Diff(before, w.kernel.State))
	}
	if len(same.Endpoints) != 2 || same.Endpoints[0].ID != first.Endpoints[0].ID || same.NSPath != first.NSPath || len(same.Ports) != len(first.Ports) {
		t.Errorf("%+v, was %+v", same, first)
	}
	// another address on one network, and not on the other any more
	req.Networks = req.Networks[1:]
	req.Networks[0].Settings.IPAMConfig = &api.EndpointIPAMConfig{IPv4Address: addr("10.1.0.77")}
	req.Ports = network.PortRequest{Bindings: ports("80/tcp", ":8080")}
	other, err := m.Reopen(t.Context(), req)
	if err != nil || len(other.Endpoints) != 1 || other.Endpoints[0].Addr(true) != addr("10.1.0.77") || len(w.keys("endpoint/")) != 1 {
		t.Fatalf("%+v, %v, endpoints %v", other, err, w.keys("endpoint/"))
	}
	if n := len(w.published("web")); n != 2 { // one port, of both families
		t.Errorf("published: %v", w.published("web"))
	}
	if again, err := m.Reopen(t.Context(), req); err != nil || again.Endpoints[0].ID != other.Endpoints[0].ID {
		t.Errorf("the address asked for is the one it has: %+v, %v", again, err)
	}
	if _, err := m.Reopen(t.Context(), request("gone", nil, app.ID)); !errdefs.IsNotFound(err) {
		t.Errorf("not open: %v", err)
	}
	if !w.kernel.State.Equal(w.want(t)) {
		t.Errorf("not what the records say: %v", reconcile.Diff(w.kernel.State, w.want(t)))
	}
}

// TestReopenFails: whatever the kernel refuses, who is in the sandbox keeps it, with
// the networks that it had, and it is what the records say.
func TestReopenFails(t *testing.T) {
	for n := 1; ; n++ {
		w := newWorld()
		m := w.start(t)
		create(t, m, api.CreateRequest{Name: "app"})
		before, err := m.Open(t.Context(), request("web", ports("80/tcp", ":8080"), "bridge"))
		if err != nil {
			t.Fatal(err)
		}
		w.kernel.N, w.kernel.FailAt = 0, n
		_, err = m.Reopen(t.Context(), request("web", ports("80/tcp", ":8080"), "app"))
		w.kernel.FailAt = 0
		if err == nil {
			if n == 1 {
				t.Error("the kernel was asked for nothing")
			}
			return
		}
		if !w.kernel.State.Equal(w.want(t)) || len(w.published("web")) != 2 || len(w.keys("sandbox/")) != 1 {
			t.Fatalf("failed at change %d: %v", n, reconcile.Diff(w.kernel.State, w.want(t)))
		}
		eps, err := m.Endpoints(t.Context())
		if err != nil || len(eps) != 1 || !reflect.DeepEqual(eps[0], before.Endpoints[0]) {
			t.Fatalf("failed at change %d: %+v, was %+v", n, eps, before.Endpoints)
		}
	}
}
