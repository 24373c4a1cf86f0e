// Package probe says what this machine's kernel can do, by trying. What it
// cannot do is a NotSupportedError, which is the only reason for a test to be
// skipped and for the product to choose another way.
package probe

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Features is what was found.
type Features struct {
	SockAddr bool // cgroup eBPF programs at connect, sendmsg, recvmsg and getpeername
	IPv6     bool // the kernel has IPv6
	Sources  bool // nftables can look at what bridges forward
	Guard    bool // eBPF programs can stand on bridges
	// SockAddrError says why SockAddr is false, for people.
	SockAddrError string
}

// NotSupportedError is a feature that this kernel, or this machine's set-up,
// does not have.
type NotSupportedError struct {
	Feature string
	Since   string // the kernel that brought it; empty when it is not that
	Err     error
}

func (e *NotSupportedError) Error() string {
	s := e.Feature + " is not supported by this kernel"
	if e.Since != "" {
		s += fmt.Sprintf(" (it came with Linux %s)", e.Since)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *NotSupportedError) Unwrap() error { return e.Err }

// NotSupported reports whether err is a NotSupportedError.
func NotSupported(err error) bool {
	var n *NotSupportedError
	return errors.As(err, &n)
}

// IPv6 reports whether sockets of IPv6 can be made.
func IPv6() bool {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return false
	}
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(s)
	return true
}
