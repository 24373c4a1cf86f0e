package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	overlayName = "overlayfs"
	nativeName  = "native"
)

// storage is where unpacked layers are.
type storage struct {
	snapshots.Snapshotter
	name     string
	options  []string // of overlay mounts, besides the directories
	warnings []string
}

func (st storage) overlay() bool { return st.name == overlayName }

// openStorage chooses the snapshotter: overlay unless a real mount shows that
// it does not work here, or the configuration says otherwise.
func openStorage(c Config, root string) (storage, error) {
	switch c.StorageDriver {
	case "", "overlay", overlayName:
	case nativeName:
		return openNative(root, nil)
	default:
		return storage{}, fmt.Errorf("storage driver %q is neither overlay nor native: %w", c.StorageDriver, errdefs.ErrInvalidArgument)
	}
	options, err := probeOverlay(c.Dir)
	if err != nil {
		why := fmt.Sprintf("overlayfs cannot be used on %s: %v. Images are copied for every container (hint: put data-dir on ext4 or xfs)", c.Dir, err)
		if c.StorageDriver != "" {
			return storage{}, fmt.Errorf("storage driver overlay: %s: %w", why, errdefs.ErrFailedPrecondition)
		}
		return openNative(root, []string{why})
	}
	sn, err := overlay.NewSnapshotter(filepath.Join(root, overlayName), overlay.WithUpperdirLabel)
	if err != nil {
		return storage{}, fmt.Errorf("image store: overlay: %w", err)
	}
	return storage{Snapshotter: sn, name: overlayName, options: options}, nil
}

func openNative(root string, warnings []string) (storage, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return storage{}, fmt.Errorf("image store: %w", err)
	}
	sn, err := native.NewSnapshotter(filepath.Join(root, nativeName))
	if err != nil {
		return storage{}, fmt.Errorf("image store: native: %w", err)
	}
	return storage{Snapshotter: sn, name: nativeName, warnings: warnings}, nil
}

// wanted are mount options that keep upper directories self-contained:
// renames and changes of metadata are copied rather than recorded in xattrs
// that only the kernel understands, so that diff and commit see whole files.
var wanted = []string{"index=off", "redirect_dir=off", "metacopy=off"}

// probeOverlay mounts an overlay on dir and says with which options that works.
func probeOverlay(dir string) (options []string, err error) {
	if strings.ContainsAny(dir, `:,\`) {
		return nil, errors.New("the path has a ':', ',' or '\\' in it")
	}
	td, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(td)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(td, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := tryOverlay(td, nil); err != nil {
		return nil, err
	}
	for _, o := range wanted {
		if tryOverlay(td, []string{o}) == nil {
			options = append(options, o)
		}
	}
	return options, nil
}

// tryOverlay mounts, makes the whiteout that every image may need, and unmounts.
func tryOverlay(td string, options []string) error {
	at := func(n string) string { return filepath.Join(td, n) }
	data := append([]string{"lowerdir=" + at("lower"), "upperdir=" + at("upper"), "workdir=" + at("work")}, options...)
	if err := unix.Mount("overlay", at("merged"), "overlay", 0, strings.Join(data, ",")); err != nil {
		return err
	}
	werr := os.WriteFile(filepath.Join(at("merged"), "file"), nil, 0o600)
	if err := unix.Unmount(at("merged"), unix.MNT_DETACH); err != nil {
		return err
	}
	return werr
}
