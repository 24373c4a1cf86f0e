package shim

import (
	"fmt"
	"os"
	"path/filepath"

	"isle/internal/runtime/shim/wire"
)

// checkTargets refuses a root file system in which a directory that every
// container gets anew is a link: runc 1.1.5 makes the links of /dev where that
// leads, which is on the host (CVE-2026-41579). Nothing of the container runs
// yet that could put a link there afterwards.
func checkTargets(rootfs string) error {
	for _, dir := range []string{"dev", "proc", "sys"} {
		st, err := os.Lstat(filepath.Join(rootfs, dir))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at /%s of the root file system: %w", dir, err)
		}
		if !st.IsDir() {
			return wire.Errorf(wire.Invalid, "/%s in the root file system is not a directory: such a container is not run", dir)
		}
	}
	return nil
}
