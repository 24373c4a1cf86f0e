package engine

import (
	"slices"
	"strings"
	"testing"

	"isle/internal/container"
	"isle/internal/network"
)

// TestSharedSandbox: who joins another's network is given its namespace by its
// file, and keeps no link when the other ends: the address goes to others.
func TestSharedSandbox(t *testing.T) {
	w := newWorld(t)
	one := w.create("one")
	two := w.create("two", func(o *container.CreateOptions) { o.Host.NetworkMode = "container:one" })
	w.start("one")
	w.start("two")
	rec := func(name string) container.Record {
		c, err := w.find(name)
		if err != nil {
			t.Fatal(err)
		}
		return c.snapshot()
	}
	if path, err := w.netNS(rec("two"), network.Opened{}); err != nil || path != "/run/netns/"+one {
		t.Errorf("two joins %q, %v", path, err)
	}
	if in, err := w.ContainerInspect(t.Context(), "one", false); err != nil || in.NetworkSettings.SandboxKey != "/run/netns/"+one {
		t.Errorf("sandbox key of one: %+v, %v", in.NetworkSettings, err)
	}
	w.create("three", func(o *container.CreateOptions) { o.Host.NetworkMode = "host" })
	w.create("four", func(o *container.CreateOptions) { o.Host.NetworkMode = "container:three" })
	w.start("three")
	if path, err := w.netNS(rec("four"), network.Opened{}); err != nil || !strings.HasPrefix(path, "/proc/") {
		t.Errorf("four joins %q, %v", path, err)
	}
	stop := func(name string) {
		if err := w.ContainerStop(t.Context(), name, container.StopOptions{}); err != nil {
			t.Fatal(err)
		}
		w.eventually(name+" torn down", func() bool { return w.networks.left() == 0 || name == two })
	}
	stop("one")
	if !slices.ContainsFunc(w.networks.unplugged, func(s string) bool { return s[:len(one)] == one }) {
		t.Errorf("unplugged: %q", w.networks.unplugged)
	}
	w.networks.unplugged = nil
	stop(two)
	w.start("one")
	stop("one")
	if len(w.networks.unplugged) != 0 {
		t.Errorf("nobody is in it, but unplugged: %q", w.networks.unplugged)
	}
}
