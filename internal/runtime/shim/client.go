package shim

import (
	"net"
	"sync"
	"time"

	"isle/internal/runtime/shim/wire"
)

const (
	maxQueue   = 1 << 20          // output that waits for a client
	writeLimit = 10 * time.Second // for a client that is being sent its last
)

// client is one attach connection.
type client struct {
	conn  net.Conn
	stdin bool
	out   bool
	err   bool
	hold  bool // when slow it holds the process up instead of being dropped; set by session.add

	gone chan struct{} // closed when the connection is no more
	once sync.Once

	more chan struct{} // there is something in queue
	room chan struct{} // there is room in queue

	mu    sync.Mutex
	queue []byte
	last  bool // nothing follows what is queued
}

func newClient(conn net.Conn, a wire.Attach) *client {
	return &client{conn: conn, stdin: a.Stdin, out: a.Out, err: a.Err,
		gone: make(chan struct{}), more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func (c *client) close() {
	c.once.Do(func() {
		close(c.gone)
		c.conn.Close()
	})
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// send queues output. A client whose queue is full is dropped, or waited for
// if it may hold the process up.
func (c *client) send(kind wire.Kind, p []byte) {
	if (kind == wire.Stdout && !c.out) || (kind == wire.Stderr && !c.err) {
		return
	}
	for !c.enqueue(kind, p) {
		if !c.hold {
			c.finish(wire.Dropped, "the client did not read its output fast enough")
			return
		}
		select {
		case <-c.room:
		case <-c.gone:
			return
		}
	}
}

func (c *client) enqueue(kind wire.Kind, p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last {
		return true
	}
	if len(c.queue) > 0 && len(c.queue)+len(p) > maxQueue {
		return false
	}
	c.queue = wire.AppendData(c.queue, kind, p)
	poke(c.more)
	return true
}

// finish makes kind the last thing that the client hears.
func (c *client) finish(kind wire.Kind, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last {
		return
	}
	c.last = true
	c.queue = wire.AppendData(c.queue, kind, []byte(text))
	if !c.hold {
		c.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	}
	poke(c.more)
}

// write sends the queue until the client has its last frame or is gone.
func (c *client) write() {
	defer c.close()
	for {
		select {
		case <-c.more:
		case <-c.gone:
			return
		}
		c.mu.Lock()
		b, last := c.queue, c.last
		c.queue = nil
		c.mu.Unlock()
		if _, err := c.conn.Write(b); err != nil || last {
			return
		}
		poke(c.room)
	}
}

// read takes input until the connection ends.
func (c *client) read(s *session) {
	defer c.close()
	buf := buffers.Get().(*[wire.MaxData]byte)
	defer buffers.Put(buf)
	open := c.stdin
	for {
		kind, p, err := wire.ReadData(c.conn, buf[:])
		if err != nil || (kind == wire.CloseStdin && open) {
			if open {
				s.stdinDone()
				open = false
			}
			if err != nil {
				return
			}
		}
		if kind == wire.Stdin && open {
			s.input(p, c.gone)
		}
	}
}
