package engine

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/container"
	"isle/internal/runtime"
)

func in(mode string) func(*container.CreateOptions) {
	return func(o *container.CreateOptions) { o.Host.NetworkMode = apitypes.NetworkMode(mode) }
}

func (w *world) stopNow(ref string) {
	w.t.Helper()
	if err := w.ContainerStop(w.t.Context(), ref, container.StopOptions{}); err != nil {
		w.t.Fatal(err)
	}
	c, err := w.find(ref)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.settled(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// TestNamespaceOutlivesItsOwner: a namespace is there until its last user ends,
// and its owner comes back into it.
func TestNamespaceOutlivesItsOwner(t *testing.T) {
	w := newWorld(t)
	one := w.create("one")
	w.create("two", in("container:one"))
	w.create("three", in("container:two"))
	if err := w.ContainerStart(t.Context(), "two"); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "non running container") {
		t.Errorf("joined what is not there: %v", err)
	}
	for _, name := range []string{"one", "two", "three"} {
		w.start(name)
	}
	if in, err := w.ContainerInspect(t.Context(), "one", false); err != nil || in.NetworkSettings.SandboxKey != "/run/netns/"+one {
		t.Errorf("sandbox key of one: %+v, %v", in.NetworkSettings, err)
	}
	for range 20 {
		w.stopNow("one")
		if w.networks.left() != 1 {
			t.Fatal("the namespace went with its owner")
		}
		w.start("one")
	}
	if w.networks.reopened != 20 || len(w.networks.unplugged) > 0 {
		t.Errorf("came back %d times, unplugged %q", w.networks.reopened, w.networks.unplugged)
	}
	w.stopNow("one")
	w.stopNow("two")
	w.start("two") // three keeps it
	w.stopNow("three")
	w.stopNow("two")
	if w.networks.left() != 0 {
		t.Error("nobody is in it, and it is still there")
	}
	w.start("one")
	w.stopNow("one")
	if w.networks.left() != 0 || w.networks.reopened != 20 {
		t.Error("of one container alone nothing is kept")
	}
}

func always(o *container.CreateOptions) { o.Host.RestartPolicy.Name = apitypes.RestartPolicyAlways }

// TestOnlyCompanionRestarts: by hand and by its policy, while the owner is
// stopped; between the two runs it keeps the namespace, which its owner comes back
// into. Nothing is kept for a run that does not come.
func TestOnlyCompanionRestarts(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	two := w.create("two", in("container:one"), always)
	w.start("one")
	w.start("two")
	w.stopNow("one")
	if err := w.ContainerRestart(t.Context(), "two", container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	started := w.state("two").StartedAt
	w.runtime.exit(runtimeProc(two), 1)
	w.eventually("its policy restarts it", func() bool { s := w.state("two"); return s.Running && s.StartedAt != started })
	w.start("one")
	if w.networks.reopened != 1 {
		t.Error("one is in another namespace than two")
	}
	w.stopNow("one")
	c, err := w.find("two")
	if err != nil {
		t.Fatal(err)
	}
	c.inMemory(func(rec *container.Record) { rec.Runtime = "nosuch" }) // it fails before it is in any network
	if err := w.ContainerRestart(t.Context(), "two", container.StopOptions{}); err == nil {
		t.Fatal("it started")
	}
	if w.networks.left() != 0 {
		t.Error("nobody is in it, and it is still there")
	}
}

// TestPlaceIsGivenBack: who is stopped or removed between two runs keeps nothing;
// isled's own restart in between takes nothing.
func TestPlaceIsGivenBack(t *testing.T) {
	for what, end := range map[string]func(w *world) error{
		"stop": func(w *world) error { return w.ContainerStop(t.Context(), "two", container.StopOptions{}) },
		"rm": func(w *world) error {
			return w.ContainerRemove(t.Context(), "two", container.RemoveOptions{Force: true})
		},
	} {
		w := newWorld(t)
		w.create("one")
		two := w.create("two", in("container:one"), always)
		w.start("one")
		w.start("two")
		w.stopNow("one")
		w.stop()
		w.edit(two, func(rec *container.Record) {
			rec.State.Status, rec.State.Pid, rec.RestartCount = apitypes.StateRestarting, 0, 1
		})
		delete(w.runtime.procs, runtimeProc(two))
		w.boot()
		if w.networks.left() != 1 {
			t.Errorf("%s: the place was lost with isled", what)
		}
		if err := end(w); err != nil || w.networks.left() != 0 {
			t.Errorf("%s: %v, %d namespaces left", what, err, w.networks.left())
		}
	}
}

// TestPlaceWithoutWay: who was in a namespace by way of a container that is gone
// does not come back, and leaves it.
func TestPlaceWithoutWay(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	w.create("two", in("container:one"))
	three := w.create("three", in("container:two"), always)
	for _, name := range []string{"one", "two", "three"} {
		w.start(name)
	}
	w.stopNow("one")
	if err := w.ContainerRemove(t.Context(), "two", container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	w.runtime.exit(runtimeProc(three), 1)
	w.eventually("three gives up", func() bool { return w.state("three").Status == apitypes.StateExited })
	w.eventually("the namespace goes", func() bool { return w.networks.left() == 0 })
}

// TestPolicyAwaitsOwner: after a boot who comes back by its policy waits for the
// container whose network it is in.
func TestPolicyAwaitsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		one := w.create("one")
		two := w.create("two", in("container:one"), always)
		w.start("one")
		w.start("two")
		w.stop()
		forget(w, one)
		delete(w.runtime.procs, runtimeProc(two))
		w.boot()
		time.Sleep(time.Minute)
		if s := w.state("two"); s.Status != apitypes.StateRestarting || s.Error != "" {
			t.Errorf("without one: %+v", s)
		}
		w.connect("app", "one") // of what is not there nothing is changed
		w.stop()
		w.boot()
		w.disconnect("app", "one")
		w.start("one")
		time.Sleep(time.Minute)
		if !w.state("two").Running {
			t.Errorf("one is there: %+v", w.state("two"))
		}
	})
}

// TestNamespaceOutlivesIsled: also when isled dies while the owner is stopped,
// and when the last user ends without it.
func TestNamespaceOutlivesIsled(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	two := w.create("two", in("container:one"))
	w.start("one")
	w.start("two")
	w.stopNow("one")
	w.stop()
	w.boot()
	if w.networks.left() != 1 {
		t.Fatal("the namespace of one is gone, and two is in it")
	}
	w.start("one")
	if w.networks.reopened != 1 {
		t.Error("one is in another namespace than two")
	}
	w.stopNow("one")
	w.stop()
	delete(w.runtime.procs, runtimeProc(two)) // it ended unseen
	w.boot()
	w.eventually("the namespace goes", func() bool { return w.networks.left() == 0 })
}

// TestWayToOwnerIsGone: who is in a namespace through another container is in it,
// and leaves it, also when that one was removed.
func TestWayToOwnerIsGone(t *testing.T) {
	w := newWorld(t)
	one := w.create("one")
	w.create("two", in("container:one"))
	w.create("three", in("container:two"))
	for _, name := range []string{"one", "two", "three"} {
		w.start(name)
	}
	w.stopNow("two")
	if err := w.ContainerRemove(t.Context(), "two", container.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	w.stopNow("one")
	w.stop()
	w.boot()
	if w.networks.left() != 1 {
		t.Fatal("the namespace is gone, and three is in it")
	}
	if in, err := w.ContainerInspect(t.Context(), "three", false); err != nil || !strings.Contains(in.HostsPath, one) {
		t.Errorf("hosts of three: %s, %v", in.HostsPath, err)
	}
	w.stopNow("three")
	if w.networks.left() != 0 {
		t.Error("nobody is in it, and it is still there")
	}
	if err := w.ContainerRemove(t.Context(), "one", container.RemoveOptions{}); err != nil {
		t.Error(err)
	}
}

// TestOwnerComesBackAfterReboot: of a namespace that nobody kept nothing is to be
// recorded, and its owner starts as its policy says.
func TestOwnerComesBackAfterReboot(t *testing.T) {
	w := newWorld(t)
	one := w.create("one", func(o *container.CreateOptions) { o.Host.RestartPolicy.Name = apitypes.RestartPolicyAlways })
	w.create("two", in("container:one"))
	w.start("one")
	w.start("two")
	w.stopNow("one")
	w.stop()
	forget(w, one)
	w.boot()
	w.eventually("one runs", func() bool { return w.state("one").Running })
}

// TestRemoveOwner: the removal of a container takes its links from those who are
// still in its network, and gives its ports and addresses back. Docker's clients
// need no force for that; to prune is not meant so.
func TestRemoveOwner(t *testing.T) {
	w := newWorld(t)
	one := w.create("one")
	w.create("two", in("container:one"))
	w.start("one")
	w.start("two")
	w.stopNow("one")
	if got, err := w.ContainersPrune(t.Context(), nil); err != nil || len(got.ContainersDeleted) > 0 || w.networks.left() != 1 {
		t.Errorf("pruned: %+v, %v", got, err)
	}
	if err := w.ContainerRemove(t.Context(), "one", container.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if w.networks.left() != 0 || !slices.ContainsFunc(w.networks.unplugged, func(s string) bool { return s[:len(one)] == one }) {
		t.Errorf("its links were left to two: unplugged %q", w.networks.unplugged)
	}
	w.stopNow("two")
	if err := w.ContainerStart(t.Context(), "two"); err == nil || !strings.Contains(err.Error(), "No such container") {
		t.Errorf("two joins what is gone: %v", err)
	}
}

// TestPruneAtOnce: who has just ended does not keep the owner, though it has not
// left the namespace yet.
func TestPruneAtOnce(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	id := w.create("two", in("container:one"))
	w.start("one")
	w.start("two")
	w.stopNow("one")
	two, err := w.find("two")
	if err != nil {
		t.Fatal(err)
	}
	over, _ := w.recordEnd(t.Context(), two, runtime.Exit{Proc: runtimeProc(id), At: time.Now()})
	pruned := make(chan apitypes.PruneReport, 1)
	go func() {
		report, _ := w.ContainersPrune(t.Context(), nil)
		pruned <- report
	}()
	select {
	case report := <-pruned:
		t.Fatalf("not waited: %+v", report)
	case <-time.After(20 * time.Millisecond):
	}
	w.afterEnd(t.Context(), two, over)
	if report := <-pruned; len(report.ContainersDeleted) != 2 {
		t.Errorf("%+v", report)
	}
}

// TestStartFailsInKeptNamespace: a start of the owner that fails takes nothing
// from who is in its namespace.
func TestStartFailsInKeptNamespace(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	w.create("two", in("container:one"))
	w.start("one")
	w.start("two")
	w.stopNow("one")
	w.runtime.startErr = errdefs.ErrInternal
	if err := w.ContainerStart(t.Context(), "one"); err == nil {
		t.Fatal("it started")
	}
	w.runtime.startErr = nil
	if w.networks.left() != 1 {
		t.Error("the namespace is gone, and two is in it")
	}
	w.stopNow("two")
	if w.networks.left() != 0 {
		t.Error("nobody is in it, and it is still there")
	}
}

// TestJoinThroughProcess: a namespace that is not Isle's is found through the
// process that is in it.
func TestJoinThroughProcess(t *testing.T) {
	w := newWorld(t)
	w.create("three", in("host"))
	w.create("four", in("container:three"))
	w.start("three")
	c, err := w.find("four")
	if err != nil {
		t.Fatal(err)
	}
	rec := c.snapshot()
	if path, err := w.enterOther(&rec); err != nil || !strings.HasPrefix(path, "/proc/") {
		t.Errorf("four joins %q, %v", path, err)
	}
}

// TestSharingInAnyOrder: whatever is done at once to containers that share a
// namespace, it is there while one of them runs, and gone when none does.
func TestSharingInAnyOrder(t *testing.T) {
	w := newWorld(t)
	names := []string{"one", "two", "three"}
	w.create("one", publishing("8080:80"))
	w.create("two", in("container:one"))
	w.create("three", in("container:two"))
	verbs := []func(string){
		func(c string) { _ = w.ContainerStart(t.Context(), c) }, // most are refused: it runs, or what it joins does not
		func(c string) { _ = w.ContainerStop(t.Context(), c, container.StopOptions{}) },
		func(c string) { _ = w.ContainerRestart(t.Context(), c, container.StopOptions{}) },
		func(string) { _, _ = w.publish("one", "8443:443") },
		func(string) { _ = w.unpublish("one", "8443") },
		func(string) { _ = w.NetworkConnect(t.Context(), "app", networktypes.ConnectRequest{Container: "one"}) },
		func(string) { _ = w.NetworkDisconnect(t.Context(), "app", "one", false) },
	}
	var all sync.WaitGroup
	for seed := range uint64(4) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, seed))
			for range 100 {
				verbs[r.IntN(len(verbs))](names[r.IntN(len(names))])
			}
		})
	}
	all.Wait()
	for _, name := range names {
		c, err := w.find(name)
		if err != nil {
			t.Fatal(err)
		}
		if c.snapshot().State.Alive() && w.networks.left() != 1 {
			t.Errorf("%s runs, and its namespace is gone", name)
		}
		if err := w.ContainerStop(t.Context(), name, container.StopOptions{}); err != nil && !errdefs.IsNotModified(err) {
			t.Error(err)
		}
	}
	w.eventually("the namespace goes", func() bool { return w.networks.left() == 0 })
}
