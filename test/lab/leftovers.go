package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Leftovers is what of d's containers is on the machine when there should be
// none: links, namespaces, mounts, cgroups, rules, processes. A line each.
func Leftovers(d *Isled) string {
	var left []string
	add := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	for _, l := range lines("ip", "-br", "link", "show", "type", "veth") {
		if !strings.HasPrefix(l, "up0@") {
			add("link %s", l)
		}
	}
	for _, dir := range []string{"netns", "bundles"} {
		entries, _ := os.ReadDir(filepath.Join(d.Dir, "run", dir))
		for _, e := range entries {
			add("%s %s", dir, e.Name())
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, m := range strings.Split(string(mounts), "\n") {
		if strings.Contains(m, d.Dir+"/") && !strings.Contains(m, d.Dir+"/run/netns ") {
			add("mount %s", m)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + CgroupParent() + "/*/", "/sys/fs/cgroup/*" + CgroupParent() + "/*/"} {
		dirs, _ := filepath.Glob(pattern)
		for _, c := range dirs {
			add("cgroup %s", c)
		}
	}
	for _, l := range lines("nft", "list", "table", "inet", "isle") {
		if strings.Contains(l, "dnat") && strings.Contains(l, "elements = {") {
			add("rule %s", l)
		}
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		cmd, _ := os.ReadFile(p)
		if strings.Contains(string(cmd), "crun") || strings.Contains(string(cmd), "runc") {
			add("process %q", cmd)
		}
	}
	return strings.Join(left, "\n")
}

func lines(name string, args ...string) []string {
	out, _ := exec.Command(name, args...).Output()
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}
