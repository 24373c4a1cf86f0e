package dns

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tcpIdle  = 10 * time.Second // between two questions of a connection
	tcpRead  = 2 * time.Second  // for a question to come in whole
	tcpWrite = 5 * time.Second  // for a client to take an answer
	tcpConns = 32               // of one client at a time
)

// conn is one connection. Its questions are answered as soon as each can be,
// in any order (RFC 7766): one that waits for a server holds up no other.
type conn struct {
	net.Conn
	used    atomic.Int64   // when it last asked
	waiting sync.WaitGroup // for answers from outside
	writing sync.Mutex
}

func (l *listener) serveTCP() {
	for {
		c, err := l.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !pause(l.ctx) {
				return
			}
			continue
		}
		l.admit(c)
	}
}

// admit serves a connection. If there are too many, the one that has been idle
// for longest makes room: new ones are never kept out by old ones.
func (l *listener) admit(nc net.Conn) {
	c := &conn{Conn: nc}
	c.used.Store(time.Now().UnixNano())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		_ = c.Close()
		return
	}
	if len(l.conns) >= tcpConns {
		old := l.idlest()
		delete(l.conns, old)
		_ = old.Close()
	}
	l.conns[c] = struct{}{}
	l.s.wg.Go(func() { l.read(c) })
}

func (l *listener) idlest() (old *conn) {
	for c := range l.conns {
		if old == nil || c.used.Load() < old.used.Load() {
			old = c
		}
	}
	return old
}

// read takes questions until the client has no more, and then lets those be
// answered that wait: it may have closed its side only.
func (l *listener) read(c *conn) {
	defer func() {
		c.waiting.Wait()
		_ = c.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
	}()
	in := bufio.NewReaderSize(c, 512)
	for buf := make([]byte, queryRoom); ; {
		packet, err := c.next(in, buf)
		if err != nil {
			return
		}
		q, ok := parse(packet, true)
		if !ok {
			return
		}
		c.used.Store(time.Now().UnixNano())
		l.converse(c, &q)
	}
}

func (l *listener) converse(c *conn, q *query) {
	answer, pend := l.answer(make([]byte, 2, 512), q)
	if pend == nil {
		c.write(answer)
		return
	}
	c.waiting.Add(1)
	l.ask(pend, *q, func(b []byte) {
		defer c.waiting.Done()
		c.write(append(make([]byte, 2, 2+len(b)), b...))
	})
}

// next reads a question. It has to come in whole within a time, however slowly
// its bytes drip.
func (c *conn) next(in *bufio.Reader, buf []byte) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(tcpIdle)); err != nil {
		return nil, err
	}
	head, err := in.Peek(2)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head))
	if n > len(buf) { // options and padding
		buf = make([]byte, n)
	}
	_, _ = in.Discard(2)
	if in.Buffered() < n {
		if err := c.SetReadDeadline(time.Now().Add(tcpRead)); err != nil {
			return nil, err
		}
	}
	_, err = io.ReadFull(in, buf[:n])
	return buf[:n], err
}

// write sends b, which has room for its size in front. Who does not take
// answers is cut off.
func (c *conn) write(b []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	err := c.SetWriteDeadline(time.Now().Add(tcpWrite))
	if err == nil {
		_, err = c.Write(b)
	}
	if err != nil {
		_ = c.Close()
	}
}
