package engine

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"

	"isle/internal/container"
	"isle/internal/runtime"
)

func TestExec(t *testing.T) {
	w := newWorld(t)
	w.runtime.say = "out"
	w.runtime.execCode = func([]string) (int, bool) { return 7, true }
	w.create("one")
	if _, err := w.ExecCreate(t.Context(), "one", apitypes.ExecCreateRequest{Cmd: []string{"ls"}}); !errdefs.IsConflict(err) || !strings.HasSuffix(err.Error(), "is not running") {
		t.Errorf("in a stopped container: %v", err)
	}
	w.start("one")
	id, err := w.ExecCreate(t.Context(), "one", apitypes.ExecCreateRequest{Cmd: []string{"ls", "-l"}, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ExecResize(t.Context(), id, 24, 80); err != nil {
		t.Errorf("resize before start: %v", err)
	}
	var out bytes.Buffer
	opts := container.ExecStartOptions{Streams: func(bool) (container.Streams, error) { return container.Streams{Out: &out, Err: &out}, nil }}
	if err := w.ExecStart(t.Context(), id, opts); err != nil {
		t.Fatal(err)
	}
	in, err := w.ExecInspect(t.Context(), id) // right after the end of the stream
	if err != nil || in.Running || in.ExitCode == nil || *in.ExitCode != 7 || out.String() != "out" {
		t.Errorf("inspect %+v, %v, output %q", in, err, out.String())
	}
	if err := w.ExecStart(t.Context(), id, opts); !errdefs.IsConflict(err) {
		t.Errorf("start again: %v", err)
	}
	if _, err := w.ExecInspect(t.Context(), "nosuch"); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
	heard := w.heard()
	for _, want := range []string{"container exec_create: ls -l", "container exec_start: ls -l", "container exec_die"} {
		if !slices.Contains(heard, want) {
			t.Errorf("no event %q in %q", want, heard)
		}
	}
}

// TestAttachBeforeStart is what "docker run" does: the client is joined before
// the process runs.
func TestAttachBeforeStart(t *testing.T) {
	w := newWorld(t)
	w.runtime.say = "first words"
	out := &safeBuffer{}
	w.runtime.onStart = func(runtime.Proc) {
		if w.runtime.joined.Load() == 0 {
			t.Error("the process runs before the client is joined")
		}
	}
	w.create("one")
	streams := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- w.ContainerAttach(context.Background(), "one", container.AttachOptions{Stdout: true, Stream: true,
			Streams: func(bool) (container.Streams, error) { close(streams); return container.Streams{Out: out}, nil }})
	}()
	<-streams
	w.start("one")
	if err := w.ContainerStop(t.Context(), "one", container.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if out.String() != "first words" {
		t.Errorf("heard %q", out.String())
	}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestAttachEndsWhenStartFails(t *testing.T) {
	w := newWorld(t)
	w.runtime.createErr = errdefs.ErrInternal
	w.create("one")
	streams, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- w.ContainerAttach(context.Background(), "one", container.AttachOptions{Stdout: true, Stream: true,
			Streams: func(bool) (container.Streams, error) {
				close(streams)
				return container.Streams{Out: &bytes.Buffer{}}, nil
			}})
	}()
	<-streams
	if err := w.ContainerStart(t.Context(), "one"); err == nil {
		t.Fatal("no error")
	}
	if err := <-ended; err != nil {
		t.Errorf("attach: %v", err)
	}
}

func TestDetachKeys(t *testing.T) {
	if b, err := detachKeys(""); err != nil || !bytes.Equal(b, []byte{16, 17}) {
		t.Errorf("default: %v %v", b, err)
	}
	if b, err := detachKeys("ctrl-a,x"); err != nil || !bytes.Equal(b, []byte{1, 'x'}) {
		t.Errorf("ctrl-a,x: %v %v", b, err)
	}
	if _, err := detachKeys("ctrl-invalid"); err == nil || err.Error() != "Invalid detach keys (ctrl-invalid) provided" || !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad keys: %v", err)
	}
}

// TestPipesCarryAnything: only at a terminal are keys looked for. Random bytes
// hold ctrl-p,ctrl-q sooner or later.
func TestPipesCarryAnything(t *testing.T) {
	if keys, err := typedKeys("", false); err != nil || keys != nil {
		t.Errorf("pipe: %v %v", keys, err)
	}
	if keys, err := typedKeys("", true); err != nil || len(keys) != 2 {
		t.Errorf("terminal: %v %v", keys, err)
	}
	if _, err := typedKeys("ctrl-invalid", false); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad keys for a pipe: %v", err)
	}
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		var mu sync.Mutex
		code, probes := 1, 0
		w.runtime.say = "report"
		w.runtime.execCode = func(cmd []string) (int, bool) {
			mu.Lock()
			defer mu.Unlock()
			probes++
			return code, true
		}
		set := func(n int) { mu.Lock(); code = n; mu.Unlock() }
		w.create("one", func(o *container.CreateOptions) {
			o.Config.Healthcheck = &apitypes.HealthConfig{Test: []string{"CMD-SHELL", "check", "it"}, Interval: 10 * time.Second,
				StartPeriod: 30 * time.Second, StartInterval: time.Second, Retries: 2}
		})
		w.start("one")
		time.Sleep(10500 * time.Millisecond)
		if h := w.state("one").Health; h.Status != apitypes.Starting || h.FailingStreak != 0 || len(h.Log) != 5 || h.Log[0].Output != "report" {
			t.Errorf("in the start period: %+v", h)
		}
		set(0)
		time.Sleep(time.Second)
		if h := w.state("one").Health; h.Status != apitypes.Healthy {
			t.Errorf("after a success: %+v", h)
		}
		set(3)
		time.Sleep(10 * time.Second)
		if h := w.state("one").Health; h.Status != apitypes.Healthy || h.FailingStreak != 1 {
			t.Errorf("after one failure: %+v", h)
		}
		time.Sleep(10 * time.Second)
		if h := w.state("one").Health; h.Status != apitypes.Unhealthy || h.FailingStreak != 2 {
			t.Errorf("after two: %+v", h)
		}
		if err := w.ContainerStop(t.Context(), "one", container.StopOptions{}); err != nil {
			t.Fatal(err)
		}
		before := probes
		time.Sleep(time.Hour)
		if probes != before {
			t.Error("a stopped container is probed")
		}
		heard := w.heard()
		for _, want := range []string{"container health_status: healthy", "container health_status: unhealthy", "container exec_start: /bin/sh -c check it"} {
			if !slices.Contains(heard, want) {
				t.Errorf("no event %q", want)
			}
		}
	})
}

func TestProbeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.runtime.execCode = func([]string) (int, bool) { return 0, false } // hangs
		w.create("one", func(o *container.CreateOptions) {
			o.Config.Healthcheck = &apitypes.HealthConfig{Test: []string{"CMD", "check"}, Interval: time.Second, Timeout: time.Second, Retries: 1}
		})
		w.start("one")
		time.Sleep(2500 * time.Millisecond)
		h := w.state("one").Health
		if h.Status != apitypes.Unhealthy || h.Log[0].ExitCode != -1 || !strings.HasPrefix(h.Log[0].Output, "Health check exceeded timeout (1s)") {
			t.Errorf("%+v", h)
		}
	})
}
