package engine

import (
	"fmt"

	"isle/internal/container"
	"isle/internal/rootfs"
	"isle/internal/runtime"
	"isle/internal/runtime/spec"
)

// lookUp finds who name is in the container's own /etc/passwd. A running
// container is looked into through its process, others through a view of their
// root file system.
func lookUp(s container.State, groups []string, mounts []runtime.Mount, name string) (spec.User, error) {
	root, err := look(s, mounts)
	if err != nil {
		return spec.User{}, fmt.Errorf("look up user %q: %w", name, err)
	}
	defer root.Close()
	u, err := spec.ResolveUser(root, name, groups)
	return u, trimmed(err)
}

// look opens the container's files. Links cannot lead out of them.
func look(s container.State, mounts []runtime.Mount) (*rootfs.View, error) {
	if s.Alive() {
		return rootfs.Running(s.Pid)
	}
	return rootfs.Mounted(mounts, nil)
}
