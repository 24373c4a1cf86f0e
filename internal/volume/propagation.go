package volume

import (
	"fmt"
	"os"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/mountinfo"
)

// checkPropagation reports whether mounts can propagate between a bind and the
// mount that its source is on, as was asked for.
func checkPropagation(source string, p mount.Propagation) error {
	var need []string
	switch p {
	case mount.PropagationShared, mount.PropagationRShared:
		need = []string{"shared:"}
	case mount.PropagationSlave, mount.PropagationRSlave:
		need = []string{"shared:", "master:"}
	default:
		return nil
	}
	on, err := mountOf(source)
	if err != nil {
		return fmt.Errorf("find the mount that %s is on: %w", source, err)
	}
	for _, n := range need {
		if strings.Contains(" "+on.Optional, " "+n) {
			return nil
		}
	}
	kind := "a shared"
	if len(need) == 2 {
		kind = "a shared or slave"
	}
	return invalid(fmt.Errorf("path %s is mounted on %s but it is not %s mount", source, on.Mountpoint, kind))
}

func mountOf(source string) (*mountinfo.Info, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found, err := mountinfo.GetMountsFromReader(f, mountinfo.ParentsFilter(source))
	if err != nil {
		return nil, err
	}
	var on *mountinfo.Info
	for _, m := range found {
		if on == nil || len(m.Mountpoint) >= len(on.Mountpoint) {
			on = m
		}
	}
	if on == nil {
		return nil, os.ErrNotExist
	}
	return on, nil
}
