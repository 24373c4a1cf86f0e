package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFrozen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		controller, file, text string
		want                   bool
	}{
		{"freezer", "freezer.state", "FROZEN\n", true},
		{"freezer", "freezer.state", "FREEZING\n", true},
		{"freezer", "freezer.state", "THAWED\n", false},
		{"", "cgroup.freeze", "1\n", true},
		{"", "cgroup.freeze", "0\n", false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Group{Dirs: map[string]string{tt.controller: dir}}.Frozen()
		if err != nil || got != tt.want {
			t.Errorf("%s says %q: %v, %v", tt.file, tt.text, got, err)
		}
	}
	if _, err := (Group{Dirs: map[string]string{"memory": t.TempDir()}}).Frozen(); err == nil {
		t.Error("no error without a freezer")
	}
}
