// Package sysctl reads and writes /proc/sys/net of the calling thread's network
// namespace. The files are those of a /proc of our own: never a path inside a
// container's file system, where names lead where the container wants.
package sysctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const root = "/proc/sys/net"

// Read returns a value; name is below net, with slashes.
func Read(name string) (string, error) {
	if err := check(name); err != nil {
		return "", err
	}
	f, err := proc.open(name, os.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("read sysctl net/%s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("read sysctl net/%s: %w", name, err)
	}
	return clean(string(b)), nil
}

// Write sets a value unless it is there already: that makes it cheap to repeat
// and leaves a machine alone on which it may not be written. It returns what
// was there before.
func Write(name, value string) (old string, err error) {
	if old, err = Read(name); err == nil && old == clean(value) {
		return old, nil
	}
	if err := check(name); err != nil {
		return "", err
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) { // some values may only be written
		return "", err
	}
	f, err := proc.open(name, os.O_WRONLY)
	if err != nil {
		return "", fmt.Errorf("write sysctl net/%s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return "", fmt.Errorf("write %q to sysctl net/%s: %w", value, name, err)
	}
	return old, nil
}

func check(name string) error {
	if !filepath.IsLocal(name) || filepath.Clean(name) != name {
		return fmt.Errorf("sysctl net/%s: not a name", name)
	}
	return nil
}

// clean makes "4096\t131072\n" and "4096 131072" one value.
func clean(s string) string { return strings.Join(strings.Fields(s), " ") }
