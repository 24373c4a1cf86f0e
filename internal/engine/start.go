package engine

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sync/errgroup"

	"isle/internal/container"
	"isle/internal/failpoint"
	"isle/internal/network"
	"isle/internal/runtime"
	"isle/internal/runtime/cgroup"
	"isle/internal/runtime/spec"
	"isle/internal/undo"
)

// ContainerStart runs a container. It goes through to the end even when the
// client has gone: half a start is of no use to anybody.
func (e *Engine) ContainerStart(ctx context.Context, ref string) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	return e.startLocked(context.WithoutCancel(ctx), c, false)
}

// startLocked runs a container; op is held. again: by its restart policy.
func (e *Engine) startLocked(ctx context.Context, c *entry, again bool) error {
	if err := c.mayStart(); err != nil {
		return err
	}
	c.dropRetry()
	if err := e.startable(ctx, c); err != nil {
		return err
	}
	c.shut()
	defer c.open()
	rec, err := e.launch(ctx, c, again)
	if err != nil {
		return e.startFailed(ctx, c, err)
	}
	e.emit(rec, events.ActionStart)
	e.beginWatch(c, rec)
	return nil
}

// clearedUp waits for what the last run left to be gone, and does it again
// where it could not be done.
func (e *Engine) clearedUp(ctx context.Context, c *entry) error {
	if err := c.settled(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	dirty, rec := c.dirty, c.rec
	c.mu.Unlock()
	if dirty {
		e.teardown(ctx, c, rec)
	}
	return nil
}

// startable waits until the runtime can be given the same id again.
func (e *Engine) startable(ctx context.Context, c *entry) error {
	if err := e.clearedUp(ctx, c); err != nil {
		return err
	}
	c.mu.Lock()
	freed, rec := c.freed, c.rec
	c.mu.Unlock()
	if err := until(ctx, freed); err != nil {
		return err
	}
	c.mu.Lock()
	stuck := c.stuck
	c.mu.Unlock()
	if stuck {
		e.letGo(ctx, c, rec)
	}
	return nil
}

// run is one start in the making.
type run struct {
	e       *Engine
	c       *entry
	rec     container.Record
	opened  network.Opened
	netNS   string
	path    *os.File          // the namespace of "ns:PATH", until the process is in it
	mounts  []container.Mount // the record's, with the sources as they are now
	rootfs  []runtime.Mount
	user    spec.User
	ahead   func() error // waits for rootfs and user
	runtime runtime.Runtime
	group   cgroup.Group
	filter  string // key of its system call filter
	pid     int
}

// launch takes the steps of a start in order; each pushes its way back.
func (e *Engine) launch(ctx context.Context, c *entry, again bool) (_ container.Record, err error) {
	var u undo.Stack
	defer func() { u.Unwind(ctx, &err) }()
	r := &run{e: e, c: c, rec: clearedNetworks(c.snapshot())}
	if r.runtime, err = e.Runtime.Find(r.rec.Runtime); err != nil {
		return r.rec, err
	}
	var ahead errgroup.Group
	ahead.Go(func() error { return r.lookAhead(ctx) })
	r.ahead = ahead.Wait
	defer ahead.Wait() // also when a step failed before it was needed
	failpoint.Here(failpoint.StartBefore)
	for _, step := range []func(context.Context, *undo.Stack) error{
		r.mountVolumes, r.openNetworks, r.writeFiles, r.writeBundle, r.create, r.start,
	} {
		if err := step(ctx, &u); err != nil {
			return r.rec, err
		}
	}
	return r.record(ctx, again)
}

func (r *run) mountVolumes(ctx context.Context, u *undo.Stack) error {
	if err := r.settleSources(ctx, u); err != nil {
		return err
	}
	failpoint.Here(failpoint.StartAfterVolumes)
	return nil
}

func (r *run) openNetworks(ctx context.Context, u *undo.Stack) error {
	e := r.e
	if err := r.enter(ctx); err != nil {
		return err
	}
	u.Push("open networks", func(ctx context.Context) error { return e.leave(ctx, r.rec) })
	if r.path != nil {
		u.Push("open namespace", func(context.Context) error { _ = r.path.Close(); return nil })
	}
	if err := e.connected(ctx, &r.rec, r.opened); err != nil {
		return err
	}
	e.announceNetworks(ctx, r.rec, events.ActionConnect)
	u.Push("announce networks", func(ctx context.Context) error {
		e.announceNetworks(ctx, r.rec, events.ActionDisconnect)
		return nil
	})
	failpoint.Here(failpoint.StartAfterNetwork)
	return nil
}

// enter finds the namespace that the process is to be in, or makes it.
func (r *run) enter(ctx context.Context) (err error) {
	switch mode := r.rec.Host.NetworkMode; {
	case mode.IsHost():
	case isPath(mode):
		if r.path, err = openPath(mode); err == nil {
			r.netNS = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), r.path.Fd())
		}
	case mode.IsContainer():
		r.netNS, err = r.e.enterOther(&r.rec)
	default:
		if r.opened, err = r.e.openNetworks(ctx, r.c, r.rec); err != nil {
			return fmt.Errorf("failed to set up container networking: %w", err)
		}
		r.netNS = r.opened.NSPath
	}
	return err
}

func (r *run) writeFiles(ctx context.Context, _ *undo.Stack) error {
	if !r.rec.Host.NetworkMode.IsContainer() {
		if err := r.e.writeFiles(ctx, r.rec, r.opened); err != nil {
			return err
		}
	}
	failpoint.Here(failpoint.StartAfterFiles)
	return nil
}

// lookAhead finds the root file system and the user while the network is made:
// neither needs the other.
func (r *run) lookAhead(ctx context.Context) (err error) {
	if r.rootfs, err = r.e.Images.RootfsMounts(ctx, r.rec.ID); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	r.user, err = lookUp(r.rec.State, r.rec.Host.GroupAdd, r.rootfs, r.rec.Config.User)
	return err
}

func (r *run) writeBundle(_ context.Context, u *undo.Stack) error {
	u.Push("write bundle", func(context.Context) error { return r.e.removeBundle(r.rec.ID) })
	if err := r.ahead(); err != nil {
		return err
	}
	if err := r.buildSpec(); err != nil {
		return err
	}
	failpoint.Here(failpoint.StartAfterBundle)
	return nil
}

// create sets the process up; clients that attached before the start are
// joined to it before it runs, so that they miss nothing.
func (r *run) create(ctx context.Context, u *undo.Stack) (err error) {
	e, rec := r.e, r.rec
	u.Push("create", func(ctx context.Context) error { return e.Runtime.Delete(ctx, rec.ID) })
	log, err := e.logOf(rec)
	if err != nil {
		return err
	}
	r.pid, err = e.Runtime.Create(ctx, runtime.Create{
		ID: rec.ID, Bundle: e.bundle(rec.ID), Runtime: r.runtime, Rootfs: r.rootfs, Log: log, KeepShared: spec.KeepShared(r.mounts), CgroupPath: accounting(r.group), Filter: r.filter,
		Stdio: runtime.Stdio{
			Terminal: rec.Config.Tty, Stdin: rec.Config.OpenStdin, CloseStdin: rec.Config.StdinOnce,
			Height: uint16(rec.Host.ConsoleSize[0]), Width: uint16(rec.Host.ConsoleSize[1]),
		},
	})
	if err != nil {
		return startError("create", err)
	}
	failpoint.Here(failpoint.StartAfterCreate)
	if r.path != nil {
		_ = r.path.Close() // the process is in it
	}
	r.c.join()
	return nil
}

// accounting is the directory in which the container's processes are counted:
// where memory is, since the kernel tells there of what it killed.
func accounting(g cgroup.Group) string {
	for _, controller := range []string{"memory", "pids", "cpu", "name=systemd"} {
		if dir := g.Dir(controller); dir != "" {
			return dir
		}
	}
	return ""
}

func (r *run) start(ctx context.Context, _ *undo.Stack) error {
	r.rec.State.StartedAt = time.Now().UTC()
	if err := r.e.Runtime.Start(ctx, r.rec.ID); err != nil {
		return startError("start", err)
	}
	failpoint.Here(failpoint.StartAfterStart)
	return nil
}

// record commits that the container runs.
func (r *run) record(ctx context.Context, again bool) (container.Record, error) {
	err := r.e.update(ctx, r.c, func(rec *container.Record) error {
		if err := rec.State.To(apitypes.StateRunning); err != nil {
			return err
		}
		s := &rec.State
		s.Pid, s.StartedAt, s.ExitCode, s.Error, s.OOMKilled = r.pid, r.rec.State.StartedAt, 0, "", false
		s.Health = startingHealth(rec.Config.Healthcheck)
		rec.Networks, rec.Ports, rec.NetOwner, rec.Mounts = r.rec.Networks, r.rec.Ports, r.rec.NetOwner, r.rec.Mounts
		r.e.showPorts(rec) // one may have been taken over since
		rec.ManuallyStopped = false
		if !again {
			rec.RestartCount = 0
			r.c.backoff = 0
		}
		r.c.beganLocked()
		return nil
	})
	if err != nil {
		return r.rec, err
	}
	failpoint.Here(failpoint.StartAfterRecord)
	return r.c.snapshot(), nil
}

// startFailed writes down why a container did not start and lets go of those
// who wait for its end.
//
// Their result has no error: the one who started it has been told, and docker's
// "run" would print it twice.
func (e *Engine) startFailed(ctx context.Context, c *entry, cause error) error {
	cause = e.named(ownWords(cause))
	code := exitCodeOf(cause)
	err := e.update(ctx, c, func(rec *container.Record) error {
		rec.State.Error, rec.State.ExitCode = cause.Error(), code
		if rec.State.Status == apitypes.StateRestarting {
			rec.State.Status, rec.State.FinishedAt = apitypes.StateExited, time.Now().UTC()
		}
		return nil
	})
	if err != nil {
		e.Log.Error("a failed start could not be recorded", "error", err)
	}
	e.vacate(ctx, c)
	rec := c.snapshot()
	e.emit(rec, events.ActionDie, "exitCode", fmt.Sprint(code), "execDuration", "0")
	c.disappoint(cause)
	c.tell(container.WaitResult{ExitCode: code})
	if rec.Host.AutoRemove {
		e.spawn(func(ctx context.Context) { e.autoRemove(context.WithoutCancel(ctx), c) })
	}
	return cause
}

// startError is what the OCI runtime said, in words from which clients tell
// "not found" (127) and "cannot be run" (126); they compare with Go's texts.
// The runtime's client has put most of it into Docker's words already.
func startError(doing string, err error) error {
	text := phrases.Replace(err.Error())
	if !strings.Contains(text, ociFailed) {
		text = fmt.Sprintf("failed to create task for container: %s %s failed: %s", ociFailed, doing, text)
	}
	if contains(text, notFoundPhrases...) || contains(text, notRunnablePhrases...) {
		return invalid("%s", text)
	}
	return &classed{text, err}
}

// ownWords is err in words from which no client takes a failure of ours for one
// of the command: they look for Go's texts, and exit with 126 and 127.
func ownWords(err error) error {
	if err == nil || strings.Contains(err.Error(), ociFailed) {
		return err
	}
	return reworded(err, setUpPhrases.Replace(err.Error()))
}

// named is err with the names of containers instead of their ids.
func (e *Engine) named(err error) error {
	if err == nil {
		return nil
	}
	return reworded(err, longID.ReplaceAllStringFunc(err.Error(), e.nameOf))
}

func reworded(err error, text string) error {
	if text == err.Error() {
		return err
	}
	return &classed{text, err}
}

var longID = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

const ociFailed = "OCI runtime"

var (
	phrases = strings.NewReplacer("No such file or directory", "no such file or directory", "Permission denied", "permission denied",
		"Is a directory", "is a directory", "Not a directory", "not a directory")
	setUpPhrases = strings.NewReplacer("no such file or directory", "no such file", "executable file not found", "no such program",
		"permission denied", "access denied", "is a directory", "not a file")
	notFoundPhrases    = []string{"executable file not found", "no such file or directory"}
	notRunnablePhrases = []string{"permission denied", "is a directory", "not a directory", "exec format error"}
)

// exitCodeOf is Docker's: 127 there is no such command, 126 it cannot be run,
// 128 anything else.
func exitCodeOf(err error) int {
	switch text := phrases.Replace(err.Error()); {
	case !strings.Contains(text, ociFailed):
		return 128
	case contains(text, notFoundPhrases...):
		return 127
	case contains(text, notRunnablePhrases...):
		return 126
	}
	return 128
}

func contains(s string, any ...string) bool {
	for _, a := range any {
		if strings.Contains(s, a) {
			return true
		}
	}
	return false
}
