package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
	"isle/internal/netspec"
)

// Frames sends and receives packets of IP in frames of one link, whichever addresses
// they have: also those that this host would not take, or not send that way. Of what
// comes only UDP to one port is shown, which the host gets nevertheless.
type Frames struct {
	file  *os.File
	raw   syscall.RawConn
	index int32
	typ   uint16

	mu sync.Mutex
	rt *rtnl.Conn
}

// Frames opens a socket for one family on a link of the host.
func (k *Kernel) Frames(link string, v6 bool, port uint16) (*Frames, error) {
	f := &Frames{typ: unix.ETH_P_IP}
	if v6 {
		f.typ = unix.ETH_P_IPV6
	}
	err := netns.Visit(k.host, func() (err error) {
		if f.rt, err = rtnl.Open(nil); err != nil {
			return err
		}
		if f.index, err = f.rt.Index(link); err != nil {
			return err
		}
		return f.open(udpTo(v6, port))
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", link, err), f.Close())
	}
	return f, nil
}

// open binds last: before, nothing comes in, so nothing has passed no filter.
func (f *Frames) open(program []bpf.Instruction) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f.file = os.NewFile(uintptr(fd), "frames")
	if f.raw, err = f.file.SyscallConn(); err != nil {
		return err
	}
	code, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filters := make([]unix.SockFilter, len(code))
	for i, c := range code {
		filters[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network16(f.typ), Ifindex: int(f.index)})
}

// udpTo lets packets to a port pass whose headers have no options.
func udpTo(v6 bool, port uint16) []bpf.Instruction {
	proto, dport, version, mask := uint32(9), uint32(22), uint32(0x45), uint32(0xff)
	if v6 {
		proto, dport, version, mask = 6, 42, 0x60, 0xf0
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: version, SkipTrue: 5},
		bpf.LoadAbsolute{Off: proto, Size: 1}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: dport, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16}, bpf.RetConstant{Val: 0},
	}
}

// network16 is a number in network order.
func network16(n uint16) uint16 { return n<<8 | n>>8 }

// Send sends a packet to a station.
func (f *Frames) Send(packet []byte, to netspec.MAC) error {
	at := &unix.SockaddrLinklayer{Protocol: network16(f.typ), Ifindex: int(f.index), Halen: 6}
	copy(at.Addr[:], to[:])
	var failed error
	err := f.raw.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), packet, unix.MSG_DONTWAIT, at)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// Receive waits for a packet to this host. It ends with an error after Close, and when
// the link goes down.
func (f *Frames) Receive(b []byte) (n int, from netspec.MAC, err error) {
	for {
		var at unix.Sockaddr
		var failed error
		err := f.raw.Read(func(fd uintptr) bool {
			n, at, failed = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if errors.Is(failed, unix.EINTR) {
			continue
		}
		if err = errors.Join(err, failed); err != nil {
			return 0, from, err
		}
		if ll, ok := at.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_HOST && ll.Halen == 6 {
			copy(from[:], ll.Addr[:])
			return n, from, nil
		}
	}
}

// Station is where a neighbour is. While that is not known it is asked for.
func (f *Frames) Station(a netip.Addr) (netspec.MAC, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rt.Station(f.index, a)
}

// Close ends Receive.
func (f *Frames) Close() error {
	if f.rt != nil {
		f.rt.Close()
	}
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
