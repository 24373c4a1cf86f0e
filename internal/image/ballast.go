package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ballastSize is kept allocated so that on a full disk there is something to
// throw out: removing anything from the databases needs some space first.
const ballastSize = 1 << 20

func (s *Service) ballast() string { return filepath.Join(s.cfg.Dir, "image", "ballast") }

// fillBallast allocates it, if there is room.
func (s *Service) fillBallast() error {
	f, err := os.OpenFile(s.ballast(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, ballastSize)
	switch {
	case errors.Is(err, unix.ENOSPC):
		return gone(os.Remove(s.ballast()))
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil
	}
	return err
}

// dropBallast gives the space back if little else is left.
func (s *Service) dropBallast() error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Dir, &st); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	if int64(st.Bavail)*st.Bsize > ballastSize {
		return nil
	}
	return gone(os.Remove(s.ballast()))
}

// gone is the error of a removal, unless somebody else has removed it.
func gone(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("image store: %w", err)
}
