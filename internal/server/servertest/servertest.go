// Package servertest is an engine without a machine, for tests of the API: its
// containers are goroutines, its images are names. It keeps the order of
// things that clients rely on; it is not a model of isolation or of networks.
//
// A container's command is one of
//
//	echo WORDS     to stdout
//	complain WORDS to stderr
//	cat            stdin to stdout until it ends
//	both           one line to each
//	exit N         end with that code
//	sleep          until it is killed
package servertest

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	isle "isle/internal/container"
	"isle/internal/event"
	"isle/internal/ids"
)

// Backend implements server.Backend. A test that wants one method to be
// different embeds it.
type Backend struct {
	Bus event.Bus

	mu         sync.Mutex
	containers []*Container
	execs      map[string]*session
	images     []string
	Last       any // options or request of the last call that had some
}

// New has one image.
func New() *Backend {
	return &Backend{execs: map[string]*session{}, images: []string{"toolbox:latest"}}
}

// Container is one container.
type Container struct {
	ID, Name string
	Opts     isle.CreateOptions
	Status   container.ContainerState
	Code     int

	proc    *proc
	logs    []line
	logged  chan struct{} // closed and replaced when logs grew
	waiters []waiter
	ready   chan struct{}  // closed when proc is set
	early   []isle.Streams // of clients that attached before
	err     error
}

type line struct {
	err  bool
	text string
}

type waiter struct {
	cond container.WaitCondition
	ch   chan isle.WaitResult
}

// proc is a running command.
type proc struct {
	in     *io.PipeReader
	stdin  *io.PipeWriter
	done   chan struct{}
	code   int
	cancel context.CancelFunc

	mu  sync.Mutex
	out []isle.Streams
}

func (p *proc) write(errs bool, s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.out {
		w := o.Out
		if errs {
			w = o.Err
		}
		if w != nil {
			_, _ = io.WriteString(w, s)
		}
	}
}

func (p *proc) add(s isle.Streams) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, s)
}

// run runs a command; say is told all that it writes.
func (p *proc) run(ctx context.Context, cmd []string, say func(errs bool, s string)) int {
	if len(cmd) == 0 {
		return 0
	}
	rest := strings.Join(cmd[1:], " ")
	switch cmd[0] {
	case "echo":
		say(false, rest+"\n")
	case "complain":
		say(true, rest+"\n")
	case "both":
		say(false, "to stdout\n")
		say(true, "to stderr\n")
	case "cat":
		b := make([]byte, 1024)
		for {
			n, err := p.in.Read(b)
			if n > 0 {
				say(false, string(b[:n]))
			}
			if err != nil {
				return 0
			}
		}
	case "exit":
		n, _ := strconv.Atoi(rest)
		return n
	case "sleep":
		<-ctx.Done()
		return 137
	}
	return 0
}

func newProc() (*proc, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &proc{done: make(chan struct{}), cancel: cancel}
	p.in, p.stdin = io.Pipe()
	return p, ctx
}

func (p *proc) end(code int) {
	p.code = code
	p.cancel()
	_ = p.in.Close()
	close(p.done)
}

// converse joins a client to p until p ends, the client leaves, or ctx is done.
func (p *proc) converse(ctx context.Context, s isle.Streams, in bool) error {
	if in && s.In != nil {
		go func() {
			_, _ = io.Copy(p.stdin, s.In)
			_ = p.stdin.Close()
		}()
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func notFound(ref string) error {
	return fmt.Errorf("No such container: %s: %w", ref, errdefs.ErrNotFound)
}

func (b *Backend) find(ref string) (*Container, error) {
	for _, c := range b.containers {
		if c.Name == ref || ref != "" && strings.HasPrefix(c.ID, ref) {
			return c, nil
		}
	}
	return nil, notFound(ref)
}

func (b *Backend) with(ref string, f func(c *Container) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, err := b.find(ref)
	if err != nil {
		return err
	}
	return f(c)
}

func (b *Backend) keep(v any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Last = v
}

func (b *Backend) emit(c *Container, a events.Action) {
	attr := map[string]string{"name": c.Name, "image": c.Opts.Config.Image}
	if a == events.ActionDie {
		attr["exitCode"] = strconv.Itoa(c.Code) // where clients before 1.30 look
	}
	b.Bus.Publish(events.Message{Type: events.ContainerEventType, Action: a, Actor: events.Actor{ID: c.ID, Attributes: attr}})
}

// ContainerCreate knows no image but those of the list.
func (b *Backend) ContainerCreate(_ context.Context, o isle.CreateOptions) (container.CreateResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Last = o
	if o.Name == "" {
		o.Name = "fake" + strconv.Itoa(len(b.containers))
	}
	if !b.hasImage(o.Config.Image) {
		return container.CreateResponse{}, noImage(o.Config.Image)
	}
	if old, err := b.find(o.Name); err == nil {
		return container.CreateResponse{}, fmt.Errorf("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.: %w", "/"+o.Name, old.ID, errdefs.ErrConflict)
	}
	c := &Container{ID: ids.New(), Name: o.Name, Opts: o, Status: container.StateCreated, ready: make(chan struct{}), logged: make(chan struct{})}
	b.containers = append(b.containers, c)
	b.emit(c, events.ActionCreate)
	return container.CreateResponse{ID: c.ID}, nil
}

func (b *Backend) ContainerList(_ context.Context, o isle.ListOptions) ([]container.Summary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Last = o
	var all []container.Summary
	for _, c := range b.containers {
		if !o.All && c.Status != container.StateRunning || !o.Filters.Labels("label", c.Opts.Config.Labels) {
			continue
		}
		all = append(all, container.Summary{
			ID: c.ID, Names: []string{"/" + c.Name}, Image: c.Opts.Config.Image, Command: strings.Join(c.Opts.Config.Cmd, " "),
			Created: 1700000000, State: c.Status, Status: string(c.Status), Ports: []container.PortSummary{},
			Health: &container.HealthSummary{Status: container.NoHealthcheck}, NetworkSettings: &container.NetworkSettingsSummary{},
		})
	}
	return all, nil
}

func (b *Backend) ContainerInspect(_ context.Context, ref string, _ bool) (out container.InspectResponse, err error) {
	err = b.with(ref, func(c *Container) error {
		out = container.InspectResponse{
			ID: c.ID, Name: "/" + c.Name, Config: c.Opts.Config, HostConfig: c.Opts.Host, Created: "2023-11-14T22:13:20Z",
			State:           &container.State{Status: c.Status, Running: c.Status == container.StateRunning, ExitCode: c.Code},
			Mounts:          []container.MountPoint{},
			NetworkSettings: &container.NetworkSettings{Ports: network.PortMap{}, Networks: c.Opts.Networking.EndpointsConfig},
		}
		return nil
	})
	return out, err
}

func (b *Backend) ContainerStart(_ context.Context, ref string) error {
	return b.with(ref, func(c *Container) error {
		if c.Status == container.StateRunning {
			return fmt.Errorf("container %s is running already: %w", c.ID, errdefs.ErrNotModified)
		}
		if cmd := c.Opts.Config.Cmd; len(cmd) > 0 && cmd[0] == "missing" {
			return fmt.Errorf("failed to create task for container: exec: %q: executable file not found in $PATH: %w", cmd[0], errdefs.ErrInvalidArgument)
		}
		p, ctx := newProc()
		c.proc, c.Status, p.out = p, container.StateRunning, c.early
		close(c.ready)
		b.emit(c, events.ActionStart)
		if !c.Opts.Config.OpenStdin {
			_ = p.stdin.Close()
		}
		go b.runContainer(ctx, c)
		return nil
	})
}

func (b *Backend) runContainer(ctx context.Context, c *Container) {
	code := c.proc.run(ctx, c.Opts.Config.Cmd, func(errs bool, s string) {
		b.mu.Lock()
		c.logs = append(c.logs, line{errs, s})
		close(c.logged)
		c.logged = make(chan struct{})
		b.mu.Unlock()
		c.proc.write(errs, s)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	c.Status, c.Code = container.StateExited, code
	b.emit(c, events.ActionDie)
	c.proc.end(code)
	b.tell(c, container.WaitConditionNotRunning, container.WaitConditionNextExit)
	if c.Opts.Host.AutoRemove {
		b.drop(c)
	}
}

func (b *Backend) tell(c *Container, conds ...container.WaitCondition) {
	left := c.waiters[:0:0]
	for _, w := range c.waiters {
		hit := false
		for _, cond := range conds {
			hit = hit || cond == w.cond
		}
		if hit {
			w.ch <- isle.WaitResult{ExitCode: c.Code, Err: c.err}
		} else {
			left = append(left, w)
		}
	}
	c.waiters = left
}

func (b *Backend) drop(c *Container) {
	for i, x := range b.containers {
		if x == c {
			b.containers = append(b.containers[:i:i], b.containers[i+1:]...)
		}
	}
	b.emit(c, events.ActionDestroy)
	b.tell(c, container.WaitConditionRemoved)
}

func (b *Backend) ContainerStop(_ context.Context, ref string, o isle.StopOptions) error {
	return b.with(ref, func(c *Container) error {
		b.Last = o
		if c.Status != container.StateRunning {
			return fmt.Errorf("container %s is stopped already: %w", c.ID, errdefs.ErrNotModified)
		}
		c.proc.cancel()
		_ = c.proc.in.Close()
		return nil
	})
}

func (b *Backend) ContainerRestart(_ context.Context, ref string, o isle.StopOptions) error {
	return b.with(ref, func(*Container) error { b.Last = o; return nil })
}

func (b *Backend) ContainerKill(_ context.Context, ref, signal string) error {
	return b.with(ref, func(c *Container) error {
		b.Last = signal
		if c.Status != container.StateRunning {
			return fmt.Errorf("cannot kill container: %s: container %s is not running: %w", ref, c.ID, errdefs.ErrConflict)
		}
		c.proc.cancel()
		return nil
	})
}

func (b *Backend) ContainerPause(_ context.Context, ref string) error {
	return b.with(ref, func(*Container) error { return nil })
}

func (b *Backend) ContainerUnpause(_ context.Context, ref string) error {
	return b.with(ref, func(*Container) error { return nil })
}

func (b *Backend) ContainerWait(_ context.Context, ref string, cond container.WaitCondition) (<-chan isle.WaitResult, error) {
	ch := make(chan isle.WaitResult, 1)
	return ch, b.with(ref, func(c *Container) error {
		if cond == container.WaitConditionNotRunning && c.Status != container.StateRunning {
			ch <- isle.WaitResult{ExitCode: c.Code}
			return nil
		}
		c.waiters = append(c.waiters, waiter{cond, ch})
		return nil
	})
}

func (b *Backend) ContainerRemove(_ context.Context, ref string, o isle.RemoveOptions) error {
	return b.with(ref, func(c *Container) error {
		b.Last = o
		if c.Status == container.StateRunning {
			if !o.Force {
				return fmt.Errorf("cannot remove container %q: container is running: stop the container before removing or force remove: %w", "/"+c.Name, errdefs.ErrConflict)
			}
			c.proc.cancel()
			_ = c.proc.in.Close()
		}
		b.drop(c)
		return nil
	})
}

func (b *Backend) ContainerRename(_ context.Context, ref, name string) error {
	return b.with(ref, func(c *Container) error { c.Name = name; return nil })
}

func (b *Backend) ContainerUpdate(_ context.Context, ref string, cfg isle.UpdateOptions) (container.UpdateResponse, error) {
	return container.UpdateResponse{}, b.with(ref, func(*Container) error { b.Last = cfg; return nil })
}

func (b *Backend) ContainerResize(_ context.Context, ref string, h, w uint16) error {
	return b.with(ref, func(c *Container) error {
		b.Last = [2]uint16{h, w}
		if c.Status != container.StateRunning {
			return fmt.Errorf("container %s is not running: %w", c.ID, errdefs.ErrConflict)
		}
		return nil
	})
}

// ContainerAttach waits for a container that does not run yet. The client is
// joined before it has its answer: it may start the container at once.
func (b *Backend) ContainerAttach(ctx context.Context, ref string, o isle.AttachOptions) error {
	var c *Container
	var s isle.Streams
	err := b.with(ref, func(found *Container) (err error) {
		c, b.Last = found, o
		if s, err = o.Streams(c.Opts.Config.Tty); err != nil {
			return err
		}
		if o.Logs {
			for _, l := range c.logs {
				if err := put(s, l); err != nil {
					return err
				}
			}
		}
		if c.proc != nil {
			c.proc.add(s)
		}
		c.early = append(c.early, s)
		return nil
	})
	if err != nil || !o.Stream {
		return err
	}
	select {
	case <-c.ready:
		return c.proc.converse(ctx, s, o.Stdin)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func put(s isle.Streams, l line) error {
	w := s.Out
	if l.err {
		w = s.Err
	}
	_, err := io.WriteString(w, l.text)
	return err
}

func (b *Backend) ContainerTop(_ context.Context, ref, args string) (container.TopResponse, error) {
	b.keep(args)
	top := container.TopResponse{Titles: []string{"PID", "CMD"}, Processes: [][]string{{"1", "sleep"}}}
	return top, b.with(ref, func(*Container) error { return nil })
}

// ContainerStats gives three samples at most.
func (b *Backend) ContainerStats(ctx context.Context, ref string, stream, _ bool, emit func(container.StatsResponse) error) error {
	if err := b.with(ref, func(*Container) error { return nil }); err != nil {
		return err
	}
	for i := range 3 {
		if err := emit(container.StatsResponse{ID: ref, PidsStats: container.PidsStats{Current: uint64(i)}, OSType: "linux"}); err != nil || !stream {
			return err
		}
	}
	return ctx.Err()
}
