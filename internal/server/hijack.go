package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types"

	isle "isle/internal/container"
)

const (
	partingTime = 2 * time.Second        // to write what is left when isled stops
	pulse       = 500 * time.Millisecond // between looks whether the client is there
)

// session is a connection that carries a conversation with a process: attach
// and exec, over a hijacked connection or a WebSocket.
//
// net/http does not watch a connection that it has handed over, and the end of
// input does not mean that the client has left: most clients close their side
// when their stdin ends and go on reading. So a session looks for itself, and
// cancels its context when the client is gone.
type session struct {
	s      *Server
	a      *answer
	r      *http.Request
	ctx    context.Context
	cancel context.CancelFunc

	out    *output // nil until open
	conn   net.Conn
	ws     *webSocket // nil when conn is used as it is
	closed chan struct{}
	watch  sync.WaitGroup
}

func (s *Server) session(a *answer, r *http.Request) *session {
	ctx, cancel := context.WithCancel(r.Context())
	return &session{s: s, a: a, r: r, ctx: ctx, cancel: cancel, closed: make(chan struct{})}
}

// open takes the connection over and answers. It is what a backend calls when
// it is certain that there is a conversation.
func (x *session) open(tty bool) (isle.Streams, error) {
	in, err := x.take()
	if err != nil {
		return isle.Streams{}, err
	}
	if _, err := io.WriteString(x.conn, handshake(x.r, x.a, tty)); err != nil {
		return isle.Streams{}, gone(err)
	}
	x.out = newOutput(x.conn, tty)
	return x.out.streams(in), nil
}

// take is the connection, and what to read from it: net/http may have read ahead.
func (x *session) take() (io.Reader, error) {
	x.s.hijacked.Add(1)
	conn, rw, err := x.a.Hijack()
	if err != nil {
		x.s.hijacked.Done()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	x.conn = conn
	x.watch.Add(1)
	go x.watchClient()
	ahead, _ := rw.Reader.Peek(rw.Reader.Buffered())
	return io.MultiReader(bytes.NewReader(bytes.Clone(ahead)), conn), nil
}

// handshake is the header of the answer. Without a wish to upgrade it is one
// whose body is the stream, for clients that only read.
func handshake(r *http.Request, a *answer, tty bool) string {
	if r.Header.Get("Upgrade") == "" {
		a.status = http.StatusOK
		return "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n\r\n"
	}
	a.status = http.StatusSwitchingProtocols
	return "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + streamType(a.v, tty) + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
}

// watchClient ends the conversation when the client is gone or isled stops.
func (x *session) watchClient() {
	defer x.watch.Done()
	t := time.NewTicker(pulse)
	defer t.Stop()
	for {
		select {
		case <-x.closed:
			return
		case <-x.r.Context().Done():
			_ = x.conn.SetReadDeadline(time.Now())
			_ = x.conn.SetWriteDeadline(time.Now().Add(partingTime))
			return
		case <-t.C:
			if left(x.conn) {
				x.cancel()
				_ = x.conn.SetDeadline(time.Now())
				return
			}
		}
	}
}

// left reports whether nothing can be sent to the peer any more, by sending
// nothing. A peer that closed only its sending side is still there. TCP knows
// the difference only after something was sent, or by its keep-alives.
func left(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		_, err := syscall.SendmsgN(int(fd), nil, nil, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		gone = errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	})
	return gone || err != nil
}

// finish ends the session with the backend's result and returns the handler's.
func (x *session) finish(err error) error {
	defer x.cancel()
	if x.conn == nil {
		return err
	}
	defer x.s.hijacked.Done()
	if err != nil && x.out != nil && !errors.Is(err, errGone) && x.ctx.Err() == nil {
		x.out.fail(err)
	}
	if x.ws != nil {
		_ = x.ws.frame(wsClose, []byte{0x03, 0xE8}) // 1000: normal
	}
	x.hangUp()
	close(x.closed)
	x.watch.Wait()
	if err != nil {
		return fmt.Errorf("conversation: %w", err)
	}
	return nil
}

// hangUp closes the sending side first: closing with input unread would reset
// the connection and take away what the client has not read yet.
func (x *session) hangUp() {
	half, ok := x.conn.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil {
		drain(x.conn)
	}
	_ = x.conn.Close()
}

// drain reads what is on its way, for a moment at most.
func drain(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, _ = io.CopyN(io.Discard, c, 1<<20)
}
