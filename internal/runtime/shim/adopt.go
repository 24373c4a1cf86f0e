package shim

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/shim/wire"
)

// adopt takes over what a shim that was killed has left: its state files name
// the processes. Those that live are watched by pidfd and their pipes found
// again; those that do not have ended with a code that nobody has seen.
func (s *Server) adopt() {
	dirs, err := os.ReadDir(filepath.Join(s.dir, "containers"))
	if err != nil {
		s.log.Error("the state of earlier containers cannot be read", "error", err)
	}
	for _, d := range dirs {
		state, err := readSaved(s.stateFile(wire.Proc{ID: d.Name()}))
		if err != nil || state.Create == nil {
			s.log.Warn("a container's state cannot be read: it is dropped", "container", d.Name(), "error", err)
			os.RemoveAll(s.containerDir(d.Name()))
			continue
		}
		s.adoptContainer(state)
	}
}

func (s *Server) adoptContainer(state saved) {
	c := &container{spec: *state.Create, execs: map[string]*process{}, init: newProcess(state, s.session(state.Proc)),
		oci: oci{reaper: s.reaper, rt: state.Create.Runtime, dir: s.containerDir(state.Proc.ID)}}
	s.containers[state.Proc.ID] = c
	s.adoptProcess(c, c.init)
	files, _ := filepath.Glob(filepath.Join(c.oci.dir, "exec-*.json"))
	for _, name := range files {
		state, err := readSaved(name)
		if err != nil {
			s.log.Warn("an exec session's state cannot be read: it is dropped", "file", name, "error", err)
			continue
		}
		p := newProcess(state, s.session(state.Proc))
		c.execs[state.Proc.Exec] = p
		s.adoptProcess(c, p)
	}
}

func (s *Server) adoptProcess(c *container, p *process) {
	state := p.snapshot()
	if state.Pid == 0 { // never completed: isled was not told, and will delete it
		p.session.end()
		return
	}
	if state.Ended || s.exits.of(p.id) != nil {
		p.session.end()
		p.gone()
		close(p.done)
		return
	}
	if !s.recapture(p, state) {
		s.log.Warn("a process ended while there was no shim", "container", p.id.ID, "exec", p.id.Exec)
		p.session.end()
		p.gone()
		s.publish(p, wire.Exit{Proc: p.id, Code: codeUnknown, At: time.Now(), OOM: oomKills(c.spec.CgroupPath) > 0, Pid: state.Pid})
		return
	}
	s.log.Info("adopted a process", "container", p.id.ID, "exec", p.id.Exec, "pid", state.Pid)
	s.reconnect(c, p, state)
	pidfd := p.pidfd
	s.watch(c, p, func() int { return waitPidfd(pidfd) })
}

// recapture opens the process, if it still is the one that the state names.
func (s *Server) recapture(p *process, state saved) bool {
	f, err := openPidfd(state.Pid)
	if err != nil {
		return false
	}
	if state.Start == 0 || startTime(state.Pid) != state.Start {
		f.Close()
		return false
	}
	p.pidfd = f
	return true
}

// reconnect finds the pipes. A terminal's master is lost with its holder: the
// process has had SIGHUP.
func (s *Server) reconnect(c *container, p *process, state saved) {
	st := &stdio{tty: state.Stdio.Terminal, theirs: [3]int{-1, -1, -1}, pipes: state.Pipes}
	for i, flags := range [3]int{unix.O_WRONLY, unix.O_RDONLY, unix.O_RDONLY} {
		if state.Pipes[i] != 0 {
			st.ours[i] = reopenPipe(state.Pid, state.Pipes[i], flags)
		}
	}
	var l wire.Log
	if p.id.Exec == "" {
		l = c.spec.Log
	}
	logger, err := openLog(l)
	if err != nil {
		s.log.Error("a container's log cannot be continued", "container", p.id.ID, "error", err)
	}
	p.session.begin(state.Stdio, st, logger)
	if state.Started {
		p.session.run()
	}
}
