package main

import (
	"errors"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pin keeps the calling goroutine on CPU 0: to wake another CPU costs several
// times what the way costs, and varies more.
func pin() error {
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	var first unix.CPUSet
	first.Set(0)
	return unix.SchedSetaffinity(0, &first)
}

func sockaddr(addr string) (*unix.SockaddrInet4, error) {
	if strings.HasPrefix(addr, ":") {
		addr = "0.0.0.0" + addr
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, nil
}

// dial is a socket that blocks, for kind SOCK_STREAM or SOCK_DGRAM. No answer in
// a second is an error: EAGAIN, for a connection EINPROGRESS.
func dial(kind int, addr string) (int, error) {
	to, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	second := unix.Timeval{Sec: 1}
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &second))
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = reach(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// reach connects. A signal, by which Go's scheduler asks for the thread, breaks
// off a connect that has a time limit; the kernel goes on with it.
func reach(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	for err == unix.EINTR {
		var ready int
		ready, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000)
		if err == nil && ready == 0 {
			return unix.EINPROGRESS
		}
		if err == nil {
			return outcome(fd)
		}
	}
	return err
}

// outcome is how a connect ended.
func outcome(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && n != 0 {
		err = unix.Errno(n)
	}
	return err
}

// turn sends one byte and waits for it.
func turn(fd int, one []byte) error {
	if _, err := unix.Write(fd, one); err != nil {
		return err
	}
	for {
		n, err := unix.Read(fd, one)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.ECONNRESET
		}
		return err
	}
}

func ping(o options, addr string) (result, error) {
	if err := pin(); err != nil {
		return result{}, err
	}
	fd, err := dial(unix.SOCK_STREAM, addr)
	if err != nil {
		return result{}, err
	}
	defer unix.Close(fd)
	took, one, used := make([]time.Duration, 0, 1<<20), []byte{1}, ownCPU()
	for start := time.Now(); time.Since(start) < o.time; {
		sent := time.Now()
		if err := turn(fd, one); err != nil {
			return result{}, err
		}
		took = append(took, time.Since(sent))
	}
	r := quantiles(took)
	r.CPU = float64((ownCPU() - used).Nanoseconds()) / 1e3 / float64(max(1, len(took)))
	return r, nil
}

// connect closes by a reset: connections that wait for late packets would use
// up the ports.
func connect(o options, addr string) (result, error) {
	if err := pin(); err != nil {
		return result{}, err
	}
	one, start, n, used := []byte{1}, time.Now(), 0, ownCPU()
	for ; time.Since(start) < o.time; n++ {
		fd, err := dial(unix.SOCK_STREAM, addr)
		if err != nil {
			return result{}, err
		}
		err = turn(fd, one)
		if err == nil {
			err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		unix.Close(fd)
		if err != nil {
			return result{}, err
		}
	}
	return result{Rate: float64(n) / time.Since(start).Seconds(), Count: n, CPU: float64((ownCPU() - used).Nanoseconds()) / 1e3 / float64(max(1, n))}, nil
}

// quantiles sorts took.
func quantiles(took []time.Duration) result {
	if len(took) == 0 {
		return result{}
	}
	slices.Sort(took)
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return result{P50: us(took[len(took)/2]), P99: us(took[len(took)*99/100]), Count: len(took)}
}
