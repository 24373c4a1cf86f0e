package network_test

import (
	"maps"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"isle/internal/network"
	"isle/internal/network/driver/bridge"
	"isle/internal/reconcile"
)

// TestUnplannedIsLeftAlone: an isled that can make nothing of a record, of a driver
// that it has not, does not take away what runs. It goes with the record.
func TestUnplannedIsLeftAlone(t *testing.T) {
	w := newWorld()
	m := w.manager()
	m.Drivers["x"] = bridge.Driver{}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	bare := maps.Clone(w.kernel.State)
	create(t, m, api.CreateRequest{Name: "app", Driver: "x"})
	if _, err := m.Open(t.Context(), request("web", ports("80/tcp", ":8080"), "app")); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(w.kernel.State)
	m = w.start(t)
	all := reconcile.Alarm{Scope: reconcile.Scope{Filter: true, Host: true}}
	for what, do := range map[string]func() error{
		"sync": func() error { return m.Sync(t.Context()) }, "repair": func() error { return m.Repair(t.Context(), all) },
	} {
		if err := do(); err != nil || !w.kernel.State.Equal(before) {
			t.Errorf("%s: %v, %v", what, err, reconcile.Diff(before, w.kernel.State))
		}
	}
	open(t, m, "db", network.NameBridge)
	if err := m.Close(t.Context(), "db"); err != nil || !w.kernel.State.Equal(before) {
		t.Errorf("another container came and went: %v, %v", err, reconcile.Diff(before, w.kernel.State))
	}
	if err := m.Close(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(t.Context()); err != nil || !w.kernel.State.Equal(bare) {
		t.Errorf("left over: %v, %v", err, reconcile.Diff(bare, w.kernel.State))
	}
}
