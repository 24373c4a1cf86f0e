package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// enginePrograms are what an engine runs for itself, by the 15 characters that
// the kernel keeps of a name.
var enginePrograms = []string{"isled", "isle-shim", "dockerd", "containerd", "containerd-shim", "docker-proxy", "podman", "conmon", "netavark", "aardvark-dns"}

// processes are the process ids on an engine's host, its containers' included.
func (e engine) processes() []string {
	dir, err := os.ReadDir(e.file("/proc"))
	if err != nil {
		return nil
	}
	var pids []string
	for _, d := range dir {
		if _, err := strconv.Atoi(d.Name()); err == nil {
			pids = append(pids, d.Name())
		}
	}
	return pids
}

// file is a path on the engine's host as this process can open it.
func (e engine) file(path string) string { return "/proc/" + e.host + "/root" + path }

// memory is the proportional set size of an engine's own processes, in KiB.
func memory(e engine) (kib int) {
	for _, pid := range e.processes() {
		comm, _ := os.ReadFile(e.file("/proc/" + pid + "/comm"))
		if slices.ContainsFunc(enginePrograms, func(p string) bool { return p[:min(15, len(p))] == strings.TrimSpace(string(comm)) }) {
			kib += pss(e.file("/proc/" + pid + "/smaps_rollup"))
		}
	}
	return kib
}

func pss(path string) (kib int) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			fmt.Sscan(v, &kib)
		}
	}
	return kib
}
