package cluster

import (
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// distance is how far the segments are from each other.
type distance struct {
	delay time.Duration // each way
	loss  float64       // of the frames
	late  float64       // of the frames: those are overtaken by others
}

// delay keeps the segments apart on kernels that have no netem: the port r-west is cut,
// and what it would carry is carried by hand, from and to another port of the segment.
type delay struct{ router, segment *os.File }

const detour = `ip -n $S-switch link add d-west type veth peer name way
	ip -n $S-switch link set d-west master west up
	ip -n $S-switch link set way up
	ip -n $S-switch link set r-west nomaster`

const noDetour = `ip -n $S-switch link del d-west
	ip -n $S-switch link set r-west master west`

// apart moves the segments away from each other, until near.
func (s *site) apart(d distance) {
	s.t.Helper()
	if s.far != nil {
		s.near()
	}
	s.do(detour)
	far := &delay{}
	s.must(within("/run/netns/"+s.name+"-router", func() error { return whole("west") }))
	s.must(within("/run/netns/"+s.name+"-switch", func() (err error) {
		if err = whole("d-west"); err == nil {
			far.router, err = tap("r-west", false)
		}
		if err == nil {
			far.segment, err = tap("way", false)
		}
		return err
	}))
	go d.carry(far.router, far.segment)
	go d.carry(far.segment, far.router)
	s.far = far
}

func (s *site) near() {
	s.t.Helper()
	s.far.router.Close()
	s.far.segment.Close()
	s.far = nil
	s.do(noDetour)
}

// between is the port that is between the segments.
func (s *site) between() string {
	if s.far != nil {
		return "d-west"
	}
	return "r-west"
}

// carry takes frames from one place to another, until either is closed.
func (d distance) carry(from, to *os.File) {
	type frame struct {
		due time.Time
		b   []byte
	}
	way := make(chan frame, 4096)
	defer close(way)
	go func() {
		for f := range way {
			time.Sleep(time.Until(f.due))
			to.Write(f.b) // the other end has no carrier just now, or is closed: lost on the way
		}
	}()
	for buf := make([]byte, 1<<16); ; {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		f := frame{time.Now().Add(d.delay), slices.Clone(buf[:n])}
		switch chance := rand.Float64(); {
		case chance < d.loss:
		case chance < d.loss+d.late:
			time.AfterFunc(d.delay*5/4, func() { to.Write(f.b) })
		default:
			way <- f
		}
	}
}

// tap is all that comes in by a link, with both also what leaves by it, and the way out.
func tap(link string, both bool) (*os.File, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), link)
	if !both {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: i.Index})
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("tap "+link, err)
	}
	return f, nil
}

func networkOrder(n uint16) uint16 { return n<<8 | n>>8 }

// whole has frames that leave by a link be as they would be on a wire: of the size that
// fits, with their checksums.
func whole(link string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	off := struct{ command, value uint32 }{command: unix.ETHTOOL_STXCSUM}
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&off)}
	copy(request.name[:], link)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return os.NewSyscallError("checksums of "+link, errno)
	}
	return nil
}
