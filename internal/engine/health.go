package engine

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"isle/internal/container"
	"isle/internal/ids"
	"isle/internal/runtime"
)

// Docker's defaults of health checks, and what is kept of them.
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
	probesKept         = 5
	probeOutput        = 4096
)

// checks reports whether there is a health check to run.
func checks(h *apitypes.HealthConfig) bool {
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE"
}

// startingHealth is the health of a container that has just been started.
func startingHealth(h *apitypes.HealthConfig) *apitypes.Health {
	if !checks(h) {
		return nil
	}
	return &apitypes.Health{Status: apitypes.Starting, Log: []*apitypes.HealthcheckResult{}}
}

// stoppedHealth is the health of one that has ended: Docker says unhealthy.
func stoppedHealth(h *apitypes.Health) *apitypes.Health {
	if h == nil {
		return nil
	}
	stopped := *h
	stopped.Status = apitypes.Unhealthy
	return &stopped
}

// beginWatch starts the health check of a container, if it has one. It costs
// a sleeping goroutine for each container that has.
func (e *Engine) beginWatch(c *entry, rec container.Record) {
	if !checks(rec.Config.Healthcheck) {
		return
	}
	ctx, cancel := context.WithCancel(e.life)
	done := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.rec.State.Alive() { // its exit was faster than we
		cancel()
		return
	}
	c.watch, c.watching = cancel, done
	e.spawn(func(context.Context) {
		defer close(done)
		defer cancel()
		e.watchHealth(ctx, c, rec)
	})
}

// endWatch ends the health check and waits for it.
func (e *Engine) endWatch(c *entry) {
	c.mu.Lock()
	cancel, done := c.watch, c.watching
	c.watch, c.watching = nil, nil
	c.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// watchHealth probes until ctx is done.
func (e *Engine) watchHealth(ctx context.Context, c *entry, rec container.Record) {
	h := rec.Config.Healthcheck
	for sleep(ctx, nextProbe(h, c.snapshot())) {
		now := c.snapshot()
		if now.State.Status != apitypes.StateRunning { // paused: later
			continue
		}
		result := e.probe(ctx, c, now, h)
		if ctx.Err() != nil {
			return
		}
		e.judge(ctx, c, now.State.StartedAt, h, result)
	}
}

// nextProbe: more often in the start period while the container is starting.
func nextProbe(h *apitypes.HealthConfig, rec container.Record) time.Duration {
	interval := orZero(h.Interval, probeInterval)
	if s := rec.State.Health; s != nil && s.Status == apitypes.Starting && time.Since(rec.State.StartedAt) < h.StartPeriod {
		return min(interval, orZero(h.StartInterval, probeStartInterval))
	}
	return interval
}

// probe runs the test once. Exit code -1 stands for one that took too long or
// could not be run.
func (e *Engine) probe(ctx context.Context, c *entry, rec container.Record, h *apitypes.HealthConfig) *apitypes.HealthcheckResult {
	timeout := orZero(h.Timeout, probeTimeout)
	pctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out := &clipped{left: probeOutput}
	x := &execution{id: ids.New(), c: c, done: make(chan struct{}), started: true, req: apitypes.ExecCreateRequest{
		Cmd: probeCommand(h.Test, rec.Config), AttachStdout: true, AttachStderr: true,
	}}
	e.sessions.put(x)
	defer e.sessions.drop(x.id)
	r := &apitypes.HealthcheckResult{Start: time.Now()}
	e.emit(rec, execAction(events.ActionExecCreate, x.req.Cmd), "execID", x.id)
	err := e.execRun(pctx, x, rec, &runtime.Attach{Out: out, Err: out})
	if err == nil {
		err = until(pctx, x.done)
	}
	r.End, r.ExitCode, r.Output = time.Now(), -1, out.String()
	switch {
	case pctx.Err() != nil:
		e.endProbe(ctx, x, rec)
		r.Output = fmt.Sprintf("Health check exceeded timeout (%s)", timeout)
		if s := out.String(); s != "" {
			r.Output += ": " + s
		}
	case err != nil:
		r.Output = err.Error()
	default:
		r.ExitCode = *x.exitCode
	}
	return r
}

// endProbe kills a probe that took too long.
func (e *Engine) endProbe(ctx context.Context, x *execution, rec container.Record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if err := e.Runtime.Kill(ctx, runtime.Proc{ID: rec.ID, Exec: x.id}, 9, false); err != nil {
		e.Log.Debug("kill a health check that took too long", "container", rec.ID, "error", err)
		return
	}
	if until(ctx, x.done) != nil {
		e.Log.Debug("a health check does not end", "container", rec.ID)
	}
}

// probeCommand is CMD as it is, CMD-SHELL with the image's shell.
func probeCommand(test []string, cfg *apitypes.Config) []string {
	if test[0] == "CMD" {
		return test[1:]
	}
	shell := cfg.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), strings.Join(test[1:], " "))
}

// judge draws the conclusion of a probe. Only a change of status is written to
// disk: the log of probes may be lost.
func (e *Engine) judge(ctx context.Context, c *entry, run time.Time, h *apitypes.HealthConfig, r *apitypes.HealthcheckResult) {
	var before, after apitypes.HealthStatus
	change := func(rec *container.Record) error {
		if !rec.State.Alive() || !rec.State.StartedAt.Equal(run) || rec.State.Health == nil {
			return errStale
		}
		before = rec.State.Health.Status
		rec.State.Health = nextHealth(*rec.State.Health, run, h, r)
		after = rec.State.Health.Status
		return nil
	}
	if rec := c.snapshot(); change(&rec) == nil && before == after {
		c.inMemory(func(rec *container.Record) { _ = change(rec) })
		return
	}
	if err := e.update(context.WithoutCancel(ctx), c, change); err != nil {
		if err != errStale {
			e.Log.Warn("health could not be recorded", "error", err)
		}
		return
	}
	if before != after {
		e.emit(c.snapshot(), events.Action("health_status: "+string(after)))
	}
}

// nextHealth is the health after one more probe.
func nextHealth(h apitypes.Health, started time.Time, cfg *apitypes.HealthConfig, r *apitypes.HealthcheckResult) *apitypes.Health {
	h.Log = append(slices.Clone(h.Log), r)
	if n := len(h.Log) - probesKept; n > 0 {
		h.Log = h.Log[n:]
	}
	if r.ExitCode == 0 {
		h.FailingStreak, h.Status = 0, apitypes.Healthy
		return &h
	}
	if h.Status == apitypes.Starting && r.Start.Sub(started) < cfg.StartPeriod {
		return &h // does not count yet
	}
	h.FailingStreak++
	if h.FailingStreak >= orZero(cfg.Retries, probeRetries) {
		h.Status = apitypes.Unhealthy
	}
	return &h
}

// clipped keeps the first bytes that are written to it.
type clipped struct {
	mu   sync.Mutex
	b    bytes.Buffer
	left int
	over bool
}

func (c *clipped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(p), c.left)
	c.b.Write(p[:n])
	c.left -= n
	c.over = c.over || n < len(p)
	return len(p), nil
}

func (c *clipped) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return c.b.String() + "..."
	}
	return c.b.String()
}
