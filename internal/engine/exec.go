package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	apitypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/container"
	"isle/internal/ids"
	"isle/internal/runtime"
)

// execution is one exec session. It lives in memory: it ends with its
// container, and is of no use after that.
type execution struct {
	id  string
	c   *entry
	req apitypes.ExecCreateRequest

	mu       sync.Mutex
	started  bool
	running  bool
	pid      int
	exitCode *int
	done     chan struct{} // closed when the process has ended
	height   uint16
	width    uint16
}

// sessions are the exec sessions by id. The zero value is empty and ready.
type sessions struct {
	mu sync.Mutex
	m  map[string]*execution
}

// keptExec is how long a session can be inspected after its end.
const keptExec = 5 * time.Minute

func (s *sessions) put(x *execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]*execution{}
	}
	s.m[x.id] = x
}

func (s *sessions) get(id string) (*execution, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.m[id]
	return x, ok
}

func (s *sessions) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
}

// of are the ids of a container's sessions that have not ended.
func (s *sessions) of(c *entry) []*execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*execution
	for _, x := range s.m {
		if x.c == c {
			out = append(out, x)
		}
	}
	return out
}

func mayExec(rec container.Record) error {
	switch rec.State.Status {
	case apitypes.StateRunning:
		return nil
	case apitypes.StatePaused:
		return conflict("container %s is paused, unpause the container before exec", rec.Name)
	case apitypes.StateRestarting:
		return conflict("container %s is restarting, wait until the container is running", rec.Name)
	}
	return notRunning(rec)
}

// ExecCreate makes a session, which ExecStart runs.
func (e *Engine) ExecCreate(_ context.Context, ref string, req apitypes.ExecCreateRequest) (string, error) {
	c, err := e.find(ref)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", invalid("no exec command specified")
	}
	if _, err := detachKeys(req.DetachKeys); err != nil {
		return "", err
	}
	rec := c.snapshot()
	if err := mayExec(rec); err != nil {
		return "", err
	}
	x := &execution{id: ids.New(), c: c, req: req, done: make(chan struct{})}
	if s := req.ConsoleSize; s != nil {
		x.height, x.width = uint16(s[0]), uint16(s[1])
	}
	e.sessions.put(x)
	e.emit(rec, execAction(events.ActionExecCreate, req.Cmd), "execID", x.id)
	return x.id, nil
}

// execAction is "exec_start: /bin/sh -c ls".
func execAction(a events.Action, cmd []string) events.Action {
	return events.Action(string(a) + ": " + commandText(cmd))
}

func (e *Engine) session(id string) (*execution, error) {
	x, ok := e.sessions.get(id)
	if !ok {
		return nil, notFound("No such exec instance: %s", id)
	}
	return x, nil
}

// ExecStart runs a session, and, unless detached, stays until it ends.
func (e *Engine) ExecStart(ctx context.Context, id string, opts container.ExecStartOptions) error {
	x, err := e.session(id)
	if err != nil {
		return err
	}
	rec := x.c.snapshot()
	if err := mayExec(rec); err != nil {
		return err
	}
	if err := x.claim(opts); err != nil {
		return err
	}
	if opts.Detach {
		return e.execRun(context.WithoutCancel(ctx), x, rec, nil)
	}
	s, err := opts.Streams(x.req.Tty)
	if err != nil {
		x.failed()
		return err
	}
	return e.execAttached(ctx, x, rec, s)
}

// claim: a session is started once.
func (x *execution) claim(opts container.ExecStartOptions) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running {
		return conflict("exec %s is already running", x.id)
	}
	if x.started {
		return conflict("exec %s has already run", x.id)
	}
	x.started = true
	if s := opts.ConsoleSize; s != nil {
		x.height, x.width = uint16(s[0]), uint16(s[1])
	}
	return nil
}

// execAttached runs a session with a client. It returns when the exit is known,
// so that the code can be asked for as soon as the client sees the end.
func (e *Engine) execAttached(ctx context.Context, x *execution, rec container.Record, s container.Streams) error {
	a := runtime.Attach{}
	if x.req.AttachStdin {
		a.In = s.In
	}
	if x.req.AttachStdout {
		a.Out = s.Out
	}
	if x.req.AttachStderr {
		a.Err = s.Err
	}
	var err error
	if a.DetachKeys, err = typedKeys(x.req.DetachKeys, x.req.Tty); err != nil {
		return err
	}
	err = e.execRun(ctx, x, rec, &a)
	if errors.Is(err, runtime.ErrDetached) {
		e.emit(rec, events.ActionExecDetach, "execID", x.id)
		return nil
	}
	if err != nil {
		return err
	}
	return until(ctx, x.done)
}

// execRun starts the process; with a it is joined before it can say anything,
// and execRun returns when it has ended.
func (e *Engine) execRun(ctx context.Context, x *execution, rec container.Record, a *runtime.Attach) error {
	process, err := e.execProcess(ctx, rec, x.req)
	if err != nil {
		x.failed()
		return err
	}
	if a == nil {
		return e.execStart(ctx, x, rec, process, runtime.Stdio{Terminal: x.req.Tty, Height: x.height, Width: x.width})
	}
	stdio := runtime.Stdio{Terminal: x.req.Tty, Stdin: a.In != nil, CloseStdin: a.In != nil, Height: x.height, Width: x.width}
	return e.execJoined(ctx, x, rec, process, stdio, *a)
}

// execJoined attaches first and starts then: the shim lets clients join a
// process that is about to come.
func (e *Engine) execJoined(ctx context.Context, x *execution, rec container.Record, process *specs.Process, stdio runtime.Stdio, a runtime.Attach) error {
	actx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready, ended := make(chan struct{}), make(chan error, 1)
	a.Wait, a.Ready = true, sync.OnceFunc(func() { close(ready) })
	go func() { ended <- e.Runtime.Attach(actx, runtime.Proc{ID: rec.ID, Exec: x.id}, a) }()
	select {
	case <-ready:
	case err := <-ended:
		x.failed()
		return errors.Join(fmt.Errorf("attach to exec %s", ids.Short(x.id)), err)
	}
	if err := e.execStart(context.WithoutCancel(ctx), x, rec, process, stdio); err != nil {
		cancel()
		<-ended
		return err
	}
	return <-ended
}

func (e *Engine) execStart(ctx context.Context, x *execution, rec container.Record, process *specs.Process, stdio runtime.Stdio) error {
	e.emit(rec, execAction(events.ActionExecStart, x.req.Cmd), "execID", x.id)
	pid, err := e.Runtime.Exec(ctx, runtime.Proc{ID: rec.ID, Exec: x.id}, process, stdio)
	if err != nil {
		code := exitCodeOf(fmt.Errorf("OCI runtime: %w", err))
		x.ended(code, nil)
		return execError(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pid, x.running = pid, x.exitCode == nil
	return nil
}

func execError(err error) error {
	text := phrases.Replace(err.Error())
	if !strings.Contains(text, ociFailed) {
		text = ociFailed + " exec failed: exec failed: " + text
	}
	if contains(text, notFoundPhrases...) || contains(text, notRunnablePhrases...) {
		return invalid("%s", text)
	}
	return &classed{text, err}
}

// failed marks a session that never ran.
func (x *execution) failed() { x.ended(126, nil) }

// ended records the exit; a second one changes nothing. Those who wait for it
// go on when tell has returned, so that they find what it tells.
func (x *execution) ended(code int, tell func()) bool {
	x.mu.Lock()
	first := x.exitCode == nil
	if first {
		x.exitCode, x.running, x.pid = &code, false, 0
	}
	x.mu.Unlock()
	if !first {
		return false
	}
	if tell != nil {
		tell()
	}
	close(x.done)
	return true
}

// execExited deals with the end of a session's process.
func (e *Engine) execExited(ctx context.Context, exit runtime.Exit) {
	defer e.ack(ctx, exit.Proc)
	x, ok := e.sessions.get(exit.Exec)
	if ok && x.ended(exit.Code, func() {
		e.emitAt(exit.At, x.c.snapshot(), events.ActionExecDie, "execID", x.id, "exitCode", strconv.Itoa(exit.Code))
	}) {
		e.dropLater(x)
	}
}

// dropLater forgets a session when nobody will ask for it any more.
func (e *Engine) dropLater(x *execution) {
	e.spawn(func(ctx context.Context) {
		sleep(ctx, keptExec)
		e.sessions.drop(x.id)
	})
}

// endExecs ends the sessions of a container that has ended: the kernel killed
// their processes with it.
func (e *Engine) endExecs(c *entry) {
	for _, x := range e.sessions.of(c) {
		x.mu.Lock()
		waiting := x.running
		x.mu.Unlock()
		if !waiting {
			continue
		}
		if x.ended(137, nil) {
			e.dropLater(x)
		}
	}
}

// ExecInspect is right as soon as the client has seen the end of the stream.
func (e *Engine) ExecInspect(_ context.Context, id string) (apitypes.ExecInspectResponse, error) {
	x, err := e.session(id)
	if err != nil {
		return apitypes.ExecInspectResponse{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	keys := []byte{}
	if x.req.DetachKeys != "" {
		if keys, err = detachKeys(x.req.DetachKeys); err != nil {
			return apitypes.ExecInspectResponse{}, err
		}
	}
	privileged := x.req.Privileged
	return apitypes.ExecInspectResponse{
		ID: x.id, Running: x.running, ExitCode: x.exitCode, Pid: x.pid, ContainerID: x.c.snapshot().ID, DetachKeys: keys, CanRemove: x.exitCode != nil,
		OpenStdin: x.req.AttachStdin, OpenStdout: x.req.AttachStdout, OpenStderr: x.req.AttachStderr,
		ProcessConfig: &apitypes.ExecProcessConfig{Tty: x.req.Tty, Entrypoint: x.req.Cmd[0], Arguments: append([]string{}, x.req.Cmd[1:]...), Privileged: &privileged, User: x.req.User},
	}, nil
}

// ExecResize before the start is remembered for it.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint16) error {
	x, err := e.session(id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.height, x.width = height, width
	running, over := x.running, x.exitCode != nil
	x.mu.Unlock()
	if over {
		return conflict("exec %s is not running", id)
	}
	if !running {
		return nil
	}
	err = e.Runtime.Resize(ctx, runtime.Proc{ID: x.c.snapshot().ID, Exec: id}, height, width)
	if errdefs.IsNotFound(err) {
		return conflict("exec %s is not running", id)
	}
	return err
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }
