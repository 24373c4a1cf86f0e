package shim

import (
	"time"

	"isle/internal/runtime/shim/wire"
)

// watch reports a process's end, which wait returns: after its output was
// written to the log and to the clients, and before anything is cleaned up.
func (s *Server) watch(c *container, p *process, wait func() int) {
	var scope *oomWatch
	if p.id.Exec == "" && c.spec.Runtime.SystemdCgroup {
		scope = watchOOM(c.spec.CgroupPath)
	}
	s.watchers.Go(func() {
		code := wait()
		at := time.Now()
		p.gone()
		oom := p.id.Exec == "" && c.spec.CgroupPath != "" && oomKills(c.spec.CgroupPath) > 0
		oom = scope.stop(code) || oom
		p.session.drain(grace)
		s.publish(p, wire.Exit{Proc: p.id, Code: code, At: at, OOM: oom, Pid: p.snapshot().Pid})
	})
}

func (s *Server) publish(p *process, e wire.Exit) {
	if err := s.exits.add(e); err != nil {
		s.log.Warn("an exit is only in memory", "container", p.id.ID, "exec", p.id.Exec, "error", err)
	}
	p.mu.Lock()
	p.state.Ended = true
	p.mu.Unlock()
	if err := s.save(p); err != nil {
		s.log.Warn("an exit may be told twice", "container", p.id.ID, "exec", p.id.Exec, "error", err)
	}
	close(p.done)
}
