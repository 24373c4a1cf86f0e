package foreign

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"isle/internal/ruleset"
)

// getsockopt(2) of linux/netfilter_ipv4/ip_tables.h; ip6_tables.h has the same
// numbers.
const (
	soGetInfo    = 64
	soGetEntries = 65

	nameLen = 32
	infoLen = nameLen + 4 + 5*4 + 5*4 + 4 + 4
	hookFwd = 2
)

// world is where a family keeps its tables.
type world struct {
	family, names string
	socket, level int
	targetAt      int // where an entry says where its target is
}

var worlds = []world{
	{"ip", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 88},
	{"ip6", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 140},
}

// legacy are the tables of iptables-legacy in the calling thread's namespace.
func legacy() (out []ruleset.Legacy, err error) {
	for _, w := range worlds {
		names, err := os.ReadFile(w.names)
		if errors.Is(err, os.ErrNotExist) {
			continue // the kernel has none
		}
		if err != nil {
			return nil, err
		}
		for _, name := range strings.Fields(string(names)) {
			l, err := w.table(name)
			if err != nil {
				return nil, fmt.Errorf("read %s table %s of iptables-legacy: %w", w.family, name, err)
			}
			out = append(out, l)
		}
	}
	return out, nil
}

func (w world) table(name string) (l ruleset.Legacy, err error) {
	l = ruleset.Legacy{Family: w.family, Table: name}
	fd, err := unix.Socket(w.socket, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return l, err
	}
	defer unix.Close(fd)
	info := make([]byte, infoLen)
	copy(info, name)
	if err := getsockopt(fd, w.level, soGetInfo, info); err != nil {
		return l, err
	}
	field := func(i int) uint32 { return binary.NativeEndian.Uint32(info[nameLen+4*i:]) }
	hooks, policyAt, entries, size := field(0), field(6+hookFwd), field(11), field(12)
	l.Rules = max(int(entries)-bits.OnesCount32(hooks)-1, 0)
	if hooks&(1<<hookFwd) == 0 {
		return l, nil
	}
	const head = nameLen + 8
	all := make([]byte, head+int(size))
	copy(all, name)
	binary.NativeEndian.PutUint32(all[nameLen:], size)
	if err := getsockopt(fd, w.level, soGetEntries, all); err != nil {
		return l, err
	}
	l.ForwardDrop = w.drops(all[head:], int(policyAt))
	return l, nil
}

// drops reports whether the entry at a place is a policy of drop: its target is a
// head of 32 bytes and a verdict.
func (w world) drops(entries []byte, at int) bool {
	if at+w.targetAt+2 > len(entries) {
		return false
	}
	target := at + int(binary.NativeEndian.Uint16(entries[at+w.targetAt:])) + 32
	return target+4 <= len(entries) && int32(binary.NativeEndian.Uint32(entries[target:])) == -1
}

func getsockopt(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
