package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Frozen reports whether the group's processes are frozen, or about to be.
func (g Group) Frozen() (bool, error) {
	dir, name := g.Dir("freezer"), "freezer.state"
	if _, ok := g.Dirs[""]; ok {
		name = "cgroup.freeze"
	}
	if dir == "" {
		return false, fmt.Errorf("read the freezer of %s: no such controller", g.Path)
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return false, fmt.Errorf("read the freezer: %w", err)
	}
	switch strings.TrimSpace(string(b)) {
	case "1", "FROZEN", "FREEZING":
		return true, nil
	}
	return false, nil
}
