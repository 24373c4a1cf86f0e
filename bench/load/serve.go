package main

import (
	"net"

	"golang.org/x/sys/unix"
)

// serve discards what comes to sink and sends back what comes to echo. The two
// are apart because round trips are taken with client and server on one CPU,
// and throughput with each on its own.
func serve(sink, echo string) error {
	l, err := net.Listen("tcp4", sink)
	if err != nil {
		return err
	}
	go discard(l)
	return serveEcho(echo)
}

func discard(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 128<<10)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}()
	}
}

// serveEcho takes one connection after another, by bare system calls: Go's poller
// costs more than the way that is measured.
func serveEcho(addr string) error {
	if err := pin(); err != nil {
		return err
	}
	l, err := listen(addr)
	if err != nil {
		return err
	}
	for {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return err
		}
		echoAll(fd)
		unix.Close(fd)
	}
}

func echoAll(fd int) {
	buf := make([]byte, 64)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		if _, err := unix.Write(fd, buf[:n]); err != nil {
			return
		}
	}
}

func listen(addr string) (int, error) {
	to, err := sockaddr(addr)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, to); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 1024)
}
