package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// Stats is what control groups contribute to Docker's statistics.
type Stats struct {
	CPU    container.CPUStats
	Memory container.MemoryStats
	Pids   container.PidsStats
	Blkio  container.BlkioStats
}

// Stats reads a container's groups. The error is of class NotFound when there
// are none. A controller that this machine lacks leaves zeros, as in Docker.
func (h Host) Stats(g Group) (Stats, error) {
	var s Stats
	if !g.exists() {
		return s, fmt.Errorf("statistics: no cgroup %s: %w", g.Path, errdefs.ErrNotFound)
	}
	var r reader
	if h.Mode == V2 {
		r.v2(g.Dir(""), &s)
	} else {
		r.v1(h, g, &s)
	}
	if s.Memory.Limit == 0 || s.Memory.Limit > h.MemTotal {
		s.Memory.Limit = h.MemTotal
	}
	s.CPU.SystemUsage, s.CPU.OnlineCPUs = r.system("/proc/stat", h.ClockTick), uint32(h.NCPU)
	if r.err != nil {
		return s, fmt.Errorf("statistics of cgroup %s: %w", g.Path, r.err)
	}
	return s, nil
}

func (g Group) exists() bool {
	for _, d := range g.Dirs {
		if _, err := os.Stat(d); err == nil {
			return true
		}
	}
	return false
}

// reader reads files and keeps the first error. A missing file is none: a
// controller may be absent, and a group may go while it is read.
type reader struct{ err error }

func (r *reader) text(dir, name string) string {
	if dir == "" {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil && !gone(err) && r.err == nil {
		r.err = err
	}
	return strings.TrimSpace(string(b))
}

func (r *reader) num(dir, name string) uint64 {
	s := r.text(dir, name)
	if s == "" || s == "max" {
		return 0
	}
	return r.parse(name, s)
}

func (r *reader) parse(name, s string) uint64 {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%s: %w", name, err)
	}
	return v
}

// keyed reads a file of lines "key value".
func (r *reader) keyed(dir, name string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.Lines(r.text(dir, name)) {
		if f := strings.Fields(line); len(f) == 2 {
			m[f[0]] = r.parse(name, f[1])
		}
	}
	return m
}

// system is the time all processors have spent on anything, in nanoseconds.
func (r *reader) system(path string, tick uint64) uint64 {
	first, _, _ := strings.Cut(r.text(filepath.Dir(path), filepath.Base(path)), "\n")
	f := strings.Fields(first)
	if len(f) < 8 || f[0] != "cpu" {
		return 0
	}
	var sum uint64
	for _, s := range f[1:8] {
		sum += r.parse(path, s)
	}
	return sum * (1e9 / tick)
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoDevice) }
