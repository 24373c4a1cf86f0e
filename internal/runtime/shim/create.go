package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/jsonlog"
	"isle/internal/runtime/shim/wire"
)

// create makes a container whose process waits for start.
func (s *Server) create(req wire.Create) (wire.Started, error) {
	c, err := s.reserve(req)
	if err != nil {
		return wire.Started{}, err
	}
	defer c.op.Unlock()
	pid, err := s.make(c)
	if err != nil {
		s.abandon(c)
		return wire.Started{}, err
	}
	return wire.Started{Pid: pid}, nil
}

// reserve enters the container, locked, so that nobody makes another or takes
// it half made for whole.
func (s *Server) reserve(req wire.Create) (*container, error) {
	if err := checkName("container", req.ID); err != nil {
		return nil, err
	}
	p := wire.Proc{ID: req.ID}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[req.ID]; ok {
		return nil, wire.Errorf(wire.Conflict, "container %s is in the shim already", req.ID)
	}
	state := saved{Proc: p, Create: &req, Stdio: req.Stdio}
	c := &container{spec: req, execs: map[string]*process{}, init: newProcess(state, s.sessionLocked(p)),
		oci: oci{reaper: s.reaper, rt: req.Runtime, dir: s.containerDir(req.ID)}}
	c.op.Lock()
	s.containers[req.ID] = c
	return c, nil
}

// make does the work of create.
func (s *Server) make(c *container) (int, error) {
	if err := os.MkdirAll(c.oci.dir, 0o700); err != nil {
		return 0, fmt.Errorf("make state directory: %w", err)
	}
	if err := writeJSON(s.stateFile(c.init.id), c.init.snapshot()); err != nil {
		return 0, err
	}
	logger, err := openLog(c.spec.Log)
	if err != nil {
		return 0, err
	}
	args := []string{"create", "--bundle", c.spec.Bundle}
	keep := ""
	if c.spec.KeepShared {
		keep = c.spec.Bundle
	}
	run := func(files [3]int, more []string) error {
		return inMountNamespace(keep, func() error {
			rootfs := filepath.Join(c.spec.Bundle, "rootfs")
			if err := mountRootfs(c.spec.Rootfs, rootfs); err != nil {
				return err
			}
			if err := checkTargets(rootfs); err != nil {
				return err
			}
			return c.oci.run(files, append(append(args, more...), c.spec.ID)...)
		})
	}
	return s.launch(c, c.init, logger, run)
}

// openLog returns nil for no log.
func openLog(l wire.Log) (*jsonlog.Writer, error) {
	if l.Path == "" {
		return nil, nil
	}
	return jsonlog.Open(jsonlog.Config(l))
}

// launch has a runtime start a process (run) and takes it over: its stdio,
// its pid, its end.
func (s *Server) launch(c *container, p *process, logger *jsonlog.Writer, run func(files [3]int, args []string) error) (int, error) {
	defer s.reaper.begin()()
	state := p.snapshot()
	st, err := newStdio(state.Stdio, s.runDir)
	if err != nil {
		closeLog(logger)
		return 0, err
	}
	defer st.given()
	pidFile := filepath.Join(c.oci.dir, strings.TrimSuffix("pid-"+p.id.Exec, "-"))
	defer os.Remove(pidFile)
	args := []string{"--pid-file", pidFile}
	if st.con != nil {
		defer st.con.close()
		args = append(args, "--console-socket", st.con.path)
	}
	if err := run(st.theirs, args); err != nil {
		st.close()
		closeLog(logger)
		return 0, err
	}
	pid, err := readPid(pidFile)
	if err == nil {
		err = st.terminal()
	}
	if err != nil {
		st.close()
		closeLog(logger)
		return 0, err
	}
	return pid, s.adoptChild(c, p, pid, st, logger)
}

func closeLog(l *jsonlog.Writer) {
	if l != nil {
		l.Close()
	}
}

// adoptChild makes the runtime's child ours. From here on it has an exit.
func (s *Server) adoptChild(c *container, p *process, pid int, st *stdio, logger *jsonlog.Writer) error {
	ended := s.reaper.claim(pid)
	openErr := p.alive(pid) // fails when it has ended: its code is waiting
	p.mu.Lock()
	p.state.Pipes = st.pipes
	p.state.Started = p.id.Exec != ""
	state := p.state
	p.mu.Unlock()
	p.session.begin(state.Stdio, st, logger)
	if state.Started {
		p.session.run()
	}
	s.watch(c, p, func() int { return <-ended })
	if openErr != nil && !errors.Is(openErr, unix.ESRCH) && !errors.Is(openErr, unix.EINVAL) {
		s.log.Warn("a process cannot be signalled", "container", p.id.ID, "error", openErr)
	}
	if err := s.save(p); err != nil {
		s.log.Warn("the next shim will not find a process", "container", p.id.ID, "error", err)
	}
	return nil
}

func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("the runtime left no pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("the runtime left the pid %q", b)
	}
	return pid, nil
}

// abandon undoes a failed create.
func (s *Server) abandon(c *container) {
	if _, err := os.Stat(filepath.Join(c.spec.Runtime.Root, c.spec.ID)); err == nil {
		if err := c.oci.quiet("delete", "--force", c.spec.ID); err != nil {
			s.log.Warn("remains of a container that could not be created", "container", c.spec.ID, "error", err)
		}
	}
	s.forget(c)
}

// forget drops a container that has no processes.
func (s *Server) forget(c *container) {
	s.mu.Lock()
	delete(s.containers, c.spec.ID)
	for _, p := range c.processes() {
		if s.sessions[p.id] == p.session {
			delete(s.sessions, p.id)
		}
		defer p.session.end()
	}
	s.mu.Unlock()
	if err := os.RemoveAll(c.oci.dir); err != nil {
		s.log.Warn("remains of a container", "error", err)
	}
}
