package runtime

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// TestTrialAtWork: a runtime that is first asked for when isled is long at
// work is tried under the eyes of whoever acknowledges exits.
func TestTrialAtWork(t *testing.T) {
	for _, name := range usual {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("not supported: %v", err)
		}
	}
	w := newWorld(t, "crun")
	engine := w.client()
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range engine.Exits(ctx) {
			engine.Ack(w.ctx, e.Proc)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	r, err := engine.lookup("runc")
	w.must(err)
	if p := engine.probed(r); p.Problem != "" {
		t.Errorf("runc on trial: %s", p.Problem)
	}
}

func TestExitsAreToldOnce(t *testing.T) {
	var told exitsTold
	a := Exit{Proc: Proc{ID: "a"}, Code: 1}
	again := Exit{Proc: Proc{ID: "a"}, Code: 2}
	if !told.first(a) || told.first(a) || !told.first(again) {
		t.Error("an exit is not told once")
	}
	told.forget(a.Proc)
	if len(told.m) != 0 {
		t.Error("what was acknowledged is remembered")
	}
}

// TestUpgradeTriesAnew: what an older isled found out is not all that there is to know.
func TestUpgradeTriesAnew(t *testing.T) {
	w := newWorld(t, "crun")
	r, err := w.c.Find("")
	w.must(err)
	file := w.c.path("probe-crun.json")
	b, err := os.ReadFile(file)
	w.must(err)
	var p map[string]any
	w.must(json.Unmarshal(b, &p))
	delete(p, "Format")
	p["KeepsFilter"] = false
	b, err = json.Marshal(p)
	w.must(err)
	w.must(os.WriteFile(file, b, 0o644))
	if !w.c.probed(r).KeepsFilter {
		t.Error("the finding of an older isled was taken for ours")
	}
}
