package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
	"isle/internal/runtime"
)

func TestLife(t *testing.T) {
	w := newWorld(t)
	id := w.create("web")
	if s := w.state("web"); s.Status != apitypes.StateCreated || s.Running {
		t.Errorf("after create: %+v", s)
	}
	next, gone := w.wait("web", apitypes.WaitConditionNextExit), w.wait("web", apitypes.WaitConditionRemoved)
	if r := w.get(w.wait("web", apitypes.WaitConditionNotRunning)); r.ExitCode != 0 {
		t.Errorf("wait for one that does not run: %+v", r)
	}
	w.start("web")
	if s := w.state(id[:12]); !s.Running || s.Pid == 0 {
		t.Errorf("after start: %+v", s)
	}
	if err := w.ContainerStart(t.Context(), "web"); !errdefs.IsNotModified(err) {
		t.Errorf("start again: %v", err)
	}
	if err := w.ContainerStop(t.Context(), "web", container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := w.get(next); r.ExitCode != 143 {
		t.Errorf("next exit: %+v", r)
	}
	if err := w.ContainerStop(t.Context(), "web", container.StopOptions{}); !errdefs.IsNotModified(err) {
		t.Errorf("stop again: %v", err)
	}
	w.start("web") // waits for the teardown
	if err := w.ContainerRemove(t.Context(), "web", container.RemoveOptions{}); !errdefs.IsConflict(err) ||
		err.Error() != `cannot remove container "/web": container is running: stop the container before removing or force remove` {
		t.Errorf("remove a running one: %v", err)
	}
	if err := w.ContainerRemove(t.Context(), "web", container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if r := w.get(gone); r.Err != nil || r.ExitCode != 137 {
		t.Errorf("removed: %+v", r)
	}
	w.empty()
	got := slices.DeleteFunc(w.heard(), func(s string) bool { return !strings.HasPrefix(s, "container") })
	want := []string{"container create", "container start", "container die", "container stop", "container start", "container die", "container destroy"}
	if !slices.Equal(got, want) {
		t.Errorf("events\n got %q\nwant %q", got, want)
	}
}

func TestFastExitIsNotLost(t *testing.T) {
	w := newWorld(t)
	w.runtime.onStart = func(p runtime.Proc) { w.runtime.exit(p, 7) } // before the start is recorded
	w.create("one")
	next := w.wait("one", apitypes.WaitConditionNextExit)
	w.start("one")
	if r := w.get(next); r.ExitCode != 7 {
		t.Errorf("got %+v", r)
	}
	if s := w.state("one"); s.Status != apitypes.StateExited || s.ExitCode != 7 {
		t.Errorf("state %+v", s)
	}
}

func TestStartFailure(t *testing.T) {
	for _, tt := range []struct {
		say  string
		code int
		text string
	}{
		{"executable file `nosuch` not found in $PATH: No such file or directory", 127, "no such file or directory"},
		{"exec: \"/etc\": Is a directory", 126, "is a directory"},
		{"open `/x`: Permission denied", 126, "permission denied"},
		{"cannot set memory", 128, "cannot set memory"},
	} {
		t.Run(fmt.Sprint(tt.code, tt.say), func(t *testing.T) {
			w := newWorld(t)
			w.runtime.createErr = errors.New(tt.say)
			w.create("one", func(o *container.CreateOptions) { o.Networking = nil })
			next := w.wait("one", apitypes.WaitConditionNextExit)
			err := w.ContainerStart(t.Context(), "one")
			if err == nil || !strings.Contains(phrases.Replace(err.Error()), tt.text) {
				t.Errorf("err = %v, want %q in it", err, tt.text)
			}
			if r := w.get(next); r.ExitCode != tt.code || r.Err != nil {
				t.Errorf("the waiter got %+v, want code %d", r, tt.code)
			}
			if s := w.state("one"); s.ExitCode != tt.code || s.Error == "" || s.Status != apitypes.StateCreated {
				t.Errorf("state %+v", s)
			}
			if w.runtime.left() != 0 || w.networks.left() != 0 {
				t.Error("something is left")
			}
			w.runtime.createErr = nil
			w.start("one")
		})
	}
}

func TestAutoRemove(t *testing.T) {
	w := newWorld(t)
	w.create("one", func(o *container.CreateOptions) {
		o.Host.AutoRemove = true
		o.Config.Volumes = map[string]struct{}{"/data": {}}
	})
	if !slices.Equal(w.volumes.filled, []string{"/data"}) || w.volumes.left() != 1 {
		t.Errorf("volume: filled %v, %d left", w.volumes.filled, w.volumes.left())
	}
	gone := w.wait("one", apitypes.WaitConditionRemoved)
	w.start("one")
	id := w.names()["one"]
	w.runtime.exit(runtime.Proc{ID: id}, 3)
	if r := w.get(gone); r.ExitCode != 3 || r.Err != nil {
		t.Errorf("got %+v", r)
	}
	w.empty()
	if w.volumes.left() != 0 {
		t.Error("the anonymous volume is left")
	}
}

func TestRemovedFiresWhenRemovalFails(t *testing.T) {
	w := newWorld(t)
	w.create("one", func(o *container.CreateOptions) { o.Host.AutoRemove = true })
	w.images.removeErr = errors.New("busy")
	gone := w.wait("one", apitypes.WaitConditionRemoved)
	w.start("one")
	w.runtime.exit(runtime.Proc{ID: w.names()["one"]}, 0)
	if r := w.get(gone); r.Err == nil || !strings.Contains(r.Err.Error(), "busy") {
		t.Errorf("got %+v", r)
	}
	w.eventually("dead", func() bool { return w.state("one").Dead })
	w.images.mu.Lock()
	w.images.removeErr = nil
	w.images.mu.Unlock()
	w.eventually("removable", func() bool {
		return w.ContainerRemove(t.Context(), "one", container.RemoveOptions{Force: true}) == nil
	})
	w.empty()
}

func TestRestartPolicy(t *testing.T) {
	policy := func(name apitypes.RestartPolicyMode, n int) func(*container.CreateOptions) {
		return func(o *container.CreateOptions) {
			o.Host.RestartPolicy = apitypes.RestartPolicy{Name: name, MaximumRetryCount: n}
		}
	}
	t.Run("back-off doubles and ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.stop()
			var at []time.Duration
			begin := time.Now()
			w.runtime.onStart = func(p runtime.Proc) {
				at = append(at, time.Since(begin))
				w.runtime.exit(p, 1)
			}
			w.create("one", policy(apitypes.RestartPolicyOnFailure, 3))
			w.start("one")
			time.Sleep(time.Minute)
			synctest.Wait()
			want := []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond}
			if !slices.Equal(at, want) {
				t.Errorf("started at %v, want %v", at, want)
			}
			in, err := w.ContainerInspect(t.Context(), "one", false)
			if err != nil || in.RestartCount != 3 || in.State.Status != apitypes.StateExited || in.State.ExitCode != 1 {
				t.Errorf("%d restarts, state %+v, %v", in.RestartCount, in.State, err)
			}
		})
	})
	t.Run("a long run starts the back-off anew", func(t *testing.T) {
		c := &entry{}
		for i, tt := range []struct{ ran, want time.Duration }{
			{time.Second, 100 * time.Millisecond}, {time.Second, 200 * time.Millisecond}, {time.Second, 400 * time.Millisecond},
			{11 * time.Second, 100 * time.Millisecond}, {0, 200 * time.Millisecond},
		} {
			if got := c.nextDelay(tt.ran); got != tt.want {
				t.Errorf("%d: %v, want %v", i, got, tt.want)
			}
		}
		for range 20 {
			c.nextDelay(0)
		}
		if got := c.nextDelay(0); got != time.Minute {
			t.Errorf("at most a minute, got %v", got)
		}
	})
	t.Run("stop ends it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.stop()
			w.create("one", policy(apitypes.RestartPolicyAlways, 0))
			w.start("one")
			if err := w.ContainerStop(t.Context(), "one", container.StopOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if s := w.state("one"); s.Status != apitypes.StateExited {
				t.Errorf("state %+v", s)
			}
		})
	})
	t.Run("stop and rm between two runs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.stop()
			w.runtime.onStart = func(p runtime.Proc) { w.runtime.exit(p, 1) }
			id := w.create("one", policy(apitypes.RestartPolicyAlways, 0))
			w.start("one")
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
			if s := w.state("one"); s.Status != apitypes.StateRestarting || !s.Running || !s.Restarting {
				t.Fatalf("state %+v", s)
			}
			if err := w.ContainerRemove(t.Context(), id, container.RemoveOptions{}); !errdefs.IsConflict(err) {
				t.Errorf("rm: %v", err)
			}
			wait := w.wait("one", apitypes.WaitConditionNotRunning)
			if err := w.ContainerStop(t.Context(), "one", container.StopOptions{}); err != nil {
				t.Fatal(err)
			}
			if r := <-wait; r.ExitCode != 1 {
				t.Errorf("wait: %+v", r)
			}
			time.Sleep(time.Minute)
			if s := w.state("one"); s.Status != apitypes.StateExited {
				t.Errorf("state %+v", s)
			}
		})
	})
	t.Run("restart resets nothing of --rm", func(t *testing.T) {
		w := newWorld(t)
		w.create("one", func(o *container.CreateOptions) { o.Host.AutoRemove = true })
		w.start("one")
		if err := w.ContainerRestart(t.Context(), "one", container.StopOptions{}); err != nil {
			t.Fatal(err)
		}
		if s := w.state("one"); !s.Running {
			t.Errorf("state %+v", s)
		}
	})
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.runtime.deaf = true
		w.create("one")
		w.start("one")
		begin := time.Now()
		if err := w.ContainerStop(t.Context(), "one", container.StopOptions{}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != 10*time.Second {
			t.Errorf("took %v", d)
		}
		if s := w.state("one"); s.ExitCode != 137 {
			t.Errorf("state %+v", s)
		}
	})
}

func TestKillHurriesStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.runtime.deaf = true
		w.create("one")
		w.start("one")
		never := -1
		stopped := make(chan error)
		go func() {
			stopped <- w.ContainerStop(context.Background(), "one", container.StopOptions{Timeout: &never})
		}()
		synctest.Wait()
		if err := w.ContainerKill(t.Context(), "one", "KILL"); err != nil {
			t.Fatal(err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestManyVerbsAtOnce: whatever the order, no deadlock, no panic, nothing left.
func TestManyVerbsAtOnce(t *testing.T) {
	w := newWorld(t)
	for round := range 20 {
		w.create("one", func(o *container.CreateOptions) { o.Host.AutoRemove = round%2 == 0 })
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				ctx := t.Context()
				switch i % 6 {
				case 0, 1:
					w.ContainerStart(ctx, "one")
				case 2:
					w.ContainerStop(ctx, "one", container.StopOptions{})
				case 3:
					w.ContainerKill(ctx, "one", "")
				case 4:
					w.ContainerRestart(ctx, "one", container.StopOptions{})
				case 5:
					w.ContainerRemove(ctx, "one", container.RemoveOptions{Force: true})
				}
			})
		}
		wg.Wait()
		w.eventually("the container can be removed", func() bool {
			err := w.ContainerRemove(t.Context(), "one", container.RemoveOptions{Force: true})
			return err == nil || errdefs.IsNotFound(err)
		})
		w.empty()
	}
}

func TestHundredContainers(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			name := fmt.Sprint("c", i)
			w.create(name)
			w.start(name)
			if i%2 == 0 {
				if err := w.ContainerStop(t.Context(), name, container.StopOptions{}); err != nil {
					t.Error(err)
				}
			}
			if err := w.ContainerRemove(t.Context(), name, container.RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	w.empty()
}

func TestRemovalInProgress(t *testing.T) {
	w := newWorld(t)
	id := w.create("one")
	c, err := w.find("one")
	if err != nil {
		t.Fatal(err)
	}
	c.removing.Store(true)
	err = w.ContainerRemove(t.Context(), "one", container.RemoveOptions{Force: true})
	if want := "removal of container " + id + " is already in progress"; err == nil || err.Error() != want || !errdefs.IsConflict(err) {
		t.Errorf("err = %v", err)
	}
	if err := w.ContainerStart(t.Context(), "one"); !errdefs.IsConflict(err) {
		t.Errorf("start while it is removed: %v", err)
	}
}

func TestPause(t *testing.T) {
	w := newWorld(t)
	w.create("one")
	if err := w.ContainerPause(t.Context(), "one"); !errdefs.IsConflict(err) || !strings.HasSuffix(err.Error(), "is not running") {
		t.Errorf("pause a stopped one: %v", err)
	}
	w.start("one")
	if err := w.ContainerPause(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if s := w.state("one"); !s.Paused || !s.Running || s.Status != apitypes.StatePaused {
		t.Errorf("state %+v", s)
	}
	if _, err := w.ExecCreate(t.Context(), "one", apitypes.ExecCreateRequest{Cmd: []string{"ls"}}); !errdefs.IsConflict(err) {
		t.Errorf("exec: %v", err)
	}
	if err := w.ContainerStart(t.Context(), "one"); !errdefs.IsConflict(err) {
		t.Errorf("start: %v", err)
	}
	if err := w.ContainerUnpause(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := w.ContainerUnpause(t.Context(), "one"); !errdefs.IsConflict(err) {
		t.Errorf("unpause again: %v", err)
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	w.create("aa")
	id := w.create("bb")
	w.start("bb")
	if err := w.ContainerRename(t.Context(), "bb", "aa"); !errdefs.IsConflict(err) || !strings.HasPrefix(err.Error(), `Conflict. The container name "/aa" is already in use by container`) {
		t.Errorf("taken: %v", err)
	}
	if err := w.ContainerRename(t.Context(), "bb", "/cc"); err != nil {
		t.Fatal(err)
	}
	if got := w.names(); got["cc"] != id || got["bb"] != "" {
		t.Errorf("names %v", got)
	}
	if !slices.Equal(w.networks.renamed, []string{"bb cc"}) {
		t.Errorf("dns: %v", w.networks.renamed)
	}
}

// TestSetUpFails: docker's CLI exits with 127 or 126 where it finds certain words,
// which are for the command that cannot be run. Of our own failures it says 125.
func TestSetUpFails(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.create("gone", in("ns:"+dir+"/nosuch"))
	w.create("net")
	for name, cause := range map[string]error{
		"gone": nil,
		"net":  fmt.Errorf("add sysctl x in %s: %w", w.names()["net"], syscall.EACCES),
	} {
		w.networks.openErr = cause
		err := w.ContainerStart(t.Context(), name)
		if err == nil || contains(err.Error(), notFoundPhrases...) || contains(err.Error(), notRunnablePhrases...) {
			t.Errorf("%s: %v", name, err)
		}
		if cause != nil && (!errors.Is(err, cause) || !strings.Contains(err.Error(), "add sysctl x in net: ")) {
			t.Errorf("%s: %v has lost its class, or says an id", name, err)
		}
	}
	w.store.fail = syscall.ENOENT
	_, err := w.ContainerCreate(t.Context(), container.CreateOptions{Config: &apitypes.Config{Image: "toolbox"}})
	if err == nil || contains(err.Error(), notFoundPhrases...) {
		t.Errorf("create: %v", err)
	}
}
