package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"isle/internal/ids"
)

// Drivers: who makes the groups.
const (
	Cgroupfs = "cgroupfs" // the OCI runtime, by mkdir
	Systemd  = "systemd"  // systemd, as a scope in a slice
)

// DefaultParent is the parent of the containers' groups where the
// configuration names none.
func DefaultParent(driver string) string {
	if driver == Systemd {
		return "isle.slice"
	}
	return "/isle"
}

// DefaultDriver is Docker's choice: systemd where it runs and the layout is v2.
func (h Host) DefaultDriver() string {
	if _, err := os.Stat("/run/systemd/system"); err == nil && h.Mode == V2 {
		return Systemd
	}
	return Cgroupfs
}

// prefix is what a scope's name begins with; systemd puts a "-" behind it.
const prefix = "isle"

// Group is where a container's processes are accounted.
type Group struct {
	OCI  string            // cgroupsPath of config.json
	Path string            // below the root of every hierarchy
	Dirs map[string]string // controller → directory; with v2 the one under ""
}

// Group returns where a container's group is or will be. An empty parent is
// the default one. With systemd the parent is a slice.
func (h Host) Group(driver, parent, id string) (Group, error) {
	path, err := parentPath(driver, parent)
	if err != nil {
		return Group{}, err
	}
	var g Group
	if driver == Systemd {
		g.OCI = parentOr(driver, parent) + ":" + prefix + ":" + id
		g.Path = filepath.Join(path, prefix+"-"+id+".scope")
	} else {
		g.Path = filepath.Join(path, id)
		g.OCI = g.Path
	}
	g.Dirs = h.dirs(g.Path)
	return g, nil
}

func parentOr(driver, parent string) string {
	if parent == "" {
		return DefaultParent(driver)
	}
	return parent
}

// parentPath is the parent's place below a hierarchy's root.
func parentPath(driver, parent string) (string, error) {
	parent = parentOr(driver, parent)
	if driver == Systemd {
		if !strings.HasSuffix(parent, ".slice") || strings.Contains(parent, "/") || parent == ".slice" {
			return "", fmt.Errorf("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\": %w", errdefs.ErrInvalidArgument)
		}
		return slicePath(parent), nil
	}
	if strings.HasSuffix(parent, ".slice") && !strings.Contains(parent, "/") {
		return "", fmt.Errorf("cgroup-parent %s is a slice, which needs the systemd cgroup driver: %w", parent, errdefs.ErrInvalidArgument)
	}
	return filepath.Join("/", parent), nil
}

// slicePath is where systemd puts a slice: "a-b.slice" is in "a.slice".
func slicePath(slice string) string {
	name := strings.TrimSuffix(slice, ".slice")
	if name == "-" {
		return "/"
	}
	path, so := "/", ""
	for _, part := range strings.Split(name, "-") {
		so += part
		path = filepath.Join(path, so+".slice")
		so += "-"
	}
	return path
}

func (h Host) dirs(path string) map[string]string {
	if h.Mode == V2 {
		return map[string]string{"": filepath.Join(h.Unified, path)}
	}
	dirs := map[string]string{}
	for c, at := range h.V1 {
		dirs[c] = filepath.Join(at, path)
	}
	return dirs
}

// Dir is the directory of a controller's group, where its limits are; "" when
// it has none.
func (g Group) Dir(controller string) string {
	if d, ok := g.Dirs[""]; ok {
		return limited(d)
	}
	return g.Dirs[controller]
}

// crunGroup is the group that crun makes in a scope of v2, to have one that
// systemd leaves alone. Processes and limits are there; runc makes none.
const crunGroup = "container"

// limited is the group below a v2 one that has the limits, or itself.
func limited(dir string) string {
	inner := filepath.Join(dir, crunGroup)
	if strings.HasSuffix(dir, ".scope") && isDir(inner) {
		return inner
	}
	return dir
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// EnsureParent makes the parent group of the cgroupfs driver, ready to hold
// groups with limits. systemd makes its slices itself.
func (h Host) EnsureParent(driver, parent string) error {
	path, err := parentPath(driver, parent)
	if err != nil || driver == Systemd {
		return err
	}
	for _, root := range h.hierarchies() {
		if err := h.ensure(root, path); err != nil {
			return fmt.Errorf("make parent cgroup %s: %w", filepath.Join(root, path), err)
		}
	}
	return nil
}

// ensure makes the groups from root down to path.
func (h Host) ensure(root, path string) error {
	dir := root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if h.Mode == V2 {
			h.handDown(dir)
		}
		parent := dir
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if root == h.V1["cpuset"] {
			if err := inheritSet(parent, dir); err != nil {
				return err
			}
		}
	}
	if h.Mode == V2 {
		h.handDown(dir)
	}
	return nil
}

// handDown lets the children of a v2 group have its controllers. One by one:
// the kernel takes all of a write or nothing, and which limits can be had is
// for Check to say.
func (h Host) handDown(dir string) {
	for _, c := range h.Controllers {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// inheritSet gives a new v1 cpuset group what its parent has.
func inheritSet(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if readTrim(filepath.Join(dir, name)) != "" {
			continue
		}
		v := readTrim(filepath.Join(parent, name))
		if v == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(v), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Remove drops the group and what is below it. It must hold no process. A
// missing one is no error.
func (g Group) Remove() error {
	var errs []error
	for _, dir := range g.Dirs {
		errs = append(errs, removeTree(dir))
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// RemoveLeftovers drops the groups below the parent that are named after a
// container which keep does not know. Groups with other names are not ours.
// The error joins those that could not go, because a process is in them.
func (h Host) RemoveLeftovers(driver, parent string, keep func(id string) bool) (removed []string, err error) {
	path, err := parentPath(driver, parent)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, root := range h.hierarchies() {
		entries, err := os.ReadDir(filepath.Join(root, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("find left-over cgroups: %w", err))
		}
		for _, e := range entries {
			id := containerOf(e.Name())
			if !e.IsDir() || !ids.Valid(id) || keep(id) {
				continue
			}
			if err := removeTree(filepath.Join(root, path, e.Name())); err != nil {
				errs = append(errs, err)
			} else if !slices.Contains(removed, id) {
				removed = append(removed, id)
			}
		}
	}
	return removed, errors.Join(errs...)
}

// containerOf is the container that a group with this name belongs to.
func containerOf(name string) string {
	scope, ok := strings.CutSuffix(name, ".scope")
	if !ok {
		return name
	}
	return strings.TrimPrefix(scope, prefix+"-")
}
