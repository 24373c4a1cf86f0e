package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	apitypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"

	"isle/internal/container"
	"isle/internal/failpoint"
	"isle/internal/ids"
	"isle/internal/image"
	"isle/internal/network"
	"isle/internal/runtime"
	"isle/internal/runtime/cgroup"
)

// TestRestore: what is there when isled starts, and what becomes of it.
func TestRestore(t *testing.T) {
	always := func(o *container.CreateOptions) { o.Host.RestartPolicy.Name = apitypes.RestartPolicyAlways }
	unlessStopped := func(o *container.CreateOptions) { o.Host.RestartPolicy.Name = apitypes.RestartPolicyUnlessStopped }
	rm := func(o *container.CreateOptions) { o.Host.AutoRemove = true }
	plain := func(*container.CreateOptions) {}
	for _, tt := range []struct {
		name   string
		opts   func(*container.CreateOptions)
		before func(w *world, id string) // with isled
		dead   func(w *world, id string) // while there is none
		status apitypes.ContainerState   // "": gone
		code   int
	}{
		{"runs on", plain, start, nothing, apitypes.StateRunning, 0},
		{"ended meanwhile", plain, start, func(w *world, id string) { w.runtime.exit(runtime.Proc{ID: id}, 5) }, apitypes.StateExited, 5},
		{"ended meanwhile, to be removed", rm, start, func(w *world, id string) { w.runtime.exit(runtime.Proc{ID: id}, 5) }, "", 0},
		{"ended meanwhile, to be restarted", always, start, func(w *world, id string) { w.runtime.exit(runtime.Proc{ID: id}, 5) }, apitypes.StateRunning, 0},
		{"the machine was switched off", plain, start, forget, apitypes.StateExited, 255},
		{"the machine was switched off, always", always, start, forget, apitypes.StateRunning, 0},
		{"stopped, always", always, startStop, nothing, apitypes.StateRunning, 0},
		{"stopped, unless-stopped", unlessStopped, startStop, nothing, apitypes.StateExited, 143},
		{"never started, always", always, nothing, nothing, apitypes.StateCreated, 0},
		{"died between create and start", plain, nothing, halfStarted, apitypes.StateCreated, 0},
		{"died in removal", plain, nothing, func(w *world, id string) {
			w.edit(id, func(r *container.Record) { r.State.Status = apitypes.StateRemoving })
		}, "", 0},
		{"could not be removed", plain, nothing, func(w *world, id string) {
			w.edit(id, func(r *container.Record) { r.State.Status = apitypes.StateDead })
		}, "", 0},
		{"died between exit and teardown", plain, startStop, halfStarted, apitypes.StateExited, 143},
		{"died between two runs", always, startStop, func(w *world, id string) {
			w.edit(id, func(r *container.Record) { r.State.Status, r.ManuallyStopped = apitypes.StateRestarting, false })
		}, apitypes.StateRunning, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			id := w.create("one", tt.opts)
			tt.before(w, id)
			w.stop()
			tt.dead(w, id)
			w.boot()
			if tt.status == "" {
				w.empty()
				return
			}
			w.eventually("settled as "+string(tt.status), func() bool {
				s := w.state("one")
				return s.Status == tt.status && s.ExitCode == tt.code
			})
			w.eventually("nothing half made", func() bool {
				up := tt.status == apitypes.StateRunning
				return (w.runtime.left() == 1) == up && (w.networks.left() == 1) == up
			})
			if err := w.ContainerRemove(t.Context(), "one", container.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
			w.empty()
		})
	}
}

func nothing(*world, string) {}

func start(w *world, id string) { w.start(id) }

func startStop(w *world, id string) {
	w.start(id)
	if err := w.ContainerStop(w.t.Context(), id, container.StopOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("torn down", func() bool { return w.runtime.left() == 0 })
}

// forget is what a reboot does to the shim and to namespaces.
func forget(w *world, _ string) {
	w.runtime.procs, w.runtime.exits = map[runtime.Proc]*fakeProc{}, nil
	w.networks.open = map[string]network.OpenRequest{}
}

// halfStarted is what a start leaves that dies before its record is written.
func halfStarted(w *world, id string) {
	if _, err := w.runtime.Create(w.t.Context(), runtime.Create{ID: id}); err != nil {
		w.t.Fatal(err)
	}
	w.networks.open[id] = network.OpenRequest{ID: id}
	if err := os.MkdirAll(w.bundle(id), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

// edit changes a record on disk, while there is no isled.
func (w *world) edit(id string, fn func(*container.Record)) {
	c, err := w.find(id)
	if err != nil {
		w.t.Fatal(err)
	}
	rec := c.snapshot()
	fn(&rec)
	if err := w.write(w.t.Context(), rec); err != nil {
		w.t.Fatal(err)
	}
}

// TestSweep: what belongs to no container goes, what is not ours stays.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	w.create("kept")
	w.stop()
	lost := ids.New()
	if err := w.images.PrepareRootfs(t.Context(), lost, image.Image{}); err != nil {
		t.Fatal(err)
	}
	halfStarted(w, lost)
	foreign := filepath.Join(w.Engine.Config.DataDir, "containers", "foreign")
	for _, dir := range []string{w.dir(lost), foreign} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.boot()
	w.eventually("the lost one is gone", func() bool { return w.runtime.left() == 0 && w.networks.left() == 0 && w.images.left() == 1 })
	for dir, want := range map[string]bool{w.dir(lost): false, w.bundle(lost): false, foreign: true, w.dir(w.names()["kept"]): true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s there: %v, want %v", dir, err == nil, want)
		}
	}
}

// TestCreateLeavesNothing: every step of create may fail.
func TestCreateLeavesNothing(t *testing.T) {
	volume := func(o *container.CreateOptions) { o.Config.Volumes = map[string]struct{}{"/data": {}} }
	for name, tt := range map[string]struct {
		breaks func(*world)
		opts   func(*container.CreateOptions)
	}{
		"fill":      {func(w *world) { w.volumes.fillErr = errors.New("disk full") }, volume},
		"bind":      {func(*world) {}, func(o *container.CreateOptions) { o.Host.Binds = []string{"/nonexistent:/x:bad"} }},
		"record":    {func(w *world) { w.store.fail = errors.New("disk full") }, nothingOpts},
		"no image":  {func(*world) {}, func(o *container.CreateOptions) { o.Config.Image = "absent" }},
		"no net":    {func(*world) {}, func(o *container.CreateOptions) { o.Host.NetworkMode = "absent" }},
		"no memory": {func(*world) {}, func(o *container.CreateOptions) { o.Host.Memory = 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.breaks(w)
			o := container.CreateOptions{Name: "one", Config: &apitypes.Config{Image: "toolbox"}, Host: &apitypes.HostConfig{}}
			tt.opts(&o)
			if _, err := w.ContainerCreate(t.Context(), o); err == nil {
				t.Fatal("no error")
			}
			w.store.fail = nil
			w.empty()
			if w.volumes.left() != 0 {
				t.Error("a volume is left")
			}
		})
	}
}

func nothingOpts(*container.CreateOptions) {}

// TestIntentIsFinished: isled died between making an anonymous volume and the
// record of its container.
func TestIntentIsFinished(t *testing.T) {
	w := newWorld(t)
	id := w.create("one", func(o *container.CreateOptions) { o.Config.Volumes = map[string]struct{}{"/data": {}} })
	w.edit(id, func(r *container.Record) { r.State.Status, r.RemoveVolumes = apitypes.StateRemoving, true })
	w.stop()
	w.boot()
	w.empty()
	if w.volumes.left() != 0 {
		t.Error("the volume is left")
	}
}

// TestUnseenEnd: what nobody saw end, as after a reboot, is over when isled serves.
func TestUnseenEnd(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	w.start("one")
	w.stop()
	forget(w, id)
	w.boot()
	if s := w.state("one"); s.Status != apitypes.StateExited || s.ExitCode != 255 {
		t.Errorf("isled is up, and says %+v", s)
	}
}

// TestOldExit: the exit of an earlier run takes nothing from the present one.
func TestOldExit(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	w.start("one")
	c, err := w.find("one")
	if err != nil {
		t.Fatal(err)
	}
	w.runtime.mu.Lock()
	w.runtime.exits = []runtime.Exit{{Proc: runtime.Proc{ID: id}, At: time.Now()}} // not delivered yet
	w.runtime.mu.Unlock()
	w.runEnded(t.Context(), c, runtime.Exit{Proc: runtime.Proc{ID: id}, At: c.snapshot().State.StartedAt.Add(-time.Second)})
	if len(w.runtime.exits) != 1 || w.state("one").Status != apitypes.StateRunning {
		t.Errorf("%+v, exits %v", w.state("one"), w.runtime.exits)
	}
}

// TestEndNotRecorded: when the disk is full an end cannot be recorded; nobody
// waits for ever for what would have followed it.
func TestEndNotRecorded(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	w.start("one")
	c, err := w.find("one")
	if err != nil {
		t.Fatal(err)
	}
	w.store.fail = errors.New("disk full")
	w.runEnded(t.Context(), c, runtime.Exit{Proc: runtime.Proc{ID: id}, At: time.Now()})
	w.store.fail = nil
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := w.NetworkConnect(ctx, "app", networktypes.ConnectRequest{Container: "one"}); err != nil {
		t.Errorf("it waits for a teardown that does not come: %v", err)
	}
}

// TestExitWhileDead: an exit that isled missed has its own time and its event.
func TestExitWhileDead(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	w.start("one")
	w.stop()
	w.runtime.exit(runtime.Proc{ID: id}, 9)
	at := w.runtime.exits[0].At
	time.Sleep(5 * time.Millisecond)
	w.boot() // whoever is served now is told
	if s := w.state("one"); s.Status != apitypes.StateExited || s.ExitCode != 9 {
		t.Errorf("isled is up, and says %+v", s)
	}
	c, err := w.find("one")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.snapshot().State.FinishedAt; !got.Equal(at) {
		t.Errorf("finished at %v, want %v", got, at)
	}
	m := <-w.live
	if m.Action != "die" || m.TimeNano != at.UnixNano() || m.Actor.Attributes["exitCode"] != "9" {
		t.Errorf("event %+v", m)
	}
}

var failpointUse = regexp.MustCompile(`failpoint\.Here\(failpoint\.(\w+)\)`)

// TestFailpointsAreUsed: the table of names and the code agree.
func TestFailpointsAreUsed(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code = append(code, b...)
	}
	used := map[string]bool{}
	for _, m := range failpointUse.FindAllSubmatch(code, -1) {
		used[string(m[1])] = true
	}
	if len(used) != len(failpoint.All()) {
		t.Errorf("%d failpoints are placed, %d are in the table", len(used), len(failpoint.All()))
	}
}

// TestReadFreezer: isled was killed between the pause and its record.
func TestReadFreezer(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	w.start(id)
	c, err := w.find(id)
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	w.Host.Cgroup = cgroup.Host{Mode: cgroup.V1, V1: map[string]string{"freezer": top}}
	g, err := w.groupOf(c.snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(g.Dir("freezer"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		kernel string
		want   apitypes.ContainerState
	}{{"THAWED", apitypes.StateRunning}, {"FROZEN", apitypes.StatePaused}, {"THAWED", apitypes.StateRunning}} {
		if err := os.WriteFile(filepath.Join(g.Dir("freezer"), "freezer.state"), []byte(tt.kernel+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.readFreezer(c)
		if got := w.state("one").Status; got != tt.want {
			t.Errorf("kernel says %s: %s", tt.kernel, got)
		}
	}
}

// TestRestoreBrokenConnect: isled ended between what the Manager did for a container that
// runs and the record of it.
func TestRestoreBrokenConnect(t *testing.T) {
	w := newWorld(t)
	id := w.create("one", func(*container.CreateOptions) {})
	start(w, id)
	app, err := w.networks.Find(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := w.networks.Find(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	if _, err := w.networks.Connect(t.Context(), id, network.ConnectRequest{Network: app.ID}); err != nil {
		t.Fatal(err)
	}
	w.boot()
	if seats := w.networks.SeatsOf(id); len(seats) != 1 || seats[0].Network != bridge.ID {
		t.Errorf("nobody was told that it is on network app, and it is on %v", seats)
	}
	w.stop()
	if err := w.networks.Disconnect(t.Context(), id, bridge.ID); err != nil {
		t.Fatal(err)
	}
	w.boot()
	c, err := w.find("one")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.snapshot().Networks; len(got) != 0 {
		t.Errorf("it is on no network any more, and the record says %v", got)
	}
}

// TestClockSetBack: the end of a run counts, however much earlier than its start it was by
// the clock; that of another run does not.
func TestClockSetBack(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	w.start("one")
	c, err := w.find("one")
	if err != nil {
		t.Fatal(err)
	}
	now := c.snapshot().State
	x := runtime.Exit{Proc: runtime.Proc{ID: id}, Code: 7, At: now.StartedAt.Add(time.Hour), Pid: now.Pid + 1}
	w.runEnded(t.Context(), c, x)
	if got := w.state("one"); got.Status != apitypes.StateRunning {
		t.Errorf("the end of another run has ended it: %+v", got)
	}
	x.At, x.Pid = now.StartedAt.Add(-time.Hour), now.Pid
	w.runEnded(t.Context(), c, x)
	if got := w.state("one"); got.Status != apitypes.StateExited || got.ExitCode != 7 {
		t.Errorf("its end is not recorded: %+v", got)
	}
}

// TestClockSetBackMissed is that for an end that nobody has seen.
func TestClockSetBackMissed(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	w.start("one")
	w.stop()
	w.edit(id, func(r *container.Record) { r.State.StartedAt = time.Now().Add(time.Hour) })
	forget(w, id)
	w.boot()
	w.eventually("it has ended", func() bool { return w.state("one").Status == apitypes.StateExited })
}
