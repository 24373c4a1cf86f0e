package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/shim/wire"
)

// Server is the body of isle-shim. Make it with New.
type Server struct {
	log     *slog.Logger
	runDir  string
	dir     string // runDir/shim
	release string
	reaper  *reaper
	exits   *exits

	watchers sync.WaitGroup
	conns    atomic.Int64

	mu         sync.Mutex
	containers map[string]*container
	sessions   map[wire.Proc]*session
}

// New prepares a server and takes over what an earlier one has left in runDir.
// It must be the only one there.
func New(runDir, release string, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, runDir: runDir, dir: filepath.Join(runDir, "shim"), release: release, reaper: newReaper(),
		containers: map[string]*container{}, sessions: map[wire.Proc]*session{}}
	if err := os.MkdirAll(filepath.Join(s.dir, "containers"), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	var err error
	if s.exits, err = openExits(filepath.Join(s.dir, "exits")); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the parent of orphans: %w", err)
	}
	s.adopt()
	return s, nil
}

func (s *Server) container(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[id]
}

func (s *Server) all() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.containers))
}

func (s *Server) session(p wire.Proc) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessionLocked(p)
}

// sessionLocked returns a process's session, which a client may have made
// before the process.
func (s *Server) sessionLocked(p wire.Proc) *session {
	if s.sessions[p] == nil {
		s.sessions[p] = newSession(s.log)
	}
	return s.sessions[p]
}

// idle reports whether nobody needs this shim.
func (s *Server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns.Load() == 0 && len(s.containers) == 0 && len(s.exits.all()) == 0
}

// Serve answers on l until ctx is done, or nobody has needed the shim for
// patience. It does not end containers.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener, patience time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	go s.reaper.run(ctx.Done())
	go s.leave(ctx, cancel, patience)
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			s.log.Error("too many open files", "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		s.conns.Add(1)
		go func() {
			defer s.conns.Add(-1)
			defer conn.Close()
			s.converse(ctx, conn)
		}()
	}
}

// leave cancels when the shim has been idle for patience.
func (s *Server) leave(ctx context.Context, cancel func(), patience time.Duration) {
	tick := time.NewTicker(patience / 10)
	defer tick.Stop()
	for since := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.idle() {
			since = time.Now()
		} else if time.Since(since) > patience {
			s.log.Info("nobody needs this shim: it leaves")
			cancel()
			return
		}
	}
}

// requestLimit is how long a client may take to say what it wants.
const requestLimit = 10 * time.Second

// converse serves one connection.
func (s *Server) converse(ctx context.Context, conn *net.UnixConn) {
	if err := checkPeer(conn); err != nil {
		s.log.Warn("refused a connection", "error", err)
		return
	}
	for {
		conn.SetReadDeadline(time.Now().Add(requestLimit))
		var req wire.Request
		if err := wire.ReadFrame(conn, &req); err != nil {
			if !errors.Is(err, io.EOF) {
				s.answer(conn, nil, err)
			}
			return
		}
		conn.SetReadDeadline(time.Time{})
		if done := s.handle(ctx, conn, req); done {
			return
		}
	}
}

// checkPeer lets in who we are, and root.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d of user %d may not command containers", cred.Pid, cred.Uid)
	}
	return nil
}

// handle does one request. It reports whether the connection has had its use.
func (s *Server) handle(ctx context.Context, conn *net.UnixConn, req wire.Request) (done bool) {
	if req.Op != wire.OpHello && (req.Version < wire.MinVersion || req.Version > wire.Version) {
		s.answer(conn, nil, wire.Errorf(wire.Unsupported, "this isle-shim speaks versions %d to %d of the protocol, not %d",
			wire.MinVersion, wire.Version, req.Version))
		return true
	}
	switch req.Op {
	case wire.OpExits:
		s.streamExits(ctx, conn)
		return true
	case wire.OpAttach:
		s.attach(conn, req.Body)
		return true
	}
	body, err := s.do(req)
	return s.answer(conn, body, err) != nil
}

func (s *Server) answer(conn net.Conn, body any, err error) error {
	resp := wire.Response{Error: wire.AsError(err)}
	if body != nil && err == nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		resp.Body = b
	}
	conn.SetWriteDeadline(time.Now().Add(requestLimit))
	defer conn.SetWriteDeadline(time.Time{})
	return wire.WriteFrame(conn, resp)
}

// do is the table of the plain requests.
func (s *Server) do(req wire.Request) (any, error) {
	switch req.Op {
	case wire.OpHello:
		return wire.Hello{Min: wire.MinVersion, Max: wire.Version, Pid: os.Getpid(), Release: s.release}, nil
	case wire.OpCreate:
		return with(req.Body, s.create)
	case wire.OpStart:
		return with(req.Body, func(p wire.Proc) (any, error) { return nil, s.start(p.ID) })
	case wire.OpExec:
		return with(req.Body, s.exec)
	case wire.OpKill:
		return with(req.Body, func(k wire.Kill) (any, error) { return nil, s.kill(k) })
	case wire.OpPause, wire.OpResume:
		return with(req.Body, func(p wire.Proc) (any, error) { return nil, s.pause(p.ID, req.Op == wire.OpPause) })
	case wire.OpUpdate:
		return with(req.Body, func(u wire.Update) (any, error) { return nil, s.update(u) })
	case wire.OpDelete:
		return with(req.Body, func(p wire.Proc) (any, error) { return nil, s.delete(p.ID) })
	case wire.OpResize:
		return with(req.Body, func(r wire.Resize) (any, error) { return nil, s.resize(r) })
	case wire.OpPids:
		return with(req.Body, func(p wire.Proc) ([]int, error) { return s.pids(p.ID) })
	case wire.OpList:
		return s.list(), nil
	case wire.OpAck:
		return with(req.Body, func(p wire.Proc) (any, error) { s.ack(p); return nil, nil })
	}
	return nil, wire.Errorf(wire.Unsupported, "this isle-shim does not know the request %q", req.Op)
}

// with decodes a request's body and calls its verb.
func with[Req, Resp any](body json.RawMessage, verb func(Req) (Resp, error)) (any, error) {
	var req Req
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, wire.Errorf(wire.Invalid, "request: %v", err)
	}
	return verb(req)
}

// streamExits sends every exit that is not acknowledged, and those to come.
func (s *Server) streamExits(ctx context.Context, conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // the client says nothing; its end is how it leaves
		io.Copy(io.Discard, conn)
		cancel()
	}()
	if s.answer(conn, nil, nil) != nil {
		return
	}
	for n := uint64(0); ; {
		list, last, changed := s.exits.after(n)
		for _, e := range list {
			if s.answer(conn, e, nil) != nil {
				return
			}
		}
		n = last
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// attach makes the connection a client of a process's stdio.
func (s *Server) attach(conn *net.UnixConn, body json.RawMessage) {
	var req wire.Attach
	if err := json.Unmarshal(body, &req); err != nil {
		s.answer(conn, nil, wire.Errorf(wire.Invalid, "request: %v", err))
		return
	}
	if err := checkProc(req.Proc); err != nil {
		s.answer(conn, nil, err)
		return
	}
	c := newClient(conn, req)
	ses, err := s.join(req, c)
	if err != nil {
		s.answer(conn, nil, err)
		return
	}
	defer s.part(req.Proc, ses, c)
	if s.answer(conn, nil, nil) != nil {
		return
	}
	go c.write()
	c.read(ses)
}

// join adds a client to a session. A client that awaits the process may be the
// first to know of it.
func (s *Server) join(a wire.Attach, c *client) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.Await && !s.reservedLocked(a.Proc) {
		return nil, wire.Errorf(wire.NotFound, "process %s is not in the shim", strings.TrimSpace(a.Proc.ID+" "+a.Proc.Exec))
	}
	ses := s.sessionLocked(a.Proc)
	ses.add(c)
	return ses, nil
}

func (s *Server) part(p wire.Proc, ses *session, c *client) {
	c.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses.remove(c) && s.sessions[p] == ses && !s.reservedLocked(p) {
		delete(s.sessions, p)
	}
}

// reservedLocked reports whether a process, or one about to be, has the session.
func (s *Server) reservedLocked(p wire.Proc) bool {
	c := s.containers[p.ID]
	return c != nil && (p.Exec == "" || c.exec(p.Exec) != nil)
}
