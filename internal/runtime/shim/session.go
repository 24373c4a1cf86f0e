package shim

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"isle/internal/runtime/jsonlog"
	"isle/internal/runtime/shim/wire"
)

// session is one process's stdio: it moves output to the log and to the
// attached clients, and their input to the process. It may be there before
// its process, for clients that attach first, and outlives it while somebody
// holds the pipes.
type session struct {
	log *slog.Logger

	live chan struct{} // closed by begin: there is a process, or never will be
	idle chan struct{} // closed when all output has been read

	mu      sync.Mutex
	clients []*client // replaced, never changed in place
	io      wire.Stdio
	in      *os.File // the process's stdin or its terminal; nil: none or closed
	tty     *os.File
	begun   bool
	ended   bool
	running bool // the process has been let go
	early   bool // a client's input ended before there was a process
}

func newSession(log *slog.Logger) *session {
	return &session{log: log, live: make(chan struct{}), idle: make(chan struct{})}
}

// begin connects the session to its process. logger may be nil.
func (s *session) begin(io wire.Stdio, st *stdio, logger *jsonlog.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.io, s.in, s.begun = io, st.ours[0], true
	outputs := map[wire.Kind]*os.File{}
	if st.tty {
		s.tty = st.ours[0]
		outputs[wire.Stdout] = st.ours[0]
	} else {
		outputs[wire.Stdout], outputs[wire.Stderr] = st.ours[1], st.ours[2]
	}
	if io.CloseStdin && s.early {
		s.closeInLocked()
	}
	close(s.live)
	s.startPumps(outputs, logger)
}

// startPumps reads every output on a goroutine; the last to end closes the log.
func (s *session) startPumps(outputs map[wire.Kind]*os.File, logger *jsonlog.Writer) {
	var pumps sync.WaitGroup
	for kind, f := range outputs {
		if f == nil {
			continue
		}
		p := &pump{session: s, file: f, kind: kind}
		if logger != nil {
			p.lines = &jsonlog.Splitter{W: logger, Stream: map[wire.Kind]string{wire.Stdout: "stdout", wire.Stderr: "stderr"}[kind]}
		}
		pumps.Go(p.run)
	}
	go func() {
		pumps.Wait()
		if logger != nil {
			logger.Close()
		}
		s.mu.Lock()
		s.closeInLocked()
		s.tty = nil
		s.mu.Unlock()
		close(s.idle)
	}()
}

// closeInLocked closes the process's stdin. A terminal's input is its output:
// it ends with the process.
func (s *session) closeInLocked() {
	if s.in != nil && s.in != s.tty {
		s.in.Close()
	}
	s.in = nil
}

// drain waits until all output was read and the clients have it, at most for
// grace. Whoever holds the pipes after that is still read.
func (s *session) drain(grace time.Duration) {
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-s.idle:
	case <-late.C:
	}
	for _, c := range s.end() {
		select {
		case <-c.gone:
		case <-late.C:
			return
		}
	}
}

// end tells the clients that there will be no more, also those to come.
func (s *session) end() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.begun = true
		close(s.live)
		close(s.idle)
	}
	s.ended = true
	for _, c := range s.clients {
		c.finish(wire.End, "")
	}
	return s.clients
}

// add attaches a client.
func (s *session) add(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(slices.Clone(s.clients), c)
	// Who came before the start is who the output is for ("run … | less"): it
	// may hold the process up. Who comes to watch may not.
	c.hold = !s.running
	if s.ended {
		c.finish(wire.End, "")
	}
}

// run notes that the process has been let go.
func (s *session) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = true
}

// remove forgets a client, and reports whether nobody needs the session.
func (s *session) remove(c *client) (unused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = slices.DeleteFunc(slices.Clone(s.clients), func(o *client) bool { return o == c })
	return !s.begun && len(s.clients) == 0
}

// stdinDone is called when a client that gave input has no more.
func (s *session) stdinDone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early = !s.begun
	if s.io.CloseStdin && s.tty == nil {
		s.closeInLocked()
	}
}

// input writes to the process, and waits while the process does not read.
func (s *session) input(p []byte, gone <-chan struct{}) {
	select {
	case <-s.live:
	case <-gone:
		return
	}
	s.mu.Lock()
	in := s.in
	s.mu.Unlock()
	if in != nil {
		in.Write(p) // an error: the process has closed it or ended
	}
}

// resize sets the terminal's size.
func (s *session) resize(height, width uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty == nil {
		return wire.Errorf(wire.Precondition, "cannot resize: the process has no terminal or is not running")
	}
	return setSize(s.tty, height, width)
}

func (s *session) attached() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients
}

// pump reads one output.
type pump struct {
	session *session
	file    *os.File
	kind    wire.Kind
	lines   *jsonlog.Splitter // nil: no log
	failed  bool              // the log's trouble was reported
}

// buffers are taken when there is something to read, not while waiting for
// it: an idle container holds none.
var buffers = sync.Pool{New: func() any { return new([wire.MaxData]byte) }}

func (p *pump) run() {
	defer p.file.Close()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		buf, n := p.read(raw)
		if n <= 0 {
			break
		}
		p.deliver(buf[:n])
		buffers.Put(buf)
	}
	if p.lines != nil {
		p.report(p.lines.Flush())
	}
}

// read returns n <= 0 at the end, which for a terminal is EIO.
func (p *pump) read(raw rawReader) (buf *[wire.MaxData]byte, n int) {
	err := raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[wire.MaxData]byte)
		var err error
		for {
			if n, err = unix.Read(int(fd), buf[:]); err != unix.EINTR {
				break
			}
		}
		if err == nil {
			return true
		}
		buffers.Put(buf)
		n = -1
		return err != unix.EAGAIN
	})
	if err != nil {
		n = -1
	}
	return buf, n
}

type rawReader interface {
	Read(func(fd uintptr) bool) error
}

// deliver gives output to the log first: nobody can hold that up.
func (p *pump) deliver(b []byte) {
	if p.lines != nil {
		p.report(p.lines.Write(b))
	}
	for _, c := range p.session.attached() {
		c.send(p.kind, b)
	}
}

func (p *pump) report(err error) {
	if err != nil && !p.failed {
		p.failed = true
		p.session.log.Error("output is lost to the log", "error", err)
	}
}
