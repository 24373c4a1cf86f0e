package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"text/tabwriter"
	"time"
)

// slopes starts n containers with a port each, one after another, and takes
// them down again, for each engine with an API.
func slopes(ctx context.Context, list []engine, n int) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%d containers with a port each\tfirst 50 (s)\tlast 50 (s)\tlast/first\tup (s)\tdown (s)\tMiB each\t\n", n)
	for _, e := range list {
		if e.api == nil {
			continue
		}
		if err := slope(ctx, w, e, n); err != nil {
			return fmt.Errorf("slope: %s: %w", e.name, err)
		}
		w.Flush()
	}
	return nil
}

func slope(ctx context.Context, w *tabwriter.Writer, e engine, n int) error {
	var ids []string
	var batches []time.Duration
	before, start := memory(e), time.Now()
	for len(ids) < n {
		t := time.Now()
		for range min(50, n-len(ids)) {
			id, err := e.api.create(ctx, "bridge", 20000+len(ids), "sleep", "100000")
			if err != nil {
				return err
			}
			ids = append(ids, id)
			if err := e.api.start(ctx, id); err != nil {
				return err
			}
		}
		batches = append(batches, time.Since(t))
	}
	up, each := time.Since(start), float64(memory(e)-before)/float64(n)/1024
	start = time.Now()
	for _, id := range ids {
		if err := e.api.remove(ctx, id); err != nil {
			return err
		}
	}
	first, last := batches[0].Seconds(), batches[len(batches)-1].Seconds()
	fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.1f\t%.1f\t%.2f\t\n", e.name, first, last, last/first, up.Seconds(), time.Since(start).Seconds(), each)
	return nil
}

// engineProcesses are the programs that belong to an engine, by their names.
var engineProcesses = map[string][]string{
	"isle":   {"isled", "isle-shim"},
	"docker": {"dockerd", "containerd", "containerd-shim", "docker-proxy"},
	"podman": {"podman", "conmon", "netavark", "aardvark-dns"},
}

// memory is the proportional set size of an engine's processes, in KiB.
func memory(e engine) (kib int) {
	out, err := exec.Command("ps", "-eo", "pid=,comm=").Output()
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(out), "\n") {
		var pid int
		var comm string
		fmt.Sscan(line, &pid, &comm)
		for _, p := range engineProcesses[e.name] {
			if comm == p || (len(comm) == 15 && strings.HasPrefix(p, comm)) {
				kib += pss(pid)
			}
		}
	}
	return kib
}

func pss(pid int) (kib int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
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
