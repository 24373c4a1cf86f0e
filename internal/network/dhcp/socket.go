package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// socket sends and receives the frames of one kind on the interface.
type socket interface {
	send(frame []byte) error
	// frames is closed when the interface fails or the socket is closed.
	frames() <-chan frame
	// local is the interface's link-local IPv6 address.
	local() netip.Addr
	close()
}

// frame is one as it came, with its Ethernet header.
type frame struct {
	data []byte
	// partial: the sender, on this machine, left the checksum to the hardware.
	partial bool
}

const (
	// longest is more than a frame of any Ethernet without jumbo frames, which
	// no answer of ours needs; what is longer is dropped.
	longest = 2048
	// waiting frames are dropped beyond this many: a flood costs no memory.
	waiting = 64
)

// auxiliaryLen is the size of struct tpacket_auxdata.
const auxiliaryLen = 20

// packet is a socket of AF_PACKET.
type packet struct {
	file  *os.File
	index int
	addr  netip.Addr
	in    chan frame
	stop  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

// openSocket opens one in the namespace; from there on it is of any thread.
func (c Config) openSocket(f filter) (socket, error) {
	p := &packet{in: make(chan frame, waiting), stop: make(chan struct{})}
	if err := c.Do(func() error { return p.open(c.Interface, f) }); err != nil {
		return nil, err
	}
	if !p.addr.IsValid() {
		p.addr = linkLocal(c.MAC)
	}
	p.wg.Go(p.read)
	return p, nil
}

func (p *packet) open(name string, f filter) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("%s is not there: %w", name, errdefs.ErrNotFound)
	}
	if ifi.Flags&net.FlagUp == 0 {
		return fmt.Errorf("%s is down: %w", name, errdefs.ErrUnavailable)
	}
	p.index, p.addr = ifi.Index, kernelLinkLocal(ifi)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	if err := p.prepare(fd, f); err != nil {
		return errors.Join(fmt.Errorf("packet socket on %s: %w", name, err), unix.Close(fd))
	}
	p.file = os.NewFile(uintptr(fd), "packet")
	return nil
}

// prepare binds last: before, nothing comes in, so nothing has passed no filter.
func (p *packet) prepare(fd int, f filter) error {
	program, err := f.assemble()
	if err != nil {
		return err
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return err
	}
	for _, g := range f.groups {
		m := unix.PacketMreq{Ifindex: int32(p.index), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
		copy(m.Address[:], g[:])
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return err
		}
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap(f.protocol), Ifindex: p.index})
}

// swap turns a number into network byte order on the machines that Isle is for.
func swap(n uint16) uint16 { return n<<8 | n>>8 }

func kernelLinkLocal(ifi *net.Interface) netip.Addr {
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Is6() && !ip.Is4In6() && ip.IsLinkLocalUnicast() {
				return ip
			}
		}
	}
	return netip.Addr{}
}

func (p *packet) local() netip.Addr    { return p.addr }
func (p *packet) frames() <-chan frame { return p.in }

func (p *packet) send(b []byte) error {
	rc, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = rc.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: p.index, Halen: 6})
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// read ends when the interface goes down or away: the kernel says that once.
func (p *packet) read() {
	defer close(p.in)
	rc, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, longest), make([]byte, unix.CmsgSpace(auxiliaryLen))
	for {
		var n, oobn, flags int
		var failed error
		err := rc.Read(func(fd uintptr) bool {
			n, oobn, flags, _, failed = unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if errors.Is(failed, unix.EINTR) {
			continue
		}
		if err != nil || failed != nil {
			return
		}
		if flags&unix.MSG_TRUNC == 0 && !p.pass(buf[:n], oob[:oobn]) {
			return
		}
	}
}

// pass hands a frame on; false: the socket is closed.
func (p *packet) pass(b, oob []byte) bool {
	select {
	case <-p.stop:
		return false
	case p.in <- frame{append([]byte(nil), b...), partial(oob)}:
	default:
	}
	return true
}

// partial is what the kernel says of the checksum of a frame.
func partial(oob []byte) bool {
	cs, err := unix.ParseSocketControlMessage(oob)
	return err == nil && slices.ContainsFunc(cs, func(c unix.SocketControlMessage) bool {
		return c.Header.Level == unix.SOL_PACKET && c.Header.Type == unix.PACKET_AUXDATA && len(c.Data) >= auxiliaryLen &&
			binary.NativeEndian.Uint32(c.Data)&unix.TP_STATUS_CSUMNOTREADY != 0
	})
}

func (p *packet) close() {
	p.once.Do(func() {
		close(p.stop)
		_ = p.file.Close()
	})
	p.wg.Wait()
}
