package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Mode is the layout of the control groups.
type Mode int

// The layouts. Hybrid has its controllers on v1 and an additional v2 tree.
const (
	V1 Mode = iota + 1
	Hybrid
	V2
)

func (m Mode) String() string {
	switch m {
	case V1:
		return "v1"
	case Hybrid:
		return "hybrid"
	case V2:
		return "v2"
	}
	return "none"
}

// Version is the number that Docker shows as "Cgroup Version".
func (m Mode) Version() string {
	if m == V2 {
		return "2"
	}
	return "1"
}

// Host is what this machine has. It is a value: equal hosts answer equally.
type Host struct {
	Mode        Mode
	V1          map[string]string // controller → mount point of its v1 hierarchy
	Unified     string            // mount point of the v2 tree; "": there is none
	Controllers []string          // those that can limit a container, sorted
	Files       map[string]bool   // files of a container's group, by name
	NCPU        int               // processors online
	CPUs, Mems  string            // lists of what a cpuset may hold: "0-3"
	MemTotal    uint64            // bytes
	ClockTick   uint64            // ticks a second of cpuacct.stat
}

// limiting are the controllers whose files Detect lists.
var limiting = []string{"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "io", "memory", "misc", "pids", "rdma"}

// filesV2 are the files a controller of v2 brings. They are taken for granted
// where no group shows them yet because no parent has handed the controller down.
var filesV2 = map[string][]string{
	"cpu":    {"cpu.max", "cpu.weight"},
	"cpuset": {"cpuset.cpus", "cpuset.mems"},
	"io":     {"io.max"},
	"memory": {"memory.max", "memory.high", "memory.low", "memory.swap.max"},
	"pids":   {"pids.max"},
}

// Has reports whether a controller can be used for containers.
func (h Host) Has(controller string) bool { return slices.Contains(h.Controllers, controller) }

// HasFile reports whether a container's group has one of the files.
func (h Host) HasFile(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return h.Files[n] })
}

// HideUnified reports whether crun would refuse this machine unless the v2
// tree is out of its sight.
func (h Host) HideUnified() bool {
	if h.Mode != Hybrid {
		return false
	}
	b, err := os.ReadFile(filepath.Join(h.Unified, "cgroup.controllers"))
	return err == nil && len(strings.Fields(string(b))) > 0
}

// Detect looks at this machine. It makes a group in every hierarchy for a
// moment.
func Detect() (Host, error) { return detect("/") }

// detect is Detect for the machine whose file system is below root.
func detect(root string) (Host, error) {
	h := Host{V1: map[string]string{}, Files: map[string]bool{}, ClockTick: 100}
	b, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return h, fmt.Errorf("find cgroups: %w", err)
	}
	h.readMounts(string(b), root)
	switch {
	case h.Unified == "" && len(h.V1) == 0:
		return h, fmt.Errorf("find cgroups: no cgroup file system is mounted: %w", errdefs.ErrNotImplemented)
	case len(h.V1) == 0:
		h.Mode = V2
	case h.Unified != "":
		h.Mode = Hybrid
	default:
		h.Mode = V1
	}
	if err := h.readControllers(); err != nil {
		return h, err
	}
	return h, h.readMachine(root)
}

// readMounts finds the hierarchies. Only mounts of a whole hierarchy count, so
// that a bind of a part of one is not taken for it; where all are such parts
// (isled runs in a container) the first one does.
func (h *Host) readMounts(mountinfo, root string) {
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 {
			continue
		}
		at := filepath.Join(root, unescape(l[4]))
		switch r[0] {
		case "cgroup2":
			if h.Unified == "" {
				h.Unified = at
			}
		case "cgroup":
			for _, c := range strings.Split(r[len(r)-1], ",") {
				if _, dup := h.V1[c]; !dup && (slices.Contains(limiting, c) || strings.HasPrefix(c, "name=")) {
					h.V1[c] = at
				}
			}
		}
	}
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func (h *Host) readControllers() error {
	if h.Mode == V2 {
		return h.readUnified()
	}
	for c, dir := range h.V1 {
		if !slices.Contains(limiting, c) {
			continue
		}
		h.Controllers = append(h.Controllers, c)
		if err := h.readFiles(dir); err != nil {
			return err
		}
	}
	slices.Sort(h.Controllers)
	return nil
}

func (h *Host) readUnified() error {
	b, err := os.ReadFile(filepath.Join(h.Unified, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("find cgroup controllers: %w", err)
	}
	h.Controllers = strings.Fields(string(b))
	slices.Sort(h.Controllers)
	sub, err := os.ReadFile(filepath.Join(h.Unified, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("find cgroup controllers: %w", err)
	}
	handed := strings.Fields(string(sub))
	for _, c := range h.Controllers {
		if slices.Contains(handed, c) {
			continue
		}
		for _, f := range filesV2[c] {
			h.Files[f] = true
		}
	}
	return h.readFiles(h.Unified)
}

// readFiles notes the files of a group below dir, made for the purpose, and of
// dir itself.
func (h *Host) readFiles(dir string) error {
	dirs := []string{dir}
	probe, err := os.MkdirTemp(dir, "isle-probe-")
	if err == nil {
		defer os.Remove(probe)
		dirs = append(dirs, probe)
	} else if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errReadOnly) {
		return fmt.Errorf("look into cgroup %s: %w", dir, err)
	}
	for _, d := range dirs {
		entries, err := os.ReadDir(d)
		if err != nil {
			return fmt.Errorf("look into cgroup %s: %w", d, err)
		}
		for _, e := range entries {
			if !e.IsDir() {
				h.Files[e.Name()] = true
			}
		}
	}
	return nil
}

func (h *Host) readMachine(root string) error {
	var err error
	if h.MemTotal, err = memTotal(filepath.Join(root, "proc/meminfo")); err != nil {
		return err
	}
	online := readTrim(filepath.Join(root, "sys/devices/system/cpu/online"))
	h.CPUs, h.Mems = online, readTrim(filepath.Join(root, "sys/devices/system/node/online"))
	if h.Mems == "" {
		h.Mems = "0" // a kernel without NUMA
	}
	set := h.V1["cpuset"]
	if h.Mode == V2 {
		set = h.Unified
	}
	for _, f := range []struct {
		to   *string
		name string
	}{{&h.CPUs, "cpuset.cpus"}, {&h.Mems, "cpuset.mems"}} {
		for _, name := range []string{f.name + ".effective", f.name} {
			if v := readTrim(filepath.Join(set, name)); set != "" && v != "" {
				*f.to = v
				break
			}
		}
	}
	cpus, err := parseSet(online)
	if err != nil || len(cpus) == 0 {
		return fmt.Errorf("count processors in %q: %w", online, errors.Join(err, errdefs.ErrInternal))
	}
	h.NCPU = len(cpus)
	return nil
}

func memTotal(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the size of memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kb, err := strconv.ParseUint(f[1], 10, 64)
			return kb * 1024, err
		}
	}
	return 0, fmt.Errorf("read the size of memory: no MemTotal in %s", path)
}

func readTrim(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// hierarchies are the directories that hold groups, each once.
func (h Host) hierarchies() []string {
	if h.Mode == V2 {
		return []string{h.Unified}
	}
	dirs := slices.Sorted(maps.Values(h.V1))
	return slices.Compact(dirs)
}
