package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// crun has the limits one group below the scope that systemd makes.
func TestScopeOfCrun(t *testing.T) {
	h := Host{Mode: V2, Unified: t.TempDir()}
	g, err := h.Group(Systemd, "", testID)
	if err != nil {
		t.Fatal(err)
	}
	scope := g.Dirs[""]
	inner := filepath.Join(scope, "container")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(scope+"/cgroup.freeze", []byte("0\n"), 0o600), os.WriteFile(inner+"/cgroup.freeze", []byte("1\n"), 0o600),
		os.WriteFile(scope+"/pids.max", []byte("9\n"), 0o600), os.WriteFile(inner+"/pids.max", []byte("9\n"), 0o600),
		g.LiftPids())
	if err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("a paused container is not seen: %v, %v", frozen, err)
	}
	if got := readTrim(inner + "/pids.max"); got != "max" || readTrim(scope+"/pids.max") != "9" {
		t.Errorf("lifted the wrong limit: %q", got)
	}
	// A cgroupfs container may make a group of that name itself.
	g, err = h.Group(Cgroupfs, "", testID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(g.Dirs[""]+"/container", 0o755); err != nil || g.Dir("") != g.Dirs[""] {
		t.Errorf("the container's own group was taken for its limits: %s, %v", g.Dir(""), err)
	}
}
