package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/jsonlog"
	"isle/internal/runtime/shim/wire"
)

// find returns a container and, when the Proc names one, an exec session.
func (s *Server) find(p wire.Proc) (*container, *process, error) {
	s.mu.Lock()
	c := s.containers[p.ID]
	s.mu.Unlock()
	if c == nil {
		return nil, nil, wire.Errorf(wire.NotFound, "container %s is not in the shim", p.ID)
	}
	if p.Exec == "" {
		return c, c.init, nil
	}
	if e := c.exec(p.Exec); e != nil {
		return c, e, nil
	}
	return nil, nil, wire.Errorf(wire.NotFound, "container %s has no exec session %s", p.ID, p.Exec)
}

// start lets a created container's process go.
func (s *Server) start(id string) error {
	c, p, err := s.find(wire.Proc{ID: id})
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if p.snapshot().Started {
		return wire.Errorf(wire.Conflict, "container %s has been started", id)
	}
	if err := c.release(); err != nil {
		return err
	}
	p.session.run()
	p.mu.Lock()
	p.state.Started = true
	p.mu.Unlock()
	return s.save(p)
}

// release starts the process, by the runtime's own way where that is known:
// crun's init waits for a byte in a fifo, which its start unlinks first.
func (c *container) release() error {
	fifo := filepath.Join(c.spec.Runtime.Root, c.spec.ID, "exec.fifo")
	if !c.spec.Runtime.StartFIFO {
		return c.oci.quiet("start", c.spec.ID)
	}
	fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return c.oci.quiet("start", c.spec.ID)
	}
	defer unix.Close(fd)
	if err := unix.Unlink(fifo); err != nil {
		return fmt.Errorf("start container %s: %w", c.spec.ID, err)
	}
	if _, err := unix.Write(fd, []byte{0}); err != nil {
		return fmt.Errorf("start container %s: %w", c.spec.ID, err)
	}
	return nil
}

// exec starts one more process in a container.
func (s *Server) exec(req wire.Exec) (wire.Started, error) {
	c, p, err := s.reserveExec(req)
	if err != nil {
		return wire.Started{}, err
	}
	file := filepath.Join(c.oci.dir, "process-"+p.id.Exec+".json")
	defer os.Remove(file)
	if err := os.WriteFile(file, req.Process, 0o600); err != nil {
		s.dropExec(c, p)
		return wire.Started{}, fmt.Errorf("write process: %w", err)
	}
	o := c.oci
	run := func(files [3]int, more []string) error {
		args := append([]string{"exec", "--detach", "--process", file}, more...)
		return o.run(files, append(args, p.id.ID)...)
	}
	var none *jsonlog.Writer
	pid, err := s.launch(c, p, none, run)
	if err != nil {
		s.dropExec(c, p)
		return wire.Started{}, err
	}
	return wire.Started{Pid: pid}, nil
}

func (s *Server) reserveExec(req wire.Exec) (*container, *process, error) {
	if err := checkProc(req.Proc); err != nil {
		return nil, nil, err
	}
	c, _, err := s.find(wire.Proc{ID: req.Proc.ID})
	if err != nil {
		return nil, nil, err
	}
	if req.Proc.Exec == "" || !json.Valid(req.Process) {
		return nil, nil, wire.Errorf(wire.Invalid, "exec in %s: no id or no process", req.Proc.ID)
	}
	if !c.init.running() {
		return nil, nil, wire.Errorf(wire.Precondition, "container %s is not running", req.Proc.ID)
	}
	p := newProcess(saved{Proc: req.Proc, Stdio: req.Stdio}, s.session(req.Proc))
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.execs[req.Proc.Exec]; ok {
		return nil, nil, wire.Errorf(wire.Conflict, "container %s has an exec session %s", req.Proc.ID, req.Proc.Exec)
	}
	c.execs[req.Proc.Exec] = p
	return c, p, nil
}

// dropExec forgets an exec session that is over or never came to be.
func (s *Server) dropExec(c *container, p *process) {
	c.mu.Lock()
	if c.execs[p.id.Exec] == p {
		delete(c.execs, p.id.Exec)
	}
	c.mu.Unlock()
	s.mu.Lock()
	if s.sessions[p.id] == p.session {
		delete(s.sessions, p.id)
	}
	s.mu.Unlock()
	p.session.end()
	os.Remove(s.stateFile(p.id))
}

func (s *Server) kill(req wire.Kill) error {
	c, p, err := s.find(req.Proc)
	if err != nil {
		return err
	}
	sig := unix.Signal(req.Signal)
	if !req.All {
		return p.signal(sig)
	}
	if c.spec.CgroupPath == "" {
		return c.oci.quiet("kill", "--all", c.spec.ID, fmt.Sprint(req.Signal))
	}
	return signalAll(c.spec.CgroupPath, sig)
}

func (s *Server) pause(id string, paused bool) error {
	c, p, err := s.find(wire.Proc{ID: id})
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if !p.running() {
		return wire.Errorf(wire.Precondition, "container %s is not running", id)
	}
	verb := map[bool]string{true: "pause", false: "resume"}[paused]
	if err := c.oci.quiet(verb, id); err != nil {
		return fmt.Errorf("%s container %s: %w", verb, id, err)
	}
	c.paused = paused
	return nil
}

func (s *Server) update(req wire.Update) error {
	c, _, err := s.find(wire.Proc{ID: req.ID})
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	file := filepath.Join(c.oci.dir, "resources.json")
	defer os.Remove(file)
	if err := os.WriteFile(file, req.Resources, 0o600); err != nil {
		return fmt.Errorf("write resources: %w", err)
	}
	if err := c.oci.quiet("update", "--resources", file, req.ID); err != nil {
		return fmt.Errorf("update container %s: %w", req.ID, err)
	}
	return nil
}

// killLimit is how long a killed process may take to end: the kernel may have
// to write out or give back a lot.
const killLimit = 30 * time.Second

// delete kills what is left and forgets the container. Its exit stays until
// it is acknowledged.
func (s *Server) delete(id string) error {
	c, p, err := s.find(wire.Proc{ID: id})
	if err != nil {
		return nil //nolint:nilerr // it is deleted already
	}
	c.op.Lock()
	defer c.op.Unlock()
	if s.container(id) != c {
		return nil
	}
	if err := s.end(c, p); err != nil {
		return err
	}
	if err := c.oci.quiet("delete", "--force", id); err != nil && exists(filepath.Join(c.spec.Runtime.Root, id)) {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	s.forget(c)
	return nil
}

// end kills the container's processes and waits for the exits of those that
// have one.
func (s *Server) end(c *container, p *process) error {
	if c.paused && p.running() {
		p.signal(unix.SIGKILL) // a frozen process takes it when thawed
		c.oci.quiet("resume", c.spec.ID)
		c.paused = false
	}
	if p.running() {
		p.signal(unix.SIGKILL)
	}
	if c.spec.CgroupPath != "" && exists(c.spec.CgroupPath) {
		signalAll(c.spec.CgroupPath, unix.SIGKILL)
	}
	late := time.NewTimer(killLimit)
	defer late.Stop()
	for _, p := range c.processes() {
		if p.snapshot().Pid == 0 {
			continue
		}
		select {
		case <-p.done:
		case <-late.C:
			return wire.Errorf(wire.Unknown, "container %s: process %d does not end after SIGKILL", c.spec.ID, p.snapshot().Pid)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *Server) resize(req wire.Resize) error {
	_, p, err := s.find(req.Proc)
	if err != nil {
		return err
	}
	return p.session.resize(req.Height, req.Width)
}

func (s *Server) pids(id string) ([]int, error) {
	c, p, err := s.find(wire.Proc{ID: id})
	if err != nil {
		return nil, err
	}
	if c.spec.CgroupPath != "" {
		return cgroupPids(c.spec.CgroupPath)
	}
	if p.running() {
		return []int{p.snapshot().Pid}, nil
	}
	return nil, nil
}

// list is every process that runs or whose exit has not been acknowledged.
func (s *Server) list() []wire.Status {
	list := []wire.Status{}
	seen := map[wire.Proc]bool{}
	for _, c := range s.all() {
		for _, p := range c.processes() {
			st := p.snapshot()
			list = append(list, wire.Status{Proc: p.id, Pid: st.Pid, Started: st.Started, Exit: s.exits.of(p.id)})
			seen[p.id] = true
		}
	}
	for _, e := range s.exits.all() {
		if !seen[e.Proc] {
			seen[e.Proc] = true
			list = append(list, wire.Status{Proc: e.Proc, Started: true, Exit: s.exits.of(e.Proc)})
		}
	}
	return list
}

// ack forgets an exit, and with it the exec session that it ended.
func (s *Server) ack(p wire.Proc) {
	s.exits.ack(p)
	if p.Exec == "" {
		return
	}
	c, e, err := s.find(p)
	if err != nil {
		return
	}
	select {
	case <-e.done:
		s.dropExec(c, e)
	default:
	}
}
