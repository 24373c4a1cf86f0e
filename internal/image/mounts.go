package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"isle/internal/runtime"
)

// maxMountData is what mount(2) takes: a page, less the closing zero and some
// room for what a security module adds.
const maxMountData = 4096 - 256

// overlayMounts are the mounts of a writable layer in dir. Where the options
// would be too long for mount(2) the layers go by short links in the run
// directory, which is why this is worked out anew each time. Should even that
// be too long, who mounts can enter that directory first.
func (s *Service) overlayMounts(dir string, lower []string) ([]runtime.Mount, error) {
	upper := filepath.Join(dir, "upper")
	if len(lower) == 0 { // an image without layers: nothing to lay over
		return []runtime.Mount{{Type: "bind", Source: upper, Options: []string{"rbind", "rw"}}}, nil
	}
	opts := s.overlayOptions(lower, dir)
	if dataLen(opts) > maxMountData {
		short, err := s.shortNames(lower)
		if err != nil {
			return nil, fmt.Errorf("short names for layers: %w", err)
		}
		opts = s.overlayOptions(short, dir)
	}
	return []runtime.Mount{{Type: "overlay", Source: "overlay", Options: opts}}, nil
}

func (s *Service) overlayOptions(lower []string, dir string) []string {
	return append([]string{
		"lowerdir=" + strings.Join(lower, ":"),
		"upperdir=" + filepath.Join(dir, "upper"),
		"workdir=" + filepath.Join(dir, "work"),
	}, s.storage.options...)
}

func dataLen(opts []string) int { return len(strings.Join(opts, ",")) }

// shortNames makes a link for each directory, named after its snapshot.
func (s *Service) shortNames(dirs []string) ([]string, error) {
	at := s.linkDir()
	if err := os.MkdirAll(at, 0o711); err != nil {
		return nil, err
	}
	out := make([]string, len(dirs))
	for i, d := range dirs {
		out[i] = filepath.Join(at, filepath.Base(filepath.Dir(d))) // …/snapshots/<number>/fs
		if err := link(d, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Service) linkDir() string { return filepath.Join(s.cfg.RunDir, "l") }

func link(target, name string) error {
	err := os.Symlink(target, name)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if have, err := os.Readlink(name); err == nil && have == target {
		return nil
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.Symlink(target, name)
}

// dropLinks removes the short names of layers that are gone.
func (s *Service) dropLinks() error {
	entries, err := os.ReadDir(s.linkDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		name := filepath.Join(s.linkDir(), e.Name())
		if _, serr := os.Stat(name); errors.Is(serr, fs.ErrNotExist) {
			err = errors.Join(err, gone(os.Remove(name)))
		}
	}
	return err
}
