package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rlimits are the resource limits by the names that people use.
var rlimits = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// ParseUlimits reads the configuration's default limits ("nofile" → "1024:4096").
func ParseUlimits(m map[string]string) (map[string]Limit, error) {
	out := map[string]Limit{}
	for name, v := range m {
		u, err := units.ParseUlimit(name + "=" + v)
		if err != nil {
			return nil, fmt.Errorf("default-ulimits: %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
		}
		out[name] = limitOf(u)
	}
	return out, nil
}

// limitOf turns Docker's -1 into no limit.
func limitOf(u *units.Ulimit) Limit { return Limit{Soft: uint64(u.Soft), Hard: uint64(u.Hard)} }

// processLimits are the limits to set: the defaults, as far as they can be
// had, and those that were asked for, which must be.
func processLimits(h Host, defaults map[string]Limit, asked []*api.Ulimit) ([]specs.POSIXRlimit, error) {
	set := map[string]Limit{}
	for name, l := range defaults {
		set[name] = h.clamp(name, l)
	}
	for _, u := range asked {
		if u == nil {
			continue
		}
		if err := h.checkUlimit(u); err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		set[u.Name] = limitOf(u)
	}
	var out []specs.POSIXRlimit
	for _, name := range slices.Sorted(maps.Keys(set)) {
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: set[name].Soft, Hard: set[name].Hard})
	}
	return out, nil
}

func (h Host) clamp(name string, l Limit) Limit {
	if most, ok := h.HardLimits[name]; ok && !h.may("CAP_SYS_RESOURCE") {
		l.Hard = min(l.Hard, most)
	}
	l.Soft = min(l.Soft, l.Hard)
	return l
}

func (h Host) checkUlimit(u *api.Ulimit) error {
	most, known := h.HardLimits[u.Name]
	l := limitOf(u)
	switch {
	case !known:
		return fmt.Errorf("invalid ulimit type: %s", u.Name)
	case u.Soft < -1 || u.Hard < -1:
		return fmt.Errorf("invalid ulimit %s: limits are at least 0, or -1 for unlimited", u)
	case l.Soft > l.Hard:
		return fmt.Errorf("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
	case l.Hard > most && !h.may("CAP_SYS_RESOURCE"):
		return fmt.Errorf("--ulimit %s: isled may not raise the limit above %d on this machine (it lacks CAP_SYS_RESOURCE)", u, most)
	}
	return nil
}

// oomScore is the process's oom_score_adj. It cannot be lower than our own
// without CAP_SYS_RESOURCE: silently so by default, an error when asked for.
func oomScore(h Host, asked int) (*int, error) {
	switch {
	case asked < -1000 || asked > 1000:
		return nil, fmt.Errorf("Invalid value %d, range for oom score adj is [-1000, 1000]: %w", asked, errdefs.ErrInvalidArgument)
	case asked >= h.OOMScoreAdj || h.may("CAP_SYS_RESOURCE"):
	case asked == 0:
		asked = h.OOMScoreAdj
	default:
		return nil, fmt.Errorf("--oom-score-adj %d: isled may not go below its own %d on this machine (it lacks CAP_SYS_RESOURCE): %w", asked, h.OOMScoreAdj, errdefs.ErrInvalidArgument)
	}
	return &asked, nil
}
