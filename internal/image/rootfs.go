package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	cfs "github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"isle/internal/ids"
	"isle/internal/runtime"
)

// The writable layer of a container is plain directories beside the
// snapshotter, because creating one must cost no database commit:
//
//	<dir>/rootfs/<container>/rootfs.json   what it stands on; written last
//	<dir>/rootfs/<container>/upper, work   for overlay
//
// What rootfs.json names is kept from collection by rootfsCollector, which
// reads these files: there is no second record that could disagree. With the
// native driver the layer is an active snapshot instead.
type rootfsRecord struct {
	Image    string             // id
	Manifest ocispec.Descriptor // its content is kept too, for commit
	ChainID  digest.Digest
	Lower    []string // directories, topmost first
}

const recordFile = "rootfs.json"

func (s *Service) rootfsDir(container string) string {
	return filepath.Join(s.cfg.Dir, "rootfs", container)
}

// PrepareRootfs makes the writable layer of a container. Idempotent.
func (s *Service) PrepareRootfs(ctx context.Context, container string, img Image) error {
	if !ids.Valid(container) {
		return fmt.Errorf("container id %q: %w", container, errdefs.ErrInvalidArgument)
	}
	ctx = s.context(ctx)
	if _, err := s.rootfs(container); err == nil {
		return nil
	}
	err := s.prepare(ctx, container, img)
	if errdefs.IsNotFound(err) {
		if err = s.unpackImage(ctx, img); err == nil {
			err = s.prepare(ctx, container, img)
		}
	}
	if err != nil {
		return fmt.Errorf("writable layer of %s: %w", ids.Short(container), errors.Join(err, os.RemoveAll(s.rootfsDir(container))))
	}
	return nil
}

// prepare excludes collection from looking at the layers below until they are
// recorded. Class NotFound: the image is not unpacked.
func (s *Service) prepare(ctx context.Context, container string, img Image) error {
	s.collect.RLock()
	defer s.collect.RUnlock()
	lower, err := s.lower(ctx, img.ChainID)
	if err != nil {
		return err
	}
	dir := s.rootfsDir(container)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if s.storage.overlay() {
		err = makeUpper(dir, lower)
	} else {
		_, err = s.snap.Prepare(ctx, nativeKey(container), string(img.ChainID))
		if errdefs.IsAlreadyExists(err) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return writeRecord(dir, rootfsRecord{Image: img.ID, Manifest: img.Manifest, ChainID: img.ChainID, Lower: lower})
}

func nativeKey(container string) string { return "rootfs-" + container }

// makeUpper makes the directories of an overlay. The upper one is what the
// container sees as "/", so it has owner and mode of the image's.
func makeUpper(dir string, lower []string) error {
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if len(lower) == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(lower[0], &st); err != nil {
		return fmt.Errorf("layer %s: %w", lower[0], err)
	}
	upper := filepath.Join(dir, "upper")
	if err := unix.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(upper, st.Mode&0o7777)
}

func writeRecord(dir string, r rootfsRecord) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, recordFile+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, recordFile))
}

// rootfs reads a record. Class NotFound when there is none.
func (s *Service) rootfs(container string) (rootfsRecord, error) {
	var r rootfsRecord
	b, err := os.ReadFile(filepath.Join(s.rootfsDir(container), recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("container %s has no writable layer: %w", ids.Short(container), errdefs.ErrNotFound)
	}
	if err != nil {
		return r, fmt.Errorf("writable layer of %s: %w", ids.Short(container), err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("writable layer of %s: %w: %w", ids.Short(container), err, errdefs.ErrDataLoss)
	}
	return r, nil
}

// RootfsMounts are the mounts of an existing writable layer.
func (s *Service) RootfsMounts(ctx context.Context, container string) ([]runtime.Mount, error) {
	r, err := s.rootfs(container)
	if err != nil {
		return nil, err
	}
	if s.storage.overlay() {
		return s.overlayMounts(s.rootfsDir(container), r.Lower)
	}
	mounts, err := s.snap.Mounts(s.context(ctx), nativeKey(container))
	if err != nil {
		return nil, fmt.Errorf("writable layer of %s: %w", ids.Short(container), err)
	}
	out := make([]runtime.Mount, len(mounts))
	for i, m := range mounts {
		out[i] = runtime.Mount{Type: m.Type, Source: m.Source, Options: m.Options}
	}
	return out, nil
}

// RemoveRootfs drops the layer. A missing one is no error.
func (s *Service) RemoveRootfs(ctx context.Context, container string) error {
	if !ids.Valid(container) {
		return fmt.Errorf("container id %q: %w", container, errdefs.ErrInvalidArgument)
	}
	ctx = s.context(context.WithoutCancel(ctx))
	r, recErr := s.rootfs(container)
	if !s.storage.overlay() {
		if err := s.snap.Remove(ctx, nativeKey(container)); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("writable layer of %s: %w", ids.Short(container), err)
		}
	}
	if err := os.RemoveAll(s.rootfsDir(container)); err != nil {
		return fmt.Errorf("writable layer of %s: %w", ids.Short(container), err)
	}
	if recErr != nil && !s.storage.overlay() || recErr == nil && s.orphaned(ctx, r) {
		return s.gc(ctx)
	}
	return nil
}

// orphaned reports whether the image of a layer is no longer in the list, so
// that only containers have kept it.
func (s *Service) orphaned(ctx context.Context, r rootfsRecord) bool {
	same, err := s.byTarget(ctx, digest.Digest(r.Image))
	return err == nil && len(same) == 0
}

// RootfsUsage is the size of the writable layer and of all below it, in bytes.
func (s *Service) RootfsUsage(ctx context.Context, container string) (rw, total int64, err error) {
	ctx = s.context(ctx)
	r, err := s.rootfs(container)
	if err != nil {
		return 0, 0, err
	}
	below, err := s.unpackedSize(ctx, r.ChainID)
	if err != nil {
		return 0, 0, err
	}
	if s.storage.overlay() {
		u, err := cfs.DiskUsage(ctx, filepath.Join(s.rootfsDir(container), "upper"))
		if err != nil {
			return 0, 0, fmt.Errorf("writable layer of %s: %w", ids.Short(container), err)
		}
		return u.Size, u.Size + below, nil
	}
	u, err := s.snap.Usage(ctx, nativeKey(container))
	if err != nil {
		return 0, 0, fmt.Errorf("writable layer of %s: %w", ids.Short(container), err)
	}
	return max(0, u.Size-below), u.Size, nil
}

// unpackedSize is the space that the snapshots of a chain take. With the
// native driver every snapshot contains the ones below it.
func (s *Service) unpackedSize(ctx context.Context, chain digest.Digest) (int64, error) {
	var total int64
	for name := string(chain); name != ""; {
		u, err := s.snap.Usage(ctx, name)
		if err != nil {
			return 0, fmt.Errorf("layer %s: %w", name, err)
		}
		total += u.Size
		info, err := s.snap.Stat(ctx, name)
		if err != nil {
			return 0, fmt.Errorf("layer %s: %w", name, err)
		}
		if name = info.Parent; !s.storage.overlay() {
			break
		}
	}
	return total, nil
}

// Rootfses are the containers that have a layer, or the beginning of one.
func (s *Service) Rootfses(context.Context) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, "rootfs"))
	if err != nil {
		return nil, fmt.Errorf("writable layers: %w", err)
	}
	var out []string
	for _, e := range entries {
		if ids.Valid(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// lowerCache remembers the directories of chains; they do not change until the
// next collection.
type lowerCache struct{ m sync.Map }

func (c *lowerCache) clear() { c.m.Clear() }

// lower are the directories that the snapshots of a chain consist of, topmost
// first. The caller holds collect for reading. Class NotFound: not unpacked.
func (s *Service) lower(ctx context.Context, chain digest.Digest) ([]string, error) {
	if v, ok := s.lowers.m.Load(chain); ok {
		return v.([]string), nil
	}
	var dirs []string
	for name := string(chain); name != ""; {
		info, err := s.snap.Stat(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		if info.Kind != snapshots.KindCommitted {
			return nil, fmt.Errorf("layer %s is not unpacked: %w", name, errdefs.ErrNotFound)
		}
		if s.storage.overlay() {
			dirs = append(dirs, info.Labels["containerd.io/snapshot/overlay.upperdir"])
		}
		name = info.Parent
	}
	s.lowers.m.Store(chain, dirs)
	return dirs, nil
}
