package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLiftPids(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := (Group{Dirs: map[string]string{"pids": dir}}).LiftPids(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "pids.max")); err != nil || string(b) != "max" {
		t.Errorf("%q, %v", b, err)
	}
	if err := (Group{}).LiftPids(); err == nil {
		t.Error("no error without the controller")
	}
}
