package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	apitypes "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"isle/internal/container"
)

// shm is the directory to be seen at /dev/shm: that of the host, or one that is
// shared with others. "" is a memory of the container's own, which needs no
// mount on the host.
func (e *Engine) shm(rec container.Record) (string, error) {
	mode := rec.Host.IpcMode
	switch {
	case mode.IsHost():
		return "/dev/shm", nil
	case mode.IsShareable():
		return e.mountShm(rec)
	case mode.IsContainer():
		donor, err := e.sharer("IPC", mode.Container())
		if err != nil {
			return "", err
		}
		if donor.Host.IpcMode.IsHost() {
			return "/dev/shm", nil
		}
		if !donor.Host.IpcMode.IsShareable() {
			return "", invalid("can't join IPC of container %s: non-shareable IPC (hint: use IpcMode:%s for the donor container)", donor.Name, apitypes.IPCModeShareable)
		}
		return e.shmPath(donor.ID), nil
	}
	return "", nil
}

func (e *Engine) shmPath(id string) string { return filepath.Join(e.Config.RunDir, "shm", id) }

func (e *Engine) mountShm(rec container.Record) (string, error) {
	dir := e.shmPath(rec.ID)
	if err := e.unmountShm(rec.ID); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("shared memory: %w", err)
	}
	opts := fmt.Sprintf("mode=1777,size=%d", rec.Host.ShmSize)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		return "", fmt.Errorf("shared memory: mount: %w", err)
	}
	return dir, nil
}

// unmountShm takes the shared memory away. One that is not there is no error.
func (e *Engine) unmountShm(id string) error {
	dir := e.shmPath(id)
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("shared memory: unmount: %w", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("shared memory: %w", err)
	}
	return nil
}
