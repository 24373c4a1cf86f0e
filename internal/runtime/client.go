package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"isle/internal/runtime/shim/wire"
)

// Config is what a Client needs.
type Config struct {
	RunDir   string             // required; where the shim is, or will be
	ShimPath string             // required; the program isle-shim
	Runtimes map[string]Runtime // more OCI runtimes by name; only Path and Args are used
	Default  string             // "": crun if it works on this machine, else runc
	// SystemdCgroup: the runtimes ask systemd for control groups.
	SystemdCgroup bool
	Log           *slog.Logger // required
}

// Client runs containers through isle-shim, which it starts when it is not
// there. Its methods may be called concurrently, and none keeps the shim or a
// container waiting for the caller.
type Client struct {
	conf    Config
	version int // of the protocol

	launching sync.Mutex
	runtimes  runtimes
	told      exitsTold
}

// New connects to the shim of conf.RunDir and finds the runtimes that there
// are. The machine is asked only once: the answer is kept in the run directory.
func New(conf Config) (*Client, error) {
	c := &Client{conf: conf, version: wire.Version}
	if err := os.MkdirAll(conf.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	if err := c.negotiate(context.Background()); err != nil {
		return nil, err
	}
	return c, c.findRuntimes()
}

// negotiate chooses the newest version of the protocol that both speak.
func (c *Client) negotiate(ctx context.Context) error {
	hello, err := ask[wire.Hello](ctx, c, wire.OpHello, nil)
	if err != nil {
		return fmt.Errorf("greet isle-shim: %w", err)
	}
	if hello.Max < wire.MinVersion || hello.Min > wire.Version {
		return fmt.Errorf("isle-shim %s (process %d) speaks versions %d to %d of the protocol, this isled %d to %d "+
			"(hint: run the isled that belongs to it, or stop its containers: it then leaves, and ours is started): %w",
			hello.Release, hello.Pid, hello.Min, hello.Max, wire.MinVersion, wire.Version, errdefs.ErrFailedPrecondition)
	}
	c.version = min(hello.Max, wire.Version)
	return nil
}

// repeatable are the requests that may be sent again when the shim was killed
// before it answered.
var repeatable = map[string]bool{wire.OpHello: true, wire.OpDelete: true, wire.OpList: true, wire.OpAck: true, wire.OpPids: true}

// ask sends a request on a connection of its own and returns the answer.
func ask[Resp any](ctx context.Context, c *Client, op string, body any) (resp Resp, err error) {
	for range 3 {
		resp, err = askOnce[Resp](ctx, c, op, body)
		if !repeatable[op] || !errdefs.IsUnavailable(err) || ctx.Err() != nil {
			break
		}
	}
	return resp, err
}

func askOnce[Resp any](ctx context.Context, c *Client, op string, body any) (resp Resp, err error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return resp, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := c.exchange(conn, op, body)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return resp, err
	}
	if len(raw) > 0 {
		err = json.Unmarshal(raw, &resp)
	}
	return resp, err
}

// tell is ask for requests without an answer.
func (c *Client) tell(ctx context.Context, op string, body any) error {
	_, err := ask[struct{}](ctx, c, op, body)
	return err
}

// exchange sends a request and reads its answer.
func (c *Client) exchange(conn net.Conn, op string, body any) (json.RawMessage, error) {
	req := wire.Request{Version: c.version, Op: op}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		req.Body = b
	}
	if err := wire.WriteFrame(conn, req); err != nil {
		return nil, lost(err)
	}
	var resp wire.Response
	if err := wire.ReadFrame(conn, &resp); err != nil {
		return nil, lost(err)
	}
	if resp.Error != nil {
		return nil, classified(resp.Error)
	}
	return resp.Body, nil
}

// lost is an error of the connection itself.
func lost(err error) error {
	if _, ok := errors.AsType[*wire.Error](err); ok {
		return classified(err.(*wire.Error))
	}
	return fmt.Errorf("isle-shim does not answer: %w (%w)", err, errdefs.ErrUnavailable)
}

// shimError has the shim's text, which clients may know, and a class.
type shimError struct {
	text  string
	class error
}

func (e *shimError) Error() string { return e.text }
func (e *shimError) Unwrap() error { return e.class }

func classified(e *wire.Error) error {
	class := map[string]error{
		wire.Invalid:      errdefs.ErrInvalidArgument,
		wire.NotFound:     errdefs.ErrNotFound,
		wire.Conflict:     errdefs.ErrConflict,
		wire.Precondition: errdefs.ErrFailedPrecondition,
		wire.Unsupported:  errdefs.ErrNotImplemented,
	}[e.Class]
	if class == nil {
		class = errdefs.ErrUnknown
	}
	return &shimError{e.Text, class}
}

// Create sets up the container and leaves its process waiting for Start.
func (c *Client) Create(ctx context.Context, req Create) (int, error) {
	body := wire.Create{ID: req.ID, Bundle: req.Bundle, Runtime: wire.Runtime(req.Runtime), Stdio: wire.Stdio(req.Stdio),
		Log: wire.Log(req.Log), KeepShared: req.KeepShared, CgroupPath: req.CgroupPath}
	for _, m := range req.Rootfs {
		body.Rootfs = append(body.Rootfs, wire.Mount(m))
	}
	got, err := ask[wire.Started](ctx, c, wire.OpCreate, body)
	if err == nil {
		c.keepFilter(req.Filter, req.Runtime, req.ID)
	}
	return got.Pid, err
}

// Start lets a created container's process go.
func (c *Client) Start(ctx context.Context, id string) error {
	return c.tell(ctx, wire.OpStart, wire.Proc{ID: id})
}

// Exec starts a process in a running container. Who wants its output from the
// first byte attaches before, with Attach.Wait.
func (c *Client) Exec(ctx context.Context, p Proc, process *specs.Process, io Stdio) (int, error) {
	if io.Terminal && process.ConsoleSize == nil && io.Height > 0 {
		sized := *process // set by the runtime it is there before the program looks
		sized.ConsoleSize = &specs.Box{Height: uint(io.Height), Width: uint(io.Width)}
		process = &sized
	}
	b, err := json.Marshal(process)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", p.ID, err)
	}
	got, err := ask[wire.Started](ctx, c, wire.OpExec, wire.Exec{Proc: wire.Proc(p), Process: b, Stdio: wire.Stdio(io)})
	return got.Pid, err
}

// Kill signals the process; all: every process of the container.
func (c *Client) Kill(ctx context.Context, p Proc, signal int, all bool) error {
	return c.tell(ctx, wire.OpKill, wire.Kill{Proc: wire.Proc(p), Signal: signal, All: all})
}

// Pause freezes the container.
func (c *Client) Pause(ctx context.Context, id string) error {
	return c.tell(ctx, wire.OpPause, wire.Proc{ID: id})
}

// Resume thaws the container.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.tell(ctx, wire.OpResume, wire.Proc{ID: id})
}

// Update changes the container's limits.
func (c *Client) Update(ctx context.Context, id string, res *specs.LinuxResources) error {
	b, err := json.Marshal(res)
	if err != nil {
		return fmt.Errorf("update %s: %w", id, err)
	}
	return c.tell(ctx, wire.OpUpdate, wire.Update{ID: id, Resources: b})
}

// Delete kills what is left of the container and forgets it. Idempotent.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.tell(ctx, wire.OpDelete, wire.Proc{ID: id})
}

// Resize sets the size of the process's terminal. It does not wait for one.
func (c *Client) Resize(ctx context.Context, p Proc, height, width uint16) error {
	return c.tell(ctx, wire.OpResize, wire.Resize{Proc: wire.Proc(p), Height: height, Width: width})
}

// Pids are all processes of a container, as the host numbers them.
func (c *Client) Pids(ctx context.Context, id string) ([]int, error) {
	return ask[[]int](ctx, c, wire.OpPids, wire.Proc{ID: id})
}

// List is all the shim has.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	got, err := ask[[]wire.Status](ctx, c, wire.OpList, nil)
	list := make([]Status, 0, len(got))
	for _, s := range got {
		st := Status{Proc: Proc(s.Proc), Pid: s.Pid, Started: s.Started}
		if s.Exit != nil {
			e := exitOf(*s.Exit)
			st.Exit = &e
		}
		list = append(list, st)
	}
	return list, err
}

// Ack lets the shim forget an exit.
func (c *Client) Ack(ctx context.Context, p Proc) error {
	err := c.tell(ctx, wire.OpAck, wire.Proc(p))
	c.told.forget(p)
	return err
}

func exitOf(e wire.Exit) Exit {
	return Exit{Proc: Proc(e.Proc), Code: e.Code, At: e.At.UTC(), OOMKilled: e.OOM, Pid: e.Pid}
}

func (c *Client) path(name string) string { return filepath.Join(c.conf.RunDir, name) }
