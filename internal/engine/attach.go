package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/term"

	"isle/internal/container"
	"isle/internal/runtime"
)

const defaultDetachKeys = "ctrl-p,ctrl-q"

// typedKeys are the keys that a client leaves with. Only what is typed at a
// terminal is looked at: any bytes may come through a pipe.
func typedKeys(s string, terminal bool) ([]byte, error) {
	keys, err := detachKeys(s)
	if !terminal {
		keys = nil
	}
	return keys, err
}

// detachKeys reads "ctrl-p,ctrl-q". Empty means the default.
func detachKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultDetachKeys
	}
	b, err := term.ToBytes(s)
	if err != nil {
		return nil, invalid("Invalid detach keys (%s) provided", s)
	}
	return b, nil
}

// joiner is a client that attached before there was a process. The start tells
// it when there is one, and waits for it before the process runs.
type joiner struct {
	told  chan struct{} // closed: there is a process, or err says why there will be none
	err   error
	ready func() // the client is joined, or has gone
	set   chan struct{}
}

func newJoiner() *joiner {
	j := &joiner{told: make(chan struct{}), set: make(chan struct{})}
	j.ready = sync.OnceFunc(func() { close(j.set) })
	return j
}

// joinTimeout is how long a start waits for a client that attached before it.
const joinTimeout = 2 * time.Second

// join tells those who attached early that there is a process now.
func (c *entry) join() {
	c.mu.Lock()
	early := c.pending
	c.pending, c.up = nil, true
	c.mu.Unlock()
	if len(early) == 0 {
		return
	}
	late := time.After(joinTimeout)
	for _, j := range early {
		close(j.told)
	}
	for _, j := range early {
		select {
		case <-j.set:
		case <-late:
			return
		}
	}
}

// disappoint tells those who attached early that there will be no process.
func (c *entry) disappoint(err error) {
	c.mu.Lock()
	early := c.pending
	c.pending, c.up = nil, false
	c.mu.Unlock()
	for _, j := range early {
		j.err = err
		close(j.told)
	}
}

// wishToJoin is nil when there is a process to be joined to at once.
func (c *entry) wishToJoin() *joiner {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up {
		return nil
	}
	j := newJoiner()
	c.pending = append(c.pending, j)
	return j
}

func (c *entry) withdraw(j *joiner) {
	j.ready()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = slices.DeleteFunc(c.pending, func(x *joiner) bool { return x == j })
}

// ContainerAttach joins a client to the container's process. A container that
// does not run yet is waited for.
func (e *Engine) ContainerAttach(ctx context.Context, ref string, opts container.AttachOptions) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	rec := c.snapshot()
	keys, err := typedKeys(opts.DetachKeys, rec.Config.Tty)
	if err != nil {
		return err
	}
	if err := mayAttach(rec); err != nil {
		return err
	}
	var j *joiner
	if opts.Stream { // before the answer: "attach, then start" must not race
		if j = c.wishToJoin(); j != nil {
			defer c.withdraw(j)
		}
	}
	s, err := opts.Streams(rec.Config.Tty)
	if err != nil {
		return err
	}
	e.emit(rec, events.ActionAttach)
	return e.converse(ctx, c, rec, opts, s, keys, j)
}

func mayAttach(rec container.Record) error {
	switch rec.State.Status {
	case apitypes.StatePaused:
		return conflict("container %s is paused, unpause the container before attach", rec.Name)
	case apitypes.StateRestarting:
		return conflict("container %s is restarting, wait until the container is running", rec.Name)
	case apitypes.StateRemoving, apitypes.StateDead:
		return conflict("container %s is marked for removal and cannot be attached to", rec.Name)
	}
	return nil
}

// converse moves bytes until the process ends or the client goes.
func (e *Engine) converse(ctx context.Context, c *entry, rec container.Record, opts container.AttachOptions, s container.Streams, keys []byte, j *joiner) error {
	if !opts.Stream {
		return e.replay(ctx, rec, opts, s, time.Time{})
	}
	if j != nil {
		if opts.Logs {
			if err := e.replay(ctx, rec, opts, s, time.Time{}); err != nil {
				return err
			}
			opts.Logs = false
		}
		if err := until(ctx, j.told); err != nil || j.err != nil {
			return err // why it did not start is the answer to "start"
		}
	}
	a, replayed := e.joined(ctx, rec, opts, s, j)
	a.DetachKeys = keys
	err := e.Runtime.Attach(ctx, runtime.Proc{ID: rec.ID}, a)
	replayed()
	switch {
	case errors.Is(err, runtime.ErrDetached):
		e.emit(c.snapshot(), events.ActionDetach)
		return nil
	case errdefs.IsNotFound(err): // it ended before we came
		return nil
	}
	return err
}

// joined is the conversation as the runtime wants it. With logs, what is
// written live waits until the log up to the moment of joining has been given.
func (e *Engine) joined(ctx context.Context, rec container.Record, opts container.AttachOptions, s container.Streams, j *joiner) (runtime.Attach, func()) {
	a := runtime.Attach{}
	if opts.Stdin {
		a.In = s.In
	}
	if opts.Stdout {
		a.Out = s.Out
	}
	if opts.Stderr {
		a.Err = s.Err
	}
	if j != nil {
		a.Ready = j.ready
	}
	if !opts.Logs {
		return a, func() {}
	}
	l := &latch{open: make(chan struct{})}
	done := make(chan struct{})
	close1 := sync.OnceFunc(func() { close(done) })
	a.Ready = func() {
		at := time.Now()
		go func() {
			defer close1()
			defer close(l.open)
			if err := e.replay(ctx, rec, opts, s, at); err != nil {
				e.Log.Debug("log for an attached client", "container", rec.ID, "error", err)
			}
		}()
	}
	a.Out, a.Err = l.writer(a.Out), l.writer(a.Err)
	return a, func() {
		select {
		case <-done:
		case <-time.After(joinTimeout): // never joined: nothing replays
		}
	}
}

// latch holds writers back until it is open.
type latch struct{ open chan struct{} }

func (l *latch) writer(w io.Writer) io.Writer {
	if w == nil {
		return nil
	}
	return &latched{l, w}
}

type latched struct {
	l *latch
	w io.Writer
}

func (w *latched) Write(p []byte) (int, error) {
	<-w.l.open
	return w.w.Write(p)
}

// replay gives a client the log so far, or up to a moment. A container without
// a readable log has nothing to give.
func (e *Engine) replay(ctx context.Context, rec container.Record, opts container.AttachOptions, s container.Streams, upTo time.Time) error {
	if !opts.Logs || !readable(rec) {
		return nil
	}
	return e.readLog(ctx, rec, container.LogsOptions{Stdout: opts.Stdout, Stderr: opts.Stderr, Tail: -1, Until: upTo}, s, nil)
}

// ContainerResize sets the size of the container's terminal. A container that
// does not run yet is an error that the CLI retries on.
func (e *Engine) ContainerResize(ctx context.Context, ref string, height, width uint16) error {
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	rec := c.snapshot()
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	if !up {
		return notRunning(rec)
	}
	if err := e.Runtime.Resize(ctx, runtime.Proc{ID: rec.ID}, height, width); err != nil {
		if errdefs.IsNotFound(err) {
			return notRunning(rec)
		}
		return about(rec, "resize", err)
	}
	e.emit(rec, events.ActionResize, "height", itoa(height), "width", itoa(width))
	return nil
}

// commandText is how events show a command.
func commandText(argv []string) string { return strings.Join(argv, " ") }
