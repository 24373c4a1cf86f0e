package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	tcpIdle   = 10 * time.Second // between two questions of a connection
	tcpWrite  = 5 * time.Second  // for a client to take an answer
	tcpConns  = 32               // of one client at a time
	inFlight  = 128              // forwarded questions of one client at a time
	queryRoom = 1500             // the largest question that is read
)

// Server holds the records and answers on the listeners that it is given.
// Its methods may be called concurrently.
type Server struct {
	Log  *slog.Logger // required
	Host *HostConfig  // name servers of the host; nil: none

	cur atomic.Pointer[Records]

	mu        sync.Mutex // one change of cur at a time; guards listeners
	listeners map[string]*listener
	closed    bool
	wg        sync.WaitGroup
}

// SetZone makes a network known.
func (s *Server) SetZone(id string, z Zone) {
	s.change(func(r *Records) *Records { return r.withZone(id, z) })
}

// DropZone forgets a network and its hosts.
func (s *Server) DropZone(id string) {
	s.change(func(r *Records) *Records { return r.withoutZone(id) })
}

// Change takes hosts away and adds others, all at once.
func (s *Server) Change(drop, add []Host) {
	s.change(func(r *Records) *Records {
		for _, h := range drop {
			r = r.withoutHost(h)
		}
		for _, h := range add {
			r = r.withHost(h)
		}
		return r
	})
}

func (s *Server) change(fn func(*Records) *Records) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.Store(fn(s.Records()))
}

// Records is what is known now.
func (s *Server) Records() *Records {
	if r := s.cur.Load(); r != nil {
		return r
	}
	return newRecords()
}

// Attach answers a client on its listeners until Detach or Close.
func (s *Server) Attach(id string, udp net.PacketConn, tcp net.Listener, c Client) {
	l := &listener{s: s, udp: udp, tcp: tcp, conns: map[net.Conn]struct{}{}, slots: make(chan struct{}, inFlight)}
	l.client.Store(&c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		l.close()
		return
	}
	if s.listeners == nil {
		s.listeners = map[string]*listener{}
	}
	if old := s.listeners[id]; old != nil {
		old.close()
	}
	s.listeners[id] = l
	l.ctx, l.cancel = context.WithCancel(context.Background())
	s.wg.Go(l.serveUDP)
	s.wg.Go(l.serveTCP)
}

// SetClient changes who a listener's client is; false: there is no listener.
func (s *Server) SetClient(id string, c Client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.listeners[id]
	if ok {
		l.client.Store(&c)
	}
	return ok
}

// Detach stops answering a client.
func (s *Server) Detach(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.listeners[id]; ok {
		delete(s.listeners, id)
		l.close()
	}
}

// Close stops answering and waits until all that was begun has ended.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for id, l := range s.listeners {
		delete(s.listeners, id)
		l.close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// listener is one client's.
type listener struct {
	s      *Server
	udp    net.PacketConn
	tcp    net.Listener
	client atomic.Pointer[Client]
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // one for each forwarded question

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	done  bool
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	if l.cancel != nil {
		l.cancel()
	}
	_ = l.udp.Close()
	_ = l.tcp.Close()
	for c := range l.conns {
		_ = c.Close()
	}
}

// serveUDP answers what is ours at once and lets others wait elsewhere. It
// reads every datagram once, whatever is in it.
func (l *listener) serveUDP() {
	buf := make([]byte, queryRoom)
	for {
		n, from, err := l.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !pause(l.ctx) {
				return
			}
			continue
		}
		l.answerUDP(buf[:n], from)
	}
}

func (l *listener) answerUDP(packet []byte, from net.Addr) {
	q, c := parse(packet), l.client.Load()
	if q == nil {
		return
	}
	send := func(resp *dns.Msg) {
		resp.Truncate(size(q))
		if b, err := resp.Pack(); err == nil {
			_, _ = l.udp.WriteTo(b, from) // it may be gone
		}
	}
	resp, forward := l.s.Records().reply(*c, q)
	switch {
	case forward:
		l.forward(*c, q, false, send)
	case resp != nil:
		send(resp)
	}
}

// forward asks outside in a goroutine of its own. A client that asks more than
// its share is told so at once.
func (l *listener) forward(c Client, q *dns.Msg, tcp bool, send func(*dns.Msg)) {
	select {
	case l.slots <- struct{}{}:
	default:
		send(failed(q))
		return
	}
	l.s.wg.Go(func() {
		defer func() { <-l.slots }()
		send(l.s.ask(l.ctx, c, q, tcp))
	})
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
		if !l.admit(c) {
			_ = c.Close()
			continue
		}
		l.s.wg.Go(func() { l.converse(c) })
	}
}

func (l *listener) admit(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || len(l.conns) >= tcpConns {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

// converse answers the questions of one connection, one after another. Each
// has its deadline, so a client that is slow keeps nobody but itself.
func (l *listener) converse(c net.Conn) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
		_ = c.Close()
	}()
	for {
		if err := c.SetDeadline(time.Now().Add(tcpIdle)); err != nil {
			return
		}
		q := readTCP(c)
		if q == nil {
			return
		}
		client := *l.client.Load()
		resp, forward := l.s.Records().reply(client, q)
		if forward {
			resp = l.s.ask(l.ctx, client, q, true)
		}
		if resp == nil || c.SetDeadline(time.Now().Add(tcpWrite)) != nil || writeTCP(c, resp) != nil {
			return
		}
	}
}

func readTCP(c net.Conn) *dns.Msg {
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return nil
	}
	b := make([]byte, min(int(binary.BigEndian.Uint16(n[:])), queryRoom))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil
	}
	return parse(b)
}

func writeTCP(c net.Conn, m *dns.Msg) error {
	b, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(b)+2), uint16(len(b))), b...))
	return err
}

// parse reads a question. Nil: it is none, and nothing is answered.
func parse(b []byte) *dns.Msg {
	q := new(dns.Msg)
	if err := q.Unpack(b); err != nil || q.Response {
		return nil
	}
	return q
}

// pause is for errors of a socket that may pass; false: it is closed.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}
