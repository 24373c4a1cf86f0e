package rootfs

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	capabilityXattr = "security.capability"
	xattrRecord     = "SCHILY.xattr." // before the attribute's name in a tar's PAX records
)

// copied reports whether an attribute belongs to a file's content. Those of an
// overlay ("trusted.overlay.…") say where its data is: never to be believed.
func copied(name string) bool {
	return name == capabilityXattr || strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_")
}

func getxattr(f *os.File, name string) (string, bool) {
	b := make([]byte, 256)
	for {
		n, err := unix.Fgetxattr(int(f.Fd()), name, b)
		if err == unix.ERANGE && len(b) < 64<<10 {
			b = make([]byte, 4*len(b))
			continue
		}
		if err != nil {
			return "", false
		}
		return string(b[:n]), true
	}
}

// listxattr are the names of a file's attributes that are to be copied.
func listxattr(f *os.File) []string {
	b := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(f.Fd()), b)
	if err != nil {
		return nil
	}
	var names []string
	for _, name := range strings.Split(string(b[:n]), "\x00") {
		if copied(name) {
			names = append(names, name)
		}
	}
	return names
}

// setxattr sets an attribute of what an O_PATH descriptor stands for. A file
// system without attributes is no error: Docker's neither.
func setxattr(f *os.File, name, value string) error {
	err := unix.Setxattr(procFD(f), name, []byte(value), 0)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user.") {
		return nil
	}
	return os.NewSyscallError("setxattr", err)
}
