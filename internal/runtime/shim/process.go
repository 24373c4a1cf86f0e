package shim

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/shim/wire"
)

// grace is how long an exit waits for the last output when others still hold
// the pipes or a client does not read.
const grace = 2 * time.Second

// process is a container's first process or an exec session.
type process struct {
	id      wire.Proc
	session *session
	done    chan struct{} // closed when the exit is published

	file sync.Mutex // held while state is written; before mu

	mu    sync.Mutex
	state saved
	pidfd *os.File // nil: not yet made, or ended
	ended bool     // it is gone; done may have to wait for its output
}

func newProcess(state saved, s *session) *process {
	return &process{id: state.Proc, state: state, session: s, done: make(chan struct{})}
}

func (p *process) snapshot() saved {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pidfd != nil && !p.ended
}

// alive notes the process's pid and opens it.
func (p *process) alive(pid int) error {
	f, err := openPidfd(pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Pid, p.state.Start, p.pidfd = pid, startTime(pid), f
	return err
}

// gone notes that the process has ended.
func (p *process) gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd == nil || p.ended {
		return wire.Errorf(wire.Precondition, "process %s is not running", p.id.ID)
	}
	err := signalPidfd(p.pidfd, sig)
	if err == unix.ESRCH {
		return wire.Errorf(wire.Precondition, "process %s is not running", p.id.ID)
	}
	if err == unix.EINVAL {
		return wire.Errorf(wire.Invalid, "signal %d: not a signal", sig)
	}
	return err
}

// container is a container with its processes.
type container struct {
	spec wire.Create
	oci  oci
	init *process

	op     sync.Mutex // one verb at a time
	paused bool       // under op

	mu    sync.Mutex
	execs map[string]*process
}

func (c *container) exec(id string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.execs[id]
}

func (c *container) processes() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []*process{c.init}
	for _, p := range c.execs {
		list = append(list, p)
	}
	return list
}
