package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
)

// LiftPids takes the limit on processes away. An OCI runtime cannot be asked:
// crun writes the -1 of its specification into the file, which no kernel takes.
func (g Group) LiftPids() error {
	dir := g.Dir("pids")
	if dir == "" {
		return fmt.Errorf("lift the limit on processes of %s: no such controller", g.Path)
	}
	if err := os.WriteFile(filepath.Join(dir, "pids.max"), []byte("max"), 0); err != nil {
		return fmt.Errorf("lift the limit on processes: %w", err)
	}
	return nil
}
