package network_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/network"

	"isle/internal/netspec"
)

// bridges counts the containers' links by the bridge that they are ports of.
func (w *world) bridges() map[string]int {
	out := map[string]int{}
	for _, o := range w.kernel.State {
		if l, ok := o.(netspec.Link); ok && l.PeerNS != "" {
			out[l.Master]++
		}
	}
	return out
}

// TestNetworkGrows: a bridge that is full is no wall. A place that gets free is
// taken again before the network grows more; a start changes nothing; with the
// network all of it goes.
func TestNetworkGrows(t *testing.T) {
	w := newWorld()
	w.room = 2
	m := w.start(t)
	bare := len(w.kernel.State)
	n := create(t, m, api.CreateRequest{Name: "app"})
	for i := range 6 {
		open(t, m, fmt.Sprint("c", i), "app")
	}
	root := "isle-" + n.ID[:10]
	want := map[string]int{root: 2, fmt.Sprintf("isleb%d-1", n.Index): 2, fmt.Sprintf("isleb%d-2", n.Index): 2}
	if got := w.bridges(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	_, err := m.Open(t.Context(), request("c6", nil, "app"))
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "6 containers") {
		t.Errorf("one too many: %v", err)
	}
	if err := m.Close(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	w.kernel.N = 0
	m = w.start(t)
	if w.kernel.N != 0 {
		t.Errorf("%d kernel changes at a restart", w.kernel.N)
	}
	open(t, m, "c6", "app")
	if got := w.bridges(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a restart %v, want %v", got, want)
	}
	for _, c := range []string{"c0", "c2", "c3", "c4", "c5", "c6"} {
		if err := m.Close(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if len(w.kernel.State) != bare {
		t.Errorf("left over: %v", w.bridges())
	}
}

// TestOverlayGrows: a network of a cluster grows on each host by itself, as far as the
// containers there need it. A start changes nothing, and with the last container of a host
// all of it goes.
func TestOverlayGrows(t *testing.T) {
	_, all := gather(t, 2)
	a, b := all[0], all[1]
	a.room = 1
	a.begin(t)
	hear(t, all)
	bare := len(a.kernel.State)
	n := overlay(t, all, "app")
	for i := range 3 {
		open(t, a.m, fmt.Sprint("a", i), "app")
		open(t, b.m, fmt.Sprint("b", i), "app")
	}
	here, err := a.m.Find(t.Context(), "app")
	must(t, err)
	leaf := fmt.Sprintf("isleb%d-", here.Index)
	want := map[string]int{"isle-" + n.ID[:10]: 1, leaf + "1": 1, leaf + "2": 1}
	if got := a.bridges(); fmt.Sprint(got) != fmt.Sprint(want) || len(b.bridges()) != 1 {
		t.Errorf("%v, want %v; the other host has %v", got, want, b.bridges())
	}
	rightAll(t, all)
	if got := len(of[netspec.FDB](a)); got != 3 {
		t.Errorf("%d stations of the other host", got)
	}
	if _, err := a.m.Open(t.Context(), request("a3", nil, "app")); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "3 containers") {
		t.Errorf("one too many: %v", err)
	}
	must(t, a.m.Close(t.Context(), "a2"))
	for _, away := range []bool{false, true} {
		a.kernel.N = 0
		if away {
			a.dir.Cut(true)
		}
		a.begin(t)
		must(t, a.m.Sync(t.Context()))
		a.dir.Heal()
		hear(t, all)
		must(t, a.m.Sync(t.Context()))
		if a.kernel.N != 0 {
			t.Errorf("%d kernel changes at a restart, store away: %t", a.kernel.N, away)
		}
	}
	open(t, a.m, "a2", "app")
	if got := a.bridges(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after a restart %v, want %v", got, want)
	}
	for i := range 3 {
		must(t, a.m.Close(t.Context(), fmt.Sprint("a", i)))
	}
	if len(a.kernel.State) != bare || len(a.keys("foothold/")) > 0 {
		t.Errorf("left over: %v, %v", a.bridges(), a.keys("foothold/"))
	}
	open(t, a.m, "a0", "app")
	rightAll(t, all)
}

// TestLeafNameTaken: a network does not grow over a bridge that the user gave
// to another, and what it has grown by is not given to another.
func TestLeafNameTaken(t *testing.T) {
	w := newWorld()
	w.room = 1
	m := w.start(t)
	n := create(t, m, api.CreateRequest{Name: "app"})
	create(t, m, api.CreateRequest{Name: "thief", Options: map[string]string{"com.docker.network.bridge.name": fmt.Sprintf("isleb%d-1", n.Index)}})
	open(t, m, "c0", "app")
	if _, err := m.Open(t.Context(), request("c1", nil, "app")); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "thief") {
		t.Errorf("err = %v", err)
	}
	if _, err := m.Remove(t.Context(), "thief"); err != nil {
		t.Fatal(err)
	}
	open(t, m, "c1", "app")
	_, err := m.Create(t.Context(), api.CreateRequest{Name: "thief", Options: map[string]string{"com.docker.network.bridge.name": fmt.Sprintf("isleb%d-1", n.Index)}})
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "app") {
		t.Errorf("a leaf was given away: %v", err)
	}
}
