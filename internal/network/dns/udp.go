package dns

import (
	"errors"
	"net"
	"sync"

	"golang.org/x/net/ipv4"
)

const (
	batch     = 8   // datagrams that are read and written by one system call
	queryRoom = 512 // the largest question that is read, as we tell clients
)

// serveUDP answers what is known at once and lets others wait elsewhere. It
// reads every datagram once, whatever is in it.
func (l *listener) serveUDP() {
	for in := newReader(l.udp); ; {
		err := in.read()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil && !pause(l.ctx) {
			return
		}
		l.answerAll(in)
	}
}

// answerAll answers the datagrams that were read, with one write.
func (l *listener) answerAll(in *reader) {
	if in.n == 0 {
		return
	}
	out := writers.Get().(*writer)
	defer writers.Put(out)
	out.reset()
	for i := range in.n {
		packet, from := in.datagram(i)
		q, ok := parse(packet, false)
		if !ok {
			continue
		}
		answer, pend := l.answer(out.room(), &q)
		if pend != nil {
			l.ask(pend, q, func(b []byte) { _, _ = l.udp.WriteTo(b, from) })
		}
		out.add(answer, from)
	}
	out.flush(in.conn, l.udp)
}

// reader reads several datagrams at a time, if the system can.
type reader struct {
	udp  net.PacketConn
	conn *ipv4.PacketConn // nil: one at a time
	msgs [batch]ipv4.Message
	n    int
}

func newReader(udp net.PacketConn) *reader {
	r := &reader{udp: udp}
	if c, ok := udp.(*net.UDPConn); ok {
		r.conn = ipv4.NewPacketConn(c)
	}
	room := make([]byte, batch*queryRoom)
	for i := range r.msgs {
		r.msgs[i].Buffers = [][]byte{room[i*queryRoom:][:queryRoom:queryRoom]}
	}
	return r
}

func (r *reader) read() (err error) {
	if r.conn != nil {
		r.n, err = r.conn.ReadBatch(r.msgs[:], 0)
		r.n = max(r.n, 0)
		return err
	}
	r.n = 0
	if r.msgs[0].N, r.msgs[0].Addr, err = r.udp.ReadFrom(r.msgs[0].Buffers[0]); err == nil {
		r.n = 1
	}
	return err
}

func (r *reader) datagram(i int) ([]byte, net.Addr) {
	m := &r.msgs[i]
	return m.Buffers[0][:m.N], m.Addr
}

// writer gathers answers in one buffer.
type writer struct {
	buf  []byte
	msgs [batch]ipv4.Message
	one  [batch][1][]byte
	n    int
}

var writers = sync.Pool{New: func() any { return &writer{buf: make([]byte, 0, batch*512)} }}

func (w *writer) reset() { w.buf, w.n = w.buf[:0], 0 }

// room is where the next answer is appended.
func (w *writer) room() []byte { return w.buf[len(w.buf):] }

func (w *writer) add(answer []byte, to net.Addr) {
	if len(answer) == 0 {
		return
	}
	if cap(answer) == cap(w.buf)-len(w.buf) { // it is in the buffer
		w.buf = w.buf[:len(w.buf)+len(answer)]
	}
	w.one[w.n][0] = answer
	w.msgs[w.n] = ipv4.Message{Buffers: w.one[w.n][:], Addr: to}
	w.n++
}

// flush writes; who is gone gets nothing.
func (w *writer) flush(conn *ipv4.PacketConn, udp net.PacketConn) {
	if conn == nil || w.n == 1 {
		for _, m := range w.msgs[:w.n] {
			_, _ = udp.WriteTo(m.Buffers[0], m.Addr)
		}
		return
	}
	for rest := w.msgs[:w.n]; len(rest) > 0; {
		n, err := conn.WriteBatch(rest, 0)
		if err != nil {
			n = 1 // the first one cannot be sent
		}
		rest = rest[n:]
	}
}
