package spec_test

import (
	"slices"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"isle/internal/runtime/spec"
)

// CVE-2023-25809: the tree of control groups is read-only in a container, in
// whichever cgroup namespace it is, on every layout.
func TestCVE_2023_25809(t *testing.T) {
	for machine := range machines {
		for _, mode := range []api.CgroupnsMode{"", "private", "host"} {
			g := plain()
			g.Machine, g.HostConfig.CgroupnsMode = machine, mode
			in := g.input(t)
			if mode == "private" && !in.Host.CgroupNS {
				continue
			}
			s, err := spec.Build(in)
			if err != nil {
				t.Errorf("%s, %q: %v", machine, mode, err)
				continue
			}
			found := false
			for _, m := range s.Mounts {
				if m.Type != "cgroup" && m.Type != "cgroup2" {
					continue
				}
				if found = true; !slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rw") {
					t.Errorf("%s, %q: %s is mounted with %v", machine, mode, m.Destination, m.Options)
				}
			}
			if !found {
				t.Errorf("%s, %q: no control groups are mounted: this test shows nothing", machine, mode)
			}
		}
	}
}
