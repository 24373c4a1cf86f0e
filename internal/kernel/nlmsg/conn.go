// Package nlmsg speaks netlink: messages, attributes, acknowledgements, dumps.
//
// It is not a library of objects: rtnl and nft know what the messages mean. It
// exists because those two need what the libraries hide: several messages in
// one sendmsg(2) with an error for each, batches without an acknowledgement
// for each element, and dumps that are never used when they were interrupted.
//
// Traps: a socket belongs for ever to the network namespace of the thread that
// opened it, whatever that thread does later, and keeps that namespace alive
// until it is closed. A Conn is for one goroutine at a time.
package nlmsg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Message is one netlink message; length, sequence and port are filled in.
type Message struct {
	Type  uint16
	Flags uint16 // without NLM_F_REQUEST
	Data  []byte
}

// Conn is a netlink socket.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// recvTimeout is far above what the kernel needs: it makes a lost answer an
// error instead of a hang.
const recvTimeout = 30 * time.Second

// Open opens a socket in the network namespace of the calling thread.
func Open(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(recvTimeout))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return &Conn{fd: fd, buf: make([]byte, 1<<16)}, nil
}

// Strict makes the kernel filter dumps by their header (one link's addresses).
func (c *Conn) Strict() error {
	return unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
}

// Close frees the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Join subscribes to a multicast group.
func (c *Conn) Join(group int) error {
	return unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
}

// Only has the kernel keep from this socket all messages of other types: who is told of
// many things for a few costs nothing then.
func (c *Conn) Only(typ uint16) error {
	at := uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, typ))) // the filter reads in network order
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4}, // nlmsg_type
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: at, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	return unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}

// Buffer makes room for notifications that nobody has read yet.
func (c *Conn) Buffer(bytes int) error {
	return unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
}

// FD is the descriptor, for poll(2).
func (c *Conn) FD() int { return c.fd }

// PortID is how the kernel names this socket in notifications.
func (c *Conn) PortID() uint32 {
	sa, err := unix.Getsockname(c.fd)
	if nl, ok := sa.(*unix.SockaddrNetlink); ok && err == nil {
		return nl.Pid
	}
	return 0
}

// Error is an answer of the kernel. Text is the kernel's own explanation.
type Error struct {
	Errno unix.Errno
	Text  string
}

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return e.Errno.Error() + ": " + e.Text
}

// Unwrap gives the errno, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

// Send sends messages with one call and returns the sequence number of the
// first; the others follow it.
func (c *Conn) Send(msgs []Message) (first uint32, err error) {
	first = c.seq + 1
	size := 0
	for _, m := range msgs {
		size += (unix.SizeofNlMsghdr + len(m.Data) + 3) &^ 3
	}
	b := make([]byte, 0, size)
	for _, m := range msgs {
		c.seq++
		b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(m.Data)))
		b = binary.NativeEndian.AppendUint16(b, m.Type)
		b = binary.NativeEndian.AppendUint16(b, m.Flags|unix.NLM_F_REQUEST)
		b = binary.NativeEndian.AppendUint32(b, c.seq)
		b = binary.NativeEndian.AppendUint32(b, 0)
		b = append(b, m.Data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	c.room(len(b), len(msgs))
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("send %d netlink messages: %w", len(msgs), err)
	}
	return first, nil
}

// answerRoom is what the kernel counts for an answer, however short it is.
const answerRoom = 1 << 10

// room raises the socket's buffers for many bytes and their answers.
func (c *Conn) room(bytes, msgs int) {
	if bytes < 100<<10 && msgs < 100 {
		return
	}
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes+1<<16) // Send reports what is still too large
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4*bytes+msgs*answerRoom)
}

// Answer is one message of the kernel. Done is the end of a dump; Err is set
// when it is an error, and nil for an acknowledgement.
type Answer struct {
	Type, Flags uint16
	Seq, Port   uint32
	Data        []byte // valid until the next Receive
	Err         error
}

// Receive reads one datagram.
func (c *Conn) Receive() ([]Answer, error) { return c.receive(0) }

// Ready reads one datagram that has come; without one it returns nothing.
func (c *Conn) Ready() ([]Answer, error) {
	as, err := c.receive(unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return nil, nil
	}
	return as, err
}

// receive passes over what did not come from the kernel: who has CAP_NET_ADMIN in the
// namespace, as some containers have in theirs, can send to any socket there.
func (c *Conn) receive(how int) ([]Answer, error) {
	for {
		n, _, flags, from, err := unix.Recvmsg(c.fd, c.buf, nil, how)
		sender, ok := from.(*unix.SockaddrNetlink)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, fmt.Errorf("receive from netlink: %w", err)
		case !ok || sender.Pid != 0:
			continue
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("receive from netlink: datagram of more than %d bytes", len(c.buf))
		}
		return split(c.buf[:n]), nil
	}
}

func split(b []byte) (out []Answer) {
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			break
		}
		a := Answer{
			Type: binary.NativeEndian.Uint16(b[4:]), Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq: binary.NativeEndian.Uint32(b[8:]), Port: binary.NativeEndian.Uint32(b[12:]),
			Data: b[unix.SizeofNlMsghdr:n],
		}
		if a.Type == unix.NLMSG_ERROR || a.Type == unix.NLMSG_DONE {
			a.Err = status(a)
		}
		out = append(out, a)
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

func status(a Answer) error {
	if len(a.Data) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(a.Data))
	if code == 0 || a.Type == unix.NLMSG_DONE && code > 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(-code)}
	if a.Flags&unix.NLM_F_ACK_TLVS != 0 && len(a.Data) > 4+unix.SizeofNlMsghdr {
		e.Text = Str(Find(a.Data[4+unix.SizeofNlMsghdr:], unix.NLMSGERR_ATTR_MSG))
	}
	return e
}

// Execute sends messages with one call and returns the error of each, in order.
// The kernel goes on after one that failed.
func (c *Conn) Execute(msgs ...Message) ([]error, error) {
	errs := make([]error, len(msgs))
	if len(msgs) == 0 {
		return errs, nil
	}
	for i := range msgs {
		msgs[i].Flags |= unix.NLM_F_ACK
	}
	first, err := c.Send(msgs)
	if err != nil {
		return nil, err
	}
	for left := len(msgs); left > 0; {
		as, err := c.Receive()
		if err != nil {
			return nil, err
		}
		for _, a := range as {
			if i := a.Seq - first; a.Type == unix.NLMSG_ERROR && i < uint32(len(msgs)) {
				errs[i] = a.Err
				left--
			}
		}
	}
	return errs, nil
}

// Do is Execute for one message.
func (c *Conn) Do(m Message) error {
	errs, err := c.Execute(m)
	if err != nil {
		return err
	}
	return errs[0]
}

// Get asks for one object and returns its message's data.
func (c *Conn) Get(m Message) ([]byte, error) {
	first, err := c.Send([]Message{m})
	if err != nil {
		return nil, err
	}
	for {
		as, err := c.Receive()
		if err != nil {
			return nil, err
		}
		for _, a := range as {
			if a.Seq != first {
				continue
			}
			if a.Type == unix.NLMSG_ERROR {
				return nil, a.Err
			}
			return append([]byte(nil), a.Data...), nil
		}
	}
}

const dumpTries = 10

// ErrInterrupted is a dump that changed while it was read, too often.
var ErrInterrupted = errors.New("netlink dump was interrupted by changes")

// Dump asks for all objects of a kind and returns their data. An interrupted
// dump is thrown away and asked for again.
func (c *Conn) Dump(m Message) ([][]byte, error) {
	m.Flags |= unix.NLM_F_DUMP
	for range dumpTries {
		out, whole, err := c.dumpOnce(m)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if whole && err == nil {
			return out, nil
		}
	}
	return nil, ErrInterrupted
}

func (c *Conn) dumpOnce(m Message) (out [][]byte, whole bool, err error) {
	first, err := c.Send([]Message{m})
	if err != nil {
		return nil, false, err
	}
	for whole = true; ; {
		as, err := c.Receive()
		if err != nil {
			return nil, false, err
		}
		for _, a := range as {
			if a.Seq != first {
				continue
			}
			whole = whole && a.Flags&unix.NLM_F_DUMP_INTR == 0
			if a.Type == unix.NLMSG_DONE || a.Type == unix.NLMSG_ERROR {
				return out, whole, a.Err
			}
			out = append(out, append([]byte(nil), a.Data...))
		}
	}
}
