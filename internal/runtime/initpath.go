package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// InitPath is the program for containers that ask for an init: a copy of
// isle-shim in the run directory, which containers get as a read-only bind.
//
// It is a copy because of CVE-2019-5736: what runs inside a container can be
// reached there as /proc/self/exe. Were the mount to fail to hold, what is
// changed is this copy and not the parent of all containers; and as the copy's
// name tells the original's size and time, an upgrade makes a new one while
// running containers keep theirs.
func (c *Client) InitPath() (string, error) {
	src, err := os.Open(c.conf.ShimPath)
	if err != nil {
		return "", fmt.Errorf("copy init: %w", err)
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return "", fmt.Errorf("copy init: %w", err)
	}
	name := "init-" + strconv.FormatInt(st.Size(), 36) + "-" + strconv.FormatInt(st.ModTime().UnixNano(), 36)
	dst := filepath.Join(c.conf.RunDir, name)
	if have, err := os.Stat(dst); err == nil && have.Size() == st.Size() {
		return dst, nil
	}
	return dst, copyInit(src, dst)
}

func copyInit(src io.Reader, dst string) error {
	out, err := os.CreateTemp(filepath.Dir(dst), "init-*.tmp")
	if err != nil {
		return fmt.Errorf("copy init: %w", err)
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, src)
	if err = errors.Join(err, out.Chmod(0o555), out.Close()); err != nil {
		return fmt.Errorf("copy init: %w", err)
	}
	if err := os.Rename(out.Name(), dst); err != nil {
		return fmt.Errorf("copy init: %w", err)
	}
	return nil
}
