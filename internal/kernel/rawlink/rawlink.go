// Package rawlink sends and receives whole frames on a link of this machine, with their
// checksums left to whoever puts them on the wire: the kernel, or the network card. That
// is how most of what containers send goes out, so it is how to find out what becomes of it.
//
// What is sent bears a mark, by which the firewall knows that it is isled's.
package rawlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Wire is a socket on one link. Send and Receive may be called at the same time, each by
// one goroutine.
type Wire struct {
	file  *os.File
	index int
}

// The header that the kernel has before each frame (linux/virtio_net.h): flags, kind of
// segments, two lengths, and where the checksum begins and goes.
const (
	headerLen  = 10
	needsSum   = 1
	startAt    = 6
	offsetAt   = 8
	protocolV6 = 0xdd86 // ETH_P_IPV6 in network byte order, on the machines that Isle is for
)

// Open opens one in the calling thread's namespace. It hears IPv6 only.
func Open(link string, mark uint32) (*Wire, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("open link %s: %w", link, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open link %s: %w", link, err)
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocolV6, Ifindex: i.Index}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open link %s: %w", link, err), unix.Close(fd))
	}
	return &Wire{os.NewFile(uintptr(fd), "rawlink "+link), i.Index}, nil
}

// Close ends it, and a Receive that waits.
func (w *Wire) Close() error { return w.file.Close() }

// Send sends a frame. Its checksum is over what is from start on, and goes to offset there.
func (w *Wire) Send(frame []byte, start, offset uint16) error {
	b := make([]byte, headerLen, headerLen+len(frame))
	b[0] = needsSum
	binary.NativeEndian.PutUint16(b[startAt:], start)
	binary.NativeEndian.PutUint16(b[offsetAt:], offset)
	rc, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = rc.Control(func(fd uintptr) {
		failed = unix.Sendto(int(fd), append(b, frame...), unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: w.index, Halen: 6})
	})
	return errors.Join(err, failed)
}

// Receive waits for a frame. summed is false for one that has not been on any wire, so
// that nobody has computed its checksum. It fails when the link goes.
func (w *Wire) Receive(b []byte) (n int, summed bool, err error) {
	rc, err := w.file.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var head [headerLen]byte
	for {
		var failed error
		err = rc.Read(func(fd uintptr) bool {
			n, _, _, _, failed = unix.RecvmsgBuffers(int(fd), [][]byte{head[:], b}, nil, unix.MSG_DONTWAIT)
			return !errors.Is(failed, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return 0, false, err
		case errors.Is(failed, unix.EINTR), errors.Is(failed, unix.EINVAL), failed == nil && n < headerLen: // several segments in one: none of ours
		case failed != nil:
			return 0, false, failed
		default:
			return n - headerLen, head[0]&needsSum == 0, nil
		}
	}
}
