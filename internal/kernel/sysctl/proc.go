package sysctl

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// instance is a procfs of our own, mounted nowhere. The kernel keeps what was
// looked up below /proc/sys/net, for all namespaces with the same names in the
// same place, so that every look-up goes past those of all containers. Ours is
// replaced by a fresh one before that is many.
type instance struct {
	mu      sync.Mutex
	fd      int
	left    int  // how often it is still to be used
	refused bool // we may not have one: the machine's is used
}

// lifetime is how many files are opened by way of one instance.
const lifetime = 256

var proc instance

// open opens a setting, of the calling thread's namespace.
func (p *instance) open(name string, flags int) (*os.File, error) {
	path := filepath.Join(root, name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		p.renew()
	}
	p.left--
	if p.refused {
		return os.OpenFile(path, flags, 0)
	}
	fd, err := unix.Openat(p.fd, "sys/net/"+name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (p *instance) renew() {
	if old := p.fd; old > 0 {
		go unix.Close(old) // the kernel waits for all that may look at it
	}
	p.left = lifetime
	var err error
	p.fd, err = mount()
	p.refused = err != nil
}

func mount() (int, error) {
	ctx, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return 0, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
